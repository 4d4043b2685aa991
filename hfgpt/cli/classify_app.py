"""`hfgpt classify`: its commands, whose work is in modules of the floors below."""

from pathlib import Path
from typing import Annotated

import typer

from hfgpt.errors import UserError

from .options import RECIPE_ARGUMENTS

__all__ = ["classify_app"]


classify_app = typer.Typer(help="Train and use models that tell classes of text.", no_args_is_help=True)


@classify_app.command("train", context_settings=RECIPE_ARGUMENTS)
def train_classifier(context: typer.Context) -> None:
    """Finetune a model for classification: --config demo; --help lists every option."""
    from hfgpt.recipes.finetune_classification import main as run

    run(context.args)


@classify_app.command("ablate", context_settings=RECIPE_ARGUMENTS)
def ablate_classifier(context: typer.Context) -> None:
    """Finetune it in several ways and compare them in one table; --help lists every option."""
    from hfgpt.recipes.ablation import main as run

    run(context.args)


@classify_app.command("predict")
def predict_classes(
    model: Annotated[str, typer.Option(help="Folder or Hub id of a finetuned model.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts to classify. Default: the lines of standard input."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Classify the rows of a file: csv, tsv, jsonl, json, parquet, or txt with a text on each line; "
            "each also with .gz. It may be larger than memory (but for .json)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, .csv or .jsonl: the rows of --file, in their order, with all their columns, and added "
            "to them predicted_label, score, and the score of each class."
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the texts. Default: text, or the only column of strings.")
    ] = None,
    text_pair_column: Annotated[
        str | None, typer.Option(help="Column of the second texts, for a model that was trained on pairs.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the true classes, by name or number: the accuracy is printed.")
    ] = None,
    header: Annotated[
        bool,
        typer.Option(
            "--header/--no-header",
            help="Whether the first row of a csv or tsv file names its columns; else they are column_1, column_2, ...",
        ),
    ] = True,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Texts computed at once. Default: 32; halved where memory does not hold them."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, if there is one, after its last row.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there, when the new one is complete.")
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, for programs: an object for each text, or a summary of the file."),
    ] = False,
) -> None:
    """Tell the class of texts: a line each, or a file for a file.

    hfgpt classify predict --model runs/demo-classifier/final "You have won a prize"
    """
    from hfgpt.serving.classification import DEFAULT_BATCH_SIZE

    from .classify import predict_file, predict_texts

    of_files = {
        "--out": out, "--text-column": text_column, "--text-pair-column": text_pair_column,
        "--label-column": label_column, "--no-header": not header, "--resume": resume, "--overwrite": overwrite,
    }  # fmt: skip
    size = batch_size or DEFAULT_BATCH_SIZE
    if file is None:
        given = [option for option, value in of_files.items() if value]
        if given:
            raise UserError(f"{', '.join(given)} can only be used with a file: name it with --file.")
        predict_texts(model, texts or [], batch_size=size, as_json=json)
        return
    if texts:
        raise UserError("There are texts and a file: give either the one or the other.")
    if out is None:
        raise UserError("--file needs a file to write: name it with --out.")
    predict_file(
        model,
        file,
        out,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        header=header,
        batch_size=size,
        resume=resume,
        overwrite=overwrite,
        as_json=json,
    )

"""`hfgpt data`: its command, whose work is in `hfgpt.data.inspection`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["data_app"]


data_app = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)


@data_app.command("inspect")
def inspect_data(
    source: Annotated[
        str,
        typer.Argument(
            help="builtin:NAME; a file or folder (json, jsonl, csv, tsv, parquet, txt, also with .gz); or a Hub id."
        ),
    ],
    kind: Annotated[
        Literal["text", "labelled", "conversations"] | None,
        typer.Option(help="What the source holds. Default: as its columns say."),
    ] = None,
    form: Annotated[
        Literal["messages", "sharegpt", "prompt_completion", "alpaca"] | None,
        typer.Option(help="How conversations are written. Default: as their columns say."),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of texts. Default: text, or the only column of strings.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of classes. Default: label, labels, class, category or target.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split of a Hub or built-in source, one or several. Default: all.")
    ] = None,
    validation: Annotated[
        str | None, typer.Option(help="Source of the validation split, where it stands elsewhere.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Source of the test split, likewise.")] = None,
    validation_fraction: Annotated[
        float | None, typer.Option(help="Cut the source in its order, the last rows for validation, as the book does.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Likewise, the rows before them for test. The book's are 0.05 and 0.1.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id: lengths are counted in tokens, too.")] = None,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Whether texts are looked for that are nearly the same.")
    ] = True,
    threshold: Annotated[
        float, typer.Option(help="From which similarity on they are: Jaccard, of runs of five characters.")
    ] = 0.8,
    picture: Annotated[
        Path | None, typer.Option(help="Picture to write, the histogram of lengths: png, svg or pdf.")
    ] = None,
    name: Annotated[str | None, typer.Option(help='Configuration ("subset") of a Hub dataset.')] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Count, measure, and find duplicates within and between splits, and broken encodings.

    hfgpt data inspect instruction-data.json --validation-fraction 0.05 --test-fraction 0.1
    """
    from hfgpt.data.inspection_sources import SourceOptions

    from .data import inspect

    inspect(
        source,
        SourceOptions(kind, form, text_column, label_column, name, revision),
        splits=split or [],
        other_sources={part: given for part, given in (("validation", validation), ("test", test)) if given},
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        tokenizer_name=tokenizer,
        near=near,
        threshold=threshold,
        picture=picture,
        as_json=json,
    )

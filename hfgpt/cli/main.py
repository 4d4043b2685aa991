"""`hfgpt`: the commands and how they are told apart; each one's work is in a module of the floors below.

The modules that compute are imported inside the commands, so that `hfgpt --help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hfgpt.errors import UserError, exit_on_user_error
from hfgpt.recipes.weight_bars import hide_weight_bars
from hfgpt.serving.defaults import DEFAULT_TEMPERATURE, DEFAULT_TOP_K

__all__ = ["app", "main"]

app = typer.Typer(
    name="hfgpt",
    help="A GPT from scratch, at home in the Hugging Face ecosystem.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
classify_app = typer.Typer(help="Train and use models that tell classes of text.", no_args_is_help=True)
data_app = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)
tokenizer_app = typer.Typer(help="Make tokenizers.", no_args_is_help=True)
recipes_app = typer.Typer(help="The configurations that come with hfgpt.", no_args_is_help=True)
app.add_typer(classify_app, name="classify")
app.add_typer(data_app, name="data")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(recipes_app, name="recipes")

RECIPE_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def main() -> None:
    """Entry point of the `hfgpt` command."""
    hide_weight_bars()
    with exit_on_user_error():
        app()


@app.command(context_settings=RECIPE_ARGUMENTS)
def pretrain(context: typer.Context) -> None:
    """Train a model on text: --config demo; --help lists every option."""
    from hfgpt.recipes.pretrain import main as run

    run(context.args)


@app.command(context_settings=RECIPE_ARGUMENTS)
def instruct(context: typer.Context) -> None:
    """Finetune a model so that it answers: --config demo; --help lists every option."""
    from hfgpt.recipes.finetune_instruction import main as run

    run(context.args)


@app.command()
def generate(
    model: Annotated[str, typer.Option(help="Folder or Hub id of a model, hfgpt's or GPT-2's.")],
    prompt: Annotated[str, typer.Option(help="Text to continue; empty: begin a new document.")] = "",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest continuation, in tokens. Default: 200, or what the context has room for."),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="How many continuations.")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1: bolder choices are rarer; 0: none.")
    ] = DEFAULT_TEMPERATURE,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Choose among the so many likeliest tokens only.")
    ] = DEFAULT_TOP_K,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Choose among the likeliest tokens of this joint probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the continuations repeatable.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id, where the model has none beside it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a continuation, for programs.")] = False,
) -> None:
    """Continue a prompt, word by word as the model writes it."""
    from .generate import run

    run(
        model,
        prompt,
        tokenizer_name=tokenizer,
        max_new_tokens=max_new_tokens,
        num_samples=num_samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        as_json=json,
    )


@app.command()
def answer(
    model: Annotated[str, typer.Option(help="Folder or Hub id of a model that was finetuned for instructions.")],
    data: Annotated[
        str,
        typer.Option(
            help="Conversations: builtin:instructions; a file or folder (json, jsonl, parquet, csv, tsv, also with "
            ".gz); or a Hub id. Answers that stand in it are not shown to the model, but compared with its own."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write, .jsonl or .json: the records of --data, in their order, and added to each answer, and "
            "finished, which is false where the answer was cut off."
        ),
    ],
    split: Annotated[
        str, typer.Option(help="Split of a Hub or built-in source; builtin:instructions has a test split.")
    ] = "train",
    form: Annotated[
        Literal["messages", "sharegpt", "prompt_completion", "alpaca"] | None,
        typer.Option(help="How the conversations are written. Default: as their columns say."),
    ] = None,
    system_prompt: Annotated[
        str | None, typer.Option(help="A system message for conversations that have none.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id, where the model has none beside it.")] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Chat template: alpaca, phi3, chatml or a .jinja file. Default: the tokenizer's own."),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in tokens. Default: the model's own, else 200.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="0, the default: the likeliest token each time; above, tokens are drawn.")
    ] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the so many likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw from the likeliest tokens of this joint probability.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn: the same seed gives the same answers.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts computed at once. Default: 32; halved where memory does not hold them."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write the scores to this .json file, where the data has answers.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run, if there is one, after its last row.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there, when the new ones are complete.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, for programs.")] = False,
) -> None:
    """Answer a data set of conversations, and say how good the answers are: exact match, ROUGE-L and chrF.

    hfgpt answer --model runs/instruct-demo/final --data builtin:instructions --split test --out answers.jsonl
    """
    from hfgpt.serving.answering import DEFAULT_BATCH_SIZE

    from .answer import run

    run(
        model,
        data,
        out,
        split=split,
        form=form,
        system_prompt=system_prompt,
        tokenizer_name=tokenizer,
        template=template,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size or DEFAULT_BATCH_SIZE,
        report=report,
        resume=resume,
        overwrite=overwrite,
        as_json=json,
    )


@app.command()
def chat(
    model: Annotated[str, typer.Option(help="Folder or Hub id of a model that was finetuned to answer.")],
    system: Annotated[str | None, typer.Option(help="What the system says before all turns.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Below 1: bolder choices are rarer; 0: none. Default of this and the next three: the model's own.",
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among the so many likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Choose among the likeliest tokens of this joint probability.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the conversation repeatable.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id, where the model has none beside it.")] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Chat template, where none is saved or another is wanted: alpaca, phi3, chatml, or a Jinja file."
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Whether what is typed is kept for later sessions.")
    ] = True,
) -> None:
    """Talk to a model: at the terminal, or a question on each line of standard input.

    hfgpt chat --model runs/demo-assistant/final
    """
    from hfgpt.serving.chat import ChatSettings

    from .chat import run

    settings = ChatSettings(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    run(
        model,
        tokenizer_name=tokenizer,
        template=template,
        system=system,
        settings=settings,
        keep_history=history,
    )


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder or Hub id of a model in hfgpt's or GPT-2's layout; or a file, the book's state dict (.pth, "
            ".pt, .safetensors) or nanoGPT's ckpt.pt."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    to: Annotated[
        Literal["gpt2", "hfgpt"], typer.Option(help="gpt2: opens without hfgpt. hfgpt: this package's own.")
    ] = "hfgpt",
    head: Annotated[
        Literal["auto", "causal-lm", "classification", "base"], typer.Option(help="auto: the checkpoint's own.")
    ] = "auto",
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the tokenizer to save with it. Default: the source's own.")
    ] = None,
    num_attention_heads: Annotated[
        int | None,
        typer.Option(min=1, help="For the book's files, which do not tell it. Default: GPT-2's, at its four widths."),
    ] = None,
    lora_alpha: Annotated[
        float | None, typer.Option(help="For the book's files with LoRA layers, which are merged: their alpha.")
    ] = None,
    hidden_act: Annotated[
        Literal["gelu", "gelu_pytorch_tanh"] | None,
        typer.Option(help="For files: exact GELU (default for nanoGPT's) or by the tanh formula (for the book's)."),
    ] = None,
) -> None:
    """Write a model in another layout, bit for bit; what cannot be converted exactly is refused."""
    from .convert import Unstated, run

    unstated = Unstated(num_attention_heads=num_attention_heads, lora_alpha=lora_alpha, hidden_act=hidden_act)
    run(source, destination, to=to, head=head, tokenizer_name=tokenizer, unstated=unstated)


@app.command()
def summary(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs (their output_dir).")],
    json: Annotated[bool, typer.Option("--json", help="Print what their results.json hold, for programs.")] = False,
) -> None:
    """Compare finished runs: losses, test scores, sample answers, pictures."""
    from hfgpt.recipes.summary import summarise

    summarise(runs, as_json=json)


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


@tokenizer_app.command("train")
def train_tokenizer(
    source: Annotated[str, typer.Argument(help="Text: builtin:stories, a local file or folder, or a Hub id.")],
    vocab_size: Annotated[int, typer.Option(min=257, help="Ids: 256 bytes, merges, and the end-of-text token.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    text_column: Annotated[str | None, typer.Option(help="Default: text, or the only column of strings.")] = None,
) -> None:
    """Train a byte-level BPE tokenizer on a text and save it for `--tokenizer`."""
    from .tokenizer import train

    train(source, vocab_size=vocab_size, out=out, text_column=text_column)


@recipes_app.command("list")
def list_recipes() -> None:
    """List the shipped configurations."""
    from .recipes import list_all

    list_all()


@recipes_app.command("copy")
def copy_recipe(
    name: Annotated[str, typer.Argument(help="As listed, e.g. pretrain/demo.")],
    destination: Annotated[Path, typer.Argument(help="File or folder to copy it to.")] = Path(),
) -> None:
    """Copy a shipped configuration, to change it."""
    from .recipes import copy

    copy(name, destination)


if __name__ == "__main__":
    main()

"""`hfgpt`: the commands and how they are told apart; each one's work is in a module of the floors below.

The modules that compute are imported inside the commands, so that `hfgpt --help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hfgpt.errors import exit_on_user_error
from hfgpt.recipes.weight_bars import hide_weight_bars
from hfgpt.serving.defaults import DEFAULT_TEMPERATURE, DEFAULT_TOP_K

from .classify_app import classify_app
from .data_app import data_app
from .options import RECIPE_ARGUMENTS

__all__ = ["app", "main"]

app = typer.Typer(
    name="hfgpt",
    help="A GPT from scratch, at home in the Hugging Face ecosystem.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tokenizer_app = typer.Typer(help="Make tokenizers.", no_args_is_help=True)
recipes_app = typer.Typer(help="The configurations that come with hfgpt.", no_args_is_help=True)
app.add_typer(classify_app, name="classify")
app.add_typer(data_app, name="data")
app.add_typer(tokenizer_app, name="tokenizer")
app.add_typer(recipes_app, name="recipes")


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

    hfgpt answer --model runs/demo-assistant/final --data builtin:instructions --split test --out answers.jsonl
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


@app.command()
def push(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of a saved model, such as the run's final/.")
    ],
    repo: Annotated[str, typer.Option(help="Where to: ORGANISATION/NAME, or NAME under your own account.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new repository. Default: as your account's settings say."),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch to push to, made where there is none; or an open pull request, as refs/pr/3."),
    ] = None,
    pr: Annotated[bool, typer.Option("--pr", help="Propose the push as a pull request.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List what would be sent and what not; ask the Hub nothing, not even what it would delete.",
        ),
    ] = False,
    format: Annotated[
        Literal["hfgpt", "gpt2"],
        typer.Option(help="gpt2: opens without hfgpt's code. hfgpt: this package's own, its code beside it."),
    ] = "hfgpt",
    token: Annotated[
        str | None, typer.Option(help="Default: that of `hf auth login`, or of HF_TOKEN, which no history remembers.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON, for programs.")] = False,
) -> None:
    """Push a model with its card, numbers and pictures to the Hub, and nothing that is private.

    Files of another model that stand there, and would be loaded with this one, are deleted by the same commit.

    hfgpt push runs/demo --repo your-name/hfgpt-demo --dry-run
    """
    from .push import run

    run(
        folder,
        repo,
        private=private,
        revision=revision,
        create_pr=pr,
        dry_run=dry_run,
        layout=format,
        token=token,
        message=message,
        as_json=json,
    )


@tokenizer_app.command("train")
def train_tokenizer(
    source: Annotated[str, typer.Argument(help="Text: builtin:stories, a local file or folder, or a Hub id.")],
    vocab_size: Annotated[int, typer.Option(min=257, help="Ids: 256 bytes, merges, and the end-of-text token.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    text_column: Annotated[str | None, typer.Option(help="Default: text, or the only column of strings.")] = None,
    split_digits: Annotated[bool, typer.Option("--split-digits", help="Make each digit a token of its own.")] = False,
) -> None:
    """Train a byte-level BPE tokenizer on a text and save it for `--tokenizer`."""
    from .tokenizer import train

    train(source, vocab_size=vocab_size, out=out, text_column=text_column, split_digits=split_digits)


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

"""`hfgpt`: the commands and how they are told apart; each one's work is in a module of the floors below.

The modules that compute are imported inside the commands, so that `hfgpt --help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hfgpt.errors import exit_on_user_error
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
tokenizer_app = typer.Typer(help="Make tokenizers.", no_args_is_help=True)
recipes_app = typer.Typer(help="The configurations that come with hfgpt.", no_args_is_help=True)
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

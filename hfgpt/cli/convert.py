"""`hfgpt convert`: a model in one layout in, the same model in the other layout out.

What comes in may also be a checkpoint file of the book's code or of nanoGPT.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hfgpt import HfGptPreTrainedModel
from hfgpt.errors import UserError
from hfgpt.foreign_checkpoints import HiddenAct
from hfgpt.serving.gpt2_layout import HEADS, Head, gpt2_remarks, head_of, save_as_gpt2
from hfgpt.serving.loading import STATE_DICT_SUFFIXES, load_foreign_checkpoint, load_model
from hfgpt.tokenization import TOKENIZER_FILES, load_tokenizer

from .output import new_folder

HeadOption = Literal["auto", "causal-lm", "classification", "base"]


@dataclass(frozen=True)
class Unstated:
    """What a checkpoint file may leave unsaid; None: not given. See `hfgpt.foreign_checkpoints.recognise`."""

    num_attention_heads: int | None = None
    lora_alpha: float | None = None
    hidden_act: HiddenAct | None = None


def run(
    source: str,
    destination: Path,
    *,
    to: Literal["gpt2", "hfgpt"],
    head: HeadOption,
    tokenizer_name: str | None,
    unstated: Unstated,
) -> None:
    """Convert and say what was found and written.

    Raises:
        UserError: If the source cannot be loaded, the destination is in use, or the conversion would not be exact.
    """
    source = str(Path(source).expanduser()) if source.startswith("~") else source
    with new_folder(destination) as folder:
        model, found_head, found = _load(source, head, unstated)
        tokenizer_said = _save_tokenizer(source, tokenizer_name, model, folder)
        if to == "hfgpt":
            model.save_pretrained(folder)
        else:
            save_as_gpt2(model, found_head, folder)
    for sentence in found:
        print(sentence)
    print(f"{source}: {model.num_parameters():,} parameters ({found_head}) written to {destination} in {to}'s layout.")
    print(tokenizer_said)
    if to == "gpt2":
        for sentence in gpt2_remarks(model.config, found_head):
            print(sentence)
        print(f"Opens without hfgpt: transformers.{HEADS[found_head][1]}.from_pretrained({str(destination)!r})")


def _load(source: str, head: HeadOption, unstated: Unstated) -> tuple[HfGptPreTrainedModel, Head, list[str]]:
    """The model, its head, and sentences about what was found where that is not plain from a `config.json`."""
    path = Path(source)
    if path.is_file() or (path.suffix in STATE_DICT_SUFFIXES and not path.is_dir()):
        checkpoint = load_foreign_checkpoint(path, **asdict(unstated))
        if head not in ("auto", checkpoint.head):
            raise UserError(f"{source} is a {checkpoint.head} model: convert it with --head auto.")
        return checkpoint.to_model(), checkpoint.head, [f"{source} holds {checkpoint.description}.", *checkpoint.notes]
    for name, value in asdict(unstated).items():
        if value is not None:
            raise UserError(
                f"--{name.replace('_', '-')} is for the checkpoint files of the book and nanoGPT, but {source} is "
                "none: leave it out."
            )
    own_head = head_of(source)
    if head == "classification" and own_head != "classification":
        raise UserError(
            f"{source} has no classification head (its config.json names none), and a new one would "
            "be random: convert it with --head auto."
        )
    head = own_head if head == "auto" else head
    return load_model(source, HEADS[head][0]), head, []


def _save_tokenizer(source: str, name: str | None, model: HfGptPreTrainedModel, folder: Path) -> str:
    """Put a tokenizer beside the model and say so; the source's own files are copied where they are at hand.

    The tokenizer that the user names gives the model its special tokens, too, where it has none yet.
    """
    if name is not None:
        tokenizer = load_tokenizer(name)
        if len(tokenizer) > model.config.vocab_size:
            raise UserError(
                f"The tokenizer {name} has {len(tokenizer):,} ids, but the model {model.config.vocab_size:,}: it was "
                "trained with another one."
            )
        tokenizer.save_pretrained(folder)
        configs = [model.config, model.generation_config] if model.can_generate() else [model.config]
        # GPT-2's classifier passes over every pad_token_id before it judges a text, as those who trained it may not.
        tokens = ["bos_token_id", "eos_token_id"] + (["pad_token_id"] if model.can_generate() else [])
        for config in configs:
            for token in tokens:
                if getattr(config, token) is None:
                    setattr(config, token, getattr(tokenizer, token))
        return f"The tokenizer {name} was saved beside it."
    path = Path(source)
    if path.is_file():
        return "No tokenizer was saved: a checkpoint file has none, and --tokenizer names one."
    if path.is_dir():
        found = [path / file_name for file_name in TOKENIZER_FILES if (path / file_name).is_file()]
        for file in found:
            shutil.copy(file, folder)
        return "The tokenizer's files were copied." if found else "No tokenizer stands beside the source."
    try:
        load_tokenizer(source).save_pretrained(folder)
    except UserError as error:
        return f"No tokenizer was saved: {error}"
    return "The tokenizer was saved beside it."

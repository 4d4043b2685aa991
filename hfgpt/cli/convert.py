"""`hfgpt convert`: a model in one layout in, the same model in the other layout out."""

import shutil
from pathlib import Path
from typing import Literal

import torch
import transformers
from transformers import GPT2Config

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel, HfGptPreTrainedModel
from hfgpt.conversion_hfgpt import gpt2_config_dict, gpt2_state_dict
from hfgpt.errors import UserError
from hfgpt.serving.loading import load_model
from hfgpt.tokenization import load_tokenizer

from .output import new_folder

Head = Literal["auto", "causal-lm", "classification", "base"]

HEADS: dict[str, tuple[type[HfGptPreTrainedModel], str]] = {
    "causal-lm": (HfGptForCausalLM, "GPT2LMHeadModel"),
    "classification": (HfGptForSequenceClassification, "GPT2ForSequenceClassification"),
    "base": (HfGptModel, "GPT2Model"),
}

TOKENIZER_FILES = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
]


def run(source: str, destination: Path, *, to: Literal["gpt2", "hfgpt"], head: Head) -> None:
    """Convert and say what was written.

    Raises:
        UserError: If the source cannot be loaded, the destination is in use, or the conversion would not be exact.
    """
    source = str(Path(source).expanduser()) if source.startswith("~") else source
    own_head = _head_of(source)
    if head == "classification" and own_head != "classification":
        raise UserError(
            f"{source} has no classification head (its config.json names none), and a new one would "
            "be random: convert it with --head auto."
        )
    head = own_head if head == "auto" else head
    model_class, gpt2_class_name = HEADS[head]
    with new_folder(destination) as folder:
        model = load_model(source, model_class)
        if to == "hfgpt":
            model.save_pretrained(folder)
        else:
            try:
                _save_as_gpt2(model, getattr(transformers, gpt2_class_name), folder)
            except ValueError as error:
                raise UserError(str(error)) from error
        tokenizer_said = _save_tokenizer(source, folder)
    added = (
        " Zero biases were added to q, k and v, which GPT-2's layout always has."
        if (to == "gpt2" and not model.config.qkv_bias)
        else ""
    )
    print(f"{source}: {model.num_parameters():,} parameters ({head}) written to {destination} in {to}'s layout.{added}")
    print(tokenizer_said)
    if to == "gpt2":
        print(f"Opens without hfgpt: transformers.{gpt2_class_name}.from_pretrained({str(destination)!r})")


def _head_of(source: str) -> Head:
    """Which head the checkpoint says that it has; a causal LM if it says nothing."""
    try:
        architectures = HfGptConfig.get_config_dict(source)[0].get("architectures") or [""]
    except (OSError, ValueError):
        return "causal-lm"  # load_model will say what is wrong
    for head, (model_class, gpt2_class_name) in HEADS.items():
        if architectures[0] in (model_class.__name__, gpt2_class_name):
            return head  # type: ignore[return-value]
    return "causal-lm"


def _save_as_gpt2(model: HfGptPreTrainedModel, gpt2_class: type, folder: Path) -> None:
    """Fill transformers' own GPT-2 with the weights and let it write the folder."""
    config = GPT2Config(**gpt2_config_dict(model.config), dtype=model.dtype)
    weights = gpt2_state_dict(model)
    with torch.device("meta"):
        gpt2 = gpt2_class(config)
    if not hasattr(gpt2, "transformer"):  # the base model by itself
        weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    gpt2.load_state_dict(weights, strict=True, assign=True)
    gpt2.tie_weights()
    if model.can_generate():
        gpt2.generation_config = model.generation_config
    gpt2.save_pretrained(folder)


def _save_tokenizer(source: str, folder: Path) -> str:
    """Put the source's tokenizer beside the model, by copying its files where they are at hand; says what was done."""
    if Path(source).is_dir():
        found = [Path(source) / name for name in TOKENIZER_FILES if (Path(source) / name).is_file()]
        for path in found:
            shutil.copy(path, folder)
        return "The tokenizer's files were copied." if found else "No tokenizer stands beside the source."
    try:
        load_tokenizer(source).save_pretrained(folder)
    except UserError as error:
        return f"No tokenizer was saved: {error}"
    return "The tokenizer was saved beside it."

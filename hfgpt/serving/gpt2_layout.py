"""Writing a model in GPT-2's layout, which opens without hfgpt, bit for bit."""

from pathlib import Path
from typing import Literal

import torch
import transformers
from transformers import GPT2Config

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel, HfGptPreTrainedModel
from hfgpt.conversion_hfgpt import gpt2_config_dict, gpt2_state_dict
from hfgpt.errors import UserError

__all__ = ["HEADS", "Head", "gpt2_remarks", "head_of", "save_as_gpt2"]

Head = Literal["causal-lm", "classification", "base"]

HEADS: dict[Head, tuple[type[HfGptPreTrainedModel], str]] = {
    "causal-lm": (HfGptForCausalLM, "GPT2LMHeadModel"),
    "classification": (HfGptForSequenceClassification, "GPT2ForSequenceClassification"),
    "base": (HfGptModel, "GPT2Model"),
}
"""The classes of each head: this package's, and the name of transformers' own."""


def head_of(source: str) -> Head:
    """Which head the checkpoint says that it has; a causal LM if it says nothing."""
    try:
        architectures = HfGptConfig.get_config_dict(source)[0].get("architectures") or [""]
    except (OSError, ValueError):
        return "causal-lm"  # load_model will say what is wrong
    for head, (model_class, gpt2_class_name) in HEADS.items():
        if architectures[0] in (model_class.__name__, gpt2_class_name):
            return head
    return "causal-lm"


def save_as_gpt2(model: HfGptPreTrainedModel, head: Head, folder: Path) -> None:
    """Fill transformers' own GPT-2 with the weights and let it write the folder.

    Raises:
        UserError: If the model computes what GPT-2's layout cannot say, or what llama.cpp would misread.
    """
    _refuse_what_llama_cpp_would_misread(model.config)
    gpt2_class = getattr(transformers, HEADS[head][1])
    try:
        config = GPT2Config(**gpt2_config_dict(model.config), dtype=model.dtype)
        weights = gpt2_state_dict(model)
    except ValueError as error:
        raise UserError(str(error)) from error
    with torch.device("meta"):
        gpt2 = gpt2_class(config)
    if not hasattr(gpt2, "transformer"):  # the base model by itself
        weights = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    gpt2.load_state_dict(weights, strict=True, assign=True)
    gpt2.tie_weights()
    if model.can_generate():
        gpt2.generation_config = model.generation_config
    gpt2.save_pretrained(folder)


def _refuse_what_llama_cpp_would_misread(config: HfGptConfig) -> None:
    """transformers alone would read `n_inner`; but GPT-2's layout is also the way to llama.cpp (conversion/gpt2.py)."""
    if config.intermediate_size != 4 * config.hidden_size:
        raise UserError(
            f"intermediate_size is {config.intermediate_size}, but llama.cpp takes 4 x hidden_size = "
            f"{4 * config.hidden_size} for granted in GPT-2's layout and would misread the model: keep it in hfgpt's "
            "(--to hfgpt)."
        )


def gpt2_remarks(config: HfGptConfig, head: Head) -> list[str]:
    """Sentences about how the model in GPT-2's layout is not letter for letter the one that came in."""
    without_bias = [] if config.qkv_bias else ["q, k and v"]
    without_bias += [] if config.use_bias else ["the other linear layers and the LayerNorms"]
    remarks = []
    if without_bias:
        remarks.append(
            f"Zero biases were added to {' and to '.join(without_bias)}, which have them in GPT-2's layout; they "
            "change no output."
        )
    if head == "classification":
        remarks.append(
            "transformers' GPT-2 judges a text by its last token that is not pad_token_id, and takes one text at a "
            "time where the configuration has none; hfgpt goes by the attention_mask."
        )
    if config.hidden_act == "gelu":
        remarks.append("transformers computes its exact GELU; llama.cpp knows GPT-2's formula by tanh only.")
    return remarks

"""`hfgpt convert`: a model in one layout in, the same model in the other layout out.

What comes in may also be a checkpoint file of the book's code or of nanoGPT.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import transformers
from transformers import GPT2Config

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel, HfGptPreTrainedModel
from hfgpt.conversion_hfgpt import gpt2_config_dict, gpt2_state_dict
from hfgpt.errors import UserError
from hfgpt.foreign_checkpoints import HiddenAct
from hfgpt.serving.loading import STATE_DICT_SUFFIXES, load_foreign_checkpoint, load_model
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
    head: Head,
    tokenizer_name: str | None,
    unstated: Unstated,
) -> None:
    """Convert and say what was found and written.

    Raises:
        UserError: If the source cannot be loaded, the destination is in use, or the conversion would not be exact.
    """
    source = str(Path(source).expanduser()) if source.startswith("~") else source
    with new_folder(destination) as folder:
        model, head, found = _load(source, head, unstated)
        gpt2_class_name = HEADS[head][1]
        tokenizer_said = _save_tokenizer(source, tokenizer_name, model, folder)
        if to == "hfgpt":
            model.save_pretrained(folder)
        else:
            _refuse_what_llama_cpp_would_misread(model.config)
            try:
                _save_as_gpt2(model, getattr(transformers, gpt2_class_name), folder)
            except ValueError as error:
                raise UserError(str(error)) from error
    for sentence in found:
        print(sentence)
    print(f"{source}: {model.num_parameters():,} parameters ({head}) written to {destination} in {to}'s layout.")
    print(tokenizer_said)
    if to == "gpt2":
        for sentence in _gpt2_remarks(model.config, head):
            print(sentence)
        print(f"Opens without hfgpt: transformers.{gpt2_class_name}.from_pretrained({str(destination)!r})")


def _load(source: str, head: Head, unstated: Unstated) -> tuple[HfGptPreTrainedModel, Head, list[str]]:
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
    own_head = _head_of(source)
    if head == "classification" and own_head != "classification":
        raise UserError(
            f"{source} has no classification head (its config.json names none), and a new one would "
            "be random: convert it with --head auto."
        )
    head = own_head if head == "auto" else head
    return load_model(source, HEADS[head][0]), head, []


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


def _refuse_what_llama_cpp_would_misread(config: HfGptConfig) -> None:
    """transformers alone would read `n_inner`; but GPT-2's layout is also the way to llama.cpp (conversion/gpt2.py)."""
    if config.intermediate_size != 4 * config.hidden_size:
        raise UserError(
            f"intermediate_size is {config.intermediate_size}, but llama.cpp takes 4 x hidden_size = "
            f"{4 * config.hidden_size} for granted in GPT-2's layout and would misread the model: keep it in hfgpt's "
            "(--to hfgpt)."
        )


def _gpt2_remarks(config: HfGptConfig, head: Head) -> list[str]:
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

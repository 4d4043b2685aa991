"""Loading a model for use or further training, or another code base's checkpoint; one sentence where it cannot be."""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import logging

from hfgpt import HfGptForCausalLM, HfGptPreTrainedModel
from hfgpt.errors import UserError
from hfgpt.foreign_checkpoints import ForeignCheckpoint, HiddenAct, recognise

__all__ = ["inference_device", "load_foreign_checkpoint", "load_model", "read_state_dict"]

# What a damaged or foreign checkpoint makes transformers, torch and safetensors raise.
LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    json.JSONDecodeError,
    pickle.UnpicklingError,
)

# The suffixes of files that hold a state dict.
STATE_DICT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")

# Under which keys a file may keep the weights beside other things: the book (section 5.4), nanoGPT, others.
NESTED_STATE_DICTS = ("model_state_dict", "model", "state_dict")


def inference_device() -> str:
    """Where a model that is only used computes: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_model(
    name_or_path: str | Path,
    model_class: type[HfGptPreTrainedModel] = HfGptForCausalLM,
    *,
    new_head: bool = True,
    **kwargs: Any,
) -> HfGptPreTrainedModel:
    """A model from a folder or the Hub, in hfgpt's layout or GPT-2's.

    Args:
        name_or_path: A folder, or a Hub id such as `openai-community/gpt2`.
        model_class: Which head.
        new_head: Whether a classifier may be made of a language model, with a head that is random.
        kwargs: Passed to `from_pretrained`: `dtype`, `revision`, fields of the configuration, ...

    Raises:
        UserError: If there is no model, or one that this package cannot compute.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        below = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f"did you mean {folder / below[-1]}?" if below else "give the folder of a saved model."
        checkpoints = sorted(path for path in folder.iterdir() if path.suffix in STATE_DICT_SUFFIXES)
        if checkpoints and not below:
            hint = f"if {checkpoints[-1]} is the book's or nanoGPT's, turn it into one by hfgpt convert."
        raise UserError(f"There is no model in {folder}, because it has no config.json: {hint}")
    if folder.is_file():
        raise UserError(
            f"{name_or_path} is a file: give the folder of a saved model, or turn the file into one by hfgpt convert."
        )
    if not folder.exists() and (str(name_or_path).count("/") > 1 or str(name_or_path).startswith((".", "/", "~"))):
        raise UserError(f"There is no folder {name_or_path}: give the folder of a saved model or a Hub id.")
    source = str(folder) if folder.is_dir() else str(name_or_path)
    try:
        with _quiet_transformers():
            loaded: Any = model_class.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
    except LOADING_ERRORS as error:
        raise UserError(f"{name_or_path} cannot be loaded as a model: {_one_line(error)}") from error
    model, info = loaded
    _refuse_other_weights(name_or_path, info, new_head)
    return model


def load_foreign_checkpoint(
    path: Path,
    *,
    num_attention_heads: int | None = None,
    lora_alpha: float | None = None,
    hidden_act: HiddenAct | None = None,
) -> ForeignCheckpoint:
    """Read a checkpoint file of the book's code or nanoGPT's; the arguments are those of `recognise`.

    Raises:
        UserError: If the file cannot be read, is of neither, or leaves open what must be known; one sentence says what.
    """
    state_dict, model_args = read_state_dict(path)
    try:
        return recognise(
            state_dict,
            model_args,
            num_attention_heads=num_attention_heads,
            lora_alpha=lora_alpha,
            hidden_act=hidden_act,
        )
    except (ValueError, StrictDataclassError) as error:
        raise UserError(f"{path} cannot be converted: {_one_line(error)}") from error


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The state dict in a file of torch's or safetensors', and nanoGPT's `model_args` if they stand beside it.

    Nothing in the file is run (`weights_only`), and tensors stay on disk until they are used where the format allows.

    Raises:
        UserError: If there is no state dict in the file, or it could only be opened by running code from it.
    """
    content = _read_file(path)
    nested = [content[key] for key in NESTED_STATE_DICTS if isinstance(content, dict) and key in content]
    state_dict = nested[0] if nested else content
    remedy = "save one by torch.save(model.state_dict(), PATH)."
    if not isinstance(state_dict, dict) or not state_dict:
        raise UserError(f"{path} holds no state dict: {remedy}")
    for name, value in state_dict.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            kinds = f"{type(name).__name__} with a {type(value).__name__}"
            raise UserError(f"{path} holds no state dict of names and tensors, but a {kinds} ({name!r}): {remedy}")
    model_args = content.get("model_args") if nested else None
    return dict(state_dict), model_args if isinstance(model_args, dict) else None


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"There is no file {path}: give a checkpoint's file.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: it was not saved or copied to its end.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # torch maps its present format, a zip archive, into memory, but not the one before 2020.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file makes the readers raise nearly anything: KeyError, EOFError, OSError
        foreign_object = re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", str(error))
        if foreign_object is None:
            raise UserError(
                f"{path} is damaged, or no checkpoint of torch's or safetensors': save or copy it anew."
            ) from error
        raise UserError(
            f"{path} holds a Python object ({foreign_object[1]}), and opening it could run any code: "
            "where it was made, save the weights alone by torch.save(model.state_dict(), PATH)."
        ) from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' table of missing weights: what it says is said here, in a sentence."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _refuse_other_weights(name_or_path: str | Path, info: dict[str, Any], new_head: bool) -> None:
    """Weights that are not in the checkpoint were drawn at random, and those not in the model were dropped.

    Only heads may differ: a language model's is dropped by a classifier, whose own is new, and that is said.
    """
    for name, *shapes in sorted(info["mismatched_keys"]):
        stored, asked = (tuple(shape) for shape in shapes)
        if name == "score.weight":
            raise UserError(
                f"{name_or_path} is a classifier of {stored[0]} classes, and {asked[0]} are asked for: give the model "
                "that it was finetuned from, or one without a classification head."
            )
        raise UserError(
            f"{name_or_path} holds {name} in the shape {stored}, and the configuration asks for {asked}: keep the "
            "fields that give the shapes as they are in its config.json."
        )
    if any(name.startswith("score.") for name in info["missing_keys"]):
        if not new_head:
            raise UserError(
                f"{name_or_path} is a model without a classification head: train one on it by hfgpt classify train "
                "--init_from, and name the final folder of that run."
            )
        logging.get_logger(__name__).warning("%s has no classification head: a new one is random.", name_or_path)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("score."))
    foreign = sorted(name for name in info["unexpected_keys"] if not name.startswith(("score.", "lm_head.")))
    for problem, names in (("lacks {} of the model's weights", missing), ("has {} weights too many", foreign)):
        if names:
            raise UserError(
                f"{name_or_path} {problem.format(len(names))} ({', '.join(names[:3])}{', ...' if names[3:] else ''}): "
                "it is damaged or of another architecture."
            )


def _one_line(error: Exception) -> str:
    """The first sentence of a library's message, which often goes on with paragraphs of advice."""
    return " ".join(str(error).split("\n\n")[0].split())[:300]

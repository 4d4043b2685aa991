"""Loading a model for use or further training, with one sentence where it cannot be loaded."""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

from hfgpt import HfGptForCausalLM, HfGptPreTrainedModel
from hfgpt.errors import UserError

__all__ = ["load_model"]

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


def load_model(
    name_or_path: str | Path, model_class: type[HfGptPreTrainedModel] = HfGptForCausalLM, **kwargs: Any
) -> HfGptPreTrainedModel:
    """A model from a folder or the Hub, in hfgpt's layout or GPT-2's.

    Args:
        name_or_path: A folder, or a Hub id such as `openai-community/gpt2`.
        model_class: Which head.
        kwargs: Passed to `from_pretrained`: `dtype`, `revision`, fields of the configuration, ...

    Raises:
        UserError: If there is no model, or one that this package cannot compute.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        below = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f"did you mean {folder / below[-1]}?" if below else "give the folder of a saved model."
        raise UserError(f"There is no model in {folder}, because it has no config.json: {hint}")
    if not folder.exists() and (str(name_or_path).count("/") > 1 or str(name_or_path).startswith((".", "/", "~"))):
        raise UserError(f"There is no folder {name_or_path}: give the folder of a saved model or a Hub id.")
    source = str(folder) if folder.is_dir() else str(name_or_path)
    try:
        with _quiet_transformers():
            loaded: Any = model_class.from_pretrained(source, output_loading_info=True, **kwargs)
    except LOADING_ERRORS as error:
        raise UserError(f"{name_or_path} cannot be loaded as a model: {_one_line(error)}") from error
    model, info = loaded
    _refuse_other_weights(name_or_path, info)
    return model


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' table of missing weights: what it says is said here, in a sentence."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _refuse_other_weights(name_or_path: str | Path, info: dict[str, Any]) -> None:
    """Weights that are not in the checkpoint were drawn at random, and those not in the model were dropped.

    Only heads may differ: a language model's is dropped by a classifier, whose own is new, and that is said.
    """
    if any(name.startswith("score.") for name in info["missing_keys"]):
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

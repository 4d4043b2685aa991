"""Loading a model for use or further training, with one sentence where it cannot be loaded."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptPreTrainedModel
from hfgpt.errors import UserError

__all__ = ["load_model"]


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
        model_type = HfGptConfig.get_config_dict(source)[0].get("model_type")
        if model_type != HfGptConfig.model_type:
            raise UserError(
                f"{name_or_path} holds a model of type {model_type!r}; hfgpt computes its own and GPT-2's: "
                "load it with transformers' Auto classes instead."
            )
        loaded: Any = model_class.from_pretrained(source, output_loading_info=True, **kwargs)
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{name_or_path} cannot be loaded as a model: {_one_line(error)}") from error
    model, info = loaded
    _refuse_missing_weights(name_or_path, info)
    return model


def _refuse_missing_weights(name_or_path: str | Path, info: dict[str, Any]) -> None:
    """Weights that the checkpoint lacks were drawn at random: only a new classification head may be."""
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("score."))
    if missing:
        raise UserError(
            f"{name_or_path} lacks {len(missing)} of the model's weights ({', '.join(missing[:3])}, ...): "
            "it is damaged or of another architecture."
        )


def _one_line(error: Exception) -> str:
    """The first sentence of a library's message, which often goes on with paragraphs of advice."""
    return " ".join(str(error).split("\n\n")[0].split())[:300]

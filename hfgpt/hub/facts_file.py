"""`card_facts.json`: everything that a card says, for programs; it lies beside the model and travels with it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfgpt.errors import UserError
from hfgpt.training.disk import replace_text

__all__ = ["CARD_FACTS", "FORMAT_VERSION", "parse_facts", "read_facts", "write_facts"]

CARD_FACTS = "card_facts.json"

# What is added to the facts keeps the number, and cards do without it where it is not there; what changes its meaning
# raises the number.
FORMAT_VERSION = 1


def write_facts(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write `card_facts.json`; an infinite perplexity, which JSON does not know, becomes null."""
    path = folder / CARD_FACTS
    replace_text(path, json.dumps(_finite(facts), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_facts(path: Path) -> dict[str, Any]:
    """The facts in a file.

    Raises:
        UserError: If there are none that this version can read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    found = _parse(text)
    if found is None:
        raise UserError(
            f"{path} holds no facts of a training: finish the run again, or delete the file to have a card that says "
            "nothing of the training."
        )
    if found["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{path} is written in format {found['format_version']} and this hfgpt reads {FORMAT_VERSION}: use the one "
            "that has written it, or delete the file to have a card that says nothing of the training."
        )
    return found


def parse_facts(text: str) -> dict[str, Any] | None:
    """The facts in a text, which anyone may have written; None where they are none of ours, or of another version."""
    found = _parse(text)
    return found if found is not None and found["format_version"] == FORMAT_VERSION else None


def _parse(text: str) -> dict[str, Any] | None:
    try:
        found = _finite(json.loads(text))  # Python's reader lets NaN and Infinity pass
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("format_version"), int) else None

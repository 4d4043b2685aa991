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
        facts = parse_facts(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if facts is None:
        raise UserError(
            f"{path} holds no facts of a training that this version can read: finish the run again, or delete the file "
            "to have a card that says nothing of the training."
        )
    return facts


def parse_facts(text: str) -> dict[str, Any] | None:
    """The facts in a text, which anyone may have written; None where they are none of ours, or of another version."""
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and facts.get("format_version") == FORMAT_VERSION else None

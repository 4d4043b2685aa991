"""Where a model comes from: the weights that its training began with, and what is known of those."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from .facts_file import CARD_FACTS, parse_facts
from .public_text import public_text
from .repositories import HUB_ERRORS, is_repository, look_up

__all__ = ["ancestors", "hub_ancestor", "trace_parent", "weights_fingerprint"]

# What a child's card says of its parent; the rest stands in the parent's own card.
CARRIED = ("recipe", "name", "finished", "model", "weights", "lineage", "data", "training", "versions", "licence")


def weights_fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights in a folder, by its name: what the Hub shows beside the file.

    Empty if it holds none that transformers would open.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    return {path.name: _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def trace_parent(source: str, *, commit: str | None = None, only_shape: bool = False) -> dict[str, Any]:
    """What is known of the checkpoint that a training begins with.

    Args:
        source: Folder or Hub id.
        commit: Of the Hub's repository, as the loading has found it.
        only_shape: Whether its weights were replaced by random ones.

    Returns:
        `name` (as it may be published), `only_shape`, `weights` (see `weights_fingerprint`; of a folder), `repository`
        (see `Repository`; of the Hub), and `facts`, what the parent's own `card_facts.json` says, or None: if there is
        none, or it is about other weights than those that are there.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        weights = weights_fingerprint(folder)
        facts = _read(folder / CARD_FACTS)
        belongs = facts is not None and facts.get("weights", {}).get("sha256") == weights
        return {
            "name": public_text(source),
            "only_shape": only_shape,
            "weights": weights,
            "repository": None,
            "facts": _carried(facts) if belongs else None,
        }
    if not is_repository(source):
        return {"name": public_text(source), "only_shape": only_shape, "weights": {}, "repository": None, "facts": None}
    repository = look_up(source, "model", commit).to_dict()
    repository["revision"] = commit or repository["revision"]
    return {
        "name": source,
        "only_shape": only_shape,
        "weights": {},
        "repository": repository,
        "facts": _carried(_facts_on_the_hub(source, repository["revision"])),
    }


def _facts_on_the_hub(name: str, revision: str | None) -> dict[str, Any] | None:
    """None if there are none, or the Hub cannot be asked; `Repository.problem` says which."""
    try:
        return _read(Path(hf_hub_download(name, CARD_FACTS, revision=revision)))
    except HUB_ERRORS:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    return parse_facts(path.read_text(encoding="utf-8")) if path.is_file() else None


def _carried(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if facts is None else {name: facts[name] for name in CARRIED if name in facts}


def ancestors(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parents of a model, the nearest first, as `trace_parent` found them."""
    parent = facts["lineage"]["parent"]
    while parent is not None:
        yield parent
        own = parent.get("facts") or {}
        parent = (own.get("lineage") or {}).get("parent")


def hub_ancestor(facts: Mapping[str, Any]) -> str | None:
    """The Hub id of the nearest ancestor that is on the Hub and whose weights went into this model."""
    for parent in ancestors(facts):
        if parent["only_shape"]:
            return None
        if parent["repository"] is not None:
            return str(parent["repository"]["id"])
    return None

"""Where a model comes from: the weights that its training began with, and what is known of those."""

import fnmatch
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download

from .facts_file import CARD_FACTS, parse_facts
from .public_text import public_text
from .repositories import HUB_ERRORS, SECONDS, is_repository, is_repository_id, look_up

__all__ = ["ancestors", "hub_ancestor", "trace_parent", "weights_fingerprint"]

logger = logging.getLogger(__name__)

# Files of weights that transformers opens; the later ones only where there are none of the first.
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")

# What a child's card says of its parent; the rest stands in the parent's own card.
CARRIED = ("recipe", "name", "finished", "model", "weights", "lineage", "data", "training", "versions", "licence")
# Of that, what the templates and the head of a card cannot do without, by its types in JSON.
FACTS = {
    "weights": {"sha256": dict},
    "model": {"parameters": int},
    "training": {"steps": int, "targets": int, "unit": str, "training_seconds": int | float},
    "data": [{"source": str, "use": str}],
    "licence": str | None,
    "lineage": {"parent": dict | None},
}
PARENT = {"name": str, "only_shape": bool, "weights": dict, "repository": dict | None, "facts": dict | None}
REPOSITORY = {"id": str, "revision": str | None, "licence": str | None}


def weights_fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights in a folder, by its name: what the Hub shows beside the file.

    Empty if it holds none that transformers would open.
    """
    return {name: _sha256(folder / name) for name in _files_of_weights(path.name for path in folder.iterdir())}


def _files_of_weights(names: Iterable[str]) -> list[str]:
    names = sorted(names)
    return next(filter(None, (fnmatch.filter(names, pattern) for pattern in WEIGHTS)), [])


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
        `name` (as it may be published), `only_shape`, `weights` (see `weights_fingerprint`), `repository` (see
        `Repository`; of the Hub), and `facts`, what the parent's own `card_facts.json` says, or None: if there is none,
        or, with a warning, if it is not whole or about other weights than those that are there.
    """
    folder = Path(source).expanduser()
    weights: dict[str, str] = {}
    repository, recorded = None, None
    if folder.is_dir():
        weights, recorded = weights_fingerprint(folder), folder / CARD_FACTS
    elif is_repository(source):
        repository = look_up(source, "model", commit).to_dict()
        repository["revision"] = commit or repository["revision"]
        if repository["problem"] is None:
            weights, recorded = _ask_the_hub(source, repository["revision"])
    return {
        "name": source if repository else public_text(source),
        "only_shape": only_shape,
        "weights": weights,
        "repository": repository,
        "facts": _carried(source, recorded, weights) if recorded is not None and recorded.is_file() else None,
    }


def _ask_the_hub(name: str, revision: str | None) -> tuple[dict[str, str], Path | None]:
    """The `weights_fingerprint` of a model, and its facts, downloaded; None if they cannot be had."""
    try:
        files = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=SECONDS).siblings or []
        large = {file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None}
        weights = {name: large[name] for name in _files_of_weights(name for name in large if "/" not in name)}
        if all(file.rfilename != CARD_FACTS for file in files):
            return weights, None
        return weights, Path(hf_hub_download(name, CARD_FACTS, revision=revision))
    except HUB_ERRORS as error:
        _warn(name, f"cannot be had ({type(error).__name__})")
        return {}, None


def _carried(source: str, path: Path, weights: Mapping[str, str]) -> dict[str, Any] | None:
    """What a child's card says of its parent, from the facts beside the parent's weights."""
    facts = parse_facts(path.read_text(encoding="utf-8", errors="replace"))
    if facts is None or not _is_whole(facts):
        problem = "is not whole, or of another version of hfgpt"
    elif facts["weights"]["sha256"] != weights:
        problem = "is about other weights than those beside it"
    else:
        return {name: facts[name] for name in CARRIED if name in facts}
    _warn(source, problem)
    return None


def _warn(source: str, problem: str) -> None:
    logger.warning("%s of %s %s: the new model's card will not say how that one was made.", CARD_FACTS, source, problem)


def _is_whole(facts: Mapping[str, Any]) -> bool:
    """Whether facts, which anyone may have written, hold what a child's card says of all its ancestors."""
    if not _is_like(facts, FACTS):
        return False
    parent = facts["lineage"]["parent"]
    if parent is None:
        return True
    if not _is_like(parent, PARENT):
        return False
    repository, own = parent["repository"], parent["facts"]
    return (repository is None or (_is_like(repository, REPOSITORY) and is_repository_id(repository["id"]))) and (
        own is None or _is_whole(own)
    )


def _is_like(value: Any, pattern: Any) -> bool:
    """Whether a value has the names of a pattern, others aside, and values of its types."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            name in value and _is_like(value[name], part) for name, part in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(_is_like(item, pattern[0]) for item in value)
    return isinstance(value, pattern)


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

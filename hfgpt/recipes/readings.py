"""Which splits of which sources a recipe reads: the same to those who load them and to the card that names them."""

from typing import NamedTuple

from hfgpt.data.conversations import BUILTIN_CONVERSATIONS
from hfgpt.data.sources import BUILTIN_PREFIX

from .classification_config import ClassificationConfig
from .instruction_config import InstructionConfig
from .pretrain_config import PretrainConfig

__all__ = ["Reading", "RecipeConfig", "builtin_splits", "readings"]

RecipeConfig = PretrainConfig | ClassificationConfig | InstructionConfig


class Reading(NamedTuple):
    """One split of one source."""

    part: str
    """What is read from it: train, validation or test."""
    source: str
    split: str
    config_name: str | None
    revision: str | None


def readings(config: RecipeConfig) -> list[Reading]:
    """What is trained on; then validation and test, where they are read by themselves and not held out of the first."""
    found = [Reading("train", config.source, config.source_split, config.source_config, config.source_revision)]
    for part in ("validation", "test"):
        split, source = getattr(config, f"{part}_split", None), getattr(config, f"{part}_source", None)
        if split is None and source is None and part in builtin_splits(config.source):
            split = part
        if source is not None and source != config.source:
            # What is read beside the source has no part in its configuration and revision.
            found.append(Reading(part, source, "train", None, None))
        elif split is not None or source is not None:
            found.append(found[0]._replace(part=part, split=split or "train"))
    return found


def builtin_splits(source: str) -> tuple[str, ...]:
    """Names of the splits of a built-in source; none if it is one piece, or not built in."""
    if not source.startswith(BUILTIN_PREFIX):
        return ()
    return tuple(BUILTIN_CONVERSATIONS.get(source.removeprefix(BUILTIN_PREFIX), ()))

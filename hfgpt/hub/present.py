"""What stands in a repository before a push, and whether its card is somebody's own words."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, constants
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from hfgpt.errors import UserError

from .allow_list import CARD, CONFIG, PushedFile
from .facts_file import CARD_FACTS
from .hub_errors import with_patience
from .minimal_card import minimal_card
from .pushed_card import read_card, rendered_card

__all__ = ["is_made", "name_replaced_card", "present_files", "read_json"]

logger = logging.getLogger(__name__)

# In the card that transformers' `push_to_hub` makes up where the repository has none.
MADE_UP = "This model card has been automatically generated"


def name_replaced_card(api: HfApi, repo_id: str, revision: str | None, card: PushedFile) -> None:
    """Say that a push replaces a card which somebody has written or edited in the repository."""
    there = present_files(api, repo_id, revision, [CARD, CARD_FACTS, CONFIG])
    if there is None or not (there / CARD).is_file() or (there / CARD).read_bytes().strip() == card.read().strip():
        return
    if not is_made(there, repo_id):
        logger.warning(
            "The card of %s is not as this hfgpt makes it (edited there, or by another version): this push replaces "
            "it, and the text before stays in the history: %s/%s/commits/%s",
            repo_id,
            constants.ENDPOINT,
            repo_id,
            revision or constants.DEFAULT_REVISION,
        )


def present_files(api: HfApi, repo_id: str, revision: str | None, names: Sequence[str]) -> Path | None:
    """A folder with those of the named files that a repository has already; None if it has none of them."""
    try:
        found = with_patience(lambda: api.model_info(repo_id, revision=revision))
    except RepositoryNotFoundError:
        return None
    except RevisionNotFoundError:  # a branch that will be made, of the main one
        found = with_patience(lambda: api.model_info(repo_id))
    files = {file.rfilename for file in found.siblings or []}.intersection(names)
    paths = [_download(api, repo_id, name, found.sha) for name in sorted(files)]
    return paths[0].parent if paths else None


def _download(api: HfApi, repo_id: str, name: str, revision: str | None) -> Path:
    try:
        return Path(api.hf_hub_download(repo_id, name, revision=revision))  # which repeats by itself
    except LocalEntryNotFoundError as error:  # "we cannot find the requested files on the disk": its cause is why
        raise error.__cause__ or error from None


def read_json(path: Path) -> dict[str, Any]:
    """What a configuration says; nothing where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_made(folder: Path, repo_id: str | None) -> bool:
    """Whether a card is as transformers or hfgpt makes it, so that nobody's words are lost with it.

    Args:
        repo_id: For which the card was made; None for a folder.
    """
    path, facts = folder / CARD, folder / CARD_FACTS
    if not path.is_file():
        return False
    made = [minimal_card(read_json(folder / CONFIG), repo_id)] if repo_id is not None else []
    if facts.is_file():
        try:
            made += [
                ModelCard(rendered_card(PushedFile(CARD_FACTS, facts), repo_id=repo_id, layout=layout))
                for layout in ("hfgpt", "gpt2")
            ]
        except UserError as error:
            logger.warning("Whether %s was written by hand cannot be known, and is taken for granted: %s", path, error)
    try:
        card = read_card(PushedFile(CARD, path))
    except UserError:  # nothing that is made has a head that cannot be read
        return False
    return MADE_UP in card.text or _without_tags(card) in [_without_tags(other) for other in made]


def _without_tags(card: ModelCard) -> tuple[str, dict[str, Any]]:
    """What a card says, but for its tags, of which each push may add some."""
    return card.text.strip(), {name: value for name, value in card.data.to_dict().items() if name != "tags"}

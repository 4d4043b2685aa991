"""The card that goes with a push: made for the repository, or as somebody has written it."""

import json
import logging
from typing import Any

import yaml
from huggingface_hub import ModelCard
from jinja2 import TemplateError

from hfgpt.errors import UserError

from .allow_list import CARD, PushedFile, Selection
from .cards import Layout, render_card
from .facts_file import CARD_FACTS, read_facts
from .minimal_card import minimal_card

__all__ = ["add_card", "read_card", "rendered_card"]

logger = logging.getLogger(__name__)


def add_card(selection: Selection, repo_id: str, layout: Layout) -> list[PushedFile]:
    """The files, and a card that knows the repository's name.

    A card that was written by hand, or changed, is left as it is.
    """
    own, recorded = selection.find(CARD), selection.find(CARD_FACTS)
    if recorded is not None:
        if own is not None and own.read().decode().strip() != rendered_card(recorded).strip():
            logger.warning(
                "%s is not the card that %s makes (edited, or by another hfgpt): it is pushed as it is.",
                own.source,
                CARD_FACTS,
            )
            return selection.files
        card, source = rendered_card(recorded, repo_id=repo_id, layout=layout), recorded.source
    elif own is not None:
        return selection.files
    else:
        config = selection.find("config.json")
        assert config is not None  # or there would be no selection
        card, source = str(minimal_card(json.loads(config.read()), repo_id)), config.source
    files = [file for file in selection.files if file.path != CARD]
    return sorted([*files, PushedFile(CARD, source, card.encode())], key=lambda file: file.path)


def read_card(card: PushedFile) -> ModelCard:
    """The card as huggingface_hub reads it.

    Raises:
        UserError: If its machine-readable head is no YAML, or says what a head cannot.
    """
    try:
        return ModelCard(card.read().decode())
    except (yaml.YAMLError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"The head of {card.source} cannot be read ({said}): mend it.") from error


def rendered_card(recorded: PushedFile, **options: Any) -> str:
    """The card that the facts in a file make.

    Raises:
        UserError: If they are not whole.
    """
    try:
        return str(render_card(read_facts(recorded.source), **options))
    except UserError:  # says by itself what is wrong with the file
        raise
    except (TemplateError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{recorded.source} is not whole ({' '.join(str(error).split())}), so that no card can be made of it: "
            f"delete it, and {CARD} is pushed as it is."
        ) from error

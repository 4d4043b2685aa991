"""What the Hub says of a model or data set that a run was made from: which commit, which licence, which languages."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from .hub_errors import TransportError

__all__ = ["HUB_ERRORS", "SECONDS", "Repository", "is_repository", "is_repository_id", "look_up"]

# A card is not worth a long wait for a Hub that does not answer.
SECONDS = 10.0

# What a Hub that cannot be asked makes its client raise: the errors of its HTTP library, whichever that is, those of
# the operating system, and those of a card that cannot be read.
HUB_ERRORS: tuple[type[Exception], ...] = (TransportError, OSError, ValueError)


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, as far as it could be asked."""

    id: str
    kind: Literal["model", "dataset"]
    revision: str | None = None
    """The commit that `asked_for` meant when the Hub was asked, which is when training began."""
    asked_for: str | None = None
    """Branch, tag or commit; None: the main branch."""
    licence: str | None = None
    languages: list[str] = field(default_factory=list)
    problem: str | None = None
    """Why the Hub could not be asked; None if it has answered."""

    def to_dict(self) -> dict[str, Any]:
        """In types that JSON has."""
        return asdict(self)


def is_repository(name: str) -> bool:
    """Whether a name can only mean a repository of the Hub: it is a valid id, and nothing local has that name."""
    return not (name.startswith("builtin:") or Path(name).expanduser().exists()) and is_repository_id(name)


def is_repository_id(name: str) -> bool:
    """Whether a repository of the Hub may have this name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def look_up(name: str, kind: Literal["model", "dataset"], revision: str | None = None) -> Repository:
    """Ask the Hub; where it cannot be asked, the id alone is known."""
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        info: Any = ask(name, revision=revision, timeout=SECONDS)
    except HUB_ERRORS as error:
        return Repository(name, kind, asked_for=revision, problem=type(error).__name__)
    card: Any = {} if info.card_data is None else info.card_data.to_dict()
    return Repository(
        name, kind, info.sha, revision, licence=_first(card.get("license")), languages=_all(card.get("language"))
    )


def _all(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item]


def _first(value: Any) -> str | None:
    return next(iter(_all(value)), None)

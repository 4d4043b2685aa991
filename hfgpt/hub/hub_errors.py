"""What goes wrong between here and the Hub, in one sentence with the remedy; and once more before it is said."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # its docs name it so

from hfgpt.errors import OutageError, UserError

__all__ = ["TransportError", "may_have_arrived", "said_in_a_sentence", "with_patience"]

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

# The ancestor of all that can go wrong on the way: httpx2's, or httpx's in earlier releases of huggingface_hub.
TransportError: type[Exception] = HfHubHTTPError.__mro__[1]

NEVER_REACHED = ("ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol")
"""Names of those of its descendants that were raised before there was a connection."""

BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed: what huggingface_hub's own uploads are repeated for."""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each repetition, where the Hub does not say how long to wait."""

LONGEST_WAIT = 300.0
"""Seconds; the Hub counts requests in windows of five minutes."""


def with_patience(request: Callable[[], ResultT], before_again: Callable[[], object] = lambda: None) -> ResultT:
    """What `request` returns, which is asked again where the Hub is busy or the connection broke.

    Args:
        request: One that can be made twice. The library repeats uploads by itself, but not these.
        before_again: What is done before each repetition.
    """
    for wait in WAITS:
        try:
            return request()
        except TransportError as error:
            seconds = wait
            if isinstance(error, HfHubHTTPError):
                if error.response.status_code not in BUSY:
                    raise
                seconds = _retry_after(error) or wait
            logger.warning("The Hub did not take a request (%s); once more in %g s.", _brief(error), seconds)
        time.sleep(seconds)
        before_again()
    return request()


def may_have_arrived(error: BaseException) -> bool:
    """Whether a request that ended so may have been carried out all the same, and its answer been lost."""
    return not isinstance(error, HfHubHTTPError) or error.response.status_code >= 500


def _retry_after(error: HfHubHTTPError) -> float | None:
    """Seconds: by the Hub's own RateLimit header, or by the one that proxies send."""
    headers = error.response.headers
    limit, value = parse_ratelimit_headers(headers), headers.get("Retry-After", "")
    if limit is not None and limit.remaining == 0:
        return min(limit.reset_in_seconds + 1.0, LONGEST_WAIT)  # it is rounded down
    return min(float(value), LONGEST_WAIT) if value.isdigit() else None


@contextmanager
def said_in_a_sentence(repo_id: str, so_far: Callable[[], str] = str) -> Iterator[None]:
    """Around requests to the Hub about a repository: what goes wrong is raised as one sentence.

    Args:
        so_far: What the sentence is to add about what has been done by then.

    Raises:
        UserError: If the user can mend it.
        OutageError: If it is the Hub's, or the network's.
    """
    try:
        yield
    except (ConnectionError, PermissionError) as error:  # hf_xet's own, which sends the large files
        if isinstance(error, OSError) and error.filename is not None:  # a file here
            raise
        raise _in_a_sentence(error, repo_id, so_far()) from error
    except RuntimeError as error:  # "Error while uploading ...": what happened is its cause
        cause = error.__cause__
        if isinstance(error, OutageError) or not isinstance(cause, TransportError | OSError):
            raise
        raise _in_a_sentence(cause, repo_id, so_far()) from error
    except (TransportError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        raise _in_a_sentence(error, repo_id, so_far()) from error
    except UserError:
        raise
    except ValueError as error:  # what the library itself says no to: a card's metadata, a quota of the storage
        said = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"The Hub did not accept the push ({said}){so_far()}: mend that, and push again.") from error


def _in_a_sentence(error: BaseException, repo_id: str, so_far: str) -> UserError | OutageError:
    said, remedy, is_users = _reading(error, repo_id)
    sentence = f"{said}{so_far}: {remedy}."
    return UserError(sentence) if is_users else OutageError(sentence)


def _reading(error: BaseException, repo_id: str) -> tuple[str, str, bool]:
    """What has happened, what to do, and whether it is the user's to do."""
    hub = constants.ENDPOINT
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} cannot be the name of a repository", "give one like your-name/my-model", True
    if isinstance(error, LocalTokenNotFoundError):
        return "There is no token for the Hub", "log in with hf auth login, set HF_TOKEN, or give --token", True
    if isinstance(error, OfflineModeIsEnabled):
        return "The Hub is switched off by HF_HUB_OFFLINE=1", "unset it", True
    if isinstance(error, PermissionError):
        return f"This token may not write to {repo_id} ({_brief(error)})", "give a token that may", True
    if not isinstance(error, HfHubHTTPError):
        if type(error).__name__ in NEVER_REACHED:
            return f"The Hub at {hub} cannot be reached ({_brief(error)})", f"see to the network; then {_AGAIN}", True
        if answer := re.search(r"HTTP status \w+ error \(([^)]+)\)", str(error)):  # hf_xet's words
            return f"The Hub did not take the large files ({answer[1]})", _AGAIN, False
        return f"The connection to the Hub broke ({_brief(error)})", _AGAIN, False
    status = error.response.status_code
    words = " ".join((error.server_message or "").split()).rstrip(".")
    if isinstance(error, GatedRepoError):
        return f"{repo_id} is gated, and this account has no access", f"ask for it on {hub}/{repo_id}", True
    if isinstance(error, DisabledRepoError):
        return f"{repo_id} has been disabled on the Hub", "see its page, or give another name", True
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} has no such branch", "give --revision the name of one, or leave it out", True
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return "The Hub does not know this token", "log in with hf auth login, or give a new one as HF_TOKEN", True
    if isinstance(error, EntryNotFoundError) or status == 409:
        return f"{repo_id} is being changed by somebody else" + (f" ({words})" if words else ""), _AGAIN, True
    if isinstance(error, RepositoryNotFoundError) or (status == 404 and "/xet-" not in error.response.url.path):
        return (
            f"There is no model repository {repo_id} that this account may see",
            "check the name, or ask its owner for access",
            True,
        )
    if status == 404:
        return f"The Hub at {hub} has no Xet storage, where hf_xet sends large files", "set HF_HUB_DISABLE_XET=1", True
    if status == 403:
        rights = f"give a token that may write to it ({hub}/settings/tokens), or push under a name of your own"
        return f"This token may not write to {repo_id}" + (f" ({words})" if words else ""), rights, True
    if status == 429:
        return "The Hub takes no more requests from this account for now", f"wait some minutes; then {_AGAIN}", False
    if status in BUSY:
        return f"The Hub has failed ({_brief(error)})", _AGAIN, False
    return f"The Hub did not accept the push ({status}{': ' + words if words else ''})", _AGAIN, False


_AGAIN = "push again, and what has arrived is not sent a second time"


def _brief(error: BaseException) -> str:
    if isinstance(error, HfHubHTTPError):
        return str(error.response.status_code)
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)

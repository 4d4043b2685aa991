"""The one kind of error that is the user's to mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ToldElsewhereError", "UserError", "exit_on_user_error"]


class UserError(ValueError):
    """A mistake in what was asked: a wrong path, column, value or combination.

    The message is one sentence that names what is wrong, where, and what to do. The command-line doors print it
    without a traceback and exit with status 2; library users catch it as a `ValueError`.
    """


class ToldElsewhereError(UserError):
    """The mistake that another process of the launch has found; it says so, and this one only ends."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Around the main of a command: a `UserError` is printed as one sentence and ends the process with status 2."""
    try:
        yield
    except UserError as error:
        if not isinstance(error, ToldElsewhereError):
            print(f"hfgpt: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error

"""Errors that are said in one sentence: those that are the user's to mend, and outages that are nobody's here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["OutageError", "ToldElsewhereError", "UserError", "exit_on_user_error"]


class UserError(ValueError):
    """A mistake in what was asked: a wrong path, column, value or combination.

    The message is one sentence that names what is wrong, where, and what to do. The command-line doors print it
    without a traceback and exit with status 2; library users catch it as a `ValueError`.
    """


class ToldElsewhereError(UserError):
    """The mistake that another process of the launch has found; it says so, and this one only ends."""


class OutageError(RuntimeError):
    """Something outside has failed, such as the Hub or the network on the way to it; one sentence says what may help.

    The command-line doors print it without a traceback and exit with status 1.
    """


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Around the main of a command: one sentence and status 2 for a `UserError`, status 1 for an `OutageError`."""
    try:
        yield
    except (UserError, OutageError) as error:
        if not isinstance(error, ToldElsewhereError):
            print(f"hfgpt: error: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UserError) else 1) from error

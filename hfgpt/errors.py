"""The one kind of error that is the user's to mend."""

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in what was asked: a wrong path, column, value or combination.

    The message is one sentence that names what is wrong, where, and what to do. The command-line doors print it
    without a traceback and exit with status 2; library users catch it as a `ValueError`.
    """

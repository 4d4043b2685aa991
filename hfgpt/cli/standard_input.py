"""Text from a pipe, for the commands that read it."""

import sys
from collections.abc import Iterator

from hfgpt.errors import UserError

__all__ = ["lines_of_standard_input"]


def lines_of_standard_input() -> Iterator[str]:
    """The lines, without their ends, as they come.

    Raises:
        UserError: If one is not UTF-8; the sentence names its number.
    """
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"Line {number} of standard input is not UTF-8: convert it first.") from error

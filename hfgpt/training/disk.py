"""Files of a run: whole, or as they were; and a full disk is one sentence."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfgpt.errors import UserError

__all__ = ["existing_part", "full_disk_is_said", "lack_of_space", "replace_text"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest above it that is there: the disk on which the folder would be made."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def lack_of_space(error: BaseException, folder: Path) -> str | None:
    """The operating system's words for the lack of space that led to an error, if one did."""
    cause: BaseException | None = error if isinstance(error, Exception) else None  # an interrupt stays one
    while cause is not None:
        for number in _NO_SPACE:  # safetensors has the words, but not the number
            if (isinstance(cause, OSError) and cause.errno == number) or os.strerror(number) in str(cause):
                return os.strerror(number)
        cause = cause.__cause__ or cause.__context__
    # torch.save with a path says "unexpected pos 640 vs 598", and nothing of the reason.
    if isinstance(error, RuntimeError) and shutil.disk_usage(existing_part(folder)).free < 2**20:
        return os.strerror(errno.ENOSPC)
    return None


@contextmanager
def full_disk_is_said(folder: Path) -> Iterator[None]:
    """Around what writes to a run's folder.

    Raises:
        UserError: If the disk was full, or a quota or a limit on file sizes reached; other errors go their way.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = lack_of_space(error, folder)
        if reason is None:
            raise
        raise UserError(
            f"The run cannot write to {folder}: {reason}; make room there or raise the limit, then go on with the same "
            "command and --resume auto."
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a text file under another name and rename it, so that it is whole or as it was."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise

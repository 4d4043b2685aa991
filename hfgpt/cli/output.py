"""Folders that commands write: whole, or not there."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfgpt.errors import UserError

__all__ = ["new_folder"]


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name only when the block ends without an error.

    Raises:
        UserError: If the destination is a file, or a folder with something in it, or cannot be written.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UserError(f"{destination} exists and is not an empty folder: name a new one, so that nothing is lost.")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise UserError(f"{destination} cannot be written: {error.strerror}.") from error
    try:
        unfinished.chmod(0o755)  # mkdtemp's folders are private
        yield unfinished
        if destination.is_dir():
            destination.rmdir()
        unfinished.rename(destination)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

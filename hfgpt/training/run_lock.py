"""One run at a time in a folder."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hfgpt.errors import UserError

__all__ = ["LOCK", "exclusive"]

logger = logging.getLogger(__name__)

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created if it is not there.

    The lock is the operating system's (flock), on the file `.lock` in the folder, which stays and means nothing by
    itself. It ends with the process, however that ends, and even if others that it forked live on. Other machines are
    kept out where the file system shares its locks, as NFS does. Where it has none, a warning says so.

    Raises:
        UserError: If another run holds it, in this process or another, or the folder cannot be written to.
    """
    lock = FileLock(
        folder / LOCK,
        thread_local=False,
        fallback_to_soft=False,  # a file that stays after a kill would refuse the run that resumes
        on_acquired=_sign,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"Another run is at work in {folder}{_holder(folder / LOCK)}: wait until it has ended, or name another "
            "output_dir."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UserError(f"{folder} cannot be written to: {error.strerror}; name another output_dir.") from error
        logger.warning(
            "The file system of %s has no locks (%s): see to it that no second run writes there.",
            folder,
            error.strerror,
        )
    try:
        yield
    finally:
        lock.release()  # does nothing if it is not held


def _sign(descriptor: int) -> None:
    """Write into the lock's file who holds it."""
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())


def _holder(lock: Path) -> str:
    try:
        words = lock.read_text(encoding="utf-8", errors="replace")
    except OSError:  # only a help to the reader
        return ""
    return f" ({words})" if words else ""

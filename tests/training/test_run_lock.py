"""A folder has one run at a time.

That the lock of a killed run is free is tested in test_checkpoints.py, with the writers that are killed there.
"""

import errno
import os
from pathlib import Path

import pytest

from hfgpt.errors import UserError
from hfgpt.training.run_lock import exclusive


def test_a_second_run_in_the_folder_is_refused_in_the_same_process(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    with exclusive(folder), pytest.raises(UserError) as caught, exclusive(folder):
        pass
    assert f"Another run is at work in {folder} (process {os.getpid()} on " in str(caught.value)
    with exclusive(folder), exclusive(tmp_path / "runs" / "other"):
        pass


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), exclusive(tmp_path):
        raise KeyError
    with exclusive(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to: Not a directory"), exclusive(tmp_path / "file" / "run"):
        pass


def test_a_file_system_without_locks_is_said_and_can_be_used(tmp_path: Path, monkeypatch, caplog) -> None:
    """Linux gives every file system at least locks of its own machine, so this one's are taken away."""
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path):
        (tmp_path / "anything").touch()
    (record,) = caplog.records
    assert f"The file system of {tmp_path} has no locks (Function not implemented)" in record.getMessage()

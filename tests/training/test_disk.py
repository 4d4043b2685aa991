"""What is told of a full disk, and what is not."""

import errno
import os

import pytest

from hfgpt.errors import UserError
from hfgpt.training.disk import full_disk_is_said


def test_an_error_in_a_folder_that_is_not_there_yet_stays_what_it_is(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="another reason"), full_disk_is_said(tmp_path / "runs" / "mine"):
        raise RuntimeError("another reason")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_lack_of_space_is_one_sentence(tmp_path, number: int) -> None:
    said = f"cannot write to {tmp_path}: {os.strerror(number)}"
    with pytest.raises(UserError, match=said), full_disk_is_said(tmp_path):
        raise OSError(number, os.strerror(number))

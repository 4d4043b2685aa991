"""Fixtures that every room of the tests shares."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data named by `HFGPT_TEST_DATA`; `.ci/run` always sets it, so that nothing is skipped there."""
    folder = os.environ.get("HFGPT_TEST_DATA")
    if not folder:
        pytest.skip("HFGPT_TEST_DATA is not set: this test reads real data")
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        pytest.fail(f"HFGPT_TEST_DATA names {folder}, which is not a folder")
    return path

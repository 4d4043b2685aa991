"""What the tests of the Hub on loopback share."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import file_download
from huggingface_hub.utils import _http


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client wanted to wait before it tried again; it does not have to."""
    seconds: list[float] = []
    for module in (_http, file_download):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.fixture(scope="session")
def gpt2_files() -> Path | None:
    """The folder of GPT-2's vocabulary, where real data is at hand; the look-alikes do with a small one otherwise."""
    folder = os.environ.get("HFGPT_TEST_DATA")
    return Path(folder).expanduser().resolve() / "gpt2" if folder else None

"""What the tests of the Hub on loopback share."""

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

"""What the tests of the Hub on loopback share."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import file_download
from huggingface_hub.utils import _http

if TYPE_CHECKING:
    from .runs import Runs


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


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, gpt2_files: Path | None) -> Iterator["Runs"]:
    """A folder with the files that a user brings, a Hub with look-alikes, and `hfgpt` to be run there."""
    from .commands import Commands
    from .fixtures import environment_of
    from .look_alikes import serve_look_alikes, write_local_files
    from .runs import Runs
    from .server import LoopbackHub

    folder = tmp_path_factory.mktemp("runs")
    write_local_files(folder)
    with LoopbackHub() as hub:
        serve_look_alikes(hub, gpt2_files)
        with Commands(folder, environment_of(hub, folder / "hf_home")) as commands:
            yield Runs(hub, commands, folder)

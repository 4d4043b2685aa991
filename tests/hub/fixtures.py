"""Fixtures: a Hub on loopback for this process and the processes it starts."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .server import LoopbackHub

__all__ = ["environment_of", "hub", "run_python"]


def environment_of(hub: "LoopbackHub", home: Path) -> dict[str, str | None]:
    """The variables by which a process talks to this Hub alone, with caches of its own; None: must not be there."""
    return {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **dict.fromkeys(
            [
                "HF_ASSETS_CACHE",
                "HF_DATASETS_CACHE",
                "HF_DATASETS_OFFLINE",
                "HF_HUB_CACHE",
                "HF_HUB_OFFLINE",
                "HF_MODULES_CACHE",
                "HF_TOKEN_PATH",
                "HUGGINGFACE_CO_STAGING",
                "HUGGINGFACE_HUB_CACHE",
                "TRANSFORMERS_OFFLINE",
            ]
        ),
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["LoopbackHub"]:
    """An empty Hub (tests/hub/server.py) on a free port, which this process and its children take for the Hub.

    The client reads its endpoint when it is imported, so what it remembers is changed here, too. Code that travels with
    a model (`trust_remote_code`) belongs into a process of its own: see `run_python`.
    """
    pytest.importorskip("flask", reason="the Hub on loopback is served by Flask")
    from .server import LoopbackHub

    home = tmp_path / "hf_home"
    with LoopbackHub() as hub:
        for name, value in environment_of(hub, home).items():
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        redirect_this_process(hub, home, monkeypatch)
        yield hub


def redirect_this_process(hub: "LoopbackHub", home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change what the libraries noted down at their import: the endpoint, the caches, whether they are offline."""
    from huggingface_hub import HfFileSystem, constants, hf_api
    from huggingface_hub.utils import _http

    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.endpoint)  # behind huggingface_hub.create_repo and its kin
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # made at its first call, and kept
    _http.close_session()
    HfFileSystem.clear_instance_cache()
    if find_spec("datasets"):
        import datasets

        for name, value in {
            "HF_ENDPOINT": hub.endpoint,
            "HUB_DATASETS_URL": hub.endpoint + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_CACHE_HOME": str(home),
            "HF_DATASETS_CACHE": home / "datasets",
            "HF_HUB_OFFLINE": False,
            "HF_DATASETS_OFFLINE": False,
        }.items():
            monkeypatch.setattr(datasets.config, name, value)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A function that runs Python in a fresh process, which sees the Hub of the fixture `hub` if that is used, too.

    Its first argument is a script's text or a list of the interpreter's arguments; `without_hfgpt=True` lets every
    import of hfgpt fail in a script; `check=False` accepts that the process fails; variables of the environment follow
    by name, and None takes one away.
    """

    def run(
        code: str | list[str], *, without_hfgpt: bool = False, check: bool = True, cwd: Path = tmp_path,
        timeout: float = 300, **variables: str | None,
    ) -> "subprocess.CompletedProcess[str]":  # fmt: skip
        wanted = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        environment = {name: value for name, value in wanted.items() if value is not None}
        arguments = list(code) if not isinstance(code, str) else [str(tmp_path / "script.py")]
        if isinstance(code, str):
            if without_hfgpt:
                from tests.conftest import WITHOUT_HFGPT

                arguments.insert(0, "-I")  # no PYTHONPATH, no user's site
                code = WITHOUT_HFGPT + code
            Path(arguments[-1]).write_text(code, encoding="utf-8")
        completed = subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        assert not check or completed.returncode == 0, completed.stdout + completed.stderr
        return completed

    return run

"""The real client pushes to the Hub on loopback: files small and large, in one piece and in parts, and proposals."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi

if TYPE_CHECKING:
    from .server import LoopbackHub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small file, a file that belongs in large file storage by its name, and one below a folder."""
    folder = tmp_path / "model"
    (folder / "nested").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(250)) * 8)
    (folder / "nested" / "notes.txt").write_text("a note")
    return folder


def test_a_folder_arrives_as_it_was(hub: "LoopbackHub", folder: Path) -> None:
    api = HfApi()
    api.create_repo("tester/model")
    info = api.upload_folder(repo_id="tester/model", folder_path=folder, commit_message="The first")
    pushed = hub.repo("tester/model")
    assert {path: pushed[path] for path in pushed if path != ".gitattributes"} == {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    assert info.oid == pushed.commit.oid
    assert [commit.title for commit in pushed.commits] == ["The first", "initial commit"]
    assert [path for path, file in pushed.commit.files.items() if file.is_large] == ["model.safetensors"]

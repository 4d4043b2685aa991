"""The real client pushes to the Hub on loopback: files small and large, in one piece and in parts, and proposals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from huggingface_hub.utils import get_session, hf_raise_for_status

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


def test_only_what_has_changed_is_sent_again(hub: "LoopbackHub", folder: Path) -> None:
    api = HfApi()
    api.create_repo("tester/model")
    first = api.upload_folder(repo_id="tester/model", folder_path=folder)
    again = api.upload_folder(repo_id="tester/model", folder_path=folder)
    assert again.oid == first.oid
    assert len(hub.repo("tester/model").commits) == 2
    (folder / "copy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    hub.requests.clear()
    api.upload_folder(repo_id="tester/model", folder_path=folder)
    assert "copy.safetensors" in hub.repo("tester/model")
    assert not [path for _, path, _ in hub.requests if "lfs-storage" in path]  # its content was here already


def test_a_large_file_is_sent_in_parts(hub: "LoopbackHub", folder: Path) -> None:
    hub.settings.part_size = 700
    api = HfApi()
    api.create_repo("tester/model")
    api.upload_folder(repo_id="tester/model", folder_path=folder)
    assert hub.repo("tester/model")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert sum(method == "PUT" for method, _, _ in hub.requests) == 3


def test_a_commit_is_whole_or_it_is_not_there(hub: "LoopbackHub") -> None:
    api = HfApi()
    api.create_repo("tester/model")
    operations = [CommitOperationAdd("a.txt", b"a"), CommitOperationDelete("missing.txt")]
    with pytest.raises(HfHubHTTPError, match="doesn't exist"):
        api.create_commit("tester/model", operations, commit_message="Two things")
    assert list(hub.repo("tester/model")) == [".gitattributes"]


def test_files_and_folders_are_deleted(hub: "LoopbackHub", folder: Path) -> None:
    api = HfApi()
    api.create_repo("tester/model")
    api.upload_folder(repo_id="tester/model", folder_path=folder)
    api.delete_file("config.json", "tester/model")
    api.delete_folder("nested", "tester/model")
    assert list(hub.repo("tester/model")) == [".gitattributes", "model.safetensors"]
    assert len(hub.repo("tester/model").commits) == 4


def test_a_commit_on_an_old_state_is_refused(hub: "LoopbackHub") -> None:
    api = HfApi()
    api.create_repo("tester/model")
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id="tester/model")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="tester/model", parent_commit=first.oid)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        api.upload_file(path_or_fileobj=b"3", path_in_repo="a.txt", repo_id="tester/model", parent_commit=first.oid)
    assert error.value.response.status_code == 412
    assert hub.repo("tester/model")["a.txt"] == b"2"


def test_ignored_files_stay_at_home(hub: "LoopbackHub", folder: Path) -> None:
    api = HfApi()
    api.create_repo("tester/model")
    (folder / ".gitignore").write_text("*.txt\n")
    api.upload_folder(repo_id="tester/model", folder_path=folder)
    assert "nested/notes.txt" not in hub.repo("tester/model")


def test_a_proposal_waits_on_a_branch_of_its_own_until_it_is_merged(hub: "LoopbackHub") -> None:
    hub.add_repo("others/model", {"a.txt": b"1", "old.txt": b"old"})  # whoever can read may propose
    api = HfApi()
    operations = [
        CommitOperationAdd("a.txt", b"2"),
        CommitOperationDelete("old.txt"),
        CommitOperationAdd("b.bin", b"b"),
    ]
    info = api.create_commit("others/model", operations, commit_message="A better a", create_pr=True)
    assert info.pr_url == f"{hub.endpoint}/others/model/discussions/1"
    assert info.pr_revision == "refs/pr/1"
    assert hub.repo("others/model")["a.txt"] == b"1"
    assert hub.repo("others/model", revision="refs/pr/1")["a.txt"] == b"2"
    assert Path(api.hf_hub_download("others/model", "a.txt", revision="refs/pr/1")).read_bytes() == b"2"
    details = api.get_discussion_details("others/model", 1)
    assert (details.title, details.status, details.is_pull_request) == ("A better a", "open", True)
    assert [found.name for found in api.list_repo_refs("others/model", include_pull_requests=True).pull_requests or []]
    assert [found.num for found in api.get_repo_discussions("others/model")] == [1]
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request("others/model", 1)


def test_a_merged_proposal_leaves_alone_what_others_changed(hub: "LoopbackHub") -> None:
    hub.add_repo("team/model", {"a.txt": b"1", "old.txt": b"old"})
    api = HfApi()
    proposal = api.create_pull_request("team/model", "A better a")
    operations = [CommitOperationAdd("a.txt", b"2"), CommitOperationDelete("old.txt")]
    api.create_commit("team/model", operations, commit_message="Better", revision=proposal.git_reference)
    api.upload_file(path_or_fileobj=b"c", path_in_repo="c.txt", repo_id="team/model")
    api.merge_pull_request("team/model", proposal.num)
    merged = hub.repo("team/model")
    assert (merged["a.txt"], merged["c.txt"], "old.txt" in merged) == (b"2", b"c", False)
    assert api.get_discussion_details("team/model", proposal.num).status == "merged"


def test_a_card_is_checked_before_anything_is_sent(hub: "LoopbackHub", folder: Path) -> None:
    api = HfApi()
    api.create_repo("tester/model")
    (folder / "README.md").write_text("---\nlicense: mine-alone\n---\n# A model\n")
    with pytest.raises(ValueError, match="license"):
        api.upload_folder(repo_id="tester/model", folder_path=folder)
    assert hub.requests[-1] == ("POST", "/api/validate-yaml", 400)
    (folder / "README.md").write_text("# A model\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_folder(repo_id="tester/model", folder_path=folder)


def test_content_that_does_not_arrive_as_announced_is_not_kept(hub: "LoopbackHub") -> None:
    HfApi().create_repo("tester/model")
    oid, headers = "0" * 64, {"Authorization": f"Bearer {hub.token}"}
    url = f"{hub.endpoint}/tester/model.git/info/lfs/objects/batch"
    batch = get_session().post(url, json={"objects": [{"oid": oid, "size": 3}]}, headers=headers).json()
    sent = get_session().put(batch["objects"][0]["actions"]["upload"]["href"], content=b"abc")
    assert sent.status_code == 400
    lines = {"key": "header", "value": {"summary": "x"}}, {"key": "lfsFile", "value": {"path": "a.bin", "oid": oid}}
    url, content = f"{hub.endpoint}/api/models/tester/model/commit/main", "\n".join(map(json.dumps, lines))
    with pytest.raises(BadRequestError, match="does not exist"):
        hf_raise_for_status(get_session().post(url, content=content, headers=headers))

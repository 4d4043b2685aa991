"""The real client pulls from the Hub on loopback: cached by its names, resumed where it broke, without its token."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import get_session

if TYPE_CHECKING:
    from .server import LoopbackHub

WEIGHTS = bytes(range(256)) * 4


def methods(hub: "LoopbackHub") -> list[str]:
    """Of the requests for files, since the last call."""
    found = [method for method, path, _ in hub.requests if "/resolve/" in path or path.startswith("/cdn/")]
    hub.requests.clear()
    return found


def test_a_snapshot_is_the_files_and_is_not_fetched_twice(hub: "LoopbackHub") -> None:
    hub.add_repo("team/model", {"config.json": b"{}", "folder/model.safetensors": WEIGHTS})
    folder = Path(snapshot_download("team/model"))
    assert (folder / "folder" / "model.safetensors").read_bytes() == WEIGHTS
    assert folder.name == hub.repo("team/model").commit.oid
    assert methods(hub).count("GET") == 3
    assert Path(snapshot_download("team/model")) == folder
    assert "GET" not in methods(hub)


def test_a_new_commit_fetches_only_what_has_changed(hub: "LoopbackHub") -> None:
    hub.add_repo("tester/model", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    snapshot_download("tester/model")
    methods(hub)
    HfApi().upload_file(path_or_fileobj=b"[]", path_in_repo="config.json", repo_id="tester/model")
    folder = Path(snapshot_download("tester/model"))
    assert (folder / "config.json").read_bytes() == b"[]"
    assert methods(hub).count("GET") == 1


def test_the_cache_names_files_by_their_etags(hub: "LoopbackHub") -> None:
    hub.add_repo("team/model", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    files = hub.repo("team/model").commit.files
    for path in ("config.json", "model.safetensors"):
        cached = Path(hf_hub_download("team/model", path))
        assert cached.resolve().name == files[path].etag
    assert len(files["config.json"].etag) == 40  # git's name
    assert len(files["model.safetensors"].etag) == 64  # the content's SHA-256
    assert try_to_load_from_cache("team/model", "config.json") == hf_hub_download("team/model", "config.json")


def test_a_download_that_broke_goes_on_where_it_stopped(
    hub: "LoopbackHub", waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 128)  # what is kept is whole chunks
    hub.add_repo("team/model", {"model.safetensors": WEIGHTS})
    hub.fail("cut", route="GET /cdn/")
    assert Path(hf_hub_download("team/model", "model.safetensors")).read_bytes() == WEIGHTS
    answers = [status for method, path, status in hub.requests if method == "GET" and path.startswith("/cdn/")]
    assert answers == [200, 206]  # the second answer is the missing half


def test_ranges_are_answered_with_the_bytes_they_name(hub: "LoopbackHub") -> None:
    hub.add_repo("team/model", {"small.txt": b"0123456789", "model.safetensors": WEIGHTS})
    url = f"{hub.endpoint}/team/model/resolve/main/small.txt"
    answer = get_session().get(url, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content, answer.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert get_session().get(url, headers={"Range": "bytes=20-"}).status_code == 416
    with HfFileSystem().open("team/model/model.safetensors", block_size=16) as file:
        file.seek(300)
        assert file.read(10) == WEIGHTS[300:310]


def test_the_token_stays_behind_where_large_files_are_redirected(hub: "LoopbackHub") -> None:
    hub.add_repo("tester/secret", {"model.safetensors": WEIGHTS}, private=True)
    answer = get_session().head(
        f"{hub.endpoint}/tester/secret/resolve/main/model.safetensors",
        headers={"Authorization": f"Bearer {hub.token}"}, follow_redirects=False,
    )  # fmt: skip
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("http://localhost:")  # another host than the Hub's
    assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert Path(hf_hub_download("tester/secret", "model.safetensors")).read_bytes() == WEIGHTS


def test_a_slow_server_is_waited_for_up_to_the_client_s_limit(
    hub: "LoopbackHub", waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo("team/model", {"model.safetensors": WEIGHTS})
    hub.fail("slow", route="GET /cdn/", seconds=0.2)
    assert Path(hf_hub_download("team/model", "model.safetensors")).read_bytes() == WEIGHTS
    assert not waited
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fail("slow", route="GET /cdn/", seconds=5)  # half a second for each piece of it
    path = hf_hub_download("team/model", "model.safetensors", force_download=True)
    assert waited  # it gave up, and asked again
    assert Path(path).read_bytes() == WEIGHTS

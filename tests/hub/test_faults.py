"""What the real client makes of each fault: what it raises, what it tries again, and what is left on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from .faults import Fault

if TYPE_CHECKING:
    from .server import LoopbackHub

WEIGHTS = bytes(range(256)) * 400


@pytest.fixture
def push(hub: "LoopbackHub", tmp_path: Path) -> HfApi:
    """A client that has made the repository, and a folder `model` to push."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(WEIGHTS)
    HfApi().create_repo("tester/model")
    hub.requests.clear()
    return HfApi()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("401", "Invalid credentials"),
        ("403", "does not have the rights"),
        ("404", "Repository Not Found"),
        ("409", "in progress"),
        ("500", "Internal Error"),
    ],
)
@pytest.mark.parametrize("route", ["/preupload/", "/commit/"])
def test_a_refusal_is_raised_and_leaves_no_half_commit(
    hub: "LoopbackHub", push: HfApi, tmp_path: Path, waited: list[float], what: str, said: str, route: str
) -> None:
    tries = 6 if what == "500" and route == "/preupload/" else 1
    hub.fail(what, route=route, times=tries)
    with pytest.raises(HfHubHTTPError, match=said) as error:
        push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert error.value.response.status_code == int(what)
    assert isinstance(error.value, RepositoryNotFoundError) == (what == "404")
    assert list(hub.repo("tester/model")) == [".gitattributes"]
    assert waited == [1, 2, 4, 8, 8][: tries - 1]  # a commit is not sent twice: the first might have arrived
    push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert hub.repo("tester/model")["model.safetensors"] == WEIGHTS


def test_the_words_of_a_refusal_can_be_chosen(hub: "LoopbackHub") -> None:
    hub.fail("403", route="/repos/create", message="You have exceeded your storage")
    with pytest.raises(HfHubHTTPError, match="exceeded your storage"):
        HfApi().create_repo("tester/other")
    with pytest.raises(ValueError, match="there is no fault 'flood'"):
        Fault("flood")


def test_a_rate_limit_is_waited_out_as_long_as_the_hub_says(
    hub: "LoopbackHub", push: HfApi, tmp_path: Path, waited: list[float]
) -> None:
    hub.fail("429", times=2, route="/preupload/", retry_after=7)
    push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert waited == [8, 8]  # the client adds a second
    assert hub.repo("tester/model")["model.safetensors"] == WEIGHTS


def test_an_error_of_the_server_is_tried_again(
    hub: "LoopbackHub", push: HfApi, tmp_path: Path, waited: list[float]
) -> None:
    hub.fail("500", times=2, route="PUT /lfs-storage")
    hub.fail("503", route="/verify")
    push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert waited == [1, 2, 1]
    assert hub.repo("tester/model")["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("part_size", [5_000_000, 30_000])
def test_an_upload_that_is_cut_is_sent_again(
    hub: "LoopbackHub", push: HfApi, tmp_path: Path, waited: list[float], part_size: int
) -> None:
    hub.settings.part_size = part_size
    hub.fail("cut", times=2)
    push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert waited == [1, 2]
    assert [status for method, _, status in hub.requests if method == "PUT"][:3] == [None, None, 200]
    assert hub.repo("tester/model")["model.safetensors"] == WEIGHTS


def test_an_upload_that_stays_cut_is_an_error_and_the_next_push_sends_only_what_is_missing(
    hub: "LoopbackHub", push: HfApi, tmp_path: Path, waited: list[float]
) -> None:
    (tmp_path / "model" / "other.safetensors").write_bytes(WEIGHTS[::-1])
    arrived = CommitOperationAdd("model.safetensors", tmp_path / "model" / "model.safetensors")
    push.preupload_lfs_files("tester/model", [arrived])
    hub.fail("cut", times=6)
    with pytest.raises(RuntimeError, match="Error while uploading 'other.safetensors'"):
        push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert list(hub.repo("tester/model")) == [".gitattributes"]
    hub.requests.clear()
    push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert sum(method == "PUT" for method, _, _ in hub.requests) == 1
    assert hub.repo("tester/model")["other.safetensors"] == WEIGHTS[::-1]


def test_a_commit_that_is_cut_is_an_error(hub: "LoopbackHub", push: HfApi, tmp_path: Path) -> None:
    hub.fail("cut", route="/commit/")
    with pytest.raises(Exception, match="(?i)disconnected|reset|broken pipe|closed") as error:
        push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert not isinstance(error.value, (HfHubHTTPError, OSError))  # the HTTP library's own
    assert list(hub.repo("tester/model")) == [".gitattributes"]


def test_a_commit_whose_answer_is_lost_is_an_error_and_is_there(
    hub: "LoopbackHub", push: HfApi, tmp_path: Path
) -> None:
    hub.fail("lost", route="/commit/")
    with pytest.raises(Exception, match="(?i)disconnected|reset|closed"):
        push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert hub.repo("tester/model")["model.safetensors"] == WEIGHTS


def test_a_fault_may_come_after_some_requests_that_pass(hub: "LoopbackHub", push: HfApi) -> None:
    hub.fail("403", route="/whoami", after=1)
    assert push.whoami()["name"] == "tester"
    with pytest.raises(HfHubHTTPError):
        push.whoami()
    assert push.whoami()["name"] == "tester"


def test_a_slow_reader_gets_everything(hub: "LoopbackHub", push: HfApi, tmp_path: Path) -> None:
    hub.fail("slow", route="PUT /lfs-storage", seconds=0.3)
    push.upload_folder(repo_id="tester/model", folder_path=tmp_path / "model")
    assert hub.repo("tester/model")["model.safetensors"] == WEIGHTS


def test_without_a_network_what_is_cached_still_opens(hub: "LoopbackHub", waited: list[float]) -> None:
    hub.add_repo("team/model", {"config.json": b"{}"})
    path = hf_hub_download("team/model", "config.json")
    hub.close()
    assert hf_hub_download("team/model", "config.json") == path
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("team/model", "other.json")

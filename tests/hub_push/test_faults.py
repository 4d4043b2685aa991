"""Each thing that can go wrong between here and the Hub is one sentence, and pushing again completes the push."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _http

from hfgpt import HfGptForCausalLM
from hfgpt.errors import OutageError, UserError
from hfgpt.hub import hub_errors
from hfgpt.hub.pushing import push

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

REPO = "tester/model"
AGAIN = "push again, and what has arrived is not sent a second time"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No test waits: the seconds that ours and the library's patience would have slept are written down."""
    slept: list[float] = []
    monkeypatch.setattr(hub_errors.time, "sleep", slept.append)  # the module's, and so also the library's
    return slept


def sentence_of(error: type[Exception], *arguments: Any, **options: Any) -> str:
    with pytest.raises(error) as stopped:
        push(*arguments, **options)
    sentence = str(stopped.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def puts(hub: "LoopbackHub") -> list[str]:
    return [path for method, path, status in hub.requests if method == "PUT" and status == 200]


def test_no_token(hub: "LoopbackHub", model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    sentence = sentence_of(UserError, model_folder, REPO)
    assert sentence == "There is no token for the Hub: log in with hf auth login, set HF_TOKEN, or give --token."
    assert hub.requests == []


def test_an_unknown_token(hub: "LoopbackHub", model_folder: Path) -> None:
    sentence = sentence_of(UserError, model_folder, REPO, token="hf_" + "x" * 34)
    assert sentence.startswith("The Hub does not know this token: ")


def test_a_token_that_may_only_read(hub: "LoopbackHub", model_folder: Path) -> None:
    sentence = sentence_of(UserError, model_folder, REPO, token=hub.read_token)
    assert sentence.startswith("The token of tester may only read: ")
    assert not [path for method, path, _ in hub.requests if method == "POST"]


def test_a_namespace_of_somebody_else(hub: "LoopbackHub", model_folder: Path) -> None:
    sentence = sentence_of(UserError, model_folder, "somebody/model")
    assert sentence.startswith("tester may not write to somebody/model, for somebody is no organisation")
    assert "tester, team" in sentence


def test_a_proposal_to_a_repository_that_is_not_there(hub: "LoopbackHub", model_folder: Path) -> None:
    sentence = sentence_of(UserError, model_folder, "somebody/model", create_pr=True)
    assert sentence == "There is no somebody/model on the Hub to propose a push to: push without --pr."


def test_a_gated_repository(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.add_repo("somebody/model", {}, gated=True)
    sentence = sentence_of(UserError, model_folder, "somebody/model", create_pr=True)
    assert sentence.startswith("somebody/model is gated, and this account has no access: ")


def test_no_network(hub: "LoopbackHub", model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    _http.close_session()
    sentence = sentence_of(UserError, model_folder, REPO)
    assert sentence.startswith(f"The Hub at {endpoint} cannot be reached (")


def test_offline_mode(hub: "LoopbackHub", model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _http.close_session()
    try:
        sentence = sentence_of(UserError, model_folder, REPO)
    finally:
        monkeypatch.undo()
        _http.close_session()
    assert sentence == "The Hub is switched off by HF_HUB_OFFLINE=1: unset it."


@pytest.mark.parametrize(
    ("what", "route", "error", "beginning"),
    [
        ("401", "/preupload/", UserError, "The Hub does not know this token"),
        ("403", "/commit/", UserError, "This token may not write to tester/model"),
        ("404", "/preupload/", UserError, "There is no model repository tester/model that this account may see"),
        ("409", "/commit/", UserError, "tester/model is being changed by somebody else"),
        ("429", "/commit/", OutageError, "The Hub takes no more requests from this account for now"),
        ("500", "/commit/", OutageError, "The Hub has failed (500)"),
        ("no route", "/commit/", UserError, "There is no model repository tester/model that this account may see"),
        ("503", "/preupload/", OutageError, "The Hub has failed (503)"),
        ("cut", "PUT /lfs-storage", OutageError, "The connection to the Hub broke ("),
    ],
)
def test_each_fault_is_one_sentence_that_names_the_new_repository_and_a_retry_completes(
    hub: "LoopbackHub", model_folder: Path, what: str, route: str, error: type[Exception], beginning: str
) -> None:
    hub.fail(what, times=100, route=route)
    sentence = sentence_of(error, model_folder, REPO)
    assert sentence.startswith(beginning)
    is_still = "may still be" if (what, route) == ("500", "/commit/") else "is still"  # it might have done it
    assert f"{hub.endpoint}/{REPO} was created for the push and {is_still} without the model" in sentence
    assert [path for path in hub.repo(REPO)] == [".gitattributes"]  # noqa: C416  # a mapping's keys
    hub.faults.waiting.clear()
    assert push(model_folder, REPO).commit == hub.repo(REPO).commit.oid
    assert "model.safetensors" in hub.repo(REPO)


def test_a_conflict_while_the_repository_is_made_is_one_sentence(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.fail("409", times=100, route="/repos/create")
    assert sentence_of(UserError, model_folder, REPO).startswith("tester/model is being changed by somebody else")
    hub.faults.waiting.clear()
    hub.fail("lost", route="/repos/create")  # the second request meets a repository that is there
    assert push(model_folder, REPO).commit == hub.repo(REPO).commit.oid


@pytest.mark.parametrize("what", ["429", "500", "503", "cut"])
@pytest.mark.parametrize("route", ["whoami", "/repos/create", "/preupload/", "PUT /lfs-storage", "/commit/"])
def test_what_passes_by_itself_is_waited_for(
    hub: "LoopbackHub", model_folder: Path, waits: list[float], what: str, route: str
) -> None:
    hub.fail(what, times=2, route=route)
    push(model_folder, REPO)
    assert "model.safetensors" in hub.repo(REPO)
    assert waits


def test_as_long_as_the_hub_says(hub: "LoopbackHub", model_folder: Path, waits: list[float]) -> None:
    hub.fail("429", route="/repos/create", retry_after=37)
    hub.fail("429", route="/commit/", rate_limit=120)  # the Hub's own way to say it
    push(model_folder, REPO)
    assert waits == [37, 121]


@pytest.fixture
def sharded(model_folder: Path, tmp_path: Path) -> Path:
    """The same model with its weights in several files."""
    HfGptForCausalLM.from_pretrained(model_folder).save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    return tmp_path / "sharded"


def test_an_interrupted_upload_goes_on_where_it_was(hub: "LoopbackHub", sharded: Path) -> None:
    num_shards = len(list(sharded.glob("*.safetensors")))
    assert num_shards > 1
    hub.fail("cut", times=100, route="/commit/")  # after the large files
    sentence_of(OutageError, sharded, REPO)
    assert len(puts(hub)) == num_shards
    hub.faults.waiting.clear()
    hub.requests.clear()
    push(sharded, REPO)
    assert puts(hub) == []
    assert {path.name for path in sharded.glob("*.safetensors")} <= set(hub.repo(REPO))


def test_of_an_upload_that_broke_only_what_is_missing_is_sent(hub: "LoopbackHub", sharded: Path) -> None:
    num_shards = len(list(sharded.glob("*.safetensors")))
    hub.fail("cut", times=100, after=1)
    sentence_of(OutageError, sharded, REPO)
    assert len(puts(hub)) == 1 < num_shards
    hub.faults.waiting.clear()
    push(sharded, REPO)
    assert len(puts(hub)) == num_shards


def test_ctrl_c_names_the_repository_that_was_made(
    hub: "LoopbackHub", model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        push(model_folder, REPO)
    assert f"{hub.endpoint}/{REPO} was created for the push" in caplog.text


# ---------------------------------------------------------------------------------------------------------------------
# What was done, though the answer was lost
# ---------------------------------------------------------------------------------------------------------------------


def titles(hub: "LoopbackHub", revision: str = "main") -> list[str]:
    """Of the commits, from the first."""
    return [commit.title for commit in hub.repo(REPO, revision=revision).commits][::-1]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(
    hub: "LoopbackHub", model_folder: Path, sharded: Path
) -> None:
    hub.fail("lost", route="/commit/")
    first = push(model_folder, REPO, commit_message="The first")
    hub.fail("lost", route="/commit/")
    second = push(sharded, REPO, commit_message="The second")
    assert titles(hub) == ["initial commit", "The first", "The second"]
    assert [first.commit, second.commit] == [commit.oid for commit in hub.repo(REPO).commits][1::-1]
    assert "model.safetensors" in second.deleted
    assert "model.safetensors" not in hub.repo(REPO)
    assert not first.unchanged
    assert not second.unchanged


def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.add_repo("somebody/model", {"config.json": b"{}"})
    HfApi().create_pull_request("somebody/model", "A better config")
    hub.fail("lost", route="/commit/")
    pushed = push(model_folder, "somebody/model", create_pr=True, commit_message="A better config")
    assert len(hub.repo("somebody/model").pull_requests) == 2
    assert pushed.url == f"{hub.endpoint}/somebody/model/discussions/2"
    proposed = hub.repo("somebody/model", revision="refs/pr/2")
    assert pushed.commit == proposed.commit.oid
    assert "model.safetensors" in proposed
    assert [commit.title for commit in proposed.commits].count("A better config") == 1


def test_a_commit_that_did_not_arrive_is_sent_again_as_it_was(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.fail("cut", times=2, route="/commit/")
    push(model_folder, REPO, commit_message="The first")
    assert titles(hub) == ["initial commit", "The first"]


def test_what_may_have_arrived_is_said(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.fail("lost", route="/commit/")
    hub.fail("503", times=100, route="/preupload/", after=1)
    sentence = sentence_of(OutageError, model_folder, REPO)
    assert f"{hub.endpoint}/{REPO} was created for the push and may still be without the model" in sentence
    hub.faults.waiting.clear()
    assert push(model_folder, REPO).unchanged
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    hub.fail("lost", route="/commit/")
    hub.fail("503", times=100, route="whoami", after=1)
    sentence = sentence_of(OutageError, model_folder, REPO, create_pr=True)
    assert f"the pull request may have been opened all the same ({hub.endpoint}/{REPO}/discussions)" in sentence


def test_a_repository_of_which_nobody_knows_whether_it_was_made_is_named(
    hub: "LoopbackHub", model_folder: Path
) -> None:
    hub.fail("lost", times=100, route="/repos/create")
    sentence = sentence_of(OutageError, model_folder, REPO)
    assert f"; {hub.endpoint}/{REPO} may have been created for the push: push again" in sentence
    hub.faults.waiting.clear()
    push(model_folder, REPO)
    assert "model.safetensors" in hub.repo(REPO)
    hub.fail("lost", route="/repos/create")
    assert push(model_folder, "tester/other").created
    hub.fail("403", route="/repos/create")
    assert "created" not in sentence_of(UserError, model_folder, "tester/third")


def test_a_branch_that_was_made_is_named(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.fail("403", times=100, route="/preupload/")
    sentence = sentence_of(UserError, model_folder, REPO, revision="trial")
    assert f"{hub.endpoint}/{REPO} with its branch trial was created for the push and is still without" in sentence
    sentence = sentence_of(UserError, model_folder, REPO, revision="other")
    assert f"; the branch other of {hub.endpoint}/{REPO} was created for the push and is still without" in sentence
    assert "created" not in sentence_of(UserError, model_folder, REPO, revision="trial")
    hub.fail("lost", times=100, route="/branch/")
    sentence = sentence_of(OutageError, model_folder, REPO, revision="third")
    assert f"; the branch third of {hub.endpoint}/{REPO} may have been created for the push" in sentence


def test_a_file_that_somebody_else_has_deleted_meanwhile_is_no_missing_repository(
    hub: "LoopbackHub", model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(model_folder, REPO)
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: ["chat_template.jinja"])
    assert sentence_of(UserError, model_folder, REPO).startswith(f"{REPO} is being changed by somebody else")


# ---------------------------------------------------------------------------------------------------------------------
# hf_xet, which sends the large files where it is installed
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def xet(hub: "LoopbackHub", monkeypatch: pytest.MonkeyPatch) -> "LoopbackHub":
    """The Hub on loopback knows Xet's tokens, and not its storage."""
    pytest.importorskip("hf_xet", reason="hf_xet is not made for every platform")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    return hub


@pytest.mark.parametrize("create_pr", [False, True])
@pytest.mark.parametrize(
    ("what", "error", "beginning"),
    [
        ("401", UserError, "The Hub does not know this token"),
        ("403", UserError, "This token may not write to team/model"),
        ("404", UserError, "There is no model repository team/model that this account may see"),
        ("no route", UserError, "The Hub at {hub} has no Xet storage, where hf_xet sends large files"),
        ("429", OutageError, "The Hub takes no more requests from this account for now"),
        ("500", OutageError, "The Hub has failed (500)"),
        ("cut", OutageError, "The connection to the Hub broke ("),
    ],
)
def test_leave_to_use_the_xet_storage_that_is_not_given_is_one_sentence(
    xet: "LoopbackHub", model_folder: Path, what: str, error: type[Exception], beginning: str, create_pr: bool
) -> None:
    xet.add_repo("team/model", {"config.json": b"{}"})
    xet.fail(what, times=100, route="/xet-write-token/")
    sentence = sentence_of(error, model_folder, "team/model", create_pr=create_pr)
    assert sentence.startswith(beginning.format(hub=xet.endpoint))
    assert list(xet.repo("team/model")) == [".gitattributes", "config.json"]


def test_leave_to_use_the_xet_storage_is_waited_for(xet: "LoopbackHub", model_folder: Path) -> None:
    xet.fail("500", times=2, route="/xet-write-token/")
    sentence_of(OutageError, model_folder, REPO)
    asked = [status for _, path, status in xet.requests if path == f"/api/models/{REPO}/xet-write-token/main"]
    assert asked == [500, 500, 200, 200]  # by us, and then by hf_xet


def test_a_xet_storage_that_refuses_is_one_sentence(xet: "LoopbackHub", model_folder: Path) -> None:
    xet.fail("403", times=100, route="/xet-storage/")
    sentence = sentence_of(OutageError, model_folder, REPO)
    assert sentence.startswith("The Hub did not take the large files (403 Forbidden)")
    assert f"{xet.endpoint}/{REPO} was created for the push and is still without the model" in sentence

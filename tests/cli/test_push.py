"""`hfgpt push`: what it prints, its exit status, and its sentences."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hfgpt.hub import hub_errors

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

REPO = "tester/model"


def test_a_dry_run_lists_files_and_what_is_left_out_and_asks_nobody(hub: "LoopbackHub", hfgpt, model_folder) -> None:
    (model_folder / "notes.txt").write_text("mine")
    answer = hfgpt("push", model_folder, "--repo", REPO, "--dry-run")
    assert answer.status == 0
    size = (model_folder / "model.safetensors").stat().st_size
    assert re.search(rf"model\.safetensors\W+{size:,}\W+LFS", answer.out)
    assert re.search(r"config\.json\W+[\d,]+\W+git", answer.out)
    assert "left out: notes.txt (not one of the files of a model)" in answer.out
    assert "deleted there: what another model has left, if anything" in answer.out
    assert answer.out.rstrip().endswith("nothing was sent.")
    assert hub.requests == []


def test_a_push_says_where_the_model_is(hub: "LoopbackHub", hfgpt, model_folder) -> None:
    answer = hfgpt("push", model_folder, "--repo", REPO, "--private", "--message", "The first")
    assert answer.status == 0
    assert f"to {REPO} (new): {hub.endpoint}/{REPO}" in answer.out
    assert hub.repo(REPO).private
    assert hub.repo(REPO).commits[0].title == "The first"


def test_a_push_of_what_is_there_already_says_so(hub: "LoopbackHub", hfgpt, model_folder) -> None:
    hfgpt("push", model_folder, "--repo", REPO)
    answer = hfgpt("push", model_folder, "--repo", REPO)
    assert f"files are in {REPO} already, and no commit was made: {hub.endpoint}/{REPO}" in answer.out
    assert "Pushed" not in answer.out
    assert json.loads(hfgpt("push", model_folder, "--repo", REPO, "--json").out)["unchanged"] is True


def test_json_is_for_programs(hub: "LoopbackHub", hfgpt, model_folder) -> None:
    listed = json.loads(hfgpt("push", model_folder, "--repo", REPO, "--dry-run", "--json").out)
    pushed = json.loads(hfgpt("push", model_folder, "--repo", REPO, "--json").out)
    assert listed["files"] == pushed["files"]
    assert {file["path"] for file in pushed["files"]} == set(hub.repo(REPO)) - {".gitattributes"}
    assert (listed["commit"], pushed["commit"]) == (None, hub.repo(REPO).commit.oid)


def test_gpt2s_layout_branch_and_proposal_are_options(hub: "LoopbackHub", hfgpt, model_folder) -> None:
    assert hfgpt("push", model_folder, "--repo", REPO, "--format", "gpt2", "--revision", "gpt2").status == 0
    assert json.loads(hub.repo(REPO, revision="gpt2")["config.json"])["model_type"] == "gpt2"
    assert "/discussions/" in hfgpt("push", model_folder, "--repo", REPO, "--pr").out


def test_something_private_is_one_sentence_that_does_not_repeat_it(hub: "LoopbackHub", hfgpt, model_folder) -> None:
    secret = "hf_" + "a" * 34
    (model_folder / "README.md").write_text(f"# Model\n\n{secret}\n")
    sentence = hfgpt("push", model_folder, "--repo", REPO).sentence
    assert "a Hugging Face token in README.md, line 3" in sentence
    assert secret not in sentence
    assert hub.requests == []


def test_a_users_mistake_is_status_2_and_an_outage_status_1(
    hub: "LoopbackHub", hfgpt, model_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "may only read" in hfgpt("push", model_folder, "--repo", REPO, "--token", hub.read_token).sentence
    monkeypatch.setattr(hub_errors, "WAITS", ())
    hub.fail("503", times=100)
    answer = hfgpt("push", model_folder, "--repo", REPO)
    assert answer.status == 1
    assert answer.err.strip().splitlines()[-1].startswith("hfgpt: error: The Hub has failed (503)")


def test_a_folder_without_a_model_is_refused(hfgpt, tmp_path: Path) -> None:
    assert "There is no model in" in hfgpt("push", tmp_path, "--repo", REPO, "--dry-run").sentence

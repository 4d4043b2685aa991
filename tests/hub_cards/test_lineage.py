"""What is found out about the model that a training begins with."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from hfgpt.hub.facts_file import read_facts, write_facts
from hfgpt.hub.lineage import ancestors, trace_parent, weights_fingerprint
from hfgpt.hub.repositories import is_repository, look_up

WEIGHTS = b"some weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
CARD = b"---\nlicense: mit\nlanguage:\n- en\n- fr\n---\n# A card\n"


def folder_with(folder: Path, facts: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    facts["weights"]["sha256"] = {"model.safetensors": SHA256}
    write_facts(folder, facts)
    return folder


def test_a_folder_is_known_by_its_weights_and_by_the_facts_beside_them(tmp_path: Path, facts: dict[str, Any]) -> None:
    folder = folder_with(tmp_path / "base" / "final", facts)
    found = trace_parent(str(folder))
    assert (found["name"], found["repository"]) == ("base/final", None)
    assert found["weights"] == weights_fingerprint(folder) == {"model.safetensors": SHA256}
    assert found["facts"]["training"] == facts["training"]
    assert "hyperparameters" not in found["facts"]  # which stand in the parent's own card


def test_facts_about_other_weights_are_left_out(tmp_path: Path, facts: dict[str, Any]) -> None:
    folder = folder_with(tmp_path / "base", facts)
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert trace_parent(str(folder))["facts"] is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 99}'])
def test_a_file_that_holds_no_facts_of_ours_is_left_out(tmp_path: Path, facts: dict[str, Any], content: str) -> None:
    folder = folder_with(tmp_path / "base", facts)
    (folder / "card_facts.json").write_text(content)
    assert trace_parent(str(folder))["facts"] is None


def test_a_model_on_the_hub_is_known_by_its_commit_its_licence_and_its_facts(hub, facts: dict[str, Any]) -> None:
    hub.add_repo("ada/base", {"README.md": CARD, "card_facts.json": json.dumps(facts).encode()})
    found = trace_parent("ada/base")
    assert (found["repository"]["id"], found["repository"]["licence"]) == ("ada/base", "mit")
    assert len(found["repository"]["revision"]) == 40
    assert found["facts"]["name"] == facts["name"]
    assert list(ancestors({"lineage": {"parent": found}})) == [found]


def test_the_commit_that_was_loaded_is_the_one_that_counts(hub, facts: dict[str, Any]) -> None:
    hub.add_repo("ada/base", {"README.md": CARD})
    commit = look_up("ada/base", "model").revision
    assert trace_parent("ada/base", commit=commit)["repository"]["revision"] == commit


def test_a_model_on_the_hub_without_facts_is_known_by_its_commit(hub) -> None:
    hub.add_repo("ada/base", {"config.json": b"{}"})
    found = trace_parent("ada/base")
    assert found["facts"] is None
    assert found["repository"]["licence"] is None
    assert found["repository"]["revision"]


def test_a_data_set_s_page_tells_its_licence_and_languages(hub) -> None:
    hub.add_repo("ada/texts", {"README.md": CARD}, repo_type="dataset")
    found = look_up("ada/texts", "dataset")
    assert (found.licence, found.languages, found.problem) == ("mit", ["en", "fr"], None)


def test_a_hub_that_cannot_be_asked_ends_no_training(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = look_up("ada/missing", "dataset")
    assert (missing.revision, missing.licence) == (None, None)
    assert missing.problem
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = trace_parent("ada/base", commit="b" * 40)
    assert offline["repository"]["revision"] == "b" * 40
    assert offline["repository"]["problem"]
    assert offline["facts"] is None


def test_a_name_that_stands_for_something_local_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_repository("ada/base")
    (tmp_path / "ada" / "base").mkdir(parents=True)
    assert not is_repository("ada/base")
    for name in ("builtin:stories", "a/b/c", "/home/ada", "texts?.csv"):
        assert not is_repository(name)


def test_facts_are_read_as_they_were_written_but_for_infinity(tmp_path: Path, facts: dict[str, Any]) -> None:
    facts["evaluation"][0]["rows"][0]["values"]["perplexity"]["value"] = float("inf")
    read = read_facts(write_facts(tmp_path, facts))
    assert read["evaluation"][0]["rows"][0]["values"]["perplexity"]["value"] is None
    assert read | {"evaluation": None} == facts | {"evaluation": None}

"""What is found out about the model that a training begins with."""

import hashlib
import json
import re
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from types import UnionType
from typing import Any

import pytest
from huggingface_hub import constants

from hfgpt.errors import UserError
from hfgpt.hub.cards import render_card
from hfgpt.hub.facts_file import read_facts, write_facts
from hfgpt.hub.lineage import FACTS, PARENT, REPOSITORY, ancestors, trace_parent, weights_fingerprint
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


def test_facts_about_other_weights_are_left_out_with_a_word(
    tmp_path: Path, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_with(tmp_path / "base", facts)
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert trace_parent(str(folder))["facts"] is None
    (record,) = caplog.records
    assert "is about other weights" in record.getMessage()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format_version": 99}', '{"format_version": []}', b"\xff", "[" * 9999, '{"a":' * 9999]
)
def test_a_file_that_holds_no_facts_of_ours_is_left_out(
    tmp_path: Path, facts: dict[str, Any], content: str | bytes
) -> None:
    folder = folder_with(tmp_path / "base", facts)
    (folder / "card_facts.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert trace_parent(str(folder))["facts"] is None


def least(pattern: Any) -> Any:
    """The least that is like a pattern of `hfgpt.hub.lineage`."""
    if isinstance(pattern, dict):
        return {name: least(part) for name, part in pattern.items()}
    if isinstance(pattern, list):
        return [least(pattern[0])]
    return (
        None
        if isinstance(pattern, UnionType) and isinstance(None, pattern)
        else getattr(pattern, "__args__", [pattern])[0]()
    )


def parts_of(pattern: Any, *above: str) -> Iterator[tuple[str, ...]]:
    for name, part in pattern.items():
        yield (*above, name)
        yield from parts_of(part, *above, name) if isinstance(part, dict) else ()


def child_of(facts: dict[str, Any], parent: dict[str, Any]) -> str:
    return str(render_card(facts | {"lineage": {"parent": parent, "num_resumptions": 0}}))


def test_the_least_that_is_believed_of_a_parent_can_be_said_in_its_child_s_card(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    grandparent = least(PARENT) | {"repository": least(REPOSITORY) | {"id": "ada/first"}, "facts": least(FACTS)}
    own = least(FACTS) | {"format_version": 1, "lineage": {"parent": grandparent}}
    found = trace_parent(str(folder_with(tmp_path / "base", own)))
    assert "That model: 0 parameters" in child_of(facts, found)


@pytest.mark.parametrize("missing", list(parts_of(FACTS)), ids=".".join)
@pytest.mark.parametrize("instead", [None, "nonsense"])
def test_a_parent_s_facts_that_are_not_whole_leave_the_child_s_card_shorter(
    tmp_path: Path, facts: dict[str, Any], missing: tuple[str, ...], instead: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = folder_with(tmp_path / "base", facts)
    own = json.loads((folder / "card_facts.json").read_text())
    *above, last = missing
    place = reduce(getitem, above, own)
    if instead is None:
        del place[last]
    elif isinstance(place[last], str):
        place[last] = 7
    else:
        place[last] = instead
    (folder / "card_facts.json").write_text(json.dumps(own))
    found = trace_parent(str(folder))
    assert found["facts"] is None
    assert "What it was trained on is not recorded here" in child_of(facts, found)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"card_facts.json of {folder} is not whole")


def test_what_claims_an_ancestor_that_can_be_none_is_not_believed(tmp_path: Path, facts: dict[str, Any]) -> None:
    for number, name in enumerate(("ada/first", "first](https://example.org)[")):
        parent = least(PARENT) | {"repository": least(REPOSITORY) | {"id": name}, "facts": None}
        facts["lineage"] = {"parent": parent, "num_resumptions": 0}
        found = trace_parent(str(folder_with(tmp_path / str(number), facts)))
        assert (found["facts"] is not None) == (name == "ada/first")


def test_a_model_on_the_hub_is_known_by_its_commit_its_licence_and_its_facts(hub, facts: dict[str, Any]) -> None:
    facts["weights"]["sha256"] = {"model.safetensors": SHA256}
    hub.add_repo("ada/base", on_the_hub(facts))
    found = trace_parent("ada/base")
    assert (found["repository"]["id"], found["repository"]["licence"]) == ("ada/base", "mit")
    assert len(found["repository"]["revision"]) == 40
    assert found["weights"] == {"model.safetensors": SHA256}
    assert found["facts"]["name"] == facts["name"]
    assert list(ancestors({"lineage": {"parent": found}})) == [found]


def on_the_hub(facts: dict[str, Any]) -> dict[str, bytes]:
    weights = {"model.safetensors": WEIGHTS, "onnx/model.safetensors": b"others"}
    return {"README.md": CARD, "card_facts.json": json.dumps(facts).encode(), **weights}


def test_facts_on_the_hub_about_other_weights_are_left_out_with_a_word(
    hub, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    facts["weights"]["sha256"] = {"model.safetensors": "0" * 64}
    hub.add_repo("ada/base", on_the_hub(facts))
    found = trace_parent("ada/base")
    assert found["facts"] is None
    assert found["repository"]["licence"] == "mit"
    (record,) = caplog.records
    assert record.getMessage().startswith("card_facts.json of ada/base is about other weights")


def test_facts_on_the_hub_that_cannot_be_had_are_missed_aloud(
    hub, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    hub.add_repo("ada/base", on_the_hub(facts))
    hub.fail("403", times=9, route="card_facts.json")
    found = trace_parent("ada/base")
    assert (found["facts"], found["repository"]["licence"]) == (None, "mit")
    (said,) = [record.getMessage() for record in caplog.records if record.name == "hfgpt.hub.lineage"]
    assert re.match(r"card_facts\.json of ada/base cannot be had \(\w+\): the new model's card will not say how", said)


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


def test_numbers_that_json_does_not_know_are_none_also_where_others_wrote_them(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    path = write_facts(tmp_path, facts)
    path.write_text(path.read_text().replace("4.48", "NaN").replace("4.25", "-Infinity").replace("4.75", "1e999"))
    (_, own) = read_facts(path)["evaluation"][0]["rows"]
    assert own["values"]["perplexity"] == {"value": None, "interval": [None, None]}
    assert "| **this model** | **-** |" in str(render_card(read_facts(path)))


def test_facts_of_another_format_are_refused_in_a_sentence_that_names_both(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    path = write_facts(tmp_path, facts | {"format_version": 2})
    with pytest.raises(
        UserError, match=r"is written in format 2 and this hfgpt reads 1: use the one that has written it"
    ):
        read_facts(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="holds no facts of a training: finish the run again"):
        read_facts(path)


def test_facts_from_before_threads_were_counted_say_that_they_are_not_recorded(facts: dict[str, Any]) -> None:
    del facts["hardware"]["threads"]
    assert "1 process, threads not recorded, fp32" in str(render_card(facts))

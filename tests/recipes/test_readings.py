"""What is loaded is what the card names: each part of the data from its own source, split and revision."""

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from huggingface_hub import CommitOperationAdd, HfApi

from hfgpt.hub.repositories import look_up
from hfgpt.hub.run_record import RunRecord
from hfgpt.recipes import card_parts
from hfgpt.recipes.classification_config import ClassificationConfig
from hfgpt.recipes.instruction_config import InstructionConfig
from hfgpt.recipes.instruction_corpus import load_conversation_splits
from hfgpt.recipes.labelled_corpus import load_splits
from hfgpt.recipes.readings import readings

RECIPES = {"labelled": ClassificationConfig, "conversations": InstructionConfig}


def rows(kind: str, name: str) -> bytes:
    """Twelve records that say whose they are."""
    made = [
        {"text": f"{name} {number}", "label": "ham" if number % 2 else "spam"}
        if kind == "labelled"
        else {"prompt": f"{name} {number}", "completion": "yes"}
        for number in range(12)
    ]
    return "".join(json.dumps(row) + "\n" for row in made).encode()


def texts_of(kind: str, config: Any) -> dict[str, set[str]]:
    """By the part that was loaded, what its records say whose they are."""
    if kind == "labelled":
        splits: Any = load_splits(config, Accelerator(cpu=True))
        return {part: {text.split()[0] for text in getattr(splits, part)["text"]} for part in ("train", "validation")}
    splits = load_conversation_splits(config, Accelerator(cpu=True)).splits
    return {
        part: {messages[0]["content"].split()[0] for messages in getattr(splits, part)["messages"]}
        for part in ("train", "validation")
    }


@pytest.fixture(params=list(RECIPES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def data_facts(config: Any) -> list[dict[str, Any]]:
    record = RunRecord(None, data=[(reading.source, reading.revision) for reading in readings(config)])
    record._trace()
    return card_parts.data_sources(config, record, [], [])


def test_a_second_source_has_its_own_revision_and_the_card_names_it(hub, kind: str) -> None:
    first = "tester/first"
    hub.add_repo(first, {"train.jsonl": rows(kind, "old")}, repo_type="dataset")
    old = look_up(first, "dataset").revision
    again = CommitOperationAdd("train.jsonl", rows(kind, "new"))
    HfApi().create_commit(first, [again], commit_message="Anew", repo_type="dataset")
    hub.add_repo("ada/second", {"train.jsonl": rows(kind, "other")}, repo_type="dataset")
    config = RECIPES[kind](
        output_dir="unused", init_from="unused", max_steps=1, source=first, source_revision=old,
        validation_source="ada/second",
    )  # fmt: skip
    assert texts_of(kind, config) == {"train": {"old"}, "validation": {"other"}}
    trained_on, second = data_facts(config)
    assert (trained_on["repository"]["id"], trained_on["repository"]["revision"]) == (first, old)
    assert (second["source"], second["use"], second["split"]) == ("ada/second", "validation", "train")
    assert second["repository"]["revision"] == look_up("ada/second", "dataset").revision


def test_a_file_may_stand_beside_a_revision_of_the_hub(hub, kind: str, tmp_path: Path) -> None:
    hub.add_repo("ada/first", {"train.jsonl": rows(kind, "old")}, repo_type="dataset")
    (tmp_path / "mine.jsonl").write_bytes(rows(kind, "mine"))
    config = RECIPES[kind](
        output_dir="unused", init_from="unused", max_steps=1, source="ada/first", source_revision="main",
        validation_source=str(tmp_path / "mine.jsonl"),
    )  # fmt: skip
    assert texts_of(kind, config)["validation"] == {"mine"}
    (_, second) = data_facts(config)
    assert (second["source"], second["kind"], second["split"]) == ("mine.jsonl", "local", None)


def test_another_split_of_the_source_has_the_source_s_configuration_and_revision() -> None:
    config = ClassificationConfig(
        output_dir="unused", init_from="unused", source="ada/first", source_config="plain", source_revision="kept",
        test_split="unseen",
    )  # fmt: skip
    assert [tuple(reading) for reading in readings(config)] == [
        ("train", "ada/first", "train", "plain", "kept"),
        ("test", "ada/first", "unseen", "plain", "kept"),
    ]


def test_built_in_questions_have_splits_of_their_own() -> None:
    questions = InstructionConfig(output_dir="unused", init_from="unused", source="builtin:instructions")
    messages = ClassificationConfig(output_dir="unused", init_from="unused", source="builtin:messages")
    assert [source["split"] for source in data_facts(questions)] == ["train", "validation", "test"]
    assert [source["split"] for source in data_facts(messages)] == [None]
    somebody_s = InstructionConfig(output_dir="unused", init_from="unused", source="instructions")
    assert [reading.part for reading in readings(somebody_s)] == ["train"]

"""`datasets` pushes to the Hub on loopback and loads from it: whole, by configuration and split, and as streams."""

import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

datasets = pytest.importorskip("datasets", reason="this is what is tested")

if TYPE_CHECKING:
    from .server import LoopbackHub

ROWS = {"text": [f"Sentence {number}." for number in range(20)], "label": [number % 2 for number in range(20)]}


def parquet(rows: dict[str, list[Any]]) -> bytes:
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows).to_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["parquet", "jsonl", "jsonl.gz", "csv"])
def test_files_are_found_by_their_split_s_names(hub: "LoopbackHub", form: str, streaming: bool) -> None:
    lines = "".join(json.dumps(dict(zip(ROWS, row, strict=True))) + "\n" for row in zip(*ROWS.values(), strict=True))
    table = "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(*ROWS.values(), strict=True))
    content = {
        "parquet": parquet(ROWS),
        "jsonl": lines.encode(),
        "jsonl.gz": gzip.compress(lines.encode()),
        "csv": table.encode(),
    }[form]
    hub.add_repo("team/texts", {f"data/train-00000.{form}": content}, "dataset")
    loaded = datasets.load_dataset("team/texts", split="train", streaming=streaming)
    assert {key: [row[key] for row in loaded] for key in ROWS} == ROWS
    assert all(path.startswith(("/api/datasets/", "/datasets/", "/cdn/")) for _, path, _ in hub.requests)


def test_configurations_are_those_of_the_card(hub: "LoopbackHub") -> None:
    card = b"""---
configs:
- config_name: small
  data_files: small/*.parquet
- config_name: large
  data_files: large/*.parquet
---
"""
    less = {key: values[:5] for key, values in ROWS.items()}
    files = {"README.md": card, "small/0.parquet": parquet(less), "large/0.parquet": parquet(ROWS)}
    hub.add_repo("team/texts", files, "dataset")
    assert len(datasets.load_dataset("team/texts", "small", split="train")) == 5
    assert len(datasets.load_dataset("team/texts", "large", split="train")) == 20
    with pytest.raises(ValueError, match="Config name is missing"):
        datasets.load_dataset("team/texts")


def test_a_pushed_data_set_comes_back(hub: "LoopbackHub") -> None:
    pushed = datasets.DatasetDict(train=datasets.Dataset.from_dict(ROWS), test=datasets.Dataset.from_dict(ROWS))
    pushed.push_to_hub("tester/texts", private=True)
    assert hub.repo("tester/texts", "dataset").private
    loaded = datasets.load_dataset("tester/texts")
    assert {name: split.to_dict() for name, split in loaded.items()} == {"train": ROWS, "test": ROWS}
    less = datasets.Dataset.from_dict({key: values[:3] for key, values in ROWS.items()})
    less.push_to_hub("tester/texts", "small")
    assert datasets.get_dataset_config_names("tester/texts") == ["default", "small"]
    assert len(datasets.load_dataset("tester/texts", "small", split="train")) == 3


def test_a_revision_of_a_data_set_stays_what_it_was(hub: "LoopbackHub") -> None:
    first = datasets.Dataset.from_dict(ROWS).push_to_hub("tester/texts")
    datasets.Dataset.from_dict({key: values[:3] for key, values in ROWS.items()}).push_to_hub("tester/texts")
    assert len(datasets.load_dataset("tester/texts", split="train")) == 3
    assert len(datasets.load_dataset("tester/texts", split="train", revision=first.oid)) == 20


def test_a_data_set_that_is_missing_or_private_is_not_found(hub: "LoopbackHub") -> None:
    hub.add_repo("others/texts", {"train.jsonl": b'{"text": "a"}\n'}, "dataset", private=True)
    for repo_id in ("others/texts", "others/nothing"):
        with pytest.raises(datasets.exceptions.DatasetNotFoundError):
            datasets.load_dataset(repo_id)

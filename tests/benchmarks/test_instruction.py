"""The benchmark of instruction finetuning: its contenders compute the same, and what it reports fits together."""

import importlib
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("instruction")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes for a tiny model, one thread, without the book's file."""
    pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    path = tmp_path_factory.mktemp("report") / "instruction.json"
    options = ["--sizes", "tiny", "--rounds", "2", "--steps", "2", "--threads", "1", "--json", str(path)]
    environment = {name: value for name, value in os.environ.items() if name != "HFGPT_TEST_DATA"}
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / "instruction.py"), *options],
        capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text())


def test_figures_follow_from_the_seconds_of_the_rounds(report: dict[str, Any]) -> None:
    rows = {row["contender"]: row for row in report["results"]}
    assert list(rows) == ["book", "trl", "trl-kept", "trl-hfgpt", "hfgpt", "hfgpt-bf16"]
    own = rows["hfgpt"]["seconds_per_step_of_each_round"]
    for row in rows.values():
        seconds = row["seconds_per_step_of_each_round"]
        assert len(seconds) == 2
        assert min(seconds) > 0
        assert row["judged_tokens_per_step"] == pytest.approx(8 * 13.1, rel=0.05)
        median = statistics.median(seconds)
        assert row["judged_tokens_per_second"] == pytest.approx(row["judged_tokens_per_step"] / median)
        ratio = statistics.median(theirs / ours for theirs, ours in zip(seconds, own, strict=True))
        assert row["time_relative_to_hfgpt"] == pytest.approx(ratio)


def test_all_compute_the_same_logits_and_train_the_same_weights(
    benchmark_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("HFGPT_TEST_DATA", raising=False)
    size = benchmark_module.SIZES["tiny"]
    encoded, _ = benchmark_module.conversations(size)
    gpt2 = benchmark_module.BUILD["transformers"](size, benchmark_module.CONTEXT).model
    contenders = [make(encoded, size, gpt2) for make in benchmark_module.CONTENDERS.values()]
    benchmark_module.check_same(contenders, size)
    trained = {
        contender.name: sum(weight.numel() for weight in contender.model.parameters() if weight.requires_grad)
        for contender in contenders
    }
    assert set(trained.values()) == {512 * 32 + 1024 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32}
    with torch.no_grad():
        contenders[-1].model.model.norm.weight[0] += 1
    with pytest.raises(AssertionError):
        benchmark_module.check_same(contenders, size)


def test_the_books_batches_hold_the_same_conversations_with_their_ends(benchmark_module: ModuleType) -> None:
    size = benchmark_module.SIZES["tiny"]
    encoded, _ = benchmark_module.conversations(size)
    gpt2 = benchmark_module.BUILD["transformers"](size, benchmark_module.CONTEXT).model
    book = benchmark_module.Book(encoded, size, gpt2)
    inputs, targets = book.collate(book.texts[:8])
    for row, (ids, _) in enumerate(encoded[:8]):
        assert inputs[row, : len(ids) - 1].tolist() == ids[:-1]
        assert targets[row, : len(ids) - 1].tolist() == ids[1:]


def test_drawn_lengths_are_those_of_the_books_file(benchmark_module: ModuleType, test_data: Path) -> None:
    assert test_data.is_dir()
    real, _ = benchmark_module.conversations(benchmark_module.SIZES["124m"])
    drawn = benchmark_module._drawn(random.Random(0))
    for count in (lambda one: len(one.input_ids), lambda one: sum(one.bears_loss)):
        means = [statistics.mean(map(count, conversations)) for conversations in (real, drawn)]
        assert means[0] == pytest.approx(means[1], rel=0.03)
    assert all(ids[-1] == 50256 and mask[-1] for ids, mask in [*real, *drawn])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "huge"}, "--sizes knows no 'huge'"),
        ({"contenders": "book,axolotl"}, "--contenders knows no 'axolotl'"),
        ({"contenders": "book"}, "lacks hfgpt"),
    ],
)
def test_wrong_options_are_named(benchmark_module: ModuleType, options: dict[str, Any], message: str) -> None:
    fields = {"sizes": "tiny", "contenders": "hfgpt", "rounds": 1, "steps": 1, "threads": 0, "json_path": None}
    with pytest.raises(typer.BadParameter, match=message):
        benchmark_module.main(**fields | options)

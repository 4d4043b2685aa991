"""The benchmark of classification runs, its contenders compute the same, and what it reports fits together."""

import importlib
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("llms_from_scratch.ch06", reason="the book's code is installed by hand")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("classification")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the script writes for a tiny model, one thread, without the messages of the collection."""
    pytest.importorskip("llms_from_scratch.ch06", reason="the book's code is installed by hand")
    path = tmp_path_factory.mktemp("report") / "classification.json"
    options = ["--sizes", "tiny", "--texts", "16", "--rounds", "3", "--threads", "1", "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "HFGPT_TEST_DATA"}
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / "classification.py"), *options, "--json", str(path)],
        capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    report = json.loads(path.read_text())
    assert report["settings"]["texts"] == 16
    return {row["contender"]: row for row in report["results"]}


def test_five_epochs_are_five_times_one_and_what_is_done_once(rows: dict[str, dict[str, Any]]) -> None:
    assert list(rows) == ["the book", "transformers", "hfgpt"]
    for name, row in rows.items():
        once, epochs = row["seconds_once_of_each_round"], row["seconds_per_epoch_of_each_round"]
        assert len(once) == len(epochs) == 3
        assert min(epochs) > 0
        assert (min(once) > 0) == (name == "hfgpt")
        totals = [before + 5 * epoch for before, epoch in zip(once, epochs, strict=True)]
        assert row["seconds_of_all_epochs_of_each_round"] == pytest.approx(totals)
        own = rows["hfgpt"]["seconds_of_all_epochs_of_each_round"]
        ratio = statistics.median(theirs / ours for theirs, ours in zip(totals, own, strict=True))
        assert row["time_relative_to_hfgpt"] == pytest.approx(ratio)
        whole = row["seconds_in_one_go"] / rows["hfgpt"]["seconds_in_one_go"]
        assert row["time_in_one_go_relative_to_hfgpt"] == pytest.approx(whole)


def test_all_train_the_same_weights_and_no_others(benchmark_module: ModuleType) -> None:
    size = benchmark_module.SIZES["tiny"]
    texts, _ = benchmark_module.messages(16, size)
    gpt2, body = benchmark_module.build_gpt2(size)
    book, ours, theirs = (
        contender(texts, size, gpt2.eval(), body, "cpu", "fp32")
        for contender in (benchmark_module.Book, benchmark_module.Hfgpt, benchmark_module.Transformers)
    )
    benchmark_module.check_same_logits([book, theirs, ours], size, "cpu")
    block = (4 * 32 * 32 + 4 * 32) + (8 * 32 * 32 + 5 * 32) + 4 * 32
    trained = {
        contender.name: sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        for contender, model in ((book, book.model), (theirs, theirs.model), (ours, ours.classifier))
    }
    head, norm = 2 * 32, 2 * 32
    assert trained == {"the book": block + norm + head + 2, "transformers": block + norm + head,
                       "hfgpt": block + norm + head}  # fmt: skip
    assert {ids.shape for ids, _ in book.loader} == {(8, 120)}
    with torch.no_grad():
        ours.classifier.model.score.weight[0, 0] += 1
    with pytest.raises(RuntimeError, match="hfgpt.* computes logits that differ by"):
        benchmark_module.check_same_logits([book, theirs, ours], size, "cpu")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.usefixtures("cleared_state")
def test_all_compute_in_the_format_that_was_asked_for_in_every_turn(
    benchmark_module: ModuleType, formats_of: Callable[..., set[str]], dtype: str
) -> None:
    size = benchmark_module.SIZES["tiny"]
    texts, _ = benchmark_module.messages(16, size)
    gpt2, body = benchmark_module.build_gpt2(size)
    book, ours, theirs = (
        contender(texts, size, gpt2.eval(), body, "cpu", dtype)
        for contender in (benchmark_module.Book, benchmark_module.Hfgpt, benchmark_module.Transformers)
    )
    models = {book: book.model, theirs: theirs.model, ours: ours.classifier}
    formats = {contender: formats_of(model) for contender, model in models.items()}
    for _turn in range(2):
        for contender, model in models.items():
            formats[contender].clear()
            if contender is ours:
                assert ours.compute_frozen_part() > 0
            assert contender.train(1) > 0
            assert formats[contender] == {dtype}, contender.name
            assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_lengths_are_drawn_from_the_percentiles(benchmark_module: ModuleType) -> None:
    marks = list(benchmark_module.LENGTH_PERCENTILES.items())
    chance = random.Random(0)
    lengths = sorted(benchmark_module.draw_length(dict(marks), chance) for _ in range(20_000))
    for percent, length in marks[1:-1]:
        assert lengths[percent * 200] == pytest.approx(length, abs=2)
    assert (lengths[0], lengths[-1]) == (1, pytest.approx(120, abs=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "huge"}, "--sizes knows no 'huge'"),
        ({"texts": 12}, "no multiple of 8"),
        ({"device": "abacus"}, "--device knows no 'abacus'"),
        ({"dtype": "fp64"}, "--dtype knows no 'fp64'"),
    ],
)
def test_wrong_options_are_named(benchmark_module: ModuleType, options: dict[str, Any], message: str) -> None:
    fields = {
        "sizes": "tiny", "texts": 16, "rounds": 1, "whole": False, "device": "cpu", "dtype": "", "threads": 0,
        "json_path": None,
    }  # fmt: skip
    with pytest.raises(typer.BadParameter, match=message):
        benchmark_module.main(**fields | options)

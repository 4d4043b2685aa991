"""The benchmark of instruction finetuning: its contenders compute the same, and what it reports fits together."""

import importlib
import json
import math
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
    pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("instruction")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes for a tiny model, one thread, without the book's file."""
    pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    path = tmp_path_factory.mktemp("report") / "instruction.json"
    options = ["--sizes", "tiny", "--rounds", "2", "--steps", "2", "--threads", "1", "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "HFGPT_TEST_DATA"}
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / "instruction.py"), *options, "--json", str(path)],
        capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text())


def test_figures_follow_from_the_seconds_of_the_rounds(report: dict[str, Any]) -> None:
    rows = {row["contender"]: row for row in report["results"]}
    assert list(rows) == ["book", "trl", "trl-kept", "trl-hfgpt", "hfgpt", "hfgpt-bf16"]
    assert {name for name, row in rows.items() if row["dtype"] == "bf16"} == {"hfgpt-bf16"}
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
    contenders = [make(encoded, size, gpt2, "cpu", "fp32") for make in benchmark_module.CONTENDERS.values()]
    benchmark_module.check_same_logits(contenders, size, "cpu")
    trained = {
        contender.name: sum(weight.numel() for weight in contender.model.parameters() if weight.requires_grad)
        for contender in contenders
    }
    assert set(trained.values()) == {512 * 32 + 1024 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32}
    with torch.no_grad():
        contenders[-1].model.model.norm.weight[0] += 1
    with pytest.raises(RuntimeError, match="hfgpt.* computes logits that differ by"):
        benchmark_module.check_same_logits(contenders, size, "cpu")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.usefixtures("cleared_state")
def test_all_compute_in_the_format_that_was_asked_for_in_every_turn(
    benchmark_module: ModuleType, monkeypatch: pytest.MonkeyPatch, formats_of: Callable[..., set[str]], dtype: str
) -> None:
    monkeypatch.delenv("HFGPT_TEST_DATA", raising=False)
    size = benchmark_module.SIZES["tiny"]
    encoded, _ = benchmark_module.conversations(size)
    gpt2 = benchmark_module.BUILD["transformers"](size, benchmark_module.CONTEXT).model
    contenders = [make(encoded, size, gpt2, "cpu", dtype) for make in benchmark_module.CONTENDERS.values()]
    formats = {contender.name: formats_of(contender.model) for contender in contenders}
    for turn in range(2):
        for contender in contenders:
            formats[contender.name].clear()
            assert contender.seconds(2, seed=turn) > 0
            expected = "bf16" if contender.name == "hfgpt-bf16" else dtype
            assert formats[contender.name] == {expected}, contender.name
            assert {weight.dtype for weight in contender.model.parameters()} == {torch.float32}


def test_the_clock_waits_for_the_device_at_the_ends_of_the_first_and_last_steps_only(
    benchmark_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([10.0, 16.0])
    monkeypatch.setattr(benchmark_module, "now", lambda device: next(moments))
    clock = benchmark_module.StepClock(4, "cuda")
    for _ in range(3):
        clock.end_step()
    assert math.isnan(clock.seconds)
    clock.end_step()
    assert clock.seconds == 2


def test_what_is_a_remedy_for_cpus_is_no_contender_on_a_gpu(benchmark_module: ModuleType) -> None:
    on_cpu, on_gpu = (benchmark_module.contenders_on(device, "") for device in ("cpu", "cuda"))
    assert set(on_cpu) - set(on_gpu) == {"hfgpt-bf16"}
    with pytest.raises(typer.BadParameter, match="hfgpt-bf16 is a contender on the CPU only"):
        benchmark_module.contenders_on("cuda", "hfgpt,hfgpt-bf16")


def test_the_books_batches_hold_the_same_conversations_with_their_ends(benchmark_module: ModuleType) -> None:
    size = benchmark_module.SIZES["tiny"]
    encoded, _ = benchmark_module.conversations(size)
    gpt2 = benchmark_module.BUILD["transformers"](size, benchmark_module.CONTEXT).model
    book = benchmark_module.Book(encoded, size, gpt2, "cpu", "fp32")
    inputs, targets = book.collate(book.texts[:8])
    for row, (ids, _) in enumerate(encoded[:8]):
        assert inputs[row, : len(ids) - 1].tolist() == ids[:-1]
        assert targets[row, : len(ids) - 1].tolist() == ids[1:]


def test_drawn_lengths_are_those_of_the_books_file(benchmark_module: ModuleType, test_data: Path) -> None:
    assert test_data.is_dir()
    real, _ = benchmark_module.conversations(benchmark_module.SIZES["124m"])
    drawn = importlib.import_module("instruction_data").drawn_conversations(random.Random(0))
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
        ({"device": "abacus"}, "--device knows no 'abacus'"),
        ({"dtype": "fp64"}, "--dtype knows no 'fp64'"),
    ],
)
def test_wrong_options_are_named(benchmark_module: ModuleType, options: dict[str, Any], message: str) -> None:
    fields = {
        "sizes": "tiny", "contenders": "hfgpt", "rounds": 1, "steps": 1, "device": "cpu", "dtype": "", "threads": 0,
        "json_path": None,
    }  # fmt: skip
    with pytest.raises(typer.BadParameter, match=message):
        benchmark_module.main(**fields | options)

"""The training-step benchmark runs, and what it reports fits together."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script writes for a tiny model, three rounds, one thread."""
    path = tmp_path_factory.mktemp("report") / "step.json"
    options = ["--sizes", "tiny", "--dtypes", "fp32", "--threads", "1", "--device", "cpu", "--rounds", "3"]
    options += ["--contenders", "hfgpt:eager,former:eager,transformers:eager", "--peer", f"former={BENCHMARKS.parent}"]
    command = [sys.executable, str(BENCHMARKS / "train_step.py"), *options, "--json", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text())


def test_contenders_are_timed_round_by_round(report: dict[str, Any]) -> None:
    rows = {row["contender"]: row for row in report["results"]}
    assert list(rows) == ["hfgpt", "former", "transformers"]
    for row in rows.values():
        times = row["seconds_per_step_of_each_round"]
        assert len(times) == 3
        assert min(times) > 0
        assert row["seconds_per_step"] == sorted(times)[1]
        assert row["tokens_per_second"] == pytest.approx(2 * 16 / row["seconds_per_step"])
        assert row["matrix_product_peak_flops"] > 0
        assert 0 < row["share_of_peak"] < 1
    own, rival = (rows[name]["seconds_per_step_of_each_round"] for name in ("hfgpt", "transformers"))
    ratios = sorted(theirs / ours for theirs, ours in zip(rival, own, strict=True))
    assert rows["hfgpt"]["speed_relative_to_reference"] == pytest.approx(ratios[1])
    assert rows["transformers"]["speed_relative_to_reference"] == 1


def test_parameters_and_flops_are_those_counted_by_hand(report: dict[str, Any]) -> None:
    # 2 layers of width 32, 512 ids, 16 positions: weights and biases of attention, of the MLP, and of the norms
    layer = (4 * 32 * 32 + 4 * 32) + (8 * 32 * 32 + 5 * 32) + 4 * 32
    for row in report["results"]:
        assert row["parameters"] == 2 * layer + 2 * 32 + (512 + 16) * 32
        assert row["flops_per_token"] == 6 * (2 * 12 * 32 * 32 + 512 * 32) + 12 * 2 * 16 * 32


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process its memory")
def test_memory_on_cpu_holds_at_least_weights_gradients_and_optimizer_state(report: dict[str, Any]) -> None:
    for row in report["results"]:
        assert 4 * 4 * row["parameters"] < row["peak_memory_bytes"] < 2**30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contenders": "hfgpt:fast"}, "choose from"),
        ({"sizes": "huge"}, "choose from"),
        ({"device": "abacus"}, "choose from"),
        ({"reference": "former"}, "choose from"),
        ({"peer": ["somewhere"]}, "nanogpt=PATH"),
        ({"peer": ["former=/no/such/folder"], "contenders": "former:eager"}, "checkout of hfgpt"),
        ({"peer": ["nanogpt=/no/such/folder"], "contenders": "nanogpt:eager"}, "checkout of nanoGPT"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    train_step = importlib.import_module("train_step")
    with pytest.raises(typer.BadParameter, match=message):
        train_step.main(**{"sizes": "tiny", "dtypes": "fp32", "device": "cpu", "rounds": 1, "memory": False, **options})

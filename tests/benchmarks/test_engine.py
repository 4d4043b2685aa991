"""The engine's benchmark runs, and what it reports fits together."""

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


def run(tmp_path_factory: pytest.TempPathFactory, *options: str) -> dict[str, Any]:
    """What the script writes for a tiny model, one thread."""
    path = tmp_path_factory.mktemp("report") / "engine.json"
    common = ["--sizes", "tiny", "--dtypes", "fp32", "--threads", "1", "--device", "cpu", "--json", str(path)]
    command = [sys.executable, str(BENCHMARKS / "engine.py"), *common, *options]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert finished.returncode == 0, finished.stderr
    return json.loads(path.read_text())["results"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    measured = ["--parts", "step,checkpoint", "--modes", "eager", "--rounds", "3"]
    # Windows long enough for a slow disk, in steps of two milliseconds.
    return run(tmp_path_factory, *measured, "--checkpoint-rounds", "1", "--every", "500")


def test_steps_of_engine_and_bare_loop_alternate(report: dict[str, Any]) -> None:
    rows = {row["contender"]: row for row in report["step"]}
    assert list(rows) == ["bare", "engine", "engine with bar"]
    assert [len(row["seconds_per_step_of_each_turn"]) for row in rows.values()] == [7, 3, 3]
    bare = rows["bare"]["seconds_per_step_of_each_turn"]
    for place, name in enumerate(("engine", "engine with bar")):  # the turns of each lie between two of the bare step's
        ratios = [
            elapsed / ((bare[2 * turn + place] + bare[2 * turn + place + 1]) / 2)
            for turn, elapsed in enumerate(rows[name]["seconds_per_step_of_each_turn"])
        ]
        assert rows[name]["ratios"] == pytest.approx(ratios)
        assert rows[name]["time_relative_to_bare"] == pytest.approx(sorted(ratios)[1])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process its memory")
def test_checkpoints_are_written_both_ways_and_hold_weights_and_optimizer_state(report: dict[str, Any]) -> None:
    background, foreground = report["checkpoint"]
    assert (background["writing"], foreground["writing"]) == ("background", "foreground")
    layer = (4 * 32 * 32 + 4 * 32) + (8 * 32 * 32 + 5 * 32) + 4 * 32
    parameters = 2 * layer + 2 * 32 + (512 + 16) * 32
    for row in report["checkpoint"]:
        assert 3 * 4 * parameters < row["bytes"] < 2 * 3 * 4 * parameters
        assert 0 < row["copying_seconds"] < row["whole_after_seconds"]
        assert row["held_up_steps"] == pytest.approx(row["held_up_seconds"] / row["step_seconds"])
    (window,) = foreground["each"]
    assert window["held_up_seconds"] > window["copying_seconds"]


def test_the_way_to_the_first_step_is_divided_without_gaps(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (start,) = run(tmp_path_factory, "--parts", "start", "--starts", "tiny", "--start-rounds", "1")["start"]
    assert list(start["spent"]) == ["Python", "imports", "options", "data", "model", "evaluation", "first batch"]
    assert min(start["spent"].values()) >= 0
    assert sum(start["spent"].values()) == pytest.approx(start["seconds"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": "speed"}, "--parts knows no 'speed'"),
        ({"sizes": "huge"}, "--sizes knows no 'huge'"),
        ({"modes": "fast"}, "--modes knows no 'fast'"),
        ({"starts": "verdict"}, "--starts knows no 'verdict'"),
        ({"device": "abacus"}, "--device knows no 'abacus'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    engine = importlib.import_module("engine")
    with pytest.raises(typer.BadParameter, match=message):
        engine.main(**{"sizes": "tiny", "dtypes": "fp32", "device": "cpu", "rounds": 1, **options})

"""The benchmark of answering runs, its contenders say the same, and what it reports fits together."""

import importlib
import json
import os
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
    pytest.importorskip("llms_from_scratch.ch05", reason="the book's code is installed by hand")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("answering")


def test_the_time_of_a_few_prompts_is_that_of_all(tmp_path: Path) -> None:
    pytest.importorskip("llms_from_scratch.ch05", reason="the book's code is installed by hand")
    path = tmp_path / "answering.json"
    options = ["--sizes", "tiny", "--prompts", "6", "--new-tokens", "4", "--sample", "2", "--rounds", "3"]
    options += ["--device", "cpu", "--threads", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "HFGPT_TEST_DATA"}
    finished = subprocess.run(
        [sys.executable, str(BENCHMARKS / "answering.py"), *options, "--json", str(path)],
        capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "6 prompts of random tokens" in finished.stdout
    report = json.loads(path.read_text())
    assert report["settings"]["sample"] == 2
    rows = {row["contender"]: row for row in report["results"]}
    assert {name: row["prompts_timed"] for name, row in rows.items()} == {"the book": 2, "transformers": 2, "hfgpt": 6}
    own = rows["hfgpt"]["seconds_of_each_round"]
    for row in rows.values():
        seconds = row["seconds_of_each_round"]
        assert len(seconds) == 3
        assert min(seconds) > 0
        assert row["seconds"] == statistics.median(seconds)
        assert row["tokens_per_second"] == pytest.approx(6 * 4 / row["seconds"])
        ratio = statistics.median(theirs / ours for theirs, ours in zip(seconds, own, strict=True))
        assert row["time_relative_to_hfgpt"] == pytest.approx(ratio)


def contenders_of(module: ModuleType) -> tuple[list[Any], list[list[int]]]:
    size = module.SIZES["tiny"]
    torch.manual_seed(0)
    gpt2 = module.BUILD["transformers"](size, module.CONTEXT).model.eval()
    contenders = [contender(size, gpt2, "cpu") for contender in (module.Book, module.Transformers, module.Hfgpt)]
    return contenders, module.make_prompts(size, 5)[0]


def test_all_say_the_same_and_another_model_is_found_out(benchmark_module: ModuleType) -> None:
    contenders, prompts = contenders_of(benchmark_module)
    benchmark_module.check_same(contenders, prompts, 8)
    with torch.no_grad():
        contenders[2].model.model.norm.weight[0] += 5
    with pytest.raises(RuntimeError, match="hfgpt says"):
        benchmark_module.check_same(contenders, prompts, 8)


def test_the_prompts_are_those_of_the_books_test_part(
    benchmark_module: ModuleType, test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ch07 = pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    monkeypatch.setenv("HFGPT_TEST_DATA", str(test_data))
    prompts, described = benchmark_module.make_prompts(benchmark_module.SIZES["124m"], 110)
    assert described == "110 test prompts of the book's instruction data, 43.7 tokens on average"
    entries = json.loads((test_data / "instruction-data.json").read_text())
    train, test = int(len(entries) * 0.85), int(len(entries) * 0.1)
    encoding = benchmark_module.encoding_from_gpt2_files(test_data / "gpt2")
    expected = [ch07.format_input(entry) + "\n\n### Response:\n" for entry in entries[train : train + test]]
    assert [encoding.decode(prompt) for prompt in prompts] == expected


def test_drawn_prompts_are_as_long_as_those_of_the_book(benchmark_module: ModuleType, monkeypatch) -> None:
    monkeypatch.delenv("HFGPT_TEST_DATA", raising=False)
    prompts, _ = benchmark_module.make_prompts(benchmark_module.SIZES["124m"], 20_000)
    lengths = sorted(map(len, prompts))
    for percent, length in list(benchmark_module.LENGTH_PERCENTILES.items())[1:-1]:
        assert lengths[percent * 200] == pytest.approx(length, abs=1)
    assert (lengths[0], lengths[-1]) == (36, benchmark_module.LONGEST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "huge"}, "--sizes knows no 'huge'"),
        ({"sample": 9}, "--sample 9 is more"),
        ({"device": "abacus"}, "--device knows no 'abacus'"),
    ],
)
def test_wrong_options_are_named(benchmark_module: ModuleType, options: dict[str, Any], message: str) -> None:
    fields = {
        "sizes": "tiny", "prompts": 4, "new_tokens": 2, "sample": 1, "rounds": 1, "batch_size": 4, "device": "cpu",
        "threads": 0, "json_path": None,
    }  # fmt: skip
    with pytest.raises(typer.BadParameter, match=message):
        benchmark_module.main(**fields | options)

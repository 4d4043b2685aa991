"""A run that is killed and resumed is the run that was never killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

# What differs between two runs of the same numbers.
CLOCKS = {"tokens_per_second", "evaluation_seconds"}

RUN = "import sys; from hfgpt.recipes.pretrain import main; main(sys.argv[1:])"


def start(arguments: list[str], tmp_path: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
        for line in path.read_text().splitlines()
    ]


def assert_same(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    else:
        assert one == other, where


def assert_same_state(one: Path, other: Path) -> None:
    """Every file of two checkpoints that holds numbers of the training, bit for bit."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    for name in ("optimizer.pt", "random_states.pt"):
        states = [torch.load(folder / "training_state" / name, weights_only=True) for folder in (one, other)]
        assert_same(states[0], states[1], name)
    progress = [json.loads((folder / "training_state" / "run.json").read_text()) for folder in (one, other)]
    for key in ("step", "num_targets", "health", "memory", "stream", "fingerprint"):
        assert progress[0][key] == progress[1][key], key


DROPOUTS = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda s: s.name)
def test_a_run_that_is_killed_and_resumed_is_the_run_that_never_was(recipe, tmp_path, sent) -> None:
    # Evaluations, log lines and checkpoints at odd steps: the end may fall between any of them.
    fields = {
        "model": {**recipe.fields["model"], **DROPOUTS},
        "max_steps": 400,
        "logging_steps": 3,
        "eval_steps": 50,
        "save_steps": 35,
        "keep_last": 100,
        "max_eval_batches": 2,
    }
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    process = start([*recipe.arguments(**fields), "--output_dir", str(straight)], tmp_path)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed

    process = start([*recipe.arguments(**fields), "--output_dir", str(cut), "--resume", "auto"], tmp_path)
    wait_for(cut / "checkpoint-70", process)
    process.send_signal(sent)
    printed, _ = process.communicate(timeout=60)
    if sent is signal.SIGKILL:
        assert process.returncode == -sent
    else:
        assert process.returncode == 128 + sent, printed
        assert f"it received {sent.name}" in printed
    assert not (cut / "final").exists()
    process = start([*recipe.arguments(**fields), "--output_dir", str(cut), "--resume", "auto"], tmp_path)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    assert "resumed from" in printed

    assert_same_state(cut / "checkpoint-400", straight / "checkpoint-400")
    assert_same_state(cut / "checkpoint-350", straight / "checkpoint-350")
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert lines(cut / name) == lines(straight / name), name
    final = [load_file(folder / "final" / "model.safetensors") for folder in (cut, straight)]
    assert all(torch.equal(weight, final[1][name]) for name, weight in final[0].items())

"""The state of a run: taken down and put back bit for bit, or refused with nothing changed."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfgpt.errors import UserError
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback
from hfgpt.training.state import _copy, shape_fingerprint


@pytest.fixture
def run_training(laboratory):
    """A function that trains a model with dropout and writes checkpoints, from a model's folder where it resumes."""

    def run(folder: Path, *, task=None, callbacks=(), resume_from: Path | None = None, model=None, **fields: Any):
        fields = {"max_steps": 6, "save_steps": 1, "keep_last": 9, "eval_steps": 4, "warmup_steps": 2} | fields
        config = laboratory.config(output_dir=str(folder), **fields)
        accelerator = start_accelerator(config)
        if model is None:
            model = laboratory.model(dropout=0.2)
        if resume_from is not None:
            model = type(model).from_pretrained(resume_from)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(5 if resume_from is None else 77)  # a resumed run must not live on the caller's generators
        return train(
            task or laboratory.task(),
            model,
            config,
            accelerator,
            callbacks,
            save_model=lambda path, weights: model.save_pretrained(path, state_dict=weights),
            resume_from=resume_from,
        )

    return run


class Fingerprinted:
    """A mixin: the task says what it was made from."""

    prints: dict[str, str]

    def fingerprint(self) -> dict[str, str]:
        return self.prints


def fingerprinted(laboratory, **prints: str):
    kind = type("Kind", (Fingerprinted, laboratory.NextToken), {"prints": prints})
    task = laboratory.task()
    return kind(task.train_examples, task.validation_examples)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds of the run's numbers, and the clocks not."""
    folder = checkpoint / "training_state"
    progress = json.loads((folder / "run.json").read_text())
    for timed in (*progress["evaluations"], *progress["meter"]["reports"]):
        del timed["seconds"]
    del progress["config"]
    files = {name: torch.load(folder / name, weights_only=True) for name in ("optimizer.pt", "random_states.pt")}
    return {"progress": progress, **files}


# ----------------------------------------------------------------------------------------------------------------------
# Put back
# ----------------------------------------------------------------------------------------------------------------------


class DrawsFromEverything(Callback):
    """Listeners draw, too: the run must put back every generator, not torch's alone."""

    def __init__(self) -> None:
        self.drawn: list[tuple] = []

    def on_step(self, run, report) -> None:
        self.drawn.append((report.loss, random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002


@pytest.mark.parametrize(("optimizer", "step"), [*(("adamw", step) for step in range(1, 6)), ("muon", 1), ("muon", 4)])
def test_a_run_goes_on_from_any_step_as_if_it_had_never_ended(run_training, tmp_path, optimizer, step) -> None:
    """Three steps are an epoch, evaluations at 0, 4 and 6, log lines every four steps: all cut in their middle."""
    straight, resumed = DrawsFromEverything(), DrawsFromEverything()
    fields = {"optimizer": optimizer, "logging_steps": 4, "global_batch_size": 8, "micro_batch_size": 2}
    run = run_training(tmp_path / "straight", callbacks=[straight], **fields)
    checkpoint = tmp_path / "straight" / f"checkpoint-{step}"
    again = run_training(tmp_path / "resumed", callbacks=[resumed], resume_from=checkpoint, **fields)
    assert resumed.drawn == straight.drawn[step:]
    assert same(dict(again.model.state_dict()), dict(run.model.state_dict()))
    for later in range(step + 1, 7):
        one, other = (state_of(tmp_path / name / f"checkpoint-{later}") for name in ("straight", "resumed"))
        assert same(one, other), later


def test_a_checkpoint_is_of_its_step_though_training_goes_on_while_it_is_written(run_training, tmp_path) -> None:
    for name, background in (("behind", True), ("at once", False)):
        run_training(tmp_path / name, save_in_background=background)
    for step in range(1, 7):
        one, other = (tmp_path / name / f"checkpoint-{step}" for name in ("behind", "at once"))
        assert same(state_of(one), state_of(other)), step
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
        files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (one, other)]
        assert files[0] == files[1]


def test_a_copy_shares_memory_where_the_original_does_and_none_with_it() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    original = {"one": weight, "tied": weight, "transposed": weight.T, "nested": [(weight, 3), {"name": None}]}
    copied = _copy(original, {})
    assert same(copied, original)
    assert copied["one"] is copied["tied"] is copied["nested"][0][0]
    weight += 1
    assert not torch.equal(copied["one"], weight)
    assert not torch.equal(copied["transposed"], weight.T)


class Counting(Callback):
    """Counts steps by its own number, and must get its own count back."""

    def __init__(self, stride: int) -> None:
        self.stride, self.count = stride, 0

    def on_step(self, run, report) -> None:
        self.count += self.stride

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, run, state) -> None:
        self.count = state["count"]


def test_each_of_two_listeners_of_one_class_gets_back_its_own_state(run_training, tmp_path) -> None:
    run_training(tmp_path, callbacks=[Counting(1), Counting(10)])
    resumed = [Counting(1), Counting(10), Counting(100)]
    run_training(tmp_path / "resumed", callbacks=resumed, resume_from=tmp_path / "checkpoint-4")
    assert [callback.count for callback in resumed] == [6, 60, 200]  # the third is new, and begins with the fifth step


def test_what_has_changed_since_the_checkpoint_is_said(run_training, tmp_path, capsys) -> None:
    run_training(tmp_path)
    capsys.readouterr()
    run_training(
        tmp_path / "resumed", resume_from=tmp_path / "checkpoint-4", resume="auto", learning_rate=0.5, max_tokens=10**9
    )
    said = [line for line in capsys.readouterr().out.splitlines() if "changed" in line]
    assert said == ["changed since the checkpoint: max_tokens None -> 1000000000, learning_rate 0.01 -> 0.5"]
    run_training(tmp_path / "same", resume_from=tmp_path / "checkpoint-4", resume="auto")
    assert "changed" not in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------------------
# Refused
# ----------------------------------------------------------------------------------------------------------------------


class NothingBegins(Callback):
    def on_train_begin(self, run) -> None:
        raise AssertionError("the run has begun")

    def load_state_dict(self, run, state) -> None:
        raise AssertionError("a state was put back before the run was refused")


@pytest.mark.parametrize(
    ("prints", "fields", "words"),
    [
        ({"data set": "b"}, {}, "another data set (fingerprint a, now b)"),
        ({"tokenizer": "other"}, {}, "another tokenizer (fingerprint t, now other)"),
        ({"labels": "l"}, {}, "another labels (fingerprint None, now l)"),
        ({}, {"seed": 43}, "seed = 42, and now it is 43"),
        ({}, {"global_batch_size": 4}, "global_batch_size = 8, and now it is 4"),
        ({}, {"optimizer": "muon"}, "optimizer = adamw, and its state says nothing to muon"),
    ],
)
def test_another_run_is_refused_before_anything_changes(
    run_training, laboratory, tmp_path, prints, fields, words
) -> None:
    made_from = {"data set": "a", "tokenizer": "t"}
    run_training(tmp_path, task=fingerprinted(laboratory, **made_from), max_steps=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as refused:
        run_training(
            tmp_path,
            task=fingerprinted(laboratory, **made_from | prints),
            callbacks=[NothingBegins()],
            resume_from=tmp_path / "checkpoint-2",
            **fields,
        )
    assert words in str(refused.value)
    assert str(tmp_path / "checkpoint-2") in str(refused.value)
    assert "--init_from" in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_another_model_shape_is_refused(run_training, laboratory, tmp_path) -> None:
    run_training(tmp_path, max_steps=2)
    model = laboratory.model("transformers' GPT-2")
    model.save_pretrained(tmp_path / "other")
    (tmp_path / "checkpoint-2" / "training_state").rename(tmp_path / "other" / "training_state")
    with pytest.raises(UserError, match="another model shape"):
        run_training(tmp_path, model=model, resume_from=tmp_path / "other", callbacks=[NothingBegins()])


def test_another_format_is_refused(run_training, tmp_path) -> None:
    run_training(tmp_path, max_steps=2)
    path = tmp_path / "checkpoint-2" / "training_state" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(UserError, match="written in format 2 and this version reads 1"):
        run_training(tmp_path, resume_from=tmp_path / "checkpoint-2", callbacks=[NothingBegins()])


def test_a_model_without_a_training_state_is_refused(run_training, laboratory, tmp_path) -> None:
    laboratory.model().save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="holds no training_state.*--init_from"):
        run_training(tmp_path, resume_from=tmp_path / "model", callbacks=[NothingBegins()])


def test_the_shape_fingerprint_tells_names_shapes_and_types_and_not_values(laboratory) -> None:
    prints = [shape_fingerprint(laboratory.model(seed=seed)) for seed in (1, 2)]
    assert prints[0] == prints[1]
    others = [laboratory.model("transformers' GPT-2"), laboratory.model().double(), torch.nn.Linear(2, 3)]
    assert len({prints[0], *map(shape_fingerprint, others)}) == 4


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from hfgpt.errors import UserError
from hfgpt.training.checkpoints import CheckpointStore
from hfgpt.training.state import RunState

folder = Path(sys.argv[1])
store = CheckpointStore(folder)
small = RunState(1, {}, {"optimizer": {}}, [], "{}")
store.write(1, small.write)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
large = RunState(2, {}, {"optimizer": {"moment": torch.zeros(100_000)}}, [], "{}")
try:
    store.write(2, large.write)
except UserError as error:
    print(error)
assert store.newest() == folder / "checkpoint-1"
assert [path.name for path in folder.iterdir()] == ["checkpoint-1"]
"""


def test_a_state_that_the_disk_does_not_hold_is_one_sentence_with_the_reason(tmp_path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, timeout=120, check=False
    )
    assert completed.returncode == 0, completed.stderr
    (sentence,) = completed.stdout.splitlines()
    assert sentence.startswith("The checkpoint of step 2 cannot be written")
    assert "too large" in sentence.lower()

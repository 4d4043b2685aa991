"""What a training configuration refuses, and that it says all of it at once."""

import math
from typing import Any

import pytest

from hfgpt.training.config import TrainingConfig


def problems(**fields: Any) -> list[str]:
    return TrainingConfig(**{"output_dir": "runs/x", "max_steps": 10, **fields}).problems()


def test_the_defaults_are_sound() -> None:
    assert problems() == []


@pytest.mark.parametrize("both", [{"max_steps": None}, {"num_train_epochs": 1.0}])
def test_exactly_one_length_of_the_run_must_be_given(both: dict[str, Any]) -> None:
    (problem,) = problems(**both)
    assert "exactly one of max_steps and num_train_epochs" in problem


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
    "name",
    [
        *("max_steps", "global_batch_size", "micro_batch_size", "max_grad_norm"),
        *("adam_epsilon", "logging_steps", "eval_steps", "max_eval_batches"),
    ],
)
def test_what_must_be_positive_is(name: str, value: int) -> None:
    assert f"{name} must be greater than zero, but is {value}." in problems(**{name: value})


def test_epochs_and_learning_rate_must_be_positive() -> None:
    assert "num_train_epochs must be greater than zero, but is 0.0." in problems(max_steps=None, num_train_epochs=0.0)
    assert "learning_rate must be greater than zero, but is -0.1." in problems(learning_rate=-0.1)


@pytest.mark.parametrize("name", ["warmup_steps", "min_learning_rate", "weight_decay", "dataloader_num_workers"])
def test_what_must_not_be_negative_is_not(name: str) -> None:
    assert problems(**{name: -1}) == [f"{name} must not be negative, but is -1."]
    assert problems(**{name: 0}) == []


def test_the_lowest_learning_rate_is_not_above_the_peak() -> None:
    (problem,) = problems(learning_rate=0.1, min_learning_rate=0.2)
    assert "min_learning_rate (0.2) is above learning_rate (0.1)" in problem
    assert problems(learning_rate=0.1, min_learning_rate=0.1) == []


def test_micro_batches_fill_the_global_batch() -> None:
    (problem,) = problems(global_batch_size=8, micro_batch_size=3)
    assert "multiple of micro_batch_size (3)" in problem
    assert problems(global_batch_size=8, micro_batch_size=4) == []


@pytest.mark.parametrize("name", ["adam_beta1", "adam_beta2", "muon_momentum"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_the_decay_rates_of_adam_lie_between_0_and_1(name: str, value: float) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name} must lie between 0 and 1")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_the_seed_is_one_that_every_generator_takes(seed: int) -> None:
    (problem,) = problems(seed=seed)
    assert "seed must lie between 0 and 2^32 - 1" in problem
    assert problems(seed=2**32 - 1) == []


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "max_grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_are_finite(name: str, value: float) -> None:
    assert f"{name} must be a finite number, but is {value}." in problems(**{name: value})


def test_all_problems_are_said_at_once() -> None:
    assert len(problems(max_steps=0, learning_rate=-1.0, warmup_steps=-2, seed=-3)) >= 4

"""Who computes which examples when."""

from collections.abc import Iterable
from types import SimpleNamespace

import pytest
import torch

from hfgpt.data import ExampleStream, StreamReader
from hfgpt.errors import UserError
from hfgpt.training.batches import TrainingBatches, evaluation_batches, micro_batch_size, num_training_steps


def process(rank: int = 0, of: int = 1) -> SimpleNamespace:
    """One of several processes, as far as the batches ask."""
    return SimpleNamespace(process_index=rank, num_processes=of, device=torch.device("cpu"))


class Stream(ExampleStream):
    """Examples 0, 1, 2, ... of one token each, without end."""

    def reader(self, *, seed: int, rank: int, num_ranks: int, state: dict | None = None) -> StreamReader:
        return CountingReader(rank, num_ranks)


class CountingReader(StreamReader):
    def __init__(self, rank: int, num_ranks: int) -> None:
        self.rank, self.num_ranks, self.position = rank, num_ranks, 0

    def take(self, num_global_samples: int) -> list[dict]:
        samples = range(self.position, self.position + num_global_samples)
        self.position += num_global_samples
        return [{"index": g, "tokens": [g]} for g in samples if g % self.num_ranks == self.rank]

    def state_dict(self) -> dict:
        return {"position": self.position}

    @staticmethod
    def merge(states: list[dict]) -> dict:
        return states[0]


def steps(task, config, num_steps: int, accelerator) -> list[list[list[int]]]:
    """The indices of each micro-batch of each step."""
    task.seen.clear()
    batches = list(TrainingBatches(task, config, num_steps, accelerator))
    seen = iter(task.seen)
    return [[next(seen) for _ in micro_batches] for micro_batches in batches]


def flat(micro_batches: Iterable[list[int]]) -> list[int]:
    return [index for micro_batch in micro_batches for index in micro_batch]


def gathered(parts: list[list[list[list[int]]]], step: int) -> list[int]:
    """One global batch: the parts of all processes, one after the other."""
    return flat(micro_batch for part in parts for micro_batch in part[step])


def test_an_epoch_takes_every_example_once(laboratory) -> None:
    task = laboratory.task(num_train=24)
    taken = [flat(step) for step in steps(task, laboratory.config(global_batch_size=8), 6, process())]
    assert sorted(flat(taken[:3])) == sorted(flat(taken[3:])) == list(range(24))
    assert taken[:3] != taken[3:], "each epoch has an order of its own"


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("micro", [None, 1, 2])
def test_the_global_batches_are_the_same_on_any_number_of_processes(laboratory, num_processes, micro) -> None:
    task = laboratory.task(num_train=21)
    expected = [flat(step) for step in steps(task, laboratory.config(), 5, process())]
    config = laboratory.config(micro_batch_size=micro)
    parts = [steps(task, config, 5, process(rank, num_processes)) for rank in range(num_processes)]
    for number, global_batch in enumerate(expected):
        assert gathered(parts, number) == global_batch
        size = micro or 8 // num_processes
        assert {len(micro_batch) for part in parts for micro_batch in part[number]} == {size}


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("micro", [None, 1])
def test_the_global_batches_of_a_stream_are_the_same_on_any_number_of_processes(
    laboratory, num_processes, micro
) -> None:
    config = laboratory.config(global_batch_size=4, micro_batch_size=micro)
    tasks = [laboratory.NextToken(Stream(), None) for _ in range(num_processes)]
    parts = [steps(task, config, 3, process(rank, num_processes)) for rank, task in enumerate(tasks)]
    for step in range(3):
        assert sorted(gathered(parts, step)) == list(range(4 * step, 4 * step + 4))
        assert {len(micro_batch) for part in parts for micro_batch in part[step]} == {micro or 4 // num_processes}


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("num_examples", [1, 2, 11])
def test_each_validation_example_is_judged_by_exactly_one_process(laboratory, num_processes, num_examples) -> None:
    task = laboratory.task(num_validation=num_examples)
    config = laboratory.config(global_batch_size=6)
    for rank in range(num_processes):
        list(evaluation_batches(task, config, process(rank, num_processes)))
    assert sorted(flat(task.seen)) == list(range(num_examples))


def test_a_limited_evaluation_takes_the_first_examples_on_any_number_of_processes(laboratory) -> None:
    for num_processes in (1, 2):
        task = laboratory.task(num_validation=30)
        config = laboratory.config(global_batch_size=4, max_eval_batches=3)
        for rank in range(num_processes):
            list(evaluation_batches(task, config, process(rank, num_processes)))
        assert sorted(flat(task.seen)) == list(range(12))


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1.0, 3), (2.0, 6), (0.5, 2), (0.01, 1), (10 / 3, 10)], ids=lambda value: f"{value:.3g}"
)
def test_epochs_are_counted_in_whole_global_batches(laboratory, epochs: float, expected: int) -> None:
    config = laboratory.config(max_steps=None, num_train_epochs=epochs, global_batch_size=8)
    assert num_training_steps(laboratory.random_sequences(29), config) == expected


def test_max_steps_is_taken_as_it_stands(laboratory) -> None:
    assert num_training_steps(laboratory.random_sequences(8), laboratory.config(max_steps=100)) == 100
    assert num_training_steps(Stream(), laboratory.config(max_steps=100)) == 100


def test_fewer_examples_than_one_global_batch_are_refused(laboratory) -> None:
    with pytest.raises(UserError, match="7 training examples, fewer than one global batch of 8"):
        num_training_steps(laboratory.random_sequences(7), laboratory.config())


def test_a_stream_cannot_be_counted_in_epochs(laboratory) -> None:
    with pytest.raises(UserError, match="max_steps"):
        num_training_steps(Stream(), laboratory.config(max_steps=None, num_train_epochs=1.0))


@pytest.mark.parametrize(("global_size", "micro", "processes"), [(8, None, 3), (8, 4, 4), (2, None, 3), (8, 3, 1)])
def test_a_global_batch_that_cannot_be_shared_evenly_is_refused(laboratory, global_size, micro, processes) -> None:
    config = laboratory.config(global_batch_size=global_size, micro_batch_size=micro)
    with pytest.raises(UserError, match=rf"\({global_size}\) must be a multiple of .*\({processes}\)"):
        micro_batch_size(config, processes)


def test_neither_kind_of_batch_draws_from_the_global_generator(laboratory) -> None:
    """Else an evaluation would change the dropout of all later steps."""
    task, config = laboratory.task(), laboratory.config()
    before = torch.get_rng_state()
    list(evaluation_batches(task, config, process()))
    list(TrainingBatches(task, config, 2, process()))
    assert torch.equal(torch.get_rng_state(), before)

"""Who computes which examples when: global batches, cut into the micro-batches of each process.

Global batch number k of a run holds the same examples on any number of processes: the order is a pure function of seed,
epoch and position (`hfgpt.data.order`, and `hfgpt.data.lanes` for streams). Process r of n takes the r-th of n equal
parts, and of a stream every n-th example.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from hfgpt.data.lanes import ExampleStream
from hfgpt.data.order import StepSampler
from hfgpt.errors import UserError

from .config import TrainingConfig
from .task import Batch, Task

__all__ = ["evaluation_batches", "micro_batch_size", "num_training_steps", "training_batches"]


def num_training_steps(examples: Dataset | ExampleStream, config: TrainingConfig) -> int:
    """Optimizer steps of the run. An epoch is as many whole global batches as the examples fill.

    Raises:
        UserError: If the examples do not fill one global batch, or a stream is to be counted in epochs.
    """
    if isinstance(examples, ExampleStream):
        if config.max_steps is None:
            raise UserError("A stream has no known length: give max_steps in place of num_train_epochs.")
        return config.max_steps
    num_examples = len(examples)  # type: ignore[arg-type]
    if num_examples < config.global_batch_size:
        raise UserError(
            f"There are {num_examples} training examples, fewer than one global batch of {config.global_batch_size}; "
            "lower global_batch_size, or give more text or shorter blocks."
        )
    if config.max_steps is not None:
        return config.max_steps
    assert config.num_train_epochs is not None  # TrainingConfig.problems
    return max(1, round(config.num_train_epochs * (num_examples // config.global_batch_size)))


def micro_batch_size(config: TrainingConfig, num_processes: int) -> int:
    """Examples that one process computes at once.

    Raises:
        UserError: If the global batch cannot be cut into such parts.
    """
    size = config.micro_batch_size or config.global_batch_size // num_processes
    if size == 0 or config.global_batch_size % (size * num_processes) != 0:
        raise UserError(
            f"global_batch_size ({config.global_batch_size}) must be a multiple of micro_batch_size ({size}) times the "
            f"number of processes ({num_processes})."
        )
    return size


class _MicroBatchSampler(Sampler[list[int]]):
    """The indices of one process's micro-batches, step after step: a `batch_sampler` for `DataLoader`."""

    def __init__(self, order: StepSampler, num_steps: int, micro_batch_size: int) -> None:
        self.order, self.num_steps, self.micro_batch_size = order, num_steps, micro_batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.num_steps):
            yield from _cut(self.order.batch(step), self.micro_batch_size)


def _cut(examples: Sequence[Any], size: int) -> list[Any]:
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def training_batches(
    task: Task, config: TrainingConfig, num_steps: int, accelerator: Accelerator
) -> Iterator[list[Batch]]:
    """For each step, this process's micro-batches of the global batch."""
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    size = micro_batch_size(config, num_processes)
    if isinstance(task.train_examples, ExampleStream):
        reader = task.train_examples.reader(seed=config.seed, rank=rank, num_ranks=num_processes)
        for _ in range(num_steps):
            yield [task.collate(examples) for examples in _cut(reader.take(config.global_batch_size), size)]
        return
    order = StepSampler(
        len(task.train_examples),  # type: ignore[arg-type]
        global_batch_size=config.global_batch_size,
        seed=config.seed,
        rank=rank,
        num_ranks=num_processes,
    )
    micro_batches = iter(
        DataLoader(
            task.train_examples,
            batch_sampler=_MicroBatchSampler(order, num_steps, size),
            collate_fn=task.collate,
            num_workers=config.dataloader_num_workers,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator(),
        )
    )
    for _ in range(num_steps):
        yield list(islice(micro_batches, config.global_batch_size // (size * num_processes)))


def evaluation_batches(task: Task, config: TrainingConfig, accelerator: Accelerator) -> DataLoader:
    """This process's share of the validation examples, in order, in batches of the size that training uses."""
    num_examples = len(task.validation_examples)  # type: ignore[arg-type]
    if config.max_eval_batches is not None:
        num_examples = min(num_examples, config.max_eval_batches * config.global_batch_size)
    share = range(accelerator.process_index, num_examples, accelerator.num_processes)
    return DataLoader(
        Subset(task.validation_examples, share),
        batch_size=micro_batch_size(config, accelerator.num_processes),
        collate_fn=task.collate,
        # Without one of its own a loader draws from the global generator: then evaluating would change the dropout of
        # the steps that follow.
        generator=torch.Generator(),
    )

"""Who computes which examples when: global batches, cut into the micro-batches of each process.

Global batch number k of a run holds the same examples in the same order on any number of processes: the order is a pure
function of seed, epoch and position (`hfgpt.data.order`), and process r of n takes the r-th of n equal parts; of a
stream, the examples r, r + n, r + 2 n, ...
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from hfgpt.data.lanes import ExampleStream, StreamReader
from hfgpt.data.order import StepSampler
from hfgpt.errors import UserError

from .config import TrainingConfig
from .stopping import leave_signals_to_the_training_process
from .task import Batch, Task

__all__ = ["TrainingBatches", "evaluation_batches", "micro_batch_size", "num_training_steps"]


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

    def __init__(self, order: StepSampler, steps: range, micro_batch_size: int) -> None:
        self.order, self.steps, self.micro_batch_size = order, steps, micro_batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield from _cut(self.order.batch(step), self.micro_batch_size)


def _cut(examples: Sequence[Any], size: int) -> list[Any]:
    return [examples[start : start + size] for start in range(0, len(examples), size)]


class TrainingBatches:
    """For each step of a run, this process's micro-batches of the global batch.

    Args:
        num_steps: Steps of the whole run.
        first_step: The step to begin with, counted from 0: those before it were taken before the run was resumed.
        stream_state: Where a stream of examples stood then, of all processes together.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        num_steps: int,
        accelerator: Accelerator,
        first_step: int = 0,
        stream_state: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.config, self.accelerator = task, config, accelerator
        self.steps = range(first_step, num_steps)
        rank, num_processes = accelerator.process_index, accelerator.num_processes
        self.size = micro_batch_size(config, num_processes)
        self._order: StepSampler | None = None
        self._reader: StreamReader | None = None
        if isinstance(task.train_examples, ExampleStream):
            self._reader = task.train_examples.reader(
                seed=config.seed, rank=rank, num_ranks=num_processes, state=stream_state
            )
        else:
            self._order = StepSampler(
                len(task.train_examples),  # type: ignore[arg-type]
                global_batch_size=config.global_batch_size,
                seed=config.seed,
                rank=rank,
                num_ranks=num_processes,
                lengths=task.lengths(task.train_examples),
            )

    def __iter__(self) -> Iterator[list[Batch]]:
        if self._reader is not None:
            for _ in self.steps:
                examples = self._reader.take(self.config.global_batch_size)
                yield [self.task.collate(part) for part in _cut(examples, self.size)]
            return
        assert self._order is not None
        micro_batches = iter(
            DataLoader(
                self.task.train_examples,  # type: ignore[arg-type]  # not a stream
                batch_sampler=_MicroBatchSampler(self._order, self.steps, self.size),
                collate_fn=self.task.collate,
                num_workers=self.config.dataloader_num_workers,
                worker_init_fn=leave_signals_to_the_training_process,
                pin_memory=self.accelerator.device.type == "cuda",
                generator=torch.Generator(),
            )
        )
        parts = self.config.global_batch_size // (self.size * self.accelerator.num_processes)
        for _ in self.steps:
            yield list(islice(micro_batches, parts))

    def examples(self, step: int) -> list[int]:
        """The indices of this process's examples in a step, counted from 0; none if they come from a stream."""
        return [] if self._order is None else self._order.batch(step)

    def stream_state(self) -> dict[str, Any] | None:
        """Where the stream stands after the last batch, of all processes together, which must all ask."""
        if self._reader is None:
            return None
        return self._reader.merge(gather_object([self._reader.state_dict()]))


def evaluation_batches(task: Task, config: TrainingConfig, accelerator: Accelerator) -> DataLoader:
    """This process's share of the validation examples, in order or by length, in batches of the size of training."""
    num_examples = len(task.validation_examples)  # type: ignore[arg-type]
    if config.max_eval_batches is not None:
        num_examples = min(num_examples, config.max_eval_batches * config.global_batch_size)
    lengths = task.lengths(task.validation_examples)
    order = range(num_examples) if lengths is None else np.argsort(lengths[:num_examples], kind="stable").tolist()
    share = order[accelerator.process_index :: accelerator.num_processes]
    return DataLoader(
        Subset(task.validation_examples, share),
        batch_size=micro_batch_size(config, accelerator.num_processes),
        collate_fn=task.collate,
        # Without one of its own a loader draws from the global generator: then evaluating would change the dropout of
        # the steps that follow.
        generator=torch.Generator(),
    )

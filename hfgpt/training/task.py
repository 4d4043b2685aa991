"""What is particular to one kind of training; the engine does what is common to all."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hfgpt.data.lanes import ExampleStream

__all__ = ["Batch", "Task"]

Batch = dict[str, Tensor]


class Task(ABC):
    """Data, batches, loss and metrics of one kind of training."""

    train_examples: Dataset | ExampleStream
    """Examples to train on: a map-style data set, which is shuffled anew each epoch, or a stream."""
    validation_examples: Dataset
    """Examples to evaluate on, always the same and in the same order."""

    unit: str = "tokens"
    """What a target is, in the plural."""

    measures: tuple[str, ...] = ("loss",)
    """What an evaluation adds up over the targets, by the names of `evaluation_sums`."""

    def lengths(self, examples: Dataset) -> Sequence[int] | None:
        """Length of each example, so that a batch is made of examples of similar length; None: order is all chance."""
        return None

    @abstractmethod
    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """Examples as one batch of tensors, the keyword arguments of the model."""

    @abstractmethod
    def count_targets(self, batch: Batch) -> int:
        """Number of targets in the batch that bear loss."""

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        """Summed loss of the batch over `num_items_in_batch`, the number of targets in the whole global batch."""
        return model(**batch, num_items_in_batch=num_items_in_batch).loss

    def evaluation_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Of each of the `measures`, the sum over the targets of the batch."""
        one = torch.ones((), device=next(iter(batch.values())).device)  # the divisor that leaves a loss summed
        return {"loss": self.loss(model, batch, one)}

    def fingerprint(self) -> dict[str, str]:
        """What a resumed run must find unchanged, by name: such as `{"data set": HASH, "tokenizer": HASH}`."""
        return {}

    def metrics(self, means: dict[str, float], num_targets: int) -> dict[str, float]:
        """What one evaluation reports, always with `loss`, from the mean of each measure over `num_targets` targets."""
        return means

"""What is particular to one kind of training; the engine does what is common to all."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from hfgpt.data.lanes import ExampleStream

__all__ = ["Batch", "Task"]

Batch = dict[str, Tensor]


class Task(ABC):
    """Data, batches, loss and metrics of one kind of training."""

    train_examples: Dataset | ExampleStream
    """Examples to train on. A map-style data set is shuffled anew each epoch; a stream has an order of its own."""
    validation_examples: Dataset
    """Examples to evaluate on, always the same and in the same order."""

    unit: str = "tokens"
    """What a target is, in the plural."""

    @abstractmethod
    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """Examples as one batch of tensors, the keyword arguments of the model."""

    @abstractmethod
    def count_targets(self, batch: Batch) -> int:
        """Number of targets in the batch that bear loss."""

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        """Summed loss of the batch over `num_items_in_batch`, the number of targets in the whole global batch."""
        return model(**batch, num_items_in_batch=num_items_in_batch).loss

    def metrics(self, loss: float, num_targets: int) -> dict[str, float]:
        """What one evaluation reports, from the mean loss over `num_targets` targets."""
        return {"loss": loss}

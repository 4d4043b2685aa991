"""Running out of memory: the step is done again with smaller micro-batches, and the same global batch.

On one process that can happen at any step. Several processes must agree, or the one that tries again meets the others
in another exchange of gradients. They can as long as none has begun to exchange any: so in the first steps of a run,
and after each halving, gradients are exchanged once, by hand, after all processes have said that their parts are
complete. A step's memory is known by then. Later, distribution exchanges them as usual while the backward pass runs,
and a process that still runs out of memory ends the run, which can be resumed.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hfgpt.errors import UserError

from .task import Batch

__all__ = ["MicroBatching", "accumulate", "in_parts", "out_of_memory"]

logger = logging.getLogger(__name__)

CAREFUL_STEPS = 3


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


@dataclass
class MicroBatching:
    """How often the configured micro-batch has been halved, and until which step the processes stay careful."""

    halvings: int = 0
    careful_until: int = CAREFUL_STEPS

    def cut(self, micro_batches: Sequence[Batch]) -> list[Batch]:
        """The micro-batches in the halves, quarters, ... that memory has been found to hold."""
        cut = list(micro_batches)
        for _ in range(self.halvings):
            cut = [half for batch in cut for half in _halves(batch)]
        return cut

    def halve(self, micro_batches: Sequence[Batch]) -> tuple[int, int]:
        """Make the micro-batches smaller from now on.

        Returns:
            How many examples were computed at once, and how many are now.

        Raises:
            UserError: If they hold one example already.
        """
        before = max(_num_rows(batch) for batch in self.cut(micro_batches))
        if before == 1:
            raise UserError(
                "Memory runs out with a single example: use shorter examples, a smaller model, gradient_checkpointing, "
                "or mixed_precision."
            )
        self.halvings += 1
        return before, max(_num_rows(batch) for batch in self.cut(micro_batches))


def _num_rows(batch: Batch) -> int:
    return next(iter(batch.values())).shape[0]


def _halves(batch: Batch) -> list[Batch]:
    rows = _num_rows(batch)
    if rows == 1:
        return [batch]
    middle = (rows + 1) // 2
    return [{name: value[part] for name, value in batch.items()} for part in (slice(middle), slice(middle, None))]


def accumulate(
    step: int,
    batching: MicroBatching,
    micro_batches: Sequence[Batch],
    model: nn.Module,
    accelerator: Accelerator,
    backward: Callable[[Batch], Tensor],
) -> Tensor:
    """Add up loss and gradients of this process's micro-batches, in smaller ones where memory runs out.

    Args:
        step: Steps taken so far.
        model: The wrapped module, whose gradients are exchanged between the processes.
        backward: Computes the loss of a micro-batch and adds its gradients; the loss comes back detached.

    Returns:
        The sum of the losses, a scalar on the device; gradients are exchanged.

    Raises:
        UserError: If memory does not hold one example.
    """
    while True:
        careful = accelerator.num_processes > 1 and step < batching.careful_until
        complete, total = True, torch.zeros((), device=accelerator.device)
        try:
            parts = batching.cut(micro_batches)
            for index, batch in enumerate(parts):
                exchange = index == len(parts) - 1 and not careful
                if exchange or accelerator.num_processes == 1:
                    total += backward(batch)
                else:
                    with _without_exchange(model, accelerator):
                        total += backward(batch)
        except RuntimeError as error:
            if not out_of_memory(error) or (accelerator.num_processes > 1 and not careful):
                raise
            complete = False
        if careful:
            all_complete = accelerator.reduce(torch.tensor(float(complete), device=accelerator.device), "mean")
            complete = all_complete.item() == 1
        if complete:
            if careful:
                _exchange_gradients(model, accelerator)
            return total
        model.zero_grad(set_to_none=True)  # of the parts that were complete
        clear_device_cache(garbage_collection=True)
        before, now = batching.halve(micro_batches)
        batching.careful_until = step + 1 + CAREFUL_STEPS
        if accelerator.is_main_process:
            logger.warning(
                "step %d: out of memory with %d examples at once; from now on %d at once, the global batch as before",
                step + 1,
                before,
                now,
            )


def in_parts(batch: Batch, batching: MicroBatching, compute: Callable[[Batch], Tensor]) -> list[Tensor]:
    """The tensors that `compute` gives for a batch, one for each of the parts that memory holds; without gradients.

    No process waits for another in them, so each may go on in parts of its own, and says so itself.

    Raises:
        UserError: If memory does not hold one example.
    """
    while True:
        try:
            return [compute(part) for part in batching.cut([batch])]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        clear_device_cache(garbage_collection=True)  # not while the error still holds what was computed
        before, now = batching.halve([batch])
        logger.warning("evaluation: out of memory with %d examples at once; it goes on with %d at once", before, now)


@contextmanager
def _without_exchange(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Passes in which no process waits for another, so that each may begin anew by itself."""
    for module in model.modules():
        if isinstance(module, DistributedDataParallel):
            module.require_forward_param_sync = False  # else its forward pass hands the first process's buffers round
    with accelerator.no_sync(model):
        yield


def _exchange_gradients(model: nn.Module, accelerator: Accelerator) -> None:
    """What distribution does in the last backward pass: the mean over the processes."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")

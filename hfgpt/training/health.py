"""Steps that would spoil the model: found before they are taken, counted, and written down to be looked at.

A loss or gradient that is not a number reaches every weight in one optimizer step, and no later step brings them back.
So the engine looks at both, summed over all processes, before the step. A bad step is left out; its examples are passed
over. Several in a row are no accident, and end the run with what is needed to find the cause.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .task import Batch

__all__ = ["HealthWatch", "first_not_finite", "write_diagnosis"]

logger = logging.getLogger(__name__)

SPIKE_DEVIATIONS = 6  # of the loss above its recent mean: a normal deviate does this once in a thousand million steps
SPIKE_SHARE = 0.1  # of the recent mean: what a loss must rise at least, however still it was before
SPIKE_MEMORY = 0.98  # decay of the recent mean and variance: a memory of about 50 steps
SPIKE_WARM_UP = 50  # steps before the first judgement


class HealthWatch:
    """Judges each step by its loss and gradient norm, which must be the same on all processes."""

    def __init__(self) -> None:
        self.num_skipped = 0
        self.num_skipped_in_a_row = 0
        self.num_spikes = 0
        self._num_judged = 0
        self._mean = 0.0
        self._variance = 0.0

    def is_good(self, step: int, loss: float, grad_norm: float) -> bool:
        """Whether the step may be taken; says it where it may not, and where the loss leaps up."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.num_skipped_in_a_row = 0
            self._watch_spikes(step, loss)
            return True
        self.num_skipped += 1
        self.num_skipped_in_a_row += 1
        logger.warning(
            "step %d is left out: loss %g, gradient norm %g (%d left out so far)",
            step,
            loss,
            grad_norm,
            self.num_skipped,
        )
        return False

    def _watch_spikes(self, step: int, loss: float) -> None:
        deviation = math.sqrt(self._variance)
        rise = max(SPIKE_DEVIATIONS * deviation, SPIKE_SHARE * self._mean)
        if self._num_judged >= SPIKE_WARM_UP and loss > self._mean + rise:
            self.num_spikes += 1
            logger.warning(
                "step %d: the loss leaps to %.4g, from %.4g +- %.2g before", step, loss, self._mean, deviation
            )
            return  # what is out of the ordinary does not change what is ordinary
        memory = min(SPIKE_MEMORY, self._num_judged / (self._num_judged + 1))  # the plain mean at first
        change = loss - self._mean
        self._mean += (1 - memory) * change
        self._variance = memory * (self._variance + (1 - memory) * change**2)
        self._num_judged += 1

    def state_dict(self) -> dict[str, float]:
        """What a resumed run must know."""
        return {name.removeprefix("_"): value for name, value in vars(self).items()}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state`."""
        for name in vars(self):
            setattr(self, name, state[name.removeprefix("_")])


def first_not_finite(model: nn.Module, run_forward: Any) -> str:
    """Where numbers that are not finite come from, as a clause: the first weight, output or gradient that has some.

    Args:
        run_forward: Called without arguments, computes the loss of the bad batch by `model`; gradients of the bad step
            must still be there.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"the weight {name} is not finite"
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensors = [output] if isinstance(output, Tensor) else [o for o in _values(output) if isinstance(o, Tensor)]
            if not all(tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            loss = run_forward()
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"the first output that is not finite is that of {found[0]}"
    if not loss.isfinite():
        return "every layer's output is finite, but the loss is not"
    for name, weight in reversed(list(model.named_parameters())):
        if weight.grad is not None and not weight.grad.isfinite().all():
            return f"the forward pass is finite, and the first gradient that is not is that of {name}"
    return "the pass is finite when it is run again"


def _values(output: Any) -> Sequence[Any]:
    return list(output.values()) if hasattr(output, "values") else output if isinstance(output, tuple | list) else []


def write_diagnosis(
    folder: Path, rank: int, micro_batches: Sequence[Batch], examples: Sequence[int], said: str
) -> None:
    """Write one process's part of the bad step to `folder`: batches, examples and what was found.

    `torch.load(folder / "rank-0.pt", weights_only=True)["micro_batches"][0]` are the model's arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"micro_batches": [dict(batch) for batch in micro_batches], "examples": list(examples), "found": said}
    torch.save(content, folder / f"rank-{rank}.pt")

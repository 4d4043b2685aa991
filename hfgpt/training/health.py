"""Steps that would spoil the model: found before they are taken, counted, and written down to be looked at.

A loss or gradient that is not a number reaches every weight in one optimizer step, and no later step brings them back.
So the engine looks at both, summed over all processes, before the step. A bad step is left out; its examples are passed
over. Several in a row are no accident, and end the run with what is needed to find the cause.
"""

import logging
import math
from collections.abc import Callable, Sequence
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
SPIKE_LONGEST = 50  # steps after which a loss that stays high is the new ordinary


class HealthWatch:
    """Judges each step by its loss and gradient norm, which must be the same on all processes; the first one speaks."""

    def __init__(self) -> None:
        self.num_skipped = 0
        self.num_skipped_in_a_row = 0
        self.num_spikes = 0
        self._spike_length = 0
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
        _warn(
            "step %d is left out: loss %g, gradient norm %g (%d left out so far)",
            step,
            loss,
            grad_norm,
            self.num_skipped,
        )
        return False

    def _watch_spikes(self, step: int, loss: float) -> None:
        """Say once for each spike, however many steps it lasts, that the loss has left its recent mean."""
        deviation = math.sqrt(self._variance)
        rise = max(SPIKE_DEVIATIONS * deviation, SPIKE_SHARE * self._mean)
        if self._num_judged >= SPIKE_WARM_UP and loss > self._mean + rise:
            self._spike_length += 1
            if self._spike_length == 1:
                self.num_spikes += 1
                _warn("step %d: the loss leaps to %.4g, from %.4g +- %.2g before", step, loss, self._mean, deviation)
            if self._spike_length < SPIKE_LONGEST:
                return  # what is out of the ordinary does not change what is ordinary
            self._mean = self._variance = 0.0  # it has come to stay: learn anew what is ordinary
            self._num_judged = 0
        self._spike_length = 0
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


def _warn(message: str, *values: Any) -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank()):
        logger.warning(message, *values)


def first_not_finite(model: nn.Module, run_forward: Callable[[], Any]) -> str | None:
    """Where numbers that are not finite come from, as a clause: the first weight, output or gradient that has some.

    Gradients are computed anew, for clipping by a norm that is not finite has spoilt all of those of the bad step; they
    are those of this process alone.

    Args:
        run_forward: Called without arguments, computes the loss of the bad batch by `model`.

    Returns:
        The clause; None if all numbers are finite when the pass is run again.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"the weight {name} is not finite"
    layer, loss = _first_output_not_finite(model, run_forward)
    if layer is not None:
        return f"the first output that is not finite is that of {layer}"
    if not loss.isfinite():
        return "every layer's output is finite, but the loss is not"
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        run_forward().backward()
    for name, weight in reversed(list(model.named_parameters())):
        if weight.grad is not None and not weight.grad.isfinite().all():
            return f"the forward pass is finite, and the first gradient that is not is that of {name}"
    return None


@torch.no_grad()
def _first_output_not_finite(model: nn.Module, run_forward: Callable[[], Any]) -> tuple[str | None, Tensor]:
    """The first layer whose output is not finite, or None; and the loss."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensors = [value for value in _values(output) if isinstance(value, Tensor) and value.is_floating_point()]
            if not all(tensor.isfinite().all() for tensor in tensors):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        loss = run_forward()
    finally:
        for hook in hooks:
            hook.remove()
    return (found[0] if found else None), loss


def _values(output: Any) -> Sequence[Any]:
    if isinstance(output, Tensor):
        return [output]
    return list(output.values()) if hasattr(output, "values") else output if isinstance(output, tuple | list) else []


def write_diagnosis(
    folder: Path, rank: int, micro_batches: Sequence[Batch], examples: Sequence[int], said: str | None
) -> None:
    """Write one process's part of the bad step to `folder`: batches, examples and what was found.

    `torch.load(folder / "rank-0.pt", weights_only=True)["micro_batches"][0]` are the model's arguments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"micro_batches": [dict(batch) for batch in micro_batches], "examples": list(examples), "found": said}
    torch.save(content, folder / f"rank-{rank}.pt")

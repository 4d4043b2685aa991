"""What the engine tells those who listen: progress bars, logs, pictures, samples, pushes.

The engine calls every listener's methods on every process, in the order in which the listeners were given. A listener
of your own:

    class PrintLoss(Callback):
        def on_step(self, run, report):
            if run.is_main_process:
                print(report.step, report.loss)
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .config import TrainingConfig

__all__ = ["Callback", "Evaluation", "StepReport", "TrainingRun"]


class StepReport:
    """One optimizer step.

    Loss, norm and count are tensors on the device until they are read: a step of which nobody reads them waits for
    nothing.
    """

    def __init__(
        self, step: int, loss: Tensor, learning_rate: float, grad_norm: Tensor, num_targets: Tensor, seconds: float
    ) -> None:
        self.step = step
        """Number of the step, counted from 1."""
        self.learning_rate = learning_rate
        """Learning rate of this step."""
        self.seconds = seconds
        """Wall-clock time since the step before, data included."""
        self._loss, self._grad_norm, self._num_targets = loss, grad_norm, num_targets

    @property
    def loss(self) -> float:
        """Mean loss over the targets of the global batch, in nats."""
        return float(self._loss)

    @property
    def grad_norm(self) -> float:
        """Norm of the global batch's gradient before clipping."""
        return float(self._grad_norm)

    @property
    def num_targets(self) -> int:
        """Targets (tokens that bear loss, or texts) in the global batch."""
        return int(self._num_targets)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation split."""

    step: int
    """Optimizer steps taken before it."""
    metrics: dict[str, float]
    """What the task measured; always with `loss`."""
    seconds: float
    """Wall-clock time of the evaluation."""


@dataclass
class TrainingRun:
    """The state of a run, for its listeners to read."""

    config: TrainingConfig
    model: nn.Module
    """The bare model, without the wrappers of distribution and compilation."""
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    num_steps: int
    """Optimizer steps that the whole run takes."""
    step: int = 0
    """Optimizer steps taken so far."""
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def is_main_process(self) -> bool:
        """True on the one process that writes files and talks."""
        return self.accelerator.is_main_process

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.config.output_dir)


class Callback:
    """A listener; override what you want to hear."""

    def on_train_begin(self, run: TrainingRun) -> None:
        """Before the first evaluation and the first step."""

    def on_step(self, run: TrainingRun, report: StepReport) -> None:
        """After every optimizer step."""

    def on_log(self, run: TrainingRun, summary: dict[str, float]) -> None:
        """Every `logging_steps` steps, with the means since the last time: see `Meter.summary`."""

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        """After every evaluation."""

    def on_train_end(self, run: TrainingRun) -> None:
        """After the last evaluation."""

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
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from .config import TrainingConfig
from .health import HealthWatch
from .memory import MicroBatching
from .meter import Meter
from .stopping import StopReason

__all__ = ["Callback", "Evaluation", "StepReport", "TrainingRun"]


@dataclass(frozen=True)
class StepReport:
    """One optimizer step."""

    step: int
    """Number of the step, counted from 1."""
    loss: float
    """Mean loss over the targets of the global batch, in nats."""
    learning_rate: float
    """Learning rate of this step."""
    grad_norm: float
    """Norm of the global batch's gradient before clipping."""
    num_targets: int
    """Targets (tokens that bear loss, or texts) in the global batch."""
    seconds: float
    """Wall-clock time since the step before, data included."""
    skipped: bool = False
    """Whether the step was left out, because loss or gradient was not finite."""


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
    meter: Meter
    """What was computed since the last log line."""
    fingerprint: dict[str, str] = field(default_factory=dict)
    """Of data, tokenizer and model shape: what a resumed run must have in common with this one."""
    step: int = 0
    """Optimizer steps taken so far, those that were left out counted in."""
    num_targets: int = 0
    """Targets seen so far."""
    evaluations: list[Evaluation] = field(default_factory=list)
    health: HealthWatch = field(default_factory=HealthWatch)
    """Counts of steps left out and of leaps of the loss."""
    memory: MicroBatching = field(default_factory=MicroBatching)
    """How the micro-batches are cut since memory ran out."""
    stop_reason: StopReason | None = None
    """Why the run ended before its last step; None if it has not."""

    @property
    def evaluations_without_gain(self) -> int:
        """Evaluations since the one with the lowest loss."""
        losses = [evaluation.metrics["loss"] for evaluation in self.evaluations]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0

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

    def on_log(self, run: TrainingRun, summary: dict[str, float | None]) -> None:
        """Every `logging_steps` steps, with the means since the last time: see `Meter.summary`."""

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        """After every evaluation."""

    def on_checkpoint(self, run: TrainingRun, folder: Path) -> None:
        """After a checkpoint has been written and is whole; on the first process only, which alone knows."""

    def on_train_end(self, run: TrainingRun) -> None:
        """After the last evaluation and checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What the listener must know to go on when the run is resumed, in types that JSON has."""
        return {}

    def load_state_dict(self, run: TrainingRun, state: dict[str, Any]) -> None:
        """Go on from `state`, before `on_train_begin`, in which `run.step` then is not 0."""

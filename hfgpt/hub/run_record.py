"""What only a training knows of itself, noted while it goes on, across resumptions: time, energy, where it began."""

import time
from collections.abc import Callable
from typing import Any

from hfgpt.training.events import Callback, Evaluation, TrainingRun

from .energy import EnergyMeter

__all__ = ["RunRecord"]


class RunRecord(Callback):
    """Notes where the weights came from, how long training took and what energy; on the first process.

    Args:
        trace: Finds out about the checkpoint that the training begins with, None for random weights. It is asked once,
            before the first step, because that checkpoint may be replaced while the training goes on.
    """

    def __init__(self, trace: Callable[[], dict[str, Any] | None]) -> None:
        self._trace = trace
        self._meter: EnergyMeter | None = None
        self._started: float | None = None
        self._seconds = 0.0
        self._joules: dict[str, float] = {}
        self._known = False
        self.parent: dict[str, Any] | None = None
        self.num_resumptions = 0

    def on_train_begin(self, run: TrainingRun) -> None:
        if not run.is_main_process:
            return
        if not self._known:
            self.parent, self._known = self._trace(), True
        self._meter = EnergyMeter(run.accelerator.device)
        self._meter.joules = dict(self._joules)
        self._started = time.perf_counter()

    def on_log(self, run: TrainingRun, summary: dict[str, float | None]) -> None:
        self._look()

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        self._look()

    def on_train_end(self, run: TrainingRun) -> None:
        self._look()
        self._seconds, self._started = self.seconds, None

    def _look(self) -> None:
        if self._meter is not None:
            self._meter.look()

    @property
    def seconds(self) -> float:
        """Of training, evaluations and checkpoints included; what a kill has lost is not counted."""
        return self._seconds + (0.0 if self._started is None else time.perf_counter() - self._started)

    @property
    def kilowatt_hours(self) -> dict[str, float]:
        """By what was measured: `GPU 0`, `processor 0`; empty if nothing could be."""
        return {} if self._meter is None else self._meter.kilowatt_hours

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "joules": {} if self._meter is None else self._meter.joules,
            "parent": self.parent,
            "num_resumptions": self.num_resumptions,
        }

    def load_state_dict(self, run: TrainingRun, state: dict[str, Any]) -> None:
        self._seconds, self._joules = state["seconds"], state["joules"]
        self.parent, self._known = state["parent"], True
        self.num_resumptions = state["num_resumptions"] + 1

"""What only a training knows of itself, noted while it goes on, across resumptions: time, energy, where it began."""

import time
from collections.abc import Sequence
from typing import Any

from hfgpt.training.events import Callback, Evaluation, TrainingRun

from .energy import EnergyMeter
from .lineage import trace_parent
from .repositories import is_repository, look_up

__all__ = ["RunRecord"]


class RunRecord(Callback):
    """Notes how long training took and what energy, and what it was made from; on the first process.

    It finds out about models and data when training begins, for they may be replaced while it goes on.

    Args:
        init_from: The checkpoint that the training begins with, a folder or Hub id; None: random weights.
        commit: Of that checkpoint's repository on the Hub, as the loading has found it.
        only_shape: Whether its weights were replaced by random ones.
        data: Sources of data, each with the revision that was asked for.
    """

    def __init__(
        self,
        init_from: str | None,
        *,
        commit: str | None = None,
        only_shape: bool = False,
        data: Sequence[tuple[str, str | None]] = (),
    ) -> None:
        self._init_from, self._commit, self._only_shape, self._data = init_from, commit, only_shape, data
        self._meter: EnergyMeter | None = None
        self._started: float | None = None
        self._seconds = 0.0
        self._joules: dict[str, float] = {}
        self._is_traced = False
        self.parent: dict[str, Any] | None = None
        """What `trace_parent` has found; None for random weights."""
        self.repositories: dict[str, dict[str, Any]] = {}
        """What `look_up` has found of each source of data that is on the Hub."""
        self.num_resumptions = 0

    def on_train_begin(self, run: TrainingRun) -> None:
        if not run.is_main_process:
            return
        if not self._is_traced:
            self._trace()
        self._meter = EnergyMeter(run.accelerator.device, self._joules)
        self._started = time.perf_counter()

    def _trace(self) -> None:
        if self._init_from is not None:
            self.parent = trace_parent(self._init_from, commit=self._commit, only_shape=self._only_shape)
        for source, revision in self._data:
            if is_repository(source):
                self.repositories[source] = look_up(source, "dataset", revision).to_dict()
        self._is_traced = True

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
            "joules": {} if self._meter is None else dict(self._meter.joules),
            "parent": self.parent,
            "repositories": self.repositories,
            "num_resumptions": self.num_resumptions,
        }

    def load_state_dict(self, run: TrainingRun, state: dict[str, Any]) -> None:
        self._seconds, self._joules = state["seconds"], state["joules"]
        self.parent, self.repositories = state["parent"], state["repositories"]
        self.num_resumptions, self._is_traced = state["num_resumptions"] + 1, True

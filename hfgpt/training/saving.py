"""When a run writes a checkpoint, and what goes into it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from .background import BackgroundWriter
from .batches import TrainingBatches
from .checkpoints import CheckpointStore
from .events import Callback, TrainingRun
from .processes import on_main_process
from .state import RunState, take_state

__all__ = ["CheckpointSaver", "SaveModel"]

SaveModel = Callable[[Path, dict[str, Tensor]], Any]
"""Writes a model, and what belongs to it, to a folder that may not exist yet, with the weights that are given."""


class CheckpointSaver:
    """Writes checkpoints when they are due; on leaving, the last of them is whole.

    The first process writes, from a copy: in the background, unless the configuration says otherwise, while training
    goes on. All processes take part in taking the copy.
    """

    def __init__(
        self,
        run: TrainingRun,
        callbacks: Sequence[Callback],
        save_model: SaveModel | None,
        batches: TrainingBatches,
    ) -> None:
        self.run, self.callbacks, self.save_model, self.batches = run, callbacks, save_model, batches
        config = run.config
        self.store = CheckpointStore(run.output_dir, keep_last=config.keep_last, keep_best=config.keep_best)
        self.writer = BackgroundWriter()
        self._written: list[Path] = []

    def __enter__(self) -> "CheckpointSaver":
        self.writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                on_main_process(self.run.accelerator, self.writer.wait)  # what went wrong is raised, on all processes
        finally:
            self.writer.__exit__(kind, error, traceback)  # waits; what goes wrong besides is logged
        self._tell_written()

    def has_failed(self) -> bool:
        """Whether this process could not write the last checkpoint; the engine tells the others so."""
        return self.writer.has_failed()

    def save_if_due(self, *, failed_somewhere: bool) -> None:
        """Save if this step is one to be saved: every `save_steps`, or with every evaluation; and at the end.

        Args:
            failed_somewhere: Whether `has_failed` was true on any process; the same on all of them.

        Raises:
            UserError: On every process, if the disk was full for the last checkpoint.
        """
        if failed_somewhere:
            on_main_process(self.run.accelerator, self.writer.wait)
        self._tell_written()
        run, every = self.run, self.run.config.save_steps
        evaluated = bool(run.evaluations) and run.evaluations[-1].step == run.step
        due = run.step % every == 0 if every else evaluated
        if self.save_model is not None and (due or run.step == run.num_steps or run.stop_reason is not None):
            self._save()

    def _save(self) -> None:
        state = take_state(self.run, self.callbacks, self.batches.stream_state())
        last = self.run.evaluations[-1]
        loss = last.metrics["loss"] if last.step == self.run.step else None

        def hand_over() -> None:
            assert state is not None  # on the first process, which alone calls this
            if self.run.config.save_in_background:
                self.writer.submit(lambda: self._write(state, loss))
            else:
                self._write(state, loss)

        on_main_process(self.run.accelerator, hand_over)

    def _write(self, state: RunState, loss: float | None) -> None:
        def fill(folder: Path) -> None:
            assert self.save_model is not None
            self.save_model(folder, state.weights)
            state.write(folder)

        self._written.append(self.store.write(state.step, fill, loss=loss))

    def _tell_written(self) -> None:
        while self._written:
            folder = self._written.pop(0)
            for callback in self.callbacks:
                callback.on_checkpoint(self.run, folder)

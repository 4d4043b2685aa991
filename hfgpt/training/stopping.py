"""Why a run ends: its steps are done, a budget is used up, nothing improves any more, or a signal asks for it.

Signals and the clock are each process's own, and a loop in which one process goes on while another stops hangs for
ever. So nobody acts on what it alone has seen: the engine adds the flags of all processes up once a step, and all stop
at the same step boundary, after saving.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from .config import TrainingConfig

if TYPE_CHECKING:
    from .events import TrainingRun

__all__ = ["STOP_SIGNALS", "StopReason", "StopWatch", "leave_signals_to_the_training_process"]

# A scheduler's or container's request, Ctrl-C, and the warning that SLURM sends ahead of the time limit
# (`sbatch --signal=USR1@120`).
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1")
    if hasattr(signal, name)  # no USR1 on Windows
)

# A scheduler, `timeout` or a shell often signals a whole group of processes, and torchrun then passes on to each what
# it has received already. What comes so soon after the first signal is the same request, and kills nothing.
SAME_REQUEST_SECONDS = 1.0


@dataclass(frozen=True)
class StopReason:
    """Why a run ended before its last step."""

    text: str
    """A clause that follows on "Stopped at step 120: "."""
    exit_code: int = 0
    """What the command ends with: 128 + the signal's number after a signal, as shells do; else 0."""

    @property
    def interrupted(self) -> bool:
        """Whether the run was cut off from outside, and so is not to be finished, but to be gone on with."""
        return self.exit_code != 0


class StopWatch:
    """Listens to the signals and the clock of this process, and judges what all processes have seen.

    While it is entered, the first signal only raises a flag. A second one of any kind kills the process at once, as the
    signal would have done without us; but one within `SAME_REQUEST_SECONDS` of the first is taken for the same request.
    In a thread that is not the main one Python gives us no signals, and they do what they did before.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._former: dict[signal.Signals, Any] = {}
        self._deadline = math.inf if config.max_minutes is None else time.monotonic() + 60 * config.max_minutes

    def __enter__(self) -> "StopWatch":
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            self._former = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = signal.Signals(number), now
            # Not by the logger: this may interrupt a write to the stream it writes to, which Python cannot nest.
            os.write(2, f"{self.received.name}: saving and stopping after this step; another signal kills\n".encode())
        elif now - self._received_at > SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def flags(self) -> list[float]:
        """What this process has seen: a one for each signal it has received and for a clock that has run out."""
        return [float(self.received is number) for number in STOP_SIGNALS] + [float(time.monotonic() > self._deadline)]

    def reason(self, flags: Sequence[float], run: "TrainingRun") -> StopReason | None:
        """Whether to stop before the last step; the same on each process, as the flags are.

        Args:
            flags: The mean of the processes' `flags()`.
            run: The run so far.
        """
        if run.step == run.num_steps:
            return None
        for number, count in zip(STOP_SIGNALS, flags, strict=False):
            if count:
                return StopReason(f"it received {number.name}", 128 + number)
        if flags[-1]:
            return StopReason(f"max_minutes ({self.config.max_minutes:g}) are over")
        return self.reached(run)

    def reached(self, run: "TrainingRun") -> StopReason | None:
        """What of the configuration ends a run at the step where it is, and did so before if it was resumed there."""
        if run.step == run.num_steps:
            return None
        if self.config.max_tokens is not None and run.num_targets >= self.config.max_tokens:
            return StopReason(f"max_tokens ({self.config.max_tokens:,}) are reached")
        patience = self.config.early_stopping_patience
        if patience is not None and run.evaluations_without_gain >= patience:
            return StopReason(f"the validation loss has not fallen in {patience} evaluations (early_stopping_patience)")
        return None


def leave_signals_to_the_training_process(worker_id: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: a signal sent to the whole group must not kill those that prepare batches.

    The training process needs them for the steps until it stops, and ends them itself.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)

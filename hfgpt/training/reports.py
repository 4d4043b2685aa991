"""The run's numbers: written to `metrics.jsonl`, drawn as `loss_curve.png`."""

import json
import logging
import math
import os
from itertools import cycle
from pathlib import Path
from typing import Any

from .events import Callback, Evaluation, TrainingRun

logger = logging.getLogger(__name__)

__all__ = ["LossCurve", "MetricsLog", "RunFile", "draw_loss_curve"]


class RunFile:
    """A file of JSON lines in the run's folder that a resumed run cuts back to where its checkpoint was taken."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._length = 0  # bytes of this run; what is longer was written after the checkpoint

    def begin(self, run: TrainingRun) -> None:
        """Empty the file, or cut it back if the run goes on."""
        if run.is_main_process:
            path = run.output_dir / self.name
            path.touch()
            found = path.stat().st_size
            if found < self._length:
                logger.warning(
                    "%s has %d bytes, fewer than the %d that it had at the checkpoint: it begins with a gap.",
                    path,
                    found,
                    self._length,
                )
            self._length = min(found, self._length)
            os.truncate(path, self._length)  # never written anew: a kill would lose what it holds

    def append(self, run: TrainingRun, line: dict[str, Any]) -> None:
        """Write one line, from the main process."""
        if run.is_main_process:
            line = {name: _json_value(value) for name, value in line.items()}
            written = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode()
            with (run.output_dir / self.name).open("ab") as file:
                file.write(written)
            self._length += len(written)

    def state_dict(self) -> dict[str, int]:
        """How much of the file belongs to the run so far."""
        return {"length": self._length}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from `state`."""
        self._length = state["length"]


def _json_value(value: Any) -> Any:
    """A value as JSON has it, which knows no infinity: a perplexity that overflows, or a loss that was not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsLog(Callback):
    """Writes `metrics.jsonl`: the meter's summaries, and evaluations with `validation_` before each name."""

    def __init__(self) -> None:
        self.file = RunFile("metrics.jsonl")

    def on_train_begin(self, run: TrainingRun) -> None:
        self.file.begin(run)

    def on_log(self, run: TrainingRun, summary: dict[str, float | None]) -> None:
        self.file.append(run, summary)

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        metrics = {f"validation_{name}": value for name, value in evaluation.metrics.items()}
        seconds = {"evaluation_seconds": round(evaluation.seconds, 3)}
        self.file.append(run, {"step": evaluation.step, **metrics, **seconds})

    def state_dict(self) -> dict[str, int]:
        return self.file.state_dict()

    def load_state_dict(self, run: TrainingRun, state: dict[str, int]) -> None:
        self.file.load_state_dict(state)


class LossCurve(Callback):
    """Draws `loss_curve.png` after every evaluation, from `metrics.jsonl`."""

    def __init__(self, reference_losses: dict[str, float] | None = None, unit: str = "nats per token") -> None:
        self.reference_losses, self.unit = reference_losses or {}, unit

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        if run.is_main_process and run.step > 0:
            lines = (run.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            draw_loss_curve(
                [json.loads(line) for line in lines],
                run.output_dir / "loss_curve.png",
                self.reference_losses,
                self.unit,
            )


def draw_loss_curve(
    lines: list[dict[str, float]], path: Path, reference_losses: dict[str, float], unit: str = "nats per token"
) -> None:
    """Draw training and validation loss over the steps, with other models' losses as dashed lines.

    Args:
        lines: The parsed lines of `metrics.jsonl`.
        path: The PNG to write.
        reference_losses: Losses of models to compare with, by name.
        unit: Of the losses.
    """
    # Not pyplot: it would keep global state and look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, marker in (("train_loss", "tab:blue", ""), ("validation_loss", "tab:orange", "o")):
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=name.replace("_", " "))
    colours = cycle(("tab:gray", "tab:green", "tab:purple", "tab:brown"))
    for (name, loss), colour in zip(reference_losses.items(), colours, strict=False):
        axes.axhline(loss, linestyle="--", linewidth=1, color=colour, label=f"{name} ({loss:.3f})")
    axes.set(xlabel="optimizer step", ylabel=f"loss ({unit})")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)

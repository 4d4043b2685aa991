"""The run's numbers: averaged between two log lines, written to `metrics.jsonl`, drawn as `loss_curve.png`."""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

from .events import Callback, Evaluation, StepReport, TrainingRun

__all__ = ["LossCurve", "Meter", "MetricsLog", "draw_loss_curve"]


class Meter:
    """Collects steps and sums them up once for each log line, so that the device is waited for only then."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.num_targets = 0
        self._reports: list[StepReport] = []

    def add(self, report: StepReport) -> None:
        """Note one step."""
        self._reports.append(report)

    def summary(self) -> dict[str, float]:
        """What happened since the last summary: losses averaged over targets, targets divided by wall-clock time."""
        reports, self._reports = self._reports, []
        num_targets = sum(report.num_targets for report in reports)
        loss = sum(report.loss * report.num_targets for report in reports) / num_targets
        seconds = sum(report.seconds for report in reports)
        self.num_targets += num_targets
        return {
            "step": reports[-1].step,
            "train_loss": loss,
            "learning_rate": reports[-1].learning_rate,
            "grad_norm": reports[-1].grad_norm,
            f"{self.unit}_seen": self.num_targets,
            f"{self.unit}_per_second": num_targets / seconds,
        }


class MetricsLog(Callback):
    """Writes `metrics.jsonl`: the meter's summaries, and evaluations with `validation_` before each name."""

    def on_train_begin(self, run: TrainingRun) -> None:
        if run.is_main_process:
            (run.output_dir / "metrics.jsonl").write_text("", encoding="utf-8")

    def on_log(self, run: TrainingRun, summary: dict[str, float]) -> None:
        self._append(run, summary)

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        metrics = {f"validation_{name}": value for name, value in evaluation.metrics.items()}
        self._append(run, {"step": evaluation.step, **metrics, "evaluation_seconds": round(evaluation.seconds, 3)})

    def _append(self, run: TrainingRun, line: dict[str, Any]) -> None:
        if run.is_main_process:
            with (run.output_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


class LossCurve(Callback):
    """Draws `loss_curve.png` after every evaluation, from `metrics.jsonl`."""

    def __init__(self, reference_losses: dict[str, float] | None = None) -> None:
        self.reference_losses = reference_losses or {}

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        if run.is_main_process and run.step > 0:
            lines = (run.output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            draw_loss_curve(
                [json.loads(line) for line in lines], run.output_dir / "loss_curve.png", self.reference_losses
            )


def draw_loss_curve(lines: list[dict[str, float]], path: Path, reference_losses: dict[str, float]) -> None:
    """Draw training and validation loss over the steps, with other models' losses as dashed lines.

    Args:
        lines: The parsed lines of `metrics.jsonl`.
        path: The PNG to write.
        reference_losses: Losses in nats of models to compare with, by name.
    """
    # Not pyplot: it would keep global state and look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, marker in (("train_loss", "tab:blue", ""), ("validation_loss", "tab:orange", "o")):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=name.replace("_", " "))
    colours = cycle(("tab:gray", "tab:green", "tab:purple", "tab:brown"))
    for (name, loss), colour in zip(reference_losses.items(), colours, strict=False):
        axes.axhline(loss, linestyle="--", linewidth=1, color=colour, label=f"{name} ({loss:.3f})")
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)

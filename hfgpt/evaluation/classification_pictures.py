"""The pictures of a classifier's report: confusion matrix, reliability diagram, curves of loss and accuracy.

Colours are those of M. Okabe and K. Ito, "Color Universal Design" (2002), and of the map "Blues", whose order is one of
lightness: both can be told apart by colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .calibration import calibration_error_of_bins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_accuracy_curve", "draw_confusion_matrix", "draw_reliability_diagram"]

BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
SKY_BLUE, GREY = "#56B4E9", "#595959"

DOTS_PER_INCH = 120

# Longer names of classes are cut, or they would leave no room for the matrix.
_LONGEST_NAME = 24


def draw_confusion_matrix(matrix: Sequence[Sequence[int]], names: Sequence[str], path: Path) -> None:
    """Draw counts, with their share of the row, on a colour for that share.

    Args:
        matrix: (classes, classes) counts, rows are true classes.
        names: the names of the classes, by id.
        path: the PNG to write.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    num_classes = len(counts)
    side = num_classes * max(0.62, 1.5 - 0.15 * num_classes)  # inches: large cells for few classes
    font_size = 11 if num_classes <= 3 else 9 if num_classes <= 6 else 7.5
    short = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in map(str, names)]
    upright = num_classes <= 6 and max(map(len, short)) <= 10
    name_room = 0.09 * max(map(len, short))  # inches
    figure = _figure(max(4.8, side + name_room + 1.8), max(3.6, side + (0.2 if upright else 0.75 * name_room) + 0.9))
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column] or num_classes <= 6:
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}\n{_percent(shares[row, column])}",
                ha="center",
                va="center",
                fontsize=font_size,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    # A name is text: what stands between dollar signs is no formula.
    axes.set_xticks(range(num_classes), short, parse_math=False)
    axes.set_yticks(range(num_classes), short, parse_math=False)
    if not upright:
        axes.tick_params(axis="x", labelrotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    right, total = int(np.trace(counts)), int(counts.sum())
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{right:,} of {total:,} right: accuracy {right / total:.1%}")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def draw_reliability_diagram(
    bins: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    calibrated_bins: Sequence[Mapping[str, Any]] | None = None,
    temperature: float | None = None,
) -> None:
    """Draw accuracy over confidence, with the number of examples below, without and with temperature scaling.

    Args:
        bins: what `calibration.reliability_bins` returned.
        path: the PNG to write.
        calibrated_bins: the same after temperature scaling; default: there was none.
        temperature: the temperature of `calibrated_bins`.
    """
    panels = [("as trained" if calibrated_bins else "", bins)]
    if calibrated_bins:
        panels.append((f"temperature {temperature:.2f}", calibrated_bins))
    figure = _figure(4.6 * len(panels) + 0.4, 5.2)
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", height_ratios=(3, 1), squeeze=False)
    for column, (name, panel) in enumerate(panels):
        error = calibration_error_of_bins(panel)
        _draw_reliability(axes[0][column], axes[1][column], panel)
        axes[0][column].set_title(f"{name + ': ' if name else ''}expected calibration error {error:.3f}", fontsize=10)
    left = min(entry["lower"] for _, panel in panels for entry in panel if entry["count"])
    axes[0][0].set(ylabel="accuracy", xlim=(min(left, 0.5), 1), ylim=(0, 1.02))
    axes[1][0].set(ylabel="examples")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_reliability(upper: "Axes", lower: "Axes", bins: Sequence[Mapping[str, Any]]) -> None:
    filled = [entry for entry in bins if entry["count"]]
    width = bins[0]["upper"] - bins[0]["lower"]
    middles = [(entry["lower"] + entry["upper"]) / 2 for entry in filled]
    edges = [entry["lower"] for entry in filled], [entry["upper"] for entry in filled]
    style = {"width": width, "edgecolor": "white", "linewidth": 0.8}
    upper.bar(middles, [entry["accuracy"] for entry in filled], color=SKY_BLUE, label="accuracy", **style)
    upper.hlines(
        [entry["confidence"] for entry in filled], *edges, color=VERMILION, linewidth=2.5, label="mean confidence"
    )
    upper.plot([0, 1], [0, 1], linestyle="--", color=GREY, linewidth=1, label="well calibrated")
    counts = lower.bar(middles, [entry["count"] for entry in filled], color=GREY, **style)
    lower.bar_label(counts, fmt="{:,.0f}", fontsize=7)
    lower.set(xlabel="confidence")
    lower.margins(y=0.2)
    for axes in (upper, lower):
        axes.grid(alpha=0.3, axis="y")
        axes.set_axisbelow(True)


def draw_accuracy_curve(
    lines: Sequence[Mapping[str, Any]], path: Path, reference_accuracies: Mapping[str, float]
) -> None:
    """Draw loss and accuracy over the steps, one above the other, with other models' accuracies as dashed lines.

    Args:
        lines: the parsed lines of `metrics.jsonl`, with `step` and some of `train_loss`, `validation_loss`,
            `train_accuracy` and `validation_accuracy`.
        path: the PNG to write.
        reference_accuracies: the accuracies of models to compare with, by name, on the validation examples.
    """
    figure = _figure(8, 6.4)
    upper, lower = figure.subplots(2, sharex=True)
    series = {
        name: [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        for name in ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy")
    }
    for name, points in series.items():
        if points:
            is_training = name.startswith("train_")
            (upper if name.endswith("_loss") else lower).plot(
                *zip(*points, strict=True),
                color=BLUE if is_training else ORANGE,
                marker="" if is_training else "o",
                markersize=4,
                label=name.replace("_", " "),
            )
    colours = cycle((GREEN, PURPLE, GREY, VERMILION))
    for (name, accuracy), colour in zip(reference_accuracies.items(), colours, strict=False):
        lower.axhline(accuracy, linestyle="--", linewidth=1.2, color=colour, label=f"{name} ({accuracy:.1%})")
    upper.set(ylabel="loss (nats per example)")
    lower.set(ylabel="accuracy", xlabel="optimizer step")
    if series["validation_accuracy"]:
        step, best = max(series["validation_accuracy"], key=lambda point: point[1])
        upper.set_title(f"best validation accuracy {best:.1%}, at step {step:,}")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _percent(share: float) -> str:
    """Whole percents; a cell that is not empty never reads 0%, nor one that is not all of its row 100%."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def _figure(width: float, height: float) -> "Figure":
    # Not pyplot: it would keep global state and look for a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")

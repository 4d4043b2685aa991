"""The picture of a finetuning for instructions: how many answers are right, task by task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .classification_pictures import BLUE, DOTS_PER_INCH, GREY

__all__ = ["draw_exact_match"]


def draw_exact_match(by_task: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw a bar for each task, with the 95% interval of its share of right answers.

    Args:
        by_task: For each task `num_examples`, and `exact_match` with a `value` from 0 to 1 and an `interval`.
        path: The PNG to write.
    """
    # Not pyplot: it would keep global state and look for a display.
    from matplotlib.figure import Figure

    names = sorted(by_task, key=lambda task: by_task[task]["exact_match"]["value"])
    scores = [by_task[task]["exact_match"] for task in names]
    values = [100 * score["value"] for score in scores]
    below = [100 * (score["value"] - score["interval"][0]) for score in scores]
    above = [100 * (score["interval"][1] - score["value"]) for score in scores]
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(names, values, xerr=[below, above], color=BLUE, ecolor=GREY, capsize=2, height=0.65)
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        label = f"{value:.0f}% of {by_task[name]['num_examples']:,}"
        axes.annotate(label, (101, place), va="center", fontsize=8, annotation_clip=False)
    axes.set(xlim=(0, 100), xlabel="answers that are exactly right, in % (lines: 95% interval)")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    figure.savefig(path, dpi=DOTS_PER_INCH)

"""The histogram of lengths, in numbers and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # not pyplot, which would look for a display
from numpy.typing import NDArray

from hfgpt.errors import UserError

__all__ = ["check_picture", "draw_lengths", "length_histogram"]

# The longest is so many times the median where a logarithmic axis shows more.
LONG_TAIL = 8
BINS_OF_PICTURE = 48

# M. Okabe and K. Ito, "Color Universal Design" (2002).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#595959"


def length_histogram(totals: Mapping[str, Sequence[int]], num_bins: int = 16) -> tuple[list[int], dict[str, list[int]]]:
    """The smallest length of each bin and, split by split, the examples in it.

    There are about `num_bins` bins with round edges, of one width or, where the lengths have a long tail, each wider
    than the one before.
    """
    edges = _edges(np.concatenate([np.asarray(lengths) for lengths in totals.values()]), num_bins)
    counts = {
        name: np.bincount(np.searchsorted(edges, lengths, side="right") - 1, minlength=len(edges)).tolist()
        for name, lengths in totals.items()
    }
    return edges.tolist(), counts


def _has_long_tail(lengths: NDArray[np.int64]) -> bool:
    return bool(lengths.max() > LONG_TAIL * max(1, np.median(lengths)))


def _edges(lengths: NDArray[np.int64], num_bins: int) -> NDArray[np.int64]:
    shortest, longest = int(lengths.min()), int(lengths.max())
    if _has_long_tail(lengths):
        rounded = (np.array([1, 2, 5]) * 10 ** np.arange(18)[:, None]).ravel()
        start, stop = np.searchsorted(rounded, [max(1, shortest), longest], side="right")
        edges = rounded[start - 1 : stop]
        return edges if shortest > 0 else np.concatenate([[0], edges])
    width = max(1.0, (longest - shortest) / num_bins)
    magnitude = 10 ** int(np.log10(width))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= width)
    return np.arange(shortest // step * step, longest + 1, step)


def check_picture(path: Path) -> None:
    """Refuse, before long work, a picture that could not be written at its end.

    Raises:
        UserError: its folder is not there, or its ending is no format.
    """
    formats = Figure().canvas.get_supported_filetypes()
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for the picture; make it, or name another.")
    if path.suffix.removeprefix(".").lower() not in formats:
        raise UserError(f"the picture {path} has no ending that is known as a format; name it .png, .svg or .pdf.")


def draw_lengths(totals: Mapping[str, Sequence[int]], unit: str, title: str, path: Path) -> None:
    """Draw how long the examples are, the splits upon each other, on a logarithmic axis if there is a long tail.

    Args:
        totals: the length of each example, by split.
        unit: characters or tokens.
        title: what the picture is of.
        path: the picture to write; its ending says the format (png, pdf, svg).

    Raises:
        UserError: the picture cannot be written there.
    """
    lengths = np.concatenate([np.asarray(each) for each in totals.values()])
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    shortest, longest = int(lengths.min()), int(lengths.max())
    if is_logarithmic := _has_long_tail(lengths):
        edges = np.unique(np.geomspace(max(1, shortest), longest + 1, BINS_OF_PICTURE).astype(int))
        axes.set_xscale("log")
    else:
        step = max(1, -(-(longest + 1 - shortest) // BINS_OF_PICTURE))
        edges = np.arange(shortest, longest + step + 1, step)
    shown = [np.maximum(each, 1) if is_logarithmic else np.asarray(each) for each in totals.values()]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(shown))]
    names = [f"{name}: {len(each):,}" for name, each in totals.items()]
    axes.hist(shown, bins=edges.tolist(), stacked=True, color=colours, label=names, edgecolor="white", linewidth=0.4)
    points = {"median": np.median(lengths), "95 %": np.percentile(lengths, 95), "longest": longest}
    for (name, value), style in zip(points.items(), ("-", "--", ":"), strict=True):
        axes.axvline(value, color=GREY, linestyle=style, linewidth=1.2, label=f"{name}: {value:,.0f} {unit}")
    axes.set(xlabel=f"{unit} of an example" + (" (logarithmic)" if is_logarithmic else ""), ylabel="examples")
    axes.set_title(title, parse_math=False, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(framealpha=1, edgecolor="white", fontsize=9)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"the picture {path} cannot be written ({error.strerror or error}); name another.") from error

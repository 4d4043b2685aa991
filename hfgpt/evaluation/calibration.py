"""Whether a classifier is right as often as it says: reliability bins, their error, and the temperature that mends it.

After C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017
(arXiv:1706.04599). The confidence of a prediction is the largest probability.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from hfgpt.errors import UserError

__all__ = [
    "NUM_BINS",
    "Temperature",
    "calibration_error_of_bins",
    "checked_scores",
    "expected_calibration_error",
    "fit_temperature",
    "mean_loss",
    "reliability_bins",
    "scaled_probabilities",
]

NUM_BINS = 15  # as in the paper

# A temperature outside of these says that the logits mean nothing, not that they want another scale.
TEMPERATURE_BOUNDS = (1e-2, 1e2)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Temperature(NamedTuple):
    """What the logits are divided by, and what that does to the mean loss on the examples it was fitted to.

    Attributes:
        value: the temperature; 1 where none can be fitted.
        loss_before: mean loss in nats with a temperature of 1.
        loss_after: mean loss in nats with `value`.
        reason: why none can be fitted; None where one was.
    """

    value: float
    loss_before: float
    loss_after: float
    reason: str | None = None


def checked_scores(scores: ArrayLike, labels: ArrayLike, *, what: str = "logits") -> tuple[Floats, Integers]:
    """Scores as (examples, classes) in double precision and labels as (examples,), or one sentence on what is wrong.

    Minus infinity is a logit like others, that of a probability of 0, as long as another of its row is finite.

    Raises:
        UserError: shapes that do not fit, no example, one class, not-a-number, or a label that is none of the classes.
    """
    checked: Floats = np.asarray(scores, dtype=np.float64)
    ids = np.asarray(labels)
    if checked.ndim != 2 or ids.ndim != 1 or len(checked) != len(ids):
        raise UserError(
            f"{what} of the shape {checked.shape} and labels of the shape {ids.shape} do not fit; they must be "
            "(examples, classes) and (examples,)."
        )
    if not len(ids) or checked.shape[1] < 2:
        raise UserError(
            f"there are {len(ids)} examples of {checked.shape[1]} classes; a classifier is measured on at least one "
            "example and two classes."
        )
    if not np.isfinite(checked.max(axis=1)).all():  # the maximum with not-a-number is not-a-number
        row = int(np.flatnonzero(~np.isfinite(checked.max(axis=1)))[0])
        raise UserError(f"the {what} of example {row} are not numbers ({checked[row].tolist()}).")
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() >= checked.shape[1]:
        raise UserError(
            f"labels must be whole numbers from 0 to {checked.shape[1] - 1}, one for each of {checked.shape[1]} "
            f"classes; these are {ids.dtype} from {ids.min()} to {ids.max()}."
        )
    return checked, ids.astype(np.int64)


def scaled_probabilities(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """softmax(logits / temperature) over the classes, in double precision. (examples, classes)"""
    probabilities: Floats = softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1)
    return probabilities


def mean_loss(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """Mean of -ln p(label) in nats, with p = softmax(logits / temperature); infinite where a label has p = 0."""
    checked, ids = checked_scores(logits, labels)
    return float(-log_softmax(checked / temperature, axis=1)[np.arange(len(ids)), ids].mean())


def reliability_bins(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = NUM_BINS
) -> list[dict[str, float | None]]:
    """Group predictions by their confidence, into bins (lower, upper] of equal width between 0 and 1.

    Args:
        probabilities: (examples, classes).
        labels: (examples,) the true class ids.
        num_bins: how many bins.

    Returns:
        A record for each bin, in order: `lower`, `upper`, `count`, and the mean `confidence` and `accuracy` of the
        examples in it, None where there is none.
    """
    checked, ids = checked_scores(probabilities, labels, what="probabilities")
    if num_bins < 1:
        raise UserError(f"num_bins is {num_bins}; it must be at least 1.")
    confidences = checked.max(axis=1)
    right = checked.argmax(axis=1) == ids
    edges = np.linspace(0, 1, num_bins + 1)
    bins = np.searchsorted(edges[1:-1], confidences, side="left")
    counts = np.bincount(bins, minlength=num_bins)
    sums = np.bincount(bins, confidences, minlength=num_bins), np.bincount(bins, right, minlength=num_bins)
    return [
        {
            "lower": float(edges[i]),
            "upper": float(edges[i + 1]),
            "count": int(counts[i]),
            "confidence": float(sums[0][i] / counts[i]) if counts[i] else None,
            "accuracy": float(sums[1][i] / counts[i]) if counts[i] else None,
        }
        for i in range(num_bins)
    ]


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The mean, over the examples, of |accuracy - confidence| of the reliability bin they are in.

    It is biased upwards: with few examples in a bin, accuracy differs from confidence by chance alone.
    """
    return calibration_error_of_bins(reliability_bins(probabilities, labels, num_bins))


def calibration_error_of_bins(bins: Sequence[Mapping[str, Any]]) -> float:
    """The expected calibration error from what `reliability_bins` returned."""
    filled = [entry for entry in bins if entry["count"]]
    gaps = math.fsum(entry["count"] * abs(entry["accuracy"] - entry["confidence"]) for entry in filled)
    return gaps / sum(entry["count"] for entry in filled)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> Temperature:
    """The one temperature that minimises the mean loss on validation logits; predictions stay what they are.

    The loss is convex in 1 / T, so that there is one minimum. It lies at T = 0 if the label of every example has the
    largest logit, and at infinity if labels do not have larger logits than other classes on average; then, and where T
    would lie outside of 0.01 ... 100, nothing is scaled and `reason` says so.

    Args:
        logits: (examples, classes) of examples that the model was not trained on, nor will be tested on.
        labels: (examples,) their true class ids.

    Raises:
        UserError: shapes, logits or labels that make no sense, or a logit of minus infinity.
    """
    checked, ids = checked_scores(logits, labels)
    if not np.isfinite(checked).all():
        raise UserError("a temperature is fitted to finite logits; these hold minus infinity.")
    before = mean_loss(checked, ids)
    of_labels = checked[np.arange(len(ids)), ids]
    if (of_labels == checked.max(axis=1)).all():
        reason = f"all of the {len(ids)} validation examples are right: the lower the temperature, the better"
        return Temperature(1.0, before, before, reason)
    if of_labels.mean() <= checked.mean():
        reason = "the logits of the true classes are no larger than the others: the higher the temperature, the better"
        return Temperature(1.0, before, before, reason)
    low, high = np.log(TEMPERATURE_BOUNDS)
    found = minimize_scalar(
        lambda log_temperature: mean_loss(checked, ids, math.exp(log_temperature)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    if min(found.x - low, high - found.x) < 1e-3:
        reason = "the best temperature lies outside of {:g} ... {:g}".format(*TEMPERATURE_BOUNDS)
        return Temperature(1.0, before, before, reason)
    return Temperature(math.exp(found.x), before, float(found.fun))

"""How good a classifier is: every measure that its report shows, with intervals, and what two classifiers differ by.

Intervals are 95 % percentile bootstrap intervals (B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap",
1993, section 13.3): the test examples are drawn anew, with replacement and not stratified, so that the shares of the
classes vary, too. They say how much a result owes to the choice of the test examples; what another seed of the training
would give they do not say. There is none for the area under the curve, which is dear, nor for the calibration error,
which grows when examples are drawn anew.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from scipy.stats import binomtest

from hfgpt.errors import UserError

from .calibration import NUM_BINS, checked_scores, reliability_bins
from .intervals import CHUNK, CONFIDENCE, NUM_RESAMPLES, percentile_interval, resampled_means
from .metrics import CLASSIFICATION_METRICS, load_metric

__all__ = ["CONFIDENCE", "NUM_RESAMPLES", "evaluate_classifier", "paired_difference"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def evaluate_classifier(
    logits: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    extra_metrics: Sequence[str] = (),
    num_bins: int = NUM_BINS,
    bootstrap_seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """Measure a classifier by its logits on labelled examples.

    The prediction is the class of the largest logit, of equal ones the first. Macro averages are over the classes that
    occur among labels or predictions, and what cannot be divided counts 0, both as in scikit-learn.

    Args:
        logits: (examples, classes), or log probabilities; minus infinity is a probability of 0.
        labels: (examples,) true class ids.
        names: the names of the classes, by id.
        extra_metrics: more metrics, as `load_metric` takes them, which are given predictions and references. The
            shipped ones are always among the results and not computed twice.
        num_bins: reliability bins.
        bootstrap_seed: the same seed gives the same intervals.
        num_resamples: how often the examples are drawn anew.

    Returns:
        What `json` can write, but for an infinite `loss`, where a label has a probability of 0:

        * `num_examples`, `loss` (mean, in nats), `accuracy`, `macro_f1`, `macro_precision`, `macro_recall`,
          `matthews_correlation`, `roc_auc` (of class 1 if there are two classes, else each against the rest, macro;
          None with a `roc_auc_reason` if a class does not occur among the labels), `expected_calibration_error`;
        * `intervals`: [low, high] for the loss (None if it is infinite), accuracy, macro averages and Matthews;
        * `per_class`: a record for each class, with `name`, `precision`, `recall`, `f1`, `f1_interval` and `support`;
        * `confusion_matrix`: counts, rows are true classes; `reliability_bins`: see `calibration.reliability_bins`;
        * `extra_metrics`: what each of them returned, by its name.

    Raises:
        UserError: shapes, labels or logits that make no sense, or a metric that cannot be loaded or computed.
    """
    checked, ids = checked_scores(logits, labels)
    num_classes = checked.shape[1]
    if len(names) != num_classes:
        raise UserError(f"there are {len(names)} names for {num_classes} classes; give one for each.")
    if num_resamples < 1:
        raise UserError(f"num_resamples is {num_resamples}; an interval needs at least one.")
    log_probabilities = log_softmax(checked, axis=1)
    probabilities = np.exp(log_probabilities)
    predictions = checked.argmax(axis=1)
    losses = -log_probabilities[np.arange(len(ids)), ids]

    per_class = {
        name: _compute(name, predictions, ids, average=None, labels=range(num_classes), zero_division=0)
        for name in ("precision", "recall", "f1")
    }
    matrix = _compute("confusion_matrix", predictions, ids, labels=range(num_classes))
    intervals, f1_intervals = _intervals(matrix, losses, bootstrap_seed, num_resamples)
    absent = [str(name) for name, count in zip(names, matrix.sum(axis=1), strict=True) if not count]
    scores = {"references": ids, "prediction_scores": probabilities}
    return {
        "num_examples": len(ids),
        "loss": float(losses.mean()),
        "accuracy": _compute("accuracy", predictions, ids),
        **{
            f"macro_{name}": _compute(name, predictions, ids, average="macro", zero_division=0)
            for name in ("f1", "precision", "recall")
        },
        "matthews_correlation": _compute("matthews_correlation", predictions, ids),
        "roc_auc": None if absent else load_metric("roc_auc").compute(**scores)["roc_auc"],
        "roc_auc_reason": f"no example of {', '.join(absent)}" if absent else None,
        "expected_calibration_error": load_metric("expected_calibration_error").compute(**scores, num_bins=num_bins)[
            "expected_calibration_error"
        ],
        "intervals": intervals,
        "per_class": [
            {
                "name": str(name),
                **{measure: float(values[i]) for measure, values in per_class.items()},
                "f1_interval": f1_intervals[i],
                "support": int(matrix[i].sum()),
            }
            for i, name in enumerate(names)
        ],
        "confusion_matrix": matrix.tolist(),
        "reliability_bins": reliability_bins(probabilities, ids, num_bins),
        "extra_metrics": {
            name: _extra(name, predictions, ids) for name in extra_metrics if name not in CLASSIFICATION_METRICS
        },
    }


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, *, bootstrap_seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Any]:
    """The accuracy of a less that of b, on the same examples.

    The interval draws examples, with both classifiers' answers, anew. The p value is that of McNemar's exact test
    (Q. McNemar, Psychometrika 12, 1947): of the examples that only one of them has right, as uneven a division as this
    one, or a more uneven one, would come about with this probability if each were as likely a's as b's.

    Args:
        correct_a: (examples,) whether a was right.
        correct_b: (examples,) whether b was right.
        bootstrap_seed: the same seed gives the same interval.
        num_resamples: how often the examples are drawn anew.

    Returns:
        `num_examples`, `difference`, `interval` [low, high], `only_a_right`, `only_b_right` (counts) and `p_value`.

    Raises:
        UserError: the two are not as long as each other, or empty.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise UserError(
            f"answers of the shapes {a.shape} and {b.shape} cannot be paired; both must be of the same examples."
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    # To draw examples anew is to draw the numbers of the three kinds from a multinomial distribution.
    kinds = np.array([only_a, only_b, len(a) - only_a - only_b])
    drawn = np.random.default_rng(bootstrap_seed).multinomial(len(a), kinds / len(a), size=num_resamples)
    return {
        "num_examples": len(a),
        "difference": (only_a - only_b) / len(a),
        "interval": percentile_interval((drawn[:, 0] - drawn[:, 1]) / len(a)),
        "only_a_right": only_a,
        "only_b_right": only_b,
        "p_value": float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    }


def _compute(name: str, predictions: Integers, references: Integers, **settings: Any) -> Any:
    """The value of a shipped metric."""
    return load_metric(name).compute(predictions=predictions, references=references, **settings)[name]


def _extra(name: str, predictions: Integers, references: Integers) -> dict[str, Any]:
    """What a metric of the user's returned, in types that `json` knows."""
    metric = load_metric(name)
    try:
        result: dict[str, Any] = metric.compute(predictions=predictions, references=references)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"the metric {name!r} cannot be computed from predicted and true class ids ({reason}); leave it out."
        ) from error
    return {key: np.asarray(value).tolist() for key, value in result.items()}


def _intervals(
    matrix: Integers, losses: Floats, seed: int, num_resamples: int
) -> tuple[dict[str, list[float] | None], list[list[float]]]:
    """Intervals of everything that the confusion matrix tells, of the mean loss, and of each class's F1."""
    generator = np.random.default_rng(seed)
    # Drawing examples anew is drawing the matrix's cells from a multinomial distribution: the cost does not grow with
    # the number of examples. Empty cells stay empty.
    cells = np.flatnonzero(matrix)
    chunk = max(1, CHUNK // matrix.size)
    parts = []
    for start in range(0, num_resamples, chunk):
        count = min(chunk, num_resamples - start)
        drawn = np.zeros((count, matrix.size), dtype=np.int64)
        drawn[:, cells] = generator.multinomial(matrix.sum(), matrix.ravel()[cells] / matrix.sum(), size=count)
        parts.append(_measures(drawn.reshape(count, *matrix.shape)))
    measures = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    f1 = measures.pop("f1")
    intervals: dict[str, list[float] | None] = {"loss": None}
    if np.isfinite(losses).all():
        intervals["loss"] = percentile_interval(resampled_means(losses, generator, num_resamples))
    return intervals | {name: percentile_interval(values) for name, values in measures.items()}, [
        percentile_interval(row) for row in f1.T
    ]


def _measures(matrices: Integers) -> dict[str, Floats]:
    """What confusion matrices tell, as scikit-learn computes it from the examples.

    Args:
        matrices: (resamples, classes, classes).

    Returns:
        `accuracy`, `macro_f1`, `macro_precision`, `macro_recall` and `matthews_correlation`, (resamples,), and the
        `f1` of each class, (resamples, classes).
    """
    right = np.diagonal(matrices, axis1=1, axis2=2).astype(np.float64)
    true, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    total = matrices.sum(axis=(1, 2)).astype(np.float64)
    occurs = true + predicted > 0

    def share(part: Floats, whole: Integers) -> Floats:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    def macro(values: Floats) -> Floats:
        return values.sum(axis=1) / occurs.sum(axis=1)

    precision, recall, f1 = share(right, predicted), share(right, true), share(2 * right, true + predicted)
    # R_K of J. Gorodkin, Computational Biology and Chemistry 28 (2004), which is Matthews' coefficient for two classes.
    squared_true, squared_predicted = (true.astype(np.float64) ** 2).sum(1), (predicted.astype(np.float64) ** 2).sum(1)
    product = np.sqrt((total**2 - squared_true) * (total**2 - squared_predicted))
    covariance = right.sum(axis=1) * total - (true.astype(np.float64) * predicted).sum(axis=1)
    return {
        "accuracy": right.sum(axis=1) / total,
        "macro_f1": macro(f1),
        "macro_precision": macro(precision),
        "macro_recall": macro(recall),
        "matthews_correlation": np.divide(covariance, product, out=np.zeros_like(product), where=product > 0),
        "f1": f1,
    }

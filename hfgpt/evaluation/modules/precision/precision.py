"""The share of right predictions among all predictions of a class: TP / (TP + FP)."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
from sklearn.metrics import precision_score

_INPUTS = """
Args:
    predictions: the predicted class ids.
    references: the true class ids.
    labels: the ids to average over, or to report in this order where `average` is None; default: those that occur.
    pos_label: the class to report where `average` is `binary`.
    average: `binary` (the default, for two classes), `micro`, `macro`, `weighted`, or None for each class.
    sample_weight: a weight for each example.
    zero_division: what stands where there is nothing to divide by; the default is 0 and a warning.

Returns:
    precision: between 0 and 1, or one such number for each class.
"""


class Precision(evaluate.Metric):
    """scikit-learn's `precision_score`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.precision_score.html"],
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        labels: Sequence[int] | None = None,
        pos_label: int = 1,
        average: str | None = "binary",
        sample_weight: Sequence[float] | None = None,
        zero_division: str | float = "warn",
    ) -> dict[str, Any]:
        score = precision_score(
            references,
            predictions,
            labels=labels,
            pos_label=pos_label,
            average=average,
            sample_weight=sample_weight,
            zero_division=zero_division,
        )
        return {"precision": score if average is None else float(score)}

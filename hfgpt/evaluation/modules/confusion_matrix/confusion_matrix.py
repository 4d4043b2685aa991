"""The number of examples of each true class (rows) by predicted class (columns)."""

from collections.abc import Sequence
from typing import Any, Literal

import datasets
import evaluate
from sklearn.metrics import confusion_matrix

_INPUTS = """
Args:
    predictions: the predicted class ids.
    references: the true class ids.
    labels: the ids in the order of rows and columns; default: those that occur, sorted.
    sample_weight: a weight for each example.
    normalize: `true` divides by the sum of each row, `pred` by that of each column, `all` by that of all.

Returns:
    confusion_matrix: an array, (classes, classes).
"""


class ConfusionMatrix(evaluate.Metric):
    """scikit-learn's `confusion_matrix`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.confusion_matrix.html"],
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        labels: Sequence[int] | None = None,
        sample_weight: Sequence[float] | None = None,
        normalize: Literal["true", "pred", "all"] | None = None,
    ) -> dict[str, Any]:
        matrix = confusion_matrix(
            references, predictions, labels=labels, sample_weight=sample_weight, normalize=normalize
        )
        return {"confusion_matrix": matrix}

"""The correlation of predictions and references: 1 if all are right, 0 for guessing, whatever the shares of classes."""

from collections.abc import Sequence

import datasets
import evaluate
from sklearn.metrics import matthews_corrcoef

_INPUTS = """
Args:
    predictions: the predicted class ids.
    references: the true class ids.
    sample_weight: a weight for each example.

Returns:
    matthews_correlation: between -1 and 1; 0 where all predictions, or all references, are one class.
"""


class MatthewsCorrelation(evaluate.Metric):
    """scikit-learn's `matthews_corrcoef`, for two classes and more."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.matthews_corrcoef.html"],
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        sample_weight: Sequence[float] | None = None,
    ) -> dict[str, float]:
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions, sample_weight=sample_weight))}

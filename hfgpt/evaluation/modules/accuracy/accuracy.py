"""The share of predictions that are right."""

from collections.abc import Sequence

import datasets
import evaluate
from sklearn.metrics import accuracy_score

_INPUTS = """
Args:
    predictions: the predicted class ids.
    references: the true class ids.
    normalize: whether to return the share of right predictions (the default) or their number.
    sample_weight: a weight for each example.

Returns:
    accuracy: between 0 and 1, or the number of right predictions.
"""


class Accuracy(evaluate.Metric):
    """scikit-learn's `accuracy_score`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.accuracy_score.html"],
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        normalize: bool = True,
        sample_weight: Sequence[float] | None = None,
    ) -> dict[str, float]:
        score = accuracy_score(references, predictions, normalize=normalize, sample_weight=sample_weight)
        return {"accuracy": float(score)}

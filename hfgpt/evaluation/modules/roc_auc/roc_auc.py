"""The area under the ROC curve: how often an example of a class scores higher for it than an example of another."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import roc_auc_score

_INPUTS = """
Args:
    references: the true class ids; each class must occur.
    prediction_scores: for two classes the score of class 1, (examples,), or both probabilities, (examples, 2); for more
        the probabilities of all, (examples, classes), which add up to 1.
    average: `macro` (the default), `micro`, `weighted`, or None for each class.
    sample_weight: a weight for each example.
    max_fpr: the largest false positive rate of a partial area, for two classes.
    multi_class: each class against the rest, `ovr` (the default), or against each other, `ovo`.
    labels: the class ids in the order of the columns; default: those that occur, sorted.

Returns:
    roc_auc: between 0 and 1 (0.5 for guessing), or one such number for each class.
"""


class RocAuc(evaluate.Metric):
    """scikit-learn's `roc_auc_score`."""

    def _info(self) -> evaluate.MetricInfo:
        references = datasets.Value("int64")
        score = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"references": references, "prediction_scores": datasets.Sequence(score)}),
                datasets.Features({"references": references, "prediction_scores": score}),
            ],
            reference_urls=["https://scikit-learn.org/stable/modules/generated/sklearn.metrics.roc_auc_score.html"],
        )

    def _compute(
        self,
        references: Sequence[int],
        prediction_scores: Sequence[float] | Sequence[Sequence[float]],
        average: str | None = "macro",
        sample_weight: Sequence[float] | None = None,
        max_fpr: float | None = None,
        multi_class: str = "ovr",
        labels: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        scores = np.asarray(prediction_scores)
        if scores.ndim == 2 and scores.shape[1] == 2:
            scores = scores[:, 1]
        area = roc_auc_score(
            references,
            scores,
            average=average,
            sample_weight=sample_weight,
            max_fpr=max_fpr,
            multi_class=multi_class,
            labels=labels,
        )
        return {"roc_auc": area if average is None else float(area)}

"""How far confidence lies from accuracy, over bins of confidence of equal width (Guo et al. 2017, arXiv:1706.04599)."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from hfgpt.evaluation.calibration import expected_calibration_error

_INPUTS = """
Args:
    references: the true class ids.
    prediction_scores: the probabilities of all classes, (examples, classes).
    num_bins: the number of bins; default: 15.

Returns:
    expected_calibration_error: between 0 and 1, the mean over the examples of |accuracy - confidence| of their bin.
"""


class ExpectedCalibrationError(evaluate.Metric):
    """`hfgpt.evaluation.calibration.expected_calibration_error`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "references": datasets.Value("int64"),
                    "prediction_scores": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self, references: Sequence[int], prediction_scores: Sequence[Sequence[float]], num_bins: int = 15
    ) -> dict[str, float]:
        error = expected_calibration_error(np.asarray(prediction_scores), np.asarray(references), num_bins)
        return {"expected_calibration_error": error}

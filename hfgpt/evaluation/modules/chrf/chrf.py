"""chrF: how many of their pieces of 1 to 6 characters two texts have in common (M. Popović 2015)."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from sacrebleu.metrics.chrf import CHRF

_INPUTS = """
Args:
    predictions: texts.
    references: the text that each should be.
    char_order: characters of the longest pieces; default: 6.
    word_order: words of the longest pieces that count besides; default: 0; 2 is chrF++.
    beta: recall counts so many times as much as precision; default: 2.
    num_resamples: how often the texts are drawn anew; default: never.
    bootstrap_seed: the same seed draws the same texts.

Returns:
    chrf: between 0 and 1, of all texts together; sacrebleu shows 100 times as much.
    resampled: the same of the texts drawn anew, where asked for. (num_resamples,)
"""


class Chrf(evaluate.Metric):
    """sacrebleu's corpus chrF.

    Its own bootstrap is not used: sacrebleu 2.6 ends with a TypeError where one of the resamples scores 0.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string", id="sequence")
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://github.com/mjpost/sacrebleu"],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        num_resamples: int = 0,
        bootstrap_seed: int = 0,
    ) -> dict[str, float | list[float]]:
        metric = CHRF(char_order=char_order, word_order=word_order, beta=beta)
        result: dict[str, float | list[float]] = {"chrf": metric.corpus_score(predictions, [references]).score / 100}
        if num_resamples:
            # For each text how many pieces of each length it has, the reference has, and both have; they add up.
            counts = np.asarray(metric._extract_corpus_statistics(predictions, [references]))
            generator = np.random.default_rng(bootstrap_seed)
            result["resampled"] = [
                metric._compute_f_score(counts[generator.integers(len(counts), size=len(counts))].sum(axis=0).tolist())
                / 100
                for _ in range(num_resamples)
            ]
        return result

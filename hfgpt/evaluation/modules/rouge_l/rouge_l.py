"""ROUGE-L: how much of two texts is their longest common subsequence of words (C.-Y. Lin 2004, section 3)."""

from collections.abc import Sequence

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

_INPUTS = """
Args:
    predictions: texts.
    references: the text that each should be.
    use_stemmer: whether words are compared by their stems (Porter's, for English).
    use_aggregator: whether to return the mean (the default) or the score of each text.

Returns:
    rouge_l: between 0 and 1, the F-measure of precision and recall.
"""


class RougeL(evaluate.Metric):
    """rouge-score's `rougeL`, which compares words in lower case, and words are made of a to z and 0 to 9 alone.

    So it tells nothing of texts in other scripts; chrF does.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string", id="sequence")
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://github.com/google-research/google-research/tree/master/rouge"],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        use_stemmer: bool = False,
        use_aggregator: bool = True,
    ) -> dict[str, float | list[float]]:
        scorer = RougeScorer(["rougeL"], use_stemmer=use_stemmer)
        scores = [
            float(scorer.score(wanted, text)["rougeL"].fmeasure)
            for text, wanted in zip(predictions, references, strict=True)
        ]
        return {"rouge_l": sum(scores) / len(scores) if use_aggregator else scores}

"""The share of predictions that are the reference, character for character."""

import re
import string
from collections.abc import Sequence

import datasets
import evaluate

_INPUTS = """
Args:
    predictions: texts.
    references: the text that each should be.
    regexes_to_ignore: what they match is taken out of both, in their order, before all else.
    ignore_case: whether upper and lower case are the same.
    ignore_punctuation: whether ASCII punctuation is taken out of both.
    ignore_numbers: whether the digits 0 to 9 are taken out of both.

Returns:
    exact_match: between 0 and 1.
"""


class ExactMatch(evaluate.Metric):
    """With the options of the metric of this name on the Hub; nothing else is overlooked, not even white space."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string", id="sequence")
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://huggingface.co/spaces/evaluate-metric/exact_match"],
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        regexes_to_ignore: Sequence[str] | None = None,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
    ) -> dict[str, float]:
        ignored = (string.punctuation if ignore_punctuation else "") + (string.digits if ignore_numbers else "")
        table = str.maketrans("", "", ignored)

        def compared(text: str) -> str:
            for regex in regexes_to_ignore or ():
                text = re.sub(regex, "", text)
            return (text.lower() if ignore_case else text).translate(table)

        right = sum(compared(text) == compared(wanted) for text, wanted in zip(predictions, references, strict=True))
        return {"exact_match": right / len(references)}

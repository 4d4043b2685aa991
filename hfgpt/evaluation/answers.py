"""How good answers are, beside those that were wanted: exact match, ROUGE-L and chrF, with 95 % intervals."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from hfgpt.errors import UserError

from .intervals import NUM_RESAMPLES, percentile_interval, resampled_means, wilson_interval
from .metrics import load_metric

__all__ = ["score_answers"]

# What the metrics of texts that are nearly right compute with, from the extra `answers`.
PACKAGES = {"rouge_l": "rouge_score", "chrf": "sacrebleu"}


def score_answers(
    predictions: Sequence[str],
    references: Sequence[str],
    tasks: Sequence[str] | None = None,
    *,
    bootstrap_seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Any]:
    """Measure answers by those that were wanted; white space around either does not count.

    Args:
        predictions: The answers.
        references: The answer that was wanted for each.
        tasks: What kind of question each belongs to.
        bootstrap_seed: The same seed gives the same intervals.
        num_resamples: How often the examples are drawn anew.

    Returns:
        What `json` can write:

        * `num_examples`;
        * `exact_match`, `rouge_l` and `chrf`: each a `value` between 0 and 1 and its `interval` [low, high], which is
          Wilson's for the exact match and a bootstrap interval for the others;
        * `not_measured`: those of the last two whose package is not installed;
        * `by_task`: for each task, in alphabetical order, its `num_examples` and its `exact_match`.

    Raises:
        UserError: There are no answers, or not as many as references and tasks.
    """
    lengths = {len(predictions), len(references), len(predictions if tasks is None else tasks)}
    if len(lengths) > 1 or not predictions:
        counts = f"{len(predictions)} answers, {len(references)} references" + (
            f", {len(tasks)} tasks" if tasks else ""
        )
        raise UserError(f"There are {counts}: give one reference (and task) for each answer, and at least one.")
    if num_resamples < 1:
        raise UserError(f"num_resamples is {num_resamples}: an interval needs at least one.")
    texts = {
        "predictions": [text.strip() for text in predictions],
        "references": [text.strip() for text in references],
    }
    result: dict[str, Any] = {"num_examples": len(predictions), "exact_match": _exact_match(**texts)}
    not_measured = [name for name, package in PACKAGES.items() if find_spec(package) is None]
    if "rouge_l" not in not_measured:
        scores = np.asarray(load_metric("rouge_l").compute(**texts, use_aggregator=False)["rouge_l"])
        means = resampled_means(scores, np.random.default_rng(bootstrap_seed), num_resamples)
        result["rouge_l"] = {"value": float(scores.mean()), "interval": percentile_interval(means)}
    if "chrf" not in not_measured:
        resampling = {"num_resamples": num_resamples, "bootstrap_seed": bootstrap_seed}
        found = load_metric("chrf").compute(**texts, **resampling)
        result["chrf"] = {"value": found["chrf"], "interval": percentile_interval(np.asarray(found["resampled"]))}
    result["not_measured"] = not_measured
    result["by_task"] = {}
    for task in sorted(set(tasks or ())):
        places = [place for place, name in enumerate(tasks or ()) if name == task]
        of_task = {name: [column[place] for place in places] for name, column in texts.items()}
        result["by_task"][task] = {"num_examples": len(places), "exact_match": _exact_match(**of_task)}
    return result


def _exact_match(predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    share = float(load_metric("exact_match").compute(predictions=predictions, references=references)["exact_match"])
    return {"value": share, "interval": wilson_interval(round(share * len(references)), len(references))}

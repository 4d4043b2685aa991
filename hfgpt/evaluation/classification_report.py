"""What a training of a classifier came to: all models beside each other, as `report.json`, a table and pictures."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hfgpt.errors import UserError

from .calibration import (
    NUM_BINS,
    Temperature,
    calibration_error_of_bins,
    checked_scores,
    mean_loss,
    reliability_bins,
    scaled_probabilities,
)
from .classification import CONFIDENCE, NUM_RESAMPLES, evaluate_classifier, paired_difference
from .classification_pictures import draw_accuracy_curve, draw_confusion_matrix, draw_reliability_diagram

__all__ = ["build_report", "draw_pictures", "most_confident_errors", "report_table", "write_report"]

NUM_ERRORS = 20


def build_report(
    logits: Mapping[str, ArrayLike],
    labels: ArrayLike,
    names: Sequence[str],
    *,
    model: str,
    texts: Sequence[str],
    temperature: Temperature | None = None,
    num_examples: Mapping[str, int] | None = None,
    seeds: Mapping[str, int] | None = None,
    extra_metrics: Sequence[str] = (),
    bootstrap_seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    num_errors: int = NUM_ERRORS,
) -> dict[str, Any]:
    """Measure all models on the same test examples and compare one of them with the others.

    Args:
        logits: (examples, classes) of each model by its name, in the order of the table; a baseline's are the
            logarithms of its probabilities.
        labels: (examples,) true class ids.
        names: the names of the classes, by id.
        model: the name, in `logits`, of the model that the report is about.
        texts: (examples,) for the list of errors.
        temperature: what `fit_temperature` found on validation examples; default: no calibrated probabilities.
        num_examples: the sizes of the splits, to be noted.
        seeds: the seeds that the result depends on, to be noted.
        extra_metrics: see `evaluate_classifier`.
        bootstrap_seed: of all intervals.
        num_resamples: of all intervals.
        num_errors: how many errors to list.

    Returns:
        * `model`, `names`, `num_examples`, `seeds`: as given;
        * `intervals`: how they were made (`method`, `confidence`, `num_resamples`, `seed`);
        * `models`: what `evaluate_classifier` returned, by the model's name, without the temperature;
        * `comparisons`: for each other model what `paired_difference` returned for `model` less that one, with `other`;
        * `calibration`: `temperature`, `reason`, the mean `validation_loss_before` and `_after`, and on the test
          examples `loss`, `expected_calibration_error` and `reliability_bins` with that temperature; None without one;
        * `most_confident_errors` of `model`, with the temperature.

    Raises:
        UserError: see `evaluate_classifier`; or there is no such model, or not a text for each label.
    """
    if model not in logits:
        raise UserError(f"there are no logits of {model!r}, only of {', '.join(logits)}.")
    checked = {name: checked_scores(of_model, labels)[0] for name, of_model in logits.items()}
    ids = np.asarray(labels)
    right = {name: of_model.argmax(axis=1) == ids for name, of_model in checked.items()}
    bootstrap = {"bootstrap_seed": bootstrap_seed, "num_resamples": num_resamples}
    return {
        "model": model,
        "names": [str(name) for name in names],
        "num_examples": dict(num_examples or {}),
        "seeds": dict(seeds or {}),
        "intervals": {
            "method": "percentile bootstrap over test examples, not stratified",
            "confidence": CONFIDENCE,
            "num_resamples": num_resamples,
            "seed": bootstrap_seed,
        },
        "models": {
            name: evaluate_classifier(of_model, ids, names, extra_metrics=extra_metrics, **bootstrap)
            for name, of_model in checked.items()
        },
        "comparisons": [
            {"other": name, **paired_difference(right[model], right[name], **bootstrap)}
            for name in checked
            if name != model
        ],
        "calibration": None if temperature is None else _calibration(checked[model], ids, temperature),
        "most_confident_errors": most_confident_errors(
            texts,
            scaled_probabilities(checked[model], 1.0 if temperature is None else temperature.value),
            ids,
            names,
            limit=num_errors,
        ),
    }


def _calibration(logits: ArrayLike, labels: ArrayLike, temperature: Temperature) -> dict[str, Any]:
    bins = reliability_bins(scaled_probabilities(logits, temperature.value), labels, NUM_BINS)
    return {
        "temperature": temperature.value,
        "reason": temperature.reason,
        "validation_loss_before": temperature.loss_before,
        "validation_loss_after": temperature.loss_after,
        "loss": mean_loss(logits, labels, temperature.value),
        "expected_calibration_error": calibration_error_of_bins(bins),
        "reliability_bins": bins,
    }


def most_confident_errors(
    texts: Sequence[str], probabilities: ArrayLike, labels: ArrayLike, names: Sequence[str], limit: int = NUM_ERRORS
) -> list[dict[str, Any]]:
    """The wrong predictions of which the model was surest: often a label that is wrong, or a text nobody could tell.

    Args:
        texts: (examples,)
        probabilities: (examples, classes).
        labels: (examples,) true class ids.
        names: the names of the classes, by id.
        limit: how many to return at most.

    Returns:
        Records of `index` (of the example), `text`, `label`, `prediction`, `confidence` (the probability of the
        prediction) and `label_probability`, the surest first, of equally sure ones the first example.
    """
    checked, ids = checked_scores(probabilities, labels, what="probabilities")
    if len(texts) != len(ids):
        raise UserError(f"there are {len(texts)} texts for {len(ids)} labels; give one for each.")
    predictions, confidences = checked.argmax(axis=1), checked.max(axis=1)
    wrong = np.flatnonzero(predictions != ids)
    surest = wrong[np.argsort(-confidences[wrong], kind="stable")][:limit]
    return [
        {
            "index": int(i),
            "text": texts[int(i)],
            "label": str(names[ids[i]]),
            "prediction": str(names[predictions[i]]),
            "confidence": float(confidences[i]),
            "label_probability": float(checked[i, ids[i]]),
        }
        for i in surest
    ]


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write `report.json`; an infinite loss, which JSON does not know, becomes null."""
    text = json.dumps(_finite(report), indent=2, ensure_ascii=False, allow_nan=False)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)  # whole, or as it was


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table of all models, in the report's order."""
    columns = ["model", "accuracy [95 %]", "macro F1", "Matthews", "ROC AUC", "ECE"]
    rows = []
    for name, measured in report["models"].items():
        low, high = measured["intervals"]["accuracy"]
        area = measured["roc_auc"]
        rows.append(
            [
                name,
                f"{measured['accuracy']:.1%} [{100 * low:.1f}, {100 * high:.1f}]",
                f"{measured['macro_f1']:.3f}",
                f"{measured['matthews_correlation']:.3f}",
                "-" if area is None else f"{area:.3f}",
                f"{measured['expected_calibration_error']:.3f}",
            ]
        )
    return columns, rows


def draw_pictures(
    report: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    reference_accuracies: Mapping[str, float],
    folder: Path,
) -> list[Path]:
    """Draw `confusion_matrix.png`, `reliability_diagram.png` and `accuracy_curve.png` into a folder that exists.

    Args:
        report: what `build_report` returned.
        lines: the parsed lines of `metrics.jsonl`.
        reference_accuracies: the baselines' accuracies on the validation examples, as the curve shows those.
        folder: where to write.

    Returns:
        The paths of the pictures.
    """
    measured = report["models"][report["model"]]
    calibration = report["calibration"]
    if calibration is not None and calibration["reason"] is not None:
        calibration = None  # nothing was scaled: a second panel would be the first again
    paths = [folder / f"{name}.png" for name in ("confusion_matrix", "reliability_diagram", "accuracy_curve")]
    draw_confusion_matrix(measured["confusion_matrix"], report["names"], paths[0])
    draw_reliability_diagram(
        measured["reliability_bins"],
        paths[1],
        calibrated_bins=None if calibration is None else calibration["reliability_bins"],
        temperature=None if calibration is None else calibration["temperature"],
    )
    draw_accuracy_curve(lines, paths[2], reference_accuracies)
    return paths

"""What a finetuning for classification tells the card of its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hfgpt.hub.facts import collect_facts
from hfgpt.hub.run_record import RunRecord
from hfgpt.training.events import TrainingRun

from .card_parts import (
    LOSS_CURVE,
    data_sources,
    describe_tokenizer,
    describe_trained,
    is_generated,
    leave_card,
    part_of_data,
)
from .classification_config import ClassificationConfig
from .labelled_corpus import LabelledCorpus
from .lora import count_trained

__all__ = ["write_classifier_card"]


def write_classifier_card(
    run: TrainingRun,
    corpus: LabelledCorpus,
    config: ClassificationConfig,
    record: RunRecord,
    final: Path,
    model: PreTrainedModel,
    report: Mapping[str, Any],
    *,
    seconds: float,
) -> None:
    """Write facts and card of a finished classifier; on the first process.

    Args:
        final: The folder of the finished model; the run's folder is the one above it.
        report: What `report.json` holds.
        seconds: Of the whole command.
    """
    metrics = [
        {"key": "accuracy", "name": "accuracy", "type": "accuracy", "style": "percent"},
        {"key": "macro_f1", "name": "macro F1", "type": "f1", "style": "number"},
        {"key": "matthews_correlation", "name": "Matthews", "type": "matthews_correlation", "style": "number"},
        {"key": "roc_auc", "name": "ROC AUC", "type": "roc_auc", "style": "number"},
    ]
    rows = [
        {
            "name": "this model" if name == report["model"] else name,
            "this_model": name == report["model"],
            "values": {
                metric["key"]: {"value": found[metric["key"]], "interval": found["intervals"].get(metric["key"])}
                for metric in metrics
            },
        }
        for name, found in report["models"].items()
    ]
    remarks = [
        f"Accuracy less that of {other['other']}: {100 * other['difference']:+.1f} points "
        f"[{100 * other['interval'][0]:+.1f}, {100 * other['interval'][1]:+.1f}]."
        for other in report["comparisons"]
    ]
    if (calibration := report["calibration"]) is not None:
        remarks.append(
            f"The head is divided by the temperature {calibration['temperature']:.2f}, fitted on the validation texts; "
            f"the expected calibration error on the test texts is {calibration['expected_calibration_error']:.3f}."
        )
    if is_generated(config) and report["most_confident_errors"]:
        error = report["most_confident_errors"][0]
        remarks.append(
            f"Of its errors this is the one it was surest of: {error['text']!r} is {error['label']}, and it says "
            f"{error['prediction']} with {error['confidence']:.0%}."
        )
    parts = [part_of_data(name, "texts", getattr(corpus, name)) for name in ("train", "validation", "test")]
    resampling = report["intervals"]
    facts = collect_facts(
        "classify_train",
        config,
        run,
        record,
        final,
        model.config,
        seconds=seconds,
        trained=describe_trained(config),
        trained_parameters=count_trained(run.model),
        tokenizer=describe_tokenizer(config, corpus),
        data=data_sources(config, record, parts, corpus.description),
        evaluation=[
            {
                "title": "Classes of texts that were not trained on",
                "split": "test",
                "num_examples": len(corpus.test),
                "unit": "texts",
                "method": f"{resampling['method']}, {resampling['num_resamples']:,} resamples, 95 %",
                "metrics": metrics,
                "rows": rows,
                "remarks": remarks,
            }
        ],
        examples=[{"prompt": str(corpus.test.rows["text"][0])}] if is_generated(config) else (),
        labels=corpus.names,
        pictures=[
            LOSS_CURVE,
            {"file": "confusion_matrix.png", "caption": "Confusion matrix on the test texts"},
            {"file": "reliability_diagram.png", "caption": "How often it is right where it says how sure it is"},
        ],
    )
    leave_card(final, facts)

"""What each recipe tells the card of its model, in the words of `hfgpt.hub.facts`."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hfgpt.data.blocks import TokenBlocks
from hfgpt.hub.cards import write_card
from hfgpt.hub.facts import collect_facts, data_source
from hfgpt.hub.facts_file import write_facts
from hfgpt.hub.lineage import trace_parent
from hfgpt.hub.run_record import RunRecord
from hfgpt.training.events import TrainingRun

from .classification_config import ClassificationConfig
from .corpus import Corpus
from .instruction_config import InstructionConfig
from .instruction_corpus import InstructionCorpus
from .labelled_corpus import LabelledCorpus
from .loss_interval import METHOD
from .pretrain_config import PretrainConfig

__all__ = ["card_of_assistant", "card_of_classifier", "card_of_pretraining", "run_record"]

BUILTIN = {
    "builtin:stories": "short English stories, written by a seeded grammar of plots, names and things",
    "builtin:stories-and-exercises": "short English stories by a seeded grammar, with exercises and their answers",
    "builtin:messages": "short English messages by a seeded grammar, whose class, spam or ham, follows from who is to "
    "give what to whom",
    "builtin:unlabelled-messages": "short English messages by a seeded grammar",
    "builtin:instructions": "questions of twelve kinds with one right answer, generated and seeded; no words stand "
    "together in two of training, validation and test",
    "builtin:instructions-large": "questions of twelve kinds with one right answer, generated and seeded; no words "
    "stand together in two of training, validation and test",
}

LOSS_CURVE = {"file": "loss_curve.png", "caption": "Training and validation loss over the optimizer steps"}
TRAINED = {
    "all": "everything",
    "head": "the new head",
    "last_block": "the new head, the final norm and the last block",
    "last_n_blocks": "the new head, the final norm and the last {num_trainable_blocks} blocks",
    "lora": "low-rank additions (LoRA, rank {lora_rank}, alpha {lora_alpha:g}), merged into the weights afterwards",
}


def run_record(config: Any, model: PreTrainedModel) -> RunRecord:
    """The listener that notes what the card says of a training, and of the checkpoint that `model` was loaded from."""
    source, commit = config.init_from, getattr(model.config, "_commit_hash", None)
    only_shape = getattr(config, "random_weights", False)
    return RunRecord(lambda: None if source is None else trace_parent(source, commit=commit, only_shape=only_shape))


def card_of_pretraining(
    run: TrainingRun,
    corpus: Corpus,
    config: PretrainConfig,
    record: RunRecord,
    final: Path,
    *,
    seconds: float,
    interval: Sequence[float] | None,
) -> None:
    """Write facts and card of a finished pretraining; on the first process.

    Args:
        final: The folder of the finished model; the run's folder is the one above it.
        seconds: Of the whole command.
        interval: Of the validation loss.
    """
    ratio = corpus.tokens_per_byte / math.log(2)

    def values(loss: float, bounds: Sequence[float] | None = None) -> dict[str, Any]:
        functions = {"loss": float, "perplexity": _exponential, "bits_per_byte": lambda nats: nats * ratio}
        return {
            key: {"value": f(loss), "interval": None if bounds is None else [f(bound) for bound in bounds]}
            for key, f in functions.items()
        }

    before = "untrained" if config.init_from is None else "before this training"
    rows = [
        {"name": before, "values": values(run.evaluations[0].metrics["loss"])},
        *({"name": name, "values": values(loss)} for name, loss in corpus.baseline_losses.items()),
        {"name": "this model", "this_model": True, "values": values(run.evaluations[-1].metrics["loss"], interval)},
    ]
    train, validation = corpus.train, corpus.validation
    parts: list[dict[str, Any]] = [
        {
            "name": "train",
            "unit": f"blocks of {config.block_size} tokens",
            "fingerprint": corpus.fingerprint["data set"],
        }
    ]
    if isinstance(train, TokenBlocks):
        parts[0] |= {"examples": len(train), "tokens": train.num_tokens}
    parts.append(
        {
            "name": "validation",
            "unit": f"blocks of {config.block_size} tokens",
            "examples": len(validation),
            "tokens": validation.num_tokens,
            "fingerprint": validation.fingerprint(),
        }
    )
    judged = len(validation)
    if config.max_eval_batches is not None:
        judged = min(judged, config.max_eval_batches * config.global_batch_size)
    facts = collect_facts(
        "pretrain",
        config,
        run,
        record,
        final,
        run.model.config,
        seconds=seconds,
        trained=TRAINED["all"],
        trained_parameters=_count(run.model),
        tokenizer={
            "ids": len(corpus.tokenizer),
            "origin": "trained on the training text"
            if config.tokenizer_name == "train"
            else f"that of {config.tokenizer_name}",
            "fingerprint": corpus.fingerprint["tokenizer"],
        },
        data=[_source(config, parts, corpus.description)],
        evaluation=[
            {
                "title": "Next tokens of text that was not trained on",
                "split": "validation",
                "num_examples": judged,
                "unit": f"blocks of {config.block_size} tokens",
                "method": None if interval is None else METHOD,
                "metrics": [
                    {"key": "loss", "name": "loss (nats/token)", "type": "loss", "style": "number"},
                    {"key": "perplexity", "name": "perplexity", "type": "perplexity", "style": "number"},
                    {"key": "bits_per_byte", "name": "bits/byte", "type": "bits_per_byte", "style": "number"},
                ],
                "rows": rows,
                "remarks": [],
            }
        ],
        examples=_samples(final.parent, run.step) if _is_ours(config) else (),
        pictures=[LOSS_CURVE],
    )
    _write(final, facts)


def card_of_classifier(
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
    if _is_ours(config) and report["most_confident_errors"]:
        error = report["most_confident_errors"][0]
        remarks.append(
            f"Of its errors this is the one it was surest of: {error['text']!r} is {error['label']}, and it says "
            f"{error['prediction']} with {error['confidence']:.0%}."
        )
    parts = [
        {
            "name": name,
            "unit": "texts",
            "examples": len(part),
            "tokens": int(part.lengths.sum()),
            "fingerprint": part.fingerprint(),
        }
        for name, part in (("train", corpus.train), ("validation", corpus.validation), ("test", corpus.test))
    ]
    resampling = report["intervals"]
    facts = collect_facts(
        "classify_train",
        config,
        run,
        record,
        final,
        model.config,
        seconds=seconds,
        trained=TRAINED[config.trainable].format(**vars(config)),
        trained_parameters=_count(run.model),
        tokenizer={
            "ids": len(corpus.tokenizer),
            "origin": f"that of {config.tokenizer or config.init_from}",
            "fingerprint": corpus.fingerprint["tokenizer"],
        },
        data=[_source(config, parts, corpus.description), *_other_sources(config)],
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
        examples=[{"prompt": str(corpus.test.rows["text"][0])}] if _is_ours(config) else (),
        labels=corpus.names,
        pictures=[
            LOSS_CURVE,
            {"file": "confusion_matrix.png", "caption": "Confusion matrix on the test texts"},
            {"file": "reliability_diagram.png", "caption": "How often it is right where it says how sure it is"},
        ],
    )
    _write(final, facts)


def card_of_assistant(
    run: TrainingRun,
    corpus: InstructionCorpus,
    config: InstructionConfig,
    record: RunRecord,
    final: Path,
    model: PreTrainedModel,
    report: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    *,
    seconds: float,
) -> None:
    """Write facts and card of a model that was finetuned for instructions; on the first process.

    Args:
        final: The folder of the finished model; the run's folder is the one above it.
        report: What `report.json` holds.
        lines: What `test_answers.jsonl` holds.
        seconds: Of the whole command.
    """
    test = report.get("test")
    learned = "answers" if config.loss_on == "answer" else "all tokens"
    tables: list[dict[str, Any]] = [] if test is None else [_table_of_answers(test)]
    tables.append(
        {
            "title": f"Loss on the {learned} of conversations that were not trained on",
            "split": "validation",
            "num_examples": len(corpus.validation),
            "unit": "conversations",
            "method": None,
            "metrics": [{"key": "loss", "name": "loss (nats/token)", "type": "loss", "style": "number"}],
            "rows": [
                {"name": "before this training", "values": _plain(report["validation_before"])},
                {"name": "this model", "this_model": True, "values": _plain(report["validation_after"])},
            ],
            "remarks": [],
        }
    )
    unit = "conversations"
    parts = [
        {
            "name": name,
            "unit": unit,
            "examples": len(part),
            "tokens": int(part.lengths.sum()),
            "fingerprint": part.fingerprint(),
        }
        for name, part in (("train", corpus.train), ("validation", corpus.validation))
    ]
    parts.append({"name": "test", "unit": unit, "examples": len(corpus.test)})
    pictures = [LOSS_CURVE]
    if test is not None and test["by_task"]:
        pictures.append({"file": "exact_match.png", "caption": "Exactly right answers by the kind of question"})
    facts = collect_facts(
        "instruct",
        config,
        run,
        record,
        final,
        model.config,
        seconds=seconds,
        trained=TRAINED[config.trainable].format(**vars(config)),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        tokenizer={
            "ids": len(corpus.tokenizer),
            "origin": f"that of {config.tokenizer or config.init_from}",
            "fingerprint": corpus.fingerprint["tokenizer"],
            "chat_template": config.template,
        },
        data=[_source(config, parts, corpus.description), *_other_sources(config)],
        evaluation=tables,
        examples=_answers(lines) if _is_ours(config) else (),
        pictures=pictures,
    )
    _write(final, facts)


def _table_of_answers(test: Mapping[str, Any]) -> dict[str, Any]:
    names = {"exact_match": "exactly right", "rouge_l": "ROUGE-L", "chrf": "chrF"}
    types = {"exact_match": "exact_match", "rouge_l": "rouge", "chrf": "chrf"}
    measured = [key for key in names if key in test]
    remarks = []
    if test["by_task"]:
        tasks = ", ".join(
            f"{task or 'without a kind'} {100 * found['exact_match']['value']:.0f} % of {found['num_examples']}"
            for task, found in test["by_task"].items()
        )
        remarks.append(f"Exactly right by kind of question: {tasks}.")
    if test["unfinished"]:
        remarks.append(f"{test['unfinished']:,} answers were cut off before their end.")
    if test["not_measured"]:
        remarks.append(f"Not measured: {', '.join(names[key] for key in test['not_measured'])}.")
    return {
        "title": "Answers to questions that were not trained on",
        "split": "test",
        "num_examples": test["num_examples"],
        "unit": "questions",
        "method": "Wilson's for the share of exactly right answers, a percentile bootstrap over questions for the "
        "rest; 95 %",
        "metrics": [{"key": key, "name": names[key], "type": types[key], "style": "percent"} for key in measured],
        "rows": [{"name": "this model", "this_model": True, "values": {key: dict(test[key]) for key in measured}}],
        "remarks": remarks,
    }


def _plain(metrics: Mapping[str, float]) -> dict[str, Any]:
    return {name: {"value": value, "interval": None} for name, value in metrics.items()}


def _source(config: Any, parts: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> dict[str, Any]:
    return data_source(
        config.source,
        use="training",
        split=config.source_split,
        config_name=config.source_config,
        revision=config.source_revision,
        description=BUILTIN.get(config.source),
        parts=parts,
        lines=lines,
    )


def _other_sources(config: ClassificationConfig | InstructionConfig) -> list[dict[str, Any]]:
    """What was validated and tested on, where that was read from elsewhere."""
    given = {"validation": config.validation_source, "test": config.test_source}
    return [data_source(source, use=use) for use, source in given.items() if source is not None]


def _is_ours(config: ClassificationConfig | InstructionConfig | PretrainConfig) -> bool:
    """Whether all text is generated by this package, so that pieces of it may be shown to anyone."""
    sources = (config.source, getattr(config, "validation_source", None), getattr(config, "test_source", None))
    return all(source is None or source.startswith("builtin:") for source in sources)


def _samples(folder: Path, step: int) -> list[dict[str, str]]:
    """What the finished model wrote at its last evaluation."""
    path = folder / "samples.jsonl"
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{"prompt": line["prompt"], "text": line["text"]} for line in lines if line["step"] == step]


def _answers(lines: Sequence[Mapping[str, Any]], number: int = 3) -> list[dict[str, str]]:
    """The first answers of as many kinds of questions, right or wrong."""
    chosen: dict[Any, Mapping[str, Any]] = {}
    for index, line in enumerate(lines):
        chosen.setdefault(line.get("task", index), line)
    return [
        {"prompt": line["prompt"], "text": line["answer"].strip(), "expected": line["reference"]}
        for line in list(chosen.values())[:number]
    ]


def _count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _exponential(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _write(final: Path, facts: Mapping[str, Any]) -> None:
    """The facts into the run's folder and into `final/`; pictures and card into `final/` alone, where they travel."""
    folder = final.parent
    for picture in facts["pictures"]:
        if (folder / picture["file"]).is_file():
            shutil.copyfile(folder / picture["file"], final / picture["file"])
    write_facts(folder, facts)
    write_facts(final, facts)
    write_card(final, facts)

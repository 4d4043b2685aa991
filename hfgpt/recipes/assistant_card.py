"""What a finetuning for instructions tells the card of its model."""

from collections.abc import Mapping, Sequence
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
from .instruction_config import InstructionConfig
from .instruction_corpus import InstructionCorpus
from .lora import count_trained

__all__ = ["write_assistant_card"]


def write_assistant_card(
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
    read = {"train": corpus.train, "validation": corpus.validation, "test": corpus.encoded_test}
    parts = [part_of_data(name, "conversations", part) for name, part in read.items()]
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
        trained=describe_trained(config),
        trained_parameters=count_trained(model),
        tokenizer=describe_tokenizer(config, corpus) | {"chat_template": config.template},
        data=data_sources(config, record, parts, corpus.description),
        evaluation=tables,
        examples=_answers(lines) if is_generated(config) else (),
        pictures=pictures,
    )
    leave_card(final, facts)


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
        remarks.append(f"Cut off before their end: {test['unfinished']:,} of {test['num_examples']:,} answers.")
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


def _answers(lines: Sequence[Mapping[str, Any]], number: int = 3) -> list[dict[str, str]]:
    """The first answers of as many kinds of questions, right or wrong."""
    chosen: dict[Any, Mapping[str, Any]] = {}
    for index, line in enumerate(lines):
        chosen.setdefault(line.get("task", index), line)
    return [
        {"prompt": line["prompt"], "text": line["answer"].strip(), "expected": line["reference"]}
        for line in list(chosen.values())[:number]
    ]

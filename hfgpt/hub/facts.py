"""What happened in a training, as a card can say it: one dictionary of JSON's types, with nothing private in it.

What cannot be known is None or not there, and the card says "not recorded": nothing is inferred that was not seen.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedConfig

from hfgpt.training.config import TrainingConfig
from hfgpt.training.events import TrainingRun

from .facts_file import CARD_FACTS, FORMAT_VERSION
from .lineage import weights_fingerprint
from .machine import git_commit, hardware, launch_command, versions
from .public_text import public_text, public_value
from .run_record import RunRecord

__all__ = ["CARD_FACTS", "collect_facts", "data_source", "hyperparameters"]

# Of the configuration, what is about this start of the command and not about what was learned.
NOT_LEARNED_BY = ("output_dir", "overwrite_output_dir", "resume", "push_to_hub")

# What of a model's configuration a card names, by transformers' standard names.
SHAPE = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "hidden_act",
    "position_embedding_type",
    "sliding_window",
    "tie_word_embeddings",
)

BUILTIN_LICENCE = "apache-2.0"


def collect_facts(
    recipe: str,
    config: TrainingConfig,
    run: TrainingRun,
    record: RunRecord,
    final: Path,
    model_config: PreTrainedConfig,
    *,
    seconds: float,
    trained: str,
    trained_parameters: int,
    tokenizer: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    evaluation: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, str]] = (),
    labels: Sequence[str] = (),
    pictures: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Everything that the card of a finished run says.

    Args:
        recipe: The folder of its configurations: `pretrain`, `classify_train` or `instruct`.
        final: The folder of the finished model, whose files are looked at.
        model_config: Of the finished model.
        seconds: Of the whole command, with the preparation of the data.
        trained: What part of the model was trained, in words.
        trained_parameters: How many those were.
        tokenizer: `ids`, `origin` in words, `fingerprint`, and where there is one the `chat_template`'s name.
        data: What was read, see `data_source`.
        evaluation: Tables, each with `title`, `split`, `num_examples`, `unit`, `method` (of the intervals, in words),
            `metrics` (each a `key`, `name`, `type` as the Hub knows it, and `style`: `percent` or `number`), `rows`
            (each a `name`, whether it is `this_model`, and `values` by the metrics' keys, of `value` and `interval`,
            which is None where there is none) and `remarks`, sentences about it.
        examples: Texts to try the model with: `prompt`, and what it answered in `text`. From built-in data only: nobody
            else's texts are published unasked.
        labels: Names of the classes.
        pictures: `file` and `caption` of those that lie beside the card.
    """
    parameters, dtype = _count_parameters(final)
    changed, defaults = hyperparameters(config)
    facts = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe,
        "name": Path(config.output_dir).resolve().name,
        "finished": datetime.now(UTC).date().isoformat(),
        "model": {
            "class": json.loads((final / "config.json").read_text(encoding="utf-8"))["architectures"][0],
            "parameters": parameters,
            "dtype": dtype,
            "trained": trained,
            "trained_parameters": trained_parameters,
            "shape": {name: getattr(model_config, name, None) for name in SHAPE},
            "labels": list(labels),
        },
        "weights": {"sha256": weights_fingerprint(final)},
        "tokenizer": dict(tokenizer),
        "lineage": {"parent": record.parent, "num_resumptions": record.num_resumptions},
        "data": [dict(source) for source in data],
        "licence": _licence(record.parent, data),
        "training": {
            "steps": run.step,
            "planned_steps": run.num_steps,
            "targets": run.num_targets,
            "unit": run.meter.unit,
            "skipped_steps": run.health.num_skipped,
            "stopped": None if run.stop_reason is None else run.stop_reason.text,
            "training_seconds": round(record.seconds, 1),
            "command_seconds": round(seconds, 1),
            "validation": [
                {"step": evaluation.step, "loss": evaluation.metrics["loss"]} for evaluation in run.evaluations
            ],
        },
        "hyperparameters": {"changed": changed, "defaults": defaults},
        "hardware": hardware(run.accelerator),
        "energy": {"kilowatt_hours": record.kilowatt_hours},
        "evaluation": [dict(table) for table in evaluation],
        "examples": [dict(example) for example in examples],
        "pictures": [dict(picture) for picture in pictures],
        "launch": launch_command(run.accelerator.num_processes),
        "git": git_commit(),
        "versions": versions(),
    }
    return public_value(facts)


def hyperparameters(config: TrainingConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a configuration that differ from their defaults, or have none; and the others."""
    changed: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.name in NOT_LEARNED_BY or field.name.startswith("hub_"):
            continue
        value = getattr(config, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        (defaults if value == default else changed)[field.name] = public_value({field.name: value})[field.name]
    return changed, defaults


def data_source(
    source: str,
    *,
    use: str,
    repository: Mapping[str, Any] | None = None,
    split: str | None = None,
    config_name: str | None = None,
    description: str | None = None,
    parts: Sequence[Mapping[str, Any]] = (),
    lines: Sequence[str] = (),
) -> dict[str, Any]:
    """What is known of one source of data.

    Args:
        source: As the configuration gives it.
        use: What it was read for.
        repository: What the Hub says of it; see `Repository`. None if it is not there.
        split: Of a Hub data set, or of built-in data that has several.
        config_name: Of a Hub data set.
        description: Of built-in data.
        parts: Each a `name`, `examples`, their `unit`, and where they are known `tokens` and a `fingerprint`.
        lines: What was read, left out and split, as it was printed.
    """
    kind = "builtin" if source.startswith("builtin:") else "local" if repository is None else "hub"
    return {
        "source": public_text(source),
        "kind": kind,
        "use": use,
        "split": split,
        "config": config_name,
        "description": description,
        "repository": None if repository is None else dict(repository),
        "licence": BUILTIN_LICENCE if kind == "builtin" else None if repository is None else repository["licence"],
        "languages": ["en"] if kind == "builtin" else [] if repository is None else repository["languages"],
        "parts": [dict(part) for part in parts],
        "lines": [public_text(line) for line in lines],
    }


def _licence(parent: Mapping[str, Any] | None, data: Sequence[Mapping[str, Any]]) -> str | None:
    """That of our own, where nothing of anybody else's went into the weights; else whoever publishes must say."""
    if any(source["kind"] != "builtin" for source in data):
        return None
    if parent is None or parent["only_shape"]:
        return BUILTIN_LICENCE
    licence = (parent.get("repository") or parent.get("facts") or {}).get("licence")  # the Hub's page goes first
    return BUILTIN_LICENCE if licence == BUILTIN_LICENCE else None


def _count_parameters(folder: Path) -> tuple[int, str | None]:
    """How many numbers the saved weights hold, shared ones once, and in which format."""
    count = 0
    dtypes: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  # not a dictionary
                piece = weights.get_slice(name)
                size = 1
                for length in piece.get_shape():
                    size *= length
                count += size
                dtypes.add(piece.get_dtype())
    return count, "/".join(sorted(dtypes)) or None

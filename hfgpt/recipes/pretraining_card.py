"""What a pretraining tells the card of its model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hfgpt.data.blocks import TokenBlocks
from hfgpt.hub.facts import collect_facts
from hfgpt.hub.run_record import RunRecord
from hfgpt.training.events import TrainingRun

from .card_parts import LOSS_CURVE, data_sources, describe_tokenizer, describe_trained, is_generated, leave_card
from .corpus import Corpus
from .lora import count_trained
from .pretrain_config import PretrainConfig
from .validation_loss import METHOD, bits_per_byte, perplexity

__all__ = ["write_pretraining_card"]


def write_pretraining_card(
    run: TrainingRun,
    corpus: Corpus,
    config: PretrainConfig,
    record: RunRecord,
    final: Path,
    model: PreTrainedModel,
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

    def values(loss: float, bounds: Sequence[float] | None = None) -> dict[str, Any]:
        functions: dict[str, Callable[[float], float]] = {
            "loss": float,
            "perplexity": perplexity,
            "bits_per_byte": lambda nats: bits_per_byte(nats, corpus.tokens_per_byte),
        }
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
    unit = f"blocks of {config.block_size} tokens"
    judged = len(corpus.validation)
    if config.max_eval_batches is not None:
        judged = min(judged, config.max_eval_batches * config.global_batch_size)
    facts = collect_facts(
        "pretrain",
        config,
        run,
        record,
        final,
        model.config,
        seconds=seconds,
        trained=describe_trained(config),
        trained_parameters=count_trained(run.model),
        tokenizer=describe_tokenizer(config, corpus),
        data=data_sources(config, record, _parts(corpus, unit), corpus.description),
        evaluation=[
            {
                "title": "Next tokens of text that was not trained on",
                "split": "validation",
                "num_examples": judged,
                "unit": unit,
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
        examples=_samples(final.parent, run.step) if is_generated(config) else (),
        pictures=[LOSS_CURVE],
    )
    leave_card(final, facts)


def _parts(corpus: Corpus, unit: str) -> list[dict[str, Any]]:
    """Sizes and fingerprints of what was trained and validated on; a stream's size is not known."""
    train: dict[str, Any] = {"name": "train", "unit": unit, "fingerprint": corpus.fingerprint["data set"]}
    if isinstance(corpus.train, TokenBlocks):
        train |= {"examples": len(corpus.train), "tokens": corpus.train.num_tokens}
    validation = {
        "name": "validation",
        "unit": unit,
        "examples": len(corpus.validation),
        "tokens": corpus.validation.num_tokens,
        "fingerprint": corpus.validation.fingerprint(),
    }
    return [train, validation]


def _samples(folder: Path, step: int) -> list[dict[str, str]]:
    """What the finished model wrote at its last evaluation."""
    path = folder / "samples.jsonl"
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{"prompt": line["prompt"], "text": line["text"]} for line in lines if line["step"] == step]

"""Finetuning for classification: from a pretrained model to one that tells classes of text (the book's chapter 6).

accelerate launch recipes/finetune_classification.py --config demo
hfgpt classify train --config sms --learning_rate 1e-3
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from hfgpt import HfGptForSequenceClassification
from hfgpt.errors import UserError
from hfgpt.serving.loading import load_model
from hfgpt.tokenization import load_tokenizer, use_for_plain_text
from hfgpt.training.batches import num_training_steps
from hfgpt.training.engine import start_accelerator
from hfgpt.training.events import TrainingRun
from hfgpt.training.processes import on_main_process
from hfgpt.training.reports import LossCurve
from hfgpt.training.task import Batch, Task

from .card_parts import run_record
from .classification_config import ClassificationConfig
from .classification_results import ClassificationResults, check_metrics
from .finetuned_classifier import FinetunedClassifier, weighted_cross_entropy
from .frozen_cache import CacheDecision, CachedTexts, cache_trunk_states, collate_states, decide_cache
from .hub_push import check_hub
from .labelled_corpus import EncodedTexts, LabelledCorpus, collate_texts, load_splits, prepare_labelled_corpus
from .lora import load_unmerged, save_unmerged
from .run_folder import check_run_folder, find_checkpoint, save_model
from .running import run_command, train_in_folder

__all__ = ["TextClassification", "finetune_classification", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe from the command line; see `run_command`."""
    run_command("classify_train", ClassificationConfig, __doc__ or "", finetune_classification, arguments)


def finetune_classification(config: ClassificationConfig) -> TrainingRun:
    """Finetune a pretrained model as the configuration says and save it under `output_dir/final`.

    Returns:
        The run. If a signal has interrupted it, its `stop_reason` says so, and there is a checkpoint but no `final/`.

    Raises:
        UserError: If source, classes, tokenizer, model and sizes do not fit together; before any long work.
    """
    accelerator = start_accelerator(config)
    check_run_folder(config)
    check_hub(config, accelerator)
    resume_from = find_checkpoint(config, accelerator)
    on_main_process(accelerator, lambda: check_metrics(config.extra_metrics))
    tokenizer = load_tokenizer(config.tokenizer or config.init_from)
    if tokenizer.chat_template:  # a classifier reads plain text
        use_for_plain_text(tokenizer)
    splits = load_splits(config, accelerator)
    set_seed(config.seed)  # of the new head
    model = load_classifier(config, tokenizer, list(splits.train.features["label"].names), resume_from)
    corpus = prepare_labelled_corpus(config, splits, tokenizer, model.config.max_position_embeddings)
    classifier = FinetunedClassifier(
        model,
        config.trainable,
        num_trainable_blocks=config.num_trainable_blocks,
        lora_rank=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
    )
    if resume_from is not None:
        load_unmerged(classifier, resume_from)
    classifier.to(accelerator.device)  # it is used before it is trained
    task = TextClassification(corpus, config)
    num_training_steps(task.train_examples, config)  # refuses too few texts
    folder = Path(config.output_dir)
    decision = task.decide_cache(classifier, folder, accelerator)
    record = run_record(config, model)
    results = ClassificationResults(config, corpus, task, task.parts, classifier, accelerator, record)
    on_main_process(accelerator, results.measure_baselines)

    def begin() -> None:
        kept = task.keep_frozen_states(classifier, folder, accelerator) if decision.use else None
        if resume_from is None:
            on_main_process(accelerator, lambda: delete_outdated(folder, kept))
            results.measure_before_training()

    def save(folder: Path, weights: dict[str, Tensor]) -> None:
        save_unmerged(classifier, folder, weights)
        save_model(folder, classifier.model, corpus.tokenizer, config, classifier.plain_weights(weights))

    return train_in_folder(
        task,
        classifier,
        config,
        accelerator,
        resume_from=resume_from,
        lines=[
            *corpus.description,
            f"trained on {accelerator.device}: {classifier.describe()}",
            decision.reason,
        ],
        callbacks=[record, LossCurve(unit="nats per text")],
        save_model=save,
        begin=begin,
        finish=results.finish,
    )


def load_classifier(
    config: ClassificationConfig, tokenizer: PreTrainedTokenizerFast, names: list[str], resume_from: Path | None
) -> HfGptForSequenceClassification:
    """The model to train, with a head for the classes: that of a checkpoint, or a new one on `init_from`.

    Raises:
        UserError: If it cannot be loaded, does not fit the tokenizer, or tells other classes already.
    """
    if resume_from is None:
        _refuse_other_classes(config.init_from, names)
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of {config.tokenizer or config.init_from} has no end or no padding token.")
    model = load_model(
        config.init_from if resume_from is None else str(resume_from),
        HfGptForSequenceClassification,
        attn_implementation=config.attn_implementation,
        dtype=torch.float32,  # mixed precision rounds copies of the weights
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        problem_type="single_label_classification",
        classifier_pooling=config.classifier_pooling,
        pad_token_id=tokenizer.pad_token_id,
        **config.model,
    )
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} ids, but the model's vocabulary only {model.config.vocab_size}: use "
            "the tokenizer that the model was trained with."
        )
    if config.random_weights and resume_from is None:
        model = HfGptForSequenceClassification(model.config)
    assert isinstance(model, HfGptForSequenceClassification)
    return model


def _refuse_other_classes(init_from: str, names: list[str]) -> None:
    """A head that has learned other classes would begin with the wrong answers, and nobody would know."""
    path = Path(init_from).expanduser() / "config.json"
    if not path.is_file():  # from the Hub, or nothing at all, which the loading says
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # damaged, which the loading says, too
        return
    labels = stored.get("id2label") or {}
    known = [labels.get(str(number)) for number in range(len(labels))]
    if any("ForSequenceClassification" in name for name in stored.get("architectures") or []) and known != names:
        raise UserError(
            f"{init_from} is a classifier of {', '.join(map(str, known))}, and the texts are of {', '.join(names)}: "
            "give the model that it was made from."
        )


def delete_outdated(folder: Path, kept: Path | None) -> None:
    """Delete what a run that is replaced left in the folder, but for the states in `kept`, and `final/`."""
    pictures = [f"{name}.png" for name in ("confusion_matrix", "reliability_diagram", "accuracy_curve")]
    outdated = [folder / name for name in ("report.json", *pictures)]
    for path in [*outdated, *folder.glob("trunk_states-*.bin")]:
        if path != kept:
            path.unlink(missing_ok=True)


class TextClassification(Task):
    """Tell the class of each text."""

    unit = "texts"
    measures = ("loss", "accuracy")

    def __init__(self, corpus: LabelledCorpus, config: ClassificationConfig) -> None:
        self.corpus, self.config = corpus, config
        self.parts: dict[str, Dataset] = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}

    @property
    def train_examples(self) -> Dataset:  # type: ignore[override]
        """The texts to train on, as tokens or as what the frozen part has made of them."""
        return self.parts["train"]

    @property
    def validation_examples(self) -> Dataset:  # type: ignore[override]
        """The same to validate on."""
        return self.parts["validation"]

    def decide_cache(self, classifier: FinetunedClassifier, folder: Path, accelerator: Accelerator) -> CacheDecision:
        """Whether what the frozen part of the model makes of the texts is to be kept in `folder`; writes nothing.

        Raises:
            UserError: If it is to be, and there is no room.
        """
        return decide_cache(self.config.cache_frozen, classifier, self._input_ids(), folder, accelerator)

    def keep_frozen_states(self, classifier: FinetunedClassifier, folder: Path, accelerator: Accelerator) -> Path:
        """Replace the texts by what the frozen part of the model makes of them.

        Returns:
            The file in which that is kept.
        """
        states, first = cache_trunk_states(classifier, self._input_ids(), folder, accelerator), 0
        for name, part in self._encoded().items():
            self.parts[name] = CachedTexts(part, states, first)
            first += len(part)
        return states.path

    def _encoded(self) -> dict[str, EncodedTexts]:
        return {name: getattr(self.corpus, name) for name in self.parts}

    def _input_ids(self) -> list[Tensor]:
        """The tokens of all texts, part after part."""
        return [part[index]["input_ids"] for part in self._encoded().values() for index in range(len(part))]

    def lengths(self, examples: Dataset) -> Sequence[int]:
        """In tokens; texts that are read from the cache have the same."""
        part = examples.examples if isinstance(examples, CachedTexts) else examples
        assert isinstance(part, EncodedTexts)
        return part.lengths.tolist()

    def fingerprint(self) -> dict[str, str]:
        """Of the training data and the tokenizer; and which part is trained, for its optimizer knows no other."""
        config = self.config
        details = {
            "last_n_blocks": f" ({config.num_trainable_blocks})",
            "lora": f" (rank {config.lora_rank}, alpha {config.lora_alpha:g})",
        }
        return self.corpus.fingerprint | {"trainable": config.trainable + details.get(config.trainable, "")}

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """A batch of tokens, or of what the frozen part has made of them, padded on the right."""
        if "trunk_states" in examples[0]:
            return collate_states(examples)
        return collate_texts(examples, self.corpus.tokenizer.pad_token_id, self.config.pad_to_length)

    def count_targets(self, batch: Batch) -> int:
        """Every text has a class."""
        return batch["labels"].numel()

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        """Cross-entropy of the right class; with `balance: class_weights`, every class weighs the same."""
        return model(**batch, num_items_in_batch=num_items_in_batch, class_weights=self.corpus.class_weights).loss

    def evaluation_sums(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Loss without weights, and texts that are told right."""
        labels = batch["labels"]
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        one = torch.ones((), device=logits.device)  # the divisor that leaves a loss summed
        return {
            "loss": weighted_cross_entropy(logits, labels, num_items_in_batch=one),
            "accuracy": (logits.argmax(dim=-1) == labels).sum(),
        }

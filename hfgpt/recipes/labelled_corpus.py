"""From labelled texts to tokens and classes: the data side of classification, in the order in which it happens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
import xxhash
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from hfgpt.data.labelled import load_labelled
from hfgpt.data.labelled_split import LabelledSplits, split_labelled
from hfgpt.errors import UserError
from hfgpt.tokenization import encode_for_classification, frame_texts
from hfgpt.training.processes import main_process_first

from .classification_config import ClassificationConfig
from .corpus import tokenizer_fingerprint
from .readings import readings

__all__ = ["EncodedTexts", "LabelledCorpus", "collate_texts", "load_splits", "prepare_labelled_corpus"]

PARTS = ("train", "validation", "test")


class EncodedTexts(Dataset[dict[str, Any]]):
    """Texts as tokens, with their classes; item i is `{"index": i, "input_ids": (length,), "label": int}`.

    Args:
        rows: Columns `text`, `text_pair` if there are pairs, and `label`.
        max_length: Longer texts are truncated, on the tokenizer's `truncation_side`.
        seen_padding: Make every text so long with padding tokens that the model takes for text; None: none.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
        seen_padding: int | None = None,
    ) -> None:
        self.rows = rows
        self.labels = np.asarray(rows["label"], dtype=np.int64)
        columns = [list(rows[name]) for name in ("text", "text_pair") if name in rows.column_names]
        encoded = encode_for_classification(tokenizer, *columns, max_length=max_length)
        self.num_truncated, self.num_empty = encoded.num_truncated, encoded.num_empty
        input_ids = encoded.input_ids
        if seen_padding is not None:
            padding = [tokenizer.pad_token_id] * seen_padding
            input_ids = [(ids + padding)[:seen_padding] for ids in input_ids]
        self.lengths = np.asarray([len(ids) for ids in input_ids], dtype=np.int64)
        self._ends = np.cumsum(self.lengths)
        self._tokens = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in input_ids])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        end = int(self._ends[index])
        ids = self._tokens[end - int(self.lengths[index]) : end]
        return {"index": index, "input_ids": torch.from_numpy(ids.astype(np.int64)), "label": int(self.labels[index])}

    def texts(self) -> list[str]:
        """The texts as they were; those of a pair one after the other."""
        if "text_pair" not in self.rows.column_names:
            return list(self.rows["text"])
        return [f"{text}\n{pair}" for text, pair in zip(self.rows["text"], self.rows["text_pair"], strict=True)]

    def fingerprint(self) -> str:
        """A hash of tokens and classes, in order."""
        digest = xxhash.xxh3_64(self._tokens)  # type: ignore[arg-type]  # an array is a buffer
        digest.update(self.lengths)  # type: ignore[arg-type]
        digest.update(self.labels)  # type: ignore[arg-type]
        return digest.hexdigest()


def collate_texts(
    examples: Sequence[dict[str, Any]], pad_token_id: int, pad_to_length: int | None = None
) -> dict[str, Tensor]:
    """A batch `input_ids`, `attention_mask` and `labels`, padded on the right to the longest of its texts.

    Args:
        pad_to_length: Pad to so many tokens instead.
    """
    length = pad_to_length or max(len(example["input_ids"]) for example in examples)
    input_ids = torch.full((len(examples), length), pad_token_id)
    attention_mask = torch.zeros(len(examples), length, dtype=torch.long)
    for row, example in enumerate(examples):
        input_ids[row, : len(example["input_ids"])] = example["input_ids"]
        attention_mask[row, : len(example["input_ids"])] = 1
    labels = torch.tensor([example["label"] for example in examples])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@dataclass
class LabelledCorpus:
    """Labelled texts made ready: what a classifier is trained, validated and tested on."""

    tokenizer: PreTrainedTokenizerFast
    names: list[str]
    """Of the classes, by their number."""
    train: EncodedTexts
    validation: EncodedTexts
    test: EncodedTexts
    class_weights: Tensor | None
    """Of each class in the loss; None: all weigh the same."""
    fingerprint: dict[str, str]
    """Hashes of the training data and the tokenizer."""
    description: list[str]
    """What was read, left out, split and cut, a line each."""


def prepare_labelled_corpus(
    config: ClassificationConfig, splits: LabelledSplits, tokenizer: PreTrainedTokenizerFast, context: int
) -> LabelledCorpus:
    """Tokenise the texts of each part.

    Args:
        tokenizer: It is changed: what is saved with the model cuts and pads as the training did.
        context: Tokens that the model sees at once.

    Raises:
        UserError: If texts are to be longer than the context, or to have no token of their own.
    """
    max_length = config.max_length or min(config.pad_to_length or context, context)
    for name in ("max_length", "pad_to_length"):
        if (getattr(config, name) or 0) > context:
            raise UserError(f"{name} ({getattr(config, name)}) is greater than the model's context ({context}).")
    if config.text_pair_column or config.end_of_text != "none":
        before, after = config.end_of_text in ("before", "both"), config.end_of_text in ("after", "both")
        frame_texts(tokenizer, before=before, after=after)
    framing = tokenizer.num_special_tokens_to_add(pair=config.text_pair_column is not None)
    if max_length <= framing:
        raise UserError(
            f"max_length ({max_length}) leaves no room for text beside {framing} end-of-text tokens: raise it."
        )
    tokenizer.model_max_length = max_length
    tokenizer.truncation_side, tokenizer.padding_side = config.truncation_side, "right"
    # A side is saved only if the tokenizer was made with one.
    tokenizer.init_kwargs |= {"truncation_side": config.truncation_side, "padding_side": "right"}
    seen_padding = None
    if not config.ignore_padding:
        seen_padding = config.pad_to_length or max_length
    parts = {part: EncodedTexts(getattr(splits, part), tokenizer, max_length, seen_padding) for part in PARTS}
    weights = None if splits.class_weights is None else torch.tensor(splits.class_weights, dtype=torch.float32)
    return LabelledCorpus(
        tokenizer=tokenizer,
        names=list(splits.train.features["label"].names),
        **parts,
        class_weights=weights,
        fingerprint={
            "data set": parts["train"].fingerprint(),
            "validation set": parts["validation"].fingerprint(),
            "test set": parts["test"].fingerprint(),
            "tokenizer": tokenizer_fingerprint(tokenizer),
        },
        description=[
            f"source: {config.source}",
            *splits.description,
            *(_describe(name, part, max_length, config.truncation_side) for name, part in parts.items()),
        ],
    )


def load_splits(config: ClassificationConfig, accelerator: Accelerator) -> LabelledSplits:
    """The texts to train on, to validate on and to test on, the same on every process.

    Raises:
        UserError: If the source, its columns or its classes are not as the configuration says.
    """
    return main_process_first(accelerator, lambda: _load_and_split(config))


def _load_and_split(config: ClassificationConfig) -> LabelledSplits:
    parts = {
        reading.part: load_labelled(
            reading.source,
            split=reading.split,
            text_column=config.text_column,
            text_pair_column=config.text_pair_column,
            label_column=config.label_column,
            header=config.header,
            name=reading.config_name,
            revision=reading.revision,
        )
        for reading in readings(config)
    }
    return split_labelled(
        parts.pop("train"),
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        balance=config.balance,
        empty_texts=config.empty_texts,
        **parts,
    )


def _describe(name: str, texts: EncodedTexts, max_length: int, truncation_side: str) -> str:
    notes = ""
    if texts.num_truncated:
        notes += f", {texts.num_truncated:,} of them truncated on the {truncation_side} to {max_length} tokens"
    if texts.num_empty:
        notes += f", {texts.num_empty:,} of them empty"
    return f"{name}: {len(texts):,} texts of {texts.lengths.mean():.1f} tokens on average{notes}"

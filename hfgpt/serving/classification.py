"""Telling the class of texts by a finetuned model, as `pipeline("text-classification")` does, but many at a time.

A batch holds texts of similar length, so that little of it is padding; the predictions come in the order of the texts.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from hfgpt import HfGptForSequenceClassification
from hfgpt.errors import UserError
from hfgpt.tokenization import encode_for_classification, load_tokenizer, replace_lone_surrogates

from .fingerprint import fingerprint_of
from .loading import inference_device, load_model

__all__ = ["DEFAULT_BATCH_SIZE", "WINDOW_BATCHES", "Classifier", "Prediction"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 32
"""Texts computed at once: enough for a CPU and a small model on a GPU; a large model on a large GPU gains by more."""

WINDOW_BATCHES = 16
"""So many batches are sorted by length together: more make padding rarer, and the first prediction come later."""


class Prediction(NamedTuple):
    """The class that a text most likely has, and the probabilities of all."""

    label: str
    score: float
    """The probability of `label`."""
    scores: dict[str, float]
    """By the name of the class, in the order of the model's configuration."""


class Classifier:
    """A finetuned model and its tokenizer.

    Args:
        model: In evaluation mode, on the device to compute on.
        tokenizer: As the training has saved it: its `model_max_length` and `truncation_side` say how texts are cut.

    Attributes:
        names: Of the classes, by number.
        max_length: Tokens of a text (or pair) that are looked at.
        num_texts: Texts classified so far.
        num_truncated: How many of them were longer than that.
        num_empty: How many had no token; they are judged by the end-of-text token, as in training.

    Raises:
        UserError: If the model gives no probabilities of classes, or does not fit the tokenizer.
    """

    def __init__(self, model: HfGptForSequenceClassification, tokenizer: PreTrainedTokenizerFast) -> None:
        config = model.config
        names: dict[int, str] = config.id2label  # type: ignore[assignment]  # transformers' type is wider
        if len(names) < 2 or config.problem_type not in (None, "single_label_classification"):
            raise UserError(
                f"The model gives {len(names)} number(s) for {config.problem_type or 'regression'}, not one class of "
                "several for each text: use transformers' pipeline, or train one by hfgpt classify train."
            )
        if len(tokenizer) > config.vocab_size:
            raise UserError(
                f"The tokenizer has {len(tokenizer)} ids, but the model's vocabulary only {config.vocab_size}: use the "
                "tokenizer that the model was trained with."
            )
        if tokenizer.eos_token_id is None:
            raise UserError("The tokenizer has no end-of-text token, which stands for an empty text: name one in it.")
        self.model, self.tokenizer = model, tokenizer
        self.names = [names[number] for number in range(len(names))]
        self.max_length = min(tokenizer.model_max_length, config.max_position_embeddings)
        self.num_texts = self.num_truncated = self.num_empty = 0
        self._most_at_once: int | None = None  # what memory has been found to hold

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Classifier":
        """A classifier from a folder or the Hub, in the precision it was saved in, on the GPU if there is one.

        Raises:
            UserError: If there is none, it has no classification head, or there is no tokenizer beside it.
        """
        model = load_model(name_or_path, HfGptForSequenceClassification, new_head=False, device_map=inference_device())
        assert isinstance(model, HfGptForSequenceClassification)
        return cls(model.eval(), load_tokenizer(name_or_path))

    def fingerprint(self) -> str:
        """A hash of all that decides what is predicted: weights, configuration and tokenizer."""
        return fingerprint_of(self.model, self.tokenizer, self.max_length, self.tokenizer.truncation_side)

    def classify(
        self,
        texts: Iterable[str],
        text_pairs: Iterable[str] | None = None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> Iterator[Prediction]:
        """Yield the prediction for each text, in their order; texts are taken as predictions are asked for.

        Args:
            texts: Any number of them; `batch_size * WINDOW_BATCHES` are held at a time.
            text_pairs: The second text of each, for a model that was trained on pairs.
            batch_size: Texts computed at once; halved, with a warning, where memory does not hold them.

        Raises:
            UserError: If a single text is too much for memory, or an argument is not as described.
        """
        if isinstance(texts, str):
            raise UserError("texts is one string, whose items are characters: give a list of texts, such as [text].")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: give 1 or more.")
        columns = [texts] if text_pairs is None else [texts, text_pairs]
        rows = zip(*columns, strict=True)
        while window := list(islice(rows, batch_size * WINDOW_BATCHES)):
            yield from self._classify_window([list(column) for column in zip(*window, strict=True)], batch_size)

    def _classify_window(self, columns: list[list[str]], batch_size: int) -> list[Prediction]:
        cleaned = [[replace_lone_surrogates(text) for text in column] for column in columns]
        if replaced := sum(number for column in cleaned for _, number in column):
            logger.warning("replaced %d lone surrogates, which are not valid Unicode, by U+FFFD", replaced)
        texts, *pairs = [[text for text, _ in column] for column in cleaned]
        encoded = encode_for_classification(self.tokenizer, texts, *pairs, max_length=self.max_length)
        self.num_texts += len(texts)
        self.num_truncated += encoded.num_truncated
        self.num_empty += encoded.num_empty
        by_length = sorted(range(len(texts)), key=lambda row: len(encoded.input_ids[row]))
        probabilities = torch.empty(len(texts), len(self.names))
        for start in range(0, len(texts), batch_size):
            batch = by_length[start : start + batch_size]
            probabilities[batch] = self._probabilities([encoded.input_ids[row] for row in batch])
        return [self._prediction(row) for row in probabilities.tolist()]

    def _prediction(self, probabilities: list[float]) -> Prediction:
        scores = dict(zip(self.names, probabilities, strict=True))
        label = max(scores, key=scores.__getitem__)
        return Prediction(label, scores[label], scores)

    def _probabilities(self, input_ids: Sequence[list[int]]) -> Tensor:
        """The probabilities `(texts, classes)` of texts of similar length, in float32 on the CPU."""
        while True:
            at_once = min(len(input_ids), self._most_at_once or len(input_ids))
            try:
                parts = [input_ids[start : start + at_once] for start in range(0, len(input_ids), at_once)]
                return torch.cat([self._compute(part) for part in parts])
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if at_once == 1:
                    raise UserError(
                        f"Memory runs out with a single text of {max(map(len, input_ids))} tokens: use a device with "
                        "more, or a smaller model."
                    ) from error
            clear_device_cache(garbage_collection=True)  # not while the error still holds what was computed
            self._most_at_once = at_once // 2
            logger.warning("out of memory with %d texts at once; it goes on with %d", at_once, self._most_at_once)

    @torch.inference_mode()
    def _compute(self, input_ids: Sequence[list[int]]) -> Tensor:
        lengths = torch.tensor([len(ids) for ids in input_ids])
        padded = pad_sequence(
            [torch.tensor(ids) for ids in input_ids],
            batch_first=True,
            padding_value=self.tokenizer.eos_token_id,  # any id: the mask hides it
        )
        attention_mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()  # (texts, tokens)
        device = self.model.device
        inputs = {"input_ids": padded.to(device), "attention_mask": attention_mask.to(device)}
        logits = self.model(**inputs, use_cache=False).logits
        return torch.softmax(logits.float(), dim=-1).cpu()

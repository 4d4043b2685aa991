"""From encoded conversations to batches of next-token prediction, padded or packed (the book's section 7.3).

A conversation is judged where its mask says so: the token at place t is the target of the token before it. So the
first is never a target, and the last, its end, is never an input.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hfgpt.errors import UserError

from .order import random_permutation

__all__ = ["EncodedConversations", "PackedConversations", "collate_conversations", "pack_conversations"]

IGNORE_INDEX = -100  # a label that bears no loss (PyTorch's and transformers' convention)


class MaskedTokens(Protocol):
    """A conversation as tokens: what `hfgpt.chat_templates.encode_conversations` makes of one."""

    @property
    def input_ids(self) -> Sequence[int]:
        """Its tokens."""

    @property
    def bears_loss(self) -> Sequence[bool]:
        """Whether each is to be learned."""


class EncodedConversations(Dataset[dict[str, Any]]):
    """Conversations as tokens; item i is `{"index": i, "input_ids": (length,), "labels": (length,)}`.

    A label is the token itself where it bears loss, and -100 elsewhere and at the first token, which nothing precedes.

    Args:
        conversations: Their tokens, and which of them bear loss.

    Attributes:
        lengths: Tokens of each, `(conversations,)`.
        num_targets: Tokens that bear loss, of all together.

    Raises:
        ValueError: If a conversation has fewer than two tokens, or not one mark for each.
    """

    def __init__(self, conversations: Sequence[MaskedTokens]) -> None:
        self.lengths = np.asarray([len(one.input_ids) for one in conversations], dtype=np.int64)
        for number, one in enumerate(conversations, start=1):
            if not 2 <= len(one.input_ids) == len(one.bears_loss):
                raise ValueError(
                    f"Conversation {number} has {len(one.input_ids)} tokens and {len(one.bears_loss)} marks of loss; "
                    "it must have two tokens or more, and one mark for each."
                )
        self._ends = np.cumsum(self.lengths)
        self._tokens = _joined([one.input_ids for one in conversations], np.int32)
        self._bears_loss = _joined([one.bears_loss for one in conversations], np.bool_)
        self._bears_loss[self._ends - self.lengths] = False
        self.num_targets = int(self._bears_loss.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"conversation {index} of {len(self)}")
        end = int(self._ends[index])
        place = slice(end - int(self.lengths[index]), end)
        input_ids = torch.from_numpy(self._tokens[place].astype(np.int64))
        labels = input_ids.masked_fill(torch.from_numpy(~self._bears_loss[place]), IGNORE_INDEX)
        return {"index": index, "input_ids": input_ids, "labels": labels}

    def fingerprint(self) -> str:
        """A hash of the tokens and of which bear loss, in order."""
        digest = xxhash.xxh3_64(self._tokens)  # type: ignore[arg-type]  # an array is a buffer
        digest.update(self.lengths)  # type: ignore[arg-type]
        digest.update(self._bears_loss)  # type: ignore[arg-type]
        return digest.hexdigest()


def _joined(sequences: Sequence[Sequence[int]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *(np.asarray(one, dtype=dtype) for one in sequences)])


class PackedConversations(Dataset[dict[str, Any]]):
    """Rows of whole conversations, as `pack_conversations` makes them.

    Item i is `{"index": i, "input_ids": (length,), "labels": (length,), "position_ids": (length,)}`, in which the
    positions restart with each conversation.

    Args:
        conversations: What the rows are made of.
        rows: The indices of the conversations in each row.

    Attributes:
        lengths: Tokens of each row, `(rows,)`.
        num_targets: Tokens that bear loss, of all together.
    """

    def __init__(self, conversations: EncodedConversations, rows: Sequence[Sequence[int]]) -> None:
        self.conversations, self.rows = conversations, rows
        self.lengths = np.asarray([conversations.lengths[list(row)].sum() for row in rows], dtype=np.int64)
        self.num_targets = conversations.num_targets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        parts = [self.conversations[one] for one in self.rows[index]]
        return {
            "index": index,
            "input_ids": torch.cat([part["input_ids"] for part in parts]),
            "labels": torch.cat([part["labels"] for part in parts]),
            "position_ids": torch.cat([torch.arange(len(part["input_ids"])) for part in parts]),
        }

    def fingerprint(self) -> str:
        """A hash of the conversations and of how they are packed."""
        return xxhash.xxh3_64(repr((self.conversations.fingerprint(), self.rows)).encode()).hexdigest()


def pack_conversations(conversations: EncodedConversations, row_length: int, seed: int) -> PackedConversations:
    """Put conversations together in rows of at most `row_length` tokens, none of them cut.

    Best-fit decreasing: the longest conversation first, each into the row that it leaves the least room in. That needs
    at most 11/9 of the fewest possible rows (Johnson et al. 1974); of short conversations, next to no more.

    Args:
        conversations: What is packed; each stands in one row.
        row_length: Tokens of a row at most.
        seed: In which order conversations of equal length are taken; the same seed gives the same rows anywhere.

    Raises:
        UserError: If a conversation is longer than a row.
    """
    lengths = conversations.lengths
    if len(lengths) and lengths.max() > row_length:
        number = int(lengths.argmax()) + 1
        raise UserError(
            f"conversation {number} has {lengths.max()} tokens, more than a packed row of {row_length}: "
            "make the rows longer, or leave it out."
        )
    drawn = random_permutation(len(lengths), key=(seed, 0))
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # the rows in which so many tokens are free
    rooms = 0  # bit n is set where with_room[n] has any: the least room that is enough is found in one step
    for index in drawn[np.argsort(-lengths[drawn], kind="stable")].tolist():
        length = int(lengths[index])
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row = row_length, len(rows)
            rows.append([])
        rows[row].append(index)
        with_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return PackedConversations(conversations, rows)


def collate_conversations(examples: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """A batch of `input_ids` and `shift_labels`, padded on the right to the longest of its examples.

    Token t is judged by label t, so each example is one token shorter than it was. Padding comes after everything
    that is judged, and a causal model needs no mask for it.

    Args:
        examples: Items of `EncodedConversations`, or rows of `PackedConversations`.
        pad_token_id: Any token of the vocabulary.

    Returns:
        `input_ids` and `shift_labels`, `(examples, tokens)`, the labels -100 where nothing is judged; of rows,
        `position_ids`, too. Without an `attention_mask` they keep the conversations of a row apart, and each token of
        padding is a document of its own.
    """
    padding = {"input_ids": pad_token_id, "shift_labels": IGNORE_INDEX}
    if "position_ids" in examples[0]:
        padding["position_ids"] = 0
    size = (len(examples), max(len(example["input_ids"]) for example in examples) - 1)
    batch = {name: torch.full(size, value) for name, value in padding.items()}
    for row, example in enumerate(examples):
        for name, padded in batch.items():
            values = example["labels"][1:] if name == "shift_labels" else example[name][:-1]
            padded[row, : len(values)] = values
    return batch

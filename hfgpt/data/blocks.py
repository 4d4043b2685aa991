"""From documents to blocks of tokens: encode, string together, cut into windows.

The target of a token is the token after it, so a block of `block_size` inputs takes `block_size + 1` tokens of the
stream, and the last target of one block is the first input of the next: no target is lost between blocks. Blocks carry
their targets as `shift_labels`, the name by which transformers' losses know labels that are shifted already.
"""

from collections.abc import Callable, Iterator
from typing import Any

import datasets
import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from hfgpt.errors import UserError

__all__ = [
    "EncodeBatch",
    "TokenBlocks",
    "check_token_ids",
    "encode_documents",
    "encode_texts",
    "make_block",
    "stream_blocks",
    "token_chunks",
]

EncodeBatch = Callable[[list[str]], list[list[int]]]
"""Encodes texts as ordinary text: what looks like a special token in a document must not become one."""

# 64-bit offsets, for a batch of long documents may hold more than 2^31 tokens.
TOKEN_FEATURES = datasets.Features(
    {"input_ids": datasets.LargeList(datasets.Value("int32")), "num_bytes": datasets.Value("int64")}
)


def encode_documents(
    dataset: datasets.Dataset,
    encode_batch: EncodeBatch,
    *,
    end_of_text_id: int | None,
    num_proc: int | None = None,
) -> datasets.Dataset:
    """Encode the column `text` through `datasets.map`: batched, cached, with a progress bar.

    Args:
        dataset: documents, as from `load_text`.
        encode_batch: texts to token ids. It must pickle: its pickle is part of the cache key and goes to the processes.
        end_of_text_id: appended to each document; None appends nothing (the book's single text).
        num_proc: processes; default: this one.

    Returns:
        A data set with the columns `input_ids` (int32) and `num_bytes` (of the text in UTF-8), one row a document.
    """
    return dataset.map(
        _encode_rows,
        batched=True,
        remove_columns=dataset.column_names,
        features=TOKEN_FEATURES,
        fn_kwargs={"encode_batch": encode_batch, "end_of_text_id": end_of_text_id},
        num_proc=num_proc,
        desc="Encoding documents",
    )


def _encode_rows(
    batch: dict[str, list[str]], *, encode_batch: EncodeBatch, end_of_text_id: int | None
) -> dict[str, list[Any]]:
    return {
        "input_ids": encode_texts(batch["text"], encode_batch, end_of_text_id),
        "num_bytes": [len(text.encode("utf-8")) for text in batch["text"]],
    }


def encode_texts(texts: list[str], encode_batch: EncodeBatch, end_of_text_id: int | None) -> list[list[int]]:
    """The tokens of each text, with the end-of-text token, if any, after it."""
    end = [] if end_of_text_id is None else [end_of_text_id]
    return [[*ids, *end] for ids in encode_batch(texts)]


def token_chunks(dataset: datasets.Dataset) -> list[NDArray[np.int32]]:
    """The token stream of an encoded data set, in order, as views into its memory-mapped Arrow buffers: no copy.

    Only an indices mapping (a data set that was shuffled or selected from) is first written out, by `datasets` itself.
    """
    if dataset._indices is not None:
        dataset = dataset.flatten_indices()
    chunks = dataset.data.column("input_ids").chunks
    views = [chunk.flatten().to_numpy(zero_copy_only=True) for chunk in chunks]
    return [view for view in views if len(view)]


class TokenBlocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Windows over the token stream of an encoded data set, read from its memory-mapped file as they are asked for.

    Item i is `{"input_ids", "shift_labels"}`, int64 tensors of shape (block_size,): the tokens from `i * stride` on,
    and for each the token after it. Windows begin at `range(0, num_tokens - block_size, stride)`, as those of the
    book's `GPTDatasetV1` (section 2.6) do. With `stride == block_size` (the default) and an end-of-text token after
    each document they are packed blocks of fixed length.

    Attributes:
        num_tokens: length of the token stream.
        num_tokens_left_out: tokens that stand in no window, neither as input nor as target: the tail after the last
            window, and the gaps between windows if `stride` is larger than `block_size + 1`.

    Raises:
        UserError: sizes below 1, or fewer than `block_size + 1` tokens.
    """

    def __init__(self, dataset: datasets.Dataset, *, block_size: int, stride: int | None = None) -> None:
        stride = block_size if stride is None else stride
        if block_size < 1 or stride < 1:
            raise UserError(f"block_size is {block_size} and stride is {stride}; both must be at least 1.")
        self._dataset = dataset
        self.block_size = block_size
        self.stride = stride
        self._chunks = token_chunks(dataset)
        # _ends[i] is the position in the stream just after chunk i.
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks], dtype=np.int64)
        self.num_tokens = int(self._ends[-1]) if self._chunks else 0
        if not len(self):
            raise UserError(
                f"the text has {self.num_tokens} tokens, and one block of {block_size} takes {block_size + 1}; "
                "give more text or a smaller block size."
            )

    def __len__(self) -> int:
        return len(range(0, self.num_tokens - self.block_size, self.stride))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        start = index * self.stride
        return make_block(self._tokens(start, start + self.block_size + 1))

    @property
    def num_tokens_left_out(self) -> int:
        new_tokens_per_window = min(self.stride, self.block_size + 1)
        return self.num_tokens - ((len(self) - 1) * new_tokens_per_window + self.block_size + 1)

    def fingerprint(self) -> str:
        """A hash of the token stream and of how it is cut."""
        digest = xxhash.xxh3_64(repr((self.num_tokens, self.block_size, self.stride)).encode())
        for chunk in self._chunks:
            digest.update(np.ascontiguousarray(chunk))  # type: ignore[arg-type]  # an array is a buffer
        return digest.hexdigest()

    def target_positions(self) -> NDArray[np.int64]:
        """The positions in the stream that are the target of some window, each once, in order."""
        starts = np.arange(len(self), dtype=np.int64) * self.stride
        if self.stride <= self.block_size:
            return np.arange(1, starts[-1] + self.block_size + 1, dtype=np.int64)
        return (starts[:, None] + np.arange(1, self.block_size + 1)).reshape(-1)

    def _tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """The tokens from `start` to `stop` of the stream, gathered from as many chunks as they lie in."""
        tokens = np.empty(stop - start, dtype=np.int64)
        chunk_index = int(np.searchsorted(self._ends, start, side="right"))
        position = start
        while position < stop:
            chunk, end = self._chunks[chunk_index], int(self._ends[chunk_index])
            part = chunk[len(chunk) - (end - position) :][: stop - position]
            tokens[position - start : position - start + len(part)] = part
            position += len(part)
            chunk_index += 1
        return tokens

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the memory-mapped file itself instead of receiving a copy of all tokens.
        return {"dataset": self._dataset, "block_size": self.block_size, "stride": self.stride}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def stream_blocks(
    dataset: datasets.IterableDataset,
    encode_batch: EncodeBatch,
    *,
    end_of_text_id: int | None,
    block_size: int,
    documents_per_batch: int = 256,
) -> Iterator[dict[str, torch.Tensor]]:
    """Packed blocks of a stream of documents: those of `TokenBlocks` on the same documents, in the same order.

    Tokens left over at the end of one batch of documents begin the next block; those left over at the end of the
    stream, fewer than `block_size + 1`, are left out.
    """
    if block_size < 1:
        raise UserError(f"block_size is {block_size}; it must be at least 1.")
    rest = np.empty(0, dtype=np.int64)
    for batch in dataset.iter(batch_size=documents_per_batch):
        documents = encode_texts(batch["text"], encode_batch, end_of_text_id)
        tokens = np.concatenate([rest, *(np.asarray(ids, dtype=np.int64) for ids in documents)])
        starts = range(0, len(tokens) - block_size, block_size)
        for start in starts:
            yield make_block(tokens[start : start + block_size + 1].copy())
        rest = tokens[len(starts) * block_size :]


def make_block(tokens: NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """A block of `block_size + 1` tokens: the inputs are all but the last, their targets all but the first."""
    stream = torch.from_numpy(tokens)
    return {"input_ids": stream[:-1], "shift_labels": stream[1:]}


def check_token_ids(tokens: NDArray[np.integer] | datasets.Dataset, vocab_size: int) -> None:
    """Check that all token ids lie in `range(vocab_size)`.

    Args:
        tokens: an array of ids, or an encoded data set.
        vocab_size: the number of rows of the model's embedding.

    Raises:
        UserError: an id lies outside.
    """
    for chunk in token_chunks(tokens) if isinstance(tokens, datasets.Dataset) else [tokens]:
        if not chunk.size:
            continue
        lowest, highest = int(chunk.min()), int(chunk.max())
        if lowest < 0 or highest >= vocab_size:
            raise UserError(
                f"token id {lowest if lowest < 0 else highest} lies outside the vocabulary of {vocab_size} tokens; "
                "encode the text with the model's own tokenizer, or set the model's vocab_size to the tokenizer's size."
            )

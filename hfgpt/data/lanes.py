"""Streams of examples whose order is exact: the same on any number of processes, and after any interruption.

A stream of documents is cut into a fixed number of lanes, each a part of the source of its own. Example g of the run,
counted over all processes, is the next one of lane g mod L, and process r of n takes the examples with g mod n = r. So
it reads only the lanes that hold such examples, those congruent to r modulo gcd(n, L): one n-th of the source where n
divides L. A lane

1. reads its documents in their order and strings them into blocks, as `stream_blocks` does;
2. takes a fixed number of blocks at a time, a buffer, and gives them in an order that is a function of (seed, lane,
   epoch, number of the buffer);
3. begins anew when its documents end: each lane counts its own epochs. The tokens left over then, fewer than one block
   takes, are left out.

What a lane has to remember is small: the epoch, the buffer, where in the documents the buffer begins, and how many of
its blocks are given. To go on it reads that one buffer again, from the place where it begins; `datasets` goes there by
the shard (`IterableDataset.state_dict`), and reads again what stands before that place in one shard.

The buffers of a run do not all end at once: the first of lane l of L has only (l + 1) / L of the blocks of the others,
so that the work of filling them is spread over the steps.
"""

import json
import weakref
from abc import ABC, abstractmethod
from collections import deque
from hashlib import blake2b
from itertools import islice
from math import gcd
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from numpy.typing import NDArray

from hfgpt.data.blocks import EncodeBatch, encode_texts, make_block
from hfgpt.data.order import random_permutation
from hfgpt.errors import UserError

__all__ = ["DEFAULT_NUM_LANES", "DEFAULT_SHUFFLE_BUFFER_SIZE", "BlockStream", "ExampleStream", "StreamReader"]

DEFAULT_NUM_LANES = 64
"""Divisible by the usual numbers of processes, so that each of them reads its own part of the source only."""

DEFAULT_SHUFFLE_BUFFER_SIZE = 64
"""Blocks of each lane that are shuffled among each other. Neighbours in a batch come from different lanes anyway."""

DOCUMENTS_PER_BATCH = 16


class StreamReader(ABC):
    """One process's place in a stream."""

    @abstractmethod
    def take(self, num_global_samples: int) -> list[dict[str, torch.Tensor]]:
        """This process's examples among the next `num_global_samples` of the run, in their order.

        Raises:
            UserError: the source cannot be read on, or does not hold an example.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Where this process stands after the last `take`, for `json.dumps`."""

    @staticmethod
    @abstractmethod
    def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
        """The states of all processes at one moment as one, from which any number of processes can go on.

        Raises:
            UserError: they are not of one run and moment.
        """


class ExampleStream(ABC):
    """Examples without end and without random access: what a task may give in place of a map-style data set."""

    @abstractmethod
    def reader(self, *, seed: int, rank: int, num_ranks: int, state: dict[str, Any] | None = None) -> StreamReader:
        """The reader of one process, at the beginning or where `state` says.

        Args:
            seed: of the order, from 0 to 2^64 - 1.
            rank: which process, from 0.
            num_ranks: number of processes, which need not be that of the run that `state` comes from.
            state: what `merge` returned, or `state_dict` if there was one process.

        Raises:
            UserError: there is no such rank, or `state` is of another stream, seed or part of the stream.
        """


class BlockStream(ExampleStream):
    """Packed blocks of a stream of documents, in the order that the module describes.

    Examples are `{"input_ids", "shift_labels"}`, int64 tensors of shape (block_size,), as those of `TokenBlocks`.

    Args:
        documents: a stream with the column `text`, as from `load_text` and `split_documents`. It is cut between its
            shards, so that lanes are as even as these.
        encode_batch: texts to token ids.
        end_of_text_id: appended to each document; None appends nothing.
        block_size: tokens of one example.
        num_lanes: lanes to cut the stream into; as many as it has shards, if these are fewer.
        shuffle_buffer_size: blocks of a lane that are shuffled among each other; 1 keeps the order of the documents.

    Raises:
        UserError: a number below 1.
    """

    def __init__(
        self,
        documents: datasets.IterableDataset,
        encode_batch: EncodeBatch,
        *,
        end_of_text_id: int | None,
        block_size: int,
        num_lanes: int = DEFAULT_NUM_LANES,
        shuffle_buffer_size: int = DEFAULT_SHUFFLE_BUFFER_SIZE,
    ) -> None:
        if block_size < 1 or num_lanes < 1 or shuffle_buffer_size < 1:
            raise UserError(
                f"block_size is {block_size}, num_lanes is {num_lanes} and shuffle_buffer_size is "
                f"{shuffle_buffer_size}; each must be at least 1."
            )
        self.documents = documents
        self.encode_batch = encode_batch
        self.end_of_text_id = end_of_text_id
        self.block_size = block_size
        self.num_lanes = min(num_lanes, documents.num_shards)
        self.shuffle_buffer_size = shuffle_buffer_size

    def reader(self, *, seed: int, rank: int, num_ranks: int, state: dict[str, Any] | None = None) -> StreamReader:
        return _BlockReader(self, seed, rank, num_ranks, state)

    def settings(self) -> dict[str, Any]:
        """All that the order depends on but the tokenizer and the seed; `files` are known by their names and sizes."""
        names = ("num_lanes", "shuffle_buffer_size", "block_size", "end_of_text_id")
        files = json.dumps(self.documents.info.download_checksums, sort_keys=True)
        return {name: getattr(self, name) for name in names} | {
            "num_shards": self.documents.num_shards,
            "files": blake2b(files.encode(), digest_size=8).hexdigest(),
        }


class _BlockReader(StreamReader):
    def __init__(self, stream: BlockStream, seed: int, rank: int, num_ranks: int, state: dict[str, Any] | None) -> None:
        if num_ranks < 1 or not 0 <= rank < num_ranks:
            raise UserError(f"there is no rank {rank} among {num_ranks} processes.")
        if not 0 <= seed < 2**64:
            raise UserError(f"the seed of the order is {seed}; it must lie between 0 and 2^64 - 1.")
        self._rank, self._num_ranks, self._num_lanes = rank, num_ranks, stream.num_lanes
        self._identity = {"seed": seed} | stream.settings()
        common = gcd(num_ranks, stream.num_lanes)
        mine = range(rank % common, stream.num_lanes, common)
        if state is not None:
            self._refuse_other(state, mine)
        self._position = 0 if state is None else state["position"]
        self._lanes = {
            number: _Lane(stream, seed, number, None if state is None else state["lanes"][str(number)])
            for number in mine
        }

    def _refuse_other(self, state: dict[str, Any], mine: range) -> None:
        for name, value in self._identity.items():
            if state["identity"].get(name) != value:
                raise UserError(
                    f"the stream's state was saved with {name} {state['identity'].get(name)}, and it is {value} now; "
                    "resume with the data and configuration that the run began with."
                )
        missing = [number for number in mine if str(number) not in state["lanes"]]
        if missing:
            raise UserError(
                f"the stream's state does not hold lane {missing[0]}; give the merged states of all processes."
            )

    def take(self, num_global_samples: int) -> list[dict[str, torch.Tensor]]:
        examples = []
        for sample in range(self._position, self._position + num_global_samples):
            lane = self._lanes.get(sample % self._num_lanes)
            if lane is not None:  # it is shared with other processes where their number does not divide that of lanes
                tokens = lane.next_block()
                if sample % self._num_ranks == self._rank:
                    examples.append(make_block(tokens.astype(np.int64)))
        self._position += num_global_samples
        return examples

    def state_dict(self) -> dict[str, Any]:
        lanes = {str(number): lane.state_dict() for number, lane in self._lanes.items()}
        return {"identity": dict(self._identity), "position": self._position, "lanes": lanes}

    @staticmethod
    def merge(states: list[dict[str, Any]]) -> dict[str, Any]:
        first = states[0]
        for state in states:
            if (state["identity"], state["position"]) != (first["identity"], first["position"]):
                raise UserError("the states of the stream are not those of one run at one step; resume from another.")
        lanes = {number: lane for state in states for number, lane in state["lanes"].items()}
        return {**first, "lanes": dict(sorted(lanes.items(), key=lambda item: int(item[0])))}


class _Place(NamedTuple):
    """A token of a lane: `skip` tokens after a place in its documents, which only `datasets` understands."""

    documents: dict[str, Any] | None  # None: at the beginning
    skip: int


class _Lane:
    """One lane: its documents, the buffer in hand, and where that begins."""

    def __init__(self, stream: BlockStream, seed: int, number: int, state: dict[str, Any] | None) -> None:
        self._stream, self._seed, self._number = stream, seed, number
        state = state or {"epoch": 0, "buffer": 0, "index": 0, "documents": None, "skip": 0}
        self._epoch, self._buffer, self._index = state["epoch"], state["buffer"], state["index"]
        self._begin = _Place(state["documents"], state["skip"])
        self._tokens: _LaneTokens | None = None  # opened when the first block is asked for
        self._blocks: NDArray[np.int32] | None = None  # (blocks, block_size + 1), in the order in which they are given

    def next_block(self) -> NDArray[np.int32]:
        """The tokens of the next block, `block_size + 1`."""
        blocks = self._fill() if self._blocks is None else self._blocks
        block = blocks[self._index]
        self._index += 1
        if self._index == len(blocks):
            assert self._tokens is not None
            self._begin = self._tokens.place()
            self._buffer, self._index, self._blocks = self._buffer + 1, 0, None
        return block

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "buffer": self._buffer, "index": self._index, **self._begin._asdict()}

    def _fill(self) -> NDArray[np.int32]:
        while True:
            if self._tokens is None:
                self._tokens = _LaneTokens(self._stream, self._number, self._begin)
            blocks = self._tokens.read_blocks(self._num_blocks())
            if len(blocks):
                break
            if self._buffer == 0:
                raise UserError(
                    f"the text of lane {self._number} (of {self._stream.num_lanes}) of the stream does not fill one "
                    f"block of {self._stream.block_size} tokens: give more text, fewer lanes or a smaller block size."
                )
            self._epoch, self._buffer, self._begin, self._tokens = self._epoch + 1, 0, _Place(None, 0), None
        order = random_permutation(len(blocks), key=(self._seed, self._number), stream=(self._epoch, self._buffer))
        self._blocks = blocks[order]
        return self._blocks

    def _num_blocks(self) -> int:
        size = self._stream.shuffle_buffer_size
        return size if self._buffer else max(1, size * (self._number + 1) // self._stream.num_lanes)


class _LaneTokens:
    """The tokens of one lane from a place on, once through."""

    def __init__(self, stream: BlockStream, number: int, begin: _Place) -> None:
        self._stream = stream
        # Its own view: a state that was loaded once stays with a data set.
        self._documents = stream.documents.shard(num_shards=stream.num_lanes, index=number)
        if begin.documents is not None:
            self._documents.load_state_dict(begin.documents)
        self._rows = iter(self._documents)
        # A file that is open in a generator cannot be closed in good order while the interpreter shuts down.
        weakref.finalize(self, self._rows.close)
        self._state = begin.documents  # of the documents, after those that were read
        # What was read and is not used up: the state before each batch of documents, and its tokens.
        self._batches: deque[tuple[dict[str, Any] | None, NDArray[np.int32]]] = deque()
        self._num_tokens = 0
        self._skip = 0  # tokens of the first batch that are used up
        while self._num_tokens < begin.skip:
            if not self._read_batch():
                raise UserError(
                    f"the documents of lane {number} end before the place where the run was interrupted, so they have "
                    "changed; resume with the data that it began with."
                )
        self._use_up(begin.skip)

    def place(self) -> _Place:
        """Where the next block will begin."""
        return _Place(self._batches[0][0], self._skip) if self._batches else _Place(self._state, 0)

    def read_blocks(self, max_blocks: int) -> NDArray[np.int32]:
        """The next blocks, of shape (blocks, block_size + 1): fewer, down to none, where the documents end."""
        size = self._stream.block_size
        while self._num_tokens < max_blocks * size + 1 and self._read_batch():
            pass
        num_blocks = min(max_blocks, max(0, self._num_tokens - 1) // size)
        if not num_blocks:
            return np.empty((0, size + 1), dtype=np.int32)
        # The first batch alone may be a long book, of which one buffer takes a little.
        (_, first), *others = self._batches
        first = first[self._skip :][: num_blocks * size + 1]
        tokens = np.concatenate([first, *(tokens for _, tokens in others)])
        starts = np.arange(num_blocks)[:, None] * size
        blocks = tokens[starts + np.arange(size + 1)]
        self._use_up(num_blocks * size)
        return blocks

    def _read_batch(self) -> bool:
        texts = [row["text"] for row in islice(self._rows, DOCUMENTS_PER_BATCH)]
        if not texts:
            return False
        documents = encode_texts(texts, self._stream.encode_batch, self._stream.end_of_text_id)
        tokens = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in documents])
        self._batches.append((self._state, tokens))
        self._num_tokens += len(tokens)
        self._state = self._documents.state_dict()
        return True

    def _use_up(self, num_tokens: int) -> None:
        self._num_tokens -= num_tokens
        self._skip += num_tokens
        while self._batches and self._skip >= len(self._batches[0][1]):
            self._skip -= len(self._batches.popleft()[1])

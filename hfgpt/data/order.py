"""The order of examples: a pure function of (seed, epoch, global sample index), and of nothing else.

How many processes share the work, how many workers load it and where a run was resumed do not enter. The order of an
epoch sorts the samples by random 64-bit keys, read raw from NumPy's Philox generator keyed by (seed, epoch): the raw
stream of a bit generator is what NumPy promises to keep between versions (NEP 19), `Generator.permutation` is not.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from hfgpt.errors import UserError

__all__ = ["EpochOrder", "LengthGroupedOrder", "StepSampler", "random_permutation", "sample_indices"]


class EpochOrder:
    """The permutations of `length` samples under one seed, one for each epoch; it keeps the last one it made.

    Args:
        seed: 0 to 2^64 - 1.
        length: number of samples of an epoch; a permutation takes 8 bytes for each.
        shuffle: False gives the natural order in every epoch.
    """

    def __init__(self, *, seed: int, length: int, shuffle: bool = True) -> None:
        if not 0 <= seed < 2**64:
            raise UserError(f"the seed of the order is {seed}; it must lie between 0 and 2^64 - 1.")
        self.seed = seed
        self.length = length
        self.shuffle = shuffle

    def indices(self, epoch: int) -> NDArray[np.int64]:
        """All indices from 0 to `length - 1`, in the order of this epoch; read-only."""
        if not self.shuffle:
            return np.arange(self.length, dtype=np.int64)
        return _permutation(self.seed, epoch, self.length)


@lru_cache(maxsize=1)
def _permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    order = random_permutation(length, key=(seed, epoch))
    order.flags.writeable = False
    return order


def random_permutation(length: int, *, key: tuple[int, int], stream: tuple[int, int] = (0, 0)) -> NDArray[np.int64]:
    """A permutation of `range(length)` that is a function of the four numbers, each from 0 to 2^64 - 1.

    `key` is the key of the Philox generator, and `stream` the upper half of the counter at which it begins: different
    streams under one key are parts of its period that no draw reaches from another one.
    """
    generator = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=np.array([0, 0, *stream], dtype=np.uint64))
    return np.argsort(generator.random_raw(length), kind="stable").astype(np.int64, copy=False)


class LengthGroupedOrder(EpochOrder):
    """Orders in which each batch holds samples of similar length, so that little of it is padding.

    The samples of an epoch are drawn as without lengths; so many of them as fill `WINDOW` batches are sorted by length
    and cut into batches, and the batches of the whole epoch are shuffled. Which samples an epoch drops does not change.

    Args:
        lengths: Of each sample; ties keep the order in which the samples were drawn.
        batch_size: Samples of a batch.
    """

    WINDOW = 50

    def __init__(self, *, seed: int, lengths: Sequence[int], batch_size: int) -> None:
        super().__init__(seed=seed, length=len(lengths))
        self.lengths, self.batch_size = np.asarray(lengths), batch_size
        self._last: tuple[int, NDArray[np.int64]] | None = None

    def indices(self, epoch: int) -> NDArray[np.int64]:
        if self._last is None or self._last[0] != epoch:
            self._last = (epoch, self._grouped(epoch))
        return self._last[1]

    def _grouped(self, epoch: int) -> NDArray[np.int64]:
        drawn, window = super().indices(epoch), self.WINDOW * self.batch_size
        whole = len(drawn) // self.batch_size * self.batch_size
        windows = np.split(drawn[:whole], range(window, whole, window))
        by_length = [samples[np.argsort(self.lengths[samples], kind="stable")] for samples in windows]
        batches = np.concatenate(by_length).reshape(-1, self.batch_size)
        shuffled = batches[random_permutation(len(batches), key=(self.seed, epoch), stream=(1, 0))]
        return np.concatenate([shuffled.ravel(), drawn[whole:]])


def sample_indices(
    seed: int, epoch: int, length: int, start: int, stop: int, *, shuffle: bool = True
) -> NDArray[np.int64]:
    """The indices of the samples that stand from `start` to `stop` in the order of an epoch of `length` samples."""
    return EpochOrder(seed=seed, length=length, shuffle=shuffle).indices(epoch)[start:stop]


class StepSampler(torch.utils.data.Sampler[list[int]]):
    """Batches of sample indices for one rank; all ranks together take the global batches in order.

    Global batch k of an epoch is the k-th slice of `global_batch_size` in the order of that epoch, and rank r of n
    takes the r-th of its n contiguous parts. The samples at the end of an epoch that do not fill a global batch are
    dropped in that epoch (shuffled, the next one drops others). Usable as the `batch_sampler` of a `DataLoader`.

    Args:
        length: number of samples in the data set.
        global_batch_size: samples that all ranks together take in one step.
        seed: see `EpochOrder`.
        rank: which part this process takes.
        num_ranks: number of processes.
        shuffle: False takes the samples in their natural order.
        lengths: of each sample, if the batches are to hold samples of similar length (`LengthGroupedOrder`).
        epochs: stop after so many; None never stops.
        start_sample: samples that all ranks together have taken already; where a resumed run goes on.

    Raises:
        UserError: sizes that do not divide, or less data than one global batch.
    """

    def __init__(
        self,
        length: int,
        *,
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        shuffle: bool = True,
        lengths: Sequence[int] | None = None,
        epochs: int | None = None,
        start_sample: int = 0,
    ) -> None:
        if num_ranks < 1 or not 0 <= rank < num_ranks:
            raise UserError(f"there is no rank {rank} among {num_ranks} processes.")
        if global_batch_size < 1 or global_batch_size % num_ranks:
            raise UserError(
                f"a global batch of {global_batch_size} samples cannot be shared evenly by {num_ranks} processes; "
                "choose a batch size that is a multiple of their number."
            )
        if length < global_batch_size:
            raise UserError(
                f"there are {length} samples, fewer than the {global_batch_size} of one global batch; "
                "give more data, or choose a smaller batch or block size."
            )
        if start_sample < 0 or start_sample % global_batch_size:
            raise UserError(
                f"a run cannot start at sample {start_sample} with a global batch of {global_batch_size}; "
                "resume with the batch size that the run began with."
            )
        self.order = EpochOrder(seed=seed, length=length, shuffle=shuffle)
        if lengths is not None:
            self.order = LengthGroupedOrder(seed=seed, lengths=lengths, batch_size=global_batch_size)
        self.global_batch_size = global_batch_size
        self.rank = rank
        self.num_ranks = num_ranks
        self.epochs = epochs
        self.start_sample = start_sample

    @property
    def steps_per_epoch(self) -> int:
        return self.order.length // self.global_batch_size

    def __len__(self) -> int:
        """Batches still to come; a sampler without `epochs` has no length."""
        if self.epochs is None:
            raise TypeError("a StepSampler without epochs never ends and has no length")
        return max(0, self.epochs * self.steps_per_epoch - self.start_sample // self.global_batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start_sample // self.global_batch_size
        while self.epochs is None or step < self.epochs * self.steps_per_epoch:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> list[int]:
        """This rank's part of the global batch of `step`, counted from the beginning of the first epoch."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        part = self.global_batch_size // self.num_ranks
        start = step_of_epoch * self.global_batch_size + self.rank * part
        return self.order.indices(epoch)[start : start + part].tolist()

"""The order of examples: the same for any number of processes and any point of resumption."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgpt.data import EpochOrder, StepSampler, sample_indices
from hfgpt.data.order import LengthGroupedOrder, random_permutation
from hfgpt.errors import UserError


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), length=st.integers(0, 200))
def test_an_epoch_visits_every_sample_once(seed, epoch, length):
    order = EpochOrder(seed=seed, length=length).indices(epoch)
    assert sorted(order.tolist()) == list(range(length))


def test_the_order_is_frozen():
    # NumPy keeps the raw stream of Philox between versions; a change here would change every resumed run.
    assert sample_indices(0, 0, 10, 0, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert sample_indices(123, 7, 10, 0, 10).tolist() == [4, 8, 0, 6, 9, 7, 3, 5, 1, 2]


def test_seeds_and_epochs_give_different_orders():
    orders = {tuple(sample_indices(seed, epoch, 50, 0, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_first_places_are_taken_evenly():
    firsts = np.bincount([sample_indices(seed, 0, 8, 0, 1)[0] for seed in range(4000)], minlength=8)
    assert np.all(np.abs(firsts - 500) < 110)  # five standard deviations


def test_without_shuffling_the_order_is_natural():
    assert sample_indices(3, 2, 6, 1, 5, shuffle=False).tolist() == [1, 2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    length=st.integers(12, 60),
    num_ranks=st.sampled_from([1, 2, 3, 4, 6, 12]),
    shuffle=st.booleans(),
    steps=st.integers(1, 12),
)
def test_all_ranks_together_take_the_same_global_batches(seed, length, num_ranks, shuffle, steps):
    def batches(rank, ranks):
        sampler = StepSampler(
            length, global_batch_size=12, seed=seed, rank=rank, num_ranks=ranks, shuffle=shuffle, epochs=None
        )
        return list(islice(sampler, steps))

    alone = batches(0, 1)
    together = [batches(rank, num_ranks) for rank in range(num_ranks)]
    for step in range(steps):
        assert [index for rank in range(num_ranks) for index in together[rank][step]] == alone[step]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(4, 40), stopped_after=st.integers(0, 30), epochs=st.integers(1, 5))
def test_a_resumed_run_goes_on_where_it_stopped(length, stopped_after, epochs):
    whole = StepSampler(length, global_batch_size=4, seed=1, epochs=epochs)
    resumed = StepSampler(length, global_batch_size=4, seed=1, epochs=epochs, start_sample=4 * stopped_after)
    assert list(resumed) == list(whole)[stopped_after:]
    assert len(resumed) == len(list(resumed))


def test_an_epoch_drops_what_does_not_fill_a_global_batch_and_repeats_nothing():
    sampler = StepSampler(10, global_batch_size=4, seed=0, epochs=3)
    batches = list(sampler)
    assert sampler.steps_per_epoch == 2
    assert len(batches) == 6
    for epoch in range(3):
        expected = sample_indices(0, epoch, 10, 0, 8).tolist()
        assert batches[2 * epoch] + batches[2 * epoch + 1] == expected


def test_without_epochs_it_never_ends():
    sampler = StepSampler(4, global_batch_size=4, seed=0, epochs=None)
    assert len(list(islice(sampler, 1000))) == 1000
    with pytest.raises(TypeError, match="no length"):
        len(sampler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch_size": 6, "num_ranks": 4}, "cannot be shared evenly by 4"),
        ({"global_batch_size": 11}, "there are 10 samples, fewer than the 11"),
        ({"global_batch_size": 4, "start_sample": 6}, "cannot start at sample 6"),
        ({"global_batch_size": 4, "rank": 2, "num_ranks": 2}, "no rank 2 among 2"),
        ({"global_batch_size": 0}, "global batch of 0"),
        ({"global_batch_size": 4, "seed": -1}, "seed of the order is -1"),
    ],
)
def test_impossible_requests_are_named(options, message):
    with pytest.raises(UserError, match=message):
        StepSampler(10, **{"seed": 0, **options})


# ----------------------------------------------------------------------------------------------------------------------
# Batches of similar length
# ----------------------------------------------------------------------------------------------------------------------


def draw_lengths(count: int, seed: int = 0) -> list[int]:
    """Lengths like those of texts: many short ones, a few long ones."""
    return (1 + np.random.default_rng(seed).geometric(0.03, count)).tolist()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 1000),
    count=st.integers(1, 300),
    batch_size=st.integers(1, 12),
)
def test_an_epoch_by_length_visits_and_drops_the_samples_of_one_without_lengths(seed, epoch, count, batch_size):
    grouped = LengthGroupedOrder(seed=seed, lengths=draw_lengths(count, seed % 99), batch_size=batch_size)
    order, drawn = grouped.indices(epoch).tolist(), EpochOrder(seed=seed, length=count).indices(epoch).tolist()
    whole = count // batch_size * batch_size
    assert sorted(order) == list(range(count))
    assert set(order[:whole]) == set(drawn[:whole])


def test_the_order_by_length_is_a_function_of_seed_and_epoch():
    def make(seed: int = 0) -> LengthGroupedOrder:
        return LengthGroupedOrder(seed=seed, lengths=draw_lengths(60), batch_size=4)

    order = make()
    expected = [order.indices(epoch).tolist() for epoch in range(4)]
    assert [make().indices(epoch).tolist() for epoch in reversed(range(4))] == expected[::-1]
    assert [order.indices(epoch).tolist() for epoch in (2, 0, 2)] == [expected[epoch] for epoch in (2, 0, 2)]
    others = [make(seed).indices(0).tolist() for seed in range(1, 4)]
    assert len({tuple(one) for one in expected + others}) == 7


def test_the_order_by_length_is_frozen():
    order = LengthGroupedOrder(seed=0, lengths=[5, 1, 4, 2, 3, 9, 8, 6, 7, 5], batch_size=2)
    # By hand: the drawn order is that of test_the_order_is_frozen; its ten samples by length are these batches.
    batches = [(1, 3), (4, 2), (0, 9), (7, 8), (6, 5)]
    found = [tuple(batch) for batch in order.indices(0).reshape(-1, 2).tolist()]
    assert sorted(found) == sorted(batches)
    assert found == [batches[number] for number in random_permutation(5, key=(0, 0), stream=(1, 0))]


def test_each_epoch_makes_other_batches_in_an_order_that_does_not_follow_length():
    lengths, batch_size = draw_lengths(4000), 8  # ten windows
    order = LengthGroupedOrder(seed=0, lengths=lengths, batch_size=batch_size)
    epochs = [order.indices(epoch).reshape(-1, batch_size) for epoch in range(2)]
    batches = [{frozenset(batch) for batch in epoch.tolist()} for epoch in epochs]
    assert len(batches[0] & batches[1]) == 0
    for epoch in epochs:
        longest = np.asarray(lengths)[epoch].max(axis=1)
        correlation = np.corrcoef(longest[:-1], longest[1:])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(len(longest))


def padding_of(order, lengths, batch_size: int, epoch: int = 0) -> int:
    """Padding tokens of an epoch, of which no sample is dropped."""
    batches = np.asarray(lengths)[order.indices(epoch).reshape(-1, batch_size)]
    return int((batches.max(axis=1, keepdims=True) - batches).sum())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), batch_size=st.sampled_from([2, 8, 16]))
def test_batches_by_length_hold_little_padding(seed, batch_size):
    lengths = draw_lengths(100 * batch_size, seed)
    grouped = padding_of(LengthGroupedOrder(seed=seed, lengths=lengths, batch_size=batch_size), lengths, batch_size)
    # Sorted samples are padded to their batch's longest, which is no longer than the next batch's shortest. So the
    # padding of a window's batches, of `batch_size` samples each, sums to no more than the range of the lengths, as
    # often as a batch has samples besides its longest.
    num_windows = 100 / LengthGroupedOrder.WINDOW
    assert grouped <= num_windows * (batch_size - 1) * (max(lengths) - min(lengths))
    assert grouped < padding_of(EpochOrder(seed=seed, length=len(lengths)), lengths, batch_size) / 2


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    length=st.integers(12, 60),
    num_ranks=st.sampled_from([1, 2, 3, 4, 6, 12]),
    first=st.integers(0, 6),
)
def test_by_length_too_all_ranks_together_take_the_same_global_batches_from_any_step(seed, length, num_ranks, first):
    def batches(rank: int, ranks: int, start: int = 0) -> list[list[int]]:
        lengths = draw_lengths(length, seed)
        sampler = StepSampler(
            length,
            global_batch_size=12,
            seed=seed,
            rank=rank,
            num_ranks=ranks,
            lengths=lengths,
            start_sample=12 * start,
        )
        return list(islice(sampler, 8 - start))

    alone = batches(0, 1)
    together = [batches(rank, num_ranks, first) for rank in range(num_ranks)]
    for step in range(first, 8):
        assert [index for part in together for index in part[step - first]] == alone[step]

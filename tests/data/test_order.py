"""The order of examples: the same for any number of processes and any point of resumption."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgpt.data import EpochOrder, StepSampler, sample_indices
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

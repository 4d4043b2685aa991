"""Encoded conversations become batches, padded or packed: every token is judged where it should be, and once."""

import itertools
import random
from typing import NamedTuple

import pytest
import torch

from hfgpt.data.conversation_batches import EncodedConversations, collate_conversations, pack_conversations
from hfgpt.errors import UserError


class Encoded(NamedTuple):
    input_ids: list[int]
    bears_loss: list[bool]


def encoded(*conversations: list[int], prompt: int = 0) -> EncodedConversations:
    """Conversations whose tokens bear loss after the first few, which are the prompt."""
    return EncodedConversations([Encoded(ids, [place >= prompt for place in range(len(ids))]) for ids in conversations])


def random_conversations(number: int, longest: int, seed: int = 0) -> EncodedConversations:
    chance = random.Random(seed)
    lengths = [chance.randint(2, longest) for _ in range(number)]
    return encoded(*([chance.randrange(1, 97) for _ in range(length)] for length in lengths), prompt=2)


# --- Items ------------------------------------------------------------------------------------------------------------


def test_labels_are_the_tokens_that_bear_loss() -> None:
    conversations = EncodedConversations(
        [Encoded([5, 6, 7, 8], [False, False, True, True]), Encoded([9, 4], [True, True])]
    )
    first, second = conversations[0], conversations[1]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["input_ids"].tolist() == [5, 6, 7, 8]
    assert first["labels"].tolist() == [-100, -100, 7, 8]
    assert second["labels"].tolist() == [-100, 4]  # nothing precedes the first
    assert first["input_ids"].dtype == first["labels"].dtype == torch.int64
    assert conversations.lengths.tolist() == [4, 2]
    assert conversations.num_targets == 3
    assert len(conversations) == 2
    with pytest.raises(IndexError):
        conversations[2]


def test_the_fingerprint_tells_tokens_masks_and_their_order_apart() -> None:
    masks = ([False, True, True], [False, False, True])
    sets = [
        [Encoded([1, 2, 3], masks[0]), Encoded([4, 5, 6], masks[0])],
        [Encoded([4, 5, 6], masks[0]), Encoded([1, 2, 3], masks[0])],
        [Encoded([1, 2, 3], masks[0]), Encoded([4, 5, 6], masks[1])],
        [Encoded([1, 2], masks[0][:2]), Encoded([3, 4, 5, 6], [False, True, True, True])],
    ]
    fingerprints = [EncodedConversations(conversations).fingerprint() for conversations in sets]
    assert len(set(fingerprints)) == len(sets)
    assert EncodedConversations(sets[0]).fingerprint() == fingerprints[0]


@pytest.mark.parametrize("one", [Encoded([1], [True]), Encoded([1, 2], [True]), Encoded([], [])])
def test_what_cannot_be_judged_is_refused(one: Encoded) -> None:
    with pytest.raises(ValueError, match="Conversation 2 has"):
        EncodedConversations([Encoded([1, 2], [False, True]), one])


# --- Padding ----------------------------------------------------------------------------------------------------------


def test_targets_are_those_of_the_books_collate() -> None:
    """Section 7.3: the three lists of its example, 50256 as end and as padding."""
    conversations = encoded([0, 1, 2, 3, 4, 50256], [5, 6, 50256], [7, 8, 9, 50256])
    batch = collate_conversations([conversations[index] for index in range(3)], pad_token_id=50256)
    assert batch.keys() == {"input_ids", "shift_labels"}
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3, 4], [5, 6, 50256, 50256, 50256], [7, 8, 9, 50256, 50256]]
    assert batch["shift_labels"].tolist() == [
        [1, 2, 3, 4, 50256],
        [6, 50256, -100, -100, -100],
        [8, 9, 50256, -100, -100],
    ]


def test_batches_are_those_of_the_books_own_function() -> None:
    book = pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    chance = random.Random(1)
    texts = [[chance.randrange(50256) for _ in range(chance.randint(1, 20))] for _ in range(7)]
    inputs, targets = book.custom_collate_fn(texts)
    conversations = encoded(*([*ids, 50256] for ids in texts))
    batch = collate_conversations([conversations[index] for index in range(7)], pad_token_id=50256)
    assert torch.equal(batch["input_ids"], inputs)
    assert torch.equal(batch["shift_labels"], targets)


def test_every_target_is_judged_once_by_the_token_before_it() -> None:
    conversations = random_conversations(20, longest=12)
    batch = collate_conversations([conversations[index] for index in range(20)], pad_token_id=0)
    assert int((batch["shift_labels"] != -100).sum()) == conversations.num_targets
    for row in range(20):
        ids, labels = conversations[row]["input_ids"], conversations[row]["labels"]
        length = len(ids) - 1
        assert torch.equal(batch["input_ids"][row, :length], ids[:-1])
        assert torch.equal(batch["shift_labels"][row, :length], labels[1:])
        assert set(batch["input_ids"][row, length:].tolist()) <= {0}
        assert set(batch["shift_labels"][row, length:].tolist()) <= {-100}


# --- Packing ----------------------------------------------------------------------------------------------------------


def test_each_conversation_stands_whole_in_one_row() -> None:
    conversations = random_conversations(200, longest=40)
    packed = pack_conversations(conversations, row_length=64, seed=3)
    assert sorted(itertools.chain(*packed.rows)) == list(range(200))
    assert packed.lengths.max() <= 64
    assert packed.lengths.sum() == conversations.lengths.sum()
    assert packed.num_targets == conversations.num_targets
    for number, row in enumerate(packed.rows):
        item = packed[number]
        assert len(item["input_ids"]) == packed.lengths[number]
        starts = (item["position_ids"] == 0).nonzero().squeeze(1).tolist()
        parts = zip(row, starts, [*starts[1:], len(item["input_ids"])], strict=True)
        for index, start, stop in parts:
            assert torch.equal(item["input_ids"][start:stop], conversations[index]["input_ids"])
            assert torch.equal(item["labels"][start:stop], conversations[index]["labels"])
            assert item["position_ids"][start:stop].tolist() == list(range(stop - start))


@pytest.mark.parametrize(
    ("lengths", "row_length", "fewest"),
    [([6, 5, 5, 4], 10, 2), ([10, 10], 10, 2), ([3] * 7, 10, 3), ([7, 6, 5, 5, 4, 3], 10, 3), ([2], 10, 1)],
)
def test_rows_are_as_few_as_can_be(lengths: list[int], row_length: int, fewest: int) -> None:
    conversations = encoded(*([1] * length for length in lengths))
    assert len(pack_conversations(conversations, row_length, seed=0)) == fewest


def test_many_short_conversations_leave_next_to_no_room() -> None:
    conversations = random_conversations(5000, longest=90)
    packed = pack_conversations(conversations, row_length=256, seed=0)
    assert conversations.lengths.sum() / (len(packed) * 256) > 0.995


def test_rows_depend_on_the_seed_alone() -> None:
    conversations = random_conversations(100, longest=20)
    rows = {seed: pack_conversations(conversations, 32, seed).rows for seed in (1, 2)}
    assert pack_conversations(conversations, 32, seed=1).rows == rows[1]
    assert rows[1] != rows[2]
    fingerprints = {pack_conversations(conversations, length, 1).fingerprint() for length in (32, 33, 32)}
    assert len(fingerprints) == 2


def test_a_packed_batch_has_positions_that_restart_at_each_conversation_and_in_the_padding() -> None:
    conversations = encoded([1, 2, 3, 4, 5], [6, 7, 8], [9, 10], prompt=1)
    packed = pack_conversations(conversations, row_length=8, seed=0)
    batch = collate_conversations([packed[index] for index in range(len(packed))], pad_token_id=0)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7], [9, 0, 0, 0, 0, 0, 0]]
    assert batch["shift_labels"].tolist() == [[2, 3, 4, 5, -100, 7, 8], [10, *[-100] * 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1], [0] * 7]
    assert {value.shape for value in batch.values()} == {(2, 7)}


def test_a_conversation_longer_than_a_row_is_named() -> None:
    with pytest.raises(UserError, match="conversation 2 has 9 tokens, more than a packed row of 8"):
        pack_conversations(encoded([1, 2], [1] * 9), row_length=8, seed=0)


def test_packing_refuses_no_empty_set() -> None:
    assert len(pack_conversations(EncodedConversations([]), row_length=8, seed=0)) == 0

"""Blocks of tokens against plain slices of the token list."""

import pickle
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgpt.data import TokenBlocks, check_token_ids, encode_documents, load_text, stream_blocks, token_chunks
from hfgpt.errors import UserError

END = 256


def encode_bytes(texts: list[str]) -> list[list[int]]:
    return [list(text.encode("utf-8")) for text in texts]


def encode_shifted(texts: list[str], shift: int) -> list[list[int]]:
    return [[id_ + shift for id_ in ids] for ids in encode_bytes(texts)]


def documents(texts):
    return datasets.Dataset.from_dict({"text": list(texts)})


def encoded(texts, end=END) -> datasets.Dataset:
    return encode_documents(documents(texts), encode_bytes, end_of_text_id=end)


def stream_of(texts, end=END) -> list[int]:
    return [id_ for text in texts for id_ in [*text.encode("utf-8"), *([] if end is None else [end])]]


TEXTS = ["It was a rainy day.", "é", "A longer text, " * 20, "x", "The end."] * 3


@pytest.mark.parametrize("end", [END, None])
def test_encoding_appends_the_end_of_text_and_counts_bytes(end):
    dataset = encoded(TEXTS, end)
    assert dataset.column_names == ["input_ids", "num_bytes"]
    assert [id_ for row in dataset for id_ in row["input_ids"]] == stream_of(TEXTS, end)
    assert dataset["num_bytes"][:] == [len(text.encode("utf-8")) for text in TEXTS]


def test_encoding_is_cached_by_encoder_end_of_text_and_text(tmp_path):
    (tmp_path / "data.csv").write_text("text\n" + "\n".join(f"line {number}" for number in range(40)))
    dataset = load_text(str(tmp_path / "data.csv"))

    def files(encode_batch, end):
        return encode_documents(dataset, encode_batch, end_of_text_id=end).cache_files

    one = files(partial(encode_shifted, shift=1), 300)
    assert one
    assert one == files(partial(encode_shifted, shift=1), 300)
    assert one != files(partial(encode_shifted, shift=2), 300)
    assert one != files(partial(encode_shifted, shift=1), 301)
    (tmp_path / "data.csv").write_text("text\nother\n")
    dataset = load_text(str(tmp_path / "data.csv"))
    assert one != files(partial(encode_shifted, shift=1), 300)


def test_encoding_with_processes_gives_the_same_tokens():
    one = encoded(TEXTS)
    two = encode_documents(documents(TEXTS), encode_bytes, end_of_text_id=END, num_proc=2)
    assert one.to_dict() == two.to_dict()


@pytest.mark.parametrize("block_size", [1, 4, 7, 64])
@pytest.mark.parametrize("stride", [None, 1, 3, 64, 70])
def test_windows_are_those_of_the_book(block_size, stride):
    tokens = stream_of(TEXTS)
    blocks = TokenBlocks(encoded(TEXTS), block_size=block_size, stride=stride)
    starts = range(0, len(tokens) - block_size, stride or block_size)
    assert len(blocks) == len(starts)
    covered, targets = set(), set()
    for index, start in enumerate(starts):
        block = blocks[index]
        assert block["input_ids"].tolist() == tokens[start : start + block_size]
        assert block["shift_labels"].tolist() == tokens[start + 1 : start + block_size + 1]
        assert block["input_ids"].dtype == block["shift_labels"].dtype == torch.int64
        targets |= set(range(start + 1, start + block_size + 1))
        covered |= set(range(start, start + block_size + 1))
    assert blocks.num_tokens == len(tokens)
    assert blocks.num_tokens_left_out == len(tokens) - len(covered)
    assert blocks.target_positions().tolist() == sorted(targets)
    with pytest.raises(IndexError):
        blocks[len(blocks)]


def test_no_target_is_lost_between_packed_blocks():
    tokens = stream_of(TEXTS)
    blocks = TokenBlocks(encoded(TEXTS), block_size=16)
    targets = torch.cat([blocks[index]["shift_labels"] for index in range(len(blocks))])
    assert targets.tolist() == tokens[1 : len(tokens) - blocks.num_tokens_left_out]


def test_blocks_read_the_memory_mapped_file_and_travel_to_workers_without_the_tokens(tmp_path):
    (tmp_path / "data.txt").write_text("0123456789" * 50_000)
    dataset = encode_documents(load_text(str(tmp_path / "data.txt")), encode_bytes, end_of_text_id=None)
    assert dataset.cache_files
    chunks = token_chunks(dataset)
    assert not any(chunk.flags.owndata or chunk.flags.writeable for chunk in chunks)
    blocks = TokenBlocks(dataset, block_size=100)
    wire = pickle.dumps(blocks)
    assert len(wire) < 100_000
    assert pickle.loads(wire)[37]["input_ids"].tolist() == blocks[37]["input_ids"].tolist()


def test_data_sets_in_several_chunks_slices_and_selections_give_their_own_tokens():
    parts = [encoded(TEXTS[:4]), encoded(TEXTS[4:9]), encoded(TEXTS[9:])]
    joined = datasets.concatenate_datasets(parts)
    assert len(token_chunks(joined)) == 3
    cases = {
        "joined": (joined, TEXTS),
        "sliced": (joined.select(range(2, 11)), TEXTS[2:11]),
        "selected": (joined.select([7, 2, 2, 13]), [TEXTS[i] for i in (7, 2, 2, 13)]),
        "sliced selection": (joined.select([9, 8, 2, 1]).select(range(1, 3)), [TEXTS[8], TEXTS[2]]),
    }
    for name, (dataset, texts) in cases.items():
        tokens = stream_of(texts)
        blocks = TokenBlocks(dataset, block_size=5, stride=2)
        assert [blocks[i]["input_ids"].tolist() for i in range(len(blocks))] == [
            tokens[start : start + 5] for start in range(0, len(tokens) - 5, 2)
        ], name


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text("abé", max_size=20), min_size=1, max_size=12),
    block_size=st.integers(1, 9),
    documents_per_batch=st.integers(1, 5),
    end=st.sampled_from([END, None]),
)
def test_a_stream_gives_the_blocks_of_the_finite_data_set(texts, block_size, documents_per_batch, end):
    tokens = stream_of(texts, end)
    streamed = list(
        stream_blocks(
            documents(texts).to_iterable_dataset(),
            encode_bytes,
            end_of_text_id=end,
            block_size=block_size,
            documents_per_batch=documents_per_batch,
        )
    )
    if len(tokens) <= block_size:
        assert streamed == []
        return
    finite = TokenBlocks(encoded(texts, end), block_size=block_size)
    assert len(streamed) == len(finite)
    for index, block in enumerate(streamed):
        for key in ("input_ids", "shift_labels"):
            assert torch.equal(block[key], finite[index][key])


def test_too_few_tokens_name_both_numbers():
    with pytest.raises(UserError, match="text has 5 tokens, and one block of 5 takes 6"):
        TokenBlocks(encoded(["four"]), block_size=5)
    assert len(TokenBlocks(encoded(["four"]), block_size=4)) == 1
    with pytest.raises(UserError, match="at least 1"):
        TokenBlocks(encoded(["four"]), block_size=0)
    with pytest.raises(UserError, match="at least 1"):
        next(stream_blocks(documents(["four"]).to_iterable_dataset(), encode_bytes, end_of_text_id=END, block_size=0))


def test_token_ids_outside_the_vocabulary_are_named():
    check_token_ids(encoded(TEXTS), 257)
    check_token_ids(np.array([0, 4]), 5)
    check_token_ids(np.array([], dtype=np.int64), 5)
    with pytest.raises(UserError, match="token id 256 lies outside the vocabulary of 256 tokens"):
        check_token_ids(encoded(TEXTS), 256)
    with pytest.raises(UserError, match="token id 5 lies outside"):
        check_token_ids(np.array([0, 5, 2]), 5)
    with pytest.raises(UserError, match="token id -100 lies outside"):
        check_token_ids(np.array([0, -100]), 5)

"""Training a vocabulary."""

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from transformers import PreTrainedTokenizerFast

from hfgpt.bulk_encoding import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE
from hfgpt.errors import UserError
from hfgpt.tokenization import (
    END_OF_TEXT,
    GPT2_PATTERN,
    TextEncoder,
    bulk_encoding,
    load_tokenizer,
    train_tokenizer,
)


def test_training_is_deterministic_and_lays_out_bytes_then_merges_then_end_of_text(
    trained: PreTrainedTokenizerFast, nested_texts: list[str]
) -> None:
    again = train_tokenizer((text for text in nested_texts), 300)
    assert (
        json.loads(again.backend_tokenizer.to_str())["model"] == json.loads(trained.backend_tokenizer.to_str())["model"]
    )
    vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    assert vocabulary[:256] == sorted(BYTE_OF_CHARACTER)
    assert vocabulary[-1] == END_OF_TEXT
    assert len(trained) == trained.vocab_size == 300
    assert [trained.get_vocab()[token] for token in vocabulary] == list(range(300))


def test_each_learned_merge_was_the_most_frequent_pair_of_its_moment(
    trained: PreTrainedTokenizerFast, nested_texts: list[str]
) -> None:
    words = Counter(word for text in nested_texts for word in regex.findall(GPT2_PATTERN, text))
    parts_of = {word: [bytes([byte]) for byte in word.encode()] for word in words}
    by_rank = sorted(bulk_encoding(trained)._mergeable_ranks.items(), key=lambda item: item[1])
    for token, _ in by_rank[256:]:
        counts: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in parts_of.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        assert max(count for pair, count in counts.items() if b"".join(pair) == token) == max(counts.values())
        for parts in parts_of.values():
            position = 0
            while position < len(parts) - 1:
                if parts[position] + parts[position + 1] == token:
                    parts[position : position + 2] = [token]
                position += 1


def test_a_word_without_end_is_learned_from_in_parts_and_shorter_words_whole() -> None:
    """Training looks at a word again for each merge in it, and takes minutes for one of a few 100,000 characters."""
    draw = random.Random(0)
    genome = "".join(draw.choices("ACGT", k=300_000))
    parts = [genome[start : start + 1000] for start in range(0, len(genome), 1000)]
    vocabulary = train_tokenizer(parts, 300).get_vocab()
    assert train_tokenizer([genome], 300).get_vocab() == vocabulary
    halves = [part[start : start + 500] for part in parts for start in (0, 500)]
    assert train_tokenizer(halves, 300).get_vocab() != vocabulary


@pytest.mark.parametrize("character", ["a", " ", "\n", "中", "\u0301", "\0"], ids=ascii)
def test_a_million_times_one_character_is_learned_from(character: str) -> None:
    text = character * 1_000_000
    tokenizer = train_tokenizer([text], 260)
    assert tokenizer.decode(TextEncoder(tokenizer)([text])[0]) == text


def test_the_smallest_vocabulary_is_the_bytes_and_end_of_text() -> None:
    tokenizer = train_tokenizer(["any text at all"], 257)
    assert tokenizer("é")["input_ids"] == [
        sorted(BYTE_OF_CHARACTER).index(CHARACTER_OF_BYTE[byte]) for byte in "é".encode()
    ]
    assert tokenizer.eos_token_id == 256


def test_split_digits_are_tokens_of_their_own_in_both_engines_and_after_saving(tmp_path: Path) -> None:
    texts = ["In 1984 there were 1984 of 1984.", "27 + 27 = 54, said 27", "the 27th of the 27 ٢٧ ٢٧ ٢٧"] * 9
    merged, split = train_tokenizer(texts, 275), train_tokenizer(texts, 275, split_digits=True)
    split.save_pretrained(tmp_path)
    for tokenizer in (split, load_tokenizer(tmp_path)):
        text = "27 + 1984=2011 and ٢٧, 27th"
        ids = tokenizer(text)["input_ids"]
        tokens = [tokenizer.decode([id]) for id in ids]
        assert all(sum(character.isdigit() for character in token) <= 1 for token in tokens)
        assert {" 1", "9", "8", "4", " 2", "7"} <= set(tokens)
        assert tokenizer.decode(ids) == text
        assert TextEncoder(tokenizer)([text]) == [ids]  # tiktoken's engine
    assert any(sum(character.isdigit() for character in token) > 1 for token in merged.get_vocab())


def test_training_reads_text_with_lone_surrogates(caplog: pytest.LogCaptureFixture) -> None:
    train_tokenizer(["broken \ud800 text"], 257)
    assert "1 lone surrogates" in caplog.text


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        (["some text"], 256, "257 or more"),
        ([], 300, "no text"),
        (["", ""], 300, "no text"),
        (["ab ab"], 300, "only 258.*ask for 258 or fewer"),
        ("one string", 300, "list of documents"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_sentence(texts: list[str], vocab_size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_tokenizer(texts, vocab_size)

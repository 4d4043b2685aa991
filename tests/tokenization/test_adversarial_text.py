"""Text that breaks tokenizers: both engines give the same ids, and the text comes back, whatever it is."""

import random
from collections.abc import Callable

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfgpt.bulk_encoding import ADVERSARIAL_TEXTS
from hfgpt.tokenization import END_OF_TEXT, TextEncoder, replace_lone_surrogates, train_tokenizer

WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000"
PIECES = (
    *WHITE_SPACE,
    "\r\n",
    "  \n",
    "the",
    " cat",
    "'s",
    "'LL",
    "\u2019t",
    "12",
    "½",
    "\u0663",
    END_OF_TEXT,
    "<|endoftext|",
    "<|im_start|>",
    "[UNK]",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467",  # a family: three emoji and two joiners
    "\U0001f44d\U0001f3fd",  # an emoji with a skin tone
    "\U0001f1fa\U0001f1f3",  # a flag: two letters
    "\u2603\ufe0f",
    "中文",
    "かな",
    "한국",
    "\u202e\u05e2\u05d1\u05e8\u05d9\u05ea\u202c",  # right to left, and back
    "\u0627\u0644\u0639\u064e",
    "हि",
    "e\u0301",
    "\u0301\u0302\u0303",
    *"\x00\x01\x1b\x1c\x1f\x7f\xad\u180e\u200b\u2060\ufeff\ufffd\ufffe\uffff",
    "\ue000",
    "\U000f0000",
    "\U0010ffff",
    "\u0378",  # assigned to nothing yet
    "\U000e0041",
)
WELL_FORMED = st.characters(exclude_categories=["Cs"])
RUNS = st.builds(lambda piece, count: piece * count, st.sampled_from(PIECES), st.integers(1, 40))
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), RUNS, st.text(WELL_FORMED, max_size=8)), max_size=30).map("".join)


@pytest.fixture(scope="module")
def learned_from_adversarial_text() -> PreTrainedTokenizerFast:
    """Merges where other vocabularies have none: in emoji, controls and white space of all kinds."""
    draw = random.Random(0)
    return train_tokenizer(["".join(draw.choices(PIECES, k=400)) for _ in range(40)], 1100)


@pytest.fixture(scope="module", params=["gpt2", "learned_from_adversarial_text"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> TextEncoder:
    encoder = TextEncoder(tokenizer)
    assert encoder.engine == "tiktoken"
    return encoder


@pytest.fixture(scope="module")
def check(tokenizer: PreTrainedTokenizerFast, encoder: TextEncoder) -> Callable[[str], None]:
    """Compares the ids of both engines, and the text with what comes back."""

    def check_text(text: str) -> None:
        (ids,) = encoder([text])
        assert ids == tokenizer(text, verbose=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_token_id not in ids

    return check_text


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_both_engines_agree_and_the_text_comes_back(check: Callable[[str], None], text: str) -> None:
    check(text)


def test_the_texts_that_every_vocabulary_is_tried_on_come_back(check: Callable[[str], None]) -> None:
    for text in ADVERSARIAL_TEXTS:
        check(text)


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.one_of(TEXTS, st.text(st.characters(categories=["Cs"]), max_size=3)), max_size=5).map("".join))
def test_all_but_lone_surrogates_comes_back(
    tokenizer: PreTrainedTokenizerFast, encoder: TextEncoder, text: str
) -> None:
    clean, num_replaced = replace_lone_surrogates(text)
    assert tokenizer.decode(encoder([text])[0]) == clean
    assert clean == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert clean.count("\ufffd") == text.count("\ufffd") + num_replaced


def test_every_character_of_unicode_is_encoded_alike_and_comes_back(check: Callable[[str], None]) -> None:
    check("".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000))


@pytest.mark.parametrize("kind", [r"\p{L}", r"\p{N}", r"\s"])
def test_both_engines_know_the_same_letters_digits_and_white_space(kind: str) -> None:
    """Were one built with a newer Unicode, it would cut text with new letters elsewhere, and ids might differ."""
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    bytes_only = {bytes([byte]): byte for byte in range(256)}
    matched = tiktoken.Encoding("kind", pat_str=kind, mergeable_ranks=bytes_only, special_tokens={})
    others = pre_tokenizers.Split(Regex(kind), behavior="removed").pre_tokenize_str(every)
    characters = set(bytes(matched.encode_ordinary(every)).decode())
    assert characters == set(every) - set("".join(part for part, _ in others))
    assert len(characters) >= {r"\p{L}": 141_028, r"\p{N}": 1911, r"\s": 25}[kind]  # as of Unicode 16


@pytest.mark.parametrize("character", ["a", "!", "1", "\n", "中", "\U0001f44d", "\u0301", "\0", "'"], ids=ascii)
def test_a_character_repeated_without_end_is_one_word_like_another(
    check: Callable[[str], None], character: str
) -> None:
    check(character * 200_000)


@pytest.mark.parametrize("white_space", [" ", "\r\n\u3000"], ids=ascii)
def test_a_million_white_space_characters_are_encoded(gpt2: PreTrainedTokenizerFast, white_space: str) -> None:
    """More than tiktoken's engine for regular expressions can go back over: alone it would end the process."""
    text = f"x{white_space * (1_000_100 // len(white_space))}x"
    (ids,) = TextEncoder(gpt2)([text])
    assert ids == gpt2(text, verbose=False)["input_ids"]
    assert gpt2.decode(ids) == text


@pytest.mark.slow
@pytest.mark.parametrize("line", ["words", "one word", "one genome", "ideographs", "special-looking", "white space"])
def test_ten_megabytes_in_one_line_are_encoded(check: Callable[[str], None], line: str) -> None:
    draw = random.Random(0)
    size = 10_000_000
    texts = {
        "words": lambda: "the cat sat on the mat, " * (size // 24),
        "one word": lambda: "a" * size,
        "one genome": lambda: "".join(draw.choices("acgt", k=size)),
        "ideographs": lambda: "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(size // 3)),
        "special-looking": lambda: END_OF_TEXT * (size // 13),
        "white space": lambda: "".join(draw.choices(" \t\r\u3000\xa0", k=size // 2)) + "x",
    }
    check(texts[line]())

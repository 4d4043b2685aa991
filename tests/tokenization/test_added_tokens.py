"""Tokens added to a tokenizer: of text, and special ones, in both engines, saved and loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from hfgpt.errors import UserError
from hfgpt.tokenization import (
    END_OF_TEXT,
    TextEncoder,
    extend_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

WORDS = ["Lind", "Lindale", " the mill", "naïve", "café", "日本", "text", "a.b*c?", "\U0001f44d\U0001f3fd", "zq\n"]
SPECIAL_WORDS = ["<|im_start|>", "<|im_end|>", "<|début|>"]
TEXT = f"The naïve café in Lindale, Linda; the mill a.b*c? axbc 日本語 \U0001f44d\U0001f3fd zq\n{END_OF_TEXT}<|im_end|>"


@pytest.fixture(scope="module")
def extended(trained: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return extend_tokenizer(trained, WORDS, SPECIAL_WORDS)[0]


@pytest.fixture(scope="module")
def bytes_only() -> PreTrainedTokenizerFast:
    """A tokenizer without merges, to which almost every token is new."""
    return train_tokenizer(["text"], 257)


def ids_by_plain_loop(
    base: PreTrainedTokenizerFast, ids_of_words: dict[str, int], special_words: list[str], text: str
) -> list[int]:
    """At each place the longest added token, special ones being passed over; ordinary ids of the text between them."""
    ids, start, place = [], 0, 0
    while place < len(text):
        there = max(
            (word for word in [*ids_of_words, *special_words] if text.startswith(word, place)), key=len, default=""
        )
        if there in ids_of_words:
            ids += [*base(text[start:place])["input_ids"], ids_of_words[there]]
            start = place + len(there)
        place += max(len(there), 1)
    return ids + base(text[start:])["input_ids"]


PARTS = ["<|", "|>", "end", "text", "é", " "]
TOKENS = (
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=3)
    .map("".join)
    .filter(lambda token: token.strip() not in ("", "é"))
)


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(TOKENS, min_size=1, max_size=6, unique=True),
    special_words=st.lists(TOKENS, max_size=3, unique=True),
    choices=st.lists(st.integers(0, 99), max_size=12),
)
def test_both_engines_and_a_plain_loop_find_added_tokens_alike(
    bytes_only: PreTrainedTokenizerFast, words: list[str], special_words: list[str], choices: list[int]
) -> None:
    """Of so few parts, tokens hold, begin and overlap each other and `<|endoftext|>`."""
    special_words = [word for word in special_words if word not in words]
    parts = [*words, *special_words, *PARTS, END_OF_TEXT]
    text = "".join(parts[choice % len(parts)] for choice in choices)
    extended, new = extend_tokenizer(bytes_only, words, special_words)
    encoder = TextEncoder(extended)
    assert encoder.engine == "tiktoken"
    ids_of_words = {word: extended.convert_tokens_to_ids(word) for word in new if word in words}
    expected = ids_by_plain_loop(bytes_only, ids_of_words, [END_OF_TEXT, *special_words], text)
    assert encoder([text]) == [expected]
    assert extended(text, verbose=False)["input_ids"] == expected
    assert extended.decode(expected) == text


def test_new_ids_follow_the_old_ones_and_text_between_added_tokens_keeps_its_ids(
    trained: PreTrainedTokenizerFast, extended: PreTrainedTokenizerFast
) -> None:
    assert extended.convert_tokens_to_ids([*WORDS, *SPECIAL_WORDS]) == list(range(300, 313))
    assert len(extended) == 313
    before, middle, after = (trained(part)["input_ids"] for part in ("the ", " on", "s"))
    assert extended("the Lindale onLinds")["input_ids"] == [*before, 301, *middle, 300, *after]


def test_every_token_comes_back_as_it_was_added(extended: PreTrainedTokenizerFast) -> None:
    """A byte-level decoder takes the é of "café" for a byte: it would come back as no character."""
    for token in [*WORDS, *SPECIAL_WORDS]:
        assert extended.decode(extended.convert_tokens_to_ids([token])) == token
    assert extended.decode(TextEncoder(extended)([TEXT])[0]) == TEXT


def test_text_never_becomes_an_added_special_token_and_answers_leave_it_out(extended: PreTrainedTokenizerFast) -> None:
    text = "".join(SPECIAL_WORDS)
    assert max(extended(text)["input_ids"]) < 300
    assert TextEncoder(extended)([text]) == [extended(text)["input_ids"]]
    inserted = extended.convert_tokens_to_ids(SPECIAL_WORDS)
    assert extended.decode([*inserted, *extended("the")["input_ids"]], skip_special_tokens=True) == "the"
    assert extended.extra_special_tokens == SPECIAL_WORDS


def test_the_given_tokenizer_is_not_changed_and_its_settings_are_kept(
    trained: PreTrainedTokenizerFast, extended: PreTrainedTokenizerFast
) -> None:
    assert len(trained) == 300
    assert trained.get_added_vocab() == {END_OF_TEXT: 299}
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id", "padding_side", "model_max_length"):
        assert getattr(extended, name) == getattr(trained, name)
    assert extended(["a", "a b"], padding=True)["attention_mask"][0][0] == 0


@pytest.mark.parametrize("model_type", [None, "gpt2", "hfgpt"])
def test_added_tokens_survive_saving(extended: PreTrainedTokenizerFast, tmp_path: Path, model_type: str | None) -> None:
    extended.save_pretrained(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ids = extended(TEXT)["input_ids"]
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded(TEXT)["input_ids"] == ids == TextEncoder(loaded)([TEXT])[0]
        assert loaded.decode(ids) == TEXT
        assert loaded.extra_special_tokens == SPECIAL_WORDS
        assert len(loaded) == 313


def test_tokens_can_be_added_to_the_tokenizer_that_the_hub_serves_as_gpt2(test_data: Path, tmp_path: Path) -> None:
    """Its class builds the decoder anew on loading, without what makes "café" come back."""
    vocabulary, merges = str(test_data / "gpt2/encoder.json"), str(test_data / "gpt2/vocab.bpe")
    GPT2Tokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path / "hub")
    (tmp_path / "hub/config.json").write_text('{"model_type": "gpt2"}')
    theirs = load_tokenizer(tmp_path / "hub")
    assert type(theirs) is GPT2Tokenizer
    extended, new = extend_tokenizer(theirs, ["café", "hello", " the"], ["<|im_start|>", END_OF_TEXT])
    assert new == ["café", "<|im_start|>"]
    assert extended.convert_tokens_to_ids(new) == [50257, 50258]
    extended.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = f"hello café, the cafés {END_OF_TEXT}"
    assert loaded(text)["input_ids"] == extended(text)["input_ids"] == TextEncoder(loaded)([text])[0]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.pad_token_id == 50256


def test_tokens_that_are_there_are_left_as_they_are(extended: PreTrainedTokenizerFast) -> None:
    again, new = extend_tokenizer(extended, ["café", " cat", "Zürich"], ["<|im_end|>", END_OF_TEXT, "<|x|>"])
    assert new == ["Zürich", "<|x|>"]
    assert again.convert_tokens_to_ids(["café", "Zürich", "<|x|>"]) == [304, 313, 314]
    assert again.extra_special_tokens == [*SPECIAL_WORDS, "<|x|>"]
    assert again.decode(again("café Zürich cat")["input_ids"]) == "café Zürich cat"


@pytest.mark.parametrize(
    ("tokens", "special_tokens", "message"),
    [
        ([""], [], "more than white space"),
        ([], [" \n"], "more than white space"),
        (["ab", "cd", "ab"], [], "'ab' is given more than once"),
        (["ab"], ["ab"], "'ab' is given more than once"),
        (["a\ud800"], [], r"'a\\ud800' holds half a surrogate pair"),
        ([END_OF_TEXT], [], "is a special token of the tokenizer already"),
        ([], ["café"], "'café' is an ordinary token of the tokenizer already"),
        ([], [" cat"], "' cat' is an ordinary token of the tokenizer already"),
        (["Ġcat"], [], "the vocabulary writes b' cat' like this"),
        (["ß"], [], "the vocabulary writes b'.xdf' like this"),
    ],
)
def test_what_cannot_be_added_is_said_in_one_sentence(
    extended: PreTrainedTokenizerFast, tokens: list[str], special_tokens: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        extend_tokenizer(extended, tokens, special_tokens)


def test_tokens_that_others_added_are_found_in_the_same_order_of_passes(
    trained: PreTrainedTokenizerFast, changed: Callable[..., PreTrainedTokenizerFast]
) -> None:
    """transformers' `add_tokens` looks for its own in normalised text, after those that are looked for in all text."""
    tokenizer = changed(trained)
    tokenizer.add_tokens(["cat sat", "end"])
    tokenizer.add_tokens([AddedToken("the cat", normalized=False)])
    encoder = TextEncoder(tokenizer)
    assert encoder.engine == "tiktoken"
    texts = ["on the cat sat on", "cat sat", f"bend {END_OF_TEXT}", ""]
    assert encoder(texts) == tokenizer(texts, split_special_tokens=True)["input_ids"]
    assert set(tokenizer.get_added_vocab().values()) - {299} <= {id for ids in encoder(texts) for id in ids}


def test_a_token_that_looks_around_itself_takes_the_slower_engine_which_is_said(
    trained: PreTrainedTokenizerFast, changed: Callable[..., PreTrainedTokenizerFast]
) -> None:
    tokenizer = changed(trained)
    tokenizer.add_tokens([AddedToken("cat", single_word=True)])
    with pytest.warns(UserWarning, match="slower engine.*'cat' looks at the text around it"):
        encoder = TextEncoder(tokenizer)
    assert encoder(["cat cats"]) == [tokenizer("cat cats")["input_ids"]]

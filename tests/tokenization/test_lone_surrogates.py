"""Halves of surrogate pairs: replaced, counted, said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hfgpt.tokenization import TextEncoder, replace_lone_surrogates


def test_lone_surrogates_are_replaced_and_counted_and_pairs_joined() -> None:
    assert replace_lone_surrogates("plain é 😀") == ("plain é 😀", 0)
    assert replace_lone_surrogates("a\ud800b\udfff\udc00") == ("a\ufffdb\ufffd\ufffd", 3)
    assert replace_lone_surrogates("\ud83d\ude00 \ude00\ud83d") == ("😀 \ufffd\ufffd", 2)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010)))
def test_surrogates_are_replaced_as_python_decodes_utf_16(text: str) -> None:
    assert replace_lone_surrogates(text)[0] == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def test_encoder_replaces_lone_surrogates_and_says_how_many(
    trained: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = TextEncoder(trained)
    assert encoder(["a\ud800", "b\udc00\udc00"]) == encoder(["a\ufffd", "b\ufffd\ufffd"])
    assert [record.getMessage() for record in caplog.records] == [
        "3 lone surrogates in the text were replaced by U+FFFD"
    ]

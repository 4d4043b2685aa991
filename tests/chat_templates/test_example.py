"""One conversation for the eye."""

import io

import pytest
from rich.console import Console

from hfgpt.chat_templates import coloured_example, encode_conversations
from hfgpt.tokenization import END_OF_TEXT

MESSAGES = [{"role": "user", "content": "Reverse \x1b[31m the word."}, {"role": "assistant", "content": "é 中 👍"}]


def printed(text, **options) -> str:
    console = Console(file=io.StringIO(), width=200, **options)
    console.print(text)
    return console.file.getvalue()


@pytest.fixture
def example(with_template):
    tokenizer = with_template("chatml")
    return coloured_example(tokenizer, encode_conversations(tokenizer, [MESSAGES])[0])


def test_what_bears_loss_is_seen_without_colours(example) -> None:
    plain = printed(example)
    assert "[[é 中 👍<|im_end|>]]" in plain
    assert "\x1b" not in plain
    assert "Reverse \\x1b[31m the word." in plain
    assert plain.splitlines()[0].endswith("tokens bear loss: [[these]], these are only read, special tokens")


def test_what_bears_loss_has_a_colour_and_special_tokens_show(example, with_template) -> None:
    coloured = printed(example, force_terminal=True, color_system="standard")
    assert "\x1b[32m" in coloured
    styles = {example.plain[span.start : span.end]: str(span.style) for span in example.spans}
    assert styles["é 中 👍"] == "green"
    assert styles["<|im_end|>"] == "green bold reverse" or "reverse" in styles["<|im_end|>"]
    assert END_OF_TEXT not in example.plain


def test_the_legend_counts(example, with_template) -> None:
    tokenizer = with_template("chatml")
    encoded = encode_conversations(tokenizer, [MESSAGES])[0]
    assert example.plain.startswith(f"{sum(encoded.bears_loss)} of {len(encoded.input_ids)} tokens bear loss")

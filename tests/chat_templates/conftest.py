"""What the tests of chat templates share: a small tokenizer, and one with each template."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import set_chat_template, special_tokens_of
from hfgpt.tokenization import extend_tokenizer, train_tokenizer

TEXTS = [
    "Below is an instruction. ### Instruction: Reverse the word. ### Response: tac",
    "user assistant system cat",
] * 9


@pytest.fixture(scope="session")
def plain() -> PreTrainedTokenizerFast:
    """A tokenizer of 300 ids without a template."""
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="session")
def with_template(plain: PreTrainedTokenizerFast) -> Callable[[str], PreTrainedTokenizerFast]:
    """A maker of copies with a template and the tokens that it needs."""

    def make(name: str) -> PreTrainedTokenizerFast:
        tokenizer, _ = extend_tokenizer(plain, [], special_tokens_of(name))
        set_chat_template(tokenizer, name)
        return tokenizer

    return make

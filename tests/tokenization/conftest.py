"""What the tests of the tokenizer share: GPT-2's vocabulary, a small trained one, and text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from hfgpt.tokenization import END_OF_TEXT, load_tokenizer, train_tokenizer

REAL_FILES = ("the-verdict.txt", "tiny-shakespeare.txt", "sms-spam.tsv", "instruction-data.json")


@pytest.fixture(scope="session")
def gpt2(test_data: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(test_data / "gpt2")


@pytest.fixture(scope="session")
def nested_texts() -> list[str]:
    """Text whose frequent words hold each other, so that merges build on merges."""
    return [f"{'the cat sat on the mat, ' * 5}and {n} more: {END_OF_TEXT} é 中 \n\n  x{n}={n * n};" for n in range(60)]


@pytest.fixture(scope="session")
def trained(nested_texts: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of 300 ids."""
    return train_tokenizer(nested_texts, 300)


@pytest.fixture(scope="session")
def real_texts(test_data: Path) -> list[str]:
    """Every real file whole, and the first lines of each as short texts."""
    texts = [(test_data / name).read_text(encoding="utf-8") for name in REAL_FILES]
    return texts + [line for text in texts for line in text.splitlines(keepends=True)[:300]]


@pytest.fixture(scope="session")
def changed() -> Callable[..., PreTrainedTokenizerFast]:
    """A maker of copies whose tokenizer.json differs in the named parts."""

    def change(tokenizer: PreTrainedTokenizerFast, **parts: object) -> PreTrainedTokenizerFast:
        description = json.loads(tokenizer.backend_tokenizer.to_str())
        for name, value in parts.items():
            (description["model"] if name in description["model"] else description)[name] = value
        return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(description)))

    return change

"""The tokenizer that `hfgpt answer` and `hfgpt chat` ask a model with."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import encode_chat_prompt
from hfgpt.cli.chat_tokenizer import load_chat_tokenizer
from hfgpt.errors import UserError
from hfgpt.tokenization import END_OF_TEXT, train_tokenizer

SAID = [{"role": "user", "content": f"cat{END_OF_TEXT}"}]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["the cat sat on the mat"] * 20, 262)


@pytest.mark.parametrize("template", [None, "phi3"])
def test_what_a_user_types_is_kept_from_being_a_special_token_also_in_a_template_of_others(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str | None
) -> None:
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    tokenizer.init_kwargs["split_special_tokens"] = False
    tokenizer.save_pretrained(tmp_path)
    ids = encode_chat_prompt(load_chat_tokenizer(str(tmp_path), template), SAID)
    assert tokenizer.eos_token_id not in ids
    assert "cat< |endoftext|>" in tokenizer.decode(ids)


def test_without_any_template_the_sentence_says_where_one_comes_from(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no chat template.*hfgpt instruct.*--template"):
        load_chat_tokenizer(str(tmp_path), None)

"""The special-token rule: text never becomes a special token; and padding."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hfgpt.bulk_encoding import ADVERSARIAL_TEXTS
from hfgpt.tokenization import END_OF_TEXT, TextEncoder, load_tokenizer


def test_text_never_becomes_a_special_token_in_either_engine(trained: PreTrainedTokenizerFast) -> None:
    encoder = TextEncoder(trained)
    for text in (END_OF_TEXT, f"a{END_OF_TEXT}b", f" {END_OF_TEXT}\n{END_OF_TEXT}{END_OF_TEXT}", f"x {END_OF_TEXT}"):
        assert trained.eos_token_id not in trained(text)["input_ids"]
        assert trained.eos_token_id not in trained.encode(text)
        assert encoder([text]) == [trained(text)["input_ids"]]
        assert trained.decode(encoder([text])[0]) == text


def test_a_tokenizer_that_allows_special_tokens_in_text_is_still_encoded_under_the_rule(
    trained: PreTrainedTokenizerFast, changed: Callable[..., PreTrainedTokenizerFast]
) -> None:
    loose = changed(trained)
    assert loose(END_OF_TEXT)["input_ids"] == [trained.eos_token_id]
    assert TextEncoder(loose)([END_OF_TEXT]) == [trained(END_OF_TEXT)["input_ids"]]
    assert loose(END_OF_TEXT)["input_ids"] == [trained.eos_token_id]  # and it was not changed


def test_saved_tokenizer_has_the_same_ids_and_the_rule_in_a_process_without_hfgpt(
    trained: PreTrainedTokenizerFast, nested_texts: list[str], tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    texts = [*ADVERSARIAL_TEXTS, *nested_texts]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    script = """
import json, sys
sys.modules["hfgpt"] = None  # an import of it would raise
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = json.load(open(sys.argv[1] + "/texts.json"))
print(json.dumps([tokenizer(texts, verbose=False)["input_ids"], tokenizer.vocab_size, tokenizer.padding_side,
                  tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]))
"""
    elsewhere = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    ids, *properties = json.loads(elsewhere.stdout)
    assert ids == TextEncoder(trained)(texts)
    assert not any(299 in text_ids for text_ids in ids)
    assert properties == [300, "left", 299, 299, 299, 299]


@pytest.mark.parametrize("model_type", ["gpt2", "hfgpt"])
def test_the_rule_survives_saving_beside_a_model(
    trained: PreTrainedTokenizerFast, nested_texts: list[str], tmp_path: Path, model_type: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    trained.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded(nested_texts)["input_ids"] == trained(nested_texts)["input_ids"]
        assert 299 not in loaded(END_OF_TEXT)["input_ids"]


def test_padding_stands_on_the_left_and_is_masked(trained: PreTrainedTokenizerFast) -> None:
    batch = trained(["a", "a b"], padding=True)
    assert batch["input_ids"][0][0] == trained.pad_token_id
    assert batch["attention_mask"][0][0] == 0
    assert batch["attention_mask"][0][-1] == 1

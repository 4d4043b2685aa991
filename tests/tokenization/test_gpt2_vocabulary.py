"""GPT-2's vocabulary: its ids against tiktoken's, the book's and the original merges."""

import json
import shutil
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
import tokenizers
from tiktoken_ext import openai_public
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfgpt.bulk_encoding import ADVERSARIAL_TEXTS
from hfgpt.tokenization import END_OF_TEXT, TextEncoder, bulk_encoding, encoding_from_gpt2_files, load_tokenizer


def test_gpt2_encoding_is_the_one_that_tiktoken_defines(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # no copies in the temporary folder
    files = {"vocab_bpe_file": test_data / "gpt2/vocab.bpe", "encoder_json_file": test_data / "gpt2/encoder.json"}
    read = tiktoken.load.data_gym_to_mergeable_bpe_ranks

    def read_local_copy(vocab_bpe_file: str, encoder_json_file: str, **hashes: str) -> dict[bytes, int]:
        return read(**{name: str(path) for name, path in files.items()}, **hashes)

    monkeypatch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", read_local_copy)
    definition = openai_public.gpt2()
    ours = encoding_from_gpt2_files(test_data / "gpt2")
    assert ours.name == definition["name"]
    assert ours.n_vocab == definition["explicit_n_vocab"] == 50257
    assert ours._pat_str == definition["pat_str"]
    assert ours._mergeable_ranks == definition["mergeable_ranks"]
    assert ours._special_tokens == definition["special_tokens"]


def test_gpt2_ids_are_those_of_the_book(gpt2: PreTrainedTokenizerFast) -> None:
    text = f"Hello, do you like tea? {END_OF_TEXT} In the sunlit terracesof someunknownPlace."
    ids = [15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262]
    ids += [4252, 18250, 8812, 2114, 1659, 617, 34680, 27271, 13]
    assert gpt2(text, split_special_tokens=False)["input_ids"] == ids
    assert gpt2("Akwirw ier")["input_ids"] == [33901, 86, 343, 86, 220, 959]
    assert TextEncoder(gpt2)(["Akwirw ier"]) == [[33901, 86, 343, 86, 220, 959]]


def test_the_verdict_has_5145_tokens(gpt2: PreTrainedTokenizerFast, test_data: Path) -> None:
    assert [len(ids) for ids in TextEncoder(gpt2)([(test_data / "the-verdict.txt").read_text(encoding="utf-8")])] == [
        5145
    ]


def test_gpt2_ids_of_both_engines_are_those_of_the_original_merges(
    gpt2: PreTrainedTokenizerFast, test_data: Path, real_texts: list[str]
) -> None:
    """OpenAI's list of merges, run by `tokenizers` with its own GPT-2 pattern: no ranks and nothing of tiktoken's."""
    vocabulary = json.loads((test_data / "gpt2/encoder.json").read_text(encoding="utf-8"))
    lines = (test_data / "gpt2/vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    original = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [tuple(line.split()) for line in lines]))
    original.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder = TextEncoder(gpt2)
    assert encoder.engine == "tiktoken"
    texts = [*real_texts, *ADVERSARIAL_TEXTS]
    expected = [encoded.ids for encoded in original.encode_batch(texts)]
    assert sum(map(len, expected)) > 500_000
    assert encoder(texts) == expected
    assert gpt2(texts, verbose=False)["input_ids"] == expected


def test_gpt2_layout_of_transformers_reads_as_that_of_openai(test_data: Path, tmp_path: Path) -> None:
    shutil.copy(test_data / "gpt2/encoder.json", tmp_path / "vocab.json")
    shutil.copy(test_data / "gpt2/vocab.bpe", tmp_path / "merges.txt")
    theirs = encoding_from_gpt2_files(test_data / "gpt2")
    assert encoding_from_gpt2_files(tmp_path)._mergeable_ranks == theirs._mergeable_ranks


def test_a_hub_like_gpt2_folder_is_put_under_the_rule_and_gets_left_padding(test_data: Path, tmp_path: Path) -> None:
    """What the Hub serves as gpt2: a bare ByteLevel pre-tokenizer, no padding token, special tokens found in text."""
    vocabulary = json.loads((test_data / "gpt2/encoder.json").read_text(encoding="utf-8"))
    lines = (test_data / "gpt2/vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [tuple(line.split()) for line in lines]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)
    assert theirs(END_OF_TEXT)["input_ids"] == [50256]
    theirs.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert 50256 not in ours(END_OF_TEXT)["input_ids"]
    assert (ours.pad_token_id, ours.padding_side) == (50256, "left")
    assert bulk_encoding(ours)._mergeable_ranks == encoding_from_gpt2_files(test_data / "gpt2")._mergeable_ranks

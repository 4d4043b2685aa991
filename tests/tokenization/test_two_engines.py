"""Two engines, one set of ids; what cannot be exact is refused."""

import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfgpt.bulk_encoding import ADVERSARIAL_TEXTS
from hfgpt.errors import UserError
from hfgpt.tokenization import (
    END_OF_TEXT,
    GPT2_PATTERN,
    NoExactEngineError,
    TextEncoder,
    bulk_encoding,
    fast_tokenizer,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def encoding(trained: PreTrainedTokenizerFast) -> tiktoken.Encoding:
    return bulk_encoding(trained)


def ids_by_plain_loop(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """Byte-pair encoding as its definition reads: merge the adjacent pair of the lowest rank until none is left."""
    ranks, ids = encoding._mergeable_ranks, []
    for word in regex.findall(encoding._pat_str, text):
        parts = [bytes([byte]) for byte in word.encode()]
        while True:
            pairs = [(ranks.get(parts[i] + parts[i + 1]), i) for i in range(len(parts) - 1)]
            rank, position = min(((rank, i) for rank, i in pairs if rank is not None), default=(None, None))
            if rank is None:
                break
            parts[position : position + 2] = [parts[position] + parts[position + 1]]
        ids += [ranks[part] for part in parts]
    return ids


def test_a_vocabulary_trained_on_real_text_gives_the_same_ids_in_both_engines(
    test_data: Path, real_texts: list[str]
) -> None:
    tokenizer = train_tokenizer([(test_data / "tiny-shakespeare.txt").read_text(encoding="utf-8")], 3000)
    encoder = TextEncoder(tokenizer)
    assert encoder.engine == "tiktoken"
    assert encoder(real_texts) == tokenizer(real_texts, verbose=False)["input_ids"]


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("the cat\n  '<|>xé=0"))))
def test_both_engines_and_a_plain_loop_agree_on_any_text(
    trained: PreTrainedTokenizerFast, encoding: tiktoken.Encoding, text: str
) -> None:
    expected = ids_by_plain_loop(encoding, text)
    assert encoding.encode_ordinary(text) == expected
    assert trained(text, verbose=False)["input_ids"] == expected
    assert encoding.decode_bytes(expected) == text.encode()
    assert trained.decode(expected) == text


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_any_trained_vocabulary_gives_the_ids_of_a_plain_loop(seed: int) -> None:
    """Two letters give tokens with many splits and long runs, where tie-breaking would show."""
    draw = random.Random(seed)
    corpus = ["".join(draw.choices("aab", k=draw.randint(1, 30))) for _ in range(20)]
    tokenizer = train_tokenizer(corpus, draw.randint(257, 270), min_frequency=1)
    encoding = bulk_encoding(tokenizer)
    for _ in range(20):
        text = "".join(draw.choices("ab", k=draw.randint(1, 60)))
        assert encoding.encode_ordinary(text) == tokenizer(text)["input_ids"] == ids_by_plain_loop(encoding, text)


def test_bytes_come_back_from_ids(trained: PreTrainedTokenizerFast) -> None:
    encoding = bulk_encoding(trained)
    for text, ids in zip(ADVERSARIAL_TEXTS, TextEncoder(trained)(list(ADVERSARIAL_TEXTS)), strict=True):
        assert encoding.decode_bytes(ids) == text.encode()
        assert trained.decode(ids) == text


def test_encoder_keeps_the_order_of_the_texts(trained: PreTrainedTokenizerFast) -> None:
    texts = [str(number) * (number % 7) for number in range(101)]
    encoder = TextEncoder(trained)
    assert encoder(texts) == [encoder([text])[0] for text in texts]
    assert encoder([]) == []
    with pytest.raises(TypeError, match="list of texts"):
        encoder("one string")


def test_an_engine_that_cannot_be_exact_is_refused_with_the_reason(
    trained: PreTrainedTokenizerFast, changed: Callable[..., PreTrainedTokenizerFast]
) -> None:
    model = json.loads(trained.backend_tokenizer.to_str())["model"]
    with_normalizer = changed(trained)
    with_normalizer.backend_tokenizer.normalizer = normalizers.NFC()
    with_prefix = changed(trained)
    with_prefix.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with_own_cuts = changed(trained)
    with_own_cuts.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # One engine takes the end of a line for an end, the other only the end of the text.
            pre_tokenizers.Split(Regex(r"[^\n]+$|\s|."), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    with_added_token = changed(trained)
    with_added_token.add_tokens(["cat"])
    cases = [
        (with_normalizer, "normalizer NFC"),
        (with_prefix, "pre-tokenizer"),
        (with_own_cuts, "into other words"),
        (with_added_token, "'cat'"),
        (changed(trained, dropout=0.1), "not plain byte-pair"),
        (changed(trained, merges=model["merges"][::-1]), "order of its merges"),
        (changed(trained, vocab={**model["vocab"], "zqz": 300}, ignore_merges=True), "1 of its tokens"),
        (
            PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel())),
            "pre-tokenizer",
        ),
    ]
    for tokenizer, reason in cases:
        with pytest.raises(NoExactEngineError, match=reason):
            bulk_encoding(tokenizer)


def test_the_slower_engine_is_announced_and_gives_the_tokenizers_own_ids(
    trained: PreTrainedTokenizerFast, changed: Callable[..., PreTrainedTokenizerFast]
) -> None:
    tokenizer = changed(trained)
    tokenizer.add_tokens([AddedToken("the cat", lstrip=True)])
    with pytest.warns(UserWarning, match="slower engine"):
        encoder = TextEncoder(tokenizer)
    assert encoder.engine == "tokenizers"
    texts = ["on  the cat", f"a{END_OF_TEXT}", ""]
    assert encoder(texts) == tokenizer(texts, split_special_tokens=True)["input_ids"]
    assert len(trained) in encoder(["the cat"])[0]
    assert pickle.loads(pickle.dumps(encoder))(texts) == encoder(texts)


def test_a_vocabulary_with_a_token_that_no_merge_reaches_is_refused(trained: PreTrainedTokenizerFast) -> None:
    ranks = {**bulk_encoding(trained)._mergeable_ranks, b"zqz": 299}
    encoding = tiktoken.Encoding("odd", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: 300})
    with pytest.raises(UserError, match="1 tokens that merging never reaches"):
        fast_tokenizer(encoding, model_max_length=64)


def test_encoders_of_equal_tokenizers_have_equal_pickles_in_any_process(
    trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    expected = pickle.dumps(TextEncoder(trained))
    assert pickle.dumps(pickle.loads(expected)) == expected
    script = (
        "import pickle, sys; from hfgpt.tokenization import *; "
        "sys.stdout.buffer.write(pickle.dumps(TextEncoder(load_tokenizer(sys.argv[1]))))"
    )
    for hash_seed in ("1", "2"):
        elsewhere = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={"PYTHONHASHSEED": hash_seed, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        )
        assert elsewhere.stdout == expected


def test_datasets_finds_encoded_text_in_its_cache_and_sends_the_encoder_to_workers(
    trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    texts = datasets.Dataset.from_dict({"text": ["the cat", "sat", "on", "the mat"]})

    def encode(encoder: TextEncoder):
        return texts.map(Encode(encoder), batched=True, num_proc=2, cache_file_name=None)

    first, second = encode(TextEncoder(trained)), encode(TextEncoder(trained))
    assert first["input_ids"] == trained(list(texts["text"]))["input_ids"]
    assert first._fingerprint == second._fingerprint


class Encode:
    """A mapped function as data preparation writes it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": self.encoder(batch["text"])}

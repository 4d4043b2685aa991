"""The tokenizer: its ids against three others, saving, loading, training, the special-token rule."""

import json
import pickle
import random
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
import tiktoken.load
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hfgpt.bulk_encoding import ADVERSARIAL_TEXTS, BYTE_OF_CHARACTER, CHARACTER_OF_BYTE
from hfgpt.errors import UserError
from hfgpt.tokenization import (
    END_OF_TEXT,
    GPT2_PATTERN,
    NoExactEngineError,
    TextEncoder,
    bulk_encoding,
    encoding_from_gpt2_files,
    fast_tokenizer,
    load_tokenizer,
    replace_lone_surrogates,
    train_tokenizer,
)

REAL_FILES = ("the-verdict.txt", "tiny-shakespeare.txt", "sms-spam.tsv", "instruction-data.json")
NESTED_TEXT = [
    f"{'the cat sat on the mat, ' * 5}and {n} more: {END_OF_TEXT} é 中 \n\n  x{n}={n * n};" for n in range(60)
]


@pytest.fixture(scope="module")
def gpt2(test_data: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(test_data / "gpt2")


@pytest.fixture(scope="module")
def trained() -> PreTrainedTokenizerFast:
    return train_tokenizer(NESTED_TEXT, 300)


@pytest.fixture(scope="module")
def real_texts(test_data: Path) -> list[str]:
    """Every real file whole, and the first lines of each as short texts."""
    texts = [(test_data / name).read_text(encoding="utf-8") for name in REAL_FILES]
    return texts + [line for text in texts for line in text.splitlines(keepends=True)[:300]]


@pytest.fixture(scope="module")
def encoding(trained: PreTrainedTokenizerFast) -> tiktoken.Encoding:
    return bulk_encoding(trained)


def ordinary_ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """The ids that users see."""
    return tokenizer(texts, verbose=False)["input_ids"]


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


# ----------------------------------------------------------------------------------------------------------------------
# GPT-2's vocabulary


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
    assert ordinary_ids(gpt2, texts) == expected


def test_a_vocabulary_trained_on_real_text_gives_the_same_ids_in_both_engines(
    test_data: Path, real_texts: list[str]
) -> None:
    tokenizer = train_tokenizer([(test_data / "tiny-shakespeare.txt").read_text(encoding="utf-8")], 3000)
    encoder = TextEncoder(tokenizer)
    assert encoder.engine == "tiktoken"
    assert encoder(real_texts) == ordinary_ids(tokenizer, real_texts)


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


# ----------------------------------------------------------------------------------------------------------------------
# Two engines, one set of ids


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


def changed(tokenizer: PreTrainedTokenizerFast, **parts: object) -> PreTrainedTokenizerFast:
    """A copy whose tokenizer.json differs in the named parts."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    for name, value in parts.items():
        (description["model"] if name in description["model"] else description)[name] = value
    return PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(description)))


def model_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The vocabulary and the merges, as tokenizer.json holds them."""
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]


def test_an_engine_that_cannot_be_exact_is_refused_with_the_reason(trained: PreTrainedTokenizerFast) -> None:
    model = model_of(trained)
    with_normalizer = changed(trained)
    with_normalizer.backend_tokenizer.normalizer = normalizers.NFC()
    with_prefix = changed(trained)
    with_prefix.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with_added_token = changed(trained)
    with_added_token.add_tokens(["cat"])
    cases = [
        (with_normalizer, "normalizer NFC"),
        (with_prefix, "pre-tokenizer"),
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


def test_the_slower_engine_is_announced_and_gives_the_tokenizers_own_ids(trained: PreTrainedTokenizerFast) -> None:
    tokenizer = changed(trained)
    tokenizer.add_tokens(["the cat"])
    with pytest.warns(UserWarning, match="slower engine"):
        encoder = TextEncoder(tokenizer)
    assert encoder.engine == "tokenizers"
    texts = ["the cat", f"a{END_OF_TEXT}", ""]
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


# ----------------------------------------------------------------------------------------------------------------------
# The special-token rule


def test_text_never_becomes_a_special_token_in_either_engine(trained: PreTrainedTokenizerFast) -> None:
    encoder = TextEncoder(trained)
    for text in (END_OF_TEXT, f"a{END_OF_TEXT}b", f" {END_OF_TEXT}\n{END_OF_TEXT}{END_OF_TEXT}", f"x {END_OF_TEXT}"):
        assert trained.eos_token_id not in trained(text)["input_ids"]
        assert trained.eos_token_id not in trained.encode(text)
        assert encoder([text]) == [trained(text)["input_ids"]]
        assert trained.decode(encoder([text])[0]) == text


def test_a_tokenizer_that_allows_special_tokens_in_text_is_still_encoded_under_the_rule(
    trained: PreTrainedTokenizerFast,
) -> None:
    loose = changed(trained)
    assert loose(END_OF_TEXT)["input_ids"] == [trained.eos_token_id]
    assert TextEncoder(loose)([END_OF_TEXT]) == [trained(END_OF_TEXT)["input_ids"]]
    assert loose(END_OF_TEXT)["input_ids"] == [trained.eos_token_id]  # and it was not changed


def test_saved_tokenizer_has_the_same_ids_and_the_rule_in_a_process_without_hfgpt(
    trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    trained.save_pretrained(tmp_path)
    texts = [*ADVERSARIAL_TEXTS, *NESTED_TEXT]
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
    trained: PreTrainedTokenizerFast, tmp_path: Path, model_type: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    trained.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded(NESTED_TEXT)["input_ids"] == trained(NESTED_TEXT)["input_ids"]
        assert 299 not in loaded(END_OF_TEXT)["input_ids"]


def test_padding_stands_on_the_left_and_is_masked(trained: PreTrainedTokenizerFast) -> None:
    batch = trained(["a", "a b"], padding=True)
    assert batch["input_ids"][0][0] == trained.pad_token_id
    assert batch["attention_mask"][0][0] == 0
    assert batch["attention_mask"][0][-1] == 1


# ----------------------------------------------------------------------------------------------------------------------
# Lone surrogates


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


# ----------------------------------------------------------------------------------------------------------------------
# Training a vocabulary


def test_training_is_deterministic_and_lays_out_bytes_then_merges_then_end_of_text(
    trained: PreTrainedTokenizerFast,
) -> None:
    again = train_tokenizer((text for text in NESTED_TEXT), 300)
    assert model_of(again) == model_of(trained)
    vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    assert vocabulary[:256] == sorted(BYTE_OF_CHARACTER)
    assert vocabulary[-1] == END_OF_TEXT
    assert len(trained) == trained.vocab_size == 300
    assert [trained.get_vocab()[token] for token in vocabulary] == list(range(300))


def test_each_learned_merge_was_the_most_frequent_pair_of_its_moment(trained: PreTrainedTokenizerFast) -> None:
    words = Counter(word for text in NESTED_TEXT for word in regex.findall(GPT2_PATTERN, text))
    parts_of = {word: [bytes([byte]) for byte in word.encode()] for word in words}
    by_rank = sorted(bulk_encoding(trained)._mergeable_ranks.items(), key=lambda item: item[1])
    for token, _ in by_rank[256:]:
        counts: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in parts_of.items():
            for pair in pairwise(parts):
                counts[pair] += words[word]
        assert max(count for pair, count in counts.items() if b"".join(pair) == token) == max(counts.values())
        for parts in parts_of.values():
            position = 0
            while position < len(parts) - 1:
                if parts[position] + parts[position + 1] == token:
                    parts[position : position + 2] = [token]
                position += 1


def test_the_smallest_vocabulary_is_the_bytes_and_end_of_text() -> None:
    tokenizer = train_tokenizer(["any text at all"], 257)
    assert tokenizer("é")["input_ids"] == [
        sorted(BYTE_OF_CHARACTER).index(CHARACTER_OF_BYTE[byte]) for byte in "é".encode()
    ]
    assert tokenizer.eos_token_id == 256


def test_training_reads_text_with_lone_surrogates(caplog: pytest.LogCaptureFixture) -> None:
    train_tokenizer(["broken \ud800 text"], 257)
    assert "1 lone surrogates" in caplog.text


@pytest.mark.parametrize(
    ("texts", "vocab_size", "message"),
    [
        (["some text"], 256, "257 or more"),
        ([], 300, "no text"),
        (["", ""], 300, "no text"),
        (["ab ab"], 300, "only 258.*ask for 258 or fewer"),
        ("one string", 300, "list of documents"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_sentence(texts: list[str], vocab_size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_tokenizer(texts, vocab_size)


# ----------------------------------------------------------------------------------------------------------------------
# Files


def write_gpt2_files(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def small_vocabulary(*merged: str) -> dict[str, int]:
    return {token: id for id, token in enumerate([*sorted(BYTE_OF_CHARACTER), *merged, END_OF_TEXT])}


def test_files_that_changed_are_read_anew(tmp_path: Path) -> None:
    for merged, merge in (("ab", "a b"), ("bc", "b c")):
        write_gpt2_files(tmp_path, small_vocabulary(merged), [merge])
        assert load_tokenizer(tmp_path).tokenize("abc") == (["ab", "c"] if merged == "ab" else ["a", "bc"])


@pytest.mark.parametrize(
    ("vocabulary", "merges", "message"),
    [
        (small_vocabulary("ab"), ["b c"], "do not belong together"),
        (small_vocabulary("ab", "bc"), ["b c", "a b"], "do not belong together"),
        (small_vocabulary("ab"), [], "do not belong together"),
        ({**small_vocabulary(), END_OF_TEXT: 300}, [], "do not belong together"),
        ({"a": 0}, [], "no byte-level vocabulary"),
        (small_vocabulary("▁ab"), ["▁ ab"], "no byte-level vocabulary"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, vocabulary: dict[str, int], merges: list[str], message: str
) -> None:
    write_gpt2_files(tmp_path, vocabulary, merges)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_loading_errors_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/tokenizer.json").write_text("{")
    (tmp_path / "broken/tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path / "missing": "is no folder",
        tmp_path / "file.txt": "is no folder",
        tmp_path / "empty": "it needs tokenizer.json",
        tmp_path / "broken": "cannot be read",
        "./relative": "is no folder",
        "nobody/no-such-tokenizer": "HF_HUB_OFFLINE",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            load_tokenizer(name)

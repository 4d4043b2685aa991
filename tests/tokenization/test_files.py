"""Tokenizers read from files, and what is wrong with files."""

import json
from pathlib import Path

import pytest

from hfgpt.bulk_encoding import BYTE_OF_CHARACTER
from hfgpt.errors import UserError
from hfgpt.tokenization import END_OF_TEXT, load_tokenizer


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

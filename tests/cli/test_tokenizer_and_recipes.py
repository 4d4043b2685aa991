"""`hfgpt tokenizer train` and `hfgpt recipes`."""

import json

import pytest
import yaml
from transformers import AutoTokenizer

from hfgpt.recipes.configuration import configs_folder


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog ran home. " * 40, encoding="utf-8")
    return path


def test_a_tokenizer_is_trained_and_can_be_used(hfgpt, text_file, tmp_path) -> None:
    answer = hfgpt("tokenizer", "train", text_file, "--vocab-size", 270, "--out", tmp_path / "tokenizer")
    assert (answer.status, answer.err) == (0, "")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = text_file.read_text(encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokenizer) == 270
    assert tokenizer.decode(ids) == text
    assert f"270 ids, {len(text) / len(ids):.2f} bytes a token" in answer.out


def test_a_trained_tokenizer_pretrains(hfgpt, text_file, tmp_path) -> None:
    hfgpt("tokenizer", "train", text_file, "--vocab-size", 270, "--out", tmp_path / "tokenizer")
    options = {"source": text_file, "tokenizer": tmp_path / "tokenizer", "output_dir": tmp_path / "run", "max_steps": 1}
    options |= {"block_size": 8, "sample_max_new_tokens": 2, "global_batch_size": 2, "max_eval_batches": 1}
    options |= {"model.hidden_size": 8, "model.num_hidden_layers": 1, "model.num_attention_heads": 1}
    from hfgpt.recipes.pretrain import main

    main([f"--{name}={value}" for name, value in options.items()])
    assert json.loads((tmp_path / "run/final/config.json").read_text())["vocab_size"] == 270


def test_a_vocabulary_that_the_text_cannot_fill_is_refused_and_nothing_is_left(hfgpt, text_file, tmp_path) -> None:
    answer = hfgpt("tokenizer", "train", text_file, "--vocab-size", 5000, "--out", tmp_path / "tokenizer")
    assert "or give more text" in answer.sentence
    assert {path.name for path in tmp_path.iterdir()} <= {"text.txt", "datasets_cache"}


def test_a_vocabulary_without_the_bytes_is_refused(hfgpt, text_file, tmp_path) -> None:
    answer = hfgpt("tokenizer", "train", text_file, "--vocab-size", 256, "--out", tmp_path / "tokenizer")
    assert answer.status == 2
    assert "257" in answer.err


def test_a_missing_source_is_one_sentence(hfgpt, tmp_path) -> None:
    answer = hfgpt("tokenizer", "train", tmp_path / "nothing.txt", "--vocab-size", 270, "--out", tmp_path / "tokenizer")
    assert "nothing.txt" in answer.sentence
    assert not (tmp_path / "tokenizer").exists()


def test_a_folder_in_use_is_refused_before_the_text_is_read(hfgpt, text_file, tmp_path) -> None:
    answer = hfgpt("tokenizer", "train", tmp_path / "nothing.txt", "--vocab-size", 270, "--out", tmp_path)
    assert "not an empty folder" in answer.sentence


def test_every_recipe_is_listed_with_what_it_is(hfgpt) -> None:
    answer = hfgpt("recipes", "list")
    lines = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
    files = {f"{path.parent.name}/{path.stem}": path for path in configs_folder().rglob("*.yaml")}
    assert lines.keys() == files.keys()
    for name, path in files.items():
        assert path.read_text(encoding="utf-8").startswith(f"# {lines[name]}\n")


def test_a_recipe_is_copied_into_a_folder_or_to_a_file(hfgpt, tmp_path) -> None:
    original = (configs_folder() / "pretrain" / "demo.yaml").read_bytes()
    for destination, written in ((tmp_path, tmp_path / "demo.yaml"), (tmp_path / "mine.yaml", tmp_path / "mine.yaml")):
        answer = hfgpt("recipes", "copy", "pretrain/demo", destination)
        assert answer.status == 0
        assert f"--config {written}" in answer.out
        assert written.read_bytes() == original


def test_a_copied_recipe_is_used_as_it_was_changed(hfgpt, tmp_path) -> None:
    hfgpt("recipes", "copy", "pretrain/demo", tmp_path)
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"max_steps": 9}), encoding="utf-8")
    assert "max_steps: 9\n" in hfgpt("pretrain", "--config", path, "--print_config").out


def test_a_copy_overwrites_nothing(hfgpt, tmp_path) -> None:
    (tmp_path / "demo.yaml").write_text("mine", encoding="utf-8")
    assert "exists" in hfgpt("recipes", "copy", "pretrain/demo", tmp_path).sentence
    assert (tmp_path / "demo.yaml").read_text(encoding="utf-8") == "mine"


def test_a_recipe_that_is_not_there_names_those_that_are(hfgpt) -> None:
    assert "pretrain/shakespeare" in hfgpt("recipes", "copy", "pretrain/dmo").sentence


def test_a_copy_to_nowhere_is_one_sentence(hfgpt, tmp_path) -> None:
    assert "cannot be written" in hfgpt("recipes", "copy", "pretrain/demo", tmp_path / "no" / "where.yaml").sentence

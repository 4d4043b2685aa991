"""The shipped configurations of `hfgpt instruct`, and what of a configuration is refused at once."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt.recipes.configuration import parse_config, shipped_configs
from hfgpt.recipes.instruction_config import InstructionConfig

SHIPPED = shipped_configs("instruct")


def make(**fields: Any) -> InstructionConfig:
    return InstructionConfig(
        **{"output_dir": "run", "source": "entries.json", "init_from": "m", "max_steps": 1, **fields}
    )


def test_all_recipes_are_shipped() -> None:
    assert set(SHIPPED) == {"alpaca", "book", "book-gpt2-355m", "demo", "instructions"}


@pytest.mark.parametrize("path", SHIPPED.values(), ids=lambda path: path.stem)
def test_every_shipped_recipe_parses_to_what_its_file_says_and_begins_with_what_it_is(path: Path) -> None:
    config = parse_config("instruct", InstructionConfig, "Instructions.", ["--config", path.stem])
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert {name: getattr(config, name) for name in content} == content
    assert text.startswith("# ")


def test_the_book_configuration_is_the_books_run() -> None:
    """Section 7.6: two epochs in batches of 8, AdamW of 5e-5 and weight decay 0.1, nothing clipped, no schedule."""
    config = parse_config("instruct", InstructionConfig, "Instructions.", ["--config", "book-gpt2-355m"])
    assert (config.num_train_epochs, config.global_batch_size) == (2, 8)
    assert (config.learning_rate, config.weight_decay, config.lr_scheduler_type) == (5e-5, 0.1, "constant")
    assert (config.adam_beta1, config.adam_beta2, config.max_grad_norm) == (0.9, 0.999, None)
    assert (config.template, config.loss_on, config.batching, config.too_long) == (
        "alpaca", "all", "random", "truncate",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"validation_fraction": 0}, "validation_fraction must lie between 0 and 1, but is 0."),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"test_split": "test", "test_source": "t.json"}, "Give one of test_split (of the source) and test_source"),
        ({"max_length": 0}, "max_length must be greater than zero, but is 0."),
        ({"max_new_tokens": -1}, "max_new_tokens must be greater than zero, but is -1."),
        ({"max_test_examples": -1}, "max_test_examples must not be negative, but is -1."),
        ({"lora_dropout": 1}, "lora_dropout must lie between 0 and 1, 1 excluded, but is 1."),
        ({"trainable": "lora", "random_weights": True}, "with random_weights, train all."),
        ({"model": {"hidden_size": 8}}, "model.hidden_size cannot be changed in a trained checkpoint"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict[str, Any], words: str) -> None:
    (problem,) = make(**fields).problems()
    assert words in problem


def test_what_works_has_no_problem() -> None:
    assert make(model={"residual_dropout": 0.1}, max_test_examples=0).problems() == []


# ----------------------------------------------------------------------------------------------------------------------
# Those that need what is not at hand are run on look-alikes: tiny weights in GPT-2's layout, a repository in a folder.
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_gpt2(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """GPT-2's layout and context, at two layers of 16."""
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 1024, "vocab_size": 280}
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=279, eos_token_id=279)).save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def run(instruct: Any, name: str, **fields: Any) -> str:
    words = [word for field, value in fields.items() for word in (f"--{field}", str(value))]
    instruct.module.main(["--config", name, "--output_dir", str(instruct.output_dir), *words])
    return instruct.capsys.readouterr().out


@pytest.fixture
def alpaca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-alike of tatsu-lab/alpaca: its four columns, and some entries without an answer."""
    folder = tmp_path / "repository" / "data"
    folder.mkdir(parents=True)
    entries = [
        {"instruction": f"say {number}", "input": "a word" * (number % 3 == 0), "output": f"{number}", "text": "x"}
        for number in range(330)
    ]
    for number in (5, 50):
        entries[number]["output"] = ""
    datasets.Dataset.from_list(entries).to_parquet(folder / "train-00000-of-00001.parquet")
    load_dataset = datasets.load_dataset

    def load(source: str, **options: Any) -> datasets.Dataset:
        assert source == "tatsu-lab/alpaca"
        return load_dataset(str(folder.parent), **options)

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.usefixtures("alpaca")
def test_alpaca_s_entries_from_the_hub_finetune_a_model_in_gpt2_s_layout(instruct, tiny_gpt2) -> None:
    printed = run(instruct, "alpaca", init_from=tiny_gpt2, num_train_epochs=1, warmup_steps=1, max_new_tokens=4)
    for words in ("read as alpaca (", "columns that are not read: text", "2 without an answer dropped"):
        assert words in printed
    counts = json.loads((instruct.output_dir / "report.json").read_text(encoding="utf-8"))["counts"]
    assert (counts["validation"], counts["test"]) == (3, 3)
    assert counts["train"] == 322


@pytest.mark.parametrize("name", ["book", "book-gpt2-355m"])
def test_the_book_s_file_is_split_as_in_the_book_and_what_is_removed_is_counted(
    instruct, tiny_gpt2, test_data, name
) -> None:
    """20 of its questions stand in it more than once, 45 times in all, each time with another answer."""
    source = test_data / "instruction-data.json"
    sizes = {"max_length": 200, "num_train_epochs": 0.1, "max_new_tokens": 4, "max_test_examples": 5}
    printed = run(instruct, name, source=source, init_from=tiny_gpt2, **sizes)
    counts = json.loads((instruct.output_dir / "report.json").read_text(encoding="utf-8"))["counts"]
    assert counts["rows"] == 1100
    assert counts["test"] == 110, "whole, as in the book"
    assert counts["train"] + counts["validation"] + counts["duplicates"] + counts["overlap"] == 990
    assert 0 < counts["duplicates"] + counts["overlap"] <= 25
    assert counts["train_truncated"] > 0
    assert f"{counts['train_truncated']:,} longer than 200 tokens cut" in printed

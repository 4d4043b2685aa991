"""The configurations of `hfgpt classify train`: those that are shipped, and what cannot work."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from transformers import AutoModelForSequenceClassification

from hfgpt.recipes.classification_config import ClassificationConfig
from hfgpt.recipes.configuration import parse_config, shipped_configs

SHIPPED = shipped_configs("classify_train")


def parse(*arguments: str) -> ClassificationConfig:
    return parse_config("classify_train", ClassificationConfig, "Classification.", arguments)


def problems(**fields: Any) -> list[str]:
    required = {"output_dir": "x", "source": "y", "init_from": "z", "max_steps": 3}
    return ClassificationConfig(**required | fields).problems()


@pytest.mark.parametrize("path", SHIPPED.values(), ids=lambda path: path.stem)
def test_every_shipped_recipe_parses_by_name_and_by_path_to_what_its_file_says(path: Path) -> None:
    by_name, by_path = parse("--config", path.stem), parse("--config", str(path))
    assert by_name == by_path
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {name: getattr(by_name, name) for name in content} == content
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_recipes_that_are_documented_are_shipped() -> None:
    assert {"demo", "imdb", "sms-gpt2-124m"} <= SHIPPED.keys()


def test_the_book_s_settings_are_those_of_its_chapter() -> None:
    """Section 6.7: AdamW with 5e-5 and weight decay 0.1, five epochs, batches of eight, the last block."""
    config = parse("--config", "sms-gpt2-124m")
    assert (config.learning_rate, config.weight_decay, config.lr_scheduler_type) == (5e-5, 0.1, "constant")
    assert (config.num_train_epochs, config.global_batch_size, config.trainable) == (5, 8, "last_block")
    assert (config.balance, config.validation_fraction, config.test_fraction) == ("downsample", 0.1, 0.2)


@pytest.fixture
def imdb(tmp_path, monkeypatch) -> None:
    """A look-alike of the data set on the Hub: parquet files, loaded as `datasets` loads a repository."""
    folder, kinds = tmp_path / "repository" / "plain_text", ("dull", "fine")
    folder.mkdir(parents=True)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    for split, count in (("train", 60), ("test", 20), ("unsupervised", 4)):
        rows = [(f"film {split} {number} <br /><br /> {kinds[number % 2]}", number % 2) for number in range(count)]
        table = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        datasets.Dataset.from_dict(table, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    (folder.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain_text\n  default: true\n  data_files:\n"
        + "".join(f"  - split: {name}\n    path: plain_text/{name}-*\n" for name in ("train", "test", "unsupervised"))
        + "---\n"
    )
    load_dataset = datasets.load_dataset

    def load(source: str, **options: Any) -> datasets.Dataset:
        assert source == "stanfordnlp/imdb"
        return load_dataset(str(folder.parent), **options)

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.mark.usefixtures("imdb")
def test_film_reviews_from_the_hub_finetune_a_model_in_gpt2_s_layout(classify, gpt2_checkpoint) -> None:
    options = {"output_dir": classify.output_dir, "init_from": gpt2_checkpoint, "max_length": 16}
    options |= {"learning_rate": 1e-2, "num_train_epochs": 5, "global_batch_size": 6, "warmup_steps": 0}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    classify.module.main(["--config", "imdb", *words])
    printed = classify.capsys.readouterr().out
    for line in ("train: 54 (neg 27, pos 27)", "test: 20 (neg 10, pos 10)", "truncated on the left to 16 tokens"):
        assert line in printed
    model = AutoModelForSequenceClassification.from_pretrained(classify.final)
    assert model.config.id2label == {0: "neg", 1: "pos"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"validation_fraction": 0.0}, "validation_fraction must lie between 0 and 1"),
        ({"test_fraction": 1.0}, "test_fraction must lie between 0 and 1"),
        ({"validation_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train on"),
        ({"test_split": "a", "test_source": "b"}, "Give one of test_split (of a Hub dataset) and test_source"),
        ({"num_trainable_blocks": 0}, "num_trainable_blocks must be greater than zero"),
        ({"lora_alpha": 0.0}, "lora_alpha must be greater than zero"),
        ({"lora_dropout": 1.0}, "lora_dropout must lie between 0 and 1"),
        ({"max_length": 9, "pad_to_length": 8}, "max_length (9) is above pad_to_length (8)"),
        ({"trainable": "lora", "cache_frozen": "true"}, "nothing is frozen whole"),
        ({"model": {"n_embd": 3, "hidden_size": 3}}, "model gives hidden_size twice, also as n_embd"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_said(fields: dict[str, Any], words: str) -> None:
    assert any(words in problem for problem in problems(**fields)), problems(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"trainable": "lora", "cache_frozen": "auto"},
        {"max_length": 8, "pad_to_length": 8},
        {"model": {"is_causal": False, "resid_pdrop": 0.1}},
        {"test_split": "test", "validation_source": "b.csv"},
    ],
    ids=str,
)
def test_what_can_work_is_not_refused(fields: dict[str, Any]) -> None:
    assert problems(**fields) == []

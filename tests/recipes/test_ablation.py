"""`hfgpt classify ablate`: many trainings beside each other, of which none is repeated and none is another one."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgpt.recipes import ablation, finetune_classification
from hfgpt.recipes.ablation import AblationConfig
from hfgpt.recipes.configuration import parse_config, shipped_configs

from .conftest import Recipe


@pytest.fixture
def ablations(classify, tmp_path, capsys) -> Recipe:
    """Two variants with two seeds, of two steps each."""
    base = {name: value for name, value in classify.fields.items() if name != "output_dir"}
    fields = {
        "base": {**base, "max_steps": 2, "eval_steps": None},
        "variants": {"Head only": {"trainable": "head"}, "everything, no warm-up": {}},
        "seeds": [1, 2],
    }
    return Recipe(ablation, tmp_path / "ablations", fields, capsys)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The folders of the trainings that are begun."""
    begun: list[str] = []

    def noted(config):
        begun.append(Path(config.output_dir).name)
        return finetune_classification.finetune_classification(config)

    monkeypatch.setattr(ablation, "finetune_classification", noted)
    return begun


FOLDERS = ["head-only-seed-1", "head-only-seed-2", "everything-no-warm-up-seed-1", "everything-no-warm-up-seed-2"]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def folder(ablations):
    ablations.folder.mkdir()


def test_several_processes_are_refused(ablations, trained, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = ablations.refusal()
    assert "in one process, and WORLD_SIZE says that there are 2: start it without a launcher." in said
    assert trained == []


def test_every_variant_is_trained_with_every_seed_once_and_all_stand_in_one_table(ablations, trained) -> None:
    printed = ablations.run()
    assert trained == FOLDERS
    assert {path.name for path in ablations.output_dir.iterdir()} == {*FOLDERS, "ablations.json", "ablations.png"}
    assert (ablations.output_dir / "ablations.png").read_bytes().startswith(b"\x89PNG")
    summary = read(ablations.output_dir / "ablations.json")
    assert summary["seeds"] == [1, 2]
    assert list(summary["variants"]) == ["Head only", "everything, no warm-up"]
    for variant, folders in zip(summary["variants"].values(), (FOLDERS[:2], FOLDERS[2:]), strict=True):
        results = [read(ablations.output_dir / folder / "results.json") for folder in folders]
        accuracies = [result["test_accuracy"] for result in results]
        assert variant["test_accuracies"] == accuracies
        assert variant["test_accuracy"] == pytest.approx(sum(accuracies) / 2)
        assert variant["standard_deviation"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
        assert variant["trained_parameters"] == results[0]["trained_parameters"]
        assert variant["others"].keys() == {"majority class", "TF-IDF + logistic regression"}
    assert summary["variants"]["Head only"]["trained_parameters"] == 32
    for words in ("1 of 4: Head only, seed 1", "4 of 4: everything, no warm-up, seed 2", "± over 2 seeds"):
        assert words in " ".join(printed.split())

    again = ablations.run()
    assert trained == FOLDERS, "a finished training is not repeated"
    assert again.count("finished before, in") == 4
    assert read(ablations.output_dir / "ablations.json") == summary


def test_a_training_has_the_memory_to_itself(ablations, monkeypatch) -> None:
    models: list[weakref.ref] = []
    still_there: list[int] = []

    def noted(config):
        still_there.append(sum(model() is not None for model in models))
        run = finetune_classification.finetune_classification(config)
        models.append(weakref.ref(run.model))
        return run

    monkeypatch.setattr(ablation, "finetune_classification", noted)
    ablations.run(seeds=[1])
    assert still_there == [0, 0]


def test_one_that_was_cut_off_is_gone_on_with_and_others_stay(ablations, trained) -> None:
    fields = {"variants": {"head": {"trainable": "head"}}, "seeds": [1, 2]}
    ablations.run(**fields)
    (ablations.output_dir / "head-seed-2" / "results.json").unlink()
    trained.clear()
    assert "resumed from" in ablations.run(**fields)
    assert trained == ["head-seed-2"]


def test_with_one_seed_the_interval_stands_in_place_of_the_spread(ablations) -> None:
    printed = ablations.run(variants={"head": {"trainable": "head"}}, seeds=[3])
    variant = read(ablations.output_dir / "ablations.json")["variants"]["head"]
    assert variant["standard_deviation"] is None
    low, high = variant["interval"]
    assert low <= variant["test_accuracy"] <= high
    assert "accuracy [95 %]" in " ".join(printed.split())


def test_a_training_with_another_field_in_its_folder_is_refused_by_name_before_any_training(ablations, trained) -> None:
    one = {"everything": {}}
    ablations.run(variants=one, seeds=[1])
    trained.clear()
    message = ablations.refusal(
        "--base.learning_rate",
        "1e-4",
        "--base.weight_decay",
        "0",
        variants={"new": {"trainable": "head"}, **one},
        seeds=[1],
    )
    assert "holds a training with another learning_rate, weight_decay" in message
    assert "everything-seed-1" in message
    assert not trained


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"variants": {"good": {}, "Bad one": {"trainable": "tail"}}}, ["Variant 'Bad one'", "trainable"]),
        ({"variants": {"good": {}, "bad": {"learning_rte": 1}}}, ["Variant 'bad'", "learning_rte"]),
        ({"variants": {"bad": {"model": {"hidden_sze": 3}}}}, ["Variant 'bad'", "model has no field hidden_sze"]),
        ({"variants": {"good": {}, "bad": {"max_steps": None}}}, ["Variant 'bad'", "exactly one of max_steps"]),
        ({"variants": {}}, ["variants is empty"]),
        ({"seeds": []}, ["seeds must be different numbers"]),
        ({"seeds": [1, 1]}, ["seeds must be different numbers"]),
        ({"variants": {"a b": {}, "a-b": {}}}, ["names that differ in signs only"]),
        ({"variants": {"一": {}}}, ["'一'", "letters"]),
        ({"variants": {"a": {"seed": 3}}}, ["seed is not for base or variants"]),
        ({"base": None}, ["base"]),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_any_training(ablations, trained, fields, words) -> None:
    message = ablations.refusal(**fields)
    for word in words:
        assert word in message
    assert not trained
    assert not ablations.output_dir.exists()


def test_what_only_shows_when_a_variant_s_turn_comes_is_said_with_its_name(ablations) -> None:
    message = ablations.refusal(variants={"a long text": {"max_length": 17}}, seeds=[5])
    assert "error: Variant 'a long text', seed 5: max_length (17) is greater than the model's context" in message


@pytest.mark.parametrize("path", shipped_configs("classify_ablate").values(), ids=lambda path: path.stem)
def test_every_shipped_configuration_parses_and_all_of_its_trainings_do(path) -> None:
    config = parse_config("classify_ablate", AblationConfig, "", ["--config", path.stem])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {name: getattr(config, name) for name in content} == content
    assert path.read_text(encoding="utf-8").startswith("# ")
    for variant in config.variants:
        training = ablation._training(config, variant, seed=7, folder=Path("x"))
        assert (training.seed, training.source) == (7, content["base"]["source"])

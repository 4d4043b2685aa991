"""`hfgpt classify train` from labelled texts to a classifier that opens elsewhere, on texts of a few words."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2ForSequenceClassification

from hfgpt import HfGptForSequenceClassification
from hfgpt.recipes.classification_config import ClassificationConfig
from hfgpt.recipes.labelled_corpus import load_splits

NO_DROPOUT = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
PICTURES = {"loss_curve.png", "accuracy_curve.png", "confusion_matrix.png", "reliability_diagram.png"}
RUN_FILES = {"config.yaml", "metrics.jsonl", "report.json", "results.json", "logits_before_training.npy", "final"}
RUN_FILES |= {"card_facts.json"}


def read(folder: Path, name: str = "report.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def measured(folder: Path) -> dict[str, Any]:
    """What the report says of the finetuned model."""
    report = read(folder)
    return report["models"][report["model"]]


def splits_of(recipe, **fields: Any):
    """The texts that a run with these fields trains on and is judged by."""
    config = ClassificationConfig(**{**recipe.fields, **fields})
    return load_splits(config, Accelerator(cpu=True))


def logits_of(folder: Path, texts: list[str]) -> torch.Tensor:
    """Of the model in a folder, each text by itself, as anybody would ask for them."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts])


# ----------------------------------------------------------------------------------------------------------------------
# What a run leaves
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(classify_in, fork, tmp_path_factory) -> tuple[Any, str]:
    """A run that several tests look at, and what it printed."""
    recipe = classify_in(tmp_path_factory.mktemp("finished"))
    return recipe, fork(recipe.folder / "fork", recipe.arguments(), recipe=recipe.module.__name__).finish()


def test_the_folder_of_a_run_holds_what_is_documented(finished) -> None:
    recipe, printed = finished
    names = {path.name for path in recipe.output_dir.iterdir()}
    assert names == RUN_FILES | PICTURES | {".lock", "checkpoint-10", "checkpoint-20"}
    assert (recipe.output_dir / "config.yaml").read_text() == (recipe.final / "run_config.yaml").read_text()
    for name in PICTURES:
        assert (recipe.output_dir / name).read_bytes().startswith(b"\x89PNG")
    for words in ("train: 140 (ham 70, spam 70)", "everything: ", "frozen part: none", "TF-IDF", "majority",
                  "step     20: validation loss", f"hfgpt classify predict --model {recipe.final}"):  # fmt: skip
        assert words in printed


def test_classes_that_have_no_word_in_common_are_told_apart(finished) -> None:
    recipe, _ = finished
    results, report = read(recipe.output_dir, "results.json"), read(recipe.output_dir)
    assert results["test_accuracy"] == measured(recipe.output_dir)["accuracy"] >= 0.95
    assert results["test_accuracy_interval"] == measured(recipe.output_dir)["intervals"]["accuracy"]
    assert list(report["models"]) == list(results["test_accuracies"]) == [
        "majority class", "TF-IDF + logistic regression", "GPT before training", "GPT after 20 steps",
    ]  # fmt: skip
    assert results["test_accuracies"]["majority class"] == 0.5
    assert [comparison["other"] for comparison in report["comparisons"]] == list(report["models"])[:-1]
    assert report["num_examples"] == {"train": 140, "validation": 20, "test": 40}
    evaluations = [line for line in recipe.metrics() if "validation_accuracy" in line]
    assert [line["step"] for line in evaluations] == [0, 10, 20]
    for moment, line in (("validation_before", evaluations[0]), ("validation_after", evaluations[-1])):
        assert {f"validation_{name}": value for name, value in results[moment].items()}.items() <= line.items()
    assert results["trained_parameters"] == results["parameters"]


def test_the_report_is_of_the_model_that_was_saved_and_its_probabilities_are_scaled(classify, labelled_file) -> None:
    """With some labels that are wrong, for the best temperature of a model that makes no mistake is 0."""
    lines = labelled_file.read_text(encoding="utf-8").splitlines()
    for row in range(5, len(lines), 6):
        lines[row] = lines[row].replace("ham", "sp@m").replace("spam", "ham").replace("sp@m", "spam")
    source = classify.folder / "noisy.csv"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    classify.run(source=str(source))
    rows = splits_of(classify, source=str(source)).test
    labels, calibration = torch.tensor(rows["label"]), read(classify.output_dir)["calibration"]
    final, last = (
        logits_of(folder, rows["text"]) for folder in (classify.final, classify.output_dir / "checkpoint-20")
    )
    assert calibration["reason"] is None
    assert abs(calibration["temperature"] - 1) > 0.01
    assert calibration["validation_loss_after"] < calibration["validation_loss_before"]
    assert_close(final * calibration["temperature"], last, rtol=1e-4, atol=1e-4)
    assert F.cross_entropy(final, labels).item() == pytest.approx(calibration["loss"], abs=1e-4)
    assert F.cross_entropy(last, labels).item() == pytest.approx(measured(classify.output_dir)["loss"], abs=1e-4)
    matrix = np.zeros((2, 2), dtype=int)
    np.add.at(matrix, (labels.numpy(), final.argmax(dim=1).numpy()), 1)
    assert matrix.tolist() == measured(classify.output_dir)["confusion_matrix"]
    wrong = {text for text, right in zip(rows["text"], final.argmax(dim=1) == labels, strict=True) if not right}
    errors = read(classify.output_dir)["most_confident_errors"]
    assert {error["text"] for error in errors} == wrong
    confidence = dict(zip(rows["text"], final.softmax(dim=1).amax(dim=1).tolist(), strict=True))
    for error in errors:
        assert error["confidence"] == pytest.approx(confidence[error["text"]], abs=1e-4)


def test_the_names_of_the_classes_travel_with_the_model(finished) -> None:
    recipe, _ = finished
    model = AutoModelForSequenceClassification.from_pretrained(recipe.final)
    assert isinstance(model, HfGptForSequenceClassification)
    assert model.config.id2label == {0: "ham", 1: "spam"}
    assert model.config.label2id == {"ham": 0, "spam": 1}
    assert read(recipe.output_dir)["names"] == ["ham", "spam"]
    assert AutoTokenizer.from_pretrained(recipe.final).model_max_length == 16


def test_no_text_of_the_test_is_trained_on(finished) -> None:
    splits = splits_of(finished[0])
    texts = [set(part["text"]) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in texts] == [140, 20, 40]
    assert len(set.union(*texts)) == 200


def test_the_written_configuration_repeats_the_run(finished, classify, comparison) -> None:
    recipe, _ = finished
    classify.module.main(["--config", str(recipe.output_dir / "config.yaml"), "--output_dir", str(classify.output_dir)])
    comparison.assert_same_run(classify.output_dir, recipe.output_dir, last_step=20)
    assert read(classify.output_dir) == read(recipe.output_dir)


def test_three_classes_of_pairs_judged_by_their_mean(classify, tmp_path) -> None:
    """Everything that is not the default of two classes and one text, at once."""
    classes = {"7": "the cat", "10": "red house", "-1": "it flew"}
    words = [f"{word} {number % 10}{number // 10}" for number in range(60) for word in ("on", "and")]
    rows = [
        f"{words[number]},{text},{label}"
        for number in range(0, 120, 2)
        for label, text in [list(classes.items())[number % 3]]
    ]
    (tmp_path / "pairs.csv").write_text("premise,hypothesis,stars\n" + "\n".join(rows) + "\n", encoding="utf-8")
    columns = {"text_column": "premise", "text_pair_column": "hypothesis", "label_column": "stars"}
    classify.run(source=str(tmp_path / "pairs.csv"), classifier_pooling="mean", max_steps=60, **columns)
    model = AutoModelForSequenceClassification.from_pretrained(classify.final)
    assert model.config.id2label == {0: "-1", 1: "7", 2: "10"}
    assert model.config.classifier_pooling == "mean"
    assert measured(classify.output_dir)["accuracy"] >= 0.9


def test_the_file_s_classes_may_be_given_apart_for_each_part(classify, tmp_path, labelled_file) -> None:
    lines = labelled_file.read_text(encoding="utf-8").splitlines()
    for name, part in (("validation", lines[101:121]), ("test", lines[121:151]), ("train", lines[1:101])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *part]) + "\n", encoding="utf-8")
    given = {f"{name}_source": str(tmp_path / f"{name}.csv") for name in ("validation", "test")}
    classify.run(source=str(tmp_path / "train.csv"), max_steps=2, **given)
    assert read(classify.output_dir)["num_examples"] == {"train": 100, "validation": 20, "test": 30}


# ----------------------------------------------------------------------------------------------------------------------
# What is trained
# ----------------------------------------------------------------------------------------------------------------------

TRAINED = {
    "head": (),
    "last_block": ("model.layers.1.", "model.norm."),
    "last_n_blocks": ("model.layers.1.", "model.norm."),
    "all": ("model.",),
    "lora": tuple(
        f"model.layers.{block}.{name}.weight"
        for block in (0, 1)
        for name in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.fc1",
            "mlp.fc2",
        )
    ),
}


@pytest.mark.parametrize("trainable", TRAINED)
def test_what_is_to_be_trained_is_and_all_else_stays_bit_for_bit(classify, checkpoint, trainable) -> None:
    printed = classify.run(trainable=trainable, num_trainable_blocks=1, lora_rank=2, max_steps=3, eval_steps=None)
    before, after = load_file(checkpoint / "model.safetensors"), load_file(classify.final / "model.safetensors")
    assert after.keys() - before.keys() == {"score.weight"}
    assert before.keys() - after.keys() <= {"lm_head.weight"}
    changed = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert changed == {name for name in after.keys() & before.keys() if name.startswith(TRAINED[trainable])}
    results = read(classify.output_dir, "results.json")
    expected = sum(weight.numel() for name, weight in after.items() if name in changed | {"score.weight"})
    if trainable == "lora":
        expected = 2 * (4 * (2 * 16 + 2 * 16) + 2 * (2 * 16 + 2 * 64)) + 2 * 16
    assert results["trained_parameters"] == expected
    assert f"{expected:,} of {results['parameters']:,} parameters" in printed


def test_random_weights_are_not_those_of_the_pretrained_model_but_of_its_shape(classify, checkpoint, tmp_path) -> None:
    fields = {"random_weights": True, "trainable": "head", "max_steps": 1, "eval_steps": None}
    classify.run(**fields)
    classify.run("--output_dir", str(tmp_path / "other"), "--seed", "43", **fields)
    pretrained, drawn, other = (
        load_file(folder / "model.safetensors") for folder in (checkpoint, classify.final, tmp_path / "other" / "final")
    )
    shared = drawn.keys() & pretrained.keys()
    assert {name: drawn[name].shape for name in shared} == {name: pretrained[name].shape for name in shared}
    for name in (name for name in shared if drawn[name].ndim == 2):
        assert not torch.isclose(drawn[name], pretrained[name]).all()
        assert not torch.isclose(drawn[name], other[name]).all()


def test_a_model_in_gpt2_s_layout_is_finetuned_as_it_is(classify, gpt2_checkpoint) -> None:
    classify.run(init_from=str(gpt2_checkpoint), trainable="head", calibrate=False)
    texts = splits_of(classify).test["text"][:8]
    reference = GPT2ForSequenceClassification.from_pretrained(gpt2_checkpoint, num_labels=2, pad_token_id=279).eval()
    with torch.no_grad():
        reference.score.weight.copy_(load_file(classify.final / "model.safetensors")["score.weight"])
        tokenizer = AutoTokenizer.from_pretrained(classify.final)
        expected = torch.cat(
            [reference(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts]
        )
    assert_close(logits_of(classify.final, texts), expected, rtol=1e-4, atol=1e-5)

    assert read(classify.output_dir)["calibration"] is None
    final, last = (
        load_file(folder / "model.safetensors") for folder in (classify.final, classify.output_dir / "checkpoint-20")
    )
    assert final.keys() == last.keys()
    assert all(torch.equal(weight, last[name]) for name, weight in final.items()), "nothing was scaled"


def test_class_weights_make_every_class_weigh_the_same_in_the_loss(classify, tmp_path, labelled_file) -> None:
    rows = [line.rsplit(",", 1) for line in labelled_file.read_text(encoding="utf-8").splitlines()[1:]]
    spam, ham = ([row for row in rows if row[1] == label] for label in ("spam", "ham"))
    source = tmp_path / "uneven.csv"
    source.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ham[:90] + spam[:30]))
    # One step on all texts at once that changes nothing: the loss that is logged is that of the model that is saved.
    fields = {"source": str(source), "balance": "class_weights", "model": NO_DROPOUT, "calibrate": False}
    printed = classify.run(max_steps=1, global_batch_size=84, logging_steps=1, learning_rate=1e-30, **fields)
    train = splits_of(classify, **fields).train
    assert Counter(train["label"]) == {0: 63, 1: 21}
    assert "weights of the classes in the loss: ham 0.667, spam 2" in printed
    labels = torch.tensor(train["label"])
    losses = F.cross_entropy(logits_of(classify.final, train["text"]), labels, reduction="none")
    expected = (losses[labels == 0].mean() + losses[labels == 1].mean()) / 2
    logged = next(line["train_loss"] for line in classify.metrics() if "train_loss" in line)
    assert logged == pytest.approx(expected.item(), rel=1e-5)
    assert abs(expected - losses.mean()) > 1e-3, "without weights the loss would be another"


# ----------------------------------------------------------------------------------------------------------------------
# The frozen part
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", ["head", "last_block"])
def test_with_the_frozen_part_kept_the_losses_and_predictions_are_the_same(classify, tmp_path, trainable) -> None:
    fields = {"trainable": trainable, "model": NO_DROPOUT, "adam_epsilon": 1e-3, "logging_steps": 1}
    other = tmp_path / "anew"
    assert "frozen part: computed once" in classify.run(cache_frozen="true", **fields)
    assert "computed anew" in classify.run("--output_dir", str(other), cache_frozen="false", **fields)
    assert len(list(classify.output_dir.glob("trunk_states-*.bin"))) == 1
    assert not list(other.glob("trunk_states-*"))
    for line, expected in zip(classify.metrics(), classify.metrics(other), strict=True):
        for name in {"train_loss", "validation_loss", "validation_accuracy"} & expected.keys():
            assert line[name] == pytest.approx(expected[name], abs=1e-5), (line["step"], name)
    assert measured(classify.output_dir)["confusion_matrix"] == measured(other)["confusion_matrix"]
    texts = splits_of(classify).test["text"]
    assert_close(logits_of(classify.final, texts), logits_of(other / "final", texts), rtol=1e-3, atol=1e-4)


def test_a_run_that_replaces_another_leaves_nothing_of_it_but_the_frozen_part_if_it_is_the_same(classify) -> None:
    fields = {"max_steps": 1, "eval_steps": None}
    assert "frozen part: computed once" in classify.run(trainable="last_block", **fields)
    states = list(classify.output_dir.glob("trunk_states-*"))
    assert len(states) == 1, "cache_frozen is auto"
    again = classify.run(trainable="last_block", overwrite_output_dir=True, learning_rate=1e-3, **fields)
    assert "frozen part: read from" in again
    assert list(classify.output_dir.glob("trunk_states-*")) == states
    (classify.output_dir / "report.json").write_text("of the run before", encoding="utf-8")
    classify.run(overwrite_output_dir=True, **fields)
    assert not list(classify.output_dir.glob("trunk_states-*"))
    assert read(classify.output_dir)["model"] == "GPT after 1 steps"

"""The recipes on a GPU, by their commands: every part that can be trained, and what is used of the model afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hfgpt import HfGptForCausalLM
from hfgpt.serving.classification import Classifier

TRAINABLE = ["head", "last_block", "last_n_blocks", "all", "lora"]


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("trainable", TRAINABLE)
@pytest.mark.parametrize("classifier_pooling", ["last_token", "mean"])
def test_a_classifier_learns_whatever_is_trained_of_it(classify, trainable, classifier_pooling) -> None:
    printed = classify.run(trainable=trainable, classifier_pooling=classifier_pooling, num_trainable_blocks=1)
    assert "trained on cuda" in printed
    found = report(classify.output_dir)
    before, after = (found["models"][name]["loss"] for name in ("GPT before training", found["model"]))
    assert after < before


@pytest.mark.parametrize("trainable", ["head", "last_block"])
def test_with_the_frozen_part_kept_the_losses_are_the_same(classify, trainable) -> None:
    losses = {}
    for cache_frozen in ("true", "false"):
        fields = {"trainable": trainable, "mixed_precision": "no", "overwrite_output_dir": True}
        classify.run(cache_frozen=cache_frozen, **fields)
        losses[cache_frozen] = [line["train_loss"] for line in classify.metrics() if "train_loss" in line]
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-5)


def test_class_weights_train_on_the_gpu(classify) -> None:
    assert "trained on cuda" in classify.run(balance="class_weights")
    found = report(classify.output_dir)
    before, after = (found["models"][name]["loss"] for name in ("GPT before training", found["model"]))
    assert after < before


def test_predictions_are_those_of_the_cpu(classify) -> None:
    classify.run(mixed_precision="no")
    texts = ["the cat sat", "on the mat under", "red and blue it on under house"]
    classifier = Classifier.load(classify.final)
    model = AutoModelForSequenceClassification.from_pretrained(classify.final)
    tokenizer = AutoTokenizer.from_pretrained(classify.final)
    assert (classifier.model.device.type, model.device.type) == ("cuda", "cpu")
    for text, prediction in zip(texts, classifier.classify(texts), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits.softmax(-1)[0]
        assert list(prediction.scores.values()) == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("batching", ["length_groups", "packing", "random"])
@pytest.mark.parametrize("trainable", ["all", "lora"])
def test_an_assistant_learns_in_every_kind_of_batch(instruct, batching, trainable) -> None:
    instruct.run(batching=batching, trainable=trainable)
    losses = [line["validation_loss"] for line in instruct.metrics() if "validation_loss" in line]
    assert losses[-1] < losses[0]
    assert HfGptForCausalLM.from_pretrained(instruct.final).lm_head.weight.isfinite().all()
    answers = (instruct.output_dir / "test_answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(answers) == report(instruct.output_dir)["test"]["num_examples"]


def test_packed_rows_have_the_losses_of_padded_ones(instruct) -> None:
    losses = {}
    for batching in ("random", "packing"):
        instruct.run(batching=batching, mixed_precision="no", max_steps=4, logging_steps=1, overwrite_output_dir=True)
        losses[batching] = next(line["validation_loss"] for line in instruct.metrics() if "validation_loss" in line)
    assert losses["packing"] == pytest.approx(losses["random"], rel=1e-5)


def test_a_model_is_pretrained_and_says_what_it_took(recipe) -> None:
    printed = recipe.run()
    assert "cuda" in printed
    facts = json.loads((recipe.output_dir / "card_facts.json").read_text(encoding="utf-8"))
    assert torch.cuda.get_device_name() in json.dumps(facts)

"""Classifying texts in bulk: the probabilities of transformers' own pipeline, whatever the batches."""

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from hfgpt import HfGptForSequenceClassification
from hfgpt.errors import UserError
from hfgpt.serving.classification import WINDOW_BATCHES, Classifier
from hfgpt.tokenization import encode_for_classification, frame_texts, load_tokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "house"]
STRANGER = """
import json, sys
from transformers import pipeline

folder, inputs, answers = sys.argv[1:]
classify = pipeline("text-classification", model=folder, trust_remote_code=True)
json.dump(classify(json.load(open(inputs)), batch_size=4, top_k=None), open(answers, "w"))
"""


def texts_of(count: int, longest: int = 8, seed: int = 0) -> list[str]:
    """Texts of 1 to `longest` words."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, longest))) for _ in range(count)]


def assert_same(predictions, answers) -> None:
    """`answers` are a pipeline's, with `top_k=None`: all classes, the likeliest first."""
    assert len(predictions) == len(answers)
    for prediction, answer in zip(predictions, answers, strict=True):
        assert prediction.label == answer[0]["label"]
        assert prediction.score == pytest.approx(answer[0]["score"], abs=1e-5)
        assert prediction.scores == pytest.approx({found["label"]: found["score"] for found in answer}, abs=1e-5)


def separated(folder: Path) -> None:
    """Make the saved tokenizer one for pairs, as the recipe does."""
    tokenizer = load_tokenizer(folder)
    frame_texts(tokenizer)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_predictions_are_those_of_the_pipeline_for_any_batch(classifier_folder, batch_size: int) -> None:
    texts = texts_of(21)
    answers = pipeline("text-classification", model=str(classifier_folder))(texts, batch_size=4, top_k=None)
    assert len({answer[0]["label"] for answer in answers}) > 1
    assert_same(list(Classifier.load(classifier_folder).classify(texts, batch_size=batch_size)), answers)


def test_a_fresh_process_without_the_package_predicts_the_same(classifier_folder, run_without_hfgpt, tmp_path) -> None:
    texts = texts_of(9)
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    run_without_hfgpt(STRANGER, classifier_folder, str(tmp_path / "texts.json"), str(tmp_path / "answers.json"))
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert_same(list(Classifier.load(classifier_folder).classify(texts)), answers)


def test_pairs_are_predicted_as_by_the_pipeline_with_and_without_the_package(
    classifier_folder, run_without_hfgpt, tmp_path
) -> None:
    separated(classifier_folder)
    texts, others = texts_of(9, 4), texts_of(9, 4, seed=1)
    inputs = [{"text": text, "text_pair": other} for text, other in zip(texts, others, strict=True)]
    ours = list(Classifier.load(classifier_folder).classify(texts, others))
    assert_same(ours, pipeline("text-classification", model=str(classifier_folder))(inputs, batch_size=4, top_k=None))
    (tmp_path / "pairs.json").write_text(json.dumps(inputs))
    run_without_hfgpt(STRANGER, classifier_folder, str(tmp_path / "pairs.json"), str(tmp_path / "answers.json"))
    assert_same(ours, json.loads((tmp_path / "answers.json").read_text()))
    swapped = list(Classifier.load(classifier_folder).classify(others, texts))
    assert swapped[0].scores != pytest.approx(ours[0].scores, abs=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("in_pairs", [False, True])
def test_long_texts_are_cut_as_by_the_pipeline_and_counted(classifier_folder, side: str, in_pairs: bool) -> None:
    if in_pairs:
        separated(classifier_folder)
    path = classifier_folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": side}))
    texts, others = texts_of(12, 30), texts_of(12, 30, seed=1)
    inputs = [{"text": text, "text_pair": other} for text, other in zip(texts, others, strict=True)]
    answers = pipeline("text-classification", model=str(classifier_folder))(
        inputs if in_pairs else texts, top_k=None, truncation=True
    )
    classifier = Classifier.load(classifier_folder)
    assert_same(list(classifier.classify(texts, others if in_pairs else None)), answers)
    whole = classifier.tokenizer(*((texts, others) if in_pairs else (texts,)))["input_ids"]
    assert 0 < classifier.num_truncated == sum(len(ids) > classifier.max_length for ids in whole)
    assert classifier.num_texts == 12


def test_the_token_between_a_pair_survives_truncation(tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    separated(tmp_path)
    pairs = load_tokenizer(tmp_path)
    encoded = encode_for_classification(pairs, ["the cat " * 50, "a"], ["a dog " * 50, ""], max_length=9)
    assert [len(ids) for ids in encoded.input_ids] == [9, 2]
    assert all(ids.count(pairs.eos_token_id) == 1 for ids in encoded.input_ids)
    assert (encoded.num_truncated, encoded.num_empty) == (1, 0)
    assert '"truncation":null' in pairs.backend_tokenizer.to_str()  # nothing is left behind to be saved


def test_an_empty_text_is_judged_by_the_end_of_text_token(classifier_folder) -> None:
    classifier = Classifier.load(classifier_folder)
    first, _ = classifier.classify(["", "the cat sat on a mat"])
    with torch.no_grad():
        logits = classifier.model(input_ids=torch.tensor([[classifier.tokenizer.eos_token_id]])).logits
    assert list(first.scores.values()) == pytest.approx(logits.softmax(-1)[0].tolist(), abs=1e-6)
    assert classifier.num_empty == 1


def test_texts_are_taken_as_predictions_are_asked_for(classifier_folder) -> None:
    taken = itertools.count()
    endless = (f"the cat {next(taken)}" for _ in itertools.repeat(None))
    predictions = Classifier.load(classifier_folder).classify(endless, batch_size=2)
    assert [next(predictions).label for _ in range(2 * WINDOW_BATCHES + 1)]
    assert next(taken) == 4 * WINDOW_BATCHES  # two windows


def test_batches_hold_texts_of_similar_length(classifier_folder, monkeypatch) -> None:
    classifier = Classifier.load(classifier_folder)
    computed: list[list[int]] = []
    compute = classifier._compute
    monkeypatch.setattr(classifier, "_compute", lambda ids: computed.append([len(row) for row in ids]) or compute(ids))
    list(classifier.classify(texts_of(64), batch_size=8))
    flat = [length for batch in computed for length in batch]
    assert len(computed) == 8
    assert flat == sorted(flat)


def test_no_memory_for_a_batch_halves_it_and_changes_no_prediction(classifier_folder, monkeypatch, caplog) -> None:
    texts = texts_of(20)
    expected = list(Classifier.load(classifier_folder).classify(texts, batch_size=8))
    classifier = Classifier.load(classifier_folder)
    sizes: list[int] = []
    compute = classifier._compute

    def compute_little(ids):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(ids)

    monkeypatch.setattr(classifier, "_compute", compute_little)
    found = list(classifier.classify(texts, batch_size=8))
    assert sizes[:4] == [8, 4, 2, 2]
    assert max(sizes[2:]) == 2  # what memory holds is remembered
    assert "with 8 texts at once; it goes on with 4" in caplog.text
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


def test_no_memory_for_a_single_text_is_one_sentence(classifier_folder, monkeypatch) -> None:
    classifier = Classifier.load(classifier_folder)

    def fail(ids):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(classifier, "_compute", fail)
    with pytest.raises(UserError, match="single text of"):
        list(classifier.classify(["the cat", "the dog"]))


def test_other_errors_are_not_taken_for_a_lack_of_memory(classifier_folder, monkeypatch) -> None:
    classifier = Classifier.load(classifier_folder)

    def fail(ids):
        raise RuntimeError("something else")

    monkeypatch.setattr(classifier, "_compute", fail)
    with pytest.raises(RuntimeError, match="something else"):
        list(classifier.classify(["the cat"]))


def test_lone_surrogates_are_replaced_and_said(classifier_folder, caplog) -> None:
    classifier = Classifier.load(classifier_folder)
    broken, mended = classifier.classify(["the \udcff cat", "the \ufffd cat"])
    assert broken == mended
    assert "replaced 1 lone surrogates" in caplog.text


def test_a_fingerprint_follows_content_and_not_place(classifier_folder) -> None:
    fingerprint = Classifier.load(classifier_folder).fingerprint()
    other = Classifier.load(classifier_folder.rename(classifier_folder.parent / "elsewhere"))
    assert other.fingerprint() == fingerprint
    list(other.classify(texts_of(3, 40)))
    assert other.fingerprint() == fingerprint
    other.model.score.weight.data[0, 0] += 1e-3
    assert other.fingerprint() != fingerprint


def test_a_language_model_is_refused(model_folder) -> None:
    with pytest.raises(UserError, match="without a classification head: train one"):
        Classifier.load(model_folder)


def test_a_model_without_a_tokenizer_is_refused(classifier_folder) -> None:
    for path in classifier_folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="tokenizer"):
        Classifier.load(classifier_folder)


@pytest.mark.parametrize("kind", [{"num_labels": 1}, {"problem_type": "multi_label_classification"}], ids=str)
def test_a_model_that_gives_no_class_is_refused(classifier_folder, kind) -> None:
    model = HfGptForSequenceClassification.from_pretrained(classifier_folder, ignore_mismatched_sizes=True, **kind)
    model.save_pretrained(classifier_folder)
    with pytest.raises(UserError, match="not one class of several"):
        Classifier.load(classifier_folder)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(classifier_folder) -> None:
    tokenizer = load_tokenizer(classifier_folder)
    tokenizer.add_tokens(["wolf"])
    tokenizer.save_pretrained(classifier_folder)
    with pytest.raises(UserError, match="271 ids, but the model's vocabulary only 270"):
        Classifier.load(classifier_folder)


@pytest.mark.parametrize(("texts", "options"), [("the cat", {}), (["the cat"], {"batch_size": 0})])
def test_bad_arguments_are_one_sentence(classifier_folder, texts, options) -> None:
    with pytest.raises(UserError):
        next(Classifier.load(classifier_folder).classify(texts, **options))

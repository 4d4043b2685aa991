"""What `hfgpt classify train` refuses: with one sentence, before any long work, and leaving nothing behind."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from hfgpt import HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.evaluation import classification
from hfgpt.recipes import labelled_corpus


@pytest.fixture(autouse=True)
def no_folder(classify):
    """Every mistake here is known before the run's folder is created."""
    yield
    assert not classify.output_dir.exists()


def rows_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def changed(tmp_path, labelled_file):
    """The labelled texts with some lines more, as bytes; its path."""

    def write(*lines: bytes, without: str | None = None) -> str:
        kept = [row.encode() for row in rows_of(labelled_file) if without is None or not row.endswith(f",{without}")]
        path = tmp_path / "changed.csv"
        path.write_bytes(b"\n".join([*kept, *lines]) + b"\n")
        return str(path)

    return write


def test_a_source_that_is_not_there(classify) -> None:
    assert "/no/such.csv" in classify.refusal(source="/no/such.csv")


@pytest.mark.parametrize("field", ["text_column", "label_column", "text_pair_column"])
def test_a_column_that_is_not_there_with_those_that_are(classify, field) -> None:
    message = classify.refusal(**{field: "body"})
    assert f"no column 'body'; its columns are text, label: name one of them as {field}" in message


def test_a_class_with_one_example(classify, changed) -> None:
    assert "class 'advert' has 1 example" in classify.refusal(source=changed(b"buy it,advert"))


def test_one_class_alone(classify, changed) -> None:
    assert "nothing to tell apart" in classify.refusal(source=changed(without="spam"))


def test_a_test_with_a_class_that_training_never_saw(classify, tmp_path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("text,label\nit is,ham\nso it is,eggs\n", encoding="utf-8")
    message = classify.refusal(test_source=str(path))
    assert "test has labels that training never saw: 'eggs' (training has 'ham', 'spam')" in message


def test_quantities_in_place_of_classes(classify, tmp_path) -> None:
    path = tmp_path / "stars.csv"
    path.write_text("text,label\n" + "".join(f"text {i},{i / 4}\n" for i in range(40)), encoding="utf-8")
    assert "quantities (0.25 among them) and no classes" in classify.refusal(source=str(path))


def test_bytes_that_are_not_utf8_with_their_line(classify, changed) -> None:
    message = classify.refusal(source=changed(b"caf\xe9,ham"))
    assert "changed.csv is not UTF-8" in message
    assert "line 202" in message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_length": 17}, "max_length (17) is greater than the model's context (16)"),
        ({"pad_to_length": 17}, "pad_to_length (17) is greater than the model's context (16)"),
        ({"max_length": 8, "pad_to_length": 7}, "max_length (8) is above pad_to_length (7)"),
        ({"global_batch_size": 141}, "140 training examples, fewer than one global batch of 141"),
        ({"cache_frozen": "true"}, "cache_frozen cannot be true where trainable is all"),
        ({"cache_frozen": "true", "trainable": "lora"}, "cache_frozen cannot be true where trainable is lora"),
        ({"trainable": "tail"}, "trainable"),
        ({"trainable": "last_n_blocks", "num_trainable_blocks": 3}, "but the model has 2 blocks"),
        ({"classifier_pooling": "median"}, "classifier_pooling"),
        ({"model": {"hidden_sze": 3}}, "model has no field hidden_sze: see hfgpt.HfGptConfig."),
        ({"model": {"classifier_pooling": "mean"}}, "model.classifier_pooling follows from classifier_pooling"),
        ({"model": {"pad_token_id": 3}}, "model.pad_token_id follows from the tokenizer"),
        ({"model": {"residual_dropout": "much"}}, "residual_dropout"),
        ({"model": {"hidden_size": 32}}, "the configuration asks for"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"validation_source": "a.csv", "validation_split": "b"}, "Give one of validation_split"),
        ({"lora_rank": 0}, "lora_rank must be greater than zero"),
        ({"init_from": "/no/such/model"}, "/no/such/model"),
        ({"tokenizer": "/no/such/tokenizer"}, "/no/such/tokenizer"),
        ({"test_split": "test"}, "leave split='test' out"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together(classify, fields, words) -> None:
    assert words in classify.refusal(**fields)


def test_a_model_without_a_tokenizer(classify, tmp_path, checkpoint) -> None:
    HfGptForCausalLM.from_pretrained(checkpoint).save_pretrained(tmp_path / "bare")
    message = classify.refusal(init_from=str(tmp_path / "bare"))
    assert str(tmp_path / "bare") in message
    assert "tokenizer" in message


def test_a_tokenizer_of_another_model(classify, checkpoint, tmp_path) -> None:
    HfGptForCausalLM.from_pretrained(checkpoint, vocab_size=270, ignore_mismatched_sizes=True).save_pretrained(
        tmp_path / "small"
    )
    message = classify.refusal(init_from=str(tmp_path / "small"), tokenizer=str(checkpoint))
    assert "280 ids" in message


def test_a_metric_that_is_nowhere(classify, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the metric 'no/such_metric' cannot be loaded" in classify.refusal(extra_metrics=["no/such_metric"])


def test_a_metric_of_something_else(classify, monkeypatch) -> None:
    """It is there, but takes no predicted classes: known before training, and not only when that is over."""

    class Perplexity:
        def compute(self, **inputs: object) -> None:
            raise ValueError("it takes texts")

    monkeypatch.setattr("hfgpt.recipes.classification_results.load_metric", lambda name: None)
    loaded = classification.load_metric
    monkeypatch.setattr(
        classification, "load_metric", lambda name: Perplexity() if name == "perplexity" else loaded(name)
    )
    message = classify.refusal(extra_metrics=["perplexity"])
    assert "'perplexity' cannot be computed from predicted and true class ids (it takes texts)" in message


def test_a_classifier_of_other_classes(classify, checkpoint, tmp_path) -> None:
    """Of another number of them, or of as many under other names: its head has learned other answers."""
    for names in (["a", "b", "c"], ["neg", "pos"], ["spam", "ham"]):
        other = HfGptForSequenceClassification.from_pretrained(checkpoint, id2label=dict(enumerate(names)))
        other.save_pretrained(tmp_path / names[0])
        message = classify.refusal(init_from=str(tmp_path / names[0]), tokenizer=str(checkpoint))
        expected = f"{tmp_path / names[0]} is a classifier of {', '.join(names)}, and the texts are of ham, spam"
        assert expected in message


def test_texts_without_a_word(classify, tmp_path) -> None:
    path = tmp_path / "signs.csv"
    rows = [f"{first}{second},{label}" for label, first in (("a", "!"), ("b", "?")) for second in "!.;:?-+*(="]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert "finds no word" in classify.refusal(source=str(path), global_batch_size=2)


def test_more_to_keep_of_the_frozen_part_than_the_disk_holds(classify, monkeypatch) -> None:
    monkeypatch.setattr("hfgpt.recipes.frozen_cache.shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    assert "cache_frozen is true" in classify.refusal(cache_frozen="true", trainable="last_block")


@pytest.mark.parametrize(
    "fields",
    [{"extra_metrics": ["no/such_metric"]}, {"tokenizer": "/no/such/tokenizer"}, {"lora_dropout": 1}],
    ids=lambda fields: ", ".join(fields),
)
def test_what_needs_no_text_is_known_before_the_text_is_read(classify, monkeypatch, fields) -> None:
    def read(*args: object, **kwargs: object) -> None:
        pytest.fail("the text was read before the mistake was found")

    monkeypatch.setattr(labelled_corpus, "load_labelled", read)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    classify.refusal(**fields)

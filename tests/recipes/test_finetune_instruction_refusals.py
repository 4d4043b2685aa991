"""A user's mistakes in `hfgpt instruct`: one sentence with the remedy, before any training, and nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest

GOOD = {"instruction": "say it", "output": "it"}


def written(path: Path, *records: Any) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in records))
    return str(path)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([GOOD, {**GOOD, "output": " "}], ("line 2", "answer")),
        ([{"instruction": "say it"}], ("instruction", "output")),
        ([GOOD, '{"instruction": "say it", "out'], ("line 2", "JSON")),
        ([{"messages": [{"role": "user", "content": "a"}, {"role": "teacher", "content": "b"}]}], ("teacher",)),
        ([{"messages": [{"role": "user", "content": 5}, {"role": "assistant", "content": "b"}]}], ("line 1",)),
    ],
    ids=["empty answer", "missing column", "broken line", "unknown role", "no text"],
)
def test_bad_records_are_named_by_their_line(instruct, records, words) -> None:
    sentence = instruct.refusal(source=written(instruct.folder / "entries.jsonl", *records))
    for word in words:
        assert word in sentence
    assert not instruct.output_dir.exists()


def test_an_entry_without_an_answer_is_left_out_where_that_is_asked_for(instruct, instruction_file) -> None:
    entries = json.loads(instruction_file.read_text(encoding="utf-8"))
    source = written(instruct.folder / "entries.jsonl", *entries, {"instruction": "say nothing", "output": ""})
    assert "1 without an answer dropped" in instruct.run(source=source, unanswered="drop", max_steps=1)
    report = json.loads((instruct.output_dir / "report.json").read_text(encoding="utf-8"))
    assert report["counts"]["unanswered"] == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_length": 40, "too_long": "refuse"}, "longer than 40 tokens, the first, which asks '"),
        ({"max_length": 97}, "max_length (97) is greater than the model's context (96)"),
        ({"max_length": 5}, "fits into 5 tokens"),
        ({"template": "vicuna"}, "There is no chat template vicuna"),
        ({"template": "saved"}, "no chat template"),
        ({"form": "sharegpt"}, "conversations"),
        ({"init_from": "runs/nothing/here"}, "runs/nothing/here is no folder"),
        ({"source": "entries.json"}, "entries.json"),
        ({"max_steps": None, "num_train_epochs": 1, "global_batch_size": 500}, "192 training examples"),
        ({"validation_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train on"),
        ({"trainable": "lora", "random_weights": True}, "with random_weights, train all"),
        ({"model": {"hidden_size": 64}}, "model.hidden_size cannot be changed"),
        ({"model": {"hiden_dropout": 0.1}}, "hiden_dropout"),
        ({"test_split": "test"}, "split"),
        ({"max_test_examples": -1, "lora_dropout": 1.0}, "max_test_examples must not be negative"),
    ],
)
def test_what_cannot_work_is_said_before_training(instruct, fields, words) -> None:
    assert words in instruct.refusal(**fields)
    assert not instruct.output_dir.exists()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "{% generation %}"),
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
            "{% else %}{{ m.content }}\n{% endif %}{% endfor %}",
            "does not end the answer",
        ),
        ("{% for m in messages %}{{ m.content }", "template"),
    ],
    ids=["no answer marked", "the answer is not ended", "no Jinja"],
)
def test_a_template_that_would_not_teach_to_answer_or_to_stop_is_refused(instruct, template, words) -> None:
    path = instruct.folder / "own.jinja"
    path.write_text(template, encoding="utf-8")
    assert words in instruct.refusal(template=str(path))
    assert not instruct.output_dir.exists()

"""`hfgpt answer`: a record for each record, with the model's answer, and the same ones after an interruption."""

import copy
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hfgpt import HfGptForCausalLM
from hfgpt.chat_templates import encode_chat_prompt, set_chat_template
from hfgpt.cli.partial_file import PartialFile
from hfgpt.evaluation.answers import score_answers
from hfgpt.tokenization import load_tokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "house"]
CONTEXT = 96

# The command in a process that ends at the third window, in the way that is named, with a row half written.
DYING = """
import os, signal, sys
from pathlib import Path
from hfgpt.cli import answered_file, main

way, *sys.argv[1:] = sys.argv[1:]
windows, answer_prompts = [], answered_file.answer_prompts

def answer_twice(*arguments, **options):
    windows.append(None)
    if len(windows) == 3:
        for path in Path.cwd().glob("*.partial/rows.*"):
            with path.open("ab") as file:
                file.write(b'{"half a ro')
        os.kill(os.getpid(), getattr(signal, way))
    return answer_prompts(*arguments, **options)

answered_file.answer_prompts = answer_twice
main.main()
"""


def questions(count: int) -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 6))) for _ in range(count)]


def write(path: Path, records: list[dict]) -> Path:
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text(f"[{', '.join(lines)}]" if path.suffix == ".json" else "\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def chat_folder(save, tokenizer) -> Path:
    """A tiny model with a chat template, as the recipe saves it."""
    folder = save(name="chat", max_position_embeddings=CONTEXT, initializer_range=1.0, tie_word_embeddings=False)
    with_template = copy.deepcopy(tokenizer)
    set_chat_template(with_template, "phi3")
    with_template.save_pretrained(folder)
    return folder


@pytest.fixture
def answer(hfgpt, chat_folder):
    return lambda *arguments: hfgpt("answer", "--model", chat_folder, *arguments)


@pytest.fixture
def generated(chat_folder):
    """The answer of transformers' `generate` to one conversation, greedy, with the limits that were saved."""
    model = HfGptForCausalLM.from_pretrained(chat_folder).eval()
    tokenizer = load_tokenizer(chat_folder)

    def generate(messages: list[dict], max_new_tokens: int = 16) -> str:
        prompt = torch.tensor([encode_chat_prompt(tokenizer, messages)])
        output = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_new_tokens
        )
        return tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)

    return generate


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_each_record_comes_out_in_order_as_it_was_with_the_models_answer(
    answer, generated, tmp_path, suffix: str
) -> None:
    records = [
        {"instruction": text, "input": "", "output": f"é {number}", "id": number, "note": None}
        for number, text in enumerate(questions(9))
    ]
    path, out, report = write(tmp_path / f"in.{suffix}", records), tmp_path / f"out.{suffix}", tmp_path / "report.json"
    printed = answer("--data", path, "--out", out, "--batch-size", 4, "--report", report)
    assert printed.status == 0, printed.err
    answered = read(out)
    texts = [generated([{"role": "user", "content": record["instruction"]}]) for record in records]
    assert [{**record, "answer": text} for record, text in zip(records, texts, strict=True)] == [
        {name: value for name, value in record.items() if name != "finished"} for record in answered
    ]
    unfinished = sum(not record["finished"] for record in answered)
    assert f"{out}: 9 answers" + (f", {unfinished} of them cut off" if unfinished else "") in printed.out
    assert "read as alpaca" in printed.out
    assert "exact match" in printed.out
    scores = json.loads(report.read_text())
    expected = score_answers(texts, [record["output"] for record in records])
    assert {name: scores[name] for name in expected} == expected
    assert (scores["num_answers"], scores["unfinished"]) == (9, unfinished)


def test_conversations_that_end_with_a_question_or_an_answer_are_answered_at_that_place(
    answer, generated, tmp_path
) -> None:
    first = [{"role": "user", "content": "cat"}, {"role": "assistant", "content": "mat"}]
    records = [
        {"messages": [*first, {"role": "user", "content": "dog"}], "task": "a"},
        {"messages": first, "task": "b"},
    ]
    out = tmp_path / "out.jsonl"
    printed = answer("--data", write(tmp_path / "in.jsonl", records), "--out", out, "--json")
    assert printed.status == 0, printed.err
    texts = [record["answer"] for record in read(out)]
    assert texts == [generated(records[0]["messages"]), generated(first[:1])]
    summary = json.loads(printed.out)
    assert (summary["num_answers"], summary["num_examples"]) == (2, 1)
    assert list(summary["by_task"]) == ["b"]


def test_a_file_without_answers_is_answered_without_scores(answer, tmp_path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": text} for text in questions(3)])
    out = tmp_path / "out.jsonl"
    printed = answer("--data", path, "--out", out)
    assert (printed.status, "exact match" in printed.out) == (0, False)
    assert [list(record) for record in read(out)] == [["prompt", "answer", "finished"]] * 3
    refused = answer("--data", path, "--out", tmp_path / "other.jsonl", "--report", tmp_path / "report.json")
    assert "has no answers to compare the model's with" in refused.sentence


def test_the_builtin_source_is_answered_by_its_split(answer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("hfgpt.cli.answered_file.encode_chat_prompt", lambda tokenizer, messages: [5, 6])
    out = tmp_path / "out.jsonl"
    data = ["--data", "builtin:instructions", "--split", "validation", "--out", out, "--max-new-tokens", 1]
    printed = answer(*data, "--batch-size", 64, "--json")
    assert printed.status == 0, printed.err
    record = read(out)[0]
    assert list(record) == ["messages", "task", "answer", "finished"]
    assert record["messages"][-1]["role"] == "assistant"
    assert sum(score["num_examples"] for score in json.loads(printed.out)["by_task"].values()) == len(read(out))


def test_samples_are_repeatable_and_other_than_the_greedy_answers(answer, tmp_path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "the cat"}] * 6)
    options = {
        "greedy": [],
        "first": ["--temperature", 1.0, "--top-k", 20],
        "second": ["--temperature", 1.0, "--top-k", 20, "--batch-size", 2],
        "other": ["--temperature", 1.0, "--top-k", 20, "--seed", 1],
    }
    texts = {}
    for name, arguments in options.items():
        out = tmp_path / f"{name}.jsonl"
        assert answer("--data", path, "--out", out, *arguments).status == 0
        texts[name] = [record["answer"] for record in read(out)]
    assert len(set(texts["greedy"])) == 1
    assert len(set(texts["first"])) > 2
    assert texts["first"] == texts["second"] != texts["other"]


def test_a_system_message_and_a_template_can_be_given(answer, hfgpt, save, tmp_path) -> None:
    plain = save(max_position_embeddings=CONTEXT)
    path = write(tmp_path / "in.jsonl", [{"prompt": "the cat"}])
    arguments = ["--model", plain, "--data", path, "--max-new-tokens", 4]
    assert "has no chat template" in hfgpt("answer", *arguments, "--out", tmp_path / "a.jsonl").sentence
    for name, more in {"a": [], "b": ["--system-prompt", "a dog"]}.items():
        out = tmp_path / f"{name}.jsonl"
        assert hfgpt("answer", *arguments, "--out", out, "--template", "phi3", *more).status == 0
        assert len(read(out)) == 1


# ---- interruptions --------------------------------------------------------------------------------------------------


def die(way: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", DYING, way, "answer", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize(("way", "suffix"), [("SIGKILL", "json"), ("SIGTERM", "jsonl"), ("SIGINT", "jsonl")])
def test_an_interrupted_run_goes_on_and_writes_what_an_uninterrupted_one_does(
    answer, chat_folder, tmp_path, way: str, suffix: str
) -> None:
    records = [{"instruction": text, "output": text, "task": text[0]} for text in questions(50)]
    path = write(tmp_path / "in.json", records)
    options = ["--data", path, "--batch-size", 1, "--temperature", 1.0, "--max-new-tokens", 5]
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    summary = answer(*options, "--out", whole, "--json")
    assert summary.status == 0

    died = die(way, tmp_path, "--model", chat_folder, *options, "--out", out)
    assert died.returncode == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[way], died.stderr
    assert not out.exists()
    assert PartialFile.rows_in(out) == 32  # two windows of 16 batches
    assert (tmp_path / f"out.{suffix}.partial" / f"rows.{suffix}").read_bytes().endswith(b'{"half a ro')
    if way != "SIGKILL":
        assert f"{signal.Signals[way].name}: 32 rows are kept in" in died.stderr
        assert "the same command with --resume goes on" in died.stderr

    assert "holds 32 rows of a run that was interrupted" in answer(*options, "--out", out).sentence
    for other, name in ((["--seed", 3], "seed"), (["--system-prompt", "dog"], "template or system prompt")):
        refused = answer(*options, *other, "--out", out, "--resume")
        assert (refused.status, f"was begun with another {name}:" in refused.err) == (2, True)
    resumed = answer(*options, "--out", out, "--resume", "--json")
    assert (resumed.status, "64%" in resumed.err) == (0, True)  # the bar begins where the rows are
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f"out.{suffix}.partial").exists()
    scores = [json.loads(printed.out) | {"out": ""} for printed in (summary, resumed)]
    assert scores[0] == scores[1]


# ---- mistakes -------------------------------------------------------------------------------------------------------


GOOD = '{"prompt": "cat"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"prompt": \n', "line 2"),
        ('{"text": "cat"}\n', "has the columns text"),
        ("", "holds no record"),
        (GOOD + '{"prompt": 7}\n', "line 2"),
        (GOOD + '{"prompt": "' + "cat " * 200 + '"}\n', "line 2 of .* which leaves no room for an answer"),
        ('{"prompt": "cat", "answer": "mat"}\n', "line 1 of .* has a field 'answer', which is to hold"),
    ],
)
def test_a_mistake_in_the_data_is_one_sentence_and_leaves_nothing(answer, tmp_path, content, message) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    refused = answer("--data", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl", "--json")
    assert re.search(message, refused.sentence), refused.sentence
    assert [path.name for path in tmp_path.glob("out*")] == []


def test_what_does_not_fit_together_is_one_sentence_before_the_model_is_loaded(answer, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("hfgpt.cli.answer.load_model", lambda *arguments, **options: pytest.fail("it is loaded"))
    path = write(tmp_path / "in.jsonl", [{"prompt": "cat", "completion": "mat"}])
    there = write(tmp_path / "there.jsonl", [])
    (tmp_path / "report.json").write_text("{}")
    out = tmp_path / "out.jsonl"
    for arguments, message in (
        (["--out", there], "there.jsonl exists: name another file, or replace it with --overwrite"),
        (["--out", tmp_path / "out.csv"], "is neither .jsonl nor .json"),
        (["--out", tmp_path / "no" / "out.jsonl"], "There is no folder"),
        (["--out", out, "--report", tmp_path / "report.json"], "report.json exists"),
        (["--out", out, "--report", tmp_path / "report.txt"], "is no .json file"),
        (["--out", out, "--report", tmp_path / "no" / "report.json"], "There is no folder"),
        (["--out", out, "--seed", -1], "seed must lie between 0"),
        (["--out", out, "--top-k", 3], "give a --temperature above 0"),
        (["--out", out, "--top-p", 0.5, "--temperature", 0], "give a --temperature above 0"),
        (["--out", out, "--template", "none.jinja"], "none.jinja"),
        (["--out", out, "--split", "test"], "split"),
    ):
        assert message in answer("--data", path, *arguments).sentence, arguments
    missing = answer("--data", tmp_path / "missing.jsonl", "--out", out).sentence
    assert "missing.jsonl" in missing
    assert "holds the questions" in answer("--data", path, "--out", path, "--overwrite").sentence
    assert len(read(path)) == 1
    same = tmp_path / "same.json"
    assert "name two files" in answer("--data", path, "--out", same, "--report", same).sentence
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_record_of_progress_is_one_sentence(answer, tmp_path, content) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "cat"}])
    (tmp_path / "out.jsonl.partial").mkdir()
    (tmp_path / "out.jsonl.partial" / "progress.json").write_text(content)
    for option in ("--resume", "--overwrite"):
        refused = answer("--data", path, "--out", tmp_path / "out.jsonl", option)
        assert "is damaged: remove" in refused.sentence


def test_a_model_that_is_not_there_is_one_sentence(answer, hfgpt, tmp_path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "cat"}])
    arguments = ["--data", path, "--out", tmp_path / "out.jsonl"]
    assert "nowhere" in hfgpt("answer", "--model", tmp_path / "nowhere", *arguments).sentence


def test_overwrite_replaces_a_file_when_the_new_one_is_complete(answer, tmp_path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "cat"}])
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    (tmp_path / "in2.jsonl").write_text("broken\n")
    assert answer("--data", tmp_path / "in2.jsonl", "--out", out, "--overwrite").status == 2
    assert out.read_text() == "old"
    assert answer("--data", path, "--out", out, "--overwrite").status == 0
    assert len(read(out)) == 1

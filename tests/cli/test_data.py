"""`hfgpt data inspect`: one page for a reader, one object for a program, one sentence for a mistake."""

import json

import pytest

from hfgpt.chat_templates import encode_conversations, set_chat_template
from hfgpt.data.conversations import load_conversations

LONG = "Write a sentence about the old bridge over the little river in the north of the village"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "data.jsonl"
    rows = [
        ("Double it.", "4", "8"),
        (LONG, "", "The bridge is old."),
        (LONG + "!", "", "The bridge is little."),
        ("Where is the cafÃ©?", "", "7"),
        ("double  IT.", "4", "8"),
        ("half \ud83d", "", ""),
    ]
    records = [{"instruction": prompt, "input": given, "output": answer, "id": 1} for prompt, given, answer in rows]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_the_page_says_what_was_read_and_found(hfgpt, source) -> None:
    answer = hfgpt("data", "inspect", source)
    assert answer.status == 0
    for line in (
        f"{source}: 6 conversations, read as alpaca (instruction, output, input)",
        "columns that are not read: id",
        "1 without an answer kept",
        "train: 6",
        "nearly: 1 pairs of prompts that share 80% of their runs of five characters (Jaccard), or more",
        "1 prompts stand in several rows, most often",
        "  2 times  Double it. 4",
        "           rows train 1, train 5",
        f"  0.99  train 2: {LONG[:69]}…",
        "  train: 1 examples with mojibake",
        "    row 4: 'Where is the cafÃ©?' (for 'Where is the café?'?)",
        f"    line 6 of {source}: 'half \\ufffd'",
        "  1 without an answer",
        "  3 answers of one or two characters ('8' 2 times, '7' 1 times)",
    ):
        assert line in answer.out.splitlines()
    (row,) = (line for line in answer.out.splitlines() if "within train" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["within train", "1", "1", "2"]
    assert "begins with: double it. 2, write a 2, where is 1, half" in answer.out
    assert sum("█" in line for line in answer.out.splitlines()) >= 2


def test_what_stands_on_both_sides_of_the_book_s_cut_is_counted_for_programs(hfgpt, source) -> None:
    answer = hfgpt("data", "inspect", source, "--test-fraction", 0.34, "--json", "--no-near")
    found = json.loads(answer.out)
    assert answer.status == 0
    assert [(split["name"], split["examples"]) for split in found["splits"]] == [("train", 3), ("test", 3)]
    shared = {(each["split"], each["other"]): each for each in found["shared"]}
    assert shared["train", "test"] == {
        "split": "train",
        "other": "test",
        "examples": 1,
        "prompts": 1,
        "near_duplicates": None,
    }
    assert found["num_near_pairs"] is None
    assert sum(map(sum, found["histogram"]["examples"].values())) == 6
    assert found["lone_surrogates"][0]["count"] == 1


def test_with_a_tokenizer_lengths_are_in_tokens_too_and_those_of_its_template(
    hfgpt, source, tokenizer, tmp_path
) -> None:
    tokenizer.save_pretrained(tmp_path / "plain")
    found = json.loads(hfgpt("data", "inspect", source, "--tokenizer", tmp_path / "plain", "--json").out)
    prompts = next(each for each in found["lengths"] if (each["part"], each["unit"]) == ("prompt", "tokens"))
    assert prompts["minimum"] > 0
    assert found["histogram"]["unit"] == "tokens"

    from transformers import AutoTokenizer

    with_template = AutoTokenizer.from_pretrained(tmp_path / "plain")
    set_chat_template(with_template, "alpaca")
    with_template.save_pretrained(tmp_path / "chat")
    answered = tmp_path / "answered.jsonl"
    answered.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[:5]), encoding="utf-8")
    found = json.loads(hfgpt("data", "inspect", answered, "--tokenizer", tmp_path / "chat", "--json").out)
    whole = next(each for each in found["lengths"] if each["part"] == "in its template")
    conversations = list(load_conversations(str(answered)).dataset["messages"])
    lengths = [len(encoded.input_ids) for encoded in encode_conversations(with_template, conversations)]
    assert (whole["minimum"], whole["maximum"], whole["total"]) == (min(lengths), max(lengths), sum(lengths))


def test_texts_and_labelled_texts_are_inspected_as_what_they_are(hfgpt, tmp_path) -> None:
    (tmp_path / "labelled.csv").write_text("text,label\nsee you,ham\nyou won,spam\nsee you,spam\n", encoding="utf-8")
    found = json.loads(hfgpt("data", "inspect", tmp_path / "labelled.csv", "--json").out)
    assert found["kind"] == "labelled"
    assert (found["splits"][0]["repeated_examples"], found["splits"][0]["repeated_prompts"]) == (0, 1)
    (tmp_path / "text.txt").write_text("one document", encoding="utf-8")
    answer = hfgpt("data", "inspect", tmp_path / "text.txt")
    assert answer.status == 0
    assert "1 documents" in answer.out


def test_the_picture_is_written_and_named(hfgpt, source, tmp_path) -> None:
    picture = tmp_path / "lengths.svg"
    answer = hfgpt("data", "inspect", source, "--picture", picture)
    assert answer.status == 0
    assert f"{picture}: the histogram of lengths" in answer.out
    assert picture.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.json"], "there is no file or folder nothing.json"),
        (["SOURCE", "--threshold", 2], "--threshold is 2.0; it must lie above 0 and be 1 at most"),
        (["SOURCE", "--picture", "nothing/x.png"], "there is no folder nothing for the picture"),
        (["SOURCE", "--picture", "x.docx"], "has no ending that is known as a format; name it .png, .svg or .pdf"),
        (["SOURCE", "--form", "messages"], "no column 'messages', which the form 'messages' needs"),
        (["SOURCE", "--split", "test"], "has no split 'test'; its splits are train"),
        (["SOURCE", "--tokenizer", "nothing/here/x"], "nothing/here/x is no folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(hfgpt, source, tmp_path, arguments, message, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [source if argument == "SOURCE" else argument for argument in arguments]
    assert message in hfgpt("data", "inspect", *given).sentence
    assert not list(tmp_path.glob("x.*"))


def test_a_broken_line_is_named(hfgpt, tmp_path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n{"instruction"\n', encoding="utf-8")
    answer = hfgpt("data", "inspect", path)
    assert answer.status == 2
    assert f"line 2 of {path} is not valid JSON" in answer.err


def test_without_the_extra_packages_the_remedy_is_said(hfgpt, source, monkeypatch) -> None:
    monkeypatch.setattr("hfgpt.cli.data.find_spec", lambda name: None)
    sentence = hfgpt("data", "inspect", source).sentence
    assert "datasketch and ftfy must be installed: pip install 'hfgpt[inspect]'" in sentence

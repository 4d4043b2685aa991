"""The door for conversations: every form gives the same messages, and what does not fit is named with its place."""

import csv
import gzip
import json
import logging
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfgpt.data.conversations import load_conversations
from hfgpt.data.instructions import generate_instructions
from hfgpt.errors import UserError


def user(content: str, given: str | None = None) -> dict:
    return {"role": "user", "content": content, "input": given}


def assistant(content: str) -> dict:
    return {"role": "assistant", "content": content, "input": None}


def system(content: str) -> dict:
    return {"role": "system", "content": content, "input": None}


def short(message: dict) -> dict:
    """A message as others write it."""
    return {field: value for field, value in message.items() if value is not None}


def write(path: Path, records: list[dict]) -> Path:
    """Write records in the format of the path's name, with the parsers' own writers."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            writer = csv.DictWriter(file, list(records[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(records)
        else:
            lines = (json.dumps(record) + "\n" for record in records)
            file.write(json.dumps(records) if kind == "json" else "".join(lines))
    return path


SIMPLE = [
    [user("Name a colour."), assistant("Green.")],
    [user('Say "hello",\nplease; é 漢字 🙂'), assistant("  hello\r\n")],
]
TALK = [system("Be brief."), user("1 + 1?"), assistant("2"), user("And 2 + 2?"), assistant("4")]

NAMES_OF_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


def as_sharegpt(messages: list[dict]) -> list[dict]:
    return [{"from": NAMES_OF_SHAREGPT[message["role"]], "value": message["content"]} for message in messages]


FORMS = {
    "messages": lambda messages: {"messages": [short(message) for message in messages]},
    "sharegpt": lambda messages: {"conversations": as_sharegpt(messages)},
    "prompt_completion": lambda messages: {
        "prompt": [short(message) for message in messages[:-1]],
        "completion": [short(messages[-1])],
    },
}
FLAT_FORMS = {
    "prompt_completion": lambda messages: {"prompt": messages[0]["content"], "completion": messages[1]["content"]},
    "alpaca": lambda messages: {"instruction": messages[0]["content"], "input": "", "output": messages[1]["content"]},
}


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "json.gz", "jsonl.gz"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_with_lists_gives_the_same_messages(tmp_path, form, kind):
    conversations = [*SIMPLE, TALK]
    path = write(tmp_path / f"data.{kind}", [FORMS[form](messages) for messages in conversations])
    loaded = load_conversations(str(path))
    assert loaded.dataset.column_names == ["messages"]
    assert list(loaded.dataset["messages"]) == conversations
    assert loaded.form == form
    assert f"{path}: 3 conversations, read as {form}" in loaded.description[0]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "csv.gz"])
@pytest.mark.parametrize("form", FLAT_FORMS)
def test_every_flat_form_gives_the_same_messages_from_tables_too(tmp_path, form, kind):
    path = write(tmp_path / f"data.{kind}", [FLAT_FORMS[form](messages) for messages in SIMPLE])
    loaded = load_conversations(str(path))
    assert list(loaded.dataset["messages"]) == SIMPLE
    assert loaded.form == form


def test_an_input_stays_a_field_of_its_own_and_an_empty_one_is_none(tmp_path):
    records = [
        {"instruction": "Double it.", "input": "4", "output": "8"},
        {"instruction": "Name a colour.", "input": "  ", "output": "Green."},
        {"instruction": "Name a tree.", "output": "Oak."},
    ]
    loaded = load_conversations(str(write(tmp_path / "data.json", records)))
    assert list(loaded.dataset["messages"]) == [
        [user("Double it.", "4"), assistant("8")],
        [user("Name a colour."), assistant("Green.")],
        [user("Name a tree."), assistant("Oak.")],
    ]
    again = tmp_path / "again.parquet"
    loaded.dataset.to_parquet(again)
    assert list(load_conversations(str(again)).dataset["messages"]) == list(loaded.dataset["messages"])


def test_either_list_may_be_written_with_either_pair_of_fields_and_the_usual_names_of_roles(tmp_path):
    turns = [{"from": "Human", "value": "Hi"}, {"role": "model", "content": [{"type": "text", "text": "Ho"}]}]
    for column in ("messages", "conversations"):
        path = write(tmp_path / f"{column}.jsonl", [{column: turns}])
        assert list(load_conversations(str(path)).dataset["messages"]) == [[user("Hi"), assistant("Ho")]]


def test_other_columns_are_passed_over_and_named_and_tasks_are_kept(tmp_path):
    rows = [
        {"id": 1, "instruction": "a", "output": "b", "task": "copy", "text": "a b"},
        {"id": 2, "instruction": "c", "output": "d"},
    ]
    loaded = load_conversations(str(write(tmp_path / "data.jsonl", rows)))
    assert loaded.dataset.column_names == ["messages", "task"]
    assert list(loaded.dataset["task"]) == ["copy", ""]
    assert "columns that are not read: id, text" in loaded.description
    numbers = load_conversations(str(write(tmp_path / "numbers.jsonl", [row | {"task": 7} for row in rows])))
    assert numbers.dataset.column_names == ["messages"]
    assert "columns that are not read: id, text, task" in numbers.description


def test_of_several_forms_the_first_is_read_unless_another_is_asked_for(tmp_path):
    row = {"prompt": "p", "completion": "c", "messages": [short(user("u")), short(assistant("a"))]}
    path = str(write(tmp_path / "data.jsonl", [row]))
    loaded = load_conversations(path)
    assert loaded.form == "messages"
    assert "its columns would also fit the form prompt_completion" in loaded.description
    asked = load_conversations(path, form="prompt_completion")
    assert list(asked.dataset["messages"]) == [[user("p"), assistant("c")]]
    with pytest.raises(UserError, match="no column 'instruction' and no column 'output', which the form 'alpaca'"):
        load_conversations(path, form="alpaca")
    with pytest.raises(UserError, match="there is no form 'vicuna' of conversations; there are messages, sharegpt"):
        load_conversations(path, form="vicuna")


def test_a_system_prompt_stands_before_conversations_without_one(tmp_path):
    records = [
        {"messages": [short(message) for message in TALK]},
        {"messages": [short(message) for message in SIMPLE[0]]},
        {"messages": [{"role": "system", "content": " "}, *(short(message) for message in SIMPLE[0])]},
    ]
    path = str(write(tmp_path / "data.jsonl", records))
    loaded = load_conversations(path, system_prompt="Be kind.")
    kind = [system("Be kind."), *SIMPLE[0]]
    assert list(loaded.dataset["messages"]) == [TALK, kind, kind]
    assert "1 system messages without text left out" in loaded.description
    assert list(load_conversations(path).dataset["messages"]) == [TALK, SIMPLE[0], SIMPLE[0]]
    with pytest.raises(UserError, match="system_prompt has no text"):
        load_conversations(path, system_prompt=" ")


UNANSWERED = [
    {"messages": [short(user("a")), short(assistant("b"))]},
    {"messages": [short(user("c"))]},
    {"messages": [short(user("d")), short(assistant(" "))]},
    {"messages": [short(user("e")), short(assistant("")), short(user("f")), short(assistant("g"))]},
]


def test_a_conversation_without_an_answer_is_refused_dropped_or_kept(tmp_path):
    path = str(write(tmp_path / "data.jsonl", UNANSWERED))
    with pytest.raises(UserError, match=r"line 2 of .*data.jsonl ends without an answer.*unanswered='drop'"):
        load_conversations(path)
    dropped = load_conversations(path, unanswered="drop")
    assert list(dropped.dataset["messages"]) == [[user("a"), assistant("b")]]
    assert "3 without an answer dropped" in dropped.description
    kept = load_conversations(path, unanswered="keep")
    assert list(kept.dataset["messages"]) == [
        [user("a"), assistant("b")],
        [user("c")],
        [user("d")],
        [user("e"), assistant(""), user("f"), assistant("g")],
    ]
    only = str(write(tmp_path / "only.jsonl", UNANSWERED[1:2]))
    with pytest.raises(UserError, match="holds no conversation with an answer"):
        load_conversations(only, unanswered="drop")


@pytest.mark.parametrize(
    "records",
    [
        [{"instruction": "a", "input": "b"}, {"instruction": "c", "output": ""}, {"instruction": "d", "output": "e"}],
        [{"prompt": "a\nb"}, {"prompt": "c", "completion": None}, {"prompt": "d", "completion": "e"}],
        [{"prompt": [short(user("a"))]}, {"prompt": [short(user("c"))]}, {"prompt": "d", "completion": "e"}],
    ],
)
def test_questions_to_be_answered_need_no_column_of_answers(tmp_path, records):
    loaded = load_conversations(str(write(tmp_path / "data.jsonl", records)), unanswered="keep")
    assert [messages[-1]["role"] for messages in loaded.dataset["messages"]] == ["user", "user", "assistant"]


GOOD = json.dumps({"messages": [short(user("a")), short(assistant("b"))]}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"instruction": "x", "output": "y"}\n{"instruction": "x", "output": ""}\n',
            "line 2 .* empty answ",
        ),
        (
            "b.json",
            '[{"instruction": "x", "output": "y"}, {"output": "y"}]',
            "record 2 .* no text in message 1, the user",
        ),
        ("c.jsonl", GOOD + '{"messages": \n', "line 2 of .* is not valid JSON"),
        ("d.json", '[{"messages": []},\n{"mess', "not valid JSON at line 2, column 2"),
        ("e.jsonl", "", "holds no record; give a source that is not empty"),
        ("f.txt", "text", "is plain text and holds no conversations"),
        (
            "g.jsonl",
            '{"question": "x", "output": "y"}\n',
            "has the columns question, output, and .*instruction and output",
        ),
        ("h.jsonl", GOOD + '{"messages": []}\n', "line 2 of .* holds no message of a user"),
        ("i.jsonl", '{"messages": "hello"}\n', "not hold a list of messages in the column 'messages' but 'hello'"),
        ("j.jsonl", '{"messages": [["user", "x"]]}\n', "message 1 in 'messages' has no role at line 1"),
        (
            "k.jsonl",
            '{"messages": [{"role": "tool", "content": "x"}]}\n',
            "has the role 'tool' at line 1 .*; known are",
        ),
        (
            "l.jsonl",
            '{"messages": [{"role": "user", "content": 3}]}\n',
            "content of message 1 .* not hold a text .* but 3",
        ),
        (
            "m.jsonl",
            '{"conversations": [{"from": "human"}]}\n',
            "the value of message 1 .* not hold a text .* but None",
        ),
        (
            "n.jsonl",
            '{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}\n',
            "does not hold a text at line 1",
        ),
        ("o.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}\n', "begins with an answer"),
        (
            "p.jsonl",
            '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}, '
            '{"role": "user", "content": "y"}]}\n',
            "two messages of the user one after the other, 2 and 3",
        ),
        (
            "q.jsonl",
            '{"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}\n',
            "a system message as message 2; it can only be the first",
        ),
        ("r.jsonl", '{"messages": [{"role": "system", "content": "x"}]}\n', "holds no message of a user"),
        (
            "s.jsonl",
            '{"instruction": "x", "output": 4}\n',
            "the column 'output' does not hold a text at line 1 .* but 4",
        ),
        (
            "t.jsonl",
            '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "input": "z"}]}\n',
            "message 2 in 'messages' has an input at line 1",
        ),
        ("u.csv", 'messages,id\n"[]",1\n', "is a table and cannot hold lists of messages"),
        ("v.csv", "instruction,output\nx,y\nz\n", "line 3 of .* has 1 field where the first row has 2"),
        ("w.jsonl", b'{"instruction": "caf\xe9", "output": "y"}\n', "is not UTF-8 in line 1, at byte 20"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        load_conversations(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_gives_its_files_in_sorted_order_if_all_have_one_form(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "2.csv", [FLAT_FORMS["alpaca"](SIMPLE[0])])
    write(folder / "1.json", [FLAT_FORMS["alpaca"](SIMPLE[1])])
    (folder / "3.jsonl").write_bytes(b"")
    assert list(load_conversations(str(folder)).dataset["messages"]) == SIMPLE[::-1]
    write(folder / "4.jsonl", [FORMS["messages"](TALK)])
    with pytest.raises(UserError, match=r"in different forms \(.*1.json as alpaca, .*4.jsonl as messages\)"):
        load_conversations(str(folder))


def test_lone_surrogates_are_replaced_and_counted(tmp_path, caplog):
    path = tmp_path / "data.jsonl"
    path.write_text('{"instruction": "half \\ud83d", "input": "\\ude42", "output": "\\ud83d\\ude42"}\n')
    with caplog.at_level(logging.WARNING):
        loaded = load_conversations(str(path))
    assert list(loaded.dataset["messages"]) == [[user("half \ufffd", "\ufffd"), assistant("🙂")]]
    assert "replaced 2 lone surrogates" in caplog.text
    assert "2 lone surrogates replaced by U+FFFD" in loaded.description


def test_the_large_built_in_instructions_begin_with_the_others_and_have_their_validation_and_test():
    large, usual = (
        load_conversations(source).dataset for source in ("builtin:instructions-large", "builtin:instructions")
    )
    assert (len(large), len(usual)) == (150_000, 20_000)
    assert large.select(range(500)).to_list() == usual.select(range(500)).to_list()
    assert large[19_999] == usual[19_999]
    for split in ("validation", "test"):
        loaded = load_conversations("builtin:instructions-large", split=split)
        assert loaded.dataset.to_list() == list(generate_instructions(split))


def test_the_built_in_instructions_have_three_splits(tmp_path):
    loaded = load_conversations("builtin:instructions", split="validation")
    assert loaded.dataset.to_list() == list(generate_instructions("validation"))
    with pytest.raises(UserError, match="has no split 'dev'; its splits are train, validation, test"):
        load_conversations("builtin:instructions", split="dev")
    with pytest.raises(UserError, match="no built-in conversations 'stories'; there is builtin:instructions"):
        load_conversations("builtin:stories")
    with pytest.raises(UserError, match="leave revision out"):
        load_conversations("builtin:instructions", revision="main")
    with pytest.raises(UserError, match="there is no file or folder"):
        load_conversations(str(tmp_path / "nothing.json"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A look-alike of a data set on the Hub: `datasets` loads a folder as it would load a repository."""
    folder = tmp_path / "repository"
    folder.mkdir()
    rows = [
        {"instruction": "Double it.", "input": "4", "output": "8", "text": "Double it. 4 8"},
        {"instruction": "Name a tree.", "input": "", "output": "", "text": "Name a tree."},
    ]
    write(folder / "train.jsonl", rows)
    write(folder / "test.jsonl", [FLAT_FORMS["alpaca"](SIMPLE[0])])
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda source, **options: load_dataset(str(folder), **options))


def test_a_hub_data_set_gives_its_splits_and_names_its_rows(hub):
    with pytest.raises(UserError, match="row 2 of somebody/instructions has an empty answer"):
        load_conversations("somebody/instructions")
    loaded = load_conversations("somebody/instructions", unanswered="drop")
    assert loaded.dataset.to_list() == [{"messages": [user("Double it.", "4"), assistant("8")]}]
    assert loaded.description == [
        "somebody/instructions: 1 conversations, read as alpaca (instruction, output, input)",
        "columns that are not read: text",
        "1 without an answer dropped",
    ]
    test = load_conversations("somebody/instructions", split="test")
    assert list(test.dataset["messages"]) == SIMPLE[:1]
    with pytest.raises(UserError, match="could not be loaded from the Hub"):
        load_conversations("somebody/instructions", split="nothing")
    with pytest.raises(UserError, match="somebody/instructions has no column 'messages'"):
        load_conversations("somebody/instructions", form="messages")


def test_the_entries_of_the_book_come_out_as_they_are_written(test_data):
    path = test_data / "instruction-data.json"
    conversations = list(load_conversations(str(path)).dataset["messages"])
    entries = json.loads(path.read_text(encoding="utf-8"))
    assert len(conversations) == 1100
    assert sum(messages[0]["input"] is not None for messages in conversations) == 325
    assert conversations == [
        [user(entry["instruction"], entry["input"] or None), assistant(entry["output"])] for entry in entries
    ]

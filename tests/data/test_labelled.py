"""The door for labelled texts: columns, classes, headers, and what cannot come in is named."""

import csv
import gzip
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfgpt.data import load_labelled, load_text
from hfgpt.errors import UserError

TEXTS = ["plain", 'a "quoted" word, a comma\tand a tab', "two\r\nlines", "", "NA", "é 漢字 🙂 \u2028", "  kept  "]
LABELS = ["b", "a", "b", "a", "c", "a", "b"]


def write(path: Path, columns: dict[str, list], header: bool = True) -> Path:
    """Write columns in the format of the path's name, with the parsers' own writers."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        pq.write_table(pa.table(columns), path)
        return path
    rows = list(zip(*columns.values(), strict=True))
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerows([list(columns)] * header + [list(row) for row in rows])
        else:
            records = [dict(zip(columns, row, strict=True)) for row in rows]
            file.write(json.dumps(records) if kind == "json" else "".join(json.dumps(row) + "\n" for row in records))
    return path


def named(dataset: datasets.Dataset) -> list[tuple[str, str]]:
    """Texts with the names of their classes."""
    names = dataset.features["label"].names
    return [(row["text"], names[row["label"]]) for row in dataset]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "tsv.gz", "jsonl.gz", "json.gz"])
def test_texts_and_classes_come_out_exactly_from_every_kind_of_file(tmp_path, kind):
    path = write(tmp_path / f"data.{kind}", {"label": LABELS, "text": TEXTS})
    dataset = load_labelled(str(path))
    assert dataset.features == datasets.Features(
        {"text": datasets.Value("large_string"), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    assert named(dataset) == list(zip(TEXTS, LABELS, strict=True))


def test_a_folder_gives_its_files_in_sorted_order_with_the_classes_of_all(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    write(folder / "2.csv", {"text": ["third"], "label": ["ham"]})
    write(folder / "1.jsonl", {"text": ["first", "second"], "label": ["spam", "ham"]})
    assert named(load_labelled(str(folder))) == [("first", "spam"), ("second", "ham"), ("third", "ham")]


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        (["spam", " ham ", "spam", "ham"], ["ham", "spam"], [1, 0, 1, 0]),
        ([10, 2, 2, 10], ["2", "10"], [1, 0, 0, 1]),
        ([-1, 1, 1, -1], ["-1", "1"], [0, 1, 1, 0]),
        ([1.0, 0.0, 0.0, 1.0], ["0", "1"], [1, 0, 0, 1]),
        ([True, False, True, True], ["False", "True"], [1, 0, 1, 1]),
        (["007", "012", "007", "012"], ["007", "012"], [0, 1, 0, 1]),
        (["nan", "inf", "nan", "inf"], ["inf", "nan"], [1, 0, 1, 0]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_classes_are_sorted_strings_numbers_by_size_or_booleans(tmp_path, kind, labels, names, ids):
    path = write(tmp_path / f"data.{kind}", {"text": list("wxyz"), "label": labels})
    dataset = load_labelled(str(path))
    assert dataset.features["label"].names == names
    assert list(dataset["label"]) == ids


def test_names_can_be_given_to_numbers_and_an_order_to_strings(tmp_path):
    numbers = str(write(tmp_path / "n.csv", {"text": ["x", "y"], "label": [1, 0]}))
    assert named(load_labelled(numbers, label_names=["bad", "good"])) == [("x", "good"), ("y", "bad")]
    strings = str(write(tmp_path / "s.csv", {"text": ["x", "y"], "label": ["ham", "spam"]}))
    dataset = load_labelled(strings, label_names=["spam", "ham", "other"])
    assert dataset.features["label"].names == ["spam", "ham", "other"]
    assert list(dataset["label"]) == [1, 0]
    with pytest.raises(UserError, match="the label 'ham', which is not among the label_names good, spam"):
        load_labelled(strings, label_names=["good", "spam"])
    with pytest.raises(UserError, match="has a name twice"):
        load_labelled(strings, label_names=["ham", "ham"])


def test_columns_are_found_by_their_usual_names_or_because_nothing_else_is_left(tmp_path):
    for label in ("label", "labels", "class", "category", "target", "verdict"):
        path = write(tmp_path / f"{label}.csv", {"text": ["x", "y"], label: ["p", "q"]})
        assert named(load_labelled(str(path))) == [("x", "p"), ("y", "q")]
    body = write(tmp_path / "body.csv", {"id": [1, 2], "class": ["p", "q"], "body": ["x", "y"]})
    assert named(load_labelled(str(body))) == [("x", "p"), ("y", "q")]
    other = write(tmp_path / "other.csv", {"text": ["p", "q"], "label": ["m", "m"], "body": ["x", "y"]})
    assert named(load_labelled(str(other), text_column="body", label_column="text")) == [("x", "p"), ("y", "q")]


def test_a_pair_of_texts_has_two_columns(tmp_path):
    path = write(tmp_path / "pairs.jsonl", {"premise": ["x", "y"], "claim": ["u", "v"], "label": ["yes", "no"]})
    dataset = load_labelled(str(path), text_column="premise", text_pair_column="claim")
    assert dataset.features["text_pair"] == datasets.Value("large_string")
    assert dataset.to_list() == [
        {"text": "x", "text_pair": "u", "label": 1},
        {"text": "y", "text_pair": "v", "label": 0},
    ]


def test_a_missing_column_names_those_that_are_there(tmp_path):
    path = str(write(tmp_path / "data.csv", {"title": ["x"], "body": ["y"], "kind": ["p"]}))
    for option in ("text_column", "text_pair_column", "label_column"):
        with pytest.raises(UserError, match=f"no column 'nothing'; its columns are title, body, kind.* as {option}"):
            load_labelled(path, **{option: "nothing"})
    with pytest.raises(UserError, match="which of its columns is the text with text_column"):
        load_labelled(path)
    with pytest.raises(UserError, match="2 columns beside the text; say which .* label_column: title, body, kind"):
        load_labelled(path, text_column="body")
    with pytest.raises(UserError, match="asked for as two"):
        load_labelled(path, text_column="body", label_column="body")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", b"text,label\nfine,a\nbad,\n", "line 3 of .* has no label in the column 'label'"),
        ("null.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y"}\n{"label": null}\n', "line 2 of .* has no label"),
        ("nan.csv", b"text,label\nx,0.25\ny,1\n", "quantities \\(0.25 among them\\) and no classes"),
        ("list.jsonl", b'{"text": "x", "label": ["a", "b"]}\n', r"holds \['a', 'b'\] at line 1, which is no label"),
        ("lines.csv", b'text,label\nx,"a\nb"\n', r"holds 'a\\nb' at line 2, which is no label"),
        ("text.jsonl", b'{"text": "x", "label": 1}\n{"text": 3, "label": 1}\n', "not hold a string at line 2 but 3"),
        ("bad.csv", b"text,label\nfine,a\ncaf\xe9,b\n", "not UTF-8 in line 3, at byte 21"),
        ("empty.csv", b"", "holds no record"),
        ("plain.txt", b"a text", "is plain text and has no labels"),
        ("one.csv", b"label\na\n", "no column of text beside label"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_labelled(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quantities_and_free_text_are_refused_as_labels(tmp_path):
    texts = [f"text {number}" for number in range(100)]
    numbers = write(tmp_path / "numbers.csv", {"text": texts, "label": list(range(100))})
    with pytest.raises(UserError, match="100 different values in 100 rows: quantities, not classes"):
        load_labelled(str(numbers))
    free = write(tmp_path / "free.csv", {"text": texts, "label": [f"about {text}" for text in texts]})
    with pytest.raises(UserError, match="100 different values in 100 rows: texts, not classes"):
        load_labelled(str(free))
    many = write(tmp_path / "many.csv", {"text": texts, "label": [number % 50 for number in range(100)]})
    assert load_labelled(str(many)).features["label"].num_classes == 50


HEADERLESS = {"": ["ham", "spam", "ham", "spam"], " ": ["see you", "you won", "at six", "send money"]}


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("order", [("", " "), (" ", "")])
def test_a_table_without_a_header_is_recognised_and_said(tmp_path, kind, order, caplog):
    path = write(tmp_path / f"data.{kind}", {column: HEADERLESS[column] for column in order}, header=False)
    expected = list(zip(HEADERLESS[" "], HEADERLESS[""], strict=True))
    with caplog.at_level(logging.WARNING):
        assert named(load_labelled(str(path))) == expected
    assert "the first row holds no name of a column" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert named(load_labelled(str(path), header=False)) == expected
    assert not caplog.records
    numbers = {"": "column_1", " ": "column_2"} if order[0] == "" else {"": "column_2", " ": "column_1"}
    dataset = load_labelled(str(path), text_column=numbers[" "], label_column=numbers[""])
    assert named(dataset) == expected


def test_a_header_of_unusual_names_is_not_taken_for_a_record(tmp_path):
    path = str(write(tmp_path / "data.csv", {"v1": HEADERLESS[""], "v2": HEADERLESS[" "]}))
    assert named(load_labelled(path, text_column="v2", label_column="v1"))[0] == ("see you", "ham")
    with pytest.raises(UserError, match="which of its columns is the text"):
        load_labelled(path)
    with pytest.raises(UserError, match="no column 'v3'; its columns are v1, v2"):
        load_labelled(path, text_column="v3")
    with pytest.raises(UserError, match="names its columns itself; leave header out"):
        load_labelled(str(write(tmp_path / "data.jsonl", {"text": ["x"], "label": ["a"]})), header=True)


def test_a_tsv_file_without_quoting_keeps_its_quotes_and_joins_broken_lines(tmp_path, caplog):
    path = tmp_path / "data.tsv"
    path.write_bytes(
        b'label\ttext\nham\t"Happy day" I know\nham\tbroken in\nthe middle"\nspam\t"whole"\nham\tCR LF\r\nand on\r\n'
    )
    with caplog.at_level(logging.WARNING):
        assert named(load_labelled(str(path))) == [
            ('"Happy day" I know', "ham"),
            ('broken in\nthe middle"', "ham"),
            ('"whole"', "spam"),
            ("CR LF\r\nand on", "ham"),
        ]
    assert "read without quotes, every line a record, for line 2 is not valid tsv" in caplog.text
    assert "2 lines without a tab (first: 4) taken as the rest of the record before" in caplog.text
    assert load_text(str(path))[0]["text"] == '"Happy day" I know'


def test_a_line_break_that_cuts_off_a_label_is_not_taken_for_a_class(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_bytes(b"text\tlabel\nfine\tham\nbroken in\nthe middle\tspam\n")
    with pytest.raises(UserError, match=r"holds 'ham\\nbroken in' at line 2, which is no label"):
        load_labelled(str(path))


def test_a_tsv_file_that_fits_neither_way_gives_both_reasons(tmp_path):
    path = tmp_path / "data.tsv"
    path.write_bytes(b'label\ttext\nham\t"a" b\nham\ttoo\tmany\n')
    with pytest.raises(UserError, match="neither with double quotes .* line 2 .* nor without, for line 3 has 3 fields"):
        load_labelled(str(path))
    path.write_bytes(b"label\ttext\nham\ttoo\tmany\n")
    with pytest.raises(UserError, match="line 2 of .* has 3 fields where the first row has 2"):
        load_labelled(str(path))


def test_lone_surrogates_are_replaced_and_counted(tmp_path, caplog):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "half \\ud83d", "label": "a"}\n{"text": "x", "label": "b"}\n')
    with caplog.at_level(logging.WARNING):
        assert load_labelled(str(path))[0]["text"] == "half \ufffd"
    assert "replaced 1 lone surrogates" in caplog.text


def test_a_parquet_file_of_datasets_keeps_the_names_of_its_classes(tmp_path):
    feature = datasets.ClassLabel(names=["zebra", "ant"])
    features = datasets.Features({"text": datasets.Value("string"), "label": feature})
    path = str(tmp_path / "data.parquet")
    datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, 0]}, features=features).to_parquet(path)
    dataset = load_labelled(path)
    assert dataset.features["label"] == feature
    assert list(dataset["label"]) == [1, 0]
    datasets.Dataset.from_dict({"text": ["x", "y"], "label": [1, -1]}, features=features).to_parquet(path)
    with pytest.raises(UserError, match="row 2 of .* has no label"):
        load_labelled(path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A look-alike of a data set on the Hub: `datasets` loads a folder with a card, as it would load a repository."""
    folder = tmp_path / "repository"
    folder.mkdir()
    write(folder / "train.jsonl", {"review": ["good", None, "bad"], "stars": [1, 1, 0], "title": ["t", "u", "v"]})
    write(folder / "test.jsonl", {"review": ["awful"], "stars": [0], "title": ["w"]})
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: review\n    dtype: string\n  - name: stars\n    dtype:\n"
        "      class_label:\n        names:\n          '0': neg\n          '1': pos\n  - name: title\n"
        "    dtype: string\n---\n"
    )
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda source, **options: load_dataset(str(folder), **options))


def test_a_hub_data_set_gives_the_names_of_its_classes_and_its_splits(hub):
    options = {"text_column": "review", "label_column": "stars"}
    train = load_labelled("somebody/reviews", **options)
    assert train.column_names == ["text", "label"]
    assert named(train) == [("good", "pos"), ("", "pos"), ("bad", "neg")]
    test = load_labelled("somebody/reviews", split="test", text_pair_column="title", **options)
    assert test.to_list() == [{"text": "awful", "text_pair": "w", "label": 0}]
    assert test.features["label"].names == ["neg", "pos"]
    strings = load_labelled("somebody/reviews", text_column="review", label_column="title")
    assert strings.features["label"].names == ["t", "u", "v"]
    with pytest.raises(UserError, match="no column 'text'; its columns are review, stars, title"):
        load_labelled("somebody/reviews", text_column="text")
    with pytest.raises(UserError, match="could not be loaded from the Hub"):
        load_labelled("somebody/reviews", split="nothing")


def test_what_is_nowhere_or_has_no_labels_is_refused(tmp_path):
    with pytest.raises(UserError, match="no built-in labelled data set 'stories'; there is builtin:messages"):
        load_labelled("builtin:stories")
    with pytest.raises(UserError, match="builtin:messages .* names its columns itself; leave header out"):
        load_labelled("builtin:messages", header=False)
    with pytest.raises(UserError, match="leave split='test' out"):
        load_labelled("builtin:messages", split="test")
    with pytest.raises(UserError, match="there is no file or folder"):
        load_labelled(str(tmp_path / "nothing.csv"))


def test_the_real_messages_come_out_as_their_collectors_counted_them(test_data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        source = shutil.copy(test_data / "sms-spam.tsv", tmp_path)  # of a file that it knows, nothing is said again
        dataset = load_labelled(source, cache_dir=str(tmp_path / "cache"))
    rows = named(dataset)
    assert Counter(label for _, label in rows) == {"ham": 4827, "spam": 747}
    assert Counter(label for _, label in set(rows))["spam"] == 653
    assert "1 line without a tab (first: 6)" in caplog.text
    assert rows[4] == ("Nah I don't think he goes to usf, he lives around he\nre though", "ham")
    # Every text, put back, is the file.
    file = "".join(f"{label}\t{text}\n" for text, label in rows)
    assert file == (test_data / "sms-spam.tsv").read_bytes().decode("utf-8")

"""The door for text: what goes in comes out exactly, and what cannot come in is named."""

import csv
import gzip
import json
import logging
import multiprocessing
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfgpt.data import load_text
from hfgpt.data.stories import generate_stories
from hfgpt.errors import UserError

AWKWARD_TEXTS = [
    "plain",
    "two\r\nlines and a lone\rreturn\n",
    'a "quoted" word, a comma\tand a tab',
    "NA",
    "null",
    "2020-01-01",
    "12",
    "é 漢字 🙂 \u2028 \x0b \x85 <|endoftext|>",
    "  spaces kept  ",
]


def write(path: Path, texts: list[str], column: str = "text") -> Path:
    """Write `texts` in the format of the path's name, with the parsers' own writers."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        pq.write_table(pa.table({column: texts, "number": list(range(len(texts)))}), path)
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerows([[column, "number"], *([text, number] for number, text in enumerate(texts))])
        elif kind == "jsonl":
            file.writelines(json.dumps({"number": 1, column: text}) + "\n" for text in texts)
        elif kind == "json":
            json.dump([{"number": 1, column: text} for text in texts], file, indent=2)
        else:
            file.write("".join(texts))
    return path


def texts_of(source, **options) -> list[str]:
    dataset = load_text(str(source), **options)
    assert dataset.column_names == ["text"]
    return [row["text"] for row in dataset]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "tsv.gz"])
def test_texts_come_out_exactly_as_they_are_in_the_file(tmp_path, kind, streaming):
    path = write(tmp_path / f"corpus.{kind}", AWKWARD_TEXTS)
    assert texts_of(path, streaming=streaming) == AWKWARD_TEXTS


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["book.txt", "BOOK.TXT", "book.txt.gz"])
def test_a_text_file_is_one_document_with_its_line_ends(tmp_path, name, streaming):
    content = "".join(AWKWARD_TEXTS) * 3
    path = tmp_path / name
    data = content.encode("utf-8")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert texts_of(path, streaming=streaming) == [content]


def test_a_text_longer_than_any_reading_buffer_is_not_cut(tmp_path):
    content = "0123456789\n" * 2_000_000
    path = tmp_path / "long.txt"
    path.write_text(content, encoding="utf-8", newline="")
    assert texts_of(path) == [content]
    field = content[:300_000]
    assert texts_of(write(tmp_path / "long.csv", [field])) == [field]


def test_the_real_texts_come_out_whole(test_data):
    for name in ("the-verdict.txt", "tiny-shakespeare.txt"):
        assert texts_of(test_data / name) == [(test_data / name).read_bytes().decode("utf-8")]
    entries = json.loads((test_data / "instruction-data.json").read_text(encoding="utf-8"))
    expected = [entry["output"] for entry in entries if entry["output"].strip()]
    assert texts_of(test_data / "instruction-data.json", text_column="output") == expected


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_gives_its_files_in_sorted_order_whatever_their_kinds(tmp_path, streaming, caplog):
    folder = tmp_path / "corpus"
    (folder / "b").mkdir(parents=True)
    write(folder / "b" / "2.csv", ["third", "fourth"], column="body")
    write(folder / "a.txt", ["first"])
    write(folder / "b" / "1.jsonl", ["second"])
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.txt").write_text("never read")
    with caplog.at_level(logging.WARNING):
        assert texts_of(folder, streaming=streaming) == ["first", "second", "third", "fourth"]
    assert "passed over 1 files" in caplog.text
    assert {file.name for file in folder.rglob("*") if file.is_file()} == {
        "2.csv", "a.txt", "1.jsonl", "picture.png", ".hidden.txt"
    }  # fmt: skip


def test_a_changed_file_is_read_anew_and_an_unchanged_one_from_the_cache(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("before")
    first = load_text(str(path), cache_dir=str(tmp_path / "cache"))
    again = load_text(str(path), cache_dir=str(tmp_path / "cache"))
    assert first.cache_files == again.cache_files
    path.write_text("afterwards")
    assert load_text(str(path), cache_dir=str(tmp_path / "cache"))[0]["text"] == "afterwards"


def _read_in_a_process(arguments: tuple[str, str]) -> list[str]:
    path, cache = arguments
    return [row["text"] for row in load_text(path, cache_dir=cache)]


def test_several_processes_may_read_the_same_source_at_once(tmp_path):
    path = write(tmp_path / "corpus.jsonl", [f"document {number}" for number in range(500)])
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_read_in_a_process, [(str(path), str(tmp_path / "cache"))] * 2)
    assert results[0] == results[1] == [f"document {number}" for number in range(500)]


def test_one_json_object_json_lines_in_a_json_file_and_lists_of_strings_are_understood(tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{\n "text": "only one"\n}')
    assert texts_of(path) == ["only one"]
    path.write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert texts_of(path) == ["one", "two"]
    path.write_text('["one", "two", "three"]')
    assert texts_of(path) == ["one", "two", "three"]
    path.write_bytes(b"\xef\xbb\xbf" + b'[{"text": "after a byte order mark"}]')
    assert texts_of(path) == ["after a byte order mark"]


@pytest.mark.parametrize("streaming", [False, True])
def test_lone_surrogates_are_replaced_and_counted(tmp_path, caplog, streaming):
    path = tmp_path / "cut.jsonl"
    path.write_text('{"text": "cut \\ud83d off"}\n{"text": "whole \\ud83d\\ude42 pair"}\n{"text": "\\udc00\\ud800"}\n')
    with caplog.at_level(logging.WARNING):
        assert texts_of(path, streaming=streaming) == ["cut \ufffd off", "whole 🙂 pair", "\ufffd\ufffd"]
    assert [record.message for record in caplog.records if "replaced 3 lone surrogates" in record.message]


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_without_text_are_dropped_and_counted(tmp_path, caplog, streaming):
    path = tmp_path / "holes.jsonl"
    path.write_text('{"text": "one"}\n{"text": ""}\n{"text": null}\n{"other": 1}\n{"text": " \\n"}\n{"text": "two"}\n')
    with caplog.at_level(logging.WARNING):
        assert texts_of(path, streaming=streaming) == ["one", "two"]
    expected = "(4 in the first such batch)" if streaming else "dropped 4 of 6 documents"
    assert len([record for record in caplog.records if expected in record.message]) == 1


def test_the_counts_are_said_again_when_the_cache_answers(tmp_path, caplog):
    path = tmp_path / "cut.jsonl"
    path.write_text('{"text": "cut \\ud83d off"}\n{"text": ""}\n')
    load_text(str(path))
    with caplog.at_level(logging.WARNING):
        load_text(str(path))
    assert "replaced 1 lone surrogates" in caplog.text
    assert "dropped 1 of 2" in caplog.text


def test_clean_text_is_loaded_without_a_warning(tmp_path, caplog):
    path = write(tmp_path / "clean.jsonl", AWKWARD_TEXTS)
    with caplog.at_level(logging.WARNING):
        load_text(str(path))
    assert not caplog.records


def test_the_text_column_is_text_then_the_only_column_of_strings_then_asked_for(tmp_path):
    path = write(tmp_path / "one.csv", ["a story", "another"], column="body")
    assert texts_of(path) == ["a story", "another"]
    path = tmp_path / "two.jsonl"
    path.write_text('{"title": "t", "body": "b", "year": 1900}\n')
    assert texts_of(path, text_column="body") == ["b"]
    with pytest.raises(UserError, match=r"2 columns of strings.*title, body, year"):
        load_text(str(path))
    with pytest.raises(UserError, match="no column 'text2'; its columns are title, body, year"):
        load_text(str(path), text_column="text2")
    with pytest.raises(UserError, match=r"'year' .* does not hold strings"):
        load_text(str(path), text_column="year")
    with pytest.raises(UserError, match="plain text and has no column 'body'"):
        load_text(str(write(tmp_path / "plain.txt", ["x"])), text_column="body")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.txt", b"fine\nnot \xff fine", "bad.txt is not UTF-8 in line 2, at byte 9"),
        ("bad.jsonl", b'{"text": "fine"}\n{"text": "caf\xe9"}\n', "not UTF-8 in line 2, at byte 30"),
        ("bad.csv", b"text\nfine\ncaf\xe9\n", "not UTF-8 in line 3, at byte 13"),
        ("broken.jsonl", b'{"text": "fine"}\n{"text": "no end\n', "line 2 of .* is not valid JSON"),
        ("broken.json", b'[{"text": "fine"},\n {"text" "no colon"}]', "not valid JSON at line 2"),
        ("numbers.jsonl", b'{"text": "fine"}\n{"text": 3}\n', "does not hold a string at line 2 but 3"),
        ("lists.jsonl", b"[1, 2]\n", r"line 1 of .* is \[1, 2\]; a record must be"),
        ("ragged.csv", b"text,n\nfine,1\none,two,three\n", "line 3 of .* has 3 fields where the first row has 2"),
        ("quotes.csv", b'text,n\n"no end,1\n', "not valid csv"),
        ("twice.csv", b"text,text\na,b\n", "names a column twice"),
        ("broken.parquet", b"not a parquet file at all", "cannot be read as parquet"),
        ("broken.txt.gz", b"not gzip", "cannot be read as txt in gzip"),
        ("cut.txt.gz", gzip.compress(b"a text that is cut", mtime=0)[:-9], "cannot be read as txt in gzip"),
        ("empty.txt", b"", "holds no document with text"),
        ("empty.jsonl", b"", "holds no document with text"),
        ("empty.json", b"", "holds no document with text"),
        ("empty.csv", b"", "holds no document with text"),
        ("header.csv", b"text,n\n", "holds no document with text"),
        ("white.txt", b" \n\t\n", "holds no document with text"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path, name, content, message, streaming):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(load_text(str(path), streaming=streaming))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_path_names_its_neighbours(tmp_path):
    write(tmp_path / "the-verdict.txt", ["x"])
    with pytest.raises(UserError, match=r"did you mean the-verdict\.txt"):
        load_text(str(tmp_path / "the-verdct.txt"))
    with pytest.raises(UserError, match="not even the folder"):
        load_text(str(tmp_path / "nowhere" / "a.txt"))
    with pytest.raises(UserError, match=r"there is no file or folder stories\.txt"):
        load_text("stories.txt")


def test_unknown_kinds_and_names_list_the_known_ones(tmp_path):
    path = tmp_path / "book.docx"
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"\.txt, \.jsonl, \.json, \.csv, \.tsv, \.parquet"):
        load_text(str(path))
    with pytest.raises(UserError, match="no readable file"):
        load_text(str(tmp_path))
    with pytest.raises(UserError, match="no built-in data set 'novels'; there is builtin:stories"):
        load_text("builtin:novels")
    with pytest.raises(UserError, match="the source is empty"):
        load_text(" ")
    with pytest.raises(UserError, match="say builtin:stories"):
        load_text("stories")


def test_options_of_the_hub_are_refused_elsewhere(tmp_path):
    path = write(tmp_path / "plain.txt", ["x"])
    with pytest.raises(UserError, match="leave name and revision and split='test' out"):
        load_text(str(path), split="test", name="default", revision="main")


@pytest.mark.parametrize("streaming", [False, True])
def test_builtin_stories_are_the_generated_ones(streaming):
    dataset = load_text("builtin:stories", streaming=streaming)
    assert [row["text"] for row in dataset] == list(generate_stories())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_is_cleaned_and_cut_down_to_its_text(monkeypatch, streaming):
    seen = {}

    def load_dataset(source, **options):
        seen.update(options, source=source)
        dataset = datasets.Dataset.from_dict({"body": ["one", None, "two"], "number": [1, 2, 3]})
        return dataset.to_iterable_dataset() if options["streaming"] else dataset

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    dataset = load_text("somebody/corpus", split="train[:10%]", name="en", revision="v1", streaming=streaming)
    assert list(dataset) == [{"text": "one"}, {"text": "two"}]
    assert seen == {
        "source": "somebody/corpus", "name": "en", "split": "train[:10%]", "revision": "v1", "streaming": streaming,
        "cache_dir": None,
    }  # fmt: skip


def test_an_absent_hub_gives_one_sentence_that_thinks_of_local_files(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"no local path here, and it could not be loaded from the Hub.*local file"
    ) as caught:
        load_text("somebody/corpus")
    assert "\n" not in str(caught.value)

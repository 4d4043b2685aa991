"""`hfgpt classify`: texts and files in, classes out."""

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tracemalloc
from datetime import date
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfgpt import HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.cli.classified_file import Source, classify_file
from hfgpt.cli.partial_file import PartialFile
from hfgpt.errors import UserError
from hfgpt.serving.classification import Classifier, Prediction

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "house"]
CLASSES = {"id2label": {0: "cats", 1: "dogs"}, "label2id": {"cats": 0, "dogs": 1}}

# The command in a process that ends at the third window, in the way that is named, with a row half written.
DYING = """
import os, signal, sys
from pathlib import Path
from hfgpt.cli import main
from hfgpt.serving.classification import Classifier

way, *sys.argv[1:] = sys.argv[1:]
windows, classify = [], Classifier.classify

def classify_twice(self, *columns, **options):
    windows.append(None)
    if len(windows) == 3:
        for path in Path.cwd().glob("*.partial/rows.*"):
            with path.open("ab") as file:
                file.write(b'"half a ro')
        os.kill(os.getpid(), getattr(signal, way))
    return classify(self, *columns, **options)

Classifier.classify = classify_twice
main.main()
"""


def texts_of(count: int) -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 6))) for _ in range(count)]


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def classifier_folder(save) -> Path:
    return save(HfGptForSequenceClassification, "classifier", **CLASSES)


@pytest.fixture
def predict(hfgpt, classifier_folder):
    return lambda *arguments: hfgpt("classify", "predict", "--model", classifier_folder, *arguments)


@pytest.fixture
def texts_file(tmp_path) -> Path:
    return write_csv(tmp_path / "in.csv", [["text"], *([text] for text in texts_of(10))])


def type_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_a_line_for_each_text_has_class_probability_and_text(predict, classifier_folder) -> None:
    texts = ["the cat sat", "a dog ran on\na mat"]
    answer = predict(*texts)
    first, second = Classifier.load(classifier_folder).classify(texts)
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"{first.label}  {first.score:.3f}  the cat sat",
        f"{second.label}  {second.score:.3f}  a dog ran on a mat",
    ]


def test_json_is_one_object_a_text_with_every_probability(predict, classifier_folder) -> None:
    texts = ['a "cat" ü\nran', "the dog"]
    answer = predict("--json", *texts)
    found = [json.loads(line) for line in answer.out.splitlines()]
    expected = Classifier.load(classifier_folder).classify(texts)
    assert found == [{"text": text, **one._asdict()} for text, one in zip(texts, expected, strict=True)]
    assert sum(found[0]["scores"].values()) == pytest.approx(1)


def test_lines_of_standard_input_are_texts(predict, monkeypatch) -> None:
    type_in(monkeypatch, "the cat\r\n\nein Häuschen".encode())
    answer = predict("--json")
    assert [json.loads(line)["text"] for line in answer.out.splitlines()] == ["the cat", "", "ein Häuschen"]
    assert answer.err == "hfgpt: of 3 texts, 1 empty\n"


def test_a_line_of_standard_input_that_is_not_utf8_is_named(predict, monkeypatch) -> None:
    type_in(monkeypatch, b"the cat\n\xff\n")
    assert predict().sentence.startswith("Line 2 of standard input is not UTF-8")


def test_no_texts_and_a_terminal_is_one_sentence(predict, monkeypatch) -> None:
    type_in(monkeypatch, b"")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert "nothing to classify" in predict().sentence


def test_bytes_that_are_not_utf8_are_replaced_and_said(predict) -> None:
    answer = predict("--json", "the \udcff")
    assert json.loads(answer.out)["text"] == "the \ufffd"
    assert "not UTF-8 and were replaced" in answer.err


def test_long_texts_are_said_to_be_truncated(predict) -> None:
    assert predict("the cat " * 50, "a").err == "hfgpt: of 2 texts, 1 truncated to 32 tokens\n"


# ---- files ----------------------------------------------------------------------------------------------------------


def test_every_row_comes_out_in_order_with_its_columns(predict, classifier_folder, tmp_path) -> None:
    texts = ["the cat", 'a "dog", ran\non', "", "house"]
    path = write_csv(tmp_path / "in.csv", [["id", "text"], *([str(number), text] for number, text in enumerate(texts))])
    answer = predict("--file", path, "--out", tmp_path / "out.csv")
    assert answer.status == 0
    assert answer.out == f"{tmp_path / 'out.csv'}: 4 rows, classified by 'text'\n1 empty\n"
    assert list(read_csv(tmp_path / "out.csv")[0]) == [
        "id", "text", "predicted_label", "score", "score_cats", "score_dogs",
    ]  # fmt: skip
    rows = read_csv(tmp_path / "out.csv")
    assert [(row["id"], row["text"]) for row in rows] == [(str(number), text) for number, text in enumerate(texts)]
    for row, expected in zip(rows, Classifier.load(classifier_folder).classify(texts), strict=True):
        assert row["predicted_label"] == expected.label
        assert float(row["score"]) == pytest.approx(expected.score, rel=1e-5)
        assert float(row["score_dogs"]) == pytest.approx(expected.scores["dogs"], rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == ["out.csv"]


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "jsonl.gz", "json", "parquet", "txt"])
def test_every_kind_of_file_gives_the_same_classes(predict, texts_file, tmp_path, kind: str) -> None:
    texts = [row["text"] for row in read_csv(texts_file)]
    path = tmp_path / f"in.{kind}"
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    contents = {
        "tsv": "\n".join(["text", *texts]).encode(),
        "jsonl": lines.encode(),
        "jsonl.gz": gzip.compress(lines.encode()),
        "json": json.dumps(texts).encode(),
        "txt": "\n".join(texts).encode(),
    }
    pq.write_table(pa.table({"text": texts}), path) if kind == "parquet" else path.write_bytes(contents[kind])
    assert predict("--file", texts_file, "--out", tmp_path / "expected.jsonl").status == 0
    assert predict("--file", path, "--out", tmp_path / "out.jsonl").status == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "expected.jsonl").read_bytes()


def test_json_records_keep_what_they_hold(predict, tmp_path) -> None:
    records = [{"text": "the cat", "more": {"a": [1, None]}}, {"text": None, "beside": "\ud800"}, {"other": 2.5}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert predict("--file", path, "--out", tmp_path / "out.jsonl", "--text-column", "text").status == 0
    found = read_jsonl(tmp_path / "out.jsonl")
    assert [{name: row[name] for name in record} for row, record in zip(found, records, strict=True)] == records
    assert [row.keys() - record.keys() for row, record in zip(found, records, strict=True)] == [
        {"predicted_label", "score", "scores"}
    ] * 3


def test_values_that_are_no_strings_are_written_as_json_writes_them(predict, tmp_path) -> None:
    columns = {"text": ["the cat"], "day": [date(2020, 2, 1)], "price": [Decimal("1.50")], "flag": [True], "no": [None]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    for suffix in ("csv", "jsonl"):
        assert predict("--file", tmp_path / "in.parquet", "--out", tmp_path / f"out.{suffix}").status == 0
    table, lines = read_csv(tmp_path / "out.csv")[0], read_jsonl(tmp_path / "out.jsonl")[0]
    assert [table[name] for name in columns] == ["the cat", "2020-02-01", "1.50", "true", ""]
    assert [lines[name] for name in columns] == ["the cat", "2020-02-01", "1.50", True, None]


def test_a_file_without_a_header_has_numbered_columns(predict, tmp_path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("cats\tthe cat\ndogs\ta dog\n")
    options = ["--no-header", "--text-column", "column_2", "--label-column", "column_1", "--json"]
    answer = predict("--file", path, "--out", tmp_path / "out.csv", *options)
    assert json.loads(answer.out)["rows"] == 2
    assert list(read_csv(tmp_path / "out.csv")[0])[:2] == ["column_1", "column_2"]


def test_pairs_are_read_from_two_columns(predict, classifier_folder, tmp_path) -> None:
    path = write_csv(tmp_path / "in.csv", [["one", "two"], ["the cat", "a dog"], ["house", "mat"]])
    options = ["--text-column", "one", "--text-pair-column", "two"]
    answer = predict("--file", path, "--out", tmp_path / "out.jsonl", *options)
    assert "classified by 'one' and 'two'" in answer.out
    expected = Classifier.load(classifier_folder).classify(["the cat", "house"], ["a dog", "mat"])
    for row, prediction in zip(read_jsonl(tmp_path / "out.jsonl"), expected, strict=True):
        assert row["scores"] == pytest.approx(prediction.scores, rel=1e-5)


@pytest.mark.parametrize("by_number", [False, True])
def test_true_classes_give_the_accuracy(predict, classifier_folder, tmp_path, by_number: bool) -> None:
    texts = texts_of(8)
    found = [one.label for one in Classifier.load(classifier_folder).classify(texts)]
    labels = ["cats" if label == "dogs" else "dogs" for label in found[:2]] + found[2:]
    written = [str(["cats", "dogs"].index(label)) if by_number else label for label in labels]
    path = write_csv(tmp_path / "in.csv", [["text", "label"], *map(list, zip(texts, written, strict=True))])
    options = ["--file", path, "--out", tmp_path / "out.csv", "--label-column", "label"]
    assert "accuracy 75.00%: 6 of 8 as in 'label'" in predict(*options).out
    summary = json.loads(predict(*options, "--overwrite", "--json").out)
    expected = {"out": str(tmp_path / "out.csv"), "rows": 8, "truncated": 0, "empty": 0, "accuracy": 0.75}
    assert summary == expected
    assert [row["label"] for row in read_csv(tmp_path / "out.csv")] == written


def labels_of(path: Path, names: list[str]) -> list[str | None]:
    options = {"text_column": "text", "text_pair_column": None, "label_column": "label", "header": True}
    return [row.label for row in Source(path, names=names, **options).rows()]


@pytest.mark.parametrize("written", [[1, 5, 2], [1.0, 5.0, 2.0], ["1", "5", "2"], ["1.0", "5.", "2"]], ids=str)
def test_a_class_that_is_called_by_a_number_is_no_place_in_the_list(tmp_path, written) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": "the cat", "label": label}) + "\n" for label in written))
    assert labels_of(path, ["1", "2", "3", "4", "5"]) == ["1", "5", "2"]
    assert labels_of(path, [*"abcdef"]) == ["b", "f", "c"]
    path.write_text('{"text": "the cat", "label": 0}\n')
    with pytest.raises(UserError, match="has the label '0' .* its classes are 1, 2, 3, 4, 5"):
        labels_of(path, ["1", "2", "3", "4", "5"])


def test_the_names_that_a_parquet_file_has_for_its_classes_count(tmp_path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["2", "1"])})
    rows = datasets.Dataset.from_dict({"text": ["the cat", "a dog"], "label": [0, 1]}, features=features)
    rows.to_parquet(tmp_path / "in.parquet")
    assert labels_of(tmp_path / "in.parquet", ["1", "2"]) == ["2", "1"]


def test_a_first_row_that_may_be_a_text_is_said_to_be_taken_for_names(predict, tmp_path, caplog) -> None:
    path = write_csv(tmp_path / "in.csv", [["just a text"], ["another text"]])
    assert predict("--file", path, "--out", tmp_path / "out.csv").status == 0
    assert "its first row is taken for names of columns, and 'just a text' for the text" in caplog.text


def test_a_model_of_pairs_says_so_where_single_texts_are_given(predict, classifier_folder, tmp_path) -> None:
    (classifier_folder / "run_config.yaml").write_text("text_pair_column: second\n")
    answer = predict("the cat")
    assert answer.status == 0
    assert "trained on pairs of texts, and single ones are given" in answer.err
    path = write_csv(tmp_path / "in.csv", [["text", "second"], ["the cat", "a dog"]])
    options = ["--file", path, "--out", tmp_path / "out.csv", "--text-pair-column", "second"]
    assert "pairs" not in predict(*options).err
    (classifier_folder / "run_config.yaml").write_text("text_pair_column: null\n")
    assert "trained on single texts, and pairs are given" in predict(*options, "--overwrite").err


def test_a_file_without_rows_gives_one_without_rows(predict, tmp_path) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"]])
    assert json.loads(predict("--file", path, "--out", tmp_path / "out.csv", "--json").out)["rows"] == 0
    assert (tmp_path / "out.csv").read_text() == "text,predicted_label,score,score_cats,score_dogs\n"


# ---- interruptions --------------------------------------------------------------------------------------------------


def die(way: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", DYING, way, "classify", "predict", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize(("way", "suffix"), [("SIGKILL", "csv"), ("SIGTERM", "jsonl"), ("SIGINT", "csv")])
def test_an_interrupted_run_goes_on_and_writes_what_an_uninterrupted_one_does(
    predict, classifier_folder, tmp_path, way: str, suffix: str
) -> None:
    rows = [[f'{text}\n"{number}"', str(number)] for number, text in enumerate(texts_of(100))]
    path = write_csv(tmp_path / "in.csv", [["text", "number"], *rows])
    options = ["--file", path, "--batch-size", 2]
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert predict(*options, "--out", whole).status == 0

    died = die(way, tmp_path, "--model", classifier_folder, *options, "--out", out)
    assert died.returncode == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[way], died.stderr
    assert not out.exists()
    assert PartialFile.rows_in(out) == 64  # two windows of 16 batches
    assert (tmp_path / f"out.{suffix}.partial" / f"rows.{suffix}").read_bytes().endswith(b'"half a ro')
    if way != "SIGKILL":
        assert f"{way}: 64 rows are kept in" in died.stderr
        assert "the same command with --resume goes on" in died.stderr

    assert "holds 64 rows of a run that was interrupted" in predict(*options, "--out", out).sentence
    other = ["--file", path, "--batch-size", 4, "--out", out, "--resume"]
    assert "was begun with another batch size" in predict(*other).err
    resumed = predict(*options, "--out", out, "--resume")
    assert (resumed.status, "64%" in resumed.err) == (0, True)  # the bar begins where the rows are
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / f"out.{suffix}.partial").exists()


def test_another_model_or_file_does_not_go_on(predict, save, classifier_folder, hfgpt, tmp_path) -> None:
    path = write_csv(tmp_path / "in.csv", [["text"], *([text] for text in texts_of(100))])
    out = tmp_path / "out.csv"
    arguments = ["--file", path, "--batch-size", "2", "--out", out]
    assert die("SIGKILL", tmp_path, "--model", classifier_folder, *arguments).returncode == -9
    other = save(HfGptForSequenceClassification, "other", **CLASSES, initializer_range=0.4)
    answer = hfgpt("classify", "predict", "--model", other, *arguments, "--resume")
    assert "was begun with another model:" in answer.sentence
    path.write_text(path.read_text() + "one more\n")
    assert "was begun with another file:" in predict(*arguments, "--resume").sentence
    assert predict(*arguments, "--overwrite").status == 0
    assert len(read_csv(out)) == 101


def test_resume_without_an_interrupted_run_begins(predict, texts_file, tmp_path) -> None:
    assert predict("--file", texts_file, "--out", tmp_path / "out.csv", "--resume").status == 0
    assert len(read_csv(tmp_path / "out.csv")) == 10


class Counting:
    """Stands in for a classifier: so the rows' way is all that is measured."""

    names: tuple[str, ...] = ("cats", "dogs")
    num_truncated = num_empty = 0

    def classify(self, texts: list[str], *, batch_size: int):
        return (Prediction("cats", 0.75, {"cats": 0.75, "dogs": 0.25}) for _ in texts)

    def fingerprint(self) -> str:
        return ""


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind: str) -> None:
    def peak(count: int) -> int:
        texts = [f"{number} {'cat ' * 50}" for number in range(count)]
        path = tmp_path / f"in{count}.{kind}"
        if kind == "csv":
            write_csv(path, [["text"], *([text] for text in texts)])
        elif kind == "jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        else:
            pq.write_table(pa.table({"text": texts}), path, row_group_size=1000)
        del texts
        names = list(Counting.names)
        columns = {"text_column": None, "text_pair_column": None, "label_column": None}
        tracemalloc.start()
        try:
            source = Source(path, **columns, header=True, names=names)
            out = tmp_path / f"out{count}.jsonl"
            classify_file(Counting(), source, out, batch_size=8, resume=False, overwrite=False)  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is imported and kept the first time
    size = (tmp_path / f"in100.{kind}").stat().st_size
    assert size > 0
    few, many = peak(3000), peak(24000)  # the texts of the second hold 5 MB
    assert many - few < 1_000_000


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("text,a\nthe cat,b\nthe\n", [], "line 3 of "),
        ("text\nthe cat\n", ["--text-column", "txet"], "has no column 'txet'; its columns are text"),
        ("a,b\nthe cat,a dog\n", [], "say which of its columns is the text with text_column: a, b"),
        ("text\nthe cat\n", ["--label-column", "label"], "has no column 'label' for --label-column"),
        ("text\nthe cat\n", ["--text-pair-column", "two"], "has no column 'two' for --text-pair-column"),
        ("text,label\nthe cat,cats\na,wolves\n", ["--label-column", "label"], "line 3 of "),
        ("text,label\nthe cat,\n", ["--label-column", "label"], "has no label in the column 'label'"),
        ("text,score\nthe cat,1\n", [], "has a column 'score', which is to hold what the model says"),
    ],
    ids=["fields", "text column", "two columns", "label column", "pair column", "class", "no class", "taken column"],
)
def test_a_mistake_in_the_file_is_one_sentence_and_leaves_nothing(
    predict, tmp_path, content, options, expected
) -> None:
    (tmp_path / "in.csv").write_text(content)
    before = sorted(tmp_path.rglob("*"))
    answer = predict("--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv", *options)
    assert expected in answer.sentence
    assert str(tmp_path / "in.csv") in answer.sentence
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_not_utf8_is_named_with_its_line_before_anything_is_computed(predict, tmp_path) -> None:
    (tmp_path / "in.csv").write_bytes(b"text\n" + b"the cat\n" * 2000 + b"caf\xe9\n")
    sentence = predict("--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv").sentence
    assert "is not UTF-8 in line 2002" in sentence
    assert not (tmp_path / "out.csv.partial").exists()


def test_a_record_with_a_column_more_needs_json_lines(predict, tmp_path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": "b", "c": 1}\n')
    sentence = predict("--file", tmp_path / "in.jsonl", "--out", tmp_path / "out.csv").sentence
    assert sentence.startswith("line 2 of ")
    assert "write a .jsonl file" in sentence


def test_a_column_of_bytes_is_refused(predict, tmp_path) -> None:
    pq.write_table(pa.table({"text": ["a"], "raw": [b"\x00"]}), tmp_path / "in.parquet")
    assert "column 'raw'" in predict("--file", tmp_path / "in.parquet", "--out", tmp_path / "out.jsonl").sentence


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--file", "IN"], "name it with --out"),
        (["--file", "IN", "--out", "x.csv", "the cat"], "give either the one or the other"),
        (["--out", "x.csv", "--resume", "a"], "--out, --resume can only be used with a file"),
        (["--file", "IN", "--out", "x.txt"], "neither .csv nor .jsonl"),
        (["--file", "nothing.csv", "--out", "x.csv"], "There is no file nothing.csv"),
        (["--file", "IN", "--out", "nowhere/x.csv"], "There is no folder nowhere"),
        (["--file", "IN", "--out", "IN"], "exists: name another file, or replace it with --overwrite"),
    ],
    ids=" ".join,
)
def test_what_does_not_fit_together_is_one_sentence(predict, texts_file, arguments, expected) -> None:
    before = texts_file.read_bytes()
    assert expected in predict(*(texts_file if word == "IN" else word for word in arguments)).sentence
    assert texts_file.read_bytes() == before


def test_a_language_model_is_refused(hfgpt, save) -> None:
    folder = save(HfGptForCausalLM)
    assert "without a classification head" in hfgpt("classify", "predict", "--model", folder, "the cat").sentence


def test_no_header_is_refused_where_there_cannot_be_one(predict, tmp_path) -> None:
    (tmp_path / "in.txt").write_text("the cat\n")
    answer = predict("--file", tmp_path / "in.txt", "--out", tmp_path / "out.csv", "--no-header")
    assert "leave --no-header out" in answer.sentence


def test_an_unknown_kind_of_file_is_refused(predict, tmp_path) -> None:
    (tmp_path / "in.xlsx").write_bytes(b"")
    assert "known are .txt" in predict("--file", tmp_path / "in.xlsx", "--out", tmp_path / "out.csv").sentence


def test_two_runs_do_not_write_the_same_file(classifier_folder, texts_file, tmp_path) -> None:
    columns = {"text_column": None, "text_pair_column": None, "label_column": None}
    classifier = Classifier.load(classifier_folder)
    source = Source(texts_file, **columns, header=True, names=classifier.names)
    out = tmp_path / "out.csv"
    classify = classifier.classify

    def classify_while_another_begins(*arguments, **options):
        with pytest.raises(UserError, match="Another run is at work"):
            classify_file(classifier, source, out, batch_size=8, resume=True, overwrite=False)
        return classify(*arguments, **options)

    classifier.classify = classify_while_another_begins  # type: ignore[method-assign]
    classify_file(classifier, source, out, batch_size=8, resume=False, overwrite=False)
    assert len(read_csv(out)) == 10


# ---- the recipes ----------------------------------------------------------------------------------------------------


def test_train_passes_its_options_on(hfgpt) -> None:
    answer = hfgpt("classify", "train", "--config=demo", "--max-steps", "7", "--print_config")
    assert answer.status == 0
    assert "max_steps: 7\n" in answer.out


def test_the_help_of_train_is_that_of_the_recipe(hfgpt) -> None:
    assert "--classifier_pooling" in hfgpt("classify", "train", "--help").out

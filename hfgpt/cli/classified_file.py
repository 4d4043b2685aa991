"""A file of texts in, a file of classes out: a row for each row, however many there are.

Rows are added to a `PartialFile` by the window that `Classifier` sorts by length, so a run that goes on computes the
same batches as one that was never interrupted, and what it writes is the same, byte for byte.
"""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from hfgpt.data.class_labels import WHOLE_NUMBER, class_name
from hfgpt.data.files import errors_of_the_user, file_kind, list_files, open_text
from hfgpt.data.labelled import parquet_class_names
from hfgpt.data.readers import checked_text, choose_text_column, inspect_columns, read_whole_records
from hfgpt.errors import UserError
from hfgpt.serving.classification import WINDOW_BATCHES, Classifier, Prediction
from hfgpt.tokenization import replace_lone_surrogates
from hfgpt.training.run_lock import exclusive

from .partial_file import NOT_IN_JSON, PartialFile, check_destination, check_writable, json_record, plain

__all__ = ["LABEL_COLUMN", "SCORE_COLUMN", "SUFFIXES", "Source", "classify_file"]

logger = logging.getLogger(__name__)

LABEL_COLUMN = "predicted_label"  # not `label`: a labelled file has that column already, and keeps it
SCORE_COLUMN = "score"
SUFFIXES = (".csv", ".jsonl")  # of what can be written


class Row(NamedTuple):
    """A record of the source, what it holds in the columns that count, and where it is."""

    place: Callable[[], str]
    record: dict[str, Any]
    texts: list[str]
    """One, or two of a pair."""
    label: str | None
    """Its class, if the source has a column of them."""


class Source:
    """The file to classify: which of its columns are read, and its rows.

    Args:
        path: csv, tsv, jsonl, json or parquet, also with .gz; or txt, with a text on each line.
        text_column: Default: `text`, else the only column of strings.
        text_pair_column: Default: none.
        label_column: The true classes, to compare with; default: none.
        header: Whether the first row of a csv or tsv file names its columns; else they are `column_1`, ....
        names: Of the model's classes.

    Raises:
        UserError: If the file or a column is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        text_column: str | None,
        text_pair_column: str | None,
        label_column: str | None,
        header: bool,
        names: list[str],
    ) -> None:
        asked_for = text_column
        if not path.is_file():
            raise UserError(f"There is no file {path}: give a csv, tsv, jsonl, json, parquet or txt file.")
        list_files(path)  # refuses unknown kinds
        if not header and file_kind(path) not in (".csv", ".tsv"):
            raise UserError(f"{path} is no csv or tsv file and names its columns itself: leave --no-header out.")
        self.path, self.header, self.names = path, header, names
        if file_kind(path) == ".txt":
            columns = {"text": True}
        else:
            with errors_of_the_user(path):
                columns = inspect_columns(path, header=header)
        self.columns = list(columns)
        for option, column in (("text-pair-column", text_pair_column), ("label-column", label_column)):
            if column is not None and column not in columns:
                raise UserError(
                    f"{path} has no column {column!r} for --{option}; its columns are {', '.join(columns)}."
                )
        if columns:
            others = {
                name: of_strings for name, of_strings in columns.items() if name not in (text_pair_column, label_column)
            }
            text_column = choose_text_column(columns if text_column else others, text_column, where=str(path))
        self.text_columns = [name for name in (text_column or "text", text_pair_column) if name is not None]
        self.label_column = label_column
        stored = parquet_class_names(path) if file_kind(path) == ".parquet" else {}
        self.label_names = stored.get(label_column or "")
        if header and file_kind(path) in (".csv", ".tsv") and asked_for is None and text_column != "text":
            logger.warning(
                "%s: its first row is taken for names of columns, and %r for the text: say --text-column, or "
                "--no-header if the first row is a text.",
                path,
                text_column,
            )

    def rows(self) -> Iterator[Row]:
        """The rows of the file, in order.

        Raises:
            UserError: If one cannot be read; it says which line.
        """
        with errors_of_the_user(self.path):
            for place, record in self._records():
                texts = [
                    checked_text(record.get(column), place, path=self.path, column=column)
                    for column in self.text_columns
                ]
                yield Row(place, record, texts, self._label(record, place))

    def _records(self) -> Iterator[tuple[Callable[[], str], dict[str, Any]]]:
        if file_kind(self.path) != ".txt":
            yield from read_whole_records(self.path, header=self.header)
            return
        with open_text(self.path, newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                yield f"line {number}".format, {"text": line.removesuffix("\n").removesuffix("\r")}

    def _label(self, record: dict[str, Any], place: Callable[[], str]) -> str | None:
        """The true class of a record, given by its name or, if no class is called by a number, by its number."""
        if self.label_column is None:
            return None
        value, where = record.get(self.label_column), str(self.path)
        name = class_name(value, place, self.label_names, column=self.label_column, where=where)
        number = name.split(".")[0] if WHOLE_NUMBER.fullmatch(name) else ""  # 1.0 is 1, as when a model is trained
        for known in (name, number):
            if known in self.names:
                return known
        numbered = any(WHOLE_NUMBER.fullmatch(known) for known in self.names)
        if number.isdecimal() and not numbered and int(number) < len(self.names):
            return self.names[int(number)]
        raise UserError(
            f"{place()} of {self.path} has the label {name!r} in the column {self.label_column!r}, which the model "
            f"does not know: its classes are {', '.join(self.names)}."
        )


class _Writer:
    """Rows as csv or JSON Lines."""

    def __init__(self, destination: Path, source: Source) -> None:
        self.is_csv = destination.suffix.lower() == ".csv"
        self.columns, self.names, self.path = source.columns, source.names, source.path
        new = [LABEL_COLUMN, SCORE_COLUMN]
        new += [f"score_{name}" for name in self.names] if self.is_csv else ["scores"]
        taken = [column for column in new if column in self.columns]
        if taken:
            raise UserError(
                f"{source.path} has a column {taken[0]!r}, which is to hold what the model says: give it another name."
            )
        self.header = self._csv_line([*self.columns, *new]) if self.is_csv else b""

    def check(self, row: Row) -> None:
        """Refuse what cannot be written.

        Raises:
            UserError: A value that the format has no words for, or a column that a table has no room for.
        """
        beyond = [column for column in row.record if column not in self.columns]
        if self.is_csv and beyond:
            raise UserError(
                f"{row.place()} of {self.path} has a column {beyond[0]!r} that the first record lacks, and all rows of "
                "a csv file have the same columns: write a .jsonl file."
            )
        check_writable(row.record, row.place, self.path)

    def line(self, row: Row, prediction: Prediction) -> bytes:
        """A row of the file to write, with what the model says; six digits of its probabilities."""
        score, *scores = (float(f"{value:.6g}") for value in (prediction.score, *prediction.scores.values()))
        if self.is_csv:
            values = [_cell(row.record.get(column)) for column in self.columns]
            return self._csv_line([*values, prediction.label, str(score), *map(str, scores)])
        added = {LABEL_COLUMN: prediction.label, SCORE_COLUMN: score}
        return json_record(row.record | added | {"scores": dict(zip(self.names, scores, strict=True))}) + b"\n"

    @staticmethod
    def _csv_line(values: list[str]) -> bytes:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\n").writerow([replace_lone_surrogates(value)[0] for value in values])
        return line.getvalue().encode()


def _cell(value: Any) -> str:
    """A value in a table: a string as it is, a missing one as nothing, anything else as JSON writes it."""
    if value is None:
        return ""
    value = plain(value) if isinstance(value, NOT_IN_JSON) else value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=plain)


def classify_file(
    classifier: Classifier, source: Source, destination: Path, *, batch_size: int, resume: bool, overwrite: bool
) -> dict[str, Any]:
    """Write each row of `source` with its predicted class to `destination`, with a progress bar.

    All of the source is looked through first, so that a mistake in its last line is told before the first is computed.

    Args:
        destination: .csv, to which are added `predicted_label`, `score` and a `score_CLASS` for each class; or .jsonl,
            to which are added `predicted_label`, `score` and `scores`.
        resume: Go on with an interrupted run, if there is one.
        overwrite: Replace a file that is there, when the new one is complete.

    Returns:
        How many `rows` there are, how many of the texts were `truncated` and `empty`, and the `accuracy` if the classes
        are known (and there are rows).

    Raises:
        UserError: If the destination is in use, or the source has a row that cannot be read or written.
    """
    check_destination(destination, SUFFIXES, resume=resume, overwrite=overwrite)
    writer = _Writer(destination, source)
    total = 0
    for row in source.rows():
        writer.check(row)
        total += 1
    state = source.path.stat()
    partial = PartialFile(
        destination,
        {
            "model": classifier.fingerprint(),
            "file": [state.st_size, state.st_mtime_ns],
            "header": source.header,
            "text column": source.text_columns,
            "label column": source.label_column,
            "batch size": batch_size,
        },
    )
    with exclusive(partial.folder):
        try:
            if resume and PartialFile.rows_in(destination) is not None:
                partial.resume()
            else:
                partial.begin(writer.header)
            _classify_rows(classifier, source, writer, partial, batch_size, total)
            partial.finish()
        finally:
            partial.close()
    summary: dict[str, Any] = {"rows": partial.num_rows, "truncated": partial.counts["truncated"]}
    summary["empty"] = partial.counts["empty"]
    if source.label_column is not None and partial.num_rows:
        summary["accuracy"] = partial.counts["correct"] / partial.num_rows
    return summary


def _classify_rows(
    classifier: Classifier, source: Source, writer: _Writer, partial: PartialFile, batch_size: int, total: int
) -> None:
    rows = islice(source.rows(), partial.num_rows, None)
    with tqdm(total=total, initial=partial.num_rows, desc="classify", unit="row", dynamic_ncols=True) as bar:
        while window := list(islice(rows, batch_size * WINDOW_BATCHES)):
            truncated, empty = classifier.num_truncated, classifier.num_empty
            columns = [list(column) for column in zip(*(row.texts for row in window), strict=True)]
            predictions = list(classifier.classify(*columns, batch_size=batch_size))
            lines = [writer.line(row, prediction) for row, prediction in zip(window, predictions, strict=True)]
            counts = {
                "truncated": classifier.num_truncated - truncated,
                "empty": classifier.num_empty - empty,
                "correct": sum(row.label == found.label for row, found in zip(window, predictions, strict=True)),
            }
            partial.add(b"".join(lines), len(window), counts)
            bar.update(len(window))

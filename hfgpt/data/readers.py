"""Reading local files as documents: one small generator a format, each over the parser that everybody uses for it.

`datasets` has loaders for these formats, but three of them change text on the way: its `text` loader turns a carriage
return and line feed into a line feed, its `json` loader makes dates of strings that look like dates and stops at a
lone surrogate, and its `csv` loader makes missing values of the words NA and null. So the files are read here as they
are, and `sources.py` gives the generator to `datasets` for everything else: Arrow, caching, streaming, shards. A part
of a JSON Lines or parquet file (a `Segment`) is read without reading what stands before it.

Lone surrogates (half of a pair, as JSON's escapes can write it) are no valid Unicode and cannot be stored as UTF-8;
they become U+FFFD and are counted.
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hfgpt.bulk_encoding import replace_lone_surrogates
from hfgpt.errors import UserError

__all__ = [
    "READABLE_SUFFIXES",
    "Segment",
    "choose_text_column",
    "file_kind",
    "parquet_row_groups",
    "read_documents",
    "text_column_of",
]

READABLE_SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")

# How many rows of a csv or tsv file are looked at to tell a column of text from a column of numbers.
ROWS_TO_INSPECT = 100
PARQUET_ROWS_PER_BATCH = 1024


def file_kind(path: Path) -> str | None:
    """The suffix that says how to read `path`, less a final `.gz`: `.txt`, `.jsonl`, ...; None if it is not known."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in READABLE_SUFFIXES else None


class Segment(NamedTuple):
    """A file, or a part of one that can be read for itself.

    Attributes:
        path: the file.
        column: the column that holds the text.
        start: byte of a JSON Lines file, or row group of a parquet file; 0 for every other kind.
        stop: where the part ends, likewise; None: at the end of the file. A line belongs to the part in which its
            first byte lies, so that parts that follow upon each other hold every line once.
    """

    path: str
    column: str
    start: int = 0
    stop: int | None = None


def read_documents(segments: list[Segment]) -> Iterator[dict[str, Any]]:
    """Yield the rows `{"text", "lone_surrogates"}` of the files, or parts of files, in their order.

    A text is exactly what the file holds, but for lone surrogates, each replaced by U+FFFD and counted. A missing text
    (null, or a record without the column) comes out as the empty string.

    Raises:
        UserError: bytes that are not UTF-8, a broken record, a text that is not a string: with file and line.
    """
    for segment in segments:
        with _errors_of_the_user(Path(segment.path)):
            for text in _read_texts(segment):
                replaced, lone_surrogates = replace_lone_surrogates(text)
                yield {"text": replaced, "lone_surrogates": lone_surrogates}


def text_column_of(path: Path, wanted: str | None) -> str:
    """The column of `path` that holds the text: `wanted`, else `text`, else the only column of strings.

    Only the head of the file is read. An empty file has no columns and no rows; its column is `wanted` or `text`.

    Raises:
        UserError: there is no such column, it does not hold strings, or several columns could be meant.
    """
    if file_kind(path) == ".txt":
        return "text"
    with _errors_of_the_user(path):
        columns = _inspect_columns(path)
    if not columns:
        return wanted or "text"
    return choose_text_column(columns, wanted, where=str(path))


def parquet_row_groups(path: Path) -> list[int]:
    """The number of rows of each row group, as the file's footer says."""
    with _errors_of_the_user(path), _open_bytes(path) as file:
        metadata = pq.ParquetFile(file).metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def choose_text_column(columns: dict[str, bool], wanted: str | None, *, where: str) -> str:
    """Choose among `columns` (name: whether it holds strings) by the rule of `text_column_of`."""
    names = ", ".join(columns)
    if wanted is not None and wanted not in columns:
        raise UserError(f"{where} has no column {wanted!r}; its columns are {names}: name one of them as text_column.")
    column = wanted or ("text" if "text" in columns else None)
    if column is not None:
        if not columns[column]:
            raise UserError(
                f"the column {column!r} of {where} does not hold strings; name another text_column among {names}."
            )
        return column
    of_strings = [name for name, holds_strings in columns.items() if holds_strings]
    if len(of_strings) == 1:
        return of_strings[0]
    raise UserError(
        f"{where} has no column 'text' and {len(of_strings) or 'no'} columns of strings; "
        f"say which of its columns is the text with text_column: {names}."
    )


def _read_texts(segment: Segment) -> Iterator[str]:
    path, column = Path(segment.path), segment.column
    kind = file_kind(path)
    if kind == ".txt":
        with _open_bytes(path) as file:
            yield file.read().decode("utf-8")
    elif kind == ".parquet":
        with _open_bytes(path) as file:
            parquet = pq.ParquetFile(file)
            groups = range(parquet.num_row_groups)[segment.start : segment.stop]
            for batch in parquet.iter_batches(PARQUET_ROWS_PER_BATCH, row_groups=groups, columns=[column]):
                for text in batch.column(0).to_pylist():
                    yield text or ""
    elif kind in (".csv", ".tsv"):
        yield from _read_table_texts(path, column)
    else:
        for place, record in _read_json_records(path, segment.start, segment.stop):
            text = {"text": record}.get(column) if isinstance(record, str) else record.get(column)
            if not isinstance(text, str | None):
                raise UserError(
                    f"the column {column!r} of {path} does not hold a string at {place()} but {_shortened(text)}; "
                    "mend that record or name another text_column."
                )
            yield text or ""


def _read_table_texts(path: Path, column: str) -> Iterator[str]:
    rows = _read_table_rows(path)
    header = next(rows, None)
    if header is not None:
        position = header.index(column)
        for row in rows:
            yield row[position]


def _read_table_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a csv or tsv file, header first; fields may hold line breaks in double quotes, as csv says."""
    csv.field_size_limit(sys.maxsize)  # The default of 131,072 characters is shorter than a book.
    with _open_text(path, newline="") as lines:
        reader = csv.reader(lines, delimiter="\t" if file_kind(path) == ".tsv" else ",", strict=True)
        header: list[str] | None = None
        try:
            for row in reader:
                if not row:
                    continue  # A line without a field is no row.
                header = header or row
                if len(row) != len(header):
                    raise UserError(
                        f"line {reader.line_num} of {path} has {len(row)} fields where the header has {len(header)}; "
                        "put fields that hold a separator or a line break in double quotes."
                    )
                yield row
        except csv.Error as error:
            raise UserError(
                f"line {reader.line_num} of {path} is not valid {_kind_name(path)} ({error}); mend its double quotes."
            ) from error


def _read_json_records(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[Callable[[], str], Any]]:
    """Records (objects or strings) of JSON Lines, an array, or one value, each with a function that says where it is.

    `start` and `stop` are those of a `Segment`.
    """
    if file_kind(path) == ".json":
        with _open_text(path, newline="\n") as file:
            content = file.read()
        try:
            whole = json.loads(content) if content.strip() else []
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise UserError(
                    f"{path} is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); mend it."
                ) from error
        else:
            for number, record in enumerate(whole if isinstance(whole, list) else [whole], start=1):
                yield _checked_record(path, partial("record {}".format, number), record)
            return
    # One record a line; also for a `.json` file that holds several values one after the other.
    for position, line in _read_lines(path, start, stop):
        if line.strip():
            place = partial(_line_at, path, position)
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{place()} of {path} is not valid JSON ({error.msg} at column {error.colno}); "
                    "a JSON Lines file holds one whole record a line."
                ) from error
            yield _checked_record(path, place, record)


def _read_lines(path: Path, start: int, stop: int | None) -> Iterator[tuple[int, str]]:
    """The lines whose first byte lies from `start` to `stop`, each with the position of that byte."""
    with _open_bytes(path) as file:
        position = 0
        if start > 0:
            # Whether a line begins at `start` is known from the byte before it.
            file.seek(start - 1)
            position = start - 1 + len(file.readline())
        while stop is None or position < stop:
            line = file.readline()
            if not line:
                return
            # A byte order mark at the beginning of a file is no content.
            yield position, line.decode("utf-8" if position else "utf-8-sig")
            position += len(line)


def _line_at(path: Path, position: int) -> str:
    """The name of the line that begins at byte `position`; what stands before it is read for that."""
    number, end = 1, 0
    with _open_bytes(path) as file:
        for line in file:
            end += len(line)
            if end > position:
                break
            number += 1
    return f"line {number}"


def _checked_record(path: Path, place: Callable[[], str], record: Any) -> tuple[Callable[[], str], Any]:
    if not isinstance(record, dict | str):
        raise UserError(
            f"{place()} of {path} is {_shortened(record)}; a record must be an object with columns, or a string."
        )
    return place, record


def _inspect_columns(path: Path) -> dict[str, bool]:
    """The columns of a file and whether each holds strings, as far as its head shows; empty for an empty file."""
    kind = file_kind(path)
    if kind == ".parquet":
        with _open_bytes(path) as file:
            schema = pq.ParquetFile(file).schema_arrow
        return {field.name: pa.types.is_string(field.type) or pa.types.is_large_string(field.type) for field in schema}
    if kind in (".csv", ".tsv"):
        rows = _read_table_rows(path)
        header = next(rows, [])
        if len(set(header)) < len(header):
            raise UserError(f"the header of {path} names a column twice ({', '.join(header)}); give each its own name.")
        head = [row for _, row in zip(range(ROWS_TO_INSPECT), rows, strict=False)]
        return {name: not head or not all(_is_number(row[i]) for row in head) for i, name in enumerate(header)}
    for _, record in _read_json_records(path):
        if isinstance(record, str):
            return {"text": True}
        return {name: isinstance(value, str | None) for name, value in record.items()}
    return {}


@contextmanager
def _errors_of_the_user(path: Path) -> Iterator[None]:
    """Turn what the parsers raise into one sentence that names the file, and the line where it is known."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 {_locate_invalid_bytes(path)}; save it as UTF-8 and try again."
        ) from error
    except (pa.ArrowException, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as {_kind_name(path)} ({error}); check that it is whole and of that kind."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its permissions."
        ) from error


def _locate_invalid_bytes(path: Path) -> str:
    offset = 0
    with _open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"in line {number}, at byte {offset + error.start}"
            offset += len(line)
    return "throughout"


@contextmanager
def _open_bytes(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield raw


@contextmanager
def _open_text(path: Path, *, newline: str) -> Iterator[io.TextIOWrapper]:
    """Open for the parsers: line ends untranslated, and a byte order mark, which is no content there, dropped."""
    with _open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as text:
        yield text


def _kind_name(path: Path) -> str:
    return (file_kind(path) or "").removeprefix(".") + (" in gzip" if path.suffix.lower() == ".gz" else "")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _shortened(value: Any, limit: int = 40) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."

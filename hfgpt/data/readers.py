"""Reading local files as documents: one small generator a format, each over the parser that everybody uses for it.

`datasets` has loaders for these formats, but three of them change text on the way: its `text` loader turns a carriage
return and line feed into a line feed, its `json` loader makes dates of strings that look like dates and stops at a
lone surrogate, and its `csv` loader makes missing values of the words NA and null. So the files are read here as they
are, and `sources.py` gives the generator to `datasets` for everything else: Arrow, caching, streaming, shards. A part
of a JSON Lines or parquet file (a `Segment`) is read without reading what stands before it.

Lone surrogates (half of a pair, as JSON's escapes can write it) are no valid Unicode and cannot be stored as UTF-8;
they become U+FFFD and are counted.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from hfgpt.bulk_encoding import replace_lone_surrogates
from hfgpt.data.files import errors_of_the_user, file_kind, open_bytes, open_text, shortened
from hfgpt.data.tables import numbered_columns, read_rows
from hfgpt.errors import UserError

__all__ = [
    "Segment",
    "checked_text",
    "choose_text_column",
    "inspect_columns",
    "parquet_row_groups",
    "read_documents",
    "read_records",
    "read_whole_records",
    "text_column_of",
]

# How many rows of a csv or tsv file are looked at to tell a column of text from a column of numbers.
ROWS_TO_INSPECT = 100
PARQUET_ROWS_PER_BATCH = 1024


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
        with errors_of_the_user(Path(segment.path)):
            for text in _read_texts(segment):
                replaced, lone_surrogates = replace_lone_surrogates(text)
                yield {"text": replaced, "lone_surrogates": lone_surrogates}


def text_column_of(path: Path, wanted: str | None) -> str:
    """The column of `path` that holds the text: `wanted`, else `text`, else the only column of strings.

    Only the head of the file is read (all of a tsv file, once: see `hfgpt.data.tables`). An empty file has no columns
    and no rows; its column is `wanted` or `text`.

    Raises:
        UserError: there is no such column, it does not hold strings, or several columns could be meant.
    """
    if file_kind(path) == ".txt":
        return "text"
    with errors_of_the_user(path):
        columns = inspect_columns(path)
    if not columns:
        return wanted or "text"
    return choose_text_column(columns, wanted, where=str(path))


def parquet_row_groups(path: Path) -> list[int]:
    """The number of rows of each row group, as the file's footer says."""
    with errors_of_the_user(path), open_bytes(path) as file:
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


def read_records(
    path: Path, columns: Sequence[str], start: int = 0, stop: int | None = None, *, header: bool = True
) -> Iterator[tuple[Callable[[], str], list[Any]]]:
    """Yield the values of `columns` record by record, as the format has them, each with a function that says where.

    A column that a JSON record lacks is None there. The caller stands within `errors_of_the_user`.

    Args:
        path: the file.
        columns: names of columns, all of them among those of `inspect_columns`.
        start: where to begin, as in a `Segment`.
        stop: where to end, likewise.
        header: whether the first row of a csv or tsv file names its columns; else they are `column_1`, `column_2`, ...
    """
    kind = file_kind(path)
    if kind == ".txt":
        with open_bytes(path) as file:
            yield partial(str, "line 1"), [file.read().decode("utf-8")]
    elif kind == ".parquet":
        with open_bytes(path) as file:
            parquet = pq.ParquetFile(file)
            groups = range(parquet.num_row_groups)[start:stop]
            number = 0
            for batch in parquet.iter_batches(PARQUET_ROWS_PER_BATCH, row_groups=groups, columns=list(columns)):
                for values in zip(*(batch.column(column).to_pylist() for column in columns), strict=True):
                    number += 1
                    yield partial("row {}".format, number), list(values)
    elif kind in (".csv", ".tsv"):
        rows = read_rows(path)
        _, names = next(rows, (0, list(columns))) if header else (0, [])
        for line, row in rows:
            names = names or numbered_columns(len(row))
            yield partial("line {}".format, line), [row[names.index(column)] for column in columns]
    else:
        for place, record in _read_json_records(path, start, stop):
            yield place, [({"text": record} if isinstance(record, str) else record).get(column) for column in columns]


def read_whole_records(path: Path, *, header: bool = True) -> Iterator[tuple[Callable[[], str], dict[str, Any]]]:
    """Yield the records of a csv, tsv, JSON or parquet file with all their columns, each with what says where it is.

    A JSON record has the columns that it has, whatever the others have. A JSON Lines file, a table and a parquet file
    are read a little at a time, a JSON array as a whole. `header` is that of `read_records`. The caller stands within
    `errors_of_the_user`.
    """
    if file_kind(path) in (".json", ".jsonl"):
        for place, record in _read_json_records(path):
            yield place, {"text": record} if isinstance(record, str) else record
    else:
        columns = list(inspect_columns(path, header=header))
        for place, values in read_records(path, columns, header=header) if columns else ():
            yield place, dict(zip(columns, values, strict=True))


def checked_text(value: Any, place: Callable[[], str], *, path: Path, column: str) -> str:
    """The text that a record holds: a missing one is empty, and what is no string is refused with its place."""
    if not isinstance(value, str | None):
        raise UserError(
            f"the column {column!r} of {path} does not hold a string at {place()} but {shortened(value)}; "
            "mend that record or name another text_column."
        )
    return value or ""


def _read_texts(segment: Segment) -> Iterator[str]:
    path, column = Path(segment.path), segment.column
    for place, (text,) in read_records(path, [column], segment.start, segment.stop):
        yield checked_text(text, place, path=path, column=column)


def _read_json_records(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[Callable[[], str], Any]]:
    """Records (objects or strings) of JSON Lines, an array, or one value, each with a function that says where it is.

    `start` and `stop` are those of a `Segment`.
    """
    if file_kind(path) == ".json":
        with open_text(path, newline="\n") as file:
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
    with open_bytes(path) as file:
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
    with open_bytes(path) as file:
        for line in file:
            end += len(line)
            if end > position:
                break
            number += 1
    return f"line {number}"


def _checked_record(path: Path, place: Callable[[], str], record: Any) -> tuple[Callable[[], str], Any]:
    if not isinstance(record, dict | str):
        raise UserError(
            f"{place()} of {path} is {shortened(record)}; a record must be an object with columns, or a string."
        )
    return place, record


def inspect_columns(path: Path, *, header: bool = True) -> dict[str, bool]:
    """The columns of a file and whether each holds strings, as far as its head shows; empty for an empty file.

    `header` is that of `read_records`. The caller stands within `errors_of_the_user`.
    """
    kind = file_kind(path)
    if kind == ".parquet":
        with open_bytes(path) as file:
            schema = pq.ParquetFile(file).schema_arrow
        return {field.name: pa.types.is_string(field.type) or pa.types.is_large_string(field.type) for field in schema}
    if kind in (".csv", ".tsv"):
        rows = (row for _, row in read_rows(path))
        first = next(rows, [])
        if header and len(set(first)) < len(first):
            raise UserError(f"the header of {path} names a column twice ({', '.join(first)}); give each its own name.")
        head = [row for _, row in zip(range(ROWS_TO_INSPECT), rows, strict=False)]
        head = head if header else [first, *head]
        names = first if header else numbered_columns(len(first))
        return {name: not head or not all(_is_number(row[i]) for row in head) for i, name in enumerate(names)}
    for _, record in _read_json_records(path):
        if isinstance(record, str):
            return {"text": True}
        return {name: isinstance(value, str | None) for name, value in record.items()}
    return {}


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True

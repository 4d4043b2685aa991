r"""The rows of csv and tsv files.

csv is read by Python's own parser, strictly: a field that holds a comma, a line break or a double quote stands in
double quotes, and a double quote within it is doubled (RFC 4180).

tsv is two formats under one name. Spreadsheets and csv libraries write csv with tabs for commas, quotes and all. The
registered format (text/tab-separated-values) knows no quotes: a field is whatever stands between two tabs, and may not
hold a line break. Read in the first way, a file of the second loses the quotes that are part of its texts, or swallows
every record up to the next quote. So a tsv file is read as csv only if *all* of it is valid csv, each row with as many
fields as the first; else it is read without quotes, a warning says so and names the line that decided. Where that does
not fit either, both reasons are given.

A line without a tab, in a tsv file of several columns that is read without quotes, is no record. It can only be what a
line break within the last field has cut off, and so it continues the last field of the record before it, line break
included; the warning says how many such lines there are. A blank line is no row in either reading.
"""

import csv
import logging
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from hfgpt.data.files import file_kind, kind_name, open_text
from hfgpt.errors import UserError

__all__ = ["numbered_columns", "read_rows"]

logger = logging.getLogger(__name__)


class _BrokenRowError(Exception):
    """A line that does not fit, and what would mend it."""

    def __init__(self, line: int, problem: str, remedy: str) -> None:
        super().__init__(line, problem, remedy)
        self.line, self.problem, self.remedy = line, problem, remedy


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a csv or tsv file, first the header if there is one, each with the line on which it begins.

    Raises:
        UserError: a row has more or fewer fields than the first, or its double quotes do not match; with the line.
    """
    rows = _rows_without_quotes if file_kind(path) == ".tsv" and not _is_valid_csv(path) else _rows_of_csv
    try:
        yield from rows(path)
    except _BrokenRowError as error:
        raise UserError(f"line {error.line} of {path} {error.problem}; {error.remedy}.") from error


def numbered_columns(num_columns: int) -> list[str]:
    """The names of the columns of a file without a header: `column_1`, `column_2`, ..."""
    return [f"column_{number}" for number in range(1, num_columns + 1)]


def _rows_of_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(sys.maxsize)  # The default of 131,072 characters is shorter than a book.
    with open_text(path, newline="") as lines:
        reader = csv.reader(lines, delimiter="\t" if file_kind(path) == ".tsv" else ",", strict=True)
        num_fields = 0
        line = 1
        try:
            for row in reader:
                if row:  # A line without a field is no row.
                    num_fields = num_fields or len(row)
                    if len(row) != num_fields:
                        raise _BrokenRowError(
                            reader.line_num,
                            f"has {_count(len(row), 'field')} where the first row has {num_fields}",
                            "put fields that hold a separator or a line break in double quotes",
                        )
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise _BrokenRowError(
                reader.line_num, f"is not valid {kind_name(path)} ({error})", "mend its double quotes"
            ) from error


def _rows_without_quotes(
    path: Path, on_continuation: Callable[[int], None] = lambda line: None
) -> Iterator[tuple[int, list[str]]]:
    with open_text(path, newline="\n") as lines:
        row: list[str] = []
        begin, num_fields, line_end = 0, 0, ""
        for number, line in enumerate(lines, start=1):
            content = line.removesuffix("\n").removesuffix("\r")
            if content:
                fields = content.split("\t")
                if row and len(fields) == 1 < num_fields:
                    row[-1] += line_end + content
                    on_continuation(number)
                elif num_fields and len(fields) != num_fields:
                    raise _BrokenRowError(
                        number,
                        f"has {_count(len(fields), 'field')} where the first row has {num_fields}",
                        "a tab within a field must go",
                    )
                else:
                    if row:
                        yield begin, row
                    begin, row, num_fields = number, fields, len(fields)
                line_end = line[len(content) :]
        if row:
            yield begin, row


def _is_valid_csv(path: Path) -> bool:
    state = path.stat()
    return _decide_quoting(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)  # A file is looked through once, and the warning comes once, until the file changes.
def _decide_quoting(path: Path, _num_bytes: int, _modified: int) -> bool:
    """Whether all of a tsv file is csv with tabs.

    Raises:
        UserError: the file cannot be read with or without quotes.
    """
    try:
        for _ in _rows_of_csv(path):
            pass
    except _BrokenRowError as with_quotes:
        continuations: list[int] = []
        try:
            for _ in _rows_without_quotes(path, continuations.append):
                pass
        except _BrokenRowError as without_quotes:
            if with_quotes.line == without_quotes.line:
                raise UserError(
                    f"line {with_quotes.line} of {path} {with_quotes.problem}; {with_quotes.remedy}."
                ) from with_quotes
            raise UserError(
                f"{path} can be read neither with double quotes around fields, for line {with_quotes.line} "
                f"{with_quotes.problem}, nor without, for line {without_quotes.line} {without_quotes.problem}; "
                "mend one of these lines."
            ) from without_quotes
        logger.warning(
            "%s: read without quotes, every line a record, for line %d %s%s",
            path,
            with_quotes.line,
            with_quotes.problem,
            f"; {_count(len(continuations), 'line')} without a tab (first: {continuations[0]}) taken as the rest "
            "of the record before"
            if continuations
            else "",
        )
        return False
    return True


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

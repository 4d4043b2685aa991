"""Files that commands write row by row: whole under their name, or in a folder beside it until they are.

An interrupted run is gone on with after the last row that is sure.
"""

import json
import os
import shlex
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from hfgpt.data.files import shortened
from hfgpt.errors import UserError

__all__ = [
    "NOT_IN_JSON",
    "PartialFile",
    "check_destination",
    "check_writable",
    "exit_on_signals",
    "json_record",
    "plain",
]

PROGRESS = "progress.json"
NOT_IN_JSON = (date, datetime, time, Decimal)


class PartialFile:
    """`OUT.partial/`: rows that are sure, and how far they go.

    It holds the rows, in a file of OUT's kind, and progress.json, which says how many rows (and bytes) are sure: what a
    kill has left behind those bytes is cut off.

    Args:
        destination: OUT.
        settings: All that decides what is written, by names for a sentence; a run with others does not go on.

    Attributes:
        path: Of the file with the rows.
        num_rows: Rows that are sure.
        counts: Of them, by kind.
    """

    def __init__(self, destination: Path, settings: Mapping[str, Any]) -> None:
        self.destination, self.settings = destination, dict(settings)
        self.folder = self.folder_of(destination)
        self.num_rows, self.num_bytes = 0, 0
        self.counts: Counter[str] = Counter()
        self.path = self.folder / f"rows{destination.suffix}"
        self._file: BinaryIO | None = None

    @staticmethod
    def folder_of(destination: Path) -> Path:
        """Where the work on a file stands."""
        return destination.with_name(destination.name + ".partial")

    @classmethod
    def rows_in(cls, destination: Path) -> int | None:
        """How many rows an interrupted run has left; None: there is none.

        Raises:
            UserError: What says so is damaged.
        """
        path = cls.folder_of(destination) / PROGRESS
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["rows"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:  # the machine went down, and it was not yet on the disk
            raise UserError(
                f"{path}, which says how far an interrupted run had come, is damaged: remove {path.parent} and begin "
                "again."
            ) from error

    def begin(self, header: bytes) -> None:
        """Begin at the first row; what another run has left is given up."""
        (self.folder / PROGRESS).unlink(missing_ok=True)
        self._file = self.path.open("wb")
        self.add(header, 0, Counter())

    def resume(self) -> None:
        """Go on after the last row that is sure.

        Raises:
            UserError: If the rows were made with other settings.
        """
        progress = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        other = [name for name, value in self.settings.items() if progress["settings"].get(name) != value]
        if other:
            raise UserError(
                f"{self.folder} was begun with another {' and another '.join(other)}: go on with what it was begun "
                "with, or begin again with --overwrite and without --resume."
            )
        if not self.path.is_file() or self.path.stat().st_size < progress["bytes"]:
            raise UserError(f"{self.path} lacks rows that were written: begin again with --overwrite.")
        self.num_rows, self.num_bytes, self.counts = progress["rows"], progress["bytes"], Counter(progress["counts"])
        self._file = self.path.open("r+b")
        self._file.truncate(self.num_bytes)
        self._file.seek(self.num_bytes)

    def add(self, lines: bytes, num_rows: int, counts: Mapping[str, int]) -> None:
        """Write rows, so that they are sure when this returns."""
        assert self._file is not None
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.num_rows += num_rows
        self.num_bytes += len(lines)
        self.counts.update(counts)
        progress = {
            "settings": self.settings,
            "rows": self.num_rows,
            "bytes": self.num_bytes,
            "counts": dict(self.counts),
        }
        unsure = self.folder / f"{PROGRESS}.new"
        unsure.write_text(json.dumps(progress, indent=1), encoding="utf-8")
        unsure.replace(self.folder / PROGRESS)

    def lines(self) -> Iterator[bytes]:
        """The lines that are sure, header and all."""
        with self.path.open("rb") as file:
            while file.tell() < self.num_bytes:
                yield file.readline()

    def finish(self, ending: bytes = b"") -> None:
        """Give the rows their name, after what ends the file."""
        assert self._file is not None
        self._file.write(ending)
        self.close()
        self.path.replace(self.destination)
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Let go of the file; what was added stays."""
        if self._file is not None:
            self._file.close()


def check_destination(destination: Path, suffixes: Sequence[str], *, resume: bool, overwrite: bool) -> None:
    """Refuse a destination that cannot or must not be written to; writes nothing.

    Raises:
        UserError: It is of no known kind, is there already, or an interrupted run stands beside it.
    """
    if destination.suffix.lower() not in suffixes:
        raise UserError(f"{destination} is neither {' nor '.join(suffixes)}: name a file of one of these kinds.")
    if not destination.parent.is_dir():
        raise UserError(f"There is no folder {destination.parent} to write {destination.name} into: make it first.")
    if destination.is_dir() or (destination.exists() and not overwrite):
        raise UserError(f"{destination} exists: name another file, or replace it with --overwrite.")
    num_rows = PartialFile.rows_in(destination)
    if num_rows is not None and not resume and not overwrite:
        raise UserError(
            f"{PartialFile.folder_of(destination)} holds {num_rows:,} rows of a run that was interrupted: go on with "
            "--resume, or begin again with --overwrite."
        )


def plain(value: Any) -> str:
    """What parquet has and JSON has not, as a string."""
    if not isinstance(value, NOT_IN_JSON):
        raise TypeError(f"{type(value).__name__} is no text")
    return str(value) if isinstance(value, Decimal) else value.isoformat()


def json_record(record: Mapping[str, Any]) -> bytes:
    """A record as JSON, on one line."""
    try:
        return json.dumps(record, ensure_ascii=False, default=plain).encode()
    except UnicodeEncodeError:  # a lone surrogate can only be written as the escape that it was read from
        return json.dumps(record, default=plain).encode()


def check_writable(record: Mapping[str, Any], place: Callable[[], str], path: object) -> None:
    """Refuse a record that cannot be written as JSON.

    Raises:
        UserError: It holds a value that the format has no words for.
    """
    for column, value in record.items():
        try:
            json.dumps(value, default=plain)
        except TypeError as error:
            raise UserError(
                f"the column {column!r} of {path} holds {shortened(value)} at {place()}, which cannot be written as "
                "text: take the column out."
            ) from error


class _SignalReceived(BaseException):
    """Not an `Exception`: nothing on the way up is to take it for an error."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def exit_on_signals(destination: Path, overwrite: bool) -> Iterator[None]:
    """Inside the block a signal ends the process with 128 + its number, and a sentence says what is kept."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise _SignalReceived(number)

    former = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _SignalReceived as received:
        num_rows = PartialFile.rows_in(destination)
        outcome = "nothing was written"
        if num_rows is not None:
            again = "--resume --overwrite" if overwrite else "--resume"
            folder = shlex.quote(str(PartialFile.folder_of(destination)))
            outcome = f"{num_rows:,} rows are kept in {folder}; the same command with {again} goes on"
        print(f"\nhfgpt: {signal.Signals(received.number).name}: {outcome}", file=sys.stderr)
        raise SystemExit(128 + received.number) from received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

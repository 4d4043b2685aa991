"""Local files: which kinds are known, how one is opened, and how what goes wrong with it is told to the user."""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from hfgpt.errors import UserError

__all__ = [
    "READABLE_SUFFIXES",
    "errors_of_the_user",
    "file_kind",
    "kind_name",
    "list_files",
    "open_bytes",
    "open_text",
    "shortened",
]

logger = logging.getLogger(__name__)

READABLE_SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")


def file_kind(path: Path) -> str | None:
    """The suffix that says how to read `path`, less a final `.gz`: `.txt`, `.jsonl`, ...; None if it is not known."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in READABLE_SUFFIXES else None


def kind_name(path: Path) -> str:
    """What `file_kind` says, as a word for a sentence: `csv`, `txt in gzip`."""
    return (file_kind(path) or "").removeprefix(".") + (" in gzip" if path.suffix.lower() == ".gz" else "")


def list_files(path: Path) -> list[Path]:
    """The readable files at or below `path`, sorted by their path; hidden ones and folders are passed over.

    Raises:
        UserError: the file is of no known kind, or the folder holds no such file.
    """
    if path.is_file():
        if file_kind(path) is None:
            raise UserError(
                f"{path} has an extension that is not known here; known are {', '.join(READABLE_SUFFIXES)}, "
                "each also with .gz."
            )
        return [path]
    below = sorted(file for file in path.rglob("*") if file.is_file())
    visible = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    readable = [file for file in visible if file_kind(file) is not None]
    if not readable:
        raise UserError(
            f"the folder {path} holds no readable file; known are {', '.join(READABLE_SUFFIXES)}, each also with .gz."
        )
    if len(readable) < len(visible):
        logger.warning("%s: passed over %d files of other kinds", path, len(visible) - len(readable))
    return readable


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if its name ends in `.gz`."""
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield raw


@contextmanager
def open_text(path: Path, *, newline: str) -> Iterator[io.TextIOWrapper]:
    """Open for the parsers: line ends untranslated, and a byte order mark, which is no content there, dropped."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as text:
        yield text


@contextmanager
def errors_of_the_user(path: Path) -> Iterator[None]:
    """Turn what the parsers raise into one sentence that names the file, and the line where it is known."""
    try:
        yield
    except GeneratorExit:  # first: a reader that is left open ends with the interpreter, when the names below are gone
        raise
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 {_locate_invalid_bytes(path)}; save it as UTF-8 and try again."
        ) from error
    except (pa.ArrowException, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as {kind_name(path)} ({error}); check that it is whole and of that kind."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its permissions."
        ) from error


def _locate_invalid_bytes(path: Path) -> str:
    offset = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"in line {number}, at byte {offset + error.start}"
            offset += len(line)
    return "throughout"


def shortened(value: Any, limit: int = 40) -> str:
    """A value as it can be shown in a sentence."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."

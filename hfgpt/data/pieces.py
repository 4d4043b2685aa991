"""Cutting a source into many small pieces of equal size: the shards of a stream.

`datasets` shares a stream out by its shards, and goes on at a shard without reading those before it. So pieces are cut
small where a part of a file can be read for itself: JSON Lines at any byte (a line belongs to the piece in which it
begins), parquet between row groups, and a folder between its files. What is packed by gzip, csv, tsv and JSON arrays
can only be read from the start of the file.

How a source is cut depends on its files and their sizes, and on nothing else.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path

from hfgpt.data.files import file_kind
from hfgpt.data.readers import Segment, parquet_row_groups

__all__ = ["PIECES_UNIT", "cut_files", "cut_range"]

logger = logging.getLogger(__name__)

PIECES_UNIT = 64
"""Larger sources have a multiple of so many pieces: as many lanes, the default, get equal shares."""

# What a resumed run reads again is half a piece for each lane, on average.
BYTES_PER_PIECE = 256 * 1024
# More would take `datasets` a second and more to share out.
MAXIMUM_PIECES = 64 * PIECES_UNIT
# A lane needs text for some blocks: a source of less than a mebibyte is cut into fewer pieces than the unit.
MINIMUM_BYTES_PER_PIECE = 16 * 1024


def cut_range(length: int, num_pieces: int) -> list[tuple[int, int]]:
    """Start and stop of `num_pieces` parts of `range(length)`, as even as may be; empty ones are left out."""
    bounds = [length * number // num_pieces for number in range(num_pieces + 1)]
    return [(start, stop) for start, stop in pairwise(bounds) if start < stop]


def cut_files(files: list[Segment]) -> list[list[Segment]]:
    """Cut whole files into pieces: equal ranges of the bytes of all of them together.

    A warning names the first of the files that can only be read from their start.

    Returns:
        For each piece that holds anything, the parts of files in it. All pieces together, in order, are the files.
    """
    sizes = [Path(file.path).stat().st_size for file in files]
    ranges = cut_range(sum(sizes), _num_pieces(sum(sizes)))
    starts = [start for start, _ in ranges]
    pieces: list[list[Segment]] = [[] for _ in ranges]
    begin = 0  # of the file, among the bytes of all
    for file, size in zip(files, sizes, strict=True):
        if size > 0:
            for number, part in _cut_file(file, size, begin, starts):
                pieces[number].append(part)
        begin += size
    _warn_of_whole_files([file for file in files if _kind(file) not in (".jsonl", ".parquet", ".txt")])
    return [piece for piece in pieces if piece]


def _kind(file: Segment) -> str | None:
    """What `file_kind` says, or that it is packed: then it has no parts."""
    return ".gz" if file.path.lower().endswith(".gz") else file_kind(Path(file.path))


def _cut_file(file: Segment, size: int, begin: int, starts: list[int]) -> Iterator[tuple[int, Segment]]:
    """The parts of one file and the pieces to which they belong, by where the parts begin among the bytes of all."""
    if _kind(file) == ".jsonl":
        last = bisect_right(starts, begin + size - 1) - 1
        for number in range(bisect_right(starts, begin) - 1, last + 1):
            stop = size if number == last else starts[number + 1] - begin
            yield number, file._replace(start=max(0, starts[number] - begin), stop=stop)
    elif _kind(file) == ".parquet":
        # As if each row took as many bytes of the file as any other.
        rows = parquet_row_groups(Path(file.path))
        positions = [begin + size * sum(rows[:group]) // max(1, sum(rows)) for group in range(len(rows))]
        groups_of_piece = groupby(range(len(rows)), key=lambda group: bisect_right(starts, positions[group]) - 1)
        for number, groups in groups_of_piece:
            first, *rest = groups
            yield number, file._replace(start=first, stop=(rest or [first])[-1] + 1)
    else:
        yield bisect_right(starts, begin) - 1, file


def _warn_of_whole_files(files: list[Segment]) -> None:
    if files:
        logger.warning(
            "%s%s can only be read from the start: a file is one piece, and a run that is resumed reads it again up to "
            "its place; jsonl and parquet that is not in gzip can be read in parts",
            files[0].path,
            f" and {len(files) - 1} other files" if len(files) > 1 else "",
        )


def _num_pieces(num_bytes: int) -> int:
    if num_bytes < PIECES_UNIT * MINIMUM_BYTES_PER_PIECE:
        return max(1, num_bytes // MINIMUM_BYTES_PER_PIECE)
    return min(MAXIMUM_PIECES, PIECES_UNIT * max(1, num_bytes // (PIECES_UNIT * BYTES_PER_PIECE)))

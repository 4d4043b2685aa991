"""The one door for text: `load_text` makes documents of a built-in name, a local file or folder, or a Hub id."""

import difflib
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import numpy as np
import pyarrow.compute as pc
from datasets.fingerprint import Hasher
from numpy.typing import NDArray

from hfgpt.data.exercises import DEFAULT_NUM_STORIES_AND_EXERCISES, generate_stories_and_exercises
from hfgpt.data.files import file_kind, list_files
from hfgpt.data.messages import (
    DEFAULT_NUM_MESSAGES,
    DEFAULT_NUM_UNLABELLED_MESSAGES,
    generate_message_texts,
    generate_unlabelled_messages,
)
from hfgpt.data.pieces import PIECES_UNIT, cut_files, cut_range
from hfgpt.data.readers import Segment, choose_text_column, read_documents, text_column_of
from hfgpt.data.stories import DEFAULT_NUM_STORIES, generate_stories
from hfgpt.errors import UserError

__all__ = [
    "BUILTIN_PREFIX",
    "BUILTIN_SOURCES",
    "READER_VERSION",
    "BuiltinSource",
    "errors_of_the_hub",
    "find_source",
    "is_string",
    "load_from_hub",
    "load_text",
    "prepare_dataset",
    "warn_of_lone_surrogates",
]

logger = logging.getLogger(__name__)


class BuiltinSource(NamedTuple):
    """Generated documents: `generate(seed, count, first=NUMBER)`, and how many of them the source has."""

    generate: Callable[..., Iterator[str]]
    length: int


BUILTIN_PREFIX = "builtin:"
BUILTIN_SOURCES = {
    "stories": BuiltinSource(generate_stories, DEFAULT_NUM_STORIES),
    "stories-and-exercises": BuiltinSource(generate_stories_and_exercises, DEFAULT_NUM_STORIES_AND_EXERCISES),
    "messages": BuiltinSource(generate_message_texts, DEFAULT_NUM_MESSAGES),
    "unlabelled-messages": BuiltinSource(generate_unlabelled_messages, DEFAULT_NUM_UNLABELLED_MESSAGES),
}

# Part of the cache key of what was read from local files: raise it when reading changes.
READER_VERSION = 1

# 64-bit offsets: one text, or a batch of long ones, may be larger than 2 GiB.
TEXT_FEATURES = datasets.Features({"text": datasets.Value("large_string")})
ROW_FEATURES = datasets.Features({**TEXT_FEATURES, "lone_surrogates": datasets.Value("int64")})

# Documents of a stream that are read ahead of the one that is asked for.
STREAM_BATCH_SIZE = 32
# A Hub data set of fewer shards is cut between the row groups of its files where these are parquet. That takes one
# look at each file, which is why data sets of many files stay as they are.
FEWEST_HUB_SHARDS = 4 * PIECES_UNIT

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def load_text(
    source: str,
    *,
    split: str = "train",
    text_column: str | None = None,
    streaming: bool = False,
    name: str | None = None,
    revision: str | None = None,
    cache_dir: str | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """Load documents from anywhere as a data set with exactly one column, `text`.

    Texts are what the source holds, byte for byte in UTF-8. Lone surrogates are replaced by U+FFFD, and documents
    without text (empty, null, only white space) are dropped; a warning says how many.

    Args:
        source: `builtin:NAME`; a local file (.txt, .jsonl, .json, .csv, .tsv, .parquet, each also with .gz) or a folder
            of such files, read in sorted order; else a Hub id such as `org/name`. A .txt file is one document.
        split: the split of a Hub data set, in `datasets`' syntax (`train[:10%]`); everything else has only `train`.
        text_column: default: `text`, else the only column of strings.
        streaming: return an `IterableDataset` that reads as it is iterated. Its shards are small pieces of about equal
            size, in order, wherever a part of the source can be read for itself (see `hfgpt.data.pieces`); those of a
            Hub data set are its files, or their row groups if there are few parquet files.
        name: configuration of a Hub data set.
        revision: branch, tag or commit of a Hub data set.
        cache_dir: where `datasets` keeps what it prepared; default: its own cache, never the folder of the data.

    Raises:
        UserError: the source, column or split is not there, or the content is not text.
    """
    kind = find_source(source, split=split, name=name, revision=revision)
    if kind == "builtin":
        dataset = _load_builtin(source.removeprefix(BUILTIN_PREFIX), text_column, streaming, cache_dir)
    elif kind == "local":
        dataset = _load_local(Path(source).expanduser(), text_column, streaming, cache_dir)
    else:
        dataset = load_from_hub(source, split, streaming, name, revision, cache_dir)
        dataset = _select_text(dataset, text_column, source)
    if isinstance(dataset, datasets.Dataset):
        return _clean(dataset, source)
    return _clean_stream(dataset, source)


def find_source(
    source: str, *, split: str, name: str | None, revision: str | None
) -> Literal["builtin", "local", "hub"]:
    """Where `source` is to be found, before anything is read.

    Raises:
        UserError: it is nowhere, or options of the Hub are given for what is not on the Hub.
    """
    if not source.strip():  # as a path, it would be the folder that one stands in
        raise UserError("the source is empty: give a built-in name, a file, a folder or a Hub id.")
    path = Path(source).expanduser()
    if source.startswith(BUILTIN_PREFIX) or path.exists():
        _refuse_hub_options(source, split=split, name=name, revision=revision)
        return "builtin" if source.startswith(BUILTIN_PREFIX) else "local"
    if not _HUB_ID.fullmatch(source) or file_kind(path) is not None:
        raise UserError(_missing_path_message(path))
    return "hub"


def _load_builtin(
    name: str, text_column: str | None, streaming: bool, cache_dir: str | None
) -> datasets.Dataset | datasets.IterableDataset:
    if name not in BUILTIN_SOURCES:
        known = ", ".join(f"{BUILTIN_PREFIX}{known_name}" for known_name in BUILTIN_SOURCES)
        raise UserError(f"there is no built-in data set {name!r}; there is {known}.")
    if text_column not in (None, "text"):
        raise UserError(
            f"{BUILTIN_PREFIX}{name} has only the column 'text', not {text_column!r}; leave text_column out."
        )
    length = BUILTIN_SOURCES[name].length
    if streaming:
        pieces = cut_range(length, PIECES_UNIT)
        return datasets.IterableDataset.from_generator(
            _builtin_rows, gen_kwargs={"name": name, "pieces": pieces}, features=ROW_FEATURES
        )
    # Held in memory: made anew in less than a second, so that no cache can be older than the generator.
    return datasets.Dataset.from_list(list(_builtin_rows(name, [(0, length)])), features=ROW_FEATURES)


def _builtin_rows(name: str, pieces: list[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    for start, stop in pieces:
        for text in BUILTIN_SOURCES[name].generate(0, stop - start, first=start):
            yield {"text": text, "lone_surrogates": 0}


def _load_local(
    path: Path, text_column: str | None, streaming: bool, cache_dir: str | None
) -> datasets.Dataset | datasets.IterableDataset:
    files = list_files(path)
    if text_column not in (None, "text") and all(file_kind(file) == ".txt" for file in files):
        raise UserError(f"{path} is plain text and has no column {text_column!r}; leave text_column out.")
    # Absolute names, so that a cached or streamed data set does not depend on the working directory.
    whole_files = [Segment(str(file.resolve()), text_column_of(file, text_column)) for file in files]
    if streaming:
        _require_documents(any(row["text"].strip() for row in read_documents(whole_files)), str(path))
        stream = datasets.IterableDataset.from_generator(
            _read_pieces, gen_kwargs={"pieces": cut_files(whole_files)}, features=ROW_FEATURES
        )
        # What tells this stream from another one; the folder may be moved.
        stream.info.download_checksums = {
            str(file.relative_to(path) if file != path else file.name): {"num_bytes": file.stat().st_size}
            for file in files
        }
        return stream
    return prepare_dataset(
        read_documents, [segment.path for segment in whole_files], {"segments": whole_files}, ROW_FEATURES, cache_dir
    )


def prepare_dataset(
    generate: Callable[..., Iterator[dict[str, Any]]],
    paths: list[str],
    arguments: dict[str, Any],
    features: datasets.Features,
    cache_dir: str | None,
) -> datasets.Dataset:
    """The rows of `generate(**arguments)`, from `datasets`' cache where the files at `paths` are what they were.

    Raises:
        UserError: what `generate` raises, or there are no rows.
    """
    states = [(path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in paths]
    try:
        return datasets.Dataset.from_generator(
            generate,
            gen_kwargs=arguments,
            features=features,
            cache_dir=cache_dir,
            fingerprint=Hasher.hash((READER_VERSION, generate.__name__, arguments, states)),
        )
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    except ValueError:
        # `datasets` can write a data set without rows, but not read it.
        _require_documents(next(generate(**arguments), None) is not None, paths[0] if len(paths) == 1 else "the folder")
        raise


def _read_pieces(pieces: list[list[Segment]]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        yield from read_documents(piece)


def load_from_hub(
    source: str, split: str, streaming: bool, name: str | None, revision: str | None, cache_dir: str | None
) -> datasets.Dataset | datasets.IterableDataset:
    """A data set of the Hub with all its columns.

    Raises:
        UserError: it, its configuration or its split is not there, or the Hub is not.
    """
    if source in BUILTIN_SOURCES:
        raise UserError(
            f"{source!r} is neither a file nor org/name; for the built-in data say {BUILTIN_PREFIX}{source}."
        )
    with errors_of_the_hub(source):
        dataset = datasets.load_dataset(
            source, name=name, split=split, streaming=streaming, revision=revision, cache_dir=cache_dir
        )
        if streaming and dataset.num_shards < FEWEST_HUB_SHARDS:
            dataset = dataset.reshard()
    return dataset


@contextmanager
def errors_of_the_hub(source: str) -> Iterator[None]:
    """Turn what `datasets` raises about a data set of the Hub into one sentence."""
    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        # No connection and the Hub's HTTP errors are OSErrors; a wrong configuration or split is a ValueError.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{source!r} is no local path here, and it could not be loaded from the Hub: {reason.rstrip('.')}; "
            "if a local file was meant, check its path, else the id, the split, the configuration and the connection."
        ) from error


def _select_text(
    dataset: datasets.Dataset | datasets.IterableDataset, text_column: str | None, source: str
) -> datasets.Dataset | datasets.IterableDataset:
    if dataset.features is None:
        first: dict[str, Any] = next(iter(dataset), {})
        columns = {column: isinstance(value, str) for column, value in first.items()}
    else:
        columns = {column: is_string(feature) for column, feature in dataset.features.items()}
    column = choose_text_column(columns, text_column, where=source)
    dataset = dataset.select_columns([column])
    return dataset if column == "text" else dataset.rename_column(column, "text")


def is_string(feature: Any) -> bool:
    """Whether a column of a data set holds strings."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _clean(dataset: datasets.Dataset, source: str) -> datasets.Dataset:
    """Report the lone surrogates, drop the documents without text, and leave the column `text` alone."""
    if "lone_surrogates" in dataset.column_names:
        warn_of_lone_surrogates(pc.sum(dataset.data.column("lone_surrogates")).as_py() or 0, source)
        dataset = dataset.select_columns(["text"])
    has_text = np.concatenate([np.empty(0, dtype=bool), *_rows_with_text(dataset)])
    num_dropped = int(len(has_text) - has_text.sum())
    _require_documents(num_dropped < len(has_text), source)
    if num_dropped:
        logger.warning("%s: dropped %d of %d documents, which have no text", source, num_dropped, len(has_text))
        dataset = dataset.select(np.flatnonzero(has_text))
    return dataset


def _rows_with_text(dataset: datasets.Dataset, rows_per_batch: int = 1000) -> Iterator[NDArray[np.bool_]]:
    """Whether each row has a text that is more than white space, batch by batch."""
    for table in dataset.with_format("arrow").iter(batch_size=rows_per_batch):
        lengths = pc.binary_length(pc.utf8_trim_whitespace(table["text"]))
        yield pc.fill_null(pc.greater(lengths, 0), False).to_numpy()


def _clean_stream(stream: datasets.IterableDataset, source: str) -> datasets.IterableDataset:
    cleaner = _StreamCleaner(source)
    columns = ["text"] if not stream.column_names else list(stream.column_names)
    return stream.map(
        cleaner, batched=True, batch_size=STREAM_BATCH_SIZE, remove_columns=columns, features=TEXT_FEATURES
    )


class _StreamCleaner:
    """What `_clean` does, batch by batch; each warning comes once, when the first such document passes by."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.num_dropped = 0
        self.num_lone_surrogates = 0

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[str]]:
        texts = [text for text in batch["text"] if text is not None and text.strip()]
        dropped = len(batch["text"]) - len(texts)
        lone_surrogates = sum(batch.get("lone_surrogates", []))
        if dropped and not self.num_dropped:
            logger.warning("%s: documents without text are dropped (%d in the first such batch)", self.source, dropped)
        if lone_surrogates and not self.num_lone_surrogates:
            warn_of_lone_surrogates(lone_surrogates, f"{self.source}, first batch that has any")
        self.num_dropped += dropped
        self.num_lone_surrogates += lone_surrogates
        return {"text": texts}


def warn_of_lone_surrogates(count: int, source: str) -> None:
    """Say how many were replaced, if any were."""
    if count:
        logger.warning("%s: replaced %d lone surrogates, which are not valid Unicode, by U+FFFD", source, count)


def _require_documents(there_are_some: bool, source: str) -> None:
    if not there_are_some:
        raise UserError(f"{source} holds no document with text; give a source that is not empty.")


def _refuse_hub_options(source: str, *, split: str, name: str | None, revision: str | None) -> None:
    given = [option for option, value in (("name", name), ("revision", revision)) if value is not None]
    if split != "train":
        given.append(f"split={split!r}")
    if given:
        raise UserError(f"{source} is not on the Hub and has one split, 'train'; leave {' and '.join(given)} out.")


def _missing_path_message(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no file or folder {path}, and not even the folder {path.parent}; check the path."
    neighbours = [neighbour.name for neighbour in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, neighbours, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "check the path."
    return f"there is no file or folder {path}; {hint}"

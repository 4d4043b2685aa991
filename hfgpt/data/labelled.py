"""The door for labelled text: `load_labelled` makes texts with class labels of what `load_text` reads."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hfgpt.bulk_encoding import replace_lone_surrogates
from hfgpt.data.class_labels import class_name, encode_labels
from hfgpt.data.files import errors_of_the_user, file_kind, list_files, open_bytes, shortened
from hfgpt.data.messages import MESSAGE_LABELS, generate_messages
from hfgpt.data.readers import checked_text, choose_text_column, inspect_columns, read_records
from hfgpt.data.sources import (
    BUILTIN_PREFIX,
    find_source,
    is_string,
    load_from_hub,
    prepare_dataset,
    warn_of_lone_surrogates,
)
from hfgpt.data.tables import numbered_columns, read_rows
from hfgpt.errors import UserError

__all__ = ["DEFAULT_LABEL_COLUMNS", "load_labelled", "parquet_class_names"]

logger = logging.getLogger(__name__)

LABELLED_BUILTIN_SOURCES = ("messages",)
DEFAULT_LABEL_COLUMNS = ("label", "labels", "class", "category", "target")
"""Where the labels are looked for, in this order, if no column is named."""


class _Columns(NamedTuple):
    text: str
    label: str
    text_pair: str | None


class _LabelledFile(NamedTuple):
    """A file, the columns that are read from it, and how its labels are to be understood."""

    path: str
    columns: _Columns
    header: bool
    class_names: tuple[str, ...] | None


def load_labelled(
    source: str,
    *,
    split: str = "train",
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    header: bool | None = None,
    name: str | None = None,
    revision: str | None = None,
    cache_dir: str | None = None,
) -> datasets.Dataset:
    """Load texts with class labels from anywhere.

    Texts are what the source holds, as `load_text` gives them; but those without text are kept here, a missing one as
    the empty string, and `split_labelled` says what becomes of them.

    Labels are strings, whole numbers or booleans, or what a Hub data set or a parquet file calls a `ClassLabel`. White
    space around a string is no part of it. The classes are the different strings in sorted order, or the numbers in
    theirs, under their own names ("0", "1", ...), or those of the `ClassLabel`.

    Args:
        source: `builtin:messages`; a local file (.jsonl, .json, .csv, .tsv, .parquet, each also with .gz) or a folder
            of such files, read in sorted order; else a Hub id.
        split: the split of a Hub data set, in `datasets`' syntax; everything else has only `train`.
        text_column: default: `text`, else the only column of strings beside the label.
        text_pair_column: the second of two texts that are classified together; default: there is none.
        label_column: default: the first of `DEFAULT_LABEL_COLUMNS` that is there, else the only column that is left.
        label_names: the classes in the order of their ids: exactly the strings that occur as labels (or more), or
            names for the numbers 0, 1, ....
        header: whether the first row of a csv or tsv file names its columns; without a header they are `column_1`,
            `column_2`, .... Default: the file has a header if its first row holds a column's name, one that was asked
            for or one of the defaults. Where nothing was asked for and there are two columns, labels are the column
            that has fewer different values, and the file has no header if the label of the first row stands in a later
            row, too. A warning says so when a file is taken to have none.
        name: configuration of a Hub data set.
        revision: branch, tag or commit of a Hub data set.
        cache_dir: where `datasets` keeps what it prepared; default: its own cache.

    Returns:
        A data set with the columns `text` (large_string), `text_pair` (likewise, if asked for) and `label`
        (`ClassLabel`).

    Raises:
        UserError: the source, column or split is not there, the content is not text, a label is missing, or what is
            named as label is a quantity or free text and no class.
    """
    kind = find_source(source, split=split, name=name, revision=revision)
    if header is not None and kind != "local":
        raise UserError(f"{source} is no csv or tsv file and names its columns itself; leave header out.")
    asked_for = {"text_column": text_column, "text_pair_column": text_pair_column, "label_column": label_column}
    dataset: datasets.Dataset
    class_names: tuple[str, ...] | None
    if kind == "builtin":
        dataset, class_names = _load_builtin(source.removeprefix(BUILTIN_PREFIX), asked_for)
    elif kind == "local":
        dataset, class_names = _load_local(Path(source).expanduser(), asked_for, header, cache_dir)
    else:
        hub_dataset = load_from_hub(source, split, False, name, revision, cache_dir)
        dataset, class_names = _from_hub(hub_dataset, asked_for, source)
    warn_of_lone_surrogates(pc.sum(dataset.data.column("lone_surrogates")).as_py() or 0, source)
    return encode_labels(dataset.remove_columns("lone_surrogates"), class_names, label_names, source)


def _features(text_pair: bool) -> datasets.Features:
    text = datasets.Value("large_string")
    pair = {"text_pair": text} if text_pair else {}
    return datasets.Features(
        {"text": text, **pair, "label": datasets.Value("string"), "lone_surrogates": datasets.Value("int64")}
    )


def _load_builtin(name: str, asked_for: dict[str, str | None]) -> tuple[datasets.Dataset, tuple[str, ...]]:
    if name not in LABELLED_BUILTIN_SOURCES:
        known = ", ".join(f"{BUILTIN_PREFIX}{known_name}" for known_name in LABELLED_BUILTIN_SOURCES)
        raise UserError(f"there is no built-in labelled data set {name!r}; there is {known}.")
    _choose_columns({"text": True, "label": True}, asked_for, where=f"{BUILTIN_PREFIX}{name}")
    rows = [{"text": text, "label": label, "lone_surrogates": 0} for text, label, _ in generate_messages()]
    return datasets.Dataset.from_list(rows, features=_features(text_pair=False)), MESSAGE_LABELS


def _load_local(
    path: Path, asked_for: dict[str, str | None], header: bool | None, cache_dir: str | None
) -> tuple[datasets.Dataset, tuple[str, ...] | None]:
    files = [_look_into(file, asked_for, header) for file in list_files(path)]
    present = [file for file in files if file is not None]
    if not present:
        raise UserError(f"{path} holds no record; give a source that is not empty.")
    names = {file.class_names for file in present}
    if len(names) > 1:
        raise UserError(
            f"the files of {path} disagree on the names of the classes ({' and '.join(map(str, names))}); "
            "write them with the same ones."
        )
    dataset = prepare_dataset(
        _read_labelled,
        [file.path for file in present],
        {"files": present},
        _features(text_pair=asked_for["text_pair_column"] is not None),
        cache_dir,
    )
    return dataset, names.pop()


def _look_into(path: Path, asked_for: dict[str, str | None], header: bool | None) -> _LabelledFile | None:
    """What is to be read from a file; None if it has neither columns nor rows."""
    path = path.resolve()
    kind = file_kind(path)
    if kind == ".txt":
        raise UserError(f"{path} is plain text and has no labels; give a csv, tsv, jsonl, json or parquet file.")
    if header is not None and kind not in (".csv", ".tsv"):
        raise UserError(f"{path} is no csv or tsv file and names its columns itself; leave header out.")
    with errors_of_the_user(path):
        if kind in (".csv", ".tsv"):
            header, asked_for = _decide_header(path, asked_for, header)
        columns = inspect_columns(path, header=header is not False)
        class_names = parquet_class_names(path) if kind == ".parquet" else {}
    if not columns:
        return None
    chosen = _choose_columns(columns, asked_for, where=str(path))
    return _LabelledFile(str(path), chosen, header is not False, class_names.get(chosen.label))


def parquet_class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """The names of the classes of each column that `datasets` has written as a `ClassLabel`."""
    with open_bytes(path) as file:
        schema = pq.ParquetFile(file).schema_arrow
    features = datasets.Features.from_arrow_schema(schema)
    return {
        column: tuple(feature.names) for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)
    }


def _decide_header(
    path: Path, asked_for: dict[str, str | None], header: bool | None
) -> tuple[bool, dict[str, str | None]]:
    """Whether a table has a header, and the columns asked for, with those that its contents show (`load_labelled`)."""
    _, first = next(read_rows(path), (0, list[str]()))
    wanted = [column for column in asked_for.values() if column is not None]
    numbered = numbered_columns(len(first))
    if header or not first:
        return True, asked_for
    if header is None and any(column in first for column in wanted or ("text", *DEFAULT_LABEL_COLUMNS)):
        return True, asked_for
    if wanted:
        has_header = header is None and not set(wanted) <= set(numbered)
        return _say_header(path, has_header, header), asked_for
    if len(first) != 2:
        return _say_header(path, header is None, header), asked_for
    rows = [row for _, row in read_rows(path)]
    num_values = [len(set(column)) for column in zip(*rows, strict=True)]
    if num_values[0] == num_values[1]:
        return _say_header(path, header is None, header), asked_for
    label = int(num_values[1] < num_values[0])
    recurs = any(row[label] == first[label] for row in rows[1:])
    if header is None and not recurs:
        return True, asked_for
    return _say_header(path, False, header), {
        **asked_for,
        "label_column": numbered[label],
        "text_column": numbered[1 - label],
    }


def _say_header(path: Path, has_header: bool, header: bool | None) -> bool:
    if header is None and not has_header:
        logger.warning(
            "%s: the first row holds no name of a column, so it is taken as the first record; header=True or "
            "header=False settles it",
            path,
        )
    return has_header


def _choose_columns(columns: dict[str, bool], asked_for: dict[str, str | None], *, where: str) -> _Columns:
    """Choose among `columns` (name: whether it holds strings) by the rule of `load_labelled`."""
    names = ", ".join(shortened(column).strip("'\"") for column in columns)
    for option, column in asked_for.items():
        if column is not None and column not in columns:
            raise UserError(f"{where} has no column {column!r}; its columns are {names}: name one of them as {option}.")
    wanted = [column for column in asked_for.values() if column is not None]
    if len(set(wanted)) < len(wanted):
        raise UserError(f"one column of {where} is asked for as two ({', '.join(wanted)}); text and label are columns "
                        "of their own.")  # fmt: skip
    text, pair, label = asked_for["text_column"], asked_for["text_pair_column"], asked_for["label_column"]
    if pair is not None and not columns[pair]:
        raise UserError(
            f"the column {pair!r} of {where} does not hold strings; name another text_pair_column among {names}."
        )
    left = [column for column in columns if column not in wanted]
    if label is None:
        label = next((column for column in DEFAULT_LABEL_COLUMNS if column in left), None)
    among = {column: holds for column, holds in columns.items() if column not in (pair, label)}
    if not among:
        raise UserError(f"{where} has no column of text beside {names}; text and label are columns of their own.")
    text = choose_text_column(among, text, where=where)
    if label is None:
        left = [column for column in left if column != text]
        if len(left) != 1:
            raise UserError(
                f"{where} has no column {' or '.join(map(repr, DEFAULT_LABEL_COLUMNS))} and {len(left) or 'no'} "
                f"columns beside the text; say which of its columns is the label with label_column: {names}."
            )
        label = left[0]
    return _Columns(text, label, pair)


def _read_labelled(files: list[_LabelledFile]) -> Iterator[dict[str, Any]]:
    for file in files:
        path, (text_column, label_column, pair_column) = Path(file.path), file.columns
        columns = {"text": text_column} | ({"text_pair": pair_column} if pair_column else {})
        with errors_of_the_user(path):
            for place, (label, *texts) in read_records(path, [label_column, *columns.values()], header=file.header):
                row: dict[str, Any] = {
                    "label": class_name(label, place, file.class_names, column=label_column, where=file.path)
                }
                lone_surrogates = 0
                for (name, column), text in zip(columns.items(), texts, strict=True):
                    row[name], replaced = replace_lone_surrogates(checked_text(text, place, path=path, column=column))
                    lone_surrogates += replaced
                yield row | {"lone_surrogates": lone_surrogates}


def _from_hub(
    dataset: datasets.Dataset, asked_for: dict[str, str | None], source: str
) -> tuple[datasets.Dataset, tuple[str, ...] | None]:
    columns = {column: is_string(feature) for column, feature in dataset.features.items()}
    chosen = _choose_columns(columns, asked_for, where=source)
    feature = dataset.features[chosen.label]
    class_names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
    rows = dataset.map(
        _label_hub_rows,
        batched=True,
        with_indices=True,
        remove_columns=dataset.column_names,
        features=_features(text_pair=chosen.text_pair is not None),
        fn_kwargs={"columns": chosen, "class_names": class_names, "source": source},
        desc="Reading labels",
    )
    return rows, class_names


def _label_hub_rows(
    batch: dict[str, list[Any]], rows: list[int], *, columns: _Columns, class_names: Sequence[str] | None, source: str
) -> dict[str, list[Any]]:
    labels = [
        class_name(value, partial("row {}".format, row + 1), class_names, column=columns.label, where=source)
        for value, row in zip(batch[columns.label], rows, strict=True)
    ]
    texts = {"text": columns.text} | ({"text_pair": columns.text_pair} if columns.text_pair else {})
    return {
        **{name: [text or "" for text in batch[column]] for name, column in texts.items()},
        "label": labels,
        "lone_surrogates": [0] * len(labels),
    }

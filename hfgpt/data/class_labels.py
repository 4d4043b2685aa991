"""From what a record is labelled with to class ids: which values are labels, and what the classes are called."""

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hfgpt.bulk_encoding import replace_lone_surrogates
from hfgpt.data.files import shortened
from hfgpt.errors import UserError

__all__ = ["WHOLE_NUMBER", "class_name", "encode_labels"]

logger = logging.getLogger(__name__)

# More different values than this are no classes; nor are more than half as many as there are rows, unless few.
MAXIMUM_CLASSES = 1000
FEW_CLASSES = 10
MANY_NUMBERS = 20  # from here on it is said that numbers are taken for classes

WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.0*)?")  # not 007, which is a code
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def class_name(
    value: Any, place: Callable[[], str], class_names: Sequence[str] | None, *, column: str, where: str
) -> str:
    """The name of the class that one record is labelled with.

    Args:
        value: a string, number or boolean; an index into `class_names` if there are any.
        place: says which record it is.
        class_names: those of a `ClassLabel`.
        column: that of the labels.
        where: the file or data set.

    Raises:
        UserError: the label is missing, or of a kind that names no class.
    """
    # `datasets` writes -1 where a `ClassLabel` is not known; NaN is the only value that differs from itself.
    is_missing = value is None or value != value or (class_names is not None and value == -1)
    if is_missing or (isinstance(value, str) and not value.strip()):
        raise UserError(f"{place()} of {where} has no label in the column {column!r}; add it or take the record out.")
    if class_names is not None and isinstance(value, int) and 0 <= value < len(class_names):
        return class_names[value]
    if isinstance(value, str) and len(value.strip().splitlines()) == 1:
        return replace_lone_surrogates(value.strip())[0]
    if isinstance(value, bool | int | float) and class_names is None:
        return str(value)
    raise UserError(
        f"the column {column!r} of {where} holds {shortened(value)} at {place()}, which is no label; "
        "labels are strings of one line, whole numbers or booleans: mend that record or name another label_column."
    )


def encode_labels(
    dataset: datasets.Dataset,
    class_names: tuple[str, ...] | None,
    label_names: Sequence[str] | None,
    source: str,
) -> datasets.Dataset:
    """Make a `ClassLabel` of the column `label`, which holds names.

    Args:
        dataset: without an indices mapping.
        class_names: the classes in order; None: those that occur, sorted, numbers by size.
        label_names: what the user says of them, as in `load_labelled`.
        source: for the messages.

    Raises:
        UserError: the labels are quantities or free text, or `label_names` does not fit them.
    """
    values = dataset.data.column("label")
    found = pc.unique(values).to_pylist()
    name_of = {value: value for value in found}
    if class_names is None:
        are_numbers = all(WHOLE_NUMBER.fullmatch(value) for value in found)
        _refuse_quantities(found, are_numbers, len(dataset), source)
        if are_numbers:
            name_of = {value: value.split(".")[0] for value in found}
        class_names = tuple(sorted(set(name_of.values()), key=int if are_numbers else str))
    if label_names is not None:
        given = tuple(label_names)
        name_of = {value: _given_name(name, class_names, given, source) for value, name in name_of.items()}
        class_names = given
    ids = pa.array([class_names.index(name_of[value]) for value in found], pa.int64())
    rows = ids.take(pc.index_in(values, value_set=pa.array(found, values.type)))
    feature = datasets.ClassLabel(names=list(class_names))
    return dataset.remove_columns("label").add_column("label", rows.to_numpy(), feature=feature)


def _refuse_quantities(found: list[str], are_numbers: bool, num_rows: int, source: str) -> None:
    if not are_numbers and all(_NUMBER.fullmatch(value) for value in found):
        part = next((value for value in found if not float(value).is_integer()), None)
        if part is not None:
            raise UserError(
                f"the labels of {source} are quantities ({part} among them) and no classes; "
                "name a column of classes as label_column, or put the quantities into classes first."
            )
    if len(found) > MAXIMUM_CLASSES or (len(found) > FEW_CLASSES and 2 * len(found) > num_rows):
        kind = "quantities" if are_numbers else "texts"
        raise UserError(
            f"the label column of {source} has {len(found)} different values in {num_rows} rows: {kind}, "
            "not classes; name a column of classes as label_column."
        )
    if are_numbers and len(found) > MANY_NUMBERS:
        logger.warning(
            "The labels of %s are %d different numbers, each of which is taken for a class: if they are quantities, "
            "name a column of classes as label_column.",
            source,
            len(found),
        )


def _given_name(name: str, class_names: tuple[str, ...], given: tuple[str, ...], source: str) -> str:
    if len(set(given)) < len(given):
        raise UserError(f"label_names has a name twice ({', '.join(given)}); give each class its own.")
    if name in given:
        return name
    # Names for numbers: only where no label is among the given names.
    if not set(class_names) & set(given) and WHOLE_NUMBER.fullmatch(name) and 0 <= int(name) < len(given):
        return given[int(name)]
    raise UserError(
        f"{source} has the label {name!r}, which is not among the label_names {', '.join(given)}; "
        "name every class that occurs."
    )

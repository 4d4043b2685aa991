"""What is to be inspected: any source, through the door of its kind, as examples of one shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import datasets

from hfgpt.data.conversation_forms import Form, Message, forms_that_fit
from hfgpt.data.conversation_split import answer_of, prompt_of, rows_in_order
from hfgpt.data.conversations import BUILTIN_CONVERSATIONS, load_conversations
from hfgpt.data.files import errors_of_the_user, file_kind, list_files
from hfgpt.data.labelled import DEFAULT_LABEL_COLUMNS, LABELLED_BUILTIN_SOURCES, load_labelled
from hfgpt.data.readers import inspect_columns
from hfgpt.data.sources import (
    BUILTIN_PREFIX,
    BUILTIN_SOURCES,
    errors_of_the_hub,
    find_source,
    is_string,
    load_from_hub,
    load_text,
)
from hfgpt.errors import UserError

__all__ = ["Example", "Kind", "LoadedSplits", "SourceOptions", "load_splits"]

Kind = Literal["text", "labelled", "conversations"]


class Example(NamedTuple):
    """A text, a labelled text or a conversation.

    Attributes:
        prompt: the text; of a conversation all that stands before its last answer.
        answer: the name of the class; of a conversation the last answer, empty if there is none; None for a text.
        row: its number in the split, from 1 on.
        messages: of a conversation.
    """

    prompt: str
    answer: str | None
    row: int
    messages: Sequence[Message] | None = None


class LoadedSplits(NamedTuple):
    """Examples by split, and what was recognised and read, in lines to print."""

    kind: Kind
    splits: dict[str, list[Example]]
    description: list[str]


@dataclass(frozen=True)
class SourceOptions:
    """How a source is to be read; None: as its door finds out by itself."""

    kind: Kind | None = None
    form: Form | None = None
    text_column: str | None = None
    label_column: str | None = None
    name: str | None = None
    revision: str | None = None


def load_splits(
    source: str,
    options: SourceOptions,
    *,
    splits: Sequence[str] = (),
    other_sources: Mapping[str, str] | None = None,
    validation_fraction: float | None = None,
    test_fraction: float | None = None,
) -> LoadedSplits:
    """Read the splits of a source.

    Args:
        source: as `load_text`, `load_labelled` and `load_conversations` know it.
        options: how it is to be read.
        splits: of a Hub data set or a built-in one; default: all that it has.
        other_sources: sources of splits that stand elsewhere, by the names of these.
        validation_fraction: cut the source, which has one split, in its order, as the book does (`rows_in_order`).
        test_fraction: likewise; it may be only one of the two.

    Raises:
        UserError: a source cannot be read, or there is more than one split to be cut.
    """
    location = find_source(source, split="train", name=options.name, revision=options.revision)
    known = _splits_of(source, location, options)
    if strange := [split for split in splits if split.partition("[")[0] not in known]:
        raise UserError(f"{source} has no split {strange[0]!r}; its splits are {', '.join(known)}.")
    kind = options.kind or _recognise_kind(source, location, known[0], options)
    loaded: dict[str, list[Example]] = {}
    description: list[str] = []
    for split in splits or known:
        loaded[split], lines = _load(source, split, kind, options)
        description += [line for line in lines if line not in description]
    if validation_fraction or test_fraction:
        loaded = _cut(source, loaded, validation_fraction or 0.0, test_fraction or 0.0)
    for name, other in (other_sources or {}).items():
        if name in loaded:
            raise UserError(f"there are two sources of the split {name!r}, {source} and {other}; leave one out.")
        loaded[name], lines = _load(other, "train", kind, replace(options, name=None, revision=None))
        description += [line for line in lines if line not in description]
    return LoadedSplits(kind, loaded, description)


def _splits_of(source: str, location: str, options: SourceOptions) -> list[str]:
    if location == "hub":
        with errors_of_the_hub(source):
            return list(datasets.get_dataset_split_names(source, options.name, revision=options.revision))
    return list(BUILTIN_CONVERSATIONS.get(source.removeprefix(BUILTIN_PREFIX), ["train"]))


def _cut(
    source: str, loaded: Mapping[str, list[Example]], validation_fraction: float, test_fraction: float
) -> dict[str, list[Example]]:
    if len(loaded) > 1:
        raise UserError(f"{source} has the splits {', '.join(loaded)} already; leave the fractions out.")
    if min(validation_fraction, test_fraction) < 0 or validation_fraction + test_fraction >= 1:
        raise UserError(
            f"the fractions {validation_fraction} for validation and {test_fraction} for test leave nothing for "
            "training; give positive ones with a sum below 1."
        )
    (examples,) = loaded.values()
    rows = rows_in_order(len(examples), validation_fraction=validation_fraction, test_fraction=test_fraction)
    return {name: examples[part.start : part.stop] for name, part in rows.items() if len(part)}


def _recognise_kind(source: str, location: str, split: str, options: SourceOptions) -> Kind:
    """By the columns of the source, or its name if it is built in."""
    if options.form is not None:
        return "conversations"
    if options.label_column is not None:
        return "labelled"
    if location == "builtin":
        name = source.removeprefix(BUILTIN_PREFIX)
        if name in BUILTIN_CONVERSATIONS:
            return "conversations"
        if name not in (*LABELLED_BUILTIN_SOURCES, *BUILTIN_SOURCES):
            every = dict.fromkeys((*BUILTIN_SOURCES, *LABELLED_BUILTIN_SOURCES, *BUILTIN_CONVERSATIONS))
            known = ", ".join(f"{BUILTIN_PREFIX}{known_name}" for known_name in every)
            raise UserError(f"there is no built-in data set {name!r}; there is {known}.")
        return "labelled" if name in LABELLED_BUILTIN_SOURCES else "text"
    is_table = False
    if location == "hub":
        features = load_from_hub(source, split, False, options.name, options.revision, None).features
        columns = {column: is_string(feature) for column, feature in features.items()}
    else:
        columns = {}
        for file in list_files(Path(source).expanduser()):
            if file_kind(file) == ".txt":
                return "text"
            with errors_of_the_user(file):
                columns = inspect_columns(file)
            is_table = file_kind(file) in (".csv", ".tsv")
            if columns:
                break
    return _kind_of_columns(columns, is_table=is_table)


def _kind_of_columns(columns: Mapping[str, bool], *, is_table: bool) -> Kind:
    if forms_that_fit(columns, need_answers=True):
        return "conversations"
    has_label = any(column in columns for column in DEFAULT_LABEL_COLUMNS)
    # A table of two columns without names for them is what texts and their classes are often kept in.
    if (has_label and len(columns) > 1) or (is_table and len(columns) == 2 and "text" not in columns):
        return "labelled"
    return "text"


def _load(source: str, split: str, kind: Kind, options: SourceOptions) -> tuple[list[Example], list[str]]:
    name, revision = options.name, options.revision
    if kind == "conversations":
        conversations = load_conversations(
            source, split=split, form=options.form, unanswered="keep", name=name, revision=revision
        )
        examples = [
            Example("\n".join(prompt_of(messages)), answer_of(messages) or "", row, messages)
            for row, messages in enumerate(conversations.dataset["messages"], start=1)
        ]
        return examples, conversations.description
    if kind == "labelled":
        dataset = load_labelled(
            source,
            split=split,
            text_column=options.text_column,
            label_column=options.label_column,
            name=name,
            revision=revision,
        )
        names = dataset.features["label"].names
        rows = enumerate(zip(dataset["text"], dataset["label"], strict=True), start=1)
        examples = [Example(text, names[label], row) for row, (text, label) in rows]
        return examples, [f"{source}: {len(examples):,} labelled texts, classes {', '.join(names)}"]
    texts = load_text(source, split=split, text_column=options.text_column, name=name, revision=revision)["text"]
    examples = [Example(text, None, row) for row, text in enumerate(texts, start=1)]
    return examples, [f"{source}: {len(examples):,} documents"]

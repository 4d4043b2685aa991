"""The door for conversations: `load_conversations` makes lists of messages of what instruction data is written in."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import datasets
import numpy as np
import pyarrow.compute as pc

from hfgpt.data.conversation_forms import (
    COLUMNS,
    OPTIONAL_COLUMNS,
    Form,
    Message,
    read_conversation,
    recognise_forms,
)
from hfgpt.data.files import errors_of_the_user, file_kind, list_files
from hfgpt.data.instructions import DEFAULT_NUM_INSTRUCTIONS, Split, generate_instructions
from hfgpt.data.readers import inspect_columns, read_records
from hfgpt.data.sources import (
    BUILTIN_PREFIX,
    find_source,
    load_from_hub,
    prepare_dataset,
    warn_of_lone_surrogates,
)
from hfgpt.errors import UserError

__all__ = ["BUILTIN_CONVERSATIONS", "Form", "LoadedConversations", "Message", "load_conversations"]

BUILTIN_CONVERSATIONS: dict[str, dict[str, int]] = {
    "instructions": DEFAULT_NUM_INSTRUCTIONS,
    "instructions-large": DEFAULT_NUM_INSTRUCTIONS | {"train": 150_000},
}
"""The built-in sources, their splits, and how many conversations these have."""

MESSAGES_FEATURE = datasets.List(
    {
        "role": datasets.Value("string"),
        "content": datasets.Value("large_string"),
        "input": datasets.Value("large_string"),
    }
)
# What is counted while reading, and gone when the door closes.
COUNTED = ("lone_surrogates", "blank_system_messages")
ROW_FEATURES = datasets.Features(
    {
        "messages": MESSAGES_FEATURE,
        "task": datasets.Value("string"),
        "unanswered": datasets.Value("bool"),
        **dict.fromkeys(COUNTED, datasets.Value("int64")),
    }
)


class LoadedConversations(NamedTuple):
    """Conversations, and how they were understood.

    Attributes:
        dataset: columns `messages` and, where the source has one that holds strings, `task`.
        form: how the source writes them.
        description: what was recognised, left out and passed over, in lines to print.
        num_dropped: those without an answer that were left out.
    """

    dataset: datasets.Dataset
    form: Form
    description: list[str]
    num_dropped: int


class _Options(NamedTuple):
    unanswered: Literal["refuse", "drop", "keep"]
    system_prompt: str | None


class _Recognised(NamedTuple):
    """A form, the columns that are read for it, and what else is there: forms, and columns that are not read."""

    form: Form
    columns: tuple[str, ...]
    other_forms: tuple[Form, ...]
    other_columns: tuple[str, ...]


class _ConversationFile(NamedTuple):
    """A file and its columns that are read: of JSON all that the form knows, since a later record may have more."""

    path: str
    form: Form
    columns: tuple[str, ...]


def load_conversations(
    source: str,
    *,
    split: str = "train",
    form: Form | None = None,
    unanswered: Literal["refuse", "drop", "keep"] = "refuse",
    system_prompt: str | None = None,
    name: str | None = None,
    revision: str | None = None,
    cache_dir: str | None = None,
) -> LoadedConversations:
    """Load conversations from anywhere, in any of the forms that are usual.

    The form is recognised by its columns, in this order:

    - `messages`: lists of `{"role", "content"}`, as chat servers and TRL write them;
    - `conversations`: lists of `{"from", "value"}` (ShareGPT), where human and gpt are other words for user and
      assistant;
    - `prompt` and `completion`: two strings, the user's and the assistant's, or two lists of messages (TRL);
    - `instruction`, `output` and perhaps `input` (Alpaca).

    Either kind of list may have either pair of fields. Texts are what the source holds, but for lone surrogates, which
    are replaced by U+FFFD and counted; a content in parts of type text is put together. Other columns are passed over,
    and the description names them.

    Args:
        source: `builtin:instructions`, or `builtin:instructions-large` with more to train on; a local file (.json,
            .jsonl, .parquet, each also with .gz, and .csv and .tsv for the forms that need no lists) or a folder of
            such files, read in sorted order; else a Hub id.
        split: the split of a Hub data set, in `datasets`' syntax, or of a built-in one (train, validation, test);
            everything else has only `train`.
        form: read the columns of this form, whatever else is there.
        unanswered: what becomes of a conversation that ends with the user's message or an empty answer: `refuse` it and
            say where it is, `drop` it and count it, or `keep` it, to be answered: then the columns of answers need not
            be there, and an empty answer at the end is taken out.
        system_prompt: a system message for conversations that have none.
        name: configuration of a Hub data set.
        revision: branch, tag or commit of a Hub data set.
        cache_dir: where `datasets` keeps what it prepared; default: its own cache.

    Returns:
        A data set with the column `messages`, lists of `{"role": "system" | "user" | "assistant", "content": str,
        "input": str | None}`, and `task`, if the source has such a column of strings (a missing one is "").

    Raises:
        UserError: the source or split is not there, its columns fit no form, something is no text, a role is unknown,
            the roles do not take turns, or an answer is missing: with file and line, or the number of the row.
    """
    if unanswered not in ("refuse", "drop", "keep"):
        raise UserError(f"unanswered is 'refuse', 'drop' or 'keep', not {unanswered!r}.")
    if system_prompt is not None and not system_prompt.strip():
        raise UserError("system_prompt has no text; give some or leave it out.")
    options = _Options(unanswered, system_prompt)
    is_builtin = source.startswith(BUILTIN_PREFIX)
    kind = find_source(source, split="train" if is_builtin else split, name=name, revision=revision)
    if kind == "builtin":
        rows, recognised = _load_builtin(source, split, form, options)
    elif kind == "local":
        rows, recognised = _load_local(Path(source).expanduser(), form, options, cache_dir)
    else:
        rows, recognised = _load_hub(source, split, form, options, (name, revision, cache_dir))
    return _finish(rows, recognised, source, options)


def _load_builtin(
    source: str, split: str, form: Form | None, options: _Options
) -> tuple[datasets.Dataset, _Recognised]:
    name = source.removeprefix(BUILTIN_PREFIX)
    if name not in BUILTIN_CONVERSATIONS:
        known = ", ".join(f"{BUILTIN_PREFIX}{known_name}" for known_name in BUILTIN_CONVERSATIONS)
        raise UserError(f"there are no built-in conversations {name!r}; there is {known}.")
    if split not in BUILTIN_CONVERSATIONS[name]:
        splits = ", ".join(BUILTIN_CONVERSATIONS[name])
        raise UserError(f"{source} has no split {split!r}; its splits are {splits}.")
    recognised = _recognise(("messages", "task"), form, options, source)
    examples = generate_instructions(cast(Split, split), num_instructions=BUILTIN_CONVERSATIONS[name][split])
    rows = [
        _row(recognised.form, example, options, partial("example {} of {}".format, number, source))
        for number, example in enumerate(examples, start=1)
    ]
    return datasets.Dataset.from_list(rows, features=ROW_FEATURES), recognised


def _load_local(
    path: Path, form: Form | None, options: _Options, cache_dir: str | None
) -> tuple[datasets.Dataset, _Recognised]:
    files: list[_ConversationFile] = []
    all_recognised: list[_Recognised] = []
    for file in list_files(path):
        recognised = _look_into(file.resolve(), form, options)
        if recognised is not None:
            columns = _wanted(recognised.form) if file_kind(file) in (".json", ".jsonl") else recognised.columns
            files.append(_ConversationFile(str(file.resolve()), recognised.form, columns))
            all_recognised.append(recognised)
    if not files:
        raise UserError(f"{path} holds no record; give a source that is not empty.")
    strange = next((file for file in files if file.form != files[0].form), None)
    if strange is not None:
        raise UserError(
            f"the files of {path} write conversations in different forms ({files[0].path} as {files[0].form}, "
            f"{strange.path} as {strange.form}); load them one at a time, or give the form that all of them have."
        )
    first = all_recognised[0]
    recognised = first._replace(
        columns=tuple(dict.fromkeys(column for each in all_recognised for column in each.columns)),
        other_columns=tuple(dict.fromkeys(column for each in all_recognised for column in each.other_columns)),
    )
    arguments = {"files": files, "options": options}
    rows = prepare_dataset(_read_conversations, [file.path for file in files], arguments, ROW_FEATURES, cache_dir)
    return rows, recognised


def _look_into(path: Path, form: Form | None, options: _Options) -> _Recognised | None:
    """What is to be read from a file; None if it has neither columns nor rows."""
    kind = file_kind(path)
    if kind == ".txt":
        raise UserError(f"{path} is plain text and holds no conversations; give a json, jsonl, parquet or csv file.")
    with errors_of_the_user(path):
        columns = inspect_columns(path)
    if not columns:
        return None
    recognised = _recognise(tuple(columns), form, options, str(path))
    if kind in (".csv", ".tsv") and recognised.form in ("messages", "sharegpt"):
        raise UserError(f"{path} is a table and cannot hold lists of messages; write them as jsonl, json or parquet.")
    return recognised


def _wanted(form: Form) -> tuple[str, ...]:
    return (*COLUMNS[form], *OPTIONAL_COLUMNS[form], "task")


def _recognise(columns: tuple[str, ...], form: Form | None, options: _Options, where: str) -> _Recognised:
    chosen, *others = recognise_forms(columns, form, need_answers=options.unanswered != "keep", where=where)
    wanted = _wanted(chosen)
    return _Recognised(
        form=chosen,
        columns=tuple(column for column in wanted if column in columns),
        other_forms=tuple(others),
        other_columns=tuple(column for column in columns if column not in wanted),
    )


def _read_conversations(files: list[_ConversationFile], options: _Options) -> Iterator[dict[str, Any]]:
    for file in files:
        path = Path(file.path)
        with errors_of_the_user(path):
            for place, values in read_records(path, file.columns):
                record = dict(zip(file.columns, values, strict=True))
                yield _row(file.form, record, options, partial(_place_in_file, place, path))


def _place_in_file(place: Callable[[], str], path: Path) -> str:
    return f"{place()} of {path}"


def _load_hub(
    source: str,
    split: str,
    form: Form | None,
    options: _Options,
    hub_options: tuple[str | None, str | None, str | None],
) -> tuple[datasets.Dataset, _Recognised]:
    dataset = load_from_hub(source, split, False, *hub_options)
    recognised = _recognise(tuple(dataset.column_names), form, options, source)
    rows = dataset.select_columns(list(recognised.columns)).map(
        _row_of_hub,
        with_indices=True,
        remove_columns=list(recognised.columns),
        features=ROW_FEATURES,
        fn_kwargs={"form": recognised.form, "options": options, "source": source},
        desc="Reading conversations",
    )
    return rows, recognised


def _row_of_hub(values: dict[str, Any], row: int, *, form: Form, options: _Options, source: str) -> dict[str, Any]:
    return _row(form, values, options, partial("row {} of {}".format, row + 1, source))


def _row(form: Form, values: Mapping[str, Any], options: _Options, where: Callable[[], str]) -> dict[str, Any]:
    conversation = read_conversation(form, values, where)
    if conversation.unanswered and options.unanswered == "refuse":
        raise UserError(
            f"{where()} {conversation.unanswered}, and an answer is what is learned; give it one, or drop such records "
            "with unanswered='drop'."
        )
    messages = conversation.messages
    if options.system_prompt is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": options.system_prompt, "input": None}, *messages]
    task = values.get("task")
    return {
        "messages": messages,
        "task": task if isinstance(task, str) else None,
        "unanswered": conversation.unanswered is not None,
        **{name: getattr(conversation, name) for name in COUNTED},
    }


def _finish(rows: datasets.Dataset, recognised: _Recognised, source: str, options: _Options) -> LoadedConversations:
    """Count, drop what is to be dropped, and say what was done."""
    lone_surrogates, blank_system_messages = (pc.sum(rows.data.column(name)).as_py() or 0 for name in COUNTED)
    warn_of_lone_surrogates(lone_surrogates, source)
    is_unanswered = np.asarray(rows["unanswered"], dtype=bool)
    tasks = rows["task"][:]
    dataset = rows.select_columns(["messages"])
    has_tasks = any(task is not None for task in tasks)
    if has_tasks:
        dataset = dataset.add_column("task", [task or "" for task in tasks], feature=datasets.Value("string"))
    num_unanswered, num_dropped = int(is_unanswered.sum()), 0
    if num_unanswered and options.unanswered == "drop":
        dataset, num_dropped = dataset.select(np.flatnonzero(~is_unanswered)), num_unanswered
    if not len(dataset):
        raise UserError(f"{source} holds no conversation with an answer; give a source that has some.")

    columns = [column for column in recognised.columns if column != "task"] + (["task"] if has_tasks else [])
    ignored = [*recognised.other_columns, *(["task"] if "task" in recognised.columns and not has_tasks else [])]
    description = [f"{source}: {len(dataset):,} conversations, read as {recognised.form} ({', '.join(columns)})"]
    if recognised.other_forms:
        others = " and ".join(recognised.other_forms)
        description.append(f"its columns would also fit the form {others}")
    if ignored:
        description.append(f"columns that are not read: {', '.join(ignored)}")
    if num_unanswered:
        description.append(f"{num_unanswered:,} without an answer {_PAST[options.unanswered]}")
    if blank_system_messages:
        description.append(f"{blank_system_messages:,} system messages without text left out")
    if lone_surrogates:
        description.append(f"{lone_surrogates:,} lone surrogates replaced by U+FFFD")
    return LoadedConversations(dataset, recognised.form, description, num_dropped)


_PAST = {"drop": "dropped", "keep": "kept"}

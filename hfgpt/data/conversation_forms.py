"""The forms in which conversations are written: how each is recognised and becomes messages.

A message is `{"role", "content", "input"}`: the role is system, user or assistant, `content` is text, and `input` is
the second field of an Alpaca entry, the material that its instruction is about; it is None everywhere else. A
conversation begins with the user, after at most one system message, and then user and assistant take turns.
"""

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

from hfgpt.bulk_encoding import replace_lone_surrogates
from hfgpt.data.files import shortened
from hfgpt.errors import UserError

__all__ = [
    "COLUMNS",
    "OPTIONAL_COLUMNS",
    "Conversation",
    "Form",
    "Message",
    "forms_that_fit",
    "read_conversation",
    "recognise_forms",
]

Form = Literal["messages", "sharegpt", "prompt_completion", "alpaca"]
"""In the order in which they are looked for."""

Message = dict[str, str | None]

COLUMNS: dict[Form, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "prompt_completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
"""The columns that each form needs; only the first of them if no answer is needed."""

OPTIONAL_COLUMNS: dict[Form, tuple[str, ...]] = {
    "messages": (),
    "sharegpt": (),
    "prompt_completion": (),
    "alpaca": ("input",),
}

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""What the roles are called in the wild, and what they are here."""

Where = Callable[[], str]
"""Says where a record is (`line 3 of data.jsonl`); called only for a sentence about it."""


class Conversation(NamedTuple):
    """What a record holds.

    Attributes:
        messages: the last is the assistant's, but where `unanswered` says that it is missing.
        unanswered: why there is nothing to learn from this conversation, as the end of a sentence; None: there is.
        lone_surrogates: characters that were replaced because they are not valid Unicode.
        blank_system_messages: system messages without text, which were left out.
    """

    messages: list[Message]
    unanswered: str | None
    lone_surrogates: int
    blank_system_messages: int


def forms_that_fit(columns: Collection[str], *, need_answers: bool) -> list[Form]:
    """The forms whose columns are there, the one to read first; those with answers stand before those without."""
    fitting = [form for form, names in COLUMNS.items() if all(name in columns for name in names)]
    if not need_answers:
        fitting += [form for form, names in COLUMNS.items() if names[0] in columns and form not in fitting]
    return fitting


def recognise_forms(columns: Collection[str], wanted: Form | None, *, need_answers: bool, where: str) -> list[Form]:
    """The forms that fit the columns; only `wanted`, if that is given.

    Raises:
        UserError: there is none.
    """
    needed = {form: names if need_answers else names[:1] for form, names in COLUMNS.items()}
    found = ", ".join(columns)
    if wanted is not None:
        if wanted not in COLUMNS:
            raise UserError(f"there is no form {wanted!r} of conversations; there are {', '.join(COLUMNS)}.")
        if missing := [repr(name) for name in needed[wanted] if name not in columns]:
            raise UserError(
                f"{where} has no column {' and no column '.join(missing)}, which the form {wanted!r} needs; its "
                f"columns are {found}: rename one, or give another form."
            )
        return [wanted]
    present = forms_that_fit(columns, need_answers=need_answers)
    if not present:
        forms = ", ".join(f"{' and '.join(names)} ({form})" for form, names in needed.items())
        raise UserError(
            f"{where} has the columns {found}, and conversations stand in {forms}; rename its columns to those of one "
            "of these forms."
        )
    return present


def read_conversation(form: Form, values: Mapping[str, Any], where: Where) -> Conversation:
    """Make the columns of a record into messages.

    Args:
        form: one of those that the record's columns fit.
        values: of the form's columns; what is missing is None.
        where: says where the record is.

    Raises:
        UserError: something is no text, a role is unknown, or the roles do not take turns.
    """
    messages = _messages_of(form, values, where)
    blank_system_messages = sum(message["role"] == "system" and _is_blank(message) for message in messages)
    messages = [message for message in messages if message["role"] != "system" or not _is_blank(message)]
    _check_turns(messages, where)
    empty = [number for number, message in enumerate(messages, start=1) if _is_blank(message)]
    if questions := [number for number in empty if messages[number - 1]["role"] == "user"]:
        raise UserError(f"{where()} has no text in message {questions[0]}, the user's; give it some or take it out.")
    unanswered = None
    if empty:
        unanswered = "has an empty answer" + (f", message {empty[0]}" if len(messages) > 2 else "")
    elif messages[-1]["role"] == "user":
        unanswered = "ends without an answer"
    if empty[-1:] == [len(messages)]:
        messages.pop()
    lone_surrogates = 0
    for message in messages:
        for field in ("content", "input"):
            if text := message[field]:
                message[field], replaced = replace_lone_surrogates(text)
                lone_surrogates += replaced
    return Conversation(messages, unanswered, lone_surrogates, blank_system_messages)


def _messages_of(form: Form, values: Mapping[str, Any], where: Where) -> list[Message]:
    if form == "alpaca":
        # A missing answer is an empty one; so is a missing instruction, which is then refused as such.
        instruction, given, output = (
            _text(values.get(column), f"the column {column!r}", where, missing="")
            for column in ("instruction", "input", "output")
        )
        return [_message("user", instruction, given if given.strip() else None), _message("assistant", output)]
    if form == "prompt_completion":
        messages = []
        for column, role in (("prompt", "user"), ("completion", "assistant")):
            value = values.get(column)
            if isinstance(value, list):
                messages += _turns(value, column, where)
            elif not (messages and messages[-1]["role"] == "assistant" and value is None):
                messages.append(_message(role, _text(value, f"the column {column!r}", where, missing="")))
        return messages
    (column,) = COLUMNS[form]
    return _turns(values.get(column), column, where)


def _turns(turns: Any, column: str, where: Where) -> list[Message]:
    if not isinstance(turns, list):
        raise UserError(
            f"{where()} does not hold a list of messages in the column {column!r} but {shortened(turns)}; write each "
            'conversation as a list such as [{"role": "user", "content": "..."}, ...].'
        )
    return [_turn(turn, f"message {number} in {column!r}", where) for number, turn in enumerate(turns, start=1)]


def _turn(turn: Any, name: str, where: Where) -> Message:
    fields = turn if isinstance(turn, Mapping) else {}
    role_field, content_field = ("role", "content") if fields.get("role") is not None else ("from", "value")
    role = fields.get(role_field)
    if role is None:
        raise UserError(
            f"{name} has no role at {where()}: it is {shortened(turn)}; write it with role and content, or from and "
            "value."
        )
    known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise UserError(f"{name} has the role {shortened(role)} at {where()}; known are {', '.join(ROLES)}.")
    content = _text(fields.get(content_field), f"the {content_field} of {name}", where)
    given = _text(fields.get("input"), f"the input of {name}", where, missing="")
    if given.strip() and known != "user":
        raise UserError(f"{name} has an input at {where()}, and only a user's message can; take it out.")
    return _message(known, content, given if given.strip() else None)


def _message(role: str, content: str, given: str | None = None) -> Message:
    return {"role": role, "content": content, "input": given}


def _text(value: Any, name: str, where: Where, *, missing: str | None = None) -> str:
    """A text, or a list of parts that are texts, put together; `missing` in place of None."""
    if value is None and missing is not None:
        return missing
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in value]
        kinds = [part.get("type", "text") if isinstance(part, Mapping) else "text" for part in value]
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) == len(texts) and set(kinds) <= {"text"}:
            return "".join(strings)
    raise UserError(
        f"{name} does not hold a text at {where()} but {shortened(value)}; only text can be learned: mend that record "
        "or take it out."
    )


def _is_blank(message: Message) -> bool:
    return not ((message["content"] or "").strip() or (message["input"] or "").strip())


def _check_turns(messages: list[Message], where: Where) -> None:
    roles = [message["role"] for message in messages]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if not talk:
        raise UserError(f"{where()} holds no message of a user or an assistant; take that record out.")
    if "system" in talk:
        number = len(roles) - len(talk) + talk.index("system") + 1
        raise UserError(f"{where()} has a system message as message {number}; it can only be the first: move it.")
    if talk[0] != "user":
        raise UserError(f"{where()} begins with an answer; take it out, or put the question before it.")
    for number, (role, following) in enumerate(pairwise(talk), start=len(roles) - len(talk) + 1):
        if role == following:
            raise UserError(
                f"{where()} has two messages of the {role} one after the other, {number} and {number + 1}; join them "
                "or take one out."
            )


assert tuple(COLUMNS) == get_args(Form)

"""The templates: their names, putting one into a tokenizer, and the tokens that end an answer."""

import re
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from hfgpt.errors import UserError

from .encoding import EXAMPLE, GENERATION, EncodedConversation, encode_with_template, render

__all__ = ["TEMPLATES", "guard_chat_template", "set_chat_template", "special_tokens_of", "stop_token_ids"]

TEMPLATES: tuple[str, ...] = ("alpaca", "phi3", "chatml")
"""The names of the templates that come along: the book's, that of its exercise 7.1, and OpenAI's ChatML."""

SPECIAL_TOKENS = {"chatml": ("<|im_start|>", "<|im_end|>")}

# Where a template has them, they say who speaks, though they may be ordinary text to the tokenizer.
MARKERS = ("<|user|>", "<|assistant|>", "<|system|>")

GUARD = """\
{#- Guard: contents are trimmed, and a space in each marker that stands in one keeps it from being read as one. #}
{%- macro guarded(text) -%}
    {{- (text or '') | trim@REPLACEMENTS@ -}}
{%- endmacro -%}
{%- set guard = namespace(messages=[]) -%}
{%- for message in messages -%}
    {%- if message.content is not string -%}
        {{- raise_exception('the content of a message must be text') -}}
    {%- endif -%}
    {%- set guard.messages = guard.messages + [{
        'role': guarded(message.role), 'content': guarded(message.content), 'input': guarded(message.input),
    }] -%}
{%- endfor -%}
{%- set messages = guard.messages -%}
{#- End of the guard. #}
"""
GUARDED = re.compile(r"\A\{#- Guard: .*?\{#- End of the guard\. #\}\n", re.DOTALL)


def special_tokens_of(name_or_path: str | Path) -> tuple[str, ...]:
    """The special tokens that a template needs, to be added by `extend_tokenizer`; none for most."""
    return SPECIAL_TOKENS.get(str(name_or_path), ())


def set_chat_template(tokenizer: PreTrainedTokenizerFast, name_or_path: str | Path) -> None:
    """Give a tokenizer a chat template, which is then saved with it.

    A guard is put before the template. It trims every content, so that a prompt has the same tokens alone as it has
    with its answer; and it writes a space into each special token that stands in a content ("< |endoftext|>"), since
    a tokenizer that makes special tokens of the template's own would make them of a user's, too. So the special tokens
    are all to be there before. That tokenizer is saved with `"split_special_tokens": false`.

    Args:
        tokenizer: It is changed, unless an error is raised.
        name_or_path: One of `TEMPLATES`, or a file with a template, in which `{% generation %}` encloses each answer
            and its end token. `"saved"`: the one that the tokenizer has, with a new guard.

    Raises:
        UserError: If there is no such template or it does not mark or end the answer, or if the tokenizer lacks a
            token that it needs or has special tokens that cannot be kept out of text.
    """
    template = _read(tokenizer, name_or_path)
    special_tokens = _special_tokens(tokenizer)
    if missing := [token for token in special_tokens_of(name_or_path) if token not in special_tokens]:
        raise UserError(
            f"The chat template {name_or_path} needs the special tokens {' and '.join(missing)}, which the tokenizer "
            "lacks: add them by extend_tokenizer."
        )
    template = _with_guard(tokenizer, template)
    _check(tokenizer, template, special_tokens, f"The chat template {name_or_path}")
    tokenizer.chat_template = template
    tokenizer.split_special_tokens = False
    tokenizer.init_kwargs["split_special_tokens"] = False  # what is saved


def guard_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    """Put the guard of `set_chat_template` before a tokenizer's own template, if it has none, as those on the Hub.

    Args:
        tokenizer: With a chat template; it is changed.

    Raises:
        UserError: If it has several templates, or its special tokens cannot be kept out of text.
    """
    template = _read(tokenizer, "saved")
    if GUARDED.match(template) is None:
        tokenizer.chat_template = _with_guard(tokenizer, template)


def stop_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that end an answer: the last of those that bear loss in one, and the end-of-text token.

    Where the chat template does not mark its answers, as many on the Hub, the end-of-text token alone.

    Raises:
        UserError: If the tokenizer has no chat template.
    """
    template = tokenizer.chat_template
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if not isinstance(template, str) or GENERATION.search(template):
        encoded = encode_with_template(tokenizer, template, [EXAMPLE])[0]
        ends = [_ids_of_answer(encoded)[-1], *ends]
    return list(dict.fromkeys(ends))


def _read(tokenizer: PreTrainedTokenizerFast, name_or_path: str | Path) -> str:
    if str(name_or_path) == "saved":
        if not isinstance(tokenizer.chat_template, str):
            raise UserError(f"The tokenizer has no chat template: choose one of {', '.join(TEMPLATES)}.")
        return tokenizer.chat_template
    comes_along = str(name_or_path) in TEMPLATES
    path = Path(__file__).parent / f"{name_or_path}.jinja" if comes_along else Path(name_or_path).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"The chat template {path} is not UTF-8: convert it first.") from error
    except OSError as error:
        raise UserError(
            f"There is no chat template {name_or_path} ({error.strerror}): choose one of {', '.join(TEMPLATES)}, or "
            "give the path of a file with one."
        ) from error


def _with_guard(tokenizer: PreTrainedTokenizerFast, template: str) -> str:
    """A template with a new guard.

    Raises:
        UserError: If the tokenizer has special tokens that cannot be kept out of text.
    """
    template = GUARDED.sub("", template)
    special_tokens = _special_tokens(tokenizer)
    markers = list(dict.fromkeys([*special_tokens, *(marker for marker in MARKERS if marker in template)]))
    _refuse_unguardable(tokenizer, markers)
    replacements = "".join(f" | replace({token!r}, {token[0] + ' ' + token[1:]!r})" for token in markers)
    return GUARD.replace("@REPLACEMENTS@", replacements) + template


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The special tokens that the tokenizer would find in text."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def _refuse_unguardable(tokenizer: PreTrainedTokenizerFast, markers: list[str]) -> None:
    """Refuse markers that could still stand in a text, or across its ends, after each got a space inside.

    An occurrence that survives the replacements, or that they make, holds none of the new spaces. So it stood in the
    text before; and since no marker begins with another's end, replacing has passed over none.
    """
    reasons = []
    for marker in markers:
        if len(marker) < 2:
            reasons.append(f"{marker!r} is a single character")
        elif any(character.isspace() for character in marker):
            reasons.append(f"{marker!r} holds white space")
        else:
            ends = [marker[start:] for start in range(1, len(marker))]
            others = [other for other in markers if other.startswith(tuple(ends))]
            reasons += [f"{other!r} begins with the end of {marker!r}" for other in others]
    normalised = any(token.normalized and token.special for token in tokenizer.added_tokens_decoder.values())
    if normalised and tokenizer.backend_tokenizer.normalizer is not None:
        reasons.append("the tokenizer looks for them in normalised text")
    if reasons:
        raise UserError(
            f"The tokenizer's special tokens cannot be kept out of a user's text, since {reasons[0]}: take another "
            "tokenizer for conversations."
        )


def _check(tokenizer: PreTrainedTokenizerFast, template: str, special_tokens: list[str], what: str) -> None:
    """Refuse a template that fails on an example.

    Raises:
        UserError: As in `set_chat_template`.
    """
    special_ids = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    try:
        text, spans = render(tokenizer, template, [dict(message) for message in EXAMPLE], name="an example")
    except UserError as error:
        raise UserError(f"{what} cannot be used: {error}") from error
    before = text[: spans[0][0]]
    if before[-1:].isspace() and not before.endswith("\n"):
        raise UserError(
            f"{what} has white space before the answer, which tokenizers join with its first word, so that there "
            "are other tokens than in a prompt alone: end what stands before it in a line break."
        )
    try:
        encoded = encode_with_template(tokenizer, template, [EXAMPLE])[0]
        prompt = encode_with_template(tokenizer, template, [EXAMPLE[:1]], add_generation_prompt=True)[0].input_ids
    except UserError as error:
        raise UserError(f"{what} cannot be used: {error}") from error
    answer = _ids_of_answer(encoded)
    if answer[-1] not in special_ids:
        raise UserError(
            f"{what} does not end the answer: inside its {{% generation %}} a special token such as eos_token must "
            "follow the content."
        )
    if encoded.input_ids[: len(prompt) + len(answer)] != prompt + answer:
        raise UserError(
            f"{what} writes another prompt with add_generation_prompt than before an answer, in text or in tokens: "
            "write the same both times."
        )
    expected = [id for id in encoded.input_ids if id in special_ids]
    for token in special_tokens:
        text = f"{token}{token} {token[:2]}{token}{token[2:]}"
        with_tokens = [{**message, "content": text} for message in EXAMPLE]
        ids = encode_with_template(tokenizer, template, [with_tokens])[0].input_ids
        if [id for id in ids if id in special_ids] != expected:
            raise UserError(
                f"{what} lets the special token {token!r} of a user's text through: take another tokenizer."
            )


def _ids_of_answer(encoded: EncodedConversation) -> list[int]:
    return [id for id, bears_loss in zip(encoded.input_ids, encoded.bears_loss, strict=True) if bears_loss]

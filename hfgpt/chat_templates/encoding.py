"""Conversations to token ids by a tokenizer's chat template, and which of them bear loss."""

import logging
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from hfgpt.errors import UserError
from hfgpt.tokenization import replace_lone_surrogates

__all__ = [
    "EXAMPLE",
    "GENERATION",
    "EncodedConversation",
    "check_conversations",
    "encode_chat_prompt",
    "encode_conversations",
    "encode_with_template",
    "render",
]

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]
"""`role`, `content` and, from a data set, `input`, which may be None."""

EXAMPLE = ({"role": "user", "content": "Name a colour of the sky."}, {"role": "assistant", "content": "Blue."})
"""What templates are tried on."""

GENERATION: re.Pattern[str] = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What opens an answer in a template, as transformers looks for it."""

CONVERSATIONS_AT_ONCE = 1000  # what the tokenizer gives back of them takes 100 times the memory of the ids


class EncodedConversation(NamedTuple):
    """The tokens of a conversation, and whether each is one that the model is to learn to predict."""

    input_ids: list[int]
    bears_loss: list[bool]


def encode_conversations(
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[Sequence[Message]],
    *,
    loss_on: Literal["answer", "all"] = "answer",
) -> list[EncodedConversation]:
    """The tokens of whole conversations; this function decides which of them bear loss, and no other does.

    The ids are those of `tokenizer.apply_chat_template`, and with `loss_on="answer"` the marks are its
    `assistant_masks`. Lone surrogates, which transformers refuses, become U+FFFD, and their number is logged.

    Args:
        loss_on: `"answer"`: what stands in the template's `{% generation %}`, that is, each answer of the assistant
            and its end token. `"all"`: every token but the first, which nothing predicts.

    Raises:
        UserError: If there is no chat template, or it cannot write a conversation, whose number the sentence names, or
            does not mark its answers.
    """
    if loss_on not in ("answer", "all"):
        raise UserError(f"loss_on is {loss_on!r}: give answer or all.")
    encoded = encode_with_template(tokenizer, tokenizer.chat_template, conversations)
    if loss_on == "answer":
        return encoded
    return [EncodedConversation(ids, [False] + [True] * (len(ids) - 1)) for ids, _ in encoded]


def encode_chat_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message]) -> list[int]:
    """The tokens that an answer to `messages` follows on: those of `apply_chat_template(add_generation_prompt=True)`.

    Raises:
        UserError: If there is no chat template, or it cannot write the messages.
    """
    return encode_with_template(tokenizer, tokenizer.chat_template, [messages], add_generation_prompt=True)[0].input_ids


def check_conversations(encoded: Sequence[EncodedConversation], tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse, before training, conversations from which a model would not learn to answer and to stop.

    Raises:
        UserError: If in one, whose number (from 1) the sentence names, no token bears loss, or an answer's end token
            is not there or bears none.
    """
    example = encode_with_template(tokenizer, tokenizer.chat_template, [EXAMPLE])[0]
    after = example.bears_loss[::-1].index(True)  # tokens that the template writes after the end token
    end = example.input_ids[len(example.input_ids) - after - 1]
    for number, (ids, bears_loss) in enumerate(encoded, start=1):
        if not any(bears_loss):
            raise UserError(f"In conversation {number} no token bears loss: leave it out, or let it keep its answer.")
        learns_to_stop = ids[-after - 1 :] == example.input_ids[-after - 1 :] and bears_loss[-after - 1]
        if not learns_to_stop or any(ids[last] != end for last in _last_of_runs(bears_loss) if last < len(ids) - 1):
            raise UserError(
                f"In conversation {number} an answer's end token {tokenizer.convert_ids_to_tokens(end)} is missing or "
                "bears no loss, so that the model would not learn to stop: leave it out, or shorten it before its end."
            )


def encode_with_template(
    tokenizer: PreTrainedTokenizerFast,
    template: Any,
    conversations: Sequence[Sequence[Message]],
    *,
    add_generation_prompt: bool = False,
) -> list[EncodedConversation]:
    """The tokens of conversations by any template, those in its `{% generation %}` marked.

    Raises:
        UserError: As in `encode_conversations`.
    """
    if not isinstance(template, str):
        raise UserError("The tokenizer has no chat template: set one, such as alpaca.")
    encoded: list[EncodedConversation] = []
    num_replaced = 0
    for start in range(0, len(conversations), CONVERSATIONS_AT_ONCE):
        part = conversations[start : start + CONVERSATIONS_AT_ONCE]
        names = [
            f"conversation {start + index}" if len(conversations) > 1 else "the conversation"
            for index in range(1, len(part) + 1)
        ]
        texts, spans_of_texts = [], []
        for name, conversation in zip(names, part, strict=True):
            messages, replaced = _clean(conversation)
            num_replaced += replaced
            text, spans = render(tokenizer, template, messages, name=name, add_generation_prompt=add_generation_prompt)
            texts.append(text)
            spans_of_texts.append(spans)
        tokens = tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for name, ids, offsets, spans in zip(
            names, tokens["input_ids"], tokens["offset_mapping"], spans_of_texts, strict=True
        ):
            encoded.append(EncodedConversation(ids, _marks(offsets, spans, name)))
    if num_replaced:
        logger.warning("%d lone surrogates in conversations were replaced by U+FFFD", num_replaced)
    return encoded


def _clean(conversation: Sequence[Message]) -> tuple[list[dict[str, Any]], int]:
    """The messages without fields that are None, as transformers has them; and how many lone surrogates it replaced."""
    messages, num_replaced = [], 0
    for message in conversation:
        fields = {}
        for name, value in message.items():
            if isinstance(value, str):
                value, replaced = replace_lone_surrogates(value)
                num_replaced += replaced
            if value is not None:
                fields[name] = value
        messages.append(fields)
    return messages, num_replaced


def render(
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    messages: list[dict[str, Any]],
    *,
    name: str,
    add_generation_prompt: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and from where to where each answer with its end token reaches in it.

    Raises:
        UserError: As in `encode_conversations`; it calls the conversation by `name`.
    """
    if not messages:
        raise UserError(f"There is no message in {name}: leave it out.")
    special_tokens: dict[str, Any] = tokenizer.special_tokens_map
    try:
        rendered: Any = render_jinja_template(
            conversations=[messages],
            chat_template=template,
            return_assistant_tokens_mask=GENERATION.search(template) is not None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except Exception as error:  # a template may divide by zero, and raises what it likes
        raise UserError(
            f"The chat template cannot write {name}: {' '.join(str(error).split()).rstrip('.')}."
        ) from error
    text: str = rendered[0][0]
    spans: list[tuple[int, int]] = rendered[1][0] if rendered[1] else []
    is_answered = any(message.get("role") == "assistant" for message in messages)
    if is_answered and not add_generation_prompt and not any(end > start for start, end in spans):
        raise UserError(
            f"The chat template marks no answer in {name}: enclose what the assistant says, with its end token, in "
            "{% generation %} and {% endgeneration %}."
        )
    return text, spans


def _marks(offsets: list[tuple[int, int]], spans: list[tuple[int, int]], name: str) -> list[bool]:
    """For each token whether it lies in one of the spans.

    Raises:
        UserError: If one lies across an edge: before an answer, the prompt alone would have other tokens.
    """
    starts = [start for start, _ in offsets]
    marks = [False] * len(offsets)
    for start, end in spans:
        first, behind = bisect_left(starts, start), bisect_left(starts, end)
        if (first and offsets[first - 1][1] > start) or (behind and offsets[behind - 1][1] > end):
            raise UserError(
                f"In {name} a token reaches across the edge of an answer, so that it has other tokens than its prompt "
                "alone: end what stands before an answer in a line break, or leave such tokens out of the tokenizer."
            )
        marks[first:behind] = [True] * (behind - first)
    return marks


def _last_of_runs(marks: list[bool]) -> Iterator[int]:
    """The last position of each stretch of marked ones."""
    for index, (mark, following) in enumerate(zip(marks, [*marks[1:], False], strict=True)):
        if mark and not following:
            yield index

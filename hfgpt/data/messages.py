"""`builtin:messages`: short messages in plain English, spam and ham, generated, and the same on every machine.

What makes a message spam is one rule: **its sender, under a pretext of his own (a prize, a debt, a locked account, a
parcel, a lost telephone), asks the reader to hand something over: money, a code, a password, a call that costs.** All
else is ham, whatever words it uses: who warns of such a request, tells of one, laughs about a prize, sends a code that
the reader asked for, says that a parcel is paid, or offers money instead of asking for it.

So the label follows from who gives what to whom, from what a negation stands before, and from how the clauses hang
together. Most messages come in pairs that a reader tells apart and a bag of words hardly can: "Don't wait, send your
pin" and "Don't send your pin, wait"; "You sent me a code, can I send it back?" and "I sent you a code, can you send it
back?" No label is wrong: what is hard here is hard because of the sentences, not because of noise. The families are

    warning     a pretext, one thing to do and another one not to do: which of the two is it?
    exchange    both sides of the same dealings, by a friend, a shop, a bank or a winner
    plain       what everyone knows: the appointment for tea, the loud offer

Message number i is a function of (seed, i) alone, by the same integer arithmetic as the stories.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from hfgpt.data.message_templates import (
    CALM_STEPS,
    CLOSINGS,
    EXCHANGES,
    FACTS,
    GREETINGS,
    PLAIN,
    PRETEXTS,
    RISKY_STEPS,
    SHORT_FORMS,
    VERDICTS,
    WARNINGS,
)
from hfgpt.data.templates import Chance, fill_template

__all__ = [
    "DEFAULT_NUM_MESSAGES",
    "DEFAULT_NUM_UNLABELLED_MESSAGES",
    "MESSAGE_LABELS",
    "Message",
    "generate_message_texts",
    "generate_messages",
    "generate_unlabelled_messages",
]

MESSAGE_LABELS = ("ham", "spam")

DEFAULT_NUM_MESSAGES = 4000
DEFAULT_NUM_UNLABELLED_MESSAGES = 16000

PERCENT_SPAM = 30
# Percentages of the families; what is left is plain.
PERCENT_WARNING = 15
PERCENT_EXCHANGE = 50
# How often a message has what does not depend on its label.
PERCENT_GREETING = 35
PERCENT_CLOSING = 35
PERCENT_VERDICT = 35
PERCENT_SMALL_LETTERS = 15
PERCENT_SHORT_FORMS = 15

_NEEDLESS_SPACES = re.compile(r" +(?=[ .,!?]|$)")


class Message(NamedTuple):
    """A message, its label (`spam` or `ham`) and the family that it comes from (`warning`, `exchange`, `plain`)."""

    text: str
    label: str
    family: str


def generate_messages(seed: int = 0, num_messages: int = DEFAULT_NUM_MESSAGES, *, first: int = 0) -> Iterator[Message]:
    """Yield `num_messages` messages of about 5 to 50 words, three in ten of them spam.

    Args:
        seed: another seed gives other messages of the same kind.
        num_messages: how many; message i depends on `seed` and i only.
        first: the number of the first of them.
    """
    for index in range(first, first + num_messages):
        yield _write(Chance(seed, index))


def generate_message_texts(seed: int = 0, num_messages: int = DEFAULT_NUM_MESSAGES, *, first: int = 0) -> Iterator[str]:
    """Yield the texts of `generate_messages`."""
    for message in generate_messages(seed, num_messages, first=first):
        yield message.text


def generate_unlabelled_messages(
    seed: int = 0, num_messages: int = DEFAULT_NUM_UNLABELLED_MESSAGES, *, first: int = 0
) -> Iterator[str]:
    """Yield the texts of messages numbered from `DEFAULT_NUM_MESSAGES` on, for reading without labels.

    Those of the default messages with the same seed are left out where they come up again, in whatever case, so that
    a model may read these and still be tested on any of those.

    Args:
        seed: that of the labelled messages.
        num_messages: how many numbers to go through; a few give nothing.
        first: where to begin, counted from `DEFAULT_NUM_MESSAGES`.
    """
    labelled = _labelled_texts(seed)
    for text in generate_message_texts(seed, num_messages, first=DEFAULT_NUM_MESSAGES + first):
        if text.casefold() not in labelled:
            yield text


@lru_cache(maxsize=1)  # A stream asks piece by piece.
def _labelled_texts(seed: int) -> frozenset[str]:
    return frozenset(text.casefold() for text in generate_message_texts(seed))


def _write(chance: Chance) -> Message:
    """One message: its label, its family, what it says, and around it what has no part in the label."""
    label = "spam" if chance.percent(PERCENT_SPAM) else "ham"
    facts = {slot: chance.choose(values) for slot, values in FACTS.items()}
    facts["name"], facts["friend"] = chance.sample(FACTS["name"], 2)
    facts["number"] = f"0{chance.choose('789')}00 {100 + chance.below(900)} {100 + chance.below(900)}"
    facts["code"] = str(1000 + chance.below(9000))
    facts["link"] = facts["link"].format_map(facts)
    family = chance.below(100)
    if family < PERCENT_WARNING:
        family_name, body = "warning", _warning(label, facts, chance)
    elif family < PERCENT_WARNING + PERCENT_EXCHANGE:
        family_name, body = "exchange", chance.choose(chance.choose(EXCHANGES)[label])
    else:
        family_name, body = "plain", chance.choose(PLAIN[label])
    if chance.percent(PERCENT_GREETING):
        body = f"{chance.choose(GREETINGS)} {body}"
    if chance.percent(PERCENT_CLOSING):
        body = f"{body} {chance.choose(CLOSINGS)}"
    text = _NEEDLESS_SPACES.sub("", fill_template(body, facts, chance)).strip()
    return Message(_in_a_hurry(text, chance), label, family_name)


def _warning(label: str, facts: dict[str, str], chance: Chance) -> str:
    """A pretext with one thing to do and one not to do, and perhaps a word on whether it is true."""
    risky = chance.choose(RISKY_STEPS)
    calm = chance.choose(CALM_STEPS)
    for slot, step in zip(("do", "avoid"), (risky, calm) if label == "spam" else (calm, risky), strict=True):
        filled = fill_template(step, facts, chance).strip()
        facts[slot], facts[slot.capitalize()] = filled[0].lower() + filled[1:], filled
    parts = [chance.choose(PRETEXTS), chance.choose(WARNINGS)]
    if chance.percent(PERCENT_VERDICT):
        parts.insert(1 + chance.below(2), chance.choose(VERDICTS[label]))
    elif chance.percent(30):
        parts.reverse()
    return " ".join(parts)


def _in_a_hurry(text: str, chance: Chance) -> str:
    """What thumbs do to a message: small letters, or short forms of common words."""
    if chance.percent(PERCENT_SMALL_LETTERS):
        text = text.lower()
    if chance.percent(PERCENT_SHORT_FORMS):
        text = " ".join(SHORT_FORMS.get(word.lower(), word) for word in text.split(" "))
    return text

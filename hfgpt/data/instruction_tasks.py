"""The tasks of `builtin:instructions`: what each draws, and the one right answer to it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hfgpt.data.instruction_templates import (
    CATEGORIES,
    ITEMS,
    MONTHS,
    OPPOSITES,
    ORDINALS,
    OWNED_THINGS,
    OWNER_COLOURS,
    OWNER_NAMES,
    OWNING_VERBS,
    PLURALS,
    WEEKDAYS,
    WORDS,
)
from hfgpt.data.templates import Chance

__all__ = ["TASKS", "Combination", "Exercise"]

PERCENT_COMMAS = 50
PERCENT_ONE_WORD = 15
LARGEST_ADDEND = 40
LARGEST_DISTANCE = 4

Combination = tuple[str, ...]


class Exercise(NamedTuple):
    """What a task has drawn.

    Attributes:
        phrasings: which of `PHRASINGS` ask for it.
        facts: what goes into their slots.
        answer: the right answer.
        combination: the operands that stand together, by which the exercise belongs to a split.
        of_few: there are so few such combinations that the phrasing is one more operand.
    """

    phrasings: str
    facts: dict[str, str]
    answer: str
    combination: Combination
    of_few: bool = False


# Draws an exercise; the second argument says whether a combination belongs to the split that is being made. Only who
# puts several of them into one exercise has to ask: an exercise whose `combination` does not belong is drawn anew.
Draw = Callable[[Chance, Callable[[Combination], bool]], Exercise]


def _separator(chance: Chance) -> str:
    return ", " if chance.percent(PERCENT_COMMAS) else " "


def _of_words(words: Sequence[str]) -> Combination:
    """Words have stood together if they have stood together in any order, and in any task."""
    return tuple(sorted(words))


def _rewritten(
    phrasings: str, shortest: int, longest: int, rewrite: Callable[[list[str]], list[str]]
) -> Callable[[Chance, object], Exercise]:
    """A task that makes another list of a list of words."""

    def draw(chance: Chance, _: object) -> Exercise:
        words = chance.sample(WORDS, shortest + chance.below(longest - shortest + 1))
        separator = _separator(chance)
        facts = {"words": separator.join(words)}
        return Exercise(phrasings, facts, separator.join(rewrite(words)), _of_words(words))

    return draw


def _looked_up(phrasings: str, answers: dict[str, str]) -> Callable[[Chance, object], Exercise]:
    """A task that replaces each of one to three words by another word that belongs to it."""

    def draw(chance: Chance, _: object) -> Exercise:
        count = 1 if chance.percent(PERCENT_ONE_WORD) else 2 + chance.below(2)
        words = chance.sample(tuple(answers), count)
        separator = _separator(chance)
        answer = separator.join(answers[word] for word in words)
        return Exercise(phrasings, {"words": separator.join(words)}, answer, _of_words(words), of_few=count == 1)

    return draw


def _count(chance: Chance, _: object) -> Exercise:
    """How many words, or how often one of them."""
    separator = _separator(chance)
    if chance.percent(50):
        words = chance.sample(WORDS, 2 + chance.below(8))
        return Exercise("count_words", {"words": separator.join(words)}, str(len(words)), _of_words(words))
    word, *others = chance.sample(WORDS, 2 + chance.below(2))
    times = 1 + chance.below(5)
    words = [word] * times + [chance.choose(others) for _ in range(1 + chance.below(4))]
    words = chance.sample(words, len(words))
    return Exercise("count_one_word", {"word": word, "words": separator.join(words)}, str(times), _of_words(words))


def _sum(chance: Chance, _: object) -> Exercise:
    """Two numbers, which are the same two in whatever order."""
    a, b = (2 + chance.below(LARGEST_ADDEND - 1) for _ in range(2))
    name, friend = chance.sample(OWNER_NAMES, 2)
    facts = {"a": str(a), "b": str(b), "name": name, "friend": friend, "items": chance.choose(ITEMS)}
    return Exercise("sum", facts, str(a + b), (str(min(a, b)), str(max(a, b))))


def _odd_one_out(chance: Chance, _: object) -> Exercise:
    """Three or four words of one category, and one of another."""
    category, other = chance.sample(tuple(CATEGORIES), 2)
    odd = chance.choose(CATEGORIES[other])
    words = [odd, *chance.sample(CATEGORIES[category], 3 + chance.below(2))]
    words = chance.sample(words, len(words))
    return Exercise("odd_one_out", {"words": _separator(chance).join(words)}, odd, _of_words(words))


def _position(chance: Chance, _: object) -> Exercise:
    """The word in a place that is told by its number, or by its neighbour."""
    words = chance.sample(WORDS, 4 + chance.below(3))
    facts = {"words": _separator(chance).join(words)}
    if chance.percent(60):
        place = chance.below(len(words) + 1) - 1
        facts["ordinal"] = "last" if place < 0 else ORDINALS[place]
        return Exercise("position", facts, words[place], _of_words(words))
    place = chance.below(len(words) - 1)
    pair = words[place], words[place + 1]
    facts["side"] = chance.choose(("before", "after"))
    facts["word"], answer = pair if facts["side"] == "after" else reversed(pair)
    return Exercise("neighbour", facts, answer, _of_words(words))


def _calendar(chance: Chance, _: object) -> Exercise:
    """Some days or months on or back, around the end of the week or of the year."""
    unit, names = chance.choose((("day", WEEKDAYS), ("month", MONTHS)))
    start, steps = chance.below(len(names)), 1 + chance.below(LARGEST_DISTANCE)
    direction = chance.choose(("after", "before"))
    facts = {
        "unit": unit,
        "now": "today" if unit == "day" else "this month",
        "start": names[start],
        "distance": f"{('one', 'two', 'three', 'four')[steps - 1]} {unit}{'s' if steps > 1 else ''}",
    }
    answer = names[(start + (steps if direction == "after" else -steps)) % len(names)]
    return Exercise(f"calendar_{direction}", facts, answer, (direction, facts["distance"], facts["start"]), of_few=True)


def _reading(chance: Chance, belongs: Callable[[Combination], bool]) -> Exercise:
    """Two to four children who own something, and a question about one of them.

    An owner and his thing that stand together in one split never do so in another.
    """
    verb, auxiliary, base = chance.choose(OWNING_VERBS)
    count = 2 + chance.below(3)
    colours = chance.sample(OWNER_COLOURS, count)
    owners: dict[str, str] = {}
    while len(owners) < count:
        owner, thing = chance.choose(OWNER_NAMES), chance.choose(OWNED_THINGS)
        if belongs((owner, thing)) and owner not in owners and thing not in owners.values():
            owners[owner] = thing
    asked = chance.below(count)
    owner, thing = list(owners.items())[asked]
    facts = {"verb": verb, "auxiliary": auxiliary, "base": base, "owner": owner, "thing": thing}
    facts["text"] = " ".join(
        f"{name} {verb} a {colour} {owned}." for colour, (name, owned) in zip(colours, owners.items(), strict=True)
    )
    question = chance.choose(("who", "what", "colour"))
    answer = {"who": owner, "what": f"a {colours[asked]} {thing}", "colour": colours[asked]}[question]
    return Exercise(question, facts, answer, (owner, thing))


TASKS: dict[str, Draw] = {
    "copy": _rewritten("copy", 3, 6, lambda words: words),
    "reverse": _rewritten("reverse", 3, 5, lambda words: words[::-1]),
    "upper_case": _rewritten("upper_case", 2, 4, lambda words: [word.upper() for word in words]),
    "count": _count,
    "plural": _looked_up("plural", dict(PLURALS)),
    "opposite": _looked_up(
        "opposite", {word: other for one, two in OPPOSITES for word, other in ((one, two), (two, one))}
    ),
    "sum": _sum,
    "odd_one_out": _odd_one_out,
    "position": _position,
    "sort": _rewritten("sort", 3, 4, sorted),
    "calendar": _calendar,
    "reading": _reading,
}

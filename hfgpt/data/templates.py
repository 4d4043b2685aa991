"""What the built-in generators share: chance that is the same on every machine, and sentences with alternatives."""

import hashlib
import random
import re
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Chance", "fill_template"]

_INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r"(^|[.!?] |\.\" |\n)([a-z])")

_Item = TypeVar("_Item")


class Chance:
    """Random choices by integer arithmetic only, so that they are the same on every machine.

    The choices of item number `index` are a function of (seed, index).
    """

    def __init__(self, seed: int, index: int) -> None:
        digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
        self._random = random.Random(int.from_bytes(digest, "big"))

    def below(self, bound: int) -> int:
        """A number from 0 to `bound - 1`."""
        return (self._random.getrandbits(32) * bound) >> 32

    def percent(self, percentage: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < percentage

    def choose(self, items: Sequence[_Item]) -> _Item:
        """One of the items, each as likely as the others."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[_Item], count: int) -> list[_Item]:
        """`count` different items, in random order."""
        remaining = list(items)
        return [remaining.pop(self.below(len(remaining))) for _ in range(count)]


def fill_template(template: str, facts: dict[str, str], chance: Chance) -> str:
    """Choose among alternatives `[one|another]`, innermost first, put facts into slots, and begin sentences large.

    Slots are those of `str.format`; every sentence then begins with a capital.
    """
    text = template
    while "[" in text:
        text = _INNERMOST_CHOICE.sub(lambda match: chance.choose(match[1].split("|")), text)
    text = text.format_map(facts)
    return _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)

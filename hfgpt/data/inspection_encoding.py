"""What goes wrong with the encoding of texts: found, counted, and shown where it is."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfgpt.bulk_encoding import replace_lone_surrogates
from hfgpt.data.files import errors_of_the_user, file_kind, list_files
from hfgpt.data.readers import read_whole_records

__all__ = ["EncodingTrouble", "find_encoding_trouble", "find_lone_surrogates"]

# All but tab, line feed and carriage return.
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
REPLACEMENT_CHARACTERS = re.compile("\ufffd")

MOST_SAMPLES = 5
CHARACTERS_AROUND = 24


@dataclass
class EncodingTrouble:
    """One kind of trouble.

    Attributes:
        kind: mojibake, control characters, replacement characters or lone surrogates.
        count: the examples that have it; of lone surrogates, the characters.
        samples: the place of the first ones, and the text around.
    """

    kind: str
    count: int = 0
    samples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, place: str, sample: str, count: int = 1) -> None:
        """Count, and keep as a sample if there are few yet."""
        self.count += count
        if len(self.samples) < MOST_SAMPLES:
            self.samples.append((place, sample))


def find_encoding_trouble(examples: Iterable[tuple[str, Sequence[str]]]) -> list[EncodingTrouble]:
    """Look through examples, each a place and its texts; what is not found is not listed.

    Mojibake, UTF-8 that was read as something else (`cafÃ©`), is what ftfy's heuristic of bad sequences finds; its
    samples say how ftfy would mend them.
    """
    searches: dict[str, Callable[[str], re.Match[str] | None]] = {
        "mojibake": _search_mojibake,
        "control characters": CONTROL_CHARACTERS.search,
        "replacement characters (U+FFFD)": REPLACEMENT_CHARACTERS.search,
    }
    troubles = {kind: EncodingTrouble(kind) for kind in searches}
    for place, texts in examples:
        for kind, search in searches.items():
            found = next(((text, match) for text in texts if (match := search(text))), None)
            if found is not None:
                troubles[kind].add(place, _sample(*found, mend=kind == "mojibake"))
    return [trouble for trouble in troubles.values() if trouble.count]


def _search_mojibake(text: str) -> re.Match[str] | None:
    if text.isascii():
        return None
    from ftfy.badness import BADNESS_RE

    return BADNESS_RE.search(text)


def _sample(text: str, match: re.Match[str], *, mend: bool) -> str:
    start, end = max(0, match.start() - CHARACTERS_AROUND), match.end() + CHARACTERS_AROUND
    around = text[start:end]
    sample = ascii(around) if not mend else repr(around)
    if mend:
        import ftfy

        if (mended := ftfy.fix_encoding(around)) != around:
            sample += f" (for {mended!r}?)"
    return sample


def find_lone_surrogates(path: Path) -> EncodingTrouble:
    r"""Count the halves of surrogate pairs in local files, which become U+FFFD wherever they are read.

    Only JSON can hold them, as `\ud83d`; the other formats are UTF-8, which cannot write them.

    Raises:
        UserError: a file cannot be read.
    """
    trouble = EncodingTrouble("lone surrogates")
    for file in list_files(path):
        if file_kind(file) in (".json", ".jsonl"):
            with errors_of_the_user(file):
                for place, record in read_whole_records(file):
                    for text in _strings(record):
                        replaced, count = replace_lone_surrogates(text)
                        if count:
                            match = REPLACEMENT_CHARACTERS.search(replaced)
                            assert match is not None
                            trouble.add(f"{place()} of {file}", _sample(replaced, match, mend=False), count)
    return trouble


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)

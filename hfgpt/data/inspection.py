"""What a data set is like, before anything is trained on it: sizes, lengths, duplicates, encoding trouble, beginnings.

A text, a labelled text and a conversation are looked at in the same way, as a prompt that may have an answer: the
question and the answer of a conversation, a text and its class, or a text alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from hfgpt.data.conversation_forms import Message
from hfgpt.data.inspection_duplicates import NearPair, Track, find_near_duplicates, untracked
from hfgpt.data.inspection_encoding import EncodingTrouble, find_encoding_trouble
from hfgpt.data.inspection_sources import Example
from hfgpt.data.parts import normalised_text

__all__ = [
    "Inspection",
    "Lengths",
    "NearExample",
    "Repetition",
    "SharedReport",
    "SplitReport",
    "inspect_examples",
]

# Answers of so many characters are shown: they are right ("7"), or what is left of something.
SHORT_ANSWER = 2
MOST_SAMPLES = 5
MOST_FIRST_WORDS = 10
WORDS_AT_THE_BEGINNING = 2

CountTokens = Callable[[list[str]], Sequence[int]]
CountConversationTokens = Callable[[list[Sequence[Message]]], Sequence[int]]


@dataclass(frozen=True)
class Lengths:
    """Of the prompts or answers of a split, in one unit."""

    split: str
    part: str
    unit: str
    minimum: int
    median: int
    percentile_95: int
    maximum: int
    total: int


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        name: train, validation, test, or what the source calls it.
        examples: their number.
        empty_prompts: without text.
        empty_answers: without text, or not there.
        short_answers: of one or two characters.
        short_answer_samples: the most frequent of them, and how often they are given.
        repeated_examples: rows whose prompt and answer stand in an earlier row, but for case and white space.
        repeated_prompts: rows whose prompt stands in an earlier row, whatever the answer.
        near_duplicates: rows to whose prompt another one is near, but not equal; None: not looked for.
        first_words: the most frequent first two words of prompts.
        encoding: trouble with it.
    """

    name: str
    examples: int
    empty_prompts: int
    empty_answers: int
    short_answers: int
    short_answer_samples: list[tuple[str, int]]
    repeated_examples: int
    repeated_prompts: int
    near_duplicates: int | None
    first_words: list[tuple[str, int]]
    encoding: list[EncodingTrouble]


@dataclass(frozen=True)
class SharedReport:
    """How many rows of `split` stand in `other`, too: prompt and answer, the prompt, or one near it."""

    split: str
    other: str
    examples: int
    prompts: int
    near_duplicates: int | None


@dataclass(frozen=True)
class Repetition:
    """A prompt that several rows have: its text as the first writes it, and those rows."""

    prompt: str
    rows: list[tuple[str, int]]


@dataclass(frozen=True)
class NearExample:
    """Two prompts that are nearly one, each with the first row that has it."""

    similarity: float
    first: tuple[str, int]
    first_prompt: str
    second: tuple[str, int]
    second_prompt: str


@dataclass(frozen=True)
class Inspection:
    """What `inspect_examples` found.

    Attributes:
        splits: one by one.
        lengths: of prompts and answers, in characters and, with a tokenizer, in tokens.
        shared: for each two splits, each in the other.
        num_repeated_prompts: different prompts that more than one row has.
        repetitions: the most frequent of them.
        num_near_pairs: pairs of different prompts that are near each other; None: not looked for.
        near_pairs: the nearest of them, first those of two splits.
        threshold: the similarity from which on prompts are near.
        totals: the lengths of the examples of each split, prompt and answer together.
        unit: of `totals`: tokens if they were counted, else characters.
    """

    splits: list[SplitReport]
    lengths: list[Lengths]
    shared: list[SharedReport]
    num_repeated_prompts: int
    repetitions: list[Repetition]
    num_near_pairs: int | None
    near_pairs: list[NearExample]
    threshold: float
    totals: dict[str, list[int]]
    unit: str


def inspect_examples(
    splits: Mapping[str, Sequence[Example]],
    *,
    count_tokens: CountTokens | None = None,
    count_conversation_tokens: CountConversationTokens | None = None,
    near: bool = True,
    threshold: float = 0.8,
    track: Track = untracked,
) -> Inspection:
    """Look through all examples of all splits.

    Args:
        splits: by their names, none of them empty.
        count_tokens: the numbers of tokens of texts; default: lengths are in characters only.
        count_conversation_tokens: those of whole conversations in their template; default: they are not counted, and
            the tokens of a conversation are those of its texts.
        near: whether near duplicates are looked for.
        threshold: the Jaccard similarity of shingles from which on they are near (`hfgpt.data.inspection_duplicates`).
        track: shows the progress of long work.

    Raises:
        UserError: the threshold is out of bounds.
    """
    keys = {name: [normalised_text(example.prompt) for example in examples] for name, examples in splits.items()}
    rows_of: dict[str, list[tuple[str, int]]] = {}
    for name, examples in splits.items():
        for key, example in zip(keys[name], examples, strict=True):
            rows_of.setdefault(key, []).append((name, example.row))
    distinct = [key for key in rows_of if key]
    pairs = find_near_duplicates(distinct, threshold=threshold, track=track) if near else None
    neighbours = _neighbours(distinct, pairs) if pairs is not None else None
    splits_of = {key: {name for name, _ in rows} for key, rows in rows_of.items()}
    written = _as_first_written(splits, keys)
    lengths, totals = _measure(splits, count_tokens, count_conversation_tokens)
    return Inspection(
        splits=[_report(name, examples, keys[name], neighbours, splits_of, track) for name, examples in splits.items()],
        lengths=lengths,
        shared=[_shared(one, other, splits, keys, neighbours, splits_of) for one, other in permutations(splits, 2)],
        num_repeated_prompts=sum(len(rows) > 1 for key, rows in rows_of.items() if key),
        repetitions=[
            Repetition(written[key], rows_of[key])
            for key in sorted(distinct, key=lambda key: -len(rows_of[key]))[:MOST_SAMPLES]
            if len(rows_of[key]) > 1
        ],
        num_near_pairs=None if pairs is None else len(pairs),
        near_pairs=_nearest(pairs or [], distinct, rows_of, written),
        threshold=threshold,
        totals=totals,
        unit="characters" if count_tokens is None else "tokens",
    )


def _neighbours(distinct: Sequence[str], pairs: Sequence[NearPair]) -> dict[str, list[str]]:
    neighbours: dict[str, list[str]] = {}
    for pair in pairs:
        first, second = distinct[pair.first], distinct[pair.second]
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    return neighbours


def _as_first_written(splits: Mapping[str, Sequence[Example]], keys: Mapping[str, Sequence[str]]) -> dict[str, str]:
    written: dict[str, str] = {}
    for name, examples in splits.items():
        for key, example in zip(keys[name], examples, strict=True):
            written.setdefault(key, example.prompt)
    return written


def _both(key: str, example: Example) -> tuple[str, str]:
    return key, normalised_text(example.answer or "")


def _report(
    name: str,
    examples: Sequence[Example],
    keys: Sequence[str],
    neighbours: Mapping[str, Sequence[str]] | None,
    splits_of: Mapping[str, set[str]],
    track: Track,
) -> SplitReport:
    answers = [example.answer.strip() for example in examples if example.answer is not None]
    short = Counter(answer for answer in answers if 0 < len(answer) <= SHORT_ANSWER)
    first_words = Counter(" ".join(key.split()[:WORDS_AT_THE_BEGINNING]) for key in keys if key)
    texts = [(f"row {example.row}", (example.prompt, example.answer or "")) for example in examples]
    return SplitReport(
        name=name,
        examples=len(examples),
        empty_prompts=sum(not key for key in keys),
        empty_answers=sum(example.answer is not None and not example.answer.strip() for example in examples),
        short_answers=short.total(),
        short_answer_samples=short.most_common(MOST_SAMPLES),
        repeated_examples=len(examples) - len({_both(*each) for each in zip(keys, examples, strict=True)}),
        repeated_prompts=len(keys) - len(set(keys)),
        near_duplicates=_count_near(keys, neighbours, splits_of, name),
        first_words=first_words.most_common(MOST_FIRST_WORDS),
        encoding=find_encoding_trouble(track(texts, f"encoding of {name}")),
    )


def _count_near(
    keys: Sequence[str],
    neighbours: Mapping[str, Sequence[str]] | None,
    splits_of: Mapping[str, set[str]],
    other: str,
) -> int | None:
    """How many of these rows have a neighbour in the split `other`."""
    if neighbours is None:
        return None
    return sum(any(other in splits_of[neighbour] for neighbour in neighbours.get(key, ())) for key in keys)


def _shared(
    one: str,
    other: str,
    splits: Mapping[str, Sequence[Example]],
    keys: Mapping[str, Sequence[str]],
    neighbours: Mapping[str, Sequence[str]] | None,
    splits_of: Mapping[str, set[str]],
) -> SharedReport:
    asked = set(keys[other])
    answered = {_both(*each) for each in zip(keys[other], splits[other], strict=True)}
    return SharedReport(
        split=one,
        other=other,
        examples=sum(_both(*each) in answered for each in zip(keys[one], splits[one], strict=True)),
        prompts=sum(key in asked for key in keys[one]),
        near_duplicates=_count_near(keys[one], neighbours, splits_of, other),
    )


def _nearest(
    pairs: Sequence[NearPair],
    distinct: Sequence[str],
    rows_of: Mapping[str, Sequence[tuple[str, int]]],
    written: Mapping[str, str],
) -> list[NearExample]:
    def is_within_one_split(pair: NearPair) -> bool:
        first, second = ({name for name, _ in rows_of[distinct[number]]} for number in pair[:2])
        return len(first | second) == 1

    nearest = sorted(pairs, key=is_within_one_split)[:MOST_SAMPLES]  # stable: the most similar stay first
    return [
        NearExample(
            pair.similarity,
            rows_of[distinct[pair.first]][0],
            written[distinct[pair.first]],
            rows_of[distinct[pair.second]][0],
            written[distinct[pair.second]],
        )
        for pair in nearest
    ]


def _measure(
    splits: Mapping[str, Sequence[Example]],
    count_tokens: CountTokens | None,
    count_conversation_tokens: CountConversationTokens | None,
) -> tuple[list[Lengths], dict[str, list[int]]]:
    """The lengths of prompts and answers, and of each example in all, in tokens if they can be counted."""
    measures: dict[str, CountTokens] = {"characters": lambda texts: list(map(len, texts))}
    if count_tokens is not None:
        measures["tokens"] = count_tokens
    lengths, totals = [], {}
    for unit, measure in measures.items():
        for name, examples in splits.items():
            conversations = [example.messages for example in examples if example.messages]
            texts = {"prompt" if conversations else "text": [example.prompt for example in examples]}
            if conversations:
                texts["answer"] = [example.answer or "" for example in examples]
            measured = {part: np.asarray(measure(each), dtype=np.int64) for part, each in texts.items()}
            total = sum(measured.values(), start=np.zeros(len(examples), dtype=np.int64))
            if conversations and unit == "tokens" and count_conversation_tokens is not None:
                total = np.asarray(count_conversation_tokens(conversations), dtype=np.int64)
                measured["in its template"] = total
            lengths += [_lengths(name, part, unit, numbers) for part, numbers in measured.items()]
            totals[name] = total.tolist()
    return lengths, totals


def _lengths(split: str, part: str, unit: str, numbers: NDArray[np.int64]) -> Lengths:
    points = np.percentile(numbers, [0, 50, 95, 100], method="inverted_cdf")
    minimum, median, percentile_95, maximum = map(int, points)
    return Lengths(split, part, unit, minimum, median, percentile_95, maximum, int(numbers.sum()))

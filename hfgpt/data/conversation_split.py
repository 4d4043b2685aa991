"""Training, validation and test of conversations: no question on two sides, and no row lost uncounted."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import datasets

from hfgpt.data.parts import PARTS, check_fractions, normalised_text, part_sizes
from hfgpt.errors import UserError

__all__ = ["ConversationSplits", "answer_of", "prompt_of", "rows_in_order", "split_conversations"]

_HASH_BYTES = 16


class ConversationSplits(NamedTuple):
    """Three parts of conversations, and what became of the rest.

    Attributes:
        train: columns as they came.
        validation: likewise.
        test: likewise.
        counts: how many rows came in (`rows`; of all data sets that were given) and where each has gone: `train`,
            `validation`, `test`, `duplicates` (of another row of the same part), `overlap` (with another part). The sum
            of the others is `rows`.
        description: the same in lines to print.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset
    counts: dict[str, int]
    description: list[str]


class _Example(NamedTuple):
    """A row: its place in the order of the seed, its question and answer normalised and as written, and its number.

    `asked` has a hash of each question that it answers, the earlier ones of a longer talk, too.
    """

    rank: bytes
    prompt: str
    answer: str
    written: tuple[str, ...]
    row: int
    asked: frozenset[bytes]


def prompt_of(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands before the last answer, message by message; an input follows its instruction after a line break."""
    question = messages[:-1] if messages[-1]["role"] == "assistant" else messages
    return ["\n".join(filter(None, (message["content"], message["input"]))) for message in question]


def answer_of(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The last answer; None if the conversation ends with the user."""
    return messages[-1]["content"] if messages[-1]["role"] == "assistant" else None


def rows_in_order(num_rows: int, *, validation_fraction: float, test_fraction: float) -> dict[str, range]:
    """The book's split (section 7.2): the first rows for training, the next for test, the rest for validation.

    A fraction may be 0; then that part is empty.
    """
    # A fraction that a binary number misses by a hair is to miss no row.
    num_train = int(num_rows * (1 - validation_fraction - test_fraction) + 1e-6)
    end_of_test = num_train + int(num_rows * test_fraction + 1e-6) if validation_fraction else num_rows
    return {
        "train": range(num_train),
        "test": range(num_train, end_of_test),
        "validation": range(end_of_test, num_rows),
    }


def split_conversations(
    dataset: datasets.Dataset,
    *,
    validation_fraction: float = 0.05,
    test_fraction: float = 0.1,
    seed: int = 0,
    shuffle: bool = True,
    validation: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
) -> ConversationSplits:
    """Split conversations such that no part is asked what another one is.

    Two texts are one if `normalised_text` makes them equal. The question of a conversation is all that stands before
    its last answer. Of rows with the same question and the same answer one stays. A question with several answers is
    none too many within a part; but if two parts have it, it goes from training, and of validation and test from
    validation, so that what is measured is measured on all that was set apart. So does a longer conversation that gives
    an earlier answer to such a question, since all of its answers are learned.

    Args:
        dataset: what `load_conversations` returns.
        validation_fraction: the share of validation, if no `validation` is given.
        test_fraction: the share of test, if no `test` is given.
        seed: another seed chooses other rows.
        shuffle: chance makes the split: questions are cut by the fractions, each with all its answers, and which goes
            where, and the order of the rows, is a function of the seed and the texts and does not depend on the order
            in which they come. Otherwise rows are cut in their order, the first for training, the next for test and the
            last for validation, as the book does (section 7.2: 935, 110 and 55 of 1,100), and stay in it; what two
            parts share is removed then, too.
        validation: a validation part that is given. It stays as it is, but for what `test` has too.
        test: a test part that is given. It stays as it is.

    Raises:
        UserError: a fraction is out of bounds, or a part has no rows.
    """
    fractions = check_fractions(validation_fraction, test_fraction, validation=validation, test=test)
    given = {name: part for name, part in (("test", test), ("validation", validation)) if part is not None}
    counts = dict.fromkeys(("rows", *reversed(PARTS), "duplicates", "overlap"), 0)
    counts["rows"] = len(dataset) + sum(map(len, given.values()))

    parts = {name: _examples(part, seed) for name, part in given.items()}
    pool = _examples(dataset, seed)
    if shuffle:
        asked = {_hashed(example.prompt) for examples in parts.values() for example in examples}
        apart = [example for example in pool if example.asked.isdisjoint(asked)]
        counts["overlap"] += len(pool) - len(apart)
        distinct = _remove_duplicates(sorted(apart), counts)
        parts |= _cut_questions(distinct, fractions)
    else:
        share = {f"{name}_fraction": fractions.get(name, 0.0) for name in ("validation", "test")}
        for name, rows in rows_in_order(len(pool), **share).items():
            if name not in given:
                parts[name] = _remove_duplicates([pool[row] for row in rows], counts)
    _remove_overlap(parts, counts)
    for name in PARTS:
        if not parts[name]:
            raise UserError(
                f"no conversations are left for {name}, of {counts['rows']:,} in all ({counts['duplicates']:,} are "
                f"duplicates, {counts['overlap']:,} stand in another part); give more of them, or other fractions."
            )
        counts[name] = len(parts[name])
    chosen = {name: given.get(name, dataset).select([example.row for example in parts[name]]) for name in PARTS}
    return ConversationSplits(**chosen, counts=counts, description=_describe(counts))


def _examples(dataset: datasets.Dataset, seed: int) -> list[_Example]:
    examples = []
    for row, messages in enumerate(dataset["messages"]):
        written = (*prompt_of(messages), answer_of(messages) or "")
        normalised = [normalised_text(text) for text in written]
        prompt, answer = "\0".join(normalised[:-1]), normalised[-1]
        answered = {place for place, message in enumerate(messages) if message["role"] == "assistant"}
        asked = frozenset(_hashed("\0".join(normalised[:place])) for place in answered | {len(normalised) - 1})
        examples.append(_Example(_hashed(f"{seed}:{prompt}"), prompt, answer, written, row, asked))
    return examples


def _hashed(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_HASH_BYTES).digest()


def _remove_duplicates(examples: Sequence[_Example], counts: dict[str, int]) -> list[_Example]:
    """The first of those with the same question and the same answer."""
    distinct: dict[tuple[str, str], _Example] = {}
    for example in examples:
        distinct.setdefault((example.prompt, example.answer), example)
    counts["duplicates"] += len(examples) - len(distinct)
    return list(distinct.values())


def _cut_questions(examples: Sequence[_Example], fractions: dict[str, float]) -> dict[str, list[_Example]]:
    """Cut what is sorted by its rank by the fractions of its questions, each with all its answers."""
    questions: dict[str, list[_Example]] = {}
    for example in examples:
        questions.setdefault(example.prompt, []).append(example)
    if len(questions) < len(fractions):
        raise UserError(
            f"only {len(questions)} different questions are left for {', '.join(reversed(fractions))}; give more "
            "conversations, one question at least for each."
        )
    groups, parts, start = list(questions.values()), {}, 0
    for name, size in zip(fractions, part_sizes(len(groups), list(fractions.values())), strict=True):
        parts[name] = [example for group in groups[start : start + size] for example in group]
        start += size
    return parts


def _remove_overlap(parts: dict[str, list[_Example]], counts: dict[str, int]) -> None:
    asked: set[bytes] = set()
    for name in PARTS:
        apart = [example for example in parts[name] if example.asked.isdisjoint(asked)]
        counts["overlap"] += len(parts[name]) - len(apart)
        parts[name] = apart
        asked |= {_hashed(example.prompt) for example in apart}


def _describe(counts: Mapping[str, int]) -> list[str]:
    reasons = {
        "duplicates": "dropped as duplicates: question and answer stand there already",
        "overlap": "dropped because another part, test before validation before training, has the same question",
    }
    lines = [f"{counts['rows']:,} conversations"]
    lines += [f"{counts[name]:,} {reason}" for name, reason in reasons.items() if counts[name]]
    return [*lines, ", ".join(f"{name}: {counts[name]:,}" for name in reversed(PARTS))]

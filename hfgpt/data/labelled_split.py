"""Training, validation and test of labelled texts: no text on two sides, and no row lost uncounted."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal, NamedTuple

import datasets

from hfgpt.data.parts import PARTS, check_fractions, normalised_text, part_sizes
from hfgpt.errors import UserError

__all__ = ["LabelledSplits", "split_labelled"]

_HASH_BYTES = 16


class LabelledSplits(NamedTuple):
    """Three parts of labelled texts, and what became of the rest.

    Attributes:
        train: columns as they came; `label` has only classes that occur.
        validation: likewise.
        test: likewise.
        unused: what down-sampling left out, without labels: text that a pretraining may read, for none of it stands in
            another part.
        class_weights: for "class_weights", N / (C * n_c) for each class c, where n_c of the N rows of `train` are of c;
            else None.
        counts: how many rows came in (`rows`) and where each has gone: `train`, `validation`, `test`, `unused`,
            `empty` (dropped), `duplicates`, `contradictions`, `overlap`. Their sum is `rows`. Rows of `rows` are those
            of all data sets that were given. `empty_kept` counts texts that are empty and stayed.
        description: the same in lines to print.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset
    unused: datasets.Dataset
    class_weights: list[float] | None
    counts: dict[str, int]
    description: list[str]


class _Example(NamedTuple):
    """A row: its place in the order of the seed, its text(s) normalised and as they are, its class, its number."""

    rank: bytes
    key: str
    text: tuple[str, ...]
    label: str
    row: int


def split_labelled(
    dataset: datasets.Dataset,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    balance: Literal["downsample", "class_weights", "none"] = "downsample",
    empty_texts: Literal["keep", "drop"] = "keep",
    validation: datasets.Dataset | None = None,
    test: datasets.Dataset | None = None,
) -> LabelledSplits:
    """Remove duplicates, balance the classes, and split each of them by the same fractions.

    Two texts (with their pairs, if there are any) are one if `normalised_text` makes them equal. Of several rows of one
    text with the same label one stays; if their labels contradict each other, none does. Then the classes are balanced,
    and each is cut into its parts by largest remainders: within one of the fractions, but at least one row for every
    part. Which row goes where, and the order of the rows, is a function of the seed and the texts and does not depend
    on the order in which they come.

    Args:
        dataset: what `load_labelled` returns.
        validation_fraction: the share of validation, if no `validation` is given.
        test_fraction: the share of test, if no `test` is given.
        seed: another seed chooses other rows.
        balance: `downsample` leaves every class as many rows as the smallest has, as the book does (section 6.2);
            `class_weights` leaves all and returns weights for the loss; `none` leaves all.
        empty_texts: whether rows without text (in neither column) stay or go. Those that stay are duplicates of each
            other.
        validation: a validation part that is given. It stays as it is, but for what `test` has too.
        test: a test part that is given. It stays as it is; texts that it shares with others are removed from them.

    Raises:
        UserError: a fraction is out of bounds, there are fewer than two classes, a class has too few rows for every
            part, or a given part has labels that training has not.
    """
    fractions = _check_options(validation_fraction, test_fraction, balance, empty_texts, validation, test)
    given = {name: part for name, part in (("test", test), ("validation", validation)) if part is not None}
    counts = dict.fromkeys(
        ("rows", *PARTS, "unused", "empty", "duplicates", "contradictions", "overlap", "empty_kept"), 0
    )
    counts["rows"] = len(dataset) + sum(map(len, given.values()))

    seen: set[str] = set()
    parts: dict[str, list[_Example]] = {}
    for name, part in given.items():
        examples = _drop_empty(_examples(part, seed, keep_rank=False), empty_texts, counts)
        parts[name] = [example for example in examples if example.key not in seen]
        counts["overlap"] += len(examples) - len(parts[name])
        seen |= {example.key for example in parts[name]}
    pool = _drop_empty(_examples(dataset, seed), empty_texts, counts)
    apart = [example for example in pool if example.key not in seen]
    counts["overlap"] += len(pool) - len(apart)
    distinct = _remove_duplicates(apart, counts)
    classes = _by_class(distinct, dataset.features["label"].names)
    _check_classes(classes, fractions, given, parts, dataset)

    unused: list[_Example] = []
    if balance == "downsample":
        smallest = min(map(len, classes.values()))
        unused = [example for examples in classes.values() for example in examples[smallest:]]
        classes = {name: examples[:smallest] for name, examples in classes.items()}
    for examples in classes.values():
        start = 0
        for name, size in zip(fractions, part_sizes(len(examples), list(fractions.values())), strict=True):
            parts.setdefault(name, []).extend(examples[start : start + size])
            start += size
    names = list(classes)
    sources = {
        "train": dataset,
        "validation": dataset if validation is None else validation,
        "test": dataset if test is None else test,
    }
    finished = {name: _select(sources[name], parts[name], names, in_order=name in given) for name in PARTS}
    counts |= {name: len(part) for name, part in finished.items()} | {"unused": len(unused)}
    counts["empty_kept"] = sum(not example.key.strip("\0") for part in parts.values() for example in part)
    weights = _class_weights(parts["train"], names) if balance == "class_weights" else None
    return LabelledSplits(
        **finished,
        unused=_select(dataset, unused, None, in_order=False),
        class_weights=weights,
        counts=counts,
        description=_describe(counts, parts, names, balance, weights),
    )


def _check_options(
    validation_fraction: float,
    test_fraction: float,
    balance: str,
    empty_texts: str,
    validation: datasets.Dataset | None,
    test: datasets.Dataset | None,
) -> dict[str, float]:
    """The fractions of what is still to be cut, in the order of `PARTS`."""
    if balance not in ("downsample", "class_weights", "none"):
        raise UserError(f"classes are balanced by 'downsample', 'class_weights' or 'none', not by {balance!r}.")
    if empty_texts not in ("keep", "drop"):
        raise UserError(f"empty_texts is 'keep' or 'drop', not {empty_texts!r}.")
    return check_fractions(validation_fraction, test_fraction, validation=validation, test=test)


def _examples(dataset: datasets.Dataset, seed: int, *, keep_rank: bool = True) -> list[_Example]:
    columns = [name for name in ("text", "text_pair") if name in dataset.column_names]
    names = dataset.features["label"].names
    examples = []
    texts = zip(*(dataset[column] for column in columns), strict=True)
    for row, (text, label) in enumerate(zip(texts, dataset["label"], strict=True)):
        key = "\0".join(map(normalised_text, text))
        rank = blake2b(f"{seed}:{key}".encode(), digest_size=_HASH_BYTES).digest() if keep_rank else b""
        examples.append(_Example(rank, key, text, names[label], row))
    return examples


def _drop_empty(examples: list[_Example], empty_texts: str, counts: dict[str, int]) -> list[_Example]:
    if empty_texts == "keep":
        return examples
    with_text = [example for example in examples if example.key.strip("\0")]
    counts["empty"] += len(examples) - len(with_text)
    return with_text


def _remove_duplicates(examples: Iterable[_Example], counts: dict[str, int]) -> list[_Example]:
    """One row of each text, in the order of the seed; none of a text with several labels.

    Of the rows of one text that stays which has the smallest text as it is written: not the first, which would depend
    on their order.
    """
    groups: dict[str, list[_Example]] = {}
    for example in examples:
        groups.setdefault(example.key, []).append(example)
    distinct = []
    for group in groups.values():
        if len({example.label for example in group}) > 1:
            counts["contradictions"] += len(group)
        else:
            counts["duplicates"] += len(group) - 1
            distinct.append(min(group, key=lambda example: example.text))
    return sorted(distinct)


def _by_class(examples: list[_Example], names: list[str]) -> dict[str, list[_Example]]:
    """The rows of each class that occurs, in the order of the classes."""
    classes: dict[str, list[_Example]] = {name: [] for name in names}
    for example in examples:
        classes[example.label].append(example)
    return {name: rows for name, rows in classes.items() if rows}


def _check_classes(
    classes: dict[str, list[_Example]],
    fractions: dict[str, float],
    given: dict[str, datasets.Dataset],
    parts: dict[str, list[_Example]],
    dataset: datasets.Dataset,
) -> None:
    ids, names = set(dataset["label"]), dataset.features["label"].names
    lost = [name for index, name in enumerate(names) if index in ids and name not in classes]
    few = dict.fromkeys(lost, 0) | {name: len(rows) for name, rows in classes.items()}
    for name, size in few.items():
        if size < len(fractions):
            raise UserError(
                f"class {name!r} has {size} example{'' if size == 1 else 's'} with texts of their own, and at least "
                f"{len(fractions)} are needed, one for each of {', '.join(reversed(fractions))}; "
                "add some or take the class out."
            )
    for name in given:
        strange = sorted({example.label for example in parts[name]} - set(classes))
        if strange:
            raise UserError(
                f"{name} has labels that training never saw: {', '.join(map(repr, strange))} (training has "
                f"{', '.join(map(repr, classes))}); take these rows out or give examples of these classes to train on."
            )
        if not parts[name]:
            raise UserError(f"the given {name} data has no rows left; give data with text of its own.")
    if len(classes) < 2:
        raise UserError(
            f"there is nothing to tell apart: the labels have {len(classes)} class"
            f"{'es' if not classes else ', ' + repr(next(iter(classes)))}; give texts of two classes or more."
        )


def _select(
    dataset: datasets.Dataset, examples: list[_Example], names: list[str] | None, *, in_order: bool
) -> datasets.Dataset:
    """The rows of `examples`, in the order of the seed or as given (`in_order`); labels by `names`, or none at all."""
    chosen = examples if in_order else sorted(examples)
    part = dataset.select([example.row for example in chosen])
    if names is None:
        return part.remove_columns("label")
    if dataset.features["label"].names == names:
        return part
    labels = [names.index(example.label) for example in chosen]
    return part.remove_columns("label").add_column("label", labels, feature=datasets.ClassLabel(names=names))


def _class_weights(train: list[_Example], names: list[str]) -> list[float]:
    counts = dict.fromkeys(names, 0)
    for example in train:
        counts[example.label] += 1
    return [len(train) / (len(names) * counts[name]) for name in names]


def _describe(
    counts: dict[str, int],
    parts: dict[str, list[_Example]],
    names: list[str],
    balance: str,
    weights: list[float] | None,
) -> list[str]:
    reasons = {
        "empty": "dropped without text",
        "duplicates": "dropped as duplicates",
        "contradictions": "dropped because the same text has different labels",
        "overlap": "dropped because test or validation has the same text",
        "unused": "left out to balance the classes",
        "empty_kept": "without text kept",
    }
    lines = [f"{counts['rows']:,} labelled texts in {len(names)} classes: {', '.join(names)}"]
    lines += [f"{counts[name]:,} {reason}" for name, reason in reasons.items() if counts[name]]
    for name in reversed(PARTS):
        labels = [example.label for example in parts[name]]
        shares = ", ".join(f"{label} {labels.count(label):,}" for label in names)
        lines.append(f"{name}: {len(labels):,} ({shares})")
    if balance == "class_weights" and weights is not None:
        shares = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True))
        lines.append(f"weights of the classes in the loss: {shares}")
    return lines

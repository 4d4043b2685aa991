"""Training and validation text, split so that no document stands on both sides."""

from hashlib import blake2b
from typing import Literal, NamedTuple

import datasets

from hfgpt.errors import UserError

__all__ = ["MINIMUM_DOCUMENTS_TO_SPLIT", "TextSplit", "split_documents"]

# Below this, choosing whole documents would miss the fraction by far; `auto` then cuts by characters.
MINIMUM_DOCUMENTS_TO_SPLIT = 20

_HASH_BYTES = 8


class TextSplit(NamedTuple):
    """Both sides of a split, and how it was made (`by`: what `auto` chose)."""

    train: datasets.Dataset | datasets.IterableDataset
    validation: datasets.Dataset | datasets.IterableDataset
    by: Literal["documents", "characters"]


def split_documents(
    dataset: datasets.Dataset | datasets.IterableDataset,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    by: Literal["auto", "documents", "characters"] = "auto",
) -> TextSplit:
    """Split the documents of `dataset` (column `text`) into training and validation.

    Args:
        dataset: what `load_text` returns.
        validation_fraction: the share of validation, between 0 and 1, both excluded.
        seed: another seed chooses other documents; `characters` has no chance in it.
        by: `documents` sends each document to the side that a hash of (seed, text) names. The side is a function of the
            text alone: exact duplicates stay together, and a stream splits as the finite data set does.
            `characters` cuts the documents, taken in order, at `int((1 - validation_fraction) * characters)`, as the
            book does (section 5.1.3), and the document on which the cut falls in two; finite data sets only.
            `auto` is `documents` for streams and from 20 documents on, else `characters`.

    Raises:
        UserError: the fraction is not between 0 and 1, a side would be empty, or a stream is to be cut by characters.
    """
    if not 0 < validation_fraction < 1:
        raise UserError(f"validation_fraction is {validation_fraction}; it must lie between 0 and 1, both excluded.")
    is_stream = isinstance(dataset, datasets.IterableDataset)
    if by == "auto":
        by = "documents" if is_stream or len(dataset) >= MINIMUM_DOCUMENTS_TO_SPLIT else "characters"
    if by == "characters":
        if is_stream:
            raise UserError("a stream cannot be cut by characters, for its length is not known; split it by documents.")
        return _split_by_characters(dataset, validation_fraction)
    if by != "documents":
        raise UserError(f"a text is split by 'auto', 'documents' or 'characters', not by {by!r}.")
    if is_stream:
        return TextSplit(
            train=_filter(dataset, validation_fraction, seed, validation=False),
            validation=_filter(dataset, validation_fraction, seed, validation=True),
            by="documents",
        )
    return _split_by_documents(dataset, validation_fraction, seed)


def is_validation_document(text: str, *, validation_fraction: float, seed: int) -> bool:
    """Whether a document belongs to validation: its 64-bit hash, as a fraction of 2^64, is below the fraction."""
    digest = blake2b(f"{seed}:{text}".encode(), digest_size=_HASH_BYTES).digest()
    return int.from_bytes(digest, "big") < int(validation_fraction * 2 ** (8 * _HASH_BYTES))


def _filter(
    stream: datasets.IterableDataset, validation_fraction: float, seed: int, *, validation: bool
) -> datasets.IterableDataset:
    arguments = {"validation_fraction": validation_fraction, "seed": seed, "validation": validation}
    return stream.filter(_is_on_side, input_columns=["text"], fn_kwargs=arguments)


def _is_on_side(text: str, *, validation_fraction: float, seed: int, validation: bool) -> bool:
    return is_validation_document(text, validation_fraction=validation_fraction, seed=seed) is validation


def _split_by_documents(dataset: datasets.Dataset, validation_fraction: float, seed: int) -> TextSplit:
    sides: tuple[list[int], list[int]] = ([], [])
    for row, text in enumerate(dataset["text"]):
        sides[is_validation_document(text, validation_fraction=validation_fraction, seed=seed)].append(row)
    for name, rows in zip(("training", "validation"), sides, strict=True):
        if not rows:
            raise UserError(
                f"none of the {len(dataset)} documents falls to {name} with "
                f"validation_fraction={validation_fraction} and seed={seed}; "
                "split by characters, or choose another fraction or seed."
            )
    train, validation = (dataset.select(rows) for rows in sides)
    return TextSplit(train=train, validation=validation, by="documents")


def _split_by_characters(dataset: datasets.Dataset, validation_fraction: float) -> TextSplit:
    num_characters = sum(len(text) for text in dataset["text"])
    cut = int((1 - validation_fraction) * num_characters)
    if not 0 < cut < num_characters:
        raise UserError(
            f"{num_characters} characters leave one side empty with validation_fraction={validation_fraction}; "
            "give more text or another fraction."
        )
    before = 0  # characters of the documents passed
    row = 0  # the document on which the cut falls
    while before + len(dataset[row]["text"]) <= cut:
        before += len(dataset[row]["text"])
        row += 1
    text = dataset[row]["text"]
    head, tail = text[: cut - before], text[cut - before :]
    train = _join(dataset, range(row), [head] if head else [], range(0))
    validation = _join(dataset, range(0), [tail], range(row + 1, len(dataset)))
    return TextSplit(train=train, validation=validation, by="characters")


def _join(dataset: datasets.Dataset, before: range, part_of_document: list[str], after: range) -> datasets.Dataset:
    """The documents `before`, part of one (or none), and the documents `after`, in this order."""
    part = datasets.Dataset.from_dict({"text": part_of_document}, features=dataset.features)
    # An empty range at the end of a data set cannot be selected from it.
    whole = [dataset.select(rows) if len(rows) else None for rows in (before, after)]
    pieces = [whole[0], part if len(part) else None, whole[1]]
    return datasets.concatenate_datasets([piece for piece in pieces if piece is not None])

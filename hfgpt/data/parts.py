"""What the splits of examples share: when two texts are one, and how many rows go to each part."""

import unicodedata
from collections.abc import Sequence

import datasets

from hfgpt.errors import UserError

__all__ = ["PARTS", "check_fractions", "normalised_text", "part_sizes"]

PARTS = ("test", "validation", "train")
"""In the order of precedence: a text that several parts hold stays in the first of them."""


def normalised_text(text: str) -> str:
    """What two texts that are one have in common: NFKC, case folded, white space collapsed."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def part_sizes(num_rows: int, fractions: Sequence[float]) -> list[int]:
    """Cut `num_rows` by `fractions`, which sum to 1, by largest remainders; each part gets at least one row."""
    exact = [num_rows * fraction for fraction in fractions]
    sizes = [int(size) for size in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda part: (sizes[part] - exact[part], part))
    for part in by_remainder[: num_rows - sum(sizes)]:
        sizes[part] += 1
    for part in range(len(sizes)):
        if sizes[part] == 0:
            sizes[part] = 1
            sizes[sizes.index(max(sizes))] -= 1
    return sizes


def check_fractions(
    validation_fraction: float,
    test_fraction: float,
    *,
    validation: datasets.Dataset | None,
    test: datasets.Dataset | None,
) -> dict[str, float]:
    """The fractions of what is still to be cut, in the order of `PARTS`: those of parts that are not given, and train.

    Raises:
        UserError: a fraction is out of bounds, or nothing is left to train on.
    """
    fractions = {}
    for name, fraction, part in (
        ("test", test_fraction, test),
        ("validation", validation_fraction, validation),
    ):
        if part is not None:
            continue
        if not 0 < fraction < 1:
            raise UserError(f"{name}_fraction is {fraction}; it must lie between 0 and 1, both excluded.")
        fractions[name] = fraction
    rest = 1 - sum(fractions.values())
    if rest <= 1e-9:
        raise UserError(
            f"validation_fraction={validation_fraction} and test_fraction={test_fraction} leave nothing to train on; "
            "their sum must be below 1."
        )
    return fractions | {"train": rest}

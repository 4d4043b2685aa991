"""Near duplicates among texts, however many: MinHash finds candidates, real Jaccard similarity decides.

The similarity of two texts is that of their sets of shingles, the runs of five characters of the normalised text:
what both have over what either has (Jaccard 1901). A MinHash signature of 128 numbers agrees in each of them with that
probability (Broder 1997); texts that agree in all the numbers of some band of their signatures are candidates
(locality-sensitive hashing), and so not every pair has to be compared. Bands are so short that a pair at the threshold
is no candidate with a probability below 1 in 10,000; a pair that is found is never in doubt.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hfgpt.data.parts import normalised_text
from hfgpt.errors import UserError

__all__ = ["NearPair", "Track", "find_near_duplicates", "jaccard_similarity", "shingles", "untracked"]

SHINGLE_CHARACTERS = 5
NUM_PERMUTATIONS = 128
HIGHEST_MISS_RATE = 1e-4

# A signature estimates the similarity with a standard deviation of sqrt(s (1 - s) / 128). What is estimated below the
# threshold by more than four of them is not compared in earnest.
DEVIATIONS_BELOW = 4

# Shingles of which a signature is made at once: a large document would otherwise take gigabytes.
SHINGLES_AT_ONCE = 10_000

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits without a pattern: 2^64 over the golden ratio


class NearPair(NamedTuple):
    """Two texts, by their numbers, the first the smaller, and their Jaccard similarity."""

    first: int
    second: int
    similarity: float


class Track(Protocol):
    """Hands on the items of long work, and may show on the way how far it is."""

    def __call__(self, items: Sequence[Any], what: str) -> Iterable[Any]: ...


def untracked(items: Sequence[Any], what: str) -> Iterable[Any]:
    """The items, and nothing shown."""
    return items


def shingles(text: str) -> set[str]:
    """The runs of five characters of the normalised text; a shorter text is its own only one."""
    normalised = normalised_text(text)
    last = max(1, len(normalised) - SHINGLE_CHARACTERS + 1)
    return {normalised[start : start + SHINGLE_CHARACTERS] for start in range(last)}


def jaccard_similarity(first: str, second: str) -> float:
    """What the shingles of two texts have in common, from 0 to 1."""
    return _jaccard(shingles(first), shingles(second))


def _jaccard(first: set[str], second: set[str]) -> float:
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def find_near_duplicates(texts: Sequence[str], *, threshold: float = 0.8, track: Track = untracked) -> list[NearPair]:
    """The pairs of texts whose similarity is `threshold` or more, the most similar first.

    Args:
        texts: each different from the others even when normalised, or equal ones are found, too, in every combination.
        threshold: above 0, at most 1.
        track: shows the progress.

    Raises:
        UserError: the threshold is out of bounds.
    """
    from datasketch import MinHash, MinHashLSH

    if not 0 < threshold <= 1:
        raise UserError(f"the threshold of similarity is {threshold}; it must lie above 0 and be 1 at most.")
    rows_per_band = _rows_per_band(threshold)
    index = MinHashLSH(num_perm=NUM_PERMUTATIONS, params=(NUM_PERMUTATIONS // rows_per_band, rows_per_band))
    empty = MinHash(num_perm=NUM_PERMUTATIONS, hashfunc=int)
    signatures = np.zeros((len(texts), NUM_PERMUTATIONS), dtype=np.uint64)
    lowest_estimate = threshold - DEVIATIONS_BELOW * np.sqrt(threshold * (1 - threshold) / NUM_PERMUTATIONS)
    shingles_of = lru_cache(maxsize=4096)(lambda number: shingles(texts[number]))

    pairs = []
    for number in track(range(len(texts)), "near duplicates"):
        signature = empty.copy()
        hashes = _hashed_shingles(texts[number])
        for start in range(0, len(hashes), SHINGLES_AT_ONCE):
            signature.update_batch(hashes[start : start + SHINGLES_AT_ONCE].tolist())
        signatures[number] = signature.hashvalues
        candidates = np.sort(np.fromiter(index.query(signature), dtype=np.int64))
        estimates = (signatures[candidates] == signatures[number]).mean(axis=1)
        for other in candidates[estimates >= lowest_estimate].tolist():
            similarity = _jaccard(shingles_of(other), shingles_of(number))
            if similarity >= threshold:
                pairs.append(NearPair(other, number, similarity))
        index.insert(number, signature, check_duplication=False)
    return sorted(pairs, key=_most_similar_first)


def _most_similar_first(pair: NearPair) -> tuple[float, int, int]:
    return -pair.similarity, pair.first, pair.second


def _rows_per_band(threshold: float) -> int:
    """The longest bands with which a pair at the threshold is still found, but for the rate of misses."""
    return max(
        (
            rows
            for rows in range(1, NUM_PERMUTATIONS // 2 + 1)  # datasketch wants two bands or more
            if (1 - threshold**rows) ** (NUM_PERMUTATIONS // rows) <= HIGHEST_MISS_RATE
        ),
        default=1,
    )


def _hashed_shingles(text: str) -> NDArray[np.uint32]:
    """The shingles of a text, each a number of 32 bits."""
    encoded = normalised_text(text).encode("utf-32-le", "surrogatepass")
    characters = np.frombuffer(encoded, dtype=np.uint32).astype(np.uint64)
    if len(characters) < SHINGLE_CHARACTERS:
        characters = np.pad(characters, (0, SHINGLE_CHARACTERS - len(characters)))
    hashes = np.zeros(len(characters) - SHINGLE_CHARACTERS + 1, dtype=np.uint64)
    for column in sliding_window_view(characters, SHINGLE_CHARACTERS).T:
        hashes = (hashes ^ column) * _MULTIPLIER  # modulo 2^64
        hashes ^= hashes >> np.uint64(29)
    return np.unique((hashes * _MULTIPLIER) >> np.uint64(32)).astype(np.uint32)

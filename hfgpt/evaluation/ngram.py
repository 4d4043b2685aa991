"""n-gram language models over token ids: the honest baseline beside a neural model.

Interpolated Kneser-Ney smoothing with three discounts an order ("modified"), after S. F. Chen and J. Goodman, "An
empirical study of smoothing techniques for language modeling", Computer Speech and Language 13 (1999), section 3. With
h the k - 1 tokens before w, and h' the same without its first:

    p_k(w | h) = (c_k(h w) - D_k(c_k(h w)) + (D_k(1) N_1(h) + D_k(2) N_2(h) + D_k(3+) N_3+(h)) p_(k-1)(w | h')) / c_k(h)
    p_0(w) = 1 / vocab_size

c_k counts occurrences at the highest order and different left neighbours below it; c_k(h) is its sum over w, N_j(h) the
number of w with c_k(h w) = j, and D_k(0) = 0. Where c_k(h) = 0, p_k(w | h) = p_(k-1)(w | h').

The paper's closed form gives the discounts to begin with; a coordinate search then fits them to the last part of the
training stream, which is held out for that and put back before the final counts are made. The validation text is never
looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hfgpt.errors import UserError

__all__ = ["NgramModel", "ngram_baseline"]

HELD_OUT_FRACTION = 0.05
# The coordinate search moves one discount at a time by these steps (in units of its largest value), coarse to fine.
SEARCH_STEPS = (0.2, 0.1, 0.05)

# A discount D(j) of 0 would leave nothing for what was never seen, and one above j would take more than there is.
MINIMUM_DISCOUNT = 0.01

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _OrderCounts:
    """The k-grams of one order k; a k-gram's id is its rank among the sorted `keys`.

    keys: id of the prefix, a (k - 1)-gram, times the vocabulary size, plus the last token. (k-grams,)
    counts: c_k of each k-gram. (k-grams,)
    totals: c_k(h) of each context h, by the id of the (k - 1)-gram. (contexts,)
    followers: N_1(h), N_2(h) and N_3+(h). (3, contexts)
    """

    keys: Integers
    counts: Integers
    totals: Integers
    followers: Integers


@dataclass(frozen=True)
class _Lookup:
    """What one order knows of some targets: everything that the formula needs but the discounts.

    counts and totals have the shape (targets,), followers (3, targets).
    totals is 0 where the context was never seen or the stream is too young for it.
    """

    counts: Integers
    totals: Integers
    followers: Integers


class NgramModel:
    """An interpolated modified Kneser-Ney model; make one with `NgramModel.fit`.

    Attributes:
        order: the length of the longest n-gram, n.
        vocab_size: number of token ids.
        discounts: D_k(1), D_k(2), D_k(3+) for k = 1 ... n. (order, 3)
    """

    def __init__(self, orders: Sequence[_OrderCounts], discounts: Floats, vocab_size: int) -> None:
        self._orders = tuple(orders)
        self.discounts = discounts
        self.vocab_size = vocab_size

    @property
    def order(self) -> int:
        return len(self._orders)

    @classmethod
    def fit(
        cls, tokens: NDArray[np.integer], order: int, vocab_size: int, *, held_out_fraction: float = HELD_OUT_FRACTION
    ) -> "NgramModel":
        """Count the n-grams of `tokens`, one stream in order, and tune the discounts on a part of it.

        Args:
            tokens: (tokens,) ids in `range(vocab_size)`.
            order: n, at least 1.
            vocab_size: number of token ids.
            held_out_fraction: share of `tokens`, at its end, on which the discounts are tuned; 0 keeps the closed form.

        Raises:
            UserError: an order below 1, no tokens, or ids outside the vocabulary.
        """
        tokens = _checked_tokens(tokens, vocab_size)
        if order < 1 or not len(tokens):
            raise UserError(
                f"an n-gram model of order {order} cannot be fitted to {len(tokens)} tokens; both must be at least 1."
            )
        if not 0 <= held_out_fraction < 1:
            raise UserError(f"held_out_fraction is {held_out_fraction}; it must be at least 0 and less than 1.")
        orders = _count(tokens, order, vocab_size)
        num_counted = int((1 - held_out_fraction) * len(tokens))
        if num_counted in (0, len(tokens)):
            return cls(orders, _closed_form_discounts(orders), vocab_size)
        part = _count(tokens[:num_counted], order, vocab_size)
        model = cls(part, _closed_form_discounts(part), vocab_size)
        start = max(0, num_counted - (order - 1))  # so that the first held-out token has its context, too
        lookups = model._look_up(tokens[start:], np.arange(num_counted - start, len(tokens) - start))
        return cls(orders, _tune_discounts(lookups, model.discounts, vocab_size), vocab_size)

    def log_probabilities(self, tokens: NDArray[np.integer], positions: NDArray[np.integer] | None = None) -> Floats:
        """ln p(tokens[i] | the up to order - 1 tokens before it) for each i of `positions`, (positions,).

        Args:
            tokens: (tokens,) one stream in order.
            positions: which tokens are targets; default: all but the first, which has no context.
        """
        tokens = _checked_tokens(tokens, self.vocab_size)
        targets = np.arange(1, len(tokens)) if positions is None else np.asarray(positions, dtype=np.int64)
        return np.log(_interpolate(self._look_up(tokens, targets), self.discounts, self.vocab_size))

    def _look_up(self, tokens: Integers, targets: Integers) -> list[_Lookup]:
        lookups = []
        # The id of the k-gram that ends at each position, -1 if it was never seen; the empty 0-gram has the id 0.
        ids = np.zeros(len(tokens), dtype=np.int64)
        for level, counted in enumerate(self._orders):
            # The context of a target is the (k - 1)-gram that ends just before it.
            contexts = ids if level == 0 else np.concatenate([[-1], ids[:-1]])
            keys = np.where(contexts < 0, -1, contexts * self.vocab_size + tokens)
            ranks = np.minimum(np.searchsorted(counted.keys, keys), max(len(counted.keys) - 1, 0))
            ids = np.where(counted.keys[ranks] == keys, ranks, -1) if len(counted.keys) else np.full_like(keys, -1)
            of_targets, seen = ids[targets], contexts[targets] >= 0
            known = of_targets >= 0
            lookups.append(
                _Lookup(
                    counts=np.where(known, counted.counts[of_targets] if len(counted.keys) else 0, 0),
                    totals=np.where(seen, counted.totals[contexts[targets]], 0),
                    followers=np.where(seen, counted.followers[:, contexts[targets]], 0),
                )
            )
        return lookups


def ngram_baseline(
    train_tokens: NDArray[np.integer],
    validation_tokens: NDArray[np.integer],
    order: int,
    vocab_size: int,
    *,
    target_positions: NDArray[np.integer] | None = None,
) -> float:
    """Mean loss, in nats a token, of an n-gram model fitted to the training stream.

    Args:
        train_tokens: (tokens,) one stream in order.
        validation_tokens: (tokens,) one stream in order.
        order: n.
        vocab_size: number of token ids.
        target_positions: the positions in `validation_tokens` that the neural model is scored on (see
            `TokenBlocks.target_positions`); default: all but the first. The n-gram's context may reach back over the
            border of a block, where the neural model's cannot: that favours the n-gram.
    """
    model = NgramModel.fit(train_tokens, order, vocab_size)
    return -float(model.log_probabilities(validation_tokens, target_positions).mean())


def _checked_tokens(tokens: NDArray[np.integer], vocab_size: int) -> Integers:
    checked: Integers = np.asarray(tokens).astype(np.int64, copy=False)
    if checked.ndim != 1:
        raise UserError(f"tokens have the shape {checked.shape}; give one stream, an array of one dimension.")
    if checked.size and (checked.min() < 0 or checked.max() >= vocab_size):
        raise UserError(
            f"token ids from {checked.min()} to {checked.max()} do not lie in a vocabulary of {vocab_size}."
        )
    return checked


def _count(tokens: Integers, order: int, vocab_size: int) -> list[_OrderCounts]:
    """Count the k-grams of all orders up to `order`. Ids are dense, so that a key fits 64 bits at any order."""
    keys_of_orders: list[Integers] = []
    occurrences: list[Integers] = []
    left_neighbours: list[Integers] = []  # at k - 1: how many different tokens stand before each (k - 1)-gram
    ids = np.zeros(len(tokens), dtype=np.int64)  # of the k-gram that ends at position k - 1, k, k + 1, ...
    for level in range(order):
        # A k-gram is the (k - 1)-gram that ends one position earlier, and a token. The 0-gram stands everywhere.
        keys = ids * vocab_size + tokens if level == 0 else ids[:-1] * vocab_size + tokens[level:]
        unique, first, longer_ids, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        # Each different k-gram is one left neighbour of its suffix, the (k - 1)-gram that ends where it ends.
        suffixes = ids[first] if level == 0 else ids[1:][first]
        left_neighbours.append(np.bincount(suffixes, minlength=1 if level == 0 else len(keys_of_orders[-1])))
        keys_of_orders.append(unique)
        occurrences.append(counts)
        ids = longer_ids
    orders = []
    for level, keys in enumerate(keys_of_orders):
        counts = occurrences[level] if level == order - 1 else left_neighbours[level + 1]
        num_contexts = 1 if level == 0 else max(1, len(keys_of_orders[level - 1]))
        contexts = keys // vocab_size
        orders.append(
            _OrderCounts(
                keys=keys,
                counts=counts.astype(np.int64),
                totals=np.bincount(contexts, weights=counts, minlength=num_contexts).astype(np.int64),
                followers=np.stack(
                    [
                        np.bincount(contexts[chosen], minlength=num_contexts)
                        for chosen in (counts == 1, counts == 2, counts >= 3)
                    ]
                ),
            )
        )
    return orders


def _closed_form_discounts(orders: Sequence[_OrderCounts]) -> Floats:
    """D(j) = j - (j + 1) Y n_(j+1) / n_j with Y = n_1 / (n_1 + 2 n_2), n_j the number of n-grams counted j times.

    Where a needed n_j is 0, as in tiny texts, D(j) = j / 2 is where the search begins.
    """
    discounts = np.empty((len(orders), 3))
    for level, counted in enumerate(orders):
        n = np.bincount(np.minimum(counted.counts, 5), minlength=6).astype(float)  # n[5] is n_5+, not used
        for j in (1, 2, 3):
            usable = n[1] > 0 and n[j] > 0
            y = n[1] / (n[1] + 2 * n[2]) if usable else 0.0
            discounts[level, j - 1] = j - (j + 1) * y * n[j + 1] / n[j] if usable else j / 2
    return np.clip(discounts, MINIMUM_DISCOUNT, [1, 2, 3])


def _interpolate(lookups: Sequence[_Lookup], discounts: Floats, vocab_size: int) -> Floats:
    """p_n of the targets, from p_0 upwards. (targets,)"""
    probabilities = np.full(len(lookups[0].counts), 1 / vocab_size)
    for lookup, of_order in zip(lookups, discounts, strict=True):
        discount = np.concatenate([[0.0], of_order])[np.minimum(lookup.counts, 3)]
        mixed = (lookup.counts - discount + (of_order @ lookup.followers) * probabilities) / np.maximum(
            lookup.totals, 1
        )
        probabilities = np.where(lookup.totals > 0, mixed, probabilities)
    return probabilities


def _tune_discounts(lookups: Sequence[_Lookup], discounts: Floats, vocab_size: int) -> Floats:
    """Minimise the loss on the looked-up targets, one discount at a time, with smaller and smaller steps."""

    def loss(candidate: Floats) -> float:
        return -float(np.log(_interpolate(lookups, candidate, vocab_size)).mean())

    best, best_loss = discounts, loss(discounts)
    for step in SEARCH_STEPS:
        for level in range(len(lookups)):
            for j in (1, 2, 3):
                for move in (-step * j, step * j):
                    candidate = best.copy()
                    candidate[level, j - 1] = np.clip(candidate[level, j - 1] + move, MINIMUM_DISCOUNT, j)
                    candidate_loss = loss(candidate)
                    if candidate_loss < best_loss:
                        best, best_loss = candidate, candidate_loss
    return best

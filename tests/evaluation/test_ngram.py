"""The n-gram baseline against a slow and literal reading of the same formulas."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from hfgpt.errors import UserError
from hfgpt.evaluation.ngram import NgramModel, ngram_baseline


def plain_probability(tokens: list[int], discounts, vocab_size: int, context: list[int], word: int) -> float:
    """Interpolated modified Kneser-Ney from counters of tuples, one probability at a time."""
    order = len(discounts)
    raw = [Counter(tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)) for k in range(1, order + 1)]
    counts: list[dict] = []
    for k in range(1, order + 1):
        if k == order:
            counts.append(dict(raw[k - 1]))
        else:
            neighbours = defaultdict(set)
            for gram in raw[k]:
                neighbours[gram[1:]].add(gram[0])
            counts.append({gram: len(left) for gram, left in neighbours.items()})
    probability = 1 / vocab_size
    for k in range(1, order + 1):
        history = tuple(context[len(context) - (k - 1) :]) if len(context) >= k - 1 else None
        if history is None:
            break
        followers = {gram[-1]: count for gram, count in counts[k - 1].items() if gram[:-1] == history and count > 0}
        total = sum(followers.values())
        if not total:
            continue
        taken = [discounts[k - 1][min(count, 3) - 1] for count in followers.values()]
        count = followers.get(word, 0)
        own = count - discounts[k - 1][min(count, 3) - 1] if count else 0.0
        probability = own / total + sum(taken) / total * probability
    return probability


@pytest.fixture
def tokens() -> np.ndarray:
    random = np.random.default_rng(7)
    steps = random.choice([1, 1, 1, 2, 5], size=400)
    return np.cumsum(steps) % 7


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_a_literal_implementation(tokens, order):
    vocab_size = 9  # ids 7 and 8 never occur
    model = NgramModel.fit(tokens, order, vocab_size)
    unseen = np.random.default_rng(1).integers(0, vocab_size, size=60)
    expected = [
        math.log(plain_probability(tokens.tolist(), model.discounts, vocab_size, unseen[:i].tolist(), int(unseen[i])))
        for i in range(1, len(unseen))
    ]
    np.testing.assert_allclose(model.log_probabilities(unseen), expected, rtol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("held_out_fraction", [0.0, 0.1])
def test_probabilities_of_all_next_tokens_sum_to_one(tokens, order, held_out_fraction):
    vocab_size = 9
    model = NgramModel.fit(tokens, order, vocab_size, held_out_fraction=held_out_fraction)
    contexts = [[0], [3, 4], [8, 8, 8], tokens[:3].tolist(), tokens[50:54].tolist(), tokens[-3:].tolist()]
    for context in contexts:
        logs = [
            model.log_probabilities(np.array([*context, w]), np.array([len(context)]))[0] for w in range(vocab_size)
        ]
        assert sum(math.exp(value) for value in logs) == pytest.approx(1.0, abs=1e-12)


def test_tuning_on_the_held_out_part_lowers_the_loss_there(tokens):
    vocab_size, cut = 7, int(0.95 * len(tokens))
    closed_form = NgramModel.fit(tokens[:cut], 4, vocab_size, held_out_fraction=0.0)
    tuned = NgramModel.fit(tokens, 4, vocab_size)
    with_tuned = NgramModel(closed_form._orders, tuned.discounts, vocab_size)
    held_out = np.arange(cut, len(tokens))
    before = -closed_form.log_probabilities(tokens, held_out).mean()
    after = -with_tuned.log_probabilities(tokens, held_out).mean()
    assert after < before


def test_the_fit_does_not_see_beyond_its_tokens(tokens):
    model = NgramModel.fit(tokens[:300], 3, 7)
    again = NgramModel.fit(tokens[:300].copy(), 3, 7)
    model.log_probabilities(tokens[300:])
    np.testing.assert_array_equal(model.log_probabilities(tokens[300:]), again.log_probabilities(tokens[300:]))


def test_a_longer_context_helps_on_text_with_memory_and_not_on_noise():
    pattern = np.tile([0, 1, 0, 2, 0, 3], 200)
    assert ngram_baseline(pattern, pattern[:120], 3, 4) < 0.05
    assert ngram_baseline(pattern, pattern[:120], 1, 4) > 1.0
    noise = np.random.default_rng(3).integers(0, 16, size=20_000)
    assert ngram_baseline(noise[:15_000], noise[15_000:], 4, 16) == pytest.approx(math.log(16), abs=0.05)


def test_target_positions_choose_what_is_scored_and_keep_the_context(tokens):
    model = NgramModel.fit(tokens, 3, 7)
    every = model.log_probabilities(tokens)
    np.testing.assert_array_equal(model.log_probabilities(tokens, np.array([5, 9])), every[[4, 8]])
    assert ngram_baseline(tokens, tokens, 3, 7, target_positions=np.array([5, 9])) == pytest.approx(
        -every[[4, 8]].mean()
    )


def test_the_first_token_of_a_stream_has_the_probability_of_its_unigram(tokens):
    model = NgramModel.fit(tokens, 3, 9)
    expected = [math.log(plain_probability(tokens.tolist(), model.discounts, 9, [], w)) for w in range(9)]
    actual = [model.log_probabilities(np.array([w]), np.array([0]))[0] for w in range(9)]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_keys_do_not_overflow_with_a_large_vocabulary():
    vocab_size = 65_000
    tokens = np.random.default_rng(5).integers(vocab_size - 50, vocab_size, size=3000)
    model = NgramModel.fit(tokens, 5, vocab_size, held_out_fraction=0.0)
    expected = [
        math.log(plain_probability(tokens.tolist(), model.discounts, vocab_size, tokens[:i].tolist(), int(tokens[i])))
        for i in (1, 7, 2500)
    ]
    np.testing.assert_allclose(model.log_probabilities(tokens, np.array([1, 7, 2500])), expected, rtol=1e-10)


def test_a_text_shorter_than_the_order_is_no_obstacle():
    model = NgramModel.fit(np.array([1, 2]), 5, 4)
    assert np.isfinite(model.log_probabilities(np.array([1, 2, 3, 0]))).all()


@pytest.mark.parametrize(
    ("tokens", "order", "message"),
    [([0, 9], 2, "vocabulary of 5"), ([-1, 0], 2, "vocabulary of 5"), ([], 2, "0 tokens"), ([1, 2], 0, "order 0")],
)
def test_impossible_requests_are_named(tokens, order, message):
    with pytest.raises(UserError, match=message):
        NgramModel.fit(np.array(tokens, dtype=np.int64), order, 5)

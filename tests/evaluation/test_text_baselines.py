"""The baselines, against their closed forms and scikit-learn's own pipeline."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from hfgpt.errors import UserError
from hfgpt.evaluation.calibration import scaled_probabilities
from hfgpt.evaluation.text_baselines import log_probabilities, majority_baseline, tfidf_baseline

TEXTS = ["win a prize now", "call me tonight", "free prize call now", "see you at home", "are you home tonight"]
LABELS = [1, 0, 1, 0, 0]


def test_the_majority_class_is_always_predicted_with_the_shares_of_the_training_split() -> None:
    probabilities = majority_baseline([0, 2, 2, 2, 0, 3], range(4), 5)
    np.testing.assert_allclose(probabilities, [[2 / 6, 0, 3 / 6, 1 / 6, 0]] * 4)
    assert majority_baseline([0, 1], ["text"], 2).argmax(axis=1).tolist() == [0]


def test_the_words_are_weighed_as_scikit_learn_does() -> None:
    unseen = ["a prize at home", "tonight", "nothing known"]
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(tfidf_baseline(TEXTS, LABELS, unseen, 2), pipeline.predict_proba(unseen))


def test_the_texts_to_classify_leave_no_trace_in_the_baseline() -> None:
    alone = tfidf_baseline(TEXTS, LABELS, ["free tonight"], 2)
    together = tfidf_baseline(TEXTS, LABELS, ["free tonight", "tonight tonight zebra", "zebra"], 2)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-12)


def test_weights_of_the_classes_are_the_models() -> None:
    plain = tfidf_baseline(TEXTS, LABELS, ["home prize"], 2)
    weighted = tfidf_baseline(TEXTS, LABELS, ["home prize"], 2, class_weight={0: 1.0, 1: 10.0})
    balanced = tfidf_baseline(TEXTS, LABELS, ["home prize"], 2, class_weight="balanced")
    explicit = tfidf_baseline(TEXTS, LABELS, ["home prize"], 2, class_weight={0: 5 / 6, 1: 5 / 4})
    assert plain[0, 1] < balanced[0, 1] < weighted[0, 1]
    np.testing.assert_allclose(balanced, explicit)


def test_both_texts_of_a_pair_count() -> None:
    pairs = ["yes", "no", "yes", "no", "no"]
    same = ["same text"] * 5
    classified = tfidf_baseline(same, LABELS, same[:2], 2, train_text_pairs=pairs, text_pairs=["yes", "no"])
    assert classified[0, 1] > classified[1, 1]


def test_a_class_that_training_never_saw_has_no_probability() -> None:
    probabilities = tfidf_baseline(TEXTS, [3 * label for label in LABELS], ["prize"], 4)
    assert probabilities.shape == (1, 4)
    assert probabilities[0, [1, 2]].tolist() == [0, 0]
    assert probabilities.sum() == pytest.approx(1)


def test_softmax_gives_back_the_probabilities_of_a_baseline() -> None:
    probabilities = majority_baseline([0, 2, 2], range(2), 3)
    np.testing.assert_allclose(scaled_probabilities(log_probabilities(probabilities)), probabilities)


def test_what_cannot_be_fitted_is_named() -> None:
    with pytest.raises(UserError, match="no word of two or more characters in the 2 training texts"):
        tfidf_baseline(["!", "?"], [0, 1], ["x"], 2)
    with pytest.raises(UserError, match="all training examples are of one"):
        tfidf_baseline(["one text", "two texts"], [1, 1], ["x"], 2)

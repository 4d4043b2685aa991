"""Classifiers that need no neural network: what a finetuned model has to beat, on the same split.

Both are fitted to the training split alone and give probabilities; their logarithms are logits like a model's
(`classification.evaluate_classifier`).
"""

from collections.abc import Mapping, Sequence, Sized
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from hfgpt.errors import UserError

__all__ = ["MAJORITY", "TFIDF", "log_probabilities", "majority_baseline", "tfidf_baseline"]

# What tables and pictures call them.
MAJORITY = "majority class"
TFIDF = "TF-IDF + logistic regression"

Floats = NDArray[np.float64]


def majority_baseline(train_labels: ArrayLike, texts: Sized, num_labels: int) -> Floats:
    """The shares of the classes in the training split, for every text: the largest class is always predicted.

    Args:
        train_labels: (training examples,) class ids.
        texts: what to classify, or its labels: only the number counts.
        num_labels: number of classes; one that does not occur in training has the probability 0.

    Returns:
        (len(texts), num_labels) probabilities. Where classes are equally large, the first is predicted.
    """
    labels = np.asarray(train_labels)
    classifier = DummyClassifier(strategy="prior").fit(np.zeros((len(labels), 1)), labels)
    return _for_all_classes(classifier.predict_proba(np.zeros((len(texts), 1))), classifier.classes_, num_labels)


def tfidf_baseline(
    train_texts: Sequence[str],
    train_labels: ArrayLike,
    texts: Sequence[str],
    num_labels: int,
    *,
    train_text_pairs: Sequence[str] | None = None,
    text_pairs: Sequence[str] | None = None,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
) -> Floats:
    """Logistic regression on the TF-IDF weights of words, both with scikit-learn's defaults (but `max_iter` 1000).

    Words are of two characters and more, in lower case. The two texts of a pair are joined.

    Args:
        train_texts: the training split, to which both vocabulary and weights are fitted.
        train_labels: (training examples,) class ids.
        texts: what to classify; validation and test texts given together cost one fit.
        num_labels: number of classes; one that does not occur in training has the probability 0.
        train_text_pairs: the second texts of the training split.
        text_pairs: the second texts of `texts`.
        class_weight: weights of the classes in the loss, as the model's; default: none.

    Returns:
        (len(texts), num_labels) probabilities.

    Raises:
        UserError: there is no word in the training texts, or only one class.
    """
    labels = np.asarray(train_labels)
    if len(np.unique(labels)) < 2:
        raise UserError("logistic regression needs at least two classes; all training examples are of one.")
    vectorizer = TfidfVectorizer()
    try:
        features = vectorizer.fit_transform(_joined(train_texts, train_text_pairs))
    except ValueError as error:  # "empty vocabulary"
        raise UserError(
            f"the TF-IDF baseline finds no word of two or more characters in the {len(labels)} training texts; check "
            "the text column."
        ) from error
    weights = dict(class_weight) if isinstance(class_weight, Mapping) else class_weight
    classifier = LogisticRegression(max_iter=1000, class_weight=weights).fit(features, labels)
    probabilities = classifier.predict_proba(vectorizer.transform(_joined(texts, text_pairs)))
    return _for_all_classes(probabilities, classifier.classes_, num_labels)


def log_probabilities(probabilities: ArrayLike) -> Floats:
    """Probabilities as logits: softmax gives them back. ln 0 is minus infinity."""
    with np.errstate(divide="ignore"):
        logits: Floats = np.log(np.asarray(probabilities, dtype=np.float64))
    return logits


def _joined(texts: Sequence[str], text_pairs: Sequence[str] | None) -> list[str]:
    if text_pairs is None:
        return list(texts)
    return [f"{text}\n{pair}" for text, pair in zip(texts, text_pairs, strict=True)]


def _for_all_classes(probabilities: Floats, classes: NDArray[np.int64], num_labels: int) -> Floats:
    """A column for each class, those that training never saw too. (texts, classes seen) -> (texts, num_labels)"""
    of_all = np.zeros((len(probabilities), num_labels))
    of_all[:, classes] = probabilities
    return of_all

"""The built-in messages: the same everywhere, hard for a bag of words, and told apart by who gives what to whom."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from hfgpt.data import generate_messages, load_labelled, load_text, split_labelled
from hfgpt.data.labelled_split import normalised_text
from hfgpt.data.messages import DEFAULT_NUM_MESSAGES, Message, generate_unlabelled_messages


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return list(generate_messages())


def test_the_messages_are_frozen(messages):
    # Every figure measured on the messages depends on this: a change of a template is a change of the data set.
    digest = hashlib.sha256("\0".join("\t".join(message) for message in messages).encode("utf-8")).hexdigest()
    assert digest == "7e8800190609569e424e7e97bb2a615140370e7b084e891376382c2101586766"


def test_a_message_depends_on_the_seed_and_its_number_alone(messages):
    assert list(generate_messages(num_messages=20)) == messages[:20]
    assert list(generate_messages(num_messages=5, first=1000)) == messages[1000:1005]
    others = {message.text for message in generate_messages(seed=1, num_messages=200)}
    assert len(others & {message.text for message in messages}) < 10


def test_three_in_ten_messages_are_spam_and_hard_families_have_both_labels(messages):
    assert len(messages) == DEFAULT_NUM_MESSAGES
    shares = Counter((message.family, message.label) for message in messages)
    spam = sum(count for (_, label), count in shares.items() if label == "spam") / len(messages)
    assert spam == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / len(messages)) ** 0.5)
    assert set(shares) == {(family, label) for family in ("warning", "exchange", "plain") for label in ("spam", "ham")}
    assert min(shares.values()) > 150


def test_fewer_than_one_message_in_twenty_repeats_another_and_none_contradicts_one(messages):
    labels = {}
    for message in messages:
        labels.setdefault(normalised_text(message.text), set()).add(message.label)
    assert len(labels) > 0.95 * len(messages)
    assert all(len(of_text) == 1 for of_text in labels.values())


def test_messages_are_short_and_no_template_mark_is_left(messages):
    lengths = [len(message.text.split()) for message in messages]
    assert min(lengths) >= 4
    assert max(lengths) <= 60
    assert not [message for message in messages if re.search(r"[\[\]{}|<>_]|  | [.,!?]|\n", message.text)]


@pytest.mark.parametrize(
    "words", ["won", "bank", "free", "code", "parcel", "number", "pounds", "phone", "account", "send", "never", "claim"]
)
def test_the_words_that_spam_is_known_by_are_common_in_ham_too(messages, words):
    shares = {
        label: np.mean([words in message.text.lower() for message in messages if message.label == label])
        for label in ("spam", "ham")
    }
    assert shares["ham"] > 0.005
    assert shares["spam"] > 0.005


def test_the_same_request_is_spam_or_ham_by_what_the_negation_stands_before(messages):
    plain_order = re.compile(r"^You should ([a-z]+) .*, you should not ([a-z]+) ")
    first_words = {"spam": Counter(), "ham": Counter()}
    for message in messages:
        for sentence in re.split(r"(?<=[.!?]) ", message.text):
            if match := plain_order.match(sentence):
                first_words[message.label].update([match.groups()])
    risky = {"send", "text", "open", "click", "pay", "call", "ring", "reply", "answer", "log", "transfer", "buy"}
    asked = {label: np.mean([do in risky for do, _ in pairs.elements()]) for label, pairs in first_words.items()}
    avoided = {
        label: np.mean([avoid in risky for _, avoid in pairs.elements()]) for label, pairs in first_words.items()
    }
    assert asked["spam"] == avoided["ham"] == 1
    assert avoided["spam"] < 0.2  # "call the real bank"
    assert asked["ham"] < 0.2


@pytest.mark.parametrize(
    ("vectorizer", "bounds"),
    [
        (lambda: CountVectorizer(), (0.8, 0.93)),
        (lambda: TfidfVectorizer(sublinear_tf=True), (0.8, 0.93)),
        (lambda: TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), (0.85, 0.97)),
    ],
    ids=["word counts", "word tf-idf", "word pairs"],
)
def test_a_bag_of_words_stays_well_below_a_reader(vectorizer, bounds):
    dataset = load_labelled("builtin:messages")
    accuracies = []
    for seed in range(5):
        splits = split_labelled(dataset, seed=seed)
        model = make_pipeline(vectorizer(), LogisticRegression(C=10, max_iter=2000))
        model.fit(splits.train["text"][:], splits.train["label"][:])
        accuracies.append(model.score(splits.test["text"][:], splits.test["label"][:]))
    assert bounds[0] < np.mean(accuracies) < bounds[1], accuracies


@pytest.mark.parametrize("streaming", [False, True])
def test_a_pretraining_can_read_the_messages_and_others_that_are_not_among_them(messages, streaming):
    texts = [row["text"] for row in load_text("builtin:messages", streaming=streaming)]
    assert texts == [message.text for message in messages]
    unlabelled = [row["text"] for row in load_text("builtin:unlabelled-messages", streaming=streaming)]
    assert len(unlabelled) > 14_000
    assert not {normalised_text(text) for text in unlabelled} & {normalised_text(text) for text in texts}


def test_the_unlabelled_messages_of_a_seed_keep_away_from_the_labelled_ones_of_that_seed():
    labelled = {normalised_text(message.text) for message in generate_messages(seed=3)}
    assert not labelled & {normalised_text(text) for text in generate_unlabelled_messages(seed=3, num_messages=2000)}

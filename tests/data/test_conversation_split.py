"""The split of conversations: no question in two parts, nothing lost uncounted, the book's cut on request."""

import json
import random

import datasets
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hfgpt.data.conversation_split import rows_in_order, split_conversations
from hfgpt.data.conversations import MESSAGES_FEATURE, load_conversations
from hfgpt.data.parts import normalised_text
from hfgpt.errors import UserError

PARTS = ("train", "validation", "test")


def conversations(*pairs: tuple[str, str]) -> datasets.Dataset:
    """A data set of questions and answers."""
    rows = [
        [{"role": "user", "content": question, "input": None}, {"role": "assistant", "content": answer, "input": None}]
        for question, answer in pairs
    ]
    return datasets.Dataset.from_dict({"messages": rows}, datasets.Features({"messages": MESSAGES_FEATURE}))


def pairs(dataset: datasets.Dataset) -> list[tuple[str, str]]:
    return [(messages[0]["content"], messages[-1]["content"]) for messages in dataset["messages"]]


def questions(dataset: datasets.Dataset) -> set[str]:
    return {normalised_text(question) for question, _ in pairs(dataset)}


def many(number: int) -> list[tuple[str, str]]:
    return [(f"question {index}", f"answer {index}") for index in range(number)]


def check_that_nothing_is_lost(splits) -> None:
    counts = dict(splits.counts)
    assert counts.pop("rows") == sum(counts.values())
    assert [counts[name] for name in PARTS] == [len(getattr(splits, name)) for name in PARTS]


def test_questions_are_cut_by_the_fractions_in_an_order_of_the_seed():
    splits = split_conversations(conversations(*many(100)), validation_fraction=0.05, test_fraction=0.1)
    assert [len(getattr(splits, name)) for name in PARTS] == [85, 5, 10]
    assert sorted(pairs(splits.train) + pairs(splits.validation) + pairs(splits.test)) == sorted(many(100))
    assert pairs(splits.train) != sorted(pairs(splits.train))
    other = split_conversations(conversations(*many(100)), seed=1)
    assert questions(other.test) != questions(splits.test)
    assert splits.description == ["100 conversations", "train: 85, validation: 5, test: 10"]


def test_the_order_of_the_rows_changes_nothing():
    rows = [*many(60), ("Question  3", "ANSWER 3"), ("question 4", "another answer"), ("QUESTION 5", "answer 5")]
    shuffled = random.Random(0).sample(rows, len(rows))
    first, second = (split_conversations(conversations(*each)) for each in (rows, shuffled))
    assert [pairs(getattr(first, name)) for name in PARTS] == [pairs(getattr(second, name)) for name in PARTS]
    assert first.counts["duplicates"] == 2


def test_the_same_question_with_the_same_answer_stays_once_and_with_another_one_in_the_same_part():
    rows = [*many(30), *((f"QUESTION {index}", f"Answer  {index}") for index in range(30))]
    rows += [(f"question {index}", "a second answer") for index in range(30)]
    splits = split_conversations(conversations(*rows))
    check_that_nothing_is_lost(splits)
    assert (splits.counts["duplicates"], splits.counts["overlap"]) == (30, 0)
    assert "30 dropped as duplicates: question and answer stand there already" in splits.description
    assert all(len(getattr(splits, name)) == 2 * len(questions(getattr(splits, name))) for name in PARTS)


def test_an_instruction_with_its_input_is_the_same_question_as_both_in_one():
    rows = conversations(*many(20)).to_list()
    rows[0]["messages"][0] |= {"content": "Double it.", "input": "4"}
    rows[1]["messages"][0]["content"] = "double it.\n4"
    test = conversations(("Double it. 4", "8"))
    splits = split_conversations(datasets.Dataset.from_list(rows), test=test)
    assert splits.counts["overlap"] == 2


def test_what_came_before_the_last_answer_and_the_system_message_are_part_of_the_question():
    def talk(*contents: str, system: str | None = None) -> dict:
        roles = ["user", "assistant"] * len(contents)
        messages = [{"role": role, "content": text, "input": None} for role, text in zip(roles, contents, strict=False)]
        first = [{"role": "system", "content": system, "input": None}] if system else []
        return {"messages": [*first, *messages]}

    rows = conversations(*many(20)).to_list()
    rows += [talk("a", "b", "c", "d"), talk("a", "b"), talk("a", "x", "c", "d"), talk("a", "d", system="s")]
    test = datasets.Dataset.from_list([talk("a", "b", "c", "e")])
    splits = split_conversations(datasets.Dataset.from_list(rows), test=test)
    assert splits.counts["overlap"] == 1
    assert len(splits.train) + len(splits.validation) == 23


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_given_part_stays_whole_and_training_loses_what_stands_there(shuffle):
    test = conversations(("Question 1", "x"), ("question 1", "x"), ("question 2", "y"))
    validation = conversations(("QUESTION 2", "z"), ("question 3", "z"))
    splits = split_conversations(conversations(*many(10)), shuffle=shuffle, validation=validation, test=test)
    assert pairs(splits.test) == pairs(test)
    assert pairs(splits.validation) == [("question 3", "z")]
    assert questions(splits.train) == {f"question {number}" for number in (0, 4, 5, 6, 7, 8, 9)}
    assert splits.counts["overlap"] == 4
    assert any(line.startswith("4 dropped because another part") for line in splits.description)
    check_that_nothing_is_lost(splits)


def test_in_order_the_first_are_for_training_the_next_for_test_and_the_rest_for_validation():
    rows = [*many(17), ("question 1", "other"), ("x", "x"), ("question 18", "answer")]
    splits = split_conversations(conversations(*rows), shuffle=False)
    assert pairs(splits.train) == [row for row in rows[:17] if row[0] != "question 1"]
    assert pairs(splits.test) == rows[17:19]
    assert pairs(splits.validation) == rows[19:]
    assert splits.counts["overlap"] == 1


@given(num_rows=st.integers(20, 5000), percent_validation=st.integers(1, 30), percent_test=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_the_cut_in_order_is_the_book_s_in_whole_numbers(num_rows, percent_validation, percent_test):
    rows = rows_in_order(num_rows, validation_fraction=percent_validation / 100, test_fraction=percent_test / 100)
    train, test = num_rows * (100 - percent_validation - percent_test) // 100, num_rows * percent_test // 100
    assert rows == {
        "train": range(train),
        "test": range(train, train + test),
        "validation": range(train + test, num_rows),
    }


@given(
    rows=st.lists(st.tuples(st.sampled_from("aAbcdefghij"), st.sampled_from("xXyz")), min_size=20, max_size=60),
    shuffle=st.booleans(),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_question_stands_in_two_parts_and_no_row_twice(rows, shuffle, seed):
    try:
        splits = split_conversations(
            conversations(*rows), validation_fraction=0.2, test_fraction=0.2, seed=seed, shuffle=shuffle
        )
    except UserError:  # a part of a few rows can lose all of them
        assume(False)
    asked = [questions(getattr(splits, name)) for name in PARTS]
    assert sum(map(len, asked)) == len(set.union(*asked))
    for name in PARTS:
        normalised = [tuple(map(normalised_text, pair)) for pair in pairs(getattr(splits, name))]
        assert len(normalised) == len(set(normalised))
    check_that_nothing_is_lost(splits)


def test_what_cannot_be_split_is_refused():
    with pytest.raises(UserError, match="only 2 different questions are left for train, validation, test"):
        split_conversations(conversations(("a", "b"), ("a", "c"), ("d", "e")))
    with pytest.raises(UserError, match="only 0 different questions are left for train"):
        split_conversations(
            conversations(("a", "b")), validation=conversations(("A", "c")), test=conversations(*many(2))
        )
    with pytest.raises(UserError, match="no conversations are left for test"):
        split_conversations(conversations(*many(5)), shuffle=False)
    with pytest.raises(UserError, match="test_fraction is 1.5"):
        split_conversations(conversations(*many(5)), test_fraction=1.5)


def test_the_entries_of_the_book_are_cut_as_in_the_book_and_share_no_question(test_data):
    path = test_data / "instruction-data.json"
    dataset = load_conversations(str(path)).dataset
    entries = json.loads(path.read_text(encoding="utf-8"))
    asked = [(entry["instruction"], entry["input"]) for entry in entries]
    splits = split_conversations(dataset, shuffle=False)
    assert splits.test.to_list() == dataset.select(range(935, 1045)).to_list()
    assert splits.validation.to_list() == dataset.select(range(1045, 1100)).to_list()
    leaked = sum(question in set(asked[935:]) for question in asked[:935])
    assert splits.counts == {
        "rows": 1100,
        "train": 935 - leaked,
        "validation": 55,
        "test": 110,
        "duplicates": 0,
        "overlap": leaked,
    }
    assert leaked == 7


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_longer_conversation_that_answers_a_question_of_another_part_on_its_way_is_not_trained_on(shuffle, part):
    def talk(*texts: str) -> list[dict[str, str | None]]:
        roles = ("user", "assistant") * len(texts)
        return [{"role": role, "content": text, "input": None} for role, text in zip(roles, texts, strict=False)]

    features = datasets.Features({"messages": MESSAGES_FEATURE})
    talks = [
        talk("Why?", "So."),
        talk("WHY?", "Because.", "And then?", "Nothing."),
        talk("How?", "Well.", "why?", "So."),
    ]
    train = datasets.Dataset.from_dict({"messages": [*talks, talk("Who?", "You.")]}, features)
    given = {"test": conversations(("Where?", "There.")), "validation": conversations(("When?", "Now."))}
    given[part] = conversations(("Why?", "I see."))
    splits = split_conversations(train, validation_fraction=0.1, test_fraction=0.1, seed=0, shuffle=shuffle, **given)
    assert sorted(pairs(splits.train)) == [("How?", "So."), ("Who?", "You.")], "it is another question after others"
    assert splits.counts["overlap"] == 2
    check_that_nothing_is_lost(splits)


def test_what_a_longer_conversation_of_the_test_part_asks_on_its_way_may_be_learned():
    """Its last answer is measured, and that alone."""
    features = datasets.Features({"messages": MESSAGES_FEATURE})
    texts = ("Why?", "Because.", "And then?", "Nothing.")
    roles = ("user", "assistant") * 2
    talk = [{"role": role, "content": text, "input": None} for role, text in zip(roles, texts, strict=True)]
    test = datasets.Dataset.from_dict({"messages": [talk]}, features)
    train = conversations(("Why?", "Because."), ("Who?", "You."))
    splits = split_conversations(
        train,
        validation_fraction=0.1,
        test_fraction=0.1,
        seed=0,
        test=test,
        validation=conversations(("When?", "Now.")),
    )
    assert splits.counts["overlap"] == 0

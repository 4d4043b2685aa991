"""The split of training and validation: no document on both sides, and the book's cut by characters."""

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgpt.data import split_documents
from hfgpt.errors import UserError


def documents(texts):
    return datasets.Dataset.from_dict({"text": list(texts)})


def texts_of(dataset) -> list[str]:
    return [row["text"] for row in dataset]


MANY = [f"document number {number}, again {number % 50}" for number in range(3000)]


def test_no_document_stands_on_both_sides_of_the_split_even_if_it_occurs_twice():
    texts = [text.split(",")[0] for text in MANY] + [f"document number {number}" for number in range(0, 3000, 2)]
    split = split_documents(documents(texts), validation_fraction=0.2, seed=3, by="documents")
    train, validation = texts_of(split.train), texts_of(split.validation)
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(texts)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_the_share_of_validation_is_close_to_the_fraction(fraction):
    split = split_documents(documents(MANY), validation_fraction=fraction, seed=0, by="documents")
    deviation = (fraction * (1 - fraction) / len(MANY)) ** 0.5
    assert abs(len(split.validation) / len(MANY) - fraction) < 4 * deviation


def test_the_side_of_a_document_depends_on_its_text_and_the_seed_alone():
    one = split_documents(documents(MANY), validation_fraction=0.1, seed=0, by="documents")
    reversed_order = split_documents(documents(MANY[::-1][:1500]), validation_fraction=0.1, seed=0, by="documents")
    assert set(texts_of(reversed_order.validation)) == set(texts_of(one.validation)) & set(MANY[1500:])
    other_seed = split_documents(documents(MANY), validation_fraction=0.1, seed=1, by="documents")
    assert set(texts_of(other_seed.validation)) != set(texts_of(one.validation))


def test_a_larger_fraction_only_moves_documents_into_validation():
    small = split_documents(documents(MANY), validation_fraction=0.05, seed=0, by="documents")
    large = split_documents(documents(MANY), validation_fraction=0.2, seed=0, by="documents")
    assert set(texts_of(small.validation)) < set(texts_of(large.validation))


def test_a_stream_splits_as_the_finite_data_set_does():
    finite = split_documents(documents(MANY), validation_fraction=0.1, seed=5, by="auto")
    stream = split_documents(documents(MANY).to_iterable_dataset(), validation_fraction=0.1, seed=5, by="auto")
    assert finite.by == stream.by == "documents"
    assert texts_of(stream.train) == texts_of(finite.train)
    assert texts_of(stream.validation) == texts_of(finite.validation)


def test_documents_keep_their_order():
    split = split_documents(documents(MANY), validation_fraction=0.1, seed=0)
    validation = set(texts_of(split.validation))
    assert texts_of(split.train) == [text for text in MANY if text not in validation]
    assert texts_of(split.validation) == [text for text in MANY if text in validation]


def test_one_document_is_cut_by_characters_where_the_book_cuts_it(test_data):
    text = (test_data / "the-verdict.txt").read_text(encoding="utf-8")
    split = split_documents(documents([text]), validation_fraction=0.1, seed=0)
    cut = int(0.90 * len(text))
    assert split.by == "characters"
    assert texts_of(split.train) == [text[:cut]]
    assert texts_of(split.validation) == [text[cut:]]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=1, max_size=6),
    percent=st.integers(1, 99),
)
def test_a_cut_by_characters_loses_nothing_and_falls_where_the_formula_says(texts, percent):
    fraction = percent / 100
    whole = "".join(texts)
    cut = int((1 - fraction) * len(whole))
    if not 0 < cut < len(whole):
        with pytest.raises(UserError, match="one side empty"):
            split_documents(documents(texts), validation_fraction=fraction, seed=0, by="characters")
        return
    split = split_documents(documents(texts), validation_fraction=fraction, seed=0, by="characters")
    train, validation = texts_of(split.train), texts_of(split.validation)
    assert "".join(train) == whole[:cut]
    assert "".join(validation) == whole[cut:]
    assert len(train) + len(validation) <= len(texts) + 1
    assert "" not in train + validation


def test_auto_takes_documents_from_twenty_on():
    assert split_documents(documents(MANY[:19]), validation_fraction=0.3, seed=0).by == "characters"
    assert split_documents(documents(MANY[:20]), validation_fraction=0.3, seed=0).by == "documents"


def test_impossible_splits_are_named():
    with pytest.raises(UserError, match=r"falls to validation .* split by characters"):
        split_documents(documents(["one", "two"]), validation_fraction=0.001, seed=0, by="documents")
    with pytest.raises(UserError, match="falls to training"):
        split_documents(documents(["one"]), validation_fraction=0.999, seed=0, by="documents")
    with pytest.raises(UserError, match="between 0 and 1"):
        split_documents(documents(MANY), validation_fraction=1.0, seed=0)
    with pytest.raises(UserError, match="stream cannot be cut by characters"):
        split_documents(documents(MANY).to_iterable_dataset(), validation_fraction=0.1, seed=0, by="characters")
    with pytest.raises(UserError, match="not by 'lines'"):
        split_documents(documents(MANY), validation_fraction=0.1, seed=0, by="lines")

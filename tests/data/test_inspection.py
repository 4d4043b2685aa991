"""What the inspection of data finds: beside all pairs compared, counts made by hand, and the facts of real data."""

import json
import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hfgpt.data.conversation_split import split_conversations
from hfgpt.data.conversations import load_conversations
from hfgpt.data.inspection import inspect_examples
from hfgpt.data.inspection_duplicates import find_near_duplicates, jaccard_similarity
from hfgpt.data.inspection_encoding import find_encoding_trouble, find_lone_surrogates
from hfgpt.data.inspection_lengths import draw_lengths, length_histogram
from hfgpt.data.inspection_sources import Example, SourceOptions, load_splits
from hfgpt.errors import UserError


def similarity_by_hand(first: str, second: str) -> float:
    """Jaccard similarity of the runs of five characters of texts in lower case, without the package."""
    return similarity_of_sets(runs(first), runs(second))


def runs(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def similarity_of_sets(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second)


def variations(num_texts: int, seed: int = 0) -> list[str]:
    """Different texts, many of them a few words apart."""
    chance = random.Random(seed)
    words = ["river", "house", "little", "green", "to", "a", "the", "walks", "sees", "old", "under", "bridge", "lamp"]
    texts = [" ".join(chance.choice(words) for _ in range(chance.randint(1, 25))) for _ in range(num_texts // 3)]
    while len(texts) < num_texts:
        changed = chance.choice(texts).split()
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.choice(words)
        texts.append(" ".join(changed))
    return list(dict.fromkeys(texts))


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95, 1.0])
def test_near_duplicates_are_those_that_comparing_all_pairs_finds(threshold):
    texts = variations(400)
    by_hand = {
        (one, other): similarity
        for one, other in combinations(range(len(texts)), 2)
        if (similarity := similarity_by_hand(texts[one], texts[other])) >= threshold
    }
    found = find_near_duplicates(texts, threshold=threshold)
    assert {(pair.first, pair.second): pair.similarity for pair in found} == by_hand
    assert [pair.similarity for pair in found] == sorted(by_hand.values(), reverse=True)
    assert len(by_hand) > 20 or threshold > 0.9


@given(first=st.text(max_size=30), second=st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_similarity_is_symmetric_and_one_only_for_the_same_shingles(first, second):
    similarity = jaccard_similarity(first, second)
    assert similarity == jaccard_similarity(second, first)
    assert 0 <= similarity <= 1
    assert jaccard_similarity(first, first.upper() if first.isascii() else first) == 1
    assert find_near_duplicates([first, second], threshold=1) == ([(0, 1, 1.0)] if similarity == 1 else [])


def test_long_documents_and_very_short_texts_have_near_duplicates_too():
    chance = random.Random(0)
    document = " ".join(str(chance.randrange(10**6)) for _ in range(20_000))
    texts = ["a", "b", "A", document, document[:-5000], "no"]
    assert [pair[:2] for pair in find_near_duplicates(texts)] == [(0, 2), (3, 4)]


def test_a_threshold_outside_its_bounds_is_refused():
    for threshold in (0, -0.5, 1.1):
        with pytest.raises(UserError, match="it must lie above 0 and be 1 at most"):
            find_near_duplicates(["x", "y"], threshold=threshold)


def conversation(prompt: str, answer: str, row: int) -> Example:
    user, assistant = ({"role": role, "content": text, "input": None} for role, text in (("u", prompt), ("a", answer)))
    return Example(prompt, answer, row, [user, assistant])


def examples(*pairs: tuple[str, str]) -> list[Example]:
    return [conversation(*pair, row) for row, pair in enumerate(pairs, start=1)]


LONG = "Write a sentence about the old bridge over the little river in the north of the village"


def test_repeated_rows_are_counted_within_and_between_splits():
    inspection = inspect_examples(
        {
            "train": examples(
                ("What is it?", "A."), ("what  IS it?", "a."), ("What is it?", "B."), (LONG, "x"), (LONG + "!", "x")
            ),
            "test": examples(("What is it?", "B."), (LONG + "s.", "y"), ("", "z"), ("Else", " ")),
        }
    )
    train, test = inspection.splits
    assert (train.examples, train.repeated_examples, train.repeated_prompts, train.near_duplicates) == (5, 1, 2, 2)
    assert (test.examples, test.repeated_examples, test.repeated_prompts, test.near_duplicates) == (4, 0, 0, 0)
    assert (test.empty_prompts, test.empty_answers) == (1, 1)
    into_test, into_train = inspection.shared
    assert (into_test.split, into_test.other) == ("train", "test")
    assert (into_test.examples, into_test.prompts, into_test.near_duplicates) == (1, 3, 2)
    assert (into_train.examples, into_train.prompts, into_train.near_duplicates) == (1, 1, 1)
    assert inspection.num_repeated_prompts == 1
    (repetition,) = inspection.repetitions
    assert repetition.prompt == "What is it?"
    assert repetition.rows == [("train", 1), ("train", 2), ("train", 3), ("test", 1)]
    assert inspection.num_near_pairs == 3
    assert [(pair.first, pair.second) for pair in inspection.near_pairs] == [
        (("train", 4), ("test", 2)),
        (("train", 5), ("test", 2)),
        (("train", 4), ("train", 5)),
    ]
    without = inspect_examples({"train": examples(("a", "b"))}, near=False)
    assert without.num_near_pairs is without.splits[0].near_duplicates is None


def test_lengths_are_counted_in_characters_and_tokens_and_their_template():
    pairs = [("p" * length, "a" * (length % 7)) for length in range(1, 101)]
    inspection = inspect_examples(
        {"train": examples(*pairs)},
        count_tokens=lambda texts: [len(text) // 2 for text in texts],
        count_conversation_tokens=lambda conversations: [
            sum(len(message["content"]) for message in messages) + 3 for messages in conversations
        ],
    )
    found = {(each.part, each.unit): each for each in inspection.lengths}
    prompt = found["prompt", "characters"]
    assert (prompt.minimum, prompt.median, prompt.percentile_95, prompt.maximum, prompt.total) == (1, 50, 95, 100, 5050)
    assert found["answer", "characters"].maximum == 6
    assert found["prompt", "tokens"].maximum == 50
    assert inspection.totals == {"train": [len(prompt) + len(answer) + 3 for prompt, answer in pairs]}
    assert found["in its template", "tokens"].total == sum(inspection.totals["train"])
    assert inspection.unit == "tokens"


def test_first_words_and_short_answers_are_those_that_come_most_often():
    rows = [("What is one?", "7"), ("what  IS two?", "7 "), ("Name a tree", "ok"), ("Name", "Oak")]
    (report,) = inspect_examples({"train": examples(*rows)}).splits
    assert report.first_words == [("what is", 2), ("name a", 1), ("name", 1)]
    assert report.short_answers == 3
    assert report.short_answer_samples == [("7", 2), ("ok", 1)]


def test_broken_encodings_are_found_and_shown_where_they_are():
    troubles = find_encoding_trouble(
        [
            ("row 1", ("a naïve café \u2013 “fine” 漢字 🙂", "tabs\tand\r\nlines")),
            ("row 2", ("fine", "Where is the cafÃ© now?")),
            ("row 3", ("bell \x07", "and \x07")),
            ("row 4", ("lost \ufffd", "")),
            ("row 5", ("itâ€™s", "")),
        ]
    )
    found = {trouble.kind: trouble for trouble in troubles}
    assert {kind: trouble.count for kind, trouble in found.items()} == {
        "mojibake": 2,
        "control characters": 1,
        "replacement characters (U+FFFD)": 1,
    }
    assert found["mojibake"].samples == [
        ("row 2", "'Where is the cafÃ© now?' (for 'Where is the café now?'?)"),
        ("row 5", "'itâ€™s' (for 'it\u2019s'?)"),
    ]
    assert found["control characters"].samples == [("row 3", r"'bell \x07'")]


def test_lone_surrogates_are_counted_by_the_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"messages": [{"content": "\\ud83d\\ude42"}]}\n{"messages": [{"content": "x \\ud83d y \\ud83d"}]}\n'
    )
    (tmp_path / "b.json").write_text('[{"text": "\\ude42"}]')
    (tmp_path / "c.csv").write_text("text\n\\ud83d\n")
    trouble = find_lone_surrogates(tmp_path)
    assert trouble.count == 3
    assert [place for place, _ in trouble.samples] == [
        f"line 2 of {tmp_path / 'a.jsonl'}",
        f"record 1 of {tmp_path / 'b.json'}",
    ]


@given(
    splits=st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=40), min_size=1, max_size=3),
    num_bins=st.integers(4, 30),
)
@settings(max_examples=200, deadline=None)
def test_every_length_is_in_the_bin_between_whose_edges_it_lies(splits, num_bins):
    totals = {str(number): lengths for number, lengths in enumerate(splits)}
    edges, counts = length_histogram(totals, num_bins)
    assert edges == sorted(set(edges))
    for name, lengths in totals.items():
        above = [*edges[1:], 10**9]
        assert counts[name] == [
            sum(low <= length < high for length in lengths) for low, high in zip(edges, above, strict=True)
        ]
    assert len(edges) <= max(num_bins + 2, 14)


@pytest.mark.parametrize("longest", [100, 100_000])
def test_the_picture_shows_the_lengths(tmp_path, longest):
    totals = {"train": [*range(1, 100), longest], "test": [50]}
    path = tmp_path / "lengths.png"
    draw_lengths(totals, "tokens", "a title with $dollars$", path)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours = Counter(map(tuple, pixels.tolist()))
    assert colours[(0x00, 0x72, 0xB2)] > colours[(0xE6, 0x9F, 0x00)] > 0
    with pytest.raises(UserError, match="cannot be written"):
        draw_lengths(totals, "tokens", "title", tmp_path / "nothing" / "lengths.png")


def write(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


ALPACA = {"instruction": "Double it.", "input": "4", "output": "8"}


def test_what_a_source_holds_is_recognised_by_its_columns(tmp_path):
    conversations = load_splits(write(tmp_path / "a.jsonl", ALPACA, ALPACA | {"output": ""}), SourceOptions())
    assert conversations.kind == "conversations"
    assert [example[:3] for example in conversations.splits["train"]] == [
        ("Double it.\n4", "8", 1),
        ("Double it.\n4", "", 2),
    ]
    labelled = load_splits(write(tmp_path / "b.jsonl", {"text": "x", "label": "p"}), SourceOptions())
    assert (labelled.kind, labelled.splits) == ("labelled", {"train": [Example("x", "p", 1)]})
    text = load_splits(write(tmp_path / "c.jsonl", {"text": "x"}, {"text": "y"}), SourceOptions())
    assert (text.kind, text.splits) == ("text", {"train": [Example("x", None, 1), Example("y", None, 2)]})
    (tmp_path / "d.csv").write_text("ham,see you\nspam,you won\nham,at six\n")
    assert load_splits(str(tmp_path / "d.csv"), SourceOptions()).kind == "labelled"
    (tmp_path / "e.txt").write_text("a text")
    assert load_splits(str(tmp_path / "e.txt"), SourceOptions()).kind == "text"
    assert [load_splits(f"builtin:{name}", SourceOptions()).kind for name in ("messages", "stories")] == [
        "labelled",
        "text",
    ]
    asked = load_splits(str(tmp_path / "b.jsonl"), SourceOptions(kind="text"))
    assert (asked.kind, asked.splits) == ("text", {"train": [Example("x", None, 1)]})


def test_splits_come_from_the_source_from_others_or_from_a_cut(tmp_path):
    assert {name: len(rows) for name, rows in load_splits("builtin:instructions", SourceOptions()).splits.items()} == {
        "train": 20_000,
        "validation": 500,
        "test": 1_000,
    }
    one = load_splits("builtin:instructions", SourceOptions(), splits=["test"])
    assert list(one.splits) == ["test"]
    source = write(tmp_path / "a.jsonl", *(ALPACA | {"input": str(number)} for number in range(20)))
    other = write(tmp_path / "b.jsonl", ALPACA)
    both = load_splits(source, SourceOptions(), other_sources={"test": other})
    assert {name: len(rows) for name, rows in both.splits.items()} == {"train": 20, "test": 1}
    cut = load_splits(source, SourceOptions(), validation_fraction=0.05, test_fraction=0.1).splits
    assert {name: [row.row for row in rows] for name, rows in cut.items()} == {
        "train": list(range(1, 18)),
        "test": [18, 19],
        "validation": [20],
    }
    with pytest.raises(UserError, match="has no split 'dev'; its splits are train, validation, test"):
        load_splits("builtin:instructions", SourceOptions(), splits=["dev"])
    with pytest.raises(UserError, match="no built-in data set 'talks'.*builtin:stories.*builtin:instructions"):
        load_splits("builtin:talks", SourceOptions())
    with pytest.raises(UserError, match="leave the fractions out"):
        load_splits("builtin:instructions", SourceOptions(), test_fraction=0.1)
    with pytest.raises(UserError, match="leave nothing for training"):
        load_splits(source, SourceOptions(), test_fraction=1.0)
    with pytest.raises(UserError, match="two sources of the split 'train'"):
        load_splits(source, SourceOptions(), other_sources={"train": other})


def test_a_hub_data_set_is_inspected_with_all_its_splits(tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    folder.mkdir()
    write(folder / "train.jsonl", ALPACA)
    write(folder / "test.jsonl", ALPACA)
    for function in ("load_dataset", "get_dataset_split_names"):
        original = getattr(datasets, function)
        monkeypatch.setattr(
            datasets,
            function,
            lambda source, *args, original=original, **options: original(str(folder), *args, **options),
        )
    loaded = load_splits("somebody/instructions", SourceOptions())
    assert {name: len(rows) for name, rows in loaded.splits.items()} == {"train": 1, "test": 1}
    assert loaded.kind == "conversations"


def test_the_entries_of_the_book_have_the_duplicates_that_are_known(test_data):
    source = str(test_data / "instruction-data.json")
    whole = inspect_examples(load_splits(source, SourceOptions()).splits)
    entries = json.loads(Path(source).read_text(encoding="utf-8"))
    asked = Counter((entry["instruction"], entry["input"]) for entry in entries)
    assert whole.splits[0].repeated_prompts == 25 == asked.total() - len(asked)
    assert whole.splits[0].repeated_examples == 0
    assert whole.num_repeated_prompts == sum(count > 1 for count in asked.values())
    prompts = {" ".join(" ".join(question).casefold().split()) for question in asked}
    near = sum(similarity_of_sets(*pair) >= 0.8 for pair in combinations(map(runs, prompts), 2))
    assert whole.num_near_pairs == near

    cut = inspect_examples(load_splits(source, SourceOptions(), validation_fraction=0.05, test_fraction=0.1).splits)
    leaked = {each.other: each.prompts for each in cut.shared if each.split == "train"}
    removed = split_conversations(load_conversations(source).dataset, shuffle=False).counts["overlap"]
    assert sum(leaked.values()) == removed == 7

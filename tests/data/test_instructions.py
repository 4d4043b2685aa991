"""The built-in instructions: the same everywhere, right, and tested on what never stood together in training."""

import calendar
import hashlib
import re
from collections import Counter
from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from hfgpt.data.instruction_templates import CATEGORIES, OPPOSITES, OWNED_THINGS, PHRASINGS, PLURALS, WORDS
from hfgpt.data.instructions import DEFAULT_NUM_INSTRUCTIONS, INSTRUCTION_TASKS, generate_instructions
from hfgpt.data.labelled_split import normalised_text
from hfgpt.errors import UserError

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)[1:]
LIST_TASKS = ("copy", "reverse", "upper_case", "count", "odd_one_out", "position", "sort")


class Entry(NamedTuple):
    """What is asked, with the input on a line of its own, and the answer."""

    task: str
    prompt: str
    answer: str

    @property
    def words(self) -> list[str]:
        """The list in the prompt: its longest run of listed words with one separator."""
        listed = {"plural": dict(PLURALS), "opposite": tuple(chain(*OPPOSITES))}.get(self.task, WORDS)
        word = "|".join(sorted(listed, key=len, reverse=True))
        runs = [
            match[0].split(separator)
            for separator in (", ", " ")
            for match in re.finditer(rf"\b(?:{word})(?:{separator}(?:{word}))*\b", self.prompt)
        ]
        return max(runs, key=len)


def entries_of(split: str, **options: int) -> list[Entry]:
    entries = []
    for row in generate_instructions(split, **options):
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"], assistant["input"]) == ("user", "assistant", None)
        entries.append(Entry(row["task"], f"{user['content']}\n{user['input'] or ''}", assistant["content"]))
    return entries


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Entry]]:
    return {split: entries_of(split) for split in DEFAULT_NUM_INSTRUCTIONS}


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "fe6438c2f0c45ff3936f6853f8edcb82570615292c9fd47a0f7035d586324a99"),
        ("validation", "d27ade35e7e0367514f4fb0552e9482c95d32280204c7c3956e4c928c108b64f"),
        ("test", "66a868a716f1b5453e4984decd07dba5ee541c8316cc05e8736c546ee6c85764"),
    ],
)
def test_the_instructions_are_frozen(splits, split, digest):
    # Every figure measured on them depends on this: a change of a phrasing is a change of the data set.
    joined = "\0".join("\t".join(entry) for entry in splits[split])
    assert hashlib.sha256(joined.encode("utf-8")).hexdigest() == digest


def test_the_tasks_take_turns_and_a_shorter_split_begins_a_longer_one(splits):
    for split, entries in splits.items():
        assert len(entries) == DEFAULT_NUM_INSTRUCTIONS[split]
        assert tuple(entry.task for entry in entries[: len(INSTRUCTION_TASKS)]) == INSTRUCTION_TASKS
        counts = Counter(entry.task for entry in entries)
        assert max(counts.values()) - min(counts.values()) <= 1
    assert entries_of("test", num_instructions=50) == splits["test"][:50]
    others = {entry.prompt for entry in entries_of("train", seed=1, num_instructions=1000)}
    assert len(others & {entry.prompt for entry in splits["train"]}) < 50


def test_no_instruction_comes_twice_in_a_split_or_in_two(splits):
    prompts = [normalised_text(entry.prompt) for entries in splits.values() for entry in entries]
    assert len(set(prompts)) == len(prompts)


def test_what_is_held_out_is_held_out_from_every_seed(splits):
    held_out = {normalised_text(entry.prompt) for entry in splits["test"] + splits["validation"]}
    for seed in (1, 2):
        assert not held_out & {normalised_text(entry.prompt) for entry in entries_of("train", seed=seed)}


def test_words_that_stand_together_in_test_do_so_nowhere_else_in_whatever_order_or_task(splits):
    lists = {
        split: {tuple(sorted(entry.words)) for entry in entries if entry.task in LIST_TASKS}
        for split, entries in splits.items()
    }
    assert not lists["test"] & (lists["train"] | lists["validation"])
    assert not lists["validation"] & lists["train"]


def test_numbers_that_are_added_in_test_are_added_nowhere_else_in_whatever_order(splits):
    pairs = {
        split: {tuple(sorted(re.findall(r"\d+", entry.prompt))) for entry in entries if entry.task == "sum"}
        for split, entries in splits.items()
    }
    assert not pairs["test"] & (pairs["train"] | pairs["validation"])
    assert not pairs["validation"] & pairs["train"]
    assert {number for pair in pairs["train"] for number in pair} == {str(number) for number in range(2, 41)}


def test_an_owner_and_his_thing_stand_together_in_one_split_only(splits):
    owned = {
        split: {
            (owner, thing)
            for entry in entries
            if entry.task == "reading"
            for owner, _, thing in statements(entry.prompt)
        }
        for split, entries in splits.items()
    }
    assert not owned["test"] & (owned["train"] | owned["validation"])
    assert {thing for _, thing in owned["train"]} == set(OWNED_THINGS)
    assert {owner for owner, _ in owned["test"]} <= {owner for owner, _ in owned["train"]}


def test_every_word_and_every_phrasing_occurs_in_training(splits):
    words = {task: set() for task in INSTRUCTION_TASKS}
    for entry in splits["train"]:
        if entry.task not in ("sum", "calendar", "reading"):
            words[entry.task].update(entry.words)
    for task in ("copy", "reverse", "upper_case", "count", "position", "sort"):
        assert words[task] == set(WORDS)
    assert words["plural"] == set(dict(PLURALS))
    assert words["opposite"] == set(chain(*OPPOSITES))
    assert words["odd_one_out"] == set(chain(*CATEGORIES.values()))
    fixed = {"train": set(), "test": set()}
    phrasings = set(chain(*PHRASINGS.values()))
    for split in fixed:
        for phrasing in phrasings:
            pattern = re.sub(r"\\\{\w+\\\}", ".*", re.escape(phrasing.replace(" >> ", "\n")))
            pattern = re.sub(r"\\\[(.*?)\\\]", lambda match: f"(?:{match[1].replace(chr(92) + '|', '|')})", pattern)
            if any(re.match(pattern, entry.prompt, re.IGNORECASE) for entry in splits[split]):
                fixed[split].add(phrasing)
    assert fixed["train"] == phrasings
    assert len(fixed["test"]) > 0.9 * len(phrasings)


def test_half_of_the_instructions_have_an_input_and_no_template_mark_is_left(splits):
    with_input = np.mean([not entry.prompt.endswith("\n") for entry in splits["train"]])
    assert 0.35 < with_input < 0.55
    assert not [entry for entry in splits["train"] if re.search(r"[\[\]{}|<>_]|  | [.,!?]|\n.*\n", entry.prompt)]


def test_each_list_task_has_the_right_answer(splits):
    for task, prompt, answer in (entry for entry in chain(*splits.values()) if entry.task in LIST_TASKS):
        words = Entry(task, prompt, answer).words
        separator = ", " if f"{words[0]}, " in prompt else " "
        if task in ("copy", "reverse", "upper_case", "sort"):
            right = {"copy": words, "reverse": words[::-1], "sort": sorted(words)}.get(task, words)
            text = separator.join(right)
            assert answer == (text.upper() if task == "upper_case" else text), prompt
        elif task == "odd_one_out":
            kinds = Counter(kind for word in words for kind, members in CATEGORIES.items() if word in members)
            (odd,) = [word for word in words if kinds[kind_of(word)] == 1]
            assert (answer, sum(kinds.values())) == (odd, len(words)), prompt


def kind_of(word: str) -> str:
    (kind,) = [kind for kind, members in CATEGORIES.items() if word in members]
    return kind


def test_counts_and_positions_are_right(splits):
    ordinals = {"first": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "sixth": 5, "last": -1}
    for entry in chain(*splits.values()):
        words = entry.words if entry.task in ("count", "position") else []
        if entry.task == "count":
            # One word more than in the list is the one that is asked for.
            asked = [
                word for word in re.findall(r"[a-z]+", entry.prompt.replace(list_text(entry), "")) if word in WORDS
            ]
            assert entry.answer == str(words.count(asked[0]) if asked else len(words)), entry
        elif entry.task == "position":
            rest = entry.prompt.replace(list_text(entry), "")
            if neighbour := re.search(r"(before|after) (\w+)", rest):
                place = words.index(neighbour[2]) + (1 if neighbour[1] == "after" else -1)
            else:
                (place,) = [place for ordinal, place in ordinals.items() if re.search(rf"\b{ordinal}\b", rest)]
            assert entry.answer == words[place], entry


def list_text(entry: Entry) -> str:
    """The list of the prompt as it stands there."""
    return next(text for text in (", ".join(entry.words), " ".join(entry.words)) if text in entry.prompt)


def test_plurals_and_opposites_are_right_word_by_word(splits):
    others = {"plural": dict(PLURALS), "opposite": dict([*OPPOSITES, *(pair[::-1] for pair in OPPOSITES)])}
    for entry in chain(*splits.values()):
        if entry.task in others:
            answered = re.split(", | ", entry.answer)
            asked = [word for word in re.findall(r"[a-z]+", entry.prompt) if word in others[entry.task]]
            assert [others[entry.task][word] for word in asked[-len(answered) :]] == answered, entry


def test_regular_plurals_follow_the_rule_and_no_word_has_two_opposites():
    irregular = {
        "children",
        "men",
        "women",
        "feet",
        "teeth",
        "geese",
        "mice",
        "oxen",
        "sheep",
        "deer",
        "knives",
        "leaves",
    }
    irregular |= {"wolves", "loaves", "shelves", "wives", "thieves", "halves"}

    def plural(word: str) -> str:
        if re.search(r"[^aeiou]y$", word):
            return word[:-1] + "ies"
        ends = re.search(r"(s|x|sh|ch)$", word) or word in ("potato", "tomato", "hero")
        return word + ("es" if ends else "s")

    assert {other for word, other in PLURALS if other != plural(word)} == irregular
    words = list(chain(*OPPOSITES))
    assert len(words) == len(set(words))
    members = list(chain(*CATEGORIES.values()))
    assert len(members) == len(set(members))


def test_sums_and_dates_are_right(splits):
    for task, prompt, answer in chain(*splits.values()):
        if task == "sum":
            assert int(answer) == sum(map(int, re.findall(r"\d+", prompt))), prompt
        elif task == "calendar":
            (start,) = re.findall("|".join([*DAYS, *MONTHS]), prompt)
            (distance,) = re.findall(r"(one|two|three|four) (?:day|month)", prompt)
            backwards = re.search(r"before|ago|earlier|back|Back", prompt)
            names = DAYS if start in DAYS else MONTHS
            steps = -NUMBERS[distance] if backwards else NUMBERS[distance]
            assert answer == names[(names.index(start) + steps) % len(names)], prompt


def statements(prompt: str) -> list[tuple[str, str, str]]:
    """Owner, colour and thing of each sentence of a text."""
    return re.findall(r"([A-Z][a-z]+) [a-z]+ a ([a-z]+) ([a-z]+)\.", prompt)


def test_the_answer_to_a_text_follows_from_it(splits):
    for task, prompt, answer in chain(*splits.values()):
        if task == "reading":
            told = statements(prompt)
            question = re.sub(r"[A-Z][a-z]+ [a-z]+ a [a-z]+ [a-z]+\.", "", prompt)
            colour_is_asked = "colour" in question
            if thing := re.search("|".join(rf"\b{thing}\b" for thing in OWNED_THINGS), question):
                ((owner, colour, _),) = [statement for statement in told if statement[2] == thing[0]]
                assert answer == (colour if colour_is_asked else owner), prompt
            else:
                ((_, colour, thing_owned),) = [statement for statement in told if statement[0] in question]
                assert answer == f"a {colour} {thing_owned}", prompt


def test_neither_the_commonest_answer_nor_that_of_the_nearest_instruction_does(splits):
    train, test = splits["train"], splits["test"]
    commonest = {
        task: Counter(entry.answer for entry in train if entry.task == task).most_common(1)[0][0]
        for task in INSTRUCTION_TASKS
    }
    assert np.mean([entry.answer == commonest[entry.task] for entry in test]) < 0.03
    vectorizer = TfidfVectorizer()
    known = vectorizer.fit_transform([entry.prompt for entry in train])
    nearest = np.asarray((vectorizer.transform([entry.prompt for entry in test]) @ known.T).argmax(axis=1)).ravel()
    right = {task: [] for task in INSTRUCTION_TASKS}
    for entry, row in zip(test, nearest, strict=True):
        right[entry.task].append(entry.answer == train[row].answer)
    assert np.mean(list(chain(*right.values()))) < 0.06
    assert max(np.mean(hits) for hits in right.values()) < 0.25


def test_more_instructions_than_there_are_is_one_sentence():
    with pytest.raises(UserError, match=r"no more than [\d,]+ different instructions for validation"):
        entries_of("validation", num_instructions=100_000)


def test_what_goes_on_when_the_calendar_is_at_its_end_is_new_right_and_of_the_other_tasks() -> None:
    entries = entries_of("train", num_instructions=72_110)
    assert len({entry.prompt.casefold() for entry in entries}) == len(entries)
    later = entries[72_000:]
    assert Counter(entry.task for entry in later) == {task: 10 for task in INSTRUCTION_TASKS if task != "calendar"}
    assert Counter(entry.task for entry in entries[:72_000]) == dict.fromkeys(INSTRUCTION_TASKS, 6_000)
    for entry in later:
        if entry.task == "reverse":
            assert re.split(", | ", entry.answer) == entry.words[::-1]

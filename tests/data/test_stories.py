"""The built-in stories: the same everywhere, all different, grammatical, and held together by facts."""

import hashlib
import re

import pytest

from hfgpt.data.stories import generate_stories
from hfgpt.data.story_grammar import COLOURS, NAMES, NUMBERS, THINGS


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return list(generate_stories())


def test_the_default_corpus_is_frozen(stories):
    # Every figure measured on the stories depends on this: a change of the grammar is a change of the data set.
    digest = hashlib.sha256("\0".join(stories).encode("utf-8")).hexdigest()
    assert digest == "e661d84ef26228736a3ab2b792607ceb6b154b56f7534a958a049a3337d06522"


def test_the_corpus_has_two_megabytes_and_no_two_stories_are_the_same(stories):
    assert 2_200_000 < sum(len(story.encode("utf-8")) for story in stories) < 2_600_000
    assert len(set(stories)) == len(stories)


def test_a_longer_corpus_begins_with_the_shorter_one_and_another_seed_gives_other_stories(stories):
    assert list(generate_stories(num_stories=20)) == stories[:20]
    assert not set(generate_stories(seed=1, num_stories=200)) & set(stories)


def test_stories_are_short_enough_for_a_block_of_a_small_model(stories):
    lengths = [len(story.split()) for story in stories]
    assert min(lengths) >= 80
    assert max(lengths) <= 300
    assert 1500 < len({word for story in stories for word in story.split()}) < 5000


def test_no_template_mark_is_left_in_a_story(stories):
    assert not [story for story in stories if re.search(r"[\[\]{}|<>_]|  |\n\n\n| ,| \.[^.]", story)]


def test_articles_fit_the_words_that_follow_them(stories):
    for story in stories:
        assert not re.search(r"\b[Aa] [aeiou]", story), story
        assert not re.search(r"\b[Aa]n (?!hour)[^aeiou]", story), story


def test_sentences_begin_with_a_capital(stories):
    for story in stories:
        assert story[0].isupper() or story[0] == '"', story
        assert not re.search(r"[.!?] [a-z]|\n[a-z]", story.replace('!" ', "").replace('?" ', "")), story


def test_a_count_agrees_with_its_noun(stories):
    assert not [
        story for story in stories if re.search(r"\b[Oo]ne (apples|pears|plums|eggs|nuts|cakes|coins)\b", story)
    ]


def test_every_coloured_thing_keeps_its_colour_through_the_story(stories):
    pair = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(THINGS)})\b")
    repeated = 0
    for story in stories:
        mentions = pair.findall(story)
        assert len({noun for _, noun in mentions}) == len(set(mentions)), story
        repeated += len(mentions) > len(set(mentions))
    assert repeated > 0.75 * len(stories)  # the plots about counting and about an animal have no such thing


def test_names_come_back_so_that_a_reader_can_copy_them(stories):
    names = {name for both in NAMES.values() for name in both}
    for story in stories:
        mentions = [word for word in re.findall(r"[A-Z][a-z]+", story) if word in names]
        assert 2 <= len(set(mentions)) <= 3, story
        assert len(mentions) >= 8, story


def test_what_was_lost_is_found_where_it_was_left(stories):
    left = re.compile(r"To keep the (.+?) safe, (\w+) put it (.+?), and there it stayed")
    found = [(story, match) for story in stories if (match := left.search(story))]
    assert len(found) > 20
    for story, match in found:
        assert story.count(match[3]) >= 2, story


def test_counts_go_down_and_up_as_arithmetic_says(stories):
    sums = [match.groups() for story in stories for match in re.finditer(r"(\w+) and (\w+) make (\w+),", story)]
    assert len(sums) > 10
    for first, second, total in sums:
        assert NUMBERS.index(first.lower()) + NUMBERS.index(second) == NUMBERS.index(total)

"""`builtin:stories`: short stories in plain English, generated, and the same on every machine.

A story draws its facts first (who, with whom, which thing of which colour, where, how many) and then tells a plot by
choosing a paraphrase for each step. Which paraphrase comes is chance; the facts stay: what was left under the stone
bridge is found under the stone bridge, six apples less two are four, the last landmark on the way out is the first on
the way back. A reader who remembers the story can predict them, and an n-gram model cannot.

Only integer arithmetic on `random.Random.getrandbits` is used, a sequence that Python keeps stable. Story number i is a
function of (seed, i) alone, so a longer corpus begins with the shorter one.
"""

import re
from collections.abc import Iterator

from hfgpt.data.story_grammar import (
    ADJECTIVES,
    ANIMALS,
    COATS,
    COLOURS,
    CONNECTIVES,
    COUNTED,
    DAYS,
    DIGRESSIONS,
    ELDERS,
    ENDINGS,
    FRIEND_HOMES,
    FRIEND_INTRODUCTIONS,
    LANDMARKS,
    NAMES,
    NUMBERS,
    OPENINGS,
    PET_DIGRESSIONS,
    PET_INTRODUCTIONS,
    PET_NAMES,
    THINGS,
    TIMES,
    TOWNS,
)
from hfgpt.data.story_plots import PLOTS
from hfgpt.data.templates import Chance, fill_template

__all__ = ["DEFAULT_NUM_STORIES", "generate_stories"]

# Together about 2.5 MB of text, nearly half a million words: what a model of a few million parameters reads once or
# twice in the minutes that the demo trains.
DEFAULT_NUM_STORIES = 2500

# Percentages: how often a story has a pet, a step is followed by a digression or a new paragraph, and so on.
PERCENT_WITH_PET = 45
PERCENT_DIGRESSION = 22
PERCENT_NEW_PARAGRAPH = 28
PERCENT_CONNECTIVE = 40
PERCENT_MORAL = 80

_SPEECH_TAG = re.compile(r"(,\") said \{")
_PRONOUNS = {"she": ("she", "her", "her", "herself", "girl"), "he": ("he", "him", "his", "himself", "boy")}


def generate_stories(seed: int = 0, num_stories: int = DEFAULT_NUM_STORIES, *, first: int = 0) -> Iterator[str]:
    """Yield `num_stories` stories of about 120 to 280 words; the default corpus is about 2.5 MB of UTF-8.

    Args:
        seed: another seed gives other stories of the same kind.
        num_stories: how many; story i depends on `seed` and i only.
        first: the number of the first of them.
    """
    for index in range(first, first + num_stories):
        yield _tell(Chance(seed, index))


def _tell(chance: Chance) -> str:
    """One story: introductions, the steps of a plot with digressions between them, a moral, an ending."""
    plot = PLOTS[chance.choose(tuple(PLOTS))]
    facts = _draw_facts(chance)
    digressions = list(DIGRESSIONS)
    sentences = [chance.choose(OPENINGS), chance.choose(FRIEND_INTRODUCTIONS)]
    if chance.percent(PERCENT_WITH_PET):
        sentences.append(chance.choose(PET_INTRODUCTIONS))
        digressions = list(DIGRESSIONS + PET_DIGRESSIONS)
    for number, paraphrases in enumerate(plot.steps):
        template = chance.choose(paraphrases)
        if number > 0 and template.startswith("{A} ") and chance.percent(PERCENT_CONNECTIVE):
            template = f"{chance.choose(CONNECTIVES)} {template}"
        sentences.append(template)
        if digressions and chance.percent(PERCENT_DIGRESSION):
            sentences.append(digressions.pop(chance.below(len(digressions))))
    if chance.percent(PERCENT_MORAL):
        sentences.append(chance.choose(plot.morals))
    sentences.append(chance.choose(ENDINGS))

    text = sentences[0]
    for template in sentences[1:]:
        text += ("\n\n" if chance.percent(PERCENT_NEW_PARAGRAPH) else " ") + _vary_replies(template)
    return fill_template(text, facts, chance)


def _vary_replies(template: str) -> str:
    """Let whoever speaks second within one template, and so answers, also have "replied" or "answered"."""
    first = _SPEECH_TAG.search(template)
    if first is None:
        return template
    return template[: first.end()] + _SPEECH_TAG.sub(r"\1 [said|said|replied|answered] {", template[first.end() :])


def _draw_facts(chance: Chance) -> dict[str, str]:
    """Everything that stays the same through a story, by the slot's name in the grammar."""
    facts = _draw_people(chance) | _draw_animals(chance) | _draw_numbers(chance)
    for suffix, noun, colour in zip(("", "2"), chance.sample(THINGS, 2), chance.sample(COLOURS, 2), strict=True):
        facts[f"noun{suffix}"], facts[f"colour{suffix}"] = noun, colour
        facts[f"a_noun{suffix}"] = _with_article(noun)
        facts[f"A_noun{suffix}"] = _capitalised(facts[f"a_noun{suffix}"])
        facts[f"thing{suffix}"] = f"{colour} {noun}"
        facts[f"a_thing{suffix}"] = _with_article(f"{colour} {noun}")
        facts[f"A_thing{suffix}"] = _capitalised(facts[f"a_thing{suffix}"])
    for suffix, (landmark, prepositions) in zip(("", "2", "3"), chance.sample(LANDMARKS, 3), strict=True):
        facts[f"spot{suffix}"], facts[f"Spot{suffix}"] = f"the {landmark}", f"The {landmark}"
        facts[f"place{suffix}"] = f"{chance.choose(prepositions.split())} the {landmark}"
    facts["Place"] = _capitalised(facts["place"])
    facts["day"], facts["day2"] = chance.sample(DAYS, 2)
    facts["Day2"] = facts["day2"]
    facts["time"] = chance.choose(TIMES)
    facts["town"] = chance.choose(TOWNS)
    facts["message"] = f"bring {facts['k_items']} and {facts['a_thing']} to {facts['spot']} on {facts['day2']}"
    facts["Message"] = _capitalised(facts["message"])
    return facts


def _draw_people(chance: Chance) -> dict[str, str]:
    """The hero A, the friend B, a third child C, the elder E, with the pronouns of A, B and E."""
    gender_of = {name: gender for gender, names in NAMES.items() for name in names}
    hero, friend, third = chance.sample(tuple(gender_of), 3)
    elder, elder_gender = chance.choose(ELDERS)
    facts = {"A": hero, "B": friend, "C": third, "E": elder}
    for prefix, gender in (("", gender_of[hero]), ("b", gender_of[friend]), ("e", elder_gender)):
        for slot, word in zip(("he", "him", "his", "himself"), _PRONOUNS[gender], strict=False):
            facts[prefix + slot] = word
            facts[_capitalised(prefix + slot)] = _capitalised(word)
    facts["boy"], facts["boy_b"] = _PRONOUNS[gender_of[hero]][-1], _PRONOUNS[gender_of[friend]][-1]
    facts["adjective"] = chance.choose(ADJECTIVES)
    facts["home"] = chance.choose(FRIEND_HOMES)
    return facts


def _draw_animals(chance: Chance) -> dict[str, str]:
    """The hero's animal and the stray one, of different kinds and names."""
    animal, stray = chance.sample(ANIMALS, 2)
    pet, stray_name = chance.sample(PET_NAMES, 2)
    return {
        "animal": animal,
        "a_pet": _with_article(f"{chance.choose(COATS)} {animal}"),
        "pet": pet,
        "stray": stray,
        "a_plain_stray": _with_article(stray),
        "a_stray": _with_article(f"{chance.choose(COATS)} {stray}"),
        "stray_name": stray_name,
    }


def _draw_numbers(chance: Chance) -> dict[str, str]:
    """A count that goes down and up: n - k = nk, nk - m = r, r + p = t, t - 1 = tm, in words."""
    k, m, r, p = 2 + chance.below(4), 1 + chance.below(4), 1 + chance.below(4), 2 + chance.below(3)
    numbers = {"n": k + m + r, "k": k, "m": m, "r": r, "p": p, "nk": m + r, "t": r + p, "tm": r + p - 1}
    (singular, plural), (_, other_plural) = chance.sample(COUNTED, 2)
    facts = {"items": plural, "wrong_items": f"{NUMBERS[k]} {other_plural}", "r_were": "was" if r == 1 else "were"}
    for slot, number in numbers.items():
        facts[slot] = NUMBERS[number]
        facts[f"{slot}_items"] = f"{NUMBERS[number]} {singular if number == 1 else plural}"
        facts[_capitalised(slot)] = _capitalised(facts[slot])
        facts[_capitalised(f"{slot}_items")] = _capitalised(facts[f"{slot}_items"])
    return facts


def _with_article(phrase: str) -> str:
    """Put "a" or "an" before `phrase`; none of the grammar's words is an exception to the rule of the first letter."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _capitalised(phrase: str) -> str:
    return phrase[0].upper() + phrase[1:]

"""The words and phrasings of `builtin:instructions`; `instruction_tasks.py` draws from them, `instructions.py` splits.

A phrasing is a template: `[one|another]` stands for one of its alternatives, chosen at random, and `{slot}` for what the
task has drawn. What follows ` >> ` is the entry's `input`; where there is none, the instruction holds all there is.

Words and phrasings are frozen: a change of one letter changes the data set, and with it every figure measured on it.
"""
# ruff: noqa: E501 (a sentence is one line, however long)

from textwrap import dedent

from hfgpt.data.story_grammar import COLOURS, COUNTED, DAYS, NAMES, THINGS

__all__ = [
    "CATEGORIES",
    "ITEMS",
    "MONTHS",
    "OPPOSITES",
    "ORDINALS",
    "OWNED_THINGS",
    "OWNER_COLOURS",
    "OWNER_NAMES",
    "OWNING_VERBS",
    "PHRASINGS",
    "PLURALS",
    "WEEKDAYS",
    "WORDS",
]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dedent(text).strip().split("\n"))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(tuple(pair.split()) for pair in text.split(","))  # type: ignore[misc]


# No word belongs to two of them, and none of one category could be said to belong to another.
CATEGORIES = {
    "animals": _words("dog cat goat pony hen duck donkey lamb"),
    "colours": _words("red blue green yellow white black brown grey"),
    "fruit": _words("apple pear plum cherry peach grape lemon melon"),
    "clothes": _words("hat scarf coat glove apron boot shirt sock"),
    "instruments": _words("drum flute horn harp fiddle trumpet guitar piano"),
    "buildings": _words("barn mill church school tower house shop stable"),
    "body": _words("hand foot ear nose knee arm eye mouth"),
    "weather": _words("rain wind snow fog frost hail storm thunder"),
    "kitchen": _words("spoon cup jug bottle plate bowl knife fork"),
    "vehicles": _words("boat wagon cart train bus ship bicycle sledge"),
    "family": _words("mother father sister brother uncle aunt cousin grandmother"),
    "furniture": _words("bench table chair bed shelf stool cupboard sofa"),
}
WORDS = (
    *(word for words in CATEGORIES.values() for word in words),
    *_words("kite ball basket mirror button ribbon key book necklace ring box marble brush comb doll purse feather"),
    *_words("pencil lantern umbrella blanket candle ladder stone bridge garden gate river road market village"),
    *_words("clever quiet brave careful cheerful curious gentle lively patient shy stubborn little old young"),
)
PLURALS = _pairs(
    "child children, man men, woman women, foot feet, tooth teeth, goose geese, mouse mice, ox oxen, sheep sheep, "
    "deer deer, knife knives, leaf leaves, wolf wolves, loaf loaves, shelf shelves, wife wives, thief thieves, "
    "half halves, baby babies, lady ladies, cherry cherries, pony ponies, story stories, berry berries, city cities, "
    "family families, box boxes, fox foxes, bus buses, dress dresses, brush brushes, church churches, peach peaches, "
    "glass glasses, witch witches, bench benches, wish wishes, potato potatoes, tomato tomatoes, hero heroes, boy boys, "
    "day days, key keys, monkey monkeys, toy toys, piano pianos, roof roofs, dog dogs, cat cats, goat goats, hen hens, "
    "duck ducks, lamb lambs, kite kites, drum drums, boat boats, basket baskets, mirror mirrors, button buttons, cup cups, "
    "spoon spoons, ring rings, bottle bottles, horn horns, bridge bridges, horse horses, house houses, rose roses, "
    "nose noses, orange oranges"
)
OPPOSITES = _pairs(
    "hot cold, big small, tall short, early late, old new, fast slow, high low, open closed, full empty, light dark, "
    "rich poor, hard soft, strong weak, dry wet, clean dirty, near far, first last, day night, up down, left right, "
    "inside outside, above below, before after, always never, happy sad, good bad, loud quiet, thick thin, wide narrow, "
    "deep shallow, sweet sour, true false, buy sell, give take, push pull, begin end, ask answer, laugh cry, "
    "remember forget, come go, friend enemy, top bottom, front back, summer winter, north south, east west, "
    "morning evening, asleep awake, more less, many few"
)
WEEKDAYS = tuple(DAYS)
MONTHS = _words("January February March April May June July August September October November December")
ITEMS = tuple(plural for _, plural in COUNTED)
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")

OWNER_NAMES = (*NAMES["she"], *NAMES["he"])
OWNED_THINGS = tuple(thing for thing in THINGS if thing[0] not in "aeiou")
OWNER_COLOURS = tuple(colour for colour in COLOURS if colour[0] not in "aeiou")
# Of the statement, and of a question: "Anna found a red kite", "What did Anna find?"
OWNING_VERBS = (
    ("has", "does", "have"),
    ("carries", "does", "carry"),
    ("found", "did", "find"),
    ("lost", "did", "lose"),
    ("bought", "did", "buy"),
    ("painted", "did", "paint"),
)

PHRASINGS = {
    "copy": _lines(
        """
        Repeat [these words|this list]: {words}
        [Copy|Say again|Write again] [exactly|word for word]: {words}
        Please [copy|repeat] the words {words} [without any change|as they are].
        What I say is this: {words} - [now say it yourself|say the same].
        [Copy|Repeat] [these words|the words|what is written] [below|here]. >> {words}
        Write the [same|very same] words [in the same order|again]. >> {words}
        [Do not change anything|Change nothing], [only repeat|just copy] it. >> {words}
        """
    ),
    "reverse": _lines(
        """
        Write these words in [reverse|backward|the opposite] order: {words}
        [Turn|Put] this list [around|back to front]: {words}
        [Say|Write|Give] the words {words} [backwards|from the last to the first].
        Begin with the last word and end with the first [one|word]: {words}
        [Reverse|Turn around] the order of [these words|the words]. >> {words}
        Write the words [from the last to the first|from back to front]. >> {words}
        [Read|Say] this [list|row] backwards, word by word. >> {words}
        """
    ),
    "upper_case": _lines(
        """
        Write in [capital letters|capitals|upper case]: {words}
        Make every letter [large|a capital]: {words}
        [Change|Turn] the words {words} [into|to] [capital letters|capitals|upper case].
        How do you write {words} in [capitals|capital letters]?
        [Write|Print] this [in capital letters|in capitals|in upper case]. >> {words}
        Use [only capitals|only capital letters|no small letters]. >> {words}
        Make all the letters [capitals|large]. >> {words}
        """
    ),
    "count_words": _lines(
        """
        How many words [are there|are] in this list: {words}
        Count the words [here|in this row]: {words}
        [Give|Write|Tell me] the number of words in {words}.
        Of how many words is this [list|row] made: {words}
        Count the words. >> {words}
        How [long is this list|many words are here]? >> {words}
        [Give|Write] the number of words. >> {words}
        """
    ),
    "count_one_word": _lines(
        """
        How [often|many times] does the word {word} [stand|appear|come] in this list: {words}
        Count how [often|many times] {word} [is written|stands] here: {words}
        In the list {words}, how [often|many times] do you [find|see] the word {word}?
        How many [of these words are|times is it] {word}: {words}
        How [often|many times] does {word} [appear|stand] [here|in the list]? >> {words}
        Count the word {word}. >> {words}
        [Give|Write] the number of times that you [read|see] {word}. >> {words}
        """
    ),
    "plural": _lines(
        """
        Write the plural of {words}.
        [Change|Turn|Put] into the plural: {words}
        One is not enough, [write|make it] more than one: {words}
        [Give|Tell me|Find] the plural form of {words}[.|, please.]
        Make [these nouns|this] plural: {words}
        [Write|Give] the plural. >> {words}
        [Change|Turn|Put] [this|what you read] into the plural. >> {words}
        Say it as if there were [two of each|many of each|more than one]. >> {words}
        """
    ),
    "opposite": _lines(
        """
        [Write|Give|Say] the opposite of {words}.
        What [means|is] the opposite of {words}?
        Turn into the opposite: {words}
        [Find|Name] the [contrary|opposite] for {words}.
        Say just the [contrary|opposite]: {words}
        [Write|Give|Find] the opposite. >> {words}
        [Change|Turn] [this|what you read] into its [contrary|opposite]. >> {words}
        What is the [contrary|opposite] [here|of this]? >> {words}
        """
    ),
    "sum": _lines(
        """
        What is {a} plus {b}?
        Add {a} and {b}.
        [Work out|Calculate] {a} + {b}[.|, please.]
        How much is {a} [and|plus] {b}?
        [Give|Find|Tell me] the sum of {a} and {b}[.|, please.]
        {name} has {a} {items} and [finds|buys|gets] {b} more. How many {items} does {name} have now?
        There were {a} {items} in the basket, and {name} [put in|added|brought] {b} more. How many are there [now|in all]?
        [Work out|Calculate] the sum. >> {a} + {b}
        Add [the two numbers|these numbers|the numbers]. >> {a} and {b}
        How many {items} are there [in all|together]? >> {name} has {a} {items} and {friend} has {b}.
        """
    ),
    "odd_one_out": _lines(
        """
        Which word does not [fit|belong] with the others: {words}
        [Find|Name|Give] the odd one out: {words}
        One of the words {words} is of another kind. [Which one|Which word is it|Which]?
        All but one of these [are alike|belong together], [name|write] the other one: {words}
        Which is the odd one out? >> {words}
        [Name|Write|Find] the word that does not [fit|belong]. >> {words}
        One word is of another kind than the [rest|others]. [Which one|Which word is it|Which]? >> {words}
        """
    ),
    "position": _lines(
        """
        What is the {ordinal} word of this [list|row]: {words}
        [Give|Write|Name] the {ordinal} word: {words}
        In the list {words}, which word [is the {ordinal} one|stands in the {ordinal} place]?
        Which word is the {ordinal} one [here|in this list]: {words}
        [Give|Write|Name] the {ordinal} word. >> {words}
        Which word [stands in the {ordinal} place|is the {ordinal} one]? >> {words}
        [Take|Pick|Choose] the {ordinal} [one|word] of this list. >> {words}
        """
    ),
    "neighbour": _lines(
        """
        Which word [stands|comes] right {side} {word} in this list: {words}
        [Give|Write|Name] the word that [stands|comes] just {side} {word}: {words}
        In the list {words}, what [stands|comes] right {side} {word}?
        [Give|Write|Name] the word that [stands|comes] right {side} {word}. >> {words}
        What [stands|comes] [just|right] {side} {word}? >> {words}
        """
    ),
    "sort": _lines(
        """
        [Put|Sort|Write] these words in alphabetical order: {words}
        Sort [by the alphabet|from A to Z]: {words}
        In which order do the words {words} stand in a dictionary?
        Arrange [alphabetically|in alphabetical order]: {words}
        [Put|Sort|Write] the words in alphabetical order. >> {words}
        [Arrange|Sort] [this list|the list] from A to Z. >> {words}
        Write the words as a dictionary has them. >> {words}
        """
    ),
    "calendar_after": _lines(
        """
        [Which|What] {unit} [comes|is] {distance} after {start}?
        [Name|Give|Write] the {unit} that comes {distance} after {start}.
        {now} is {start}. [Which|What] {unit} will it be in {distance}?
        If it is {start} now, [which|what] {unit} is it {distance} [later|from now]?
        [Count|Go] {distance} [on|forward] from {start}. [Which|What] {unit} is that?
        [Begin|Start] with {start} and [go on|move on] by {distance}: [which|what] {unit} do you [reach|come to]?
        [Which|What] {unit} comes {distance} after [this one|it]? >> {start}
        [Go on|Count on|Move on] by {distance} and [name|give|write] the {unit}. >> {start}
        """
    ),
    "calendar_before": _lines(
        """
        [Which|What] {unit} [comes|is] {distance} before {start}?
        [Name|Give|Write] the {unit} that comes {distance} before {start}.
        {now} is {start}. [Which|What] {unit} was it {distance} ago?
        If it is {start} now, [which|what] {unit} was it {distance} [earlier|ago]?
        [Count|Go] {distance} [back|backwards] from {start}. [Which|What] {unit} is that?
        [Begin|Start] with {start} and [go back|move back] by {distance}: [which|what] {unit} do you [reach|come to]?
        [Which|What] {unit} comes {distance} before [this one|it]? >> {start}
        [Go back|Count back|Move back] by {distance} and [name|give|write] the {unit}. >> {start}
        """
    ),
    "who": _lines(
        """
        {text} Who {verb} the {thing}?
        {text} [Name|Tell me] the child who {verb} the {thing}.
        Who {verb} the {thing}? >> {text}
        Read this and [say|tell me|write] who {verb} the {thing}. >> {text}
        """
    ),
    "what": _lines(
        """
        {text} What {auxiliary} {owner} {base}?
        {text} [Tell me|Say] what {owner} {verb}.
        What {auxiliary} {owner} {base}? >> {text}
        Read this and [say|tell me|write] what {owner} {verb}. >> {text}
        """
    ),
    "colour": _lines(
        """
        {text} [Of what|Of which] colour is the {thing}?
        {text} What colour is the {thing} that {owner} {verb}?
        [What|Which] colour is the {thing}? >> {text}
        Read this and [say|tell me|write] the colour of the {thing}. >> {text}
        """
    ),
}

"""The words and sentences of `builtin:stories`; `stories.py` puts them together.

A sentence is a template: `[one|another]` stands for one of its alternatives, chosen at random (they nest), and `{slot}`
for a fact of the story that is drawn once, at its beginning: names, pronouns, things, colours, places, numbers. The
alternatives make the text varied from word to word, and the facts make it predictable from far away only.

The grammar is frozen: a change of one letter changes the corpus, and with it every figure measured on it.
"""
# ruff: noqa: E501 (a sentence is one line, however long)

__all__ = [
    "ADJECTIVES",
    "ANIMALS",
    "COATS",
    "COLOURS",
    "CONNECTIVES",
    "COUNTED",
    "DAYS",
    "DIGRESSIONS",
    "ELDERS",
    "ENDINGS",
    "FRIEND_HOMES",
    "FRIEND_INTRODUCTIONS",
    "LANDMARKS",
    "NAMES",
    "NUMBERS",
    "OPENINGS",
    "PET_DIGRESSIONS",
    "PET_INTRODUCTIONS",
    "PET_NAMES",
    "THINGS",
    "TIMES",
    "TOWNS",
]


def _words(text: str) -> list[str]:
    return text.split()


# Names by pronoun: the gender of a name never changes, so a pronoun can be predicted from it.
NAMES = {
    "she": _words(
        "Anna Bella Clara Dora Ella Flora Greta Hanna Ida Judith Kira Lena Mina Nora Olga Petra Rosa Sofia Tilda Vera"
    ),
    "he": _words(
        "Adam Ben Carl David Emil Felix Georg Hugo Ivan Jonas Karl Leo Max Nico Oscar Paul Robin Simon Tom Victor"
    ),
}
ELDERS = (
    ("Grandmother", "she"),
    ("Grandfather", "he"),
    ("Aunt Agnes", "she"),
    ("Uncle Otto", "he"),
    ("Mrs Lark", "she"),
    ("Mr Finch", "he"),
    ("Mrs Stone", "she"),
    ("Mr Weaver", "he"),
    ("Old Martha", "she"),
    ("Old Peter", "he"),
)
TOWNS = _words(
    "Willowbrook Ashford Greenhill Millbank Oakton Redcliff Stonebridge Fernley Harrow Lindale Marsh Northam"
)
ADJECTIVES = _words("clever quiet brave careful cheerful curious dreamy gentle lively patient shy stubborn")
COATS = _words("brown black white grey spotted old young fat little")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
TIMES = _words("morning afternoon evening day")
COLOURS = _words("red blue green yellow white black brown orange purple grey golden silver")
THINGS = _words(
    "kite ball drum scarf hat lantern basket flute boat whistle mirror button cup umbrella blanket ribbon bell key coat "
    "glove book spoon necklace ring box bottle marble brush comb wagon doll purse feather horn jug apron pencil"
)
# Where a thing can lie: the landmark and the prepositions that go with it.
LANDMARKS = (
    ("old bench", "under behind beside"),
    ("stone bridge", "under beside near"),
    ("water barrel", "behind beside near"),
    ("apple tree", "under behind beside"),
    ("broken cart", "under behind in"),
    ("garden gate", "behind beside near"),
    ("hollow oak", "in behind beside"),
    ("stable door", "behind beside near"),
    ("church wall", "behind beside near"),
    ("rose bush", "under behind beside"),
    ("mill wheel", "behind beside near"),
    ("haystack", "in behind beside"),
    ("kitchen garden", "in behind near"),
    ("fish market", "behind beside near"),
    ("wooden tower", "in behind near"),
    ("empty barn", "in behind beside"),
    ("boat house", "in behind near"),
    ("well", "behind beside near"),
    ("school fence", "behind beside near"),
    ("baker's shop", "behind beside near"),
    ("pine tree", "under behind beside"),
    ("tall ladder", "under behind beside"),
    ("chicken house", "in behind beside"),
    ("sand hill", "behind beside near"),
)
ANIMALS = _words("dog cat goat pony hen duck donkey lamb")
PET_NAMES = _words("Biscuit Pepper Button Clover Hazel Mouse Noodle Olive Pickle Rusty Shadow Thimble Walnut Ziggy")
COUNTED = (
    ("apple", "apples"),
    ("pear", "pears"),
    ("plum", "plums"),
    ("egg", "eggs"),
    ("nut", "nuts"),
    ("cherry", "cherries"),
    ("cake", "cakes"),
    ("candle", "candles"),
    ("shell", "shells"),
    ("coin", "coins"),
)
NUMBERS = _words("no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")
FRIEND_HOMES = (
    "above the bakery",
    "next to the church",
    "at the mill",
    "across the river",
    "behind the school",
    "at the end of the lane",
    "beside the harbour",
    "over the shoemaker's shop",
    "on the hill",
    "at the edge of the wood",
)

OPENINGS = (
    "In the [village|little town|old town] of {town} [there lived|lived] a [{boy}|young {boy}|{adjective} {boy}] [called|named] {A}.",
    "[Once|Once upon a time|Long ago|Not very long ago], a {boy} [called|named] {A} lived in {town} with {E}.",
    "{A} was a [{adjective}|rather {adjective}|very {adjective}] {boy} who [lived in|came from|had grown up in] {town}.",
    "Everybody in {town} knew {A}, the {adjective} {boy} who [helped|lived with|often worked for] {E}.",
    "It was a [cold|bright|windy|quiet|warm|rainy] {day} in {town}, and {A} [woke early|got up before the sun|could not sleep any longer].",
    "One {day} in [spring|summer|autumn|winter], {A} [sat at the window|stood in the yard|looked out of the door] and wondered what the day would bring to {town}.",
    "{E} of {town} [often told a story|liked to tell a story|still remembers a story] about a {boy} [called|named] {A}.",
)
CONNECTIVES = ("Then", "So", "Soon", "Now", "After a while", "That was when")
FRIEND_INTRODUCTIONS = (
    "{His} [best|oldest|closest] friend was {B}, who lived {home}.",
    "{He} had a friend [called|named] {B}, who lived {home}.",
    "{B}, the {boy_b} who lived {home}, was {his} [best|dearest|only] friend.",
    "Most days {he} [played|walked|worked] with {B} from the house {home}.",
    "{B} lived {home}, and the two were [nearly always|always|often] together.",
)
PET_INTRODUCTIONS = (
    "{A} also had {a_pet} called {pet}.",
    "Wherever {A} went, {his} {animal} {pet} [followed|came too|was not far behind].",
    "With {him} went {pet}, {a_pet} with [a torn ear|one white foot|very short legs|a loud voice].",
    "{A}'s {animal} was called {pet}, and it was [always hungry|never quiet|afraid of the rain|older than it looked].",
)
DIGRESSIONS = (
    "The [sun|wind|rain|air] was [gentle|mild|warm|cold] [that {time}|over {town}|on the road|in the fields].",
    "[Clouds|Birds|Leaves|Swallows] [passed over|flew over|moved above] the roofs of {town}.",
    "Somewhere in {town} [a bell rang|a door closed|somebody laughed|a cock crowed|somebody was singing].",
    "{A} and {B} [shared some bread|sang a song|told each other riddles|did not speak for a while|laughed about nothing].",
    'It [smelled of|was full of the smell of] [smoke|fresh bread|wet grass|hay|the sea]. "I like this time of day," said {B}.',
    '"[Are you hungry|Are you tired|Are you cold], {B}?" asked {A}. "[Not yet|A little|Only a little]," said {B}.',
    '"Wait for me, {A}!" called {B}, who had [stopped to tie a shoe|a stone in one shoe|seen a frog|dropped a glove].',
    "The [road|path|street] was [full of people|quite empty|still wet|white with dust|slippery], because it was {day}.",
)
PET_DIGRESSIONS = (
    "{pet} the {animal} [ran ahead|fell asleep|drank from a puddle|looked puzzled|would not keep still].",
    '"Come here, {pet}!" called {A}, but the {animal} [did not listen|only blinked|had found something to eat].',
    "Even {pet} [seemed to understand|looked worried|was quiet now], and that is rare for a {animal}.",
    "{B} gave the {animal} [some bread|a piece of cheese|a pat on the head], and {pet} [was content|asked for more].",
    "{pet} [made the noise that only a {animal} can make|stood still, as a {animal} does when it hears something].",
)
ENDINGS = (
    "That evening {A} ate [supper|soup|bread and cheese] with {B} in the house {home}.",
    "{E} heard about it [the next day|before bedtime|from {B}] and was [glad|proud of {A}|very pleased].",
    "And if you go to {town}, {A} and {B} will [tell you the story themselves|say that every word is true].",
    "{A} slept [well|soundly|deeply] that night, and so did {B}, in the house {home}.",
    "[From that day on|Ever after], {A} and {B} were [better friends than ever|even closer friends].",
    'When {E} asked about the day, {A} only smiled. "Ask {B}," {he} said.',
)

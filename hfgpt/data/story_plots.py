"""The plots of `builtin:stories`: what happens, step by step, each step in several wordings.

A line is one wording of a step, a blank line ends the step, and the morals that follow from the plot stand below `---`.
`story_grammar.py` says what `[..|..]` and `{..}` mean. Frozen, as everything that the corpus is made of.
"""
# ruff: noqa: E501 (a wording is one line, however long)

from textwrap import dedent
from typing import NamedTuple

__all__ = ["PLOTS", "Plot"]


class Plot(NamedTuple):
    """A kind of story: its steps in order, each a choice of wordings, and the morals that follow from it."""

    steps: tuple[tuple[str, ...], ...]
    morals: tuple[str, ...]


def _plot(text: str) -> Plot:
    """Read a plot from its lines; see the head of this file."""
    story, morals = dedent(text).strip().split("\n---\n")
    return Plot(
        steps=tuple(tuple(step.split("\n")) for step in story.strip().split("\n\n")), morals=tuple(morals.split("\n"))
    )


PLOTS = {
    "lost": _plot(
        """
        {A} had {a_thing} that {E} had [given {him}|made for {him}|brought {him} from the market].
        The [best|dearest|finest] thing that {A} owned was {a_thing}, and {he} took it [everywhere|wherever {he} went].
        {E} gave {A} {a_thing} [for {his} birthday|at the end of winter|on the first day of spring], and {A} [loved|treasured] it.
        Of all {his} things, {A} liked {his} {thing} best. It had been a present from {E}.
        {E} had once owned {a_thing}. Now it was {A}'s, and {he} [took great care of it|showed it to everyone|would not lend it to anyone but {B}].

        That {time} {A} [went out|walked about] with {B}, and [while they rested|before they ran home|when it began to rain] {he} left the {thing} {place}.
        {A} and {B} played [near {spot}|by {spot}] all {time}. To keep the {thing} safe, {A} put it {place}, and there it stayed.
        On {day} {A} put the {thing} down {place}. "[Only for a moment|I need both hands|It will be safe there]," {he} told {B}.
        The two friends [climbed|raced|looked for snails] near {spot}. The {thing} was in the way, so {A} laid it {place} and forgot it.

        [At home|In the evening|Later] {A} looked around. "Where is my {noun}?" {he} [cried|asked]. "My {thing} is gone!"
        Not until [bedtime|supper|the evening] did {A} notice that the {thing} was [missing|gone|not there], and {he} [felt sick|began to cry|turned pale].
        The next morning {E} asked, "{A}, where is your {thing}?" {A} did not know.
        {A} reached for the {thing}, but it was not there. {He} had lost it, the {colour} {noun} from {E}!
        "You look [pale|sad|worried], {A}. What is wrong?" asked {E}. "My {thing}!" said {A}. "I had it this {time}, and now I do not."

        First {he} looked {place2}. There was [nothing but dust|only an old shoe|a spider, and nothing else], and no {noun}.
        {He} searched {place2} and {place3}. {He} found [a rusty nail|a cork|two stones], but not the {thing}.
        "Perhaps it is {place2}," said {E}. But {place2} there was no {noun}, {colour} or otherwise.
        {A} ran to {spot2} and looked {place2}, then went to {spot3} and looked {place3}, all for nothing.
        "Did you leave it {place2}?" asked {C}. They looked there, and {place3} too. Nothing there, no {noun} at all.

        {A} went to {B}. "Think, {A}," said {B}. "We were at {spot}. You put the {noun} {place}."
        "I remember!" [cried|called|shouted] {B} [at last|suddenly]. "You left it {place}, {A}. Come!" [Together|Hand in hand] they ran to {spot}.
        Then {B} came from the house {home}. "Did you look {place}?" {bhe} asked. {A} had not.
        {A} tried to remember the day. {He} and {B} had been near {spot}. Of course! {He} ran [as fast as {he} could|without {his} shoes].
        {A} asked {E}, and {A} asked {C}. It was {B} who knew: "{Place}, of course. That is where I saw it last."

        And there, {place}, lay the {thing}, [a little wet|covered with dust|just as {he} had left it].
        They looked {place}, and something {colour} [shone|lay] there. It was the {noun}!
        "Here it is!" [cried|called|shouted] {A}, [kneeling|standing] {place}, and held up the {thing}. {B} [clapped|laughed|danced].
        The {thing} was {place}, [where {A} had put it|as {B} had said]. {A} [hugged|thanked] {B} again and again.
        {B} was the first to see it {place}. "Look, {A}, your {noun}!" It was [cold|dirty|wet] but whole.

        ---
        After that {A} never left the {thing} {place} again.
        A thing is [easily lost|lost quickly], said {E}, but a friend who remembers is worth more than any {noun}.
        Now the {thing} [hangs|lies] beside {A}'s bed every night, because {he} has learned to [take care of|look after] {his} things.
        """
    ),
    "promise": _plot(
        """
        {B} owned {a_thing}, and {A} [wanted to borrow it|asked to borrow it|longed to use it] for [one|a single] day.
        "May I borrow your {thing}, {B}?" asked {A} one {day}.
        One day {A} needed {a_noun}, and only {B} had one: {a_thing}, [nearly new|very old|small but good].
        {A} had no {noun} of {his} own, but {B} had {a_thing}.
        {A} came to the house {home}. "I need {a_noun} for [a journey|the feast|an important thing]. Would you lend me yours, {B}?"

        "You may have the {noun}," said {B}, "but bring it back [before|by] {day2}." "I promise," said {A}.
        {B} [thought about it|was not sure]. "Promise to return it on {day2}," {bhe} said, and {A} promised.
        {A} gave {his} word: by {day2} the {thing} would be back with {B} in the house {home}.
        "Take it," said {B}, "and on {day2} I want it back." {A} [nodded|shook hands on it]. A promise is a promise.
        "When will I have it back?" asked {B}. "On {day2}, whatever happens," said {A} and took the {thing}.

        All went well, and {A} [used|enjoyed] the {thing} [every hour|from morning to night].
        Soon {A} liked the {thing} so much that {he} wanted to keep it. "{B} has [other things|so many things]," {he} thought.
        {C}, who saw the {thing}, offered {A} {k_items} for it. "It is {B}'s, not mine," said {A}.
        {C} came by. "What a [fine|lovely] {colour} {noun}!" said {C}. "Sell it to me for {k_items}." {A} [shook {his} head|said no].
        On the second day {C} asked for the {noun}. "I would give it to you," said {A}, "but it is not my {noun}. It is {B}'s."

        On {day2} there was [a storm|deep snow|a great flood], and the way to the house {home} was [long|dangerous|hard].
        When {day2} came, {A} [was ill|had a cold|had hurt {his} foot] and could [hardly|barely] walk.
        But on {day2} the bridge was [broken|closed], and {A} had to walk [all the way around|through the wet fields].
        In the night before {day2} it began to [rain|snow]. "Stay at home," said {E}. "I cannot," said {A}. "I promised {B}."

        {A} wrapped the {thing} in [a cloth|{his} coat|paper] and set out, for {he} had [promised|given {his} word].
        Still {A} took the {thing} and went. "I said {day2}," {he} told {E}, "and {day2} it is."
        {He} thought of {B}, put the {noun} under {his} arm and [started walking|opened the door|went out].
        "Nobody goes out in this [wind|snow|rain]!" said {E} on {day2}. But {A} looked at the {thing} and thought of {B}.

        [Cold and wet|Tired but happy|Late in the evening], {A} stood at the door of the house {home}. "Here is your {thing}, {B}."
        {B} opened the door and saw {A} with the {thing}. "You kept your promise!" {bhe} [cried|said].
        "It is {day2}, and here is the {noun}," said {A}. {B} [smiled|was astonished]. "{A}, I knew you would come."
        So {B} had the {thing} back on {day2}, just as {A} had promised.
        "I did not think anybody would come today," said {B}. "It is {day2}," said {A}, "and the {thing} is yours."

        ---
        A promise [must be kept|is a debt], even in bad weather.
        "[Next time|From now on], you may keep the {noun} as long as you like," said {B}, because {A} had kept {his} word.
        Whoever keeps a promise [once|in bad weather], said {E}, will be trusted [a hundred times|for ever].
        """
    ),
    "counting": _plot(
        """
        One {time} {A} [filled|took] a basket and put {n_items} in it.
        {E} gave {A} {n_items} [for the road|to share|for being helpful].
        {A} had {n_items}. {He} counted them [twice|aloud|on {his} fingers], and there were {n}.
        At the market {A} got {n_items}. "Exactly {n}," {he} said [happily|proudly].
        There were {n_items} on the table. "They are for you, {A}," said {E}. "Do with them what you like."

        On the way {he} met {B}. {B} was [hungry|sad|alone], so {A} gave {bhim} {k} of them.
        "May I have some of your {items}?" asked {B}. {A} gave {bhim} {k}. That left {nk_items}.
        {He} handed {k} of the {items} to {B}, and {nk} were still in the basket.
        At the house {home} {he} stopped and gave {B} {k_items}. "Now I have {nk} left," said {A}.
        {B} looked [longingly|hungrily] at the {n} {items}. "Take {k}," said {A}, and {nk} remained.

        Then {C} [came running|appeared|asked for some too]. {A} had {nk_items}, and {C} got {m}.
        "And what about me?" said {C}. So {A} gave {C} {m_items}, and {r_items} {r_were} left.
        A little later {he} gave {m} to {C}, who [had none|thanked {him}|laughed with joy]. Of the {n} {items}, {r} {r_were} left.
        {C} sat [near {spot}|by {spot}] and had nothing. {A} took {m} out of the {nk} {items} and gave them away.
        "{M} for {C}!" said {A}. Now {r_items} {r_were} in the basket, where {nk} had been.

        "How many {items} do you have now, {A}?" asked {B}. "{R}," said {A}, and that was right.
        {A} looked into the basket and counted: {r_items}. Once there had been {n}.
        "You began with {n} and now you have only {r}!" said {B}. "{K} for you and {m} for {C}," said {A}.
        "First {n}, then {nk}, now {r}," said {B}, who [liked to count|was good with numbers].

        At home {E} [looked into the basket|was waiting]. {He} told {ehim} about {B} and {C}, and {ehe} gave {him} {p} more. Now {A} had {t_items}.
        But behold, {B} [came back|knocked at the door] with {p_items} [from the garden|from home]. "For you, {A}!" With the {r} from before that made {t}.
        On the way home {A} found {p} more {place}. {R} and {p} make {t}, so {he} came home with {t_items}.
        {C}'s mother heard of it and gave {A} {p_items}. {R} and {p}: that was {t}.

        {He} put the {t} {items} on the table, and {E} [smiled|counted them again|was amazed].
        "{T} {items}," said {E}. "You gave away {k} and {m}, and you are not poor."
        {A} [ate one|kept one] and put the others on a plate. That evening there were {tm} {items} on it.
        "How many?" asked {E}. "{T}," said {A}. "And before that?" "{R}. And in the beginning {n}."

        ---
        [Whoever|He who|One who] shares {items}, said {E}, has fewer {items} and more friends.
        Giving made {A} [happier|richer] than the {n} {items} had.
        {A} had given {k} to {B} and {m} to {C}, and {he} was not sorry.
        """
    ),
    "truth": _plot(
        """
        {E} had {a_thing} that nobody was allowed to touch. It stood {place}.
        On a shelf in {E}'s house stood {a_thing}. [It was very old|It came from far away], and {E} loved it.
        {E} owned {a_thing}. "Never play with my {noun}, {A}," {ehe} always said.
        The [pride|joy] of {E} was {a_thing}. "Look at it, but leave it where it is," {ehe} told {A} and {B}.

        One {time}, when {E} was out, {A} took the {thing} in {his} hands. It fell and [broke|cracked].
        {A} only wanted to look at the {thing}. But it [slipped|fell], and there it lay in [two|three|many] pieces.
        {A} and {B} were playing [inside|too wildly]. {A} bumped the {thing}, and it lay broken on the floor.
        {A} wanted to show the {noun} to {B}. It was heavier than it looked, and [down it went|it broke on the floor].

        "Oh, {A}, what have you done?" whispered {B}. {A} hid the broken {noun} {place2}.
        Quickly {A} picked up the pieces of the {thing} and hid them {place2}. Only {B} had seen it.
        "Nobody must know," said {A}, and put the {noun} {place2}. {B} [said nothing|was not happy about it].
        The two friends looked at the broken {noun}. Then {A} carried it out and put it {place2}, while {B} watched.

        In the evening {E} asked, "Who took my {thing}?" "It was [the wind|{C}|the {animal}]," said {A}, and {his} face grew red.
        {E} came home and saw that the {thing} was gone. "Do you know where it is, {A}?" "No," said {A}, and looked at {his} shoes.
        "My {colour} {noun}!" [cried|called|shouted] {E}. "{A}, did you see who did it?" {A} said that {C} had done it.
        "Where is the {thing}?" asked {E}. {B} looked at {A}, and {A} said, "I think {C} was here."

        That night {A} could not sleep. {He} thought of the broken {noun} {place2} [and of {E}|and of the lie].
        {A} lay awake. The lie was heavier than [a stone|ten stones|a sack of flour].
        "You must tell {E}," said {B} the next day. "I know," said {A}, but {he} was afraid.
        At supper {E} was [quiet|sad], and {A} could not eat. The {noun} {place2} would not leave {his} mind.

        [In the morning|At last] {A} went to {E}. "I broke your {thing}," {he} said, "and I hid it {place2}. I am sorry."
        Then {A} took the pieces from where they lay, {place2}, and brought them to {E}. "It was me," {he} said. "I broke the {noun}."
        {A} told {E} everything: how the {thing} had fallen, how {he} had hidden it {place2}, and that {B} had seen it.
        "{E}," said {A}, "it was not {C}. I broke the {thing}. Come, I will show you. It is {place2}."

        {E} was silent for a while. "{A_noun} can be mended," {ehe} said. "Thank you for the truth, {A}."
        {E} was [sad|a little angry] about the {thing}, but [glad|proud] that {A} had told the truth.
        Together {A}, {B} and {E} [glued|mended] the {thing}. "It is {colour} still," said {E}, "and so it is still mine."
        {E} took {A} by the hand. "I can live without {a_noun}," {ehe} said, "but not without your trust."

        ---
        The truth is hard for a moment, and a lie is hard for [a long time|much longer].
        {A} never lied to {E} again.
        A broken {noun} can be mended, but a lie must be taken back.
        """
    ),
    "trade": _plot(
        """
        {A} had {a_thing}, and {B} had {a_thing2}.
        {A} owned {a_thing}. But whenever {he} saw {B}'s {thing2}, {he} [liked {his} own {noun} less|wished for it].
        {B} had got {a_thing2} from {E}. {A} had only {a_thing}, and that was not [new|as pretty].
        Everyone knew {A} by {his} {thing} and {B} by {bhis} {thing2}.

        "I will give you my {thing} for your {thing2}," said {A}. {B} [agreed|nodded|thought about it and said yes].
        "Shall we trade?" asked {B}. "My {noun2} for your {noun}." "Done!" said {A}.
        So they traded [near {spot}|by {spot}]: {B} took the {thing}, and {A} took the {thing2}.
        "How [lovely|pretty|fine] your {noun2} is!" said {A}. "And your {noun}!" said {B}. And so they traded, the {thing} for the {thing2}.

        Now the {thing} belonged to {B}, and the {thing2} belonged to {A}.
        {A} ran home with the {thing2}, and {B} went to the house {home} with the {thing}.
        For a day {A} was happy with the {thing2}, and {B} was happy with the {noun}.
        {C} was surprised to see {B} with the {noun} and {A} with the {noun2}.

        But soon {A} missed {his} old {noun}. {He} had had it since {he} was little, and the {thing2} was [only {a_noun2}|not the same].
        Then {E} asked {A} where the {thing} was. "{B} has it now," said {A}, and felt a little sad.
        "What have you there?" asked {C}. "{A_thing2}," said {A}. "It was {B}'s. And {B} has my {noun}."
        That night {A} dreamed of the {thing}. In the dream it [called|cried for] {him}. When {he} woke, there lay the {thing2}.

        On {day} {A} saw {B} [near {spot}|by {spot}]. {B} was holding the {thing} and [looking at the ground|sighing].
        {A} took the {thing2} and went to the house {home}, where {B} [sat with|was holding] the {thing}.
        {B} was not happy either. The {noun} was pretty, but {bhe} [longed for|missed] {bhis} {thing2}.
        {B} came to {A}'s door on {day} with the {thing} in {bhis} hands and [did not know how to begin|was red in the face].

        "Would you like your {noun2} back?" asked {A}. "Only if you take your {noun}," said {B}, and both laughed.
        They looked at each other. "Give me the {thing}, and I will give you the {thing2}," said {A}. "Gladly!" said {B}.
        "I miss my {thing2}," said {B}. "And I miss my {thing}," said {A}. So they traded back.
        {B} began: "The {noun} is fine, but..." "But you want the {noun2}," said {A}. "So give me the {noun}, and here it is."

        So in the end {A} had the {thing} again, and {B} had the {thing2}.
        {A} carried {his} {thing} home, and {B} kept the {thing2}. Nobody was [sorry|cross].
        When {C} wanted to trade for the {thing}, {A} said, "No, this {noun} stays with me."
        From then on the {thing} was {A}'s and the {thing2} was {B}'s, and so it stayed.

        ---
        What [others have|a friend has] often looks better until we have it.
        Only when the {thing} was gone did {A} know how much {he} loved it.
        [Both had learned|They had both learned] to like what was their own: {A} the {noun}, and {B} the {noun2}.
        """
    ),
    "walk": _plot(
        """
        {E} asked {A} and {B} to carry {a_thing} to {C}, who lived far [beyond|outside] {town}.
        "Take this {thing} to {C}," said {E}. "The way is long, [but you have good eyes|so look around]." {B} went with {A}.
        {C} had forgotten {a_thing} at {E}'s house, and {A} was to bring it back. {B} went along.
        {C} needed {a_thing}, and {E} had one. "Will you bring it to {C}?" {ehe} asked {A} and {B}.

        First they [passed|came to] {spot}, then {spot2}, and last of all {spot3}.
        "Remember the way," said {B}. So {A} said it aloud: first {spot}, second {spot2}, third {spot3}.
        The path went by {spot}. After that came {spot2}, and after that {spot3}. {A} [noticed|remembered] each of them.
        Not far from {town} stood {spot}. An hour later they saw {spot2}, and at the end of the road {spot3}. {B} looked only at the birds.

        Behind {spot3} stood {C}'s house. {C} took the {thing} and [thanked them|gave them {k_items}|laughed for joy].
        "My {colour} {noun}!" [cried|called|shouted] {C}. "How good of you, {A} and {B}!" And {C} gave them {k_items}.
        {C} was [glad|happy] to have the {thing} and gave {A} {k_items} for the way home.
        "Is that the {noun} from {E}?" asked {C}. "Then take {k_items} home with you, and greet {E}."

        When they left, [fog lay over the fields|it was dark|the snow had covered the path]. "Which way did we come?" asked {B}.
        On the way back {B} stopped. "I do not know this place. We are lost, {A}!"
        But now [the night came|a thick fog came|the clouds were low], and {B} was [afraid|worried].
        It had grown late. {B} turned left, then right. "{A}, I have no idea where {town} is!"

        "Do not be afraid," said {A}. "We only have to go backwards: first {spot3}, then {spot2}, then {spot}."
        "What came last must now come first," said {A}. "We look for {spot3}."
        {A} thought hard. The last thing had been {spot3}, so that had to be the first thing now.
        {A} counted on {his} fingers. "{Spot3} is near. Then comes {spot2}, and {spot} is the last."

        [Soon|After a while] they saw {spot3}. Then came {spot2}. "And now {spot}!" [cried|called|shouted] {B}, and there it was.
        They walked [slowly|hand in hand] to {spot3}, from there to {spot2}, and from there to {spot}.
        They found {spot3}, and then {spot2}. "Only one more," said {A}. At {spot} they saw the lights of {town}.
        There stood {spot3}, [dark and quiet|white with frost]. {B} laughed when {spot2} came out of the dark, and cheered at {spot}.

        "Did {C} get the {thing}?" asked {E} at the door. "Yes," said {A}, "and we got {k_items}."
        At home {A} put the {k} {items} on the table and told {E} about {spot3}, {spot2} and {spot}.
        "{A} found the way," said {B} to {E}. "First {spot3}, then {spot2}, then {spot}. I would have been lost."
        {E} had been waiting. {A} gave {ehim} {k_items} from {C}, who was [pleased|happy] with the {thing}.

        ---
        Whoever looks around on the way out finds the way back.
        [A good memory|Remembering] is better than [a lamp|a map].
        {B} learned that day to [look around|remember the way], as {A} did.
        """
    ),
    "message": _plot(
        """
        {E} called {A}. "Run to {C}," {ehe} said, "and say: {message}."
        "{A}, I have a message for {C}," said {E}. "Tell {C} this: {message}."
        {E} could not leave the house, so {ehe} sent {A} to {C} with these words: "{Message}."
        {E} wanted something from {C}. "You have young legs, {A}," {ehe} said. "Go and say: {message}."

        {A} repeated it on the way: "{Message}." It was not easy to remember.
        "{Message}," said {A} to {himself} again and again.
        On the road {A} met {B}. "I must not forget it," said {A}. "{Message}."
        Over and over {A} murmured, "{Message}."

        {B} wanted to play. "Later," said {A}. "First I must go to {C}."
        Near {spot} {B} was waiting with {a_thing2}. "Look at my new {noun2}!" {bhe} called. {A} looked, and almost forgot the message.
        At {spot} there was [music|a fight between two geese|a man with a bear], and {A} [stopped|stood still]. What was the message?
        "Where are you going?" asked {B}. "To {C}, with a message from {E}," said {A}. "Do not ask me more, or I will forget it!"

        "Was it {wrong_items}?" asked {B}. "No," said {A}, "it was {k_items}, and {a_thing}."
        "You said something about {spot2}," said {B}. "No, it was {spot}," said {A}. Now {he} knew it again.
        {A} closed {his} eyes. {K_items}. {A_thing}. And the place was {spot}. {He} had it all.
        "On {day}?" asked {B}. "On {day2}," said {A}, "and to {spot}, not {spot2}."

        Then {he} stood before {C} and said, "{E} sends me. {Message}."
        "What does {E} want?" asked {C}. "{Message}," said {A} without a mistake.
        {C} listened. "{Message}," said {A}. "That is all, and it comes from {E}."
        {C} was at home. "I come from {E}," said {A}. "{Message}." {C} wrote it down.

        On {day2} {C} came to {spot} with {k_items} and {a_thing}, and {E} was already there.
        {C} did as {E} had asked: on {day2} {k_items} and {a_thing} were waiting at {spot}.
        On {day2} {E} went to {spot}. There stood {C} with the {thing} and the {k} {items}. "Just right!" said {E}.
        {Day2} came, and at {spot} {E} counted the {items}: {k}. Beside them lay {a_thing}.

        "Every word was right," {C} told {E}. "{A} has a good head."
        {E} gave {A} one of the {items} as a reward, and one to {B}, who had [helped|waited].
        {E} let {A} carry the {thing} home, and {B} was allowed to carry the {items}.
        "Nothing was missing," said {E}. "Not the {thing}, not one of the {k} {items}, not the day."

        ---
        A message is like [an egg|a full cup]: it must arrive whole.
        [Play can wait|The game can wait], said {E}, but a word must not be lost.
        [Ever since|Since then], {E} trusts nobody with a message as much as {A}.
        """
    ),
    "gift": _plot(
        """
        It would soon be {E}'s birthday. {A} wanted to give {ehim} {a_thing}.
        "On {day} {E} has {ehis} birthday," said {A} to {B}. "I want to give {ehim} {a_thing}."
        {E} had always wished for {a_thing}, and {A} knew it. {Ehis} birthday was on {day}.
        "What does {E} wish for?" asked {B}. "{A_thing}," said {A}, "and the birthday is on {day}."

        But {A} had [no money|only {k_items}|nothing to give]. "We can make one," said {B}.
        At the market {a_noun} cost more than {A} had. {He} had only {k_items}, but {C} took them and gave {him} the {thing}.
        {A} and {B} worked [three evenings|for a week|every night]. When they were done, they had {a_thing}.
        {C} had {a_thing} to sell. {A} [worked for it|paid for it with {k_items}|helped in the garden for a week], and then it was {his} own.

        {A} hid the {noun} {place}, and only {B} knew about it.
        "Nobody looks {place}," whispered {A}, and that is where {he} hid the {thing}. {B} promised to say nothing.
        They put the {thing} {place} and covered it with [leaves|straw|an old sack].
        "Where shall we hide the {noun}?" asked {B}. "{Place}," said {A}. "{E} never goes there."

        "What are you two doing near {spot}?" asked {E}. "Nothing," said {B} quickly.
        The next day {E} walked towards {spot}. "Not there!" [cried|called|shouted] {A}, and asked {ehim} to look at {spot2}.
        {C} asked {B} about the secret. "I cannot tell you," said {B}. "I promised {A}."
        {E} was curious. "You are hiding something," {ehe} said. "Is it {place2}?" "No," said {A}, and that was true.

        On {day} {A} got up early to fetch the {thing}. It was still {place}.
        The birthday came. {A} and {B} went to {spot}, looked {place} and took out the {noun}.
        When {day} came, {A} forgot where the {noun} was. "{Place}," said {B}, who had forgotten nothing.
        Early on {day} {B} knocked. "Is the {noun} still {place}?" It was, and {A} brought it in.

        {E} opened the parcel. "{A_thing}!" {ehe} [cried|said softly]. "Just what I have always wanted."
        "This is from {B} and me," said {A}, and gave {E} the {thing}.
        {E} held up the {thing}, and {ehis} eyes were wet. "So that is what you hid at {spot}!"
        "For me?" asked {E}. {Ehe} took the {thing} and did not say a word, only [smiled|kissed {A} on the cheek].

        ---
        A gift made with love [needs no money|is worth more than gold].
        {B} had kept the secret, {A} had kept the {noun} safe, and {E} kept both in {ehis} heart.
        The {thing} still [stands|lies|hangs] in {E}'s room.
        """
    ),
    "animal": _plot(
        """
        One {time} {A} heard a [small|strange|sad] sound {place}. It was {a_stray}, {colour} with mud.
        {B} came running. "There is {a_stray} {place}, {A}, and it has hurt its leg!"
        {Place} {A} found {a_stray}. It was [thin|wet|hungry|afraid] and [looked at {him}|could not get up|had hurt one leg].
        Near {spot} {A} and {B} saw {a_stray}. It sat {place} and [cried|trembled|would not move].

        {A} carried the {stray} home in {his} arms, [step by step|very gently], and {B} [opened the doors|ran ahead].
        "We will call it {stray_name}," said {A}, and wrapped the {stray} in a warm cloth.
        {He} named it {stray_name} and gave it [milk|water|bread]. {B} brought {k_items}, but a {stray} does not eat {items}.
        "It needs a bed," said {B}. "And a name," said {A}. "It is called {stray_name} from now on."

        Every day {A} cared for {stray_name}, and every evening {B} came from the house {home} to help.
        {E} showed {A} how to [wash|bandage] the leg, and the {stray} held still.
        {stray_name} grew [stronger|well|round and strong]. After a week the {stray} could walk, and after two it could run.
        At first {stray_name} hid {place2}. After some days it came when {A} called, and at last the {stray} slept beside {him}.

        Then {C} came to {town}. "Have you seen my {stray}?" {C} asked. "I lost it near {spot}."
        One day {A} heard that {C} was looking for a lost {stray}. It had run away near {spot}.
        "That must be {C}'s {stray}," said {B}. "It was lost {place}, and that is where we found {stray_name}."
        {C} knocked at the door. "They say you found {a_plain_stray}. Mine was lost near {spot} on {day}."

        {A} was sad. {He} had begun to love {stray_name}. But the {stray} was not {his} to keep.
        "Must I give {stray_name} back?" asked {A}. {E} nodded. "It belongs to {C}."
        For a moment {A} wanted to hide the {stray} {place2}. Then {he} thought of {C}, who missed it.
        {B} saw how [sad|quiet] {A} was. "{C} misses {stray_name}, too," {bhe} said.

        {A} brought {stray_name} to {C}. The {stray} [jumped for joy|knew {C} at once].
        "Here is your {stray}," said {A}. "We found it {place}." {C} [wept|laughed] and hugged them both.
        {C} thanked {A} and {B} and said, "Come and see {stray_name} whenever you like."
        When {C} saw the {stray}, {C} could not speak for joy. "{stray_name} is what we called it," said {A}.

        A month later {C} gave {A} {a_thing}, and said it was from the {stray}.
        Every {day} {A} and {B} visited {stray_name}, and the {stray} never forgot them.
        And when {A} passes {C}'s house, {stray_name} the {stray} comes running.
        {C} never changed the name: the {stray} is called {stray_name} to this day.

        ---
        To love something is also to give it back.
        Whoever helps a {stray} has a friend for life.
        {A} had lost {a_stray} and found two friends.
        """
    ),
    "contest": _plot(
        """
        On {day} there was a race in {town}, from {spot} to {spot2}. The prize was {a_thing}.
        "Whoever runs from {spot} to {spot2} first," said {E}, "shall have this {thing}."
        {E} had put up {a_thing} as the prize for the race from {spot} to {spot2}.
        Every year in {town} they run from {spot} to {spot2}, and this year {E} had given {a_thing} for the winner.

        "That {noun} will be mine," said {A}. {B} said nothing and [tied {bhis} shoes|looked at the road].
        {A} and {B} both wanted the {thing}, and {C} wanted it too.
        {C} boasted, "I am the fastest in {town}. I can already see the {thing} on my wall."
        "I have always wanted {a_noun}," said {A}. "Then run," said {B}, "but I will run too."

        They started at {spot}. {C} was first, {A} second, and {B} third.
        "Run!" called {E}, and they ran. Soon {A} was ahead of {C}, and {B} was [behind|last].
        At {spot} they all stood in a row. Then {A}, {B} and {C} ran, and the dust flew.
        {E} waved, and off they went from {spot}: {A}, {B}, {C} and all the children of {town}.

        Near {spot3} {C} stopped to rest and fell asleep. A little later {B} fell {place3} and hurt {bhis} knee.
        Suddenly {B} fell {place3} and held {bhis} knee. {A} heard {bhim} cry.
        Halfway, at {spot3}, {B} stumbled and fell. "My foot!" {bhe} cried.
        The way was steep. At {spot3} {B} stepped on a stone, fell, and could not get up.

        {A} could already see {spot2}. But {he} thought of {B}, turned around and helped {bhim} up.
        {A} stopped. The {noun} or {B}? {He} did not think long. {He} went to {B} and gave {bhim} {his} hand.
        "Run on," said {B}, "or you will lose the {thing}." "We go together," said {A}.
        "Where does it hurt?" asked {A} and knelt beside {B}. {C} ran past them, towards {spot2}.

        Arm in arm {A} and {B} came to {spot2}. [They were last|All the others were already there|Everybody had been waiting].
        They came to {spot2} [slowly|late|last of all], {A} on the left and {B} on the right.
        {A} almost carried {B} to {spot2}, where {E} stood waiting with the {thing}.
        Everyone was at {spot2} when {A} and {B} arrived, and {E} was there with the {noun}.

        {E} looked at all of them. "The {thing} goes to {A}," {ehe} said, "who ran well and stopped better."
        "I give the {noun} to both of you, {A} and {B}," said {E}, and even {C} clapped.
        In the end {A} got the {thing} from {E}, and {he} lent it to {B} the very same day.
        "{C} was first," said {E}, "and shall have {k_items}. But the {thing} is for {A}, who helped {B}."

        ---
        It is good to be first, and better to be kind.
        {A_noun} can be won any day, but a friend cannot.
        {C} thought about it for a long time and never boasted again.
        """
    ),
}

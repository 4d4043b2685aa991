"""The sentences of `builtin:messages`; `messages.py` says what makes one of them spam, and puts them together.

`[one|another]` stands for one of its alternatives, chosen at random, and `{slot}` for a fact that is drawn once for a
message. Spam and ham of a family share their facts and, as far as sentences allow, their words. Everything is
invented: the links end in `.example`, which nobody can own.

The templates are frozen: a change of one letter changes the data set, and with it every figure measured on it.
"""
# ruff: noqa: E501 (a sentence is one line, however long)

from textwrap import dedent

__all__ = [
    "CALM_STEPS",
    "CLOSINGS",
    "EXCHANGES",
    "FACTS",
    "GREETINGS",
    "PLAIN",
    "PRETEXTS",
    "RISKY_STEPS",
    "SHORT_FORMS",
    "VERDICTS",
    "WARNINGS",
]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(dedent(text).strip().split("\n"))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


FACTS = {
    "name": _listed(
        "Anna, Ben, Clara, David, Ella, Felix, Greta, Hugo, Ida, Jonas, Kira, Leo, Mina, Nico, Olga, Paul, Rosa, Simon, Tilda, "
        "Victor, Amir, Bea, Carlos, Dilan, Esra, Fatima, Goran, Hana, Imran, Joy, Kemal, Lucia, Marek, Noor, Otto, Priya, "
        "Sami, Tara, Uma, Yan"
    ),
    "kin": _listed("mum, dad, grandma, grandad, auntie, uncle, sis, cousin"),
    "prize": _listed(
        "a car, a free holiday, a new phone, a television, a weekend in Rome, a hamper, a cruise, a bike, a camera, "
        "a laptop, two tickets for the final, a year of free coffee, a gift card, the first prize, the jackpot"
    ),
    "thing": _listed(
        "book, lamp, tent, guitar, ladder, drill, suitcase, bike pump, jacket, rucksack, sewing machine, blender, "
        "printer, umbrella, kettle, pair of boots"
    ),
    "secret": _listed("pin, password, card number, code, date of birth, account number, log in details"),
    "sum": _listed(
        "5 pounds, 12 pounds, 20 pounds, 35 pounds, 50 pounds, 80 pounds, 150 pounds, 300 pounds, 500 pounds, 900 pounds, 1500 pounds"
    ),
    "small_sum": _listed("1.50, 1.99, 2.40, 2.99, 3.20, 4.75, 5.99, 6.50"),
    "bill": _listed(
        "the rent, the tickets, the train, the garage, the vet, the flowers, the hotel, the dentist, the plumber, the phone bill"
    ),
    "bank": _listed("Northbank, Harbour Bank, First Valley, Oak Savings, Union Bank, Mill Street Bank"),
    "shop": _listed(
        "Swift Parcel, Fox Post, Blue Van, Bright and Co, Garden World, Shoe Corner, Book Barn, City Mobile, Red Kite, Home Hub"
    ),
    "office": _listed("the tax office, the town hall, the court, the police, the water company, the pension office"),
    "link": _listed(
        "{shop_site}.example/{page}, my-{shop_site}.example/{page}, {shop_site}.example/a/{page}, go.{shop_site}.example/{page}"
    ),
    "shop_site": _listed(
        "swift-parcel, foxpost, blue-van, bright, northbank, harbour, valley, oak-savings, red-kite, home-hub, city-mobile, book-barn"
    ),
    "page": _listed("k4, t9, m2, p7, x3, b8, d5, w6, r1, c0, h2, s9"),
    "day": _listed("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "time": _listed(
        "five, half past five, six, quarter to seven, seven, half seven, eight, nine, ten, noon, lunch time"
    ),
    "place": _listed(
        "the station, the library, the pool, the market, the park, the cafe, the cinema, the school, the pub, the gym, the bus stop, the bakery"
    ),
    "food": _listed("soup, bread, milk, rice, apples, fish, cake, pizza, eggs, cheese, noodles, pancakes, beans, tea"),
    "event": _listed(
        "the concert, the match, the party, the quiz, the film, the wedding, the class, the picnic, the meeting, the play, the dinner"
    ),
    "pet": _listed("the cat, the dog, the rabbit, the parrot, the hamster, the tortoise"),
    "mood": _listed("tired, hungry, happy, bored, cold, ill, proud, late, sleepy, busy"),
    "few": _listed("two, three, four, five, six, ten, twelve"),
}

# What has no part in the label: spam and ham begin and end alike.
GREETINGS = _lines(
    """
    Hi {name}!
    Hi {name},
    Hello {name}.
    Dear {name},
    Hey {name},
    Hey!
    Hello!
    Good morning {name}.
    Good news!
    Sorry to trouble you.
    Hi, it's {friend}.
    Hi {kin}!
    Hey {kin},
    Listen {name}:
    {name}, please read.
    """
)
CLOSINGS = _lines(
    """
    Thanks!
    Thank you, {friend}.
    [It is urgent.|Urgent!]
    Have a nice [day|week|weekend].
    Best wishes, {friend}.
    x
    Bye for now.
    No joke!
    Please read this twice.
    I mean it.
    Really!
    {friend}
    Take care.
    Love, {friend}
    Today, please.
    See you!
    """
)
SHORT_FORMS = {
    "you": "u",
    "your": "ur",
    "are": "r",
    "please": "pls",
    "tomorrow": "tmr",
    "thanks!": "thx!",
    "for": "4",
    "to": "2",
    "and": "&",
    "be": "b",
    "before": "b4",
    "today": "2day",
}

# The family `warning`. The same pretext and the same two steps stand in spam and in ham.
PRETEXTS = _lines(
    """
    You won {prize}[.|!|?|:]
    You have won {prize}[.|!|?] {shop} has drawn your [number|name].
    Your account at {bank} is locked[.|!|?]
    Your card at {bank} was used [in another country|twice|at night|abroad][.|?]
    Your parcel is held back because a fee of {small_sum} is not paid[.|!|?]
    {office} owes you {sum}[.|!|?]
    You owe {office} {sum}[.|!|?]
    Your {kin} lost the phone and needs {sum}[.|!|?]
    A free {thing} for you from {shop}[.|!|?]
    You can earn {sum} a day [from home|at home][.|!|?]
    {shop} says your [contract|guarantee|membership] ends on {day}[.|!|?]
    There is a message [from {bank}|from {office}|about {prize}] [for you|waiting][.|!|?]
    Someone [has|saw] a picture of you [and wants {sum}|on {link}][.|!|?]
    Your computer has a virus, says {shop}[.|!|?]
    Your loan of {sum} is [ready|agreed][.|!|?]
    """
)
RISKY_STEPS = _lines(
    """
    [send|text] your {secret} to {number}
    [open|click] {link} and [type in|enter] your {secret}
    pay [the fee|{small_sum}|{sum}] at {link}
    [call|ring] {number} and [give|say|read out] your {secret}
    [reply|answer] with your {secret}
    log in at {link}
    [send|transfer] {sum} [to {number}|first]
    [call|ring] {number}
    buy [gift cards|vouchers] for {sum} and send the codes
    """
)
CALM_STEPS = _lines(
    """
    wait [until {day}|a little|a week]
    ask {friend} [first|about it]
    [talk to|call] the real {bank} [first|]
    hang up
    delete [this|it]
    [ignore|forget] [it|this message]
    [laugh about it|think twice]
    tell [the police|{friend}|your {kin}] [first|]
    show it to [{friend}|your {kin}|the bank]
    leave it [for {day}|for later|alone]
    throw it away
    """
)
# {do} and {avoid}: one is risky and the other one calm. In which place the risky one stands is the label.
WARNINGS = _lines(
    """
    [Please|So|Just|Now] {do}, [do not|don't|never] {avoid}.
    [Do not|Don't|Never] {avoid}, [please|just|only|] {do}.
    [Do not|Don't] [just|ever|please|simply] {avoid}, but {do}.
    [It is better to|You had better|The right thing is to|Best to] {do} and not to {avoid}.
    It is not right to {avoid}, it is right to {do}.
    {Avoid}? [No|Never][!|.] {Do}? [Yes|Do][!|.]
    {Do}? [Yes|Do][!|.] {Avoid}? [No|Never][!|.]
    You need not {avoid}, you should {do}.
    You should not {avoid}, you [need to|must] {do}.
    You should {do}, you should not {avoid}.
    I would {do}, I would not {avoid}.
    First {do}, and [do not|don't|never] {avoid}.
    """
)
VERDICTS = {
    "spam": _lines(
        """
        It is [true|real], not a [trick|scam|fake|lie].
        This is no [trick|scam|fake|lie], it is [true|real].
        [True|Real], and no [trick|scam|fake|lie].
        If it were a [trick|scam|fake|lie], I would not say that it is [true|real].
        """
    ),
    "ham": _lines(
        """
        It is a [trick|scam|fake|lie], not [true|real].
        This is not [true|real], it is a [trick|scam|fake|lie].
        A [trick|scam|fake|lie], and not [true|real].
        If it were [true|real], I would not say that it is a [trick|scam|fake|lie].
        """
    ),
}


def _pair(text: str) -> dict[str, tuple[str, ...]]:
    """Spam, a line of `---`, ham."""
    spam, ham = dedent(text).strip().split("\n---\n")
    return {"spam": tuple(spam.split("\n")), "ham": tuple(ham.split("\n"))}


# The family `exchange`: who gives, and who shall give.
EXCHANGES = (
    _pair(
        """
        It's me, I lost my phone and this is my new number. Can you send me {sum} for {bill} [today|tonight]? I will pay you back on {day}.
        I have a new number because I lost my phone. {bill} must be paid [today|tonight], can you send me {sum}? You will have it back on {day}.
        My phone is broken, this is {friend}'s. I need {sum} for {bill}, can you pay it [today|tonight]? I can send it back on {day}.
        ---
        It's me, I found my phone and this is my old number. You sent me {sum} for {bill}, can I pay you back [today|tonight] or will {day} do?
        You have my new number because you lost your phone. Must {bill} be paid [today|tonight]? I can send you {sum}, you will have it on {day}.
        Your phone is broken, so I call {friend}'s. You need {sum} for {bill}? I can pay it [today|tonight], send it back on {day}.
        """
    ),
    _pair(
        """
        I sent you a code by mistake, can you send it [back to me|to me on {number}]?
        My code went to your phone. [Can you|Please] read it to me, I can not log in [without it|at {bank}].
        Someone wants to use your account at {bank}. To stop this, send me the code {shop} sent you.
        A code was sent to you and I need it, {friend} has your old number. What is it?
        ---
        You sent me a code by mistake, can I send it back [to you|to you on {number}]?
        Your code went to my phone. Can I read it to you? You can not log in [without it|at {bank}].
        Someone wants to use my account at {bank}. I did stop this, so send me no code from {shop}.
        The code that you need was sent to you: it is {code}. I have it from {friend}, who has your old number.
        """
    ),
    _pair(
        """
        {shop}: your parcel is here but not paid. The fee is {small_sum}: pay at {link} or it goes back.
        {shop}: your parcel could not be brought [today|on {day}], as {small_sum} is still to be paid. See {link}.
        {shop}: we have a parcel for you that you did not order. Pay {small_sum} at {link} and it is yours.
        {shop}: the driver comes again on {day}, but first we need your {secret} at {link}.
        ---
        {shop}: your parcel is paid but not here. The fee of {small_sum} is yours and goes back, you pay nothing at {link}.
        {shop}: your parcel could be brought [today|on {day}], and nothing is to be paid, as {small_sum} was enough. See {link}.
        {shop}: we have the parcel that you did order. It is paid, so {small_sum} is yours, see {link}.
        {shop}: the driver comes on {day} again, see {link}. We do not need your {secret} first.
        """
    ),
    _pair(
        """
        {bank}: your card is locked since a payment of {sum}. Not you? Open it again with your {secret} at {link}.
        {bank}: we saw a log in that was not yours. Was it you? No? Then give us your {secret} at {link} and we stop it.
        {bank}: your account ends on {day} if we have no {secret} from you. Never by phone, only at {link}.
        {bank}: someone wants to pay {sum} from your account. Not yours? Call {number} now and say your {secret}.
        ---
        {bank}: your card is open again since the payment of {sum}. It was you, so we do not need your {secret} at {link}.
        {bank}: we saw a log in that was yours. Was it you? No? Then stop it here at the bank, and give nobody your {secret}, not us and not at {link}.
        {bank}: your account has a new {secret} from {day}, as you wanted. If not, we never ask by phone or at {link}, only here at the bank.
        {bank}: you paid {sum} from your account to someone. Yours? Then do not call {number} now. We never say or want a {secret}.
        """
    ),
    _pair(
        """
        You won {prize}! Did nobody tell you? Claim it before {day}, all we need is your {secret}.
        {friend} won last week and today you won {prize}. Call {number} [to claim it|and tell us when you want it].
        You were drawn at {shop} and won {prize}. Call {number} before {day} or we draw another name.
        Did {friend} tell you? All who call {number} this week win {prize}. Nobody has to wait, only {small_sum} a minute.
        ---
        Did you win {prize}? Nobody did tell me! They claim you need all of it before {day}.
        {friend} won {prize} last week, and you today? Call me on {number} and tell us when you [claim|want] it.
        I won {prize}! My name was drawn at {shop}. Call me before {day}, the number is {number}, or we see another day.
        Did I tell you? All who call {friend} this week hear about {prize}. Nobody else will win, so wait a minute and call {number}.
        """
    ),
    _pair(
        """
        Buy {few} gift cards for {sum} and send me the codes, I am in a meeting and can not call. I pay you after.
        Can you do me a favour? I am at {place} without my card. Send {sum} to {number}, I explain [later|after {event}].
        I can not talk now. Pay {sum} for {bill} for me, I am at {event} and they wait for the money.
        ---
        I did buy the {few} gift cards for {sum}. I am in a meeting and can not call, I send you the codes after and you pay me then.
        I can do you the favour: you are at {place} without your card, so I send you {sum}. Explain [later|after {event}], my number is {number}.
        You can not talk now? Then I pay {sum} for {bill} for you. You are at {event} and they wait for the money.
        """
    ),
    _pair(
        """
        I made {sum} from home in a week and you can do it too. Put in {small_sum} first and ask me how.
        My uncle left {sum} and I can not get it out alone. Half is yours if you pay the {small_sum} for the lawyer.
        Earn with us: you put in {sum} on {day} and take out twice as much, {friend} did.
        ---
        You made {sum} from home in a week? I can do it too if I ask you how. You first, put in {small_sum} for cake.
        Your uncle left {sum} and the lawyer can pay it out. It is yours alone, I can not get half of it, not even {small_sum}.
        You did earn it: {friend} and I put in {sum} with the others on {day}, take it out of the tin, it is twice as much as we thought.
        """
    ),
    _pair(
        """
        I saw your picture and can not stop to think of you. Call me on {number}, it is {small_sum} a minute, I am alone.
        I want to see you on {day} but I have no money for the train. Send {sum} and I come to you.
        You do not know me, {friend} gave me your number. I like you. Will you help me with {sum} till {day}?
        ---
        I saw your picture of {pet} and can not stop to laugh. Call me on {number}, I am alone for a minute, it is {small_sum} at {place}.
        You want to see me on {day} but have no money for the train? I send {sum} and you come to me.
        You do not know me, {friend} gave me your number. I like to help and have the {sum} for you, will you wait till {day}?
        """
    ),
    _pair(
        """
        A free {thing} for you: only the postage of {small_sum} is to be paid, at {link}.
        Free for {few} days: {shop} TV. After that {sum} a month, unless you call {number} [in time|before {day}]. Give your {secret} to start.
        {prize} for nothing! Tell us your {secret} so that we can send it [to you|to your home].
        ---
        A {thing} for you, free: the postage of {small_sum} is paid, only open at {link}.
        You start with {few} days free at {shop} TV, {sum} a month after that, as you wanted. Call {number} [in time|before {day}] to stop; your {secret} was not given.
        {prize} for nothing! Tell us all about it, can you send us [a picture|a picture from your home] so that we see it?
        """
    ),
)

# The family `plain`.
PLAIN = {
    "spam": _lines(
        """
        [FREE|WIN|CASH] [now|today]! {prize} is waiting: call {number}, {small_sum} a minute.
        Congratulations, your number was chosen for {prize}. Text YES to {number} to claim.
        Last chance to claim {prize}! Offer ends {day}. Reply with your {secret}.
        Loans from {sum} [without questions|in one hour]. Only a fee of {small_sum} first: {link}
        URGENT: {office} will fine you {sum} unless you pay at {link} before {day}.
        Your account will be closed. Confirm your {secret} at {link}.
        Lonely? Text [love|chat] to {number}. {small_sum} a message.
        [Claim|Get] your refund of {sum} from {office}: {link}, have your card ready.
        Dear customer, your subscription costs {sum} from {day}. To stop it enter your {secret} at {link}.
        Work at home, earn {sum} a day! Starter pack {small_sum}, order at {link}.
        """
    ),
    "ham": _lines(
        """
        [Running late|The bus is late|Still at work], [see you at {time}|start without me|I'll be at {place} at {time}].
        Can you [buy|bring|get] {food} and {food} [on the way home|for {event}]?
        Are you coming to {event} on {day}? {friend} and I meet at {place} at {time}.
        I'm so {mood} today. [Slept badly|Long day|The {thing} broke again]. How are you?
        Where did you put the {thing}? I looked in the [kitchen|car|hall|cellar].
        [{pet} is fine|{pet} is ill again|{pet} ran away], I took it to {friend}.
        Shall we have {food} [tonight|on {day}] or go to {place}?
        {event} was [lovely|too long|great fun]. {friend} says hello.
        Happy birthday! {food} at {time}, bring {friend}.
        Can I borrow your {thing} till {day}? Mine is broken.
        Call me when you're out of {event}, I have news about {friend}.
        I left my {thing} at {place}, can you pick it up?
        [No|Yes], {day} is [fine|not good], how about {time}?
        We won the match! {friend} [scored twice|fell over|missed it]. Free drinks at {place}.
        The bank is closed on {day}, so I pay you at {time}.
        I got the job! Cake for everyone at {place}.
        Your {thing} is ready to be picked up at {shop}, we are open until {time}.
        {shop}: thank you for your order, your {thing} comes on {day}.
        {shop}: your code to log in is {code}. We never ask for it.
        Reminder: dentist on {day} at {time}. Reply if you can not come.
        """
    ),
}

"""Seeded training text for the default voice: sentences, lists, numbers, names, single words.

Everything is generated from the word lists below and from the pronunciation lexicon; no running
text of others is used. Text is lower case, words are separated by one space, marks follow a word
directly and every text ends with a final mark, so that it maps one to one to prompt tokens.
"""

import random
from collections.abc import Callable, Sequence

from .vocabulary import (
    ADJECTIVES,
    ADVERBS,
    CONNECTIVES,
    FIRST_NAMES,
    GREETINGS,
    MONTHS,
    NOUNS,
    PLACES,
    PLURALS,
    PREPOSITIONS,
    QUESTION_STARTS,
    SUBJECTS,
    TIMES,
    UNITS,
    VERBS_BASE,
    VERBS_PAST,
    WEEKDAYS,
)

__all__ = ["TextGenerator", "number_words", "ordinal_words"]


def _words(text: str) -> list[str]:
    return text.split()


_ONES = _words("""
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""")
_TENS = _words(". . twenty thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_LETTERS = _words("b c d e f g h i j k l m n o p q r s t u v w x y z")


def number_words(number: int) -> str:
    """0 to 999 999 999 in words, without "and"."""
    for size, name in ((1_000_000, "million"), (1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = number % size
            return f"{number_words(number // size)} {name}" + (
                f" {number_words(rest)}" if rest else ""
            )
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")


def ordinal_words(number: int) -> str:
    """An ordinal such as "twenty third"."""
    head, _, last = number_words(number).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return f"{head} {last}".strip()


class TextGenerator:
    """Texts of all kinds, reproducible from ``seed``.

    ``words`` are plain dictionary words, ``names`` are names; both in the lexicon.
    """

    def __init__(self, words: Sequence[str], names: Sequence[str], seed: int) -> None:
        self._words, self._names = words, names
        self._random = random.Random(seed)
        kinds: list[tuple[float, Callable[[], str]]] = [
            (30, self._sentence),
            (14, self._long_sentence),
            (10, self._question),
            (14, self._word_salad),
            (9, self._list),
            (8, self._numbers),
            (5, self._name_sentence),
            (5, self._single_words),
            (3, self._letters),
            (2, self._greeting),
        ]
        self._weights = [weight for weight, _ in kinds]
        self._makers = [maker for _, maker in kinds]

    def next(self) -> str:
        """One text of 1 to about 25 words with its final mark."""
        while True:
            text = self._random.choices(self._makers, self._weights)[0]()
            if len(text.split()) <= 25 and len(text) <= 150:
                return text

    def _pick(self, items: Sequence[str]) -> str:
        return self._random.choice(items)

    def _maybe(self, chance: float, make: Callable[[], str]) -> str:
        return make() + " " if self._random.random() < chance else ""

    def _rare(self, items: Sequence[str], chance: float = 0.3) -> str:
        return self._pick(self._words if self._random.random() < chance else items)

    def _noun_phrase(self) -> str:
        kind = self._random.random()
        adjective = self._maybe(0.45, lambda: self._rare(ADJECTIVES, 0.2))
        if kind < 0.42:
            determiner = self._pick(("the", "the", "my", "your", "this", "that", "our", "his"))
            return f"{determiner} {adjective}{self._rare(NOUNS)}"
        if kind < 0.58:
            article = "an" if (adjective or "x")[0] in "aeiou" else "a"
            if not adjective:
                noun = self._rare(NOUNS)
                return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
            return f"{article} {adjective}{self._rare(NOUNS)}"
        if kind < 0.78:
            determiner = self._pick(
                ("the", "these", "some", "many", "all the", "their", "her", "no")
            )
            return f"{determiner} {adjective}{self._rare(PLURALS)}"
        if kind < 0.88:
            return f"{number_words(self._random.randint(2, 120))} {adjective}{self._pick(PLURALS)}"
        return self._name()

    def _name(self) -> str:
        first = self._pick(FIRST_NAMES)
        return f"{first} {self._pick(self._names)}" if self._random.random() < 0.5 else first

    def _place_phrase(self) -> str:
        return f"{self._pick(PREPOSITIONS)} {self._noun_phrase()}"

    def _clause(self) -> str:
        kind = self._random.random()
        subject = self._pick(SUBJECTS) if self._random.random() < 0.5 else self._noun_phrase()
        parts: tuple[str, ...]
        if kind < 0.45:
            parts = (subject, self._pick(VERBS_PAST), self._noun_phrase())
        elif kind < 0.7:
            modal = self._pick(
                ("will", "can", "should", "must", "might", "would like to", "has to", "didn't")
            )
            parts = (subject, f"{modal} {self._pick(VERBS_BASE)}", self._noun_phrase())
        elif kind < 0.85:
            parts = (self._noun_phrase(), self._pick(("is", "was", "looked", "seemed", "will be")))
            parts += (self._maybe(0.3, lambda: "very") + self._rare(ADJECTIVES, 0.25),)
        else:
            parts = ("there", self._pick(("is", "was", "will be", "must be")), self._noun_phrase())
        tail = self._maybe(0.4, self._place_phrase) + self._maybe(0.2, lambda: self._pick(TIMES))
        return " ".join((*parts, tail)).strip()

    def _finish(self, text: str) -> str:
        mark = self._random.choices((".", "!", "?"), (90, 7, 3))[0]
        return text.strip() + mark

    def _sentence(self) -> str:
        opening = self._maybe(0.15, lambda: f"{self._pick(TIMES)},")
        adverb = self._maybe(0.12, lambda: f"{self._pick(ADVERBS)},")
        return self._finish(opening + adverb + self._clause())

    def _long_sentence(self) -> str:
        joint = f"{self._pick((',', ',', ',', ';', ''))} {self._pick(CONNECTIVES)} "
        text = self._clause() + joint + self._clause()
        if self._random.random() < 0.25:
            text += f", {self._pick(CONNECTIVES)} {self._clause()}"
        return self._finish(text)

    def _question(self) -> str:
        start = self._pick(QUESTION_STARTS)
        verb = self._pick(VERBS_BASE)
        tail = self._maybe(0.4, self._place_phrase)
        return f"{start} {verb} {self._noun_phrase()} {tail}".strip() + "?"

    def _word_salad(self) -> str:
        words = [self._pick(self._words) for _ in range(self._random.randint(2, 10))]
        for index in range(len(words) - 1):
            if self._random.random() < 0.1:
                words[index] += self._pick((",", ",", ";", ":"))
        return self._finish(" ".join(words))

    def _list(self) -> str:
        pool = self._pick_pool()
        items = [pool() for _ in range(self._random.randint(3, 8))]
        opening = self._maybe(0.4, lambda: f"{self._clause()}:")
        if self._random.random() < 0.6:
            items[-1] = f"{self._pick(('and', 'or'))} {items[-1]}"
        return self._finish(opening + ", ".join(items))

    def _pick_pool(self) -> Callable[[], str]:
        start = self._random.randint(0, 90)
        counter = iter(range(start, start + 99))
        pools: tuple[Callable[[], str], ...] = (
            lambda: self._pick(PLURALS),
            lambda: self._pick(ADJECTIVES),
            lambda: self._pick(FIRST_NAMES),
            lambda: self._pick(PLACES),
            lambda: self._pick(self._words),
            lambda: number_words(self._random.randint(0, 100)),
            lambda: number_words(next(counter)),
            lambda: self._pick((*WEEKDAYS, *MONTHS)),
        )
        return self._random.choice(pools)

    def _numbers(self) -> str:
        top = self._random.choice((20, 100, 1000, 10_000, 1_000_000, 50_000_000))
        number = number_words(self._random.randint(0, top))
        year = f"{self._pick(('nineteen', 'twenty', 'eighteen'))} " + number_words(
            self._random.randint(10, 99)
        )
        clock = f"{number_words(self._random.randint(1, 12))} " + self._pick(
            ("o'clock", "thirty", "fifteen", "forty five", "p m", "oh five", "twenty")
        )
        digits = " ".join(self._pick(_ONES[:10]) for _ in range(self._random.randint(3, 7)))
        month = f"{self._pick(MONTHS)} {ordinal_words(self._random.randint(1, 31))}"
        shapes = (
            f"{self._clause()} at {clock}",
            f"it costs {number} dollars and {number_words(self._random.randint(1, 99))} cents",
            f"{self._name()} was born on {month}, {year}",
            f"on {self._pick(WEEKDAYS)}, {month}, {self._clause()}",
            f"the number is {digits}",
            f"about {number} {self._pick(UNITS)} {self._place_phrase()}",
            f"{number} point {digits} {self._pick(('percent', 'degrees', 'miles', 'times'))}",
            f"{number}",
            f"in {year}, {self._clause()}",
            f"{number} {self._pick(PLURALS)}, {digits}",
        )
        return self._finish(self._pick(shapes))

    def _name_sentence(self) -> str:
        title = self._maybe(0.3, lambda: self._pick(("mister", "doctor", "professor")))
        verb, place = self._pick(VERBS_PAST), self._pick(PLACES)
        shapes = (
            f"{title}{self._name()} {verb} {self._name()} in {place}",
            f"my name is {self._name()} and i live in {place}",
            f"{title}{self._pick(self._names)} and {self._name()} {verb} {self._noun_phrase()}",
            f"{self._pick(FIRST_NAMES)}'s {self._pick(NOUNS)} is in {place}",
        )
        return self._finish(self._pick(shapes))

    def _single_words(self) -> str:
        pools = (self._words, NOUNS, ADJECTIVES, VERBS_BASE, FIRST_NAMES, PLACES, _ONES, WEEKDAYS)
        count = self._random.choices((1, 2, 3), (75, 15, 10))[0]
        return self._finish(" ".join(self._pick(self._random.choice(pools)) for _ in range(count)))

    def _letters(self) -> str:
        letters = " ".join(self._pick(_LETTERS) for _ in range(self._random.randint(2, 6)))
        shapes = (
            letters,
            f"{letters}, {letters}",
            f"the {letters} {self._pick(NOUNS)}",
            f"it is spelled {letters}",
            f"{self._pick(SUBJECTS)} {self._pick(VERBS_PAST)} the {letters} {self._place_phrase()}",
        )
        return self._finish(self._pick(shapes))

    def _greeting(self) -> str:
        greeting = self._pick(GREETINGS)
        tail = self._random.choice(("", f", {self._pick(FIRST_NAMES)}", f", {self._clause()}"))
        return self._finish(greeting + tail)

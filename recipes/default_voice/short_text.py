"""Texts that running speech holds too few of: single words, short phrases, repetitions, runs.

A model that has heard them rarely guesses their length and loses count of equal words. A share of
the general generator's texts is among them, so that long sentences are not forgotten. The form is
that of ``text``: lower-case words, marks directly after a word, a final mark.
"""

import random
from collections.abc import Callable, Sequence

from .text import TextGenerator, number_words
from .vocabulary import (
    ADJECTIVES,
    ADVERBS,
    FIRST_NAMES,
    GREETINGS,
    MONTHS,
    NOUNS,
    PLACES,
    PLURALS,
    QUESTION_STARTS,
    SUBJECTS,
    VERBS_BASE,
    VERBS_PAST,
    WEEKDAYS,
)

__all__ = ["ShortTextGenerator"]


def _words(text: str) -> list[str]:
    return text.split()


_EVERYDAY = (NOUNS, PLURALS, ADJECTIVES, VERBS_BASE, VERBS_PAST, FIRST_NAMES, WEEKDAYS, MONTHS)
_FUNCTION_WORDS = _words("""
to of in on at by for from with and or but not no yes so too very then now here there up down off
out go do be is was are were it he she we you they this that these those all any some one""")
_OBJECTS = _words("it them that us him her me this those")
_WORD_LIMIT = 25


class ShortTextGenerator:
    """Short texts and repetitions, reproducible from ``seed``.

    ``words`` are plain dictionary words, ``names`` are names; both in the lexicon.
    """

    def __init__(self, words: Sequence[str], names: Sequence[str], seed: int) -> None:
        self._words = words
        self._random = random.Random(seed)
        self._general = TextGenerator(words, names, seed)
        kinds: list[tuple[float, Callable[[], str]]] = [
            (34, self._single_word),
            (14, self._few_words),
            (8, self._short_question),
            (8, self._command),
            (12, self._repeated_word),
            (5, self._repeated_phrase),
            (4, self._repetition_inside),
            (8, self._run),
            (7, self._general.next),
        ]
        self._weights = [weight for weight, _ in kinds]
        self._makers = [maker for _, maker in kinds]

    def next(self) -> str:
        """One text of 1 to 25 words with its final mark."""
        while True:
            text = self._random.choices(self._makers, self._weights)[0]()
            if len(text.split()) <= _WORD_LIMIT:
                return text

    def _pick(self, items: Sequence[str]) -> str:
        return self._random.choice(items)

    def _word(self) -> str:
        """Mostly any word of the dictionary, often an everyday one."""
        kind = self._random.random()
        if kind < 0.55:
            return self._pick(self._words)
        if kind < 0.62:
            return self._pick(_FUNCTION_WORDS)
        if kind < 0.68:
            return number_words(self._random.randint(0, 20))
        return self._pick(self._random.choice(_EVERYDAY))

    def _finish(self, text: str) -> str:
        return text + self._random.choices((".", "!", "?"), (90, 6, 4))[0]

    def _single_word(self) -> str:
        return self._finish(self._word())

    def _few_words(self) -> str:
        first, second, noun = self._word(), self._word(), self._pick(NOUNS)
        shapes = (
            f"{first} {second}",
            f"{first}, {second}",
            f"{first} {second} {self._word()}",
            f"the {first}",
            f"{self._pick(ADJECTIVES)} {noun}",
            f"the {self._pick(ADJECTIVES)} {noun}",
            f"{self._pick(SUBJECTS)} {self._pick(VERBS_PAST)} {self._pick(_OBJECTS)}",
            f"in {self._pick(PLACES)}",
            self._pick(GREETINGS),
        )
        return self._finish(self._pick(shapes))

    def _short_question(self) -> str:
        noun, adjective, verb = self._pick(NOUNS), self._pick(ADJECTIVES), self._pick(VERBS_BASE)
        shapes = (
            f"{self._pick(QUESTION_STARTS)} {verb} {self._pick(_OBJECTS)}",
            f"where is the {noun}",
            f"who has my {noun}",
            f"is the {noun} {adjective}",
            f"are you {adjective}",
            f"how {adjective} is it",
            f"why not {verb}",
            f"whose {noun} is this",
            f"what about {self._pick(FIRST_NAMES)}",
        )
        return self._pick(shapes) + "?"

    def _command(self) -> str:
        verb, noun = self._pick(VERBS_BASE), self._pick(NOUNS)
        shapes = (
            f"{verb} {self._pick(_OBJECTS)}",
            f"{verb} the {noun}",
            f"please {verb} your {noun}",
            f"don't {verb} {self._pick(_OBJECTS)}",
            f"let's {verb} the {self._pick(ADJECTIVES)} {noun}",
            f"{self._pick(FIRST_NAMES)}, {verb} {self._pick(_OBJECTS)} {self._pick(ADVERBS)}",
        )
        return self._finish(self._pick(shapes))

    def _times(self, text: str) -> str:
        """``text`` 2 to 10 times, a quarter of the time with commas between."""
        joint = self._random.choices((" ", ", "), (3, 1))[0]
        return joint.join([text] * self._random.randint(2, 10))

    def _repeated_word(self) -> str:
        return self._finish(self._times(self._word()))

    def _repeated_phrase(self) -> str:
        shapes = (
            f"{self._word()} {self._word()}",
            f"the {self._pick(NOUNS)} and",
            f"{self._pick(SUBJECTS)} {self._pick(VERBS_PAST)}",
            f"{self._pick(ADJECTIVES)} {self._pick(PLURALS)}",
            self._pick(GREETINGS),
        )
        return self._finish(self._times(self._pick(shapes)))

    def _repetition_inside(self) -> str:
        subject, adjective, noun = (self._pick(pool) for pool in (SUBJECTS, ADJECTIVES, NOUNS))
        shapes = (
            f"{subject} {self._pick(VERBS_PAST)} the {self._times(adjective)} {noun}",
            f"the {noun} is {self._times('very')} {adjective}",
            f"{self._times('no')} {self._pick(FIRST_NAMES)}",
            f"{self._times(self._pick(VERBS_PAST))} the {noun}",
            f"{self._pick(FIRST_NAMES)} said {self._times(self._word())}",
        )
        return self._finish(self._pick(shapes))

    def _run(self) -> str:
        """Letters, digits or numbers one after another, some of them equal."""
        letters, digits = "abcdefghijklmnopqrstuvwxyz", [number_words(n) for n in range(10)]
        pool = self._random.choice((letters, digits, [number_words(n) for n in range(100)]))
        few = [self._pick(pool) for _ in range(self._random.randint(1, 6))]
        joint = self._random.choices((" ", ", "), (2, 1))[0]
        return self._finish(joint.join(self._pick(few) for _ in range(self._random.randint(2, 9))))

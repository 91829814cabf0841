"""The recipe's text generators: reproducible, within the lexicon, in the frontend's form."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest

from recipes.default_voice.short_text import ShortTextGenerator
from recipes.default_voice.text import TextGenerator, number_words, ordinal_words
from stretto.model_executor.frontends.lexicon import load_lexicon
from stretto.model_executor.frontends.phones import FINAL_MARKS

LEXICON = Path(__file__).parents[2] / "assets" / "default" / "lexicon.txt.xz"
WORDS = ("harbor", "candle", "silent", "walk", "umbrella")
NAMES = ("smith", "jones")


Generator = type[TextGenerator] | type[ShortTextGenerator]
both = pytest.mark.parametrize("kind", [TextGenerator, ShortTextGenerator])


def texts(kind: Generator, seed: int, count: int = 300) -> list[str]:
    generator = kind(WORDS, NAMES, seed)
    return [generator.next() for _ in range(count)]


@both
def test_the_same_seed_gives_the_same_texts(kind: Generator) -> None:
    assert texts(kind, 1) == texts(kind, 1)
    assert texts(kind, 1) != texts(kind, 2)


@both
def test_texts_are_words_with_marks_and_a_final_mark(kind: Generator) -> None:
    for text in texts(kind, 3):
        assert text[-1] in FINAL_MARKS, text
        assert 1 <= len(text.split()) <= 25, text
        assert text == " ".join(text.lower().split()), text


@both
def test_every_word_is_in_the_shipped_lexicon(kind: Generator) -> None:
    lexicon = load_lexicon(LEXICON)
    words = {word.strip(",;:.?!") for text in texts(kind, 4, 1000) for word in text.split()}
    assert not {word for word in words if lexicon.get(word) is None}


def test_short_texts_repeat_words_two_to_ten_times() -> None:
    runs = set()
    for text in texts(ShortTextGenerator, 5, 2000):
        words = [word.strip(",.?!") for word in text.split()]
        runs |= {len(list(same)) for _, same in groupby(words)}
    assert runs >= set(range(1, 11))


def test_most_short_texts_are_shorter_than_five_words() -> None:
    lengths = sorted(len(text.split()) for text in texts(ShortTextGenerator, 6))
    assert lengths[len(lengths) // 2] < 5


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (17, "seventeen"),
        (40, "forty"),
        (105, "one hundred five"),
        (21_300, "twenty one thousand three hundred"),
        (2_000_001, "two million one"),
    ],
)
def test_numbers(number: int, words: str) -> None:
    assert number_words(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(1, "first"), (12, "twelfth"), (20, "twentieth"), (23, "twenty third"), (31, "thirty first")],
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal_words(number) == words

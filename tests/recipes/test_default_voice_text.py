"""The recipe's text generator: reproducible, within the lexicon, in the frontend's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.default_voice.text import TextGenerator, number_words, ordinal_words
from stretto.model_executor.frontends.lexicon import load_lexicon
from stretto.model_executor.frontends.phones import FINAL_MARKS

LEXICON = Path(__file__).parents[2] / "assets" / "default" / "lexicon.txt.xz"
WORDS = ("harbor", "candle", "silent", "walk", "umbrella")
NAMES = ("smith", "jones")


def texts(seed: int, count: int = 300) -> list[str]:
    generator = TextGenerator(WORDS, NAMES, seed)
    return [generator.next() for _ in range(count)]


def test_the_same_seed_gives_the_same_texts() -> None:
    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_texts_are_words_with_marks_and_a_final_mark() -> None:
    for text in texts(3):
        assert text[-1] in FINAL_MARKS, text
        assert 1 <= len(text.split()) <= 25, text
        assert text == " ".join(text.lower().split()), text


def test_every_word_is_in_the_shipped_lexicon() -> None:
    lexicon = load_lexicon(LEXICON)
    words = {word.strip(",;:.?!") for text in texts(4) for word in text.split()}
    assert not {word for word in words if lexicon.get(word) is None}


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

"""The yardstick itself: word errors, the bootstrap and the sentences' language model."""

from __future__ import annotations

import pytest

from recipes.default_voice.recogniser import (
    _arpa,
    _counts,
    _probability,
    bootstrap_interval,
    plain,
    word_errors,
)

SENTENCES = [plain("The cat sat, and the dog ran."), plain("Where is the cat?")]


@pytest.mark.parametrize(
    ("heard", "errors"),
    [("a b c", 0), ("a c", 1), ("a b b c", 1), ("", 3), ("x y z", 3), ("b c d", 2)],
)
def test_word_errors(heard: str, errors: int) -> None:
    assert word_errors(["a", "b", "c"], heard.split()) == errors


def test_plain_drops_marks_and_case() -> None:
    assert plain("Yes, it's Two; no: three!") == ["yes", "it's", "two", "no", "three"]


def test_bootstrap_interval_holds_the_ratio() -> None:
    low, high = bootstrap_interval([1.0, 0.0, 2.0, 0.0, 1.0] * 20, [10.0] * 100)
    assert low < 0.08 < high
    assert high - low < 0.05


@pytest.mark.parametrize("context", [(), ("the",), ("and", "the"), ("never", "seen")])
def test_language_model_sums_to_one(context: tuple[str, ...]) -> None:
    tables = _counts(SENTENCES)
    vocabulary = {word for words in SENTENCES for word in words} | {"</s>"}
    total = sum(_probability(tables, context, word) for word in vocabulary)
    assert total == pytest.approx(1.0, abs=1e-9)


def test_arpa_declares_what_it_lists() -> None:
    text = _arpa(SENTENCES)
    declared = int(
        next(line for line in text.splitlines() if line.startswith("ngram 2=")).split("=")[1]
    )
    section = text.split("\\2-grams:")[1].split("\\3-grams:")[0]
    assert len(section.strip().splitlines()) == declared

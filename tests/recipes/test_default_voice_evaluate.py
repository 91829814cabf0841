"""The evaluation's sets of sentences, and how their figures are pooled."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pocketsphinx")

from recipes.default_voice.evaluate import TEST_SETS, pooled_hearing, sentences
from recipes.default_voice.recogniser import plain


def hearing(name: str, errors: int, choice: float) -> dict[str, Any]:
    """``errors`` in every sentence of a set."""
    texts = sentences(name)
    words = sum(len(plain(text)) for text in texts)
    free = [errors] * len(texts)
    return {
        "words": words,
        "language_model": 0.5 * errors * len(texts) / words,
        "choice": choice,
        "free": sum(free) / words,
        "free_errors": free,
    }


def test_no_sentence_is_in_two_sets() -> None:
    texts = [tuple(plain(text)) for name in ("dev", *TEST_SETS) for text in sentences(name)]
    assert len(set(texts)) == len(texts)


def test_every_set_has_at_least_150_sentences() -> None:
    assert all(len(sentences(name)) >= 150 for name in ("dev", *TEST_SETS))


def test_pooled_rates_weigh_words_and_sentences() -> None:
    sources = {name: hearing(name, 1, 1.0) for name in TEST_SETS}
    engines = {
        name: {"engine": hearing(name, 2, choice), "levelled_source": {"choice": 0.5}}
        for name, choice in zip(TEST_SETS, (1.0, 0.0), strict=True)
    }
    pooled: dict[str, Any] = pooled_hearing(sources, engines)
    counts = [len(sentences(name)) for name in TEST_SETS]
    words = sum(part["words"] for part in sources.values())
    assert pooled["engine"]["choice"] == pytest.approx(counts[0] / sum(counts))
    assert pooled["engine"]["language_model"] == pytest.approx(sum(counts) / words)
    assert pooled["levelled_source_choice"] == pytest.approx(0.5)
    assert pooled["free_gap"] == pytest.approx(sum(counts) / words)
    low, high = pooled["free_gap_interval"]
    assert low < pooled["free_gap"] < high

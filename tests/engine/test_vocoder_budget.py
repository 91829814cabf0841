"""The vocoder's share of a shared device: paid for by steps, never blocking for good."""

from __future__ import annotations

from stretto.engine.vocoder_budget import VocoderBudget


def test_a_batch_is_paid_off_by_steps() -> None:
    budget = VocoderBudget(ratio=2.0)
    history = [budget.allows]
    budget.note_batch(1.0)
    for seconds in (0.0, 0.4, 0.1):
        budget.note_step(seconds)
        history.append(budget.allows)
    assert history == [True, False, False, True]


def test_idle_steps_earn_no_credit() -> None:
    budget = VocoderBudget(ratio=1.0)
    budget.note_step(100.0)
    budget.note_batch(0.5)
    assert not budget.allows


def test_long_runs_give_the_vocoder_its_ratio() -> None:
    budget = VocoderBudget(ratio=2.0)
    vocoder_s = 0.0
    for _ in range(1000):
        budget.note_step(0.01)
        if budget.allows:
            budget.note_batch(0.25)
            vocoder_s += 0.25
    assert 1.8 < vocoder_s / 10.0 <= 2.03

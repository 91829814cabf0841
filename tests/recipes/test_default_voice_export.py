"""What the export derives from the training audio: levels of the voices, the duration guard."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.default_voice.data import Utterance, text_tokens
from recipes.default_voice.export import duration_guard, voice_gains
from stretto.model_executor.frontends.phones import encode_chunk


def utterance(text: str, speaker: int, level: float, frames: int = 20) -> Utterance:
    """Noise of ``level`` (RMS, of 32768) that lasts ``frames``."""
    noise = np.random.default_rng(0).normal(0, 32768 * level, frames * 512)
    tokens = np.array(encode_chunk(text_tokens(text)), np.int16)
    return Utterance(text, speaker, noise.astype(np.int16), tokens, np.zeros(frames, np.int16))


def test_gains_bring_all_voices_to_the_quietest() -> None:
    loud = [utterance("hello.", 0, level) for level in (0.1, 0.2, 0.4)]
    quiet = [utterance("hello.", 1, level) for level in (0.05, 0.1, 0.2)]
    gains = voice_gains(loud + quiet)
    assert gains["slt"] == pytest.approx(0.5, abs=0.01)
    assert gains["rms"] == 1


def test_the_guard_fits_the_slower_voice() -> None:
    """Four frames a phone and twelve a mark; the second voice begins eight frames later."""
    texts = {"no.": 2, "hello.": 4, "hello, no.": 6, "no, hello, no.": 8}
    utterances = [
        utterance(text, speaker, 0.1, 4 * phones + 12 * text.count(",") + 10 + 8 * speaker)
        for text, phones in texts.items()
        for speaker in (0, 1)
    ]
    guard = duration_guard(utterances)
    assert guard["frames_per_phone"] == pytest.approx(4)
    assert guard["frames_per_mark"] == pytest.approx(12)
    assert guard["base_frames"] == pytest.approx(18)

"""The voice in the box is understood: 20 sentences per voice through the engine, by pocketsphinx.

A floor, not the measurement: the figures of the model card come from the recipe's `evaluate` on a
list that no checkpoint was chosen by.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from stretto.engine.offline import SpeechEngine
from stretto.engine.request import SpeechRequest

pytest.importorskip("pocketsphinx")

from recipes.default_voice.evaluate import sentences
from recipes.default_voice.recogniser import Recogniser, plain, word_errors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Samples = npt.NDArray[np.float32]
TEXTS = sentences("dev")[:20]
VOICES = ("slt", "rms")
MAX_WORD_ERROR_RATE = 0.08
MIN_REVERSED_ERROR_RATE = 0.7


@pytest.fixture(scope="module")
def audio() -> Iterator[dict[str, list[Samples]]]:
    with SpeechEngine(model="default", dtype="float32", warmup=False) as engine:
        yield {
            voice: [
                result.audio
                for result in engine.generate(
                    [SpeechRequest(text=f"{text}.", voice=voice, seed=0) for text in TEXTS]
                )
            ]
            for voice in VOICES
        }


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return Recogniser(TEXTS)


def error_rate(recogniser: Recogniser, audio: list[Samples]) -> float:
    errors = words = 0
    for text, samples in zip(TEXTS, audio, strict=False):
        words += len(plain(text))
        errors += word_errors(plain(text), recogniser.with_language_model(samples, 24_000))
    return errors / words


@pytest.mark.parametrize("voice", VOICES)
def test_sentences_are_understood(
    voice: str, audio: dict[str, list[Samples]], recogniser: Recogniser
) -> None:
    assert error_rate(recogniser, audio[voice]) <= MAX_WORD_ERROR_RATE


def test_reversed_audio_is_not_understood(
    audio: dict[str, list[Samples]], recogniser: Recogniser
) -> None:
    backwards = [samples[::-1].copy() for samples in audio["rms"][:6]]
    assert error_rate(recogniser, backwards) >= MIN_REVERSED_ERROR_RATE


@pytest.mark.parametrize("voice", VOICES)
def test_audio_is_clean(voice: str, audio: dict[str, list[Samples]]) -> None:
    for samples in audio[voice]:
        assert np.isfinite(samples).all()
        assert 0.1 < np.abs(samples).max() < 1.0
        assert len(samples) > 24_000


def test_ends_are_constant_and_voices_equally_loud(audio: dict[str, list[Samples]]) -> None:
    for samples in audio["slt"] + audio["rms"]:
        loud = np.flatnonzero(np.abs(samples) > 0.003)
        assert loud[0] == round(0.06 * 24_000)
        assert len(samples) - 1 - loud[-1] == round(0.12 * 24_000)
    powers = [np.mean(np.concatenate(audio[voice]) ** 2) for voice in VOICES]
    assert abs(10 * np.log10(powers[0] / powers[1])) < 1.5


def test_the_look_ahead_is_at_most_twelve_frames() -> None:
    from stretto.model_executor.models.checkpoint import load_checkpoint
    from stretto.model_executor.vocoders.frame_vocoder import load_vocoder

    assert load_vocoder(load_checkpoint("default")).spec.right_context <= 12

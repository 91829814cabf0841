"""Reference recordings become codes, or an error that says what would be right."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stretto.benchmarks.random_checkpoint import SIZES, write_checkpoint
from stretto.engine.errors import RequestError
from stretto.model_executor.interfaces import FloatArray
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoders.reference_audio import (
    load_reference_audio,
    make_encode_reference,
)
from tests.model_executor.vocoders.vocoder_support import TINY

RATE = 24_000


def tone(seconds: float, rate: int = RATE) -> FloatArray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def encoded(samples: FloatArray, rate: int = RATE, container: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container)
    return buffer.getvalue()


def test_same_codes_from_bytes_and_path(tmp_path: Path) -> None:
    encode = make_encode_reference(load_checkpoint(str(TINY / "ckpt")))
    assert encode is not None
    data = encoded(tone(2.0))
    path = tmp_path / "reference.wav"
    path.write_bytes(data)
    codes = encode(data)
    assert codes.dtype == np.int32
    assert codes.shape == (94, 4)
    assert codes.min() >= 0
    assert codes.max() < 625
    np.testing.assert_array_equal(encode(path), codes)
    np.testing.assert_array_equal(encode(str(path)), codes)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
def test_resampled_and_mixed_to_mono(container: str, rate: int) -> None:
    stereo = np.stack([tone(1.5, rate), tone(1.5, rate)], axis=1)
    samples = load_reference_audio(encoded(stereo, rate, container), RATE)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 1.5 * RATE) <= 2
    middle = slice(RATE // 2, RATE)
    np.testing.assert_allclose(samples[middle], tone(1.5)[middle], atol=0.05)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"not audio at all" * 100, "cannot be read"),
        (encoded(tone(0.5)), "0.5 s long; 1 to 30 s"),
        (encoded(tone(31.0, 8_000), 8_000), "31.0 s long; 1 to 30 s"),
        (encoded(np.zeros(2 * RATE, np.float32)), "silent"),
        (encoded(tone(2.0))[:9_000], "s long"),
    ],
)
def test_bad_recordings_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_reference_audio(data, RATE)


def test_samples_that_are_no_numbers_are_refused() -> None:
    buffer = io.BytesIO()
    samples = tone(2.0)
    samples[100] = np.nan
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="FLOAT")
    with pytest.raises(RequestError, match="no numbers"):
        load_reference_audio(buffer.getvalue(), RATE)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        load_reference_audio(tmp_path / "nowhere.wav", RATE)


def test_a_checkpoint_without_encoder_cannot_clone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SIZES["tiny"])
    (tmp_path / "asset" / "DVAE.safetensors").unlink()
    assert make_encode_reference(load_checkpoint(str(tmp_path))) is None

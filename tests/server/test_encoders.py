"""Encoders by themselves: every rate, both ways to LAME, samples in the right place."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from stretto.engine.output import FloatArray
from stretto.server import encoders
from stretto.server.encoders import encode_whole, make_encoder, supports_rate, to_int16
from stretto.server.protocol import AudioFormat
from tests.server.support import FORMATS, decode

RATES = (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def hum(sample_rate: int, seconds: float = 1.005) -> FloatArray:
    """A tone whose loudness swells, so that a shift shows."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    swell = 0.2 + 0.3 * np.abs(np.sin(2 * np.pi * 2 * t))
    return (swell * np.sin(2 * np.pi * 300 * t)).astype(np.float32)


def encode(audio_format: AudioFormat, sample_rate: int, audio: FloatArray) -> list[bytes]:
    """What comes out for each 80 ms, and at the end."""
    encoder = make_encoder(audio_format, sample_rate)
    size = sample_rate * 2 // 25
    pieces = [encoder.feed(audio[i : i + size]) for i in range(0, len(audio), size)]
    return [*pieces, encoder.finish()]


def lag(late: FloatArray, audio: FloatArray) -> int:
    """By how many samples the first is behind the second."""
    size = 2 * max(len(late), len(audio))
    both = np.fft.rfft(late, size) * np.conj(np.fft.rfft(audio, size))
    at = int(np.argmax(np.fft.irfft(both)))
    return at if at < size // 2 else at - size


@pytest.fixture(params=["lameenc", "ffmpeg"])
def lame(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LAME used: with and without `lameenc`."""
    if request.param == "ffmpeg":
        monkeypatch.setattr(encoders, "make_lame", lambda rate: None)
    else:
        pytest.importorskip("lameenc")


@pytest.mark.usefixtures("lame")
@pytest.mark.parametrize("sample_rate", RATES)
def test_streamed_mp3_begins_exactly_and_ends_within_a_frame(sample_rate: int) -> None:
    frame = 1152 if sample_rate >= 32000 else 576
    for seconds in (0.1, 0.7, 0.99, 1.005):
        audio = hum(sample_rate, seconds)
        samples, rate = decode(b"".join(encode("mp3", sample_rate, audio)))
        assert rate == sample_rate
        assert 0 <= len(samples) - len(audio) < frame
        assert lag(samples, audio) == 0


@pytest.mark.usefixtures("lame")
@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("seconds", [0.08, 0.5, 1.005])
def test_finished_mp3_is_exact_for_ffmpeg_and_libsndfile(sample_rate: int, seconds: float) -> None:
    audio = hum(sample_rate, seconds)
    data = encode_whole("mp3", sample_rate, audio)
    samples, rate = decode(data)
    assert (len(samples), rate) == (len(audio), sample_rate)
    again, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    assert len(again) == len(audio)
    if seconds > 0.1:
        assert lag(samples, audio) == lag(again, audio) == 0


@pytest.mark.usefixtures("lame")
def test_mp3_comes_as_it_is_made() -> None:
    pieces = encode("mp3", 24000, hum(24000))
    assert all(len(piece) > 100 for piece in pieces[:-1])
    assert pieces[0][:2] == b"\xff\xf3"
    assert b"Info" in pieces[0][:32]
    assert not any(b"Info" in piece for piece in pieces[1:])


@pytest.mark.usefixtures("lame")
@pytest.mark.parametrize("audio_format", FORMATS)
def test_no_samples_are_a_file_too(audio_format: AudioFormat) -> None:
    nothing = np.zeros(0, np.float32)
    for data in (make_encoder(audio_format, 24000).finish(), encode_whole("wav", 24000, nothing)):
        assert audio_format == "pcm" or data
    if audio_format not in ("pcm", "wav"):
        samples, _ = decode(make_encoder(audio_format, 24000).finish())
        assert len(samples) < 0.2 * 48000
        assert np.abs(samples).max() < 0.01


@pytest.mark.parametrize("audio_format", FORMATS)
def test_supported_rates_can_be_encoded(audio_format: AudioFormat) -> None:
    rates = [rate for rate in RATES if supports_rate(audio_format, rate)]
    assert 24000 in rates
    for rate in rates:
        assert sum(map(len, encode(audio_format, rate, hum(rate, 0.3)))) > 0


def test_samples_beyond_full_scale_and_no_numbers() -> None:
    audio = np.array([0, 0.5, 1, 2, -1, -3, np.nan, np.inf, -np.inf], np.float32)
    wanted = [0, 16384, 32767, 32767, -32767, -32767, 0, 32767, -32767]
    assert np.frombuffer(to_int16(audio), "<i2").tolist() == wanted

"""Bodies become audio with arrival times, whatever the container."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile

from stretto.benchmarks.timeline import Piece, read_timeline

RATE = 24000
TONE = (0.4 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)).astype(np.float32)


def pieces_of(body: bytes, size: int) -> list[Piece]:
    starts = range(0, len(body), size)
    return [Piece(float(i), body[start : start + size]) for i, start in enumerate(starts)]


def encode(name: str) -> bytes:
    if name == "pcm":
        return (TONE * 32767).astype("<i2").tobytes()
    buffer = io.BytesIO()
    if name != "aac":
        form, subtype = {
            "wav": ("WAV", "PCM_16"),
            "flac": ("FLAC", "PCM_16"),
            "mp3": ("MP3", None),
            "opus": ("OGG", "OPUS"),
        }[name]
        soundfile.write(buffer, TONE, RATE, format=form, subtype=subtype)
        return buffer.getvalue()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None, :], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["pcm", "wav", "mp3", "opus", "aac", "flac"])
def test_every_format_gives_its_two_seconds(name: str) -> None:
    timeline = read_timeline(pieces_of(encode(name), 2000), name)
    assert timeline.audio_s == pytest.approx(2.0, abs=0.15)
    assert sum(chunk.audio_s for chunk in timeline.chunks) == pytest.approx(timeline.audio_s)
    times = [chunk.at_s for chunk in timeline.chunks]
    assert times == sorted(times)
    assert timeline.leading_silence_s == pytest.approx(0.0, abs=0.1)
    assert not timeline.cut_short


def test_a_wav_header_is_no_audio() -> None:
    body = encode("wav")
    timeline = read_timeline([Piece(1.0, body[:44]), Piece(3.0, body[44:])], "wav")
    assert timeline.chunks[0].at_s == 3.0


def test_a_streamed_wav_has_no_known_length() -> None:
    body = bytearray(encode("wav"))
    body[4:8] = body[40:44] = b"\xff" * 4
    assert not read_timeline([Piece(0.0, bytes(body))], "wav").cut_short


def test_a_wav_shorter_than_its_header_is_cut_short() -> None:
    assert read_timeline([Piece(0.0, encode("wav")[:-100])], "wav").cut_short


def test_an_odd_byte_of_pcm_is_cut_short() -> None:
    assert read_timeline([Piece(0.0, b"\0" * 101)], "pcm").cut_short


@pytest.mark.parametrize("name", ["wav", "mp3", "flac"])
def test_rubbish_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"WAV|audio"):
        read_timeline([Piece(0.0, b"{'error': 1}" * 50)], name)


def test_an_empty_body_has_no_audio() -> None:
    assert read_timeline([], "mp3").chunks == ()

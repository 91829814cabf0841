"""From bytes with arrival times to audio with arrival times.

A compressed stream gives audio only when whole packets have arrived; this module says how many
seconds of audio each received piece made playable, and what is wrong with the audio as a whole:
silence, a file cut short. It reads finished bodies; the client that received them does no decoding
while a request is running.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .playback import ChunkArrival

PCM_SAMPLE_RATE = 24000
AUDIBLE_PEAK = 10 ** (-50 / 20)
"""Samples below -50 dB of full scale are silence."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the audio stream, and when they came (seconds after the request was sent)."""

    at_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Timeline:
    """The audio of one response.

    Attributes:
        chunks: when how much audio became playable; empty without audio.
        samples: float32 [samples], mono.
        sample_rate: samples per second.
        cut_short: the body ended before its own header or framing says it should.
    """

    chunks: tuple[ChunkArrival, ...]
    samples: FloatArray
    sample_rate: int
    cut_short: bool = False

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return len(self.samples) / self.sample_rate

    @property
    def leading_silence_s(self) -> float | None:
        """Seconds before the first audible sample; None when all is silent."""
        audible = np.abs(self.samples) >= AUDIBLE_PEAK
        if not audible.any():
            return None
        return int(audible.argmax()) / self.sample_rate


@dataclass(frozen=True, slots=True)
class _Packets:
    """Decoded audio and, per packet, the bytes needed to decode it and the samples it gave."""

    ends: list[int]
    counts: list[int]
    samples: FloatArray
    sample_rate: int


def read_timeline(pieces: Sequence[Piece], audio_format: str) -> Timeline:
    """Decode a response body of `audio_format` (pcm, wav, mp3, opus, aac, flac).

    Raises:
        ValueError: the body is not of that format.
    """
    body = b"".join(piece.data for piece in pieces)
    if not body:
        return Timeline((), np.zeros(0, np.float32), PCM_SAMPLE_RATE)
    if audio_format == "pcm":
        return _linear(pieces, body, 0, PCM_SAMPLE_RATE, cut_short=len(body) % 2 == 1)
    if audio_format == "wav":
        return _wav(pieces, body)
    return _compressed(pieces, body, audio_format)


def _linear(
    pieces: Sequence[Piece], body: bytes, offset: int, rate: int, *, cut_short: bool
) -> Timeline:
    """16-bit mono samples from `offset` on."""
    count = max(len(body) - offset, 0) // 2
    words = np.frombuffer(body, "<i2", count, min(offset, len(body)))
    samples = words.astype(np.float32) / np.float32(32768)
    chunks, received, known = [], 0, 0
    for piece in pieces:
        received += len(piece.data)
        have = max(received - offset, 0) // 2
        if have > known:
            chunks.append(ChunkArrival(piece.at_s, (have - known) / rate))
            known = have
    return Timeline(tuple(chunks), samples, rate, cut_short)


def _wav(pieces: Sequence[Piece], body: bytes) -> Timeline:
    """A RIFF file of 16-bit mono samples, of known length or streamed (length 0 or 2**32 - 1)."""
    if body[:4] != b"RIFF" or body[8:12] != b"WAVE":
        raise ValueError("the body is no WAV file")
    rate, position = PCM_SAMPLE_RATE, 12
    while position + 8 <= len(body):
        name, size = body[position : position + 4], _u32(body, position + 4)
        if name == b"data":
            streamed = size in (0, 0xFFFFFFFF) or size >= 0x7FFFF000
            missing = not streamed and len(body) - position - 8 < size
            return _linear(pieces, body, position + 8, rate, cut_short=missing)
        if name == b"fmt ":
            rate = _wav_rate(body, position + 8)
        position += 8 + size + size % 2
    raise ValueError("the WAV file has no data chunk")


def _u32(body: bytes, position: int) -> int:
    return int.from_bytes(body[position : position + 4], "little")


def _wav_rate(body: bytes, position: int) -> int:
    channels = int.from_bytes(body[position + 2 : position + 4], "little")
    bits = int.from_bytes(body[position + 14 : position + 16], "little")
    if (channels, bits) != (1, 16):
        raise ValueError(f"the WAV file has {channels} channels of {bits} bits, not 1 of 16")
    return _u32(body, position + 4)


def _compressed(pieces: Sequence[Piece], body: bytes, audio_format: str) -> Timeline:
    packets = _decode_packets(body, audio_format)
    times = np.array([piece.at_s for piece in pieces])
    received = np.cumsum([len(piece.data) for piece in pieces])
    chunks: list[ChunkArrival] = []
    for end, count in zip(packets.ends, packets.counts, strict=True):
        index = min(int(np.searchsorted(received, end)), len(pieces) - 1)
        at_s, audio_s = float(times[index]), count / packets.sample_rate
        if chunks and chunks[-1].at_s == at_s:
            audio_s += chunks.pop().audio_s
        if audio_s > 0:
            chunks.append(ChunkArrival(at_s, audio_s))
    return Timeline(tuple(chunks), packets.samples, packets.sample_rate)


def _decode_packets(body: bytes, audio_format: str) -> _Packets:
    """Decode with FFmpeg. A packet needs the bytes up to where the next page or packet begins."""
    import av

    starts: list[int] = []
    counts: list[int] = []
    parts: list[FloatArray] = []
    try:
        with av.open(io.BytesIO(body)) as container:
            stream = container.streams.audio[0]
            rate = int(stream.rate or PCM_SAMPLE_RATE)
            for packet in container.demux(stream):
                frames = [frame.to_ndarray() for frame in packet.decode()]
                decoded = [_mono(frame) for frame in frames]
                starts.append(len(body) if packet.pos is None else int(packet.pos))
                counts.append(sum(len(part) for part in decoded))
                parts += decoded
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"the body is no {audio_format} audio: {error}") from error
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return _Packets(_ends(starts, len(body)), counts, samples, rate)


def _mono(frame: npt.NDArray[Any]) -> FloatArray:
    """First channel as float32; integer samples are scaled to -1..1."""
    channel: FloatArray = frame[0].astype(np.float32)
    if np.issubdtype(frame.dtype, np.integer):
        channel /= np.float32(2 ** (8 * frame.dtype.itemsize - 1))
    return channel


def _ends(starts: Sequence[int], total: int) -> list[int]:
    """For each packet, where the next different start lies."""
    ends: list[int] = []
    following, current = total, total
    for start in reversed(starts):
        if start != current:
            following, current = current, start
        ends.append(following)
    return ends[::-1]

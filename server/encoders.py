"""Audio encoders: float32 samples in, bytes of a file or stream out, a chunk at a time.

opus, aac and flac go through PyAV (FFmpeg) with settings chosen for low latency (pages and packets
flushed as they are made) and little CPU time, mp3 through LAME. wav and pcm are plain numpy. All of
it is synchronous; `delivery` moves it off the event loop. Resampling and tempo are not done here.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, get_args

import av
import numpy as np
import numpy.typing as npt
import soundfile

from ..engine.output import FloatArray
from .mp3 import (
    DECODER_DELAY,
    LAME_DELAY,
    LameLike,
    bit_rate,
    frames_for,
    info_frame,
    make_lame,
    whole_frames,
)
from .protocol import AudioFormat

_UNKNOWN_SIZE = 0xFFFFFFFF
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_AV_RATES = (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Encoder(Protocol):
    """One stream of one format."""

    def feed(self, audio: FloatArray) -> bytes:
        """Take float32 [samples]; return the bytes that are ready, perhaps none."""

    def finish(self) -> bytes:
        """Return the rest; the encoder is spent."""


def content_type(audio_format: AudioFormat, sample_rate: int) -> str:
    """The MIME type of a format; pcm names its rate, since nothing else does."""
    types = {
        "mp3": "audio/mpeg",
        "opus": "audio/ogg",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
    }
    return types.get(audio_format) or f"audio/pcm; rate={sample_rate}; channels=1"


def supports_rate(audio_format: AudioFormat, sample_rate: int) -> bool:
    """Whether the format can carry that rate."""
    if audio_format == "opus":
        return sample_rate in _OPUS_RATES
    return sample_rate in _AV_RATES


def default_rate(audio_format: AudioFormat, source_rate: int) -> int:
    """The rate used when the client names none: 24 kHz for pcm, else the model's, if it fits."""
    if audio_format == "pcm":
        return 24000
    if supports_rate(audio_format, source_rate):
        return source_rate
    return 48000 if source_rate > 24000 else 24000


def is_cheap(audio_format: AudioFormat) -> bool:
    """True for formats that cost less to encode than to hand to a thread."""
    return audio_format in ("pcm", "wav")


def to_int16(audio: FloatArray) -> bytes:
    """Little-endian signed 16-bit bytes of float32 [samples]; beyond full scale is clipped."""
    samples: npt.NDArray[np.int16] = np.rint(_clipped(audio) * np.float32(32767)).astype("<i2")
    return samples.tobytes()


def _clipped(audio: FloatArray) -> FloatArray:
    """Float32 samples within full scale; what is not a number becomes silence."""
    if np.isnan(audio).any():  # asked first: `nan_to_num` takes longer than all the rest
        audio = np.nan_to_num(audio)
    return np.clip(audio, -1.0, 1.0).astype(np.float32, copy=False)


def wav_header(sample_rate: int, num_samples: int | None) -> bytes:
    """44 bytes before 16-bit mono samples; None writes the sizes of an endless stream."""
    data_size = _UNKNOWN_SIZE if num_samples is None else num_samples * 2
    riff_size = min(data_size + 36, _UNKNOWN_SIZE)
    fmt = struct.pack("<IHHIIHH", 16, 1, 1, sample_rate, sample_rate * 2, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", riff_size) + b"WAVEfmt " + fmt
        + b"data" + struct.pack("<I", data_size)
    )  # fmt: skip


class PcmEncoder:
    """16-bit mono samples, after an optional header."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def feed(self, audio: FloatArray) -> bytes:
        """The samples as bytes, after the header the first time."""
        header, self._header = self._header, b""
        return header + to_int16(audio)

    def finish(self) -> bytes:
        """The header, if nothing was ever fed."""
        return self._header


class _Sink:
    """A file PyAV can only write to: it must not rely on seeking back."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        self._buffer += data
        return len(data)

    def take(self) -> bytes:
        """The bytes written since the last call."""
        taken = bytes(self._buffer)
        self._buffer.clear()
        return taken


@dataclass(frozen=True, slots=True)
class _AvSettings:
    """How FFmpeg is asked for one format; `delay` is the encoder's priming in samples."""

    container: str
    codec: str
    sample_format: str
    container_options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)
    bit_rate: Callable[[int], int | None] = lambda rate: None
    delay: int | None = None  # None: the container declares it, nothing is trimmed


# libopus at complexity 5 takes 0.4 of the time of 10, its default.
_SETTINGS: dict[str, _AvSettings] = {
    "mp3": _AvSettings(
        "mp3",
        "libmp3lame",
        "fltp",
        {"write_xing": "0", "id3v2_version": "0", "flush_packets": "1"},
        {"reservoir": "0", "compression_level": "7"},
        bit_rate,
        LAME_DELAY + DECODER_DELAY,
    ),
    "opus": _AvSettings(
        "ogg",
        "libopus",
        "s16",
        {"page_duration": "20000", "flush_packets": "1"},
        {"frame_duration": "20", "application": "audio", "compression_level": "5"},
        lambda rate: 32000,
    ),
    "aac": _AvSettings(
        "adts",
        "aac",
        "fltp",
        {"flush_packets": "1"},
        {},
        lambda rate: 64000,
        1024,
    ),
    "flac": _AvSettings(
        "flac", "flac", "s16", {"flush_packets": "1"}, {"frame_size": "1024"}
    ),
}  # fmt: skip


class AvEncoder:
    """One FFmpeg encoder and muxer writing to memory.

    Packets that could hold only padding at the end are left out, so that the decoded duration is
    that of the input plus the encoder's delay, to within one frame.
    """

    def __init__(self, audio_format: AudioFormat, sample_rate: int) -> None:
        settings = _SETTINGS[audio_format]
        self._settings = settings
        self._rate = sample_rate
        self._sink = _Sink()
        self._container = av.open(
            self._sink, "w", format=settings.container, options=settings.container_options
        )
        self._stream = self._container.add_stream(
            settings.codec, rate=sample_rate, options=dict(settings.codec_options)
        )
        self._stream.layout = "mono"
        bit_rate = settings.bit_rate(sample_rate)
        if bit_rate:
            self._stream.bit_rate = bit_rate
        self._samples = 0
        self._packets = 0

    def feed(self, audio: FloatArray) -> bytes:
        """Encode float32 [samples]; return the bytes that are ready."""
        if len(audio):
            self._encode(self._frame(audio))
        return self._sink.take()

    def finish(self) -> bytes:
        """Flush encoder and muxer."""
        if not self._samples:  # a muxer without one packet writes no header and fails
            self._encode(self._frame(np.zeros(self._rate // 50, np.float32)))
        self._encode(None)
        self._container.close()
        return self._sink.take()

    def _frame(self, audio: FloatArray) -> av.AudioFrame:
        if self._settings.sample_format == "s16":
            samples = np.frombuffer(to_int16(audio), "<i2")
        else:
            samples = _clipped(audio)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples)[None], format=self._settings.sample_format, layout="mono"
        )
        frame.sample_rate = self._rate
        frame.pts = self._samples
        self._samples += len(audio)
        return frame

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._packets += 1
            if frame is not None or not self._is_padding():
                self._container.mux(packet)

    def _is_padding(self) -> bool:
        delay = self._settings.delay
        size = self._stream.codec_context.frame_size
        return delay is not None and self._packets > math.ceil((self._samples + delay) / size)


class _LameEncoder:
    """MP3 frames from `lameenc`, whole ones only and none that could hold only padding."""

    def __init__(self, lame: LameLike, sample_rate: int) -> None:
        self._lame = lame
        self._rate = sample_rate
        self._buffer = bytearray()
        self._samples = 0
        self._frames = 0

    def feed(self, audio: FloatArray) -> bytes:
        """Encode float32 [samples]; return the frames that are ready."""
        if len(audio):
            self._samples += len(audio)
            self._buffer += self._lame.encode(to_int16(audio))
        return self._take()

    def finish(self) -> bytes:
        """Flush; a stream without samples becomes silence."""
        silence = b"" if self._samples else self.feed(np.zeros(1, np.float32))
        self._buffer += self._lame.flush()
        return silence + self._take()

    def _take(self) -> bytes:
        left = frames_for(self._samples, self._rate) - self._frames
        count, size = whole_frames(self._buffer, self._rate, at_most=left)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._frames += count
        return taken


def _lame_frames(sample_rate: int) -> Encoder:
    lame = make_lame(sample_rate)
    return _LameEncoder(lame, sample_rate) if lame else AvEncoder("mp3", sample_rate)


class Mp3Encoder:
    """MP3 frames behind one that tells their delay; see `mp3`."""

    def __init__(self, sample_rate: int) -> None:
        self._header = info_frame(sample_rate)
        self._frames = _lame_frames(sample_rate)

    def feed(self, audio: FloatArray) -> bytes:
        """Encode float32 [samples]; return the bytes that are ready."""
        return self._headed(self._frames.feed(audio))

    def finish(self) -> bytes:
        """Return the rest."""
        return self._headed(self._frames.finish())

    def _headed(self, frames: bytes) -> bytes:
        if not frames:
            return b""
        header, self._header = self._header, b""
        return header + frames


def make_encoder(audio_format: AudioFormat, sample_rate: int) -> Encoder:
    """A fresh streaming encoder."""
    if audio_format == "pcm":
        return PcmEncoder()
    if audio_format == "wav":
        return PcmEncoder(wav_header(sample_rate, None))
    if audio_format == "mp3":
        return Mp3Encoder(sample_rate)
    return AvEncoder(audio_format, sample_rate)


def warm_up() -> None:
    """Encode a little in every format, so that no request pays for loading the libraries."""
    silence = np.zeros(2400, np.float32)
    for audio_format in get_args(AudioFormat):
        encoder = make_encoder(audio_format, 24000)
        encoder.feed(silence)
        encoder.finish()
        encode_whole(audio_format, 24000, silence)


def encode_whole(audio_format: AudioFormat, sample_rate: int, audio: FloatArray) -> bytes:
    """A finished file of float32 [samples], with every size and length in its header right."""
    if audio_format == "wav":
        return wav_header(sample_rate, len(audio)) + to_int16(audio)
    if audio_format == "mp3" and len(audio):
        lame = _lame_frames(sample_rate)
        frames = lame.feed(audio) + lame.finish()
        return info_frame(sample_rate, frames, len(audio)) + frames
    if audio_format == "flac" and len(audio):
        buffer = io.BytesIO()
        data = np.frombuffer(to_int16(audio), "<i2")
        soundfile.write(buffer, data, sample_rate, format="FLAC", subtype="PCM_16")
        return buffer.getvalue()
    encoder = make_encoder(audio_format, sample_rate)
    return encoder.feed(audio) + encoder.finish()

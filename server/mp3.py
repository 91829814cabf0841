"""MP3: an Info frame that tells the encoder's delay, to be followed by LAME's frames.

LAME puts 576 samples before the speech and a decoder 529 more; a player that reads the Info frame
(FFmpeg, browsers) leaves them out, so that speech begins at once and in the right place. At the end
of a stream up to one frame of padding stays, because how much it is was not known when the Info
frame was sent; of a finished file it is known. LAME comes from `lameenc`, whose build takes a
quarter of the time of FFmpeg's, which `encoders` uses where `lameenc` is not installed.

The Info frame is described in "MP3 Info Tag" (revision 1 of the LAME tag) and "Dissecting the MPEG
Audio Frame Header" (Xing's fields); its CRC is CRC-16/ARC.
"""

from __future__ import annotations

import struct
from typing import Protocol

LAME_DELAY = 576  # samples that LAME puts before the speech
DECODER_DELAY = 529  # samples that every decoder adds to them; the Info frame leaves them out

_VERSIONS = {2: (8000, 12000), 1: (16000, 22050, 24000), 0: (32000, 44100, 48000)}
_VERSION_BITS = {2: 0b00, 1: 0b10, 0: 0b11}  # MPEG 2.5, 2, 1
_RATE_BITS = {44100: 0, 22050: 0, 48000: 1, 24000: 1, 12000: 1, 32000: 2, 16000: 2, 8000: 2}
_SPEED = 7  # LAME's quality: at these rates 5 and 3 measure no better on speech and take longer


class LameLike(Protocol):
    """What is used of `lameenc.Encoder`."""

    def encode(self, pcm: bytes) -> bytearray:
        """Take int16 samples."""

    def flush(self) -> bytearray:
        """Return the rest."""


def bit_rate(sample_rate: int) -> int:
    """Bits per second of mono speech; 64 000 is the most below 32 kHz that MPEG 2.5 has too."""
    return 64_000 if sample_rate <= 24_000 else 96_000


def make_lame(sample_rate: int) -> LameLike | None:
    """A LAME for one mono stream, or None where `lameenc` is not installed."""
    try:
        from lameenc import Encoder
    except ImportError:
        return None
    lame = Encoder()
    lame.silence()
    lame.set_channels(1)
    lame.set_in_sample_rate(sample_rate)
    lame.set_out_sample_rate(sample_rate)
    lame.set_bit_rate(bit_rate(sample_rate) // 1000)
    lame.set_quality(_SPEED)
    made: LameLike = lame
    return made


def frame_samples(sample_rate: int) -> int:
    """Samples of one frame."""
    return 1152 if sample_rate in _VERSIONS[0] else 576


def frames_for(num_samples: int, sample_rate: int) -> int:
    """Frames that carry so many samples to the end, delays included."""
    return -(-(num_samples + LAME_DELAY + DECODER_DELAY) // frame_samples(sample_rate))


def whole_frames(data: bytes | bytearray, sample_rate: int, at_most: int) -> tuple[int, int]:
    """How many whole frames `data` begins with, up to a number, and how many bytes they take."""
    size = _frame_bytes(sample_rate)
    count = end = 0
    while count < at_most and len(data) >= end + size:
        padding = data[end + 2] >> 1 & 1  # a slot that some frames have at 22.05 and 44.1 kHz
        if len(data) < end + size + padding:
            break
        count, end = count + 1, end + size + padding
    return count, end


def _frame_bytes(sample_rate: int) -> int:
    return frame_samples(sample_rate) // 8 * bit_rate(sample_rate) // sample_rate


def info_frame(sample_rate: int, frames: bytes = b"", num_samples: int | None = None) -> bytes:
    """A silent frame that declares LAME's delay and, of a finished file, length and padding.

    Args:
        sample_rate: one that MP3 has.
        frames: all of a finished file's, as many as `frames_for` says.
        num_samples: of the speech in them; None when that is not known yet.
    """
    generation = next(n for n, rates in _VERSIONS.items() if sample_rate in rates)
    rate = bit_rate(sample_rate)
    rate_index = {64_000: 8, 96_000: 7}[rate]
    header = struct.pack(
        ">BBBB",
        0xFF,
        0xE3 | _VERSION_BITS[generation] << 3,  # layer III, no checksum
        rate_index << 4 | _RATE_BITS[sample_rate] << 2,
        0xC0,  # mono
    )
    side_info = bytes(17 if generation == 0 else 9)
    size = _frame_bytes(sample_rate)
    if num_samples is None:
        tag = _xing_fields() + _lame_tag(rate, padding=0)
    else:
        num_frames = frames_for(num_samples, sample_rate)
        padding = num_frames * frame_samples(sample_rate) - num_samples - LAME_DELAY
        tag = _xing_fields(num_frames, size + len(frames)) + _lame_tag(rate, padding)
    checked = header + side_info + tag
    return (checked + struct.pack(">H", _crc16(checked))).ljust(size, b"\0")


def _xing_fields(num_frames: int | None = None, num_bytes: int = 0) -> bytes:
    """The tag's name, which says that the bit rate is constant, and what is known of the length."""
    if num_frames is None:
        return b"Info" + bytes(4)
    return b"Info" + struct.pack(">III", 0b11, num_frames, num_bytes)


def _lame_tag(rate: int, padding: int) -> bytes:
    """The 34 bytes between the Xing fields and the checksum; `padding` in samples."""
    method, lowpass, gains, flags = 1, 0, bytes(8), 0  # constant bit rate, the rest unknown
    delay_and_padding = (LAME_DELAY << 12 | padding).to_bytes(3, "big")
    unknown = bytes(1 + 1 + 2 + 4 + 2)  # source, gain, preset, length and checksum of the music
    return (
        struct.pack(">9sBB", b"LAME3.100", method, lowpass)
        + gains
        + struct.pack(">BB", flags, rate // 1000)
        + delay_and_padding
        + unknown
    )


def _crc16(data: bytes) -> int:
    """CRC-16/ARC: polynomial 0x8005, reflected, starting from 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc

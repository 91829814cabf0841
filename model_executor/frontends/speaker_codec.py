"""Speaker vectors as the strings and files that ChatTTS users exchange.

A speaker string is base16384 text of raw LZMA2 (preset 9, extreme) of `hidden_size` float16. Both
layers are written from the format's description. What comes in is untrusted: every failure is a
`RequestError` that names the cause, and decompression is bounded. Which voices a model has, and
what an embedding sounds like, is not known here.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ...engine.errors import RequestError, UnknownVoiceError

__all__ = [
    "decode_base16384",
    "decode_speaker",
    "encode_base16384",
    "encode_speaker",
    "load_speaker_file",
    "unit_speaker",
]

_FIRST = 0x4E00  # 14 bits a character from here
_TAIL = 0x3D00  # plus the number of bytes in the last, incomplete group of 7
_BITS = 14
_GROUP_BYTES, _GROUP_CHARS = 7, 4
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
_MAX_FILE_BYTES = 16 << 20


def encode_base16384(data: bytes) -> str:
    """Text of `data`: 14-bit big-endian groups from U+4E00, zero-padded, with a length mark."""
    num_chars = -(-len(data) * 8 // _BITS)
    value = int.from_bytes(data, "big") << (num_chars * _BITS - len(data) * 8)
    shifts = range((num_chars - 1) * _BITS, -1, -_BITS)
    text = "".join(chr(_FIRST + (value >> shift & 0x3FFF)) for shift in shifts)
    rest = len(data) % _GROUP_BYTES
    return text + (chr(_TAIL + rest) if rest else "")


def decode_base16384(text: str) -> bytes:
    """The bytes of `text`.

    Raises:
        ValueError: a character is outside the alphabet, or the length mark does not fit.
    """
    rest = 0
    if text and 0 < ord(text[-1]) - _TAIL < _GROUP_BYTES:
        rest, text = ord(text[-1]) - _TAIL, text[:-1]
    full, partial = divmod(len(text), _GROUP_CHARS)
    if partial != -(-rest * 8 // _BITS) % _GROUP_CHARS:
        raise ValueError("the text is cut short")
    value = 0
    for char in text:
        digit = ord(char) - _FIRST
        if not 0 <= digit < 1 << _BITS:
            raise ValueError(f"{char!r} is not a base16384 character")
        value = value << _BITS | digit
    # Four marked characters hold six bytes, so a mark of 6 takes its group from `full`.
    num_bytes = full * _GROUP_BYTES + rest - (_GROUP_BYTES if rest == _GROUP_BYTES - 1 else 0)
    return (value >> (len(text) * _BITS - num_bytes * 8)).to_bytes(num_bytes, "big")


def encode_speaker(vector: npt.NDArray[np.floating]) -> str:
    """The string of a speaker vector [hidden_size]; rounds to float16."""
    raw = vector.astype("<f2").tobytes()
    return encode_base16384(lzma.compress(raw, lzma.FORMAT_RAW, filters=_FILTERS))


def decode_speaker(text: str, hidden_size: int) -> torch.Tensor:
    """float16 [hidden_size] of a speaker string.

    Raises:
        UnknownVoiceError: not such a string, or one of a model of another size.
    """
    wanted = 2 * hidden_size
    try:
        packed = decode_base16384(text.strip())
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        raw = unpacker.decompress(packed, max_length=wanted + 1)
    except (ValueError, lzma.LZMAError, EOFError) as error:
        raise _bad_voice(f"the speaker string cannot be decoded: {error}") from error
    if len(raw) != wanted:
        raise _bad_voice(
            f"the speaker string holds {len(raw) // 2 if len(raw) < wanted else 'too many'} "
            f"values, this model's voices have {hidden_size}"
        )
    return _checked(torch.from_numpy(np.frombuffer(raw, dtype="<f2").copy()), hidden_size)


def load_speaker_file(path: Path, hidden_size: int) -> torch.Tensor:
    """[hidden_size] in the file's own float type, from a `.pt` file with a tensor or a string.

    Raises:
        UnknownVoiceError: missing, unreadable, or not a speaker vector of this size.
    """
    if not path.is_file():
        raise _bad_voice(f"there is no voice file {path}")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise _bad_voice(f"{path} is too large for a speaker vector")
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise _bad_voice(f"{path} is not a readable .pt file") from error
    if isinstance(value, str):
        return decode_speaker(value, hidden_size)
    if not isinstance(value, torch.Tensor):
        raise _bad_voice(f"{path} holds a {type(value).__name__}, not a speaker vector")
    return _checked(value.detach(), hidden_size)


def unit_speaker(vector: torch.Tensor) -> npt.NDArray[np.float32]:
    """L2-normalised float32 [hidden_size]; the norm is taken in the vector's own float type.

    ChatTTS normalises a string's voice in float16; doing it in float32 changes it by up to 4e-5.
    """
    unit = torch.nn.functional.normalize(vector, p=2.0, dim=0, eps=1e-12)
    array: npt.NDArray[np.float32] = unit.to(torch.float32).numpy()
    return array


def _checked(vector: torch.Tensor, hidden_size: int) -> torch.Tensor:
    vector = vector.squeeze()
    if vector.shape != (hidden_size,):
        shape = list(vector.shape)
        raise _bad_voice(f"the voice has shape {shape}, this model's have [{hidden_size}]")
    if not vector.is_floating_point() or not bool(torch.isfinite(vector).all()):
        raise _bad_voice("the voice's vector is not made of finite numbers")
    if not bool(vector.abs().max() > 0):
        raise _bad_voice("the voice's vector is all zeros")
    return vector


def _bad_voice(message: str) -> RequestError:
    return UnknownVoiceError(message, param="voice")

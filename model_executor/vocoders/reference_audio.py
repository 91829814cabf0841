"""Reference recordings, as users give them, to the codes of a zero-shot prompt.

Decoding (any format of libsndfile) and resampling happen here, once, and everything that can be
wrong with a recording is a `RequestError` that says what would be right.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...engine.errors import RequestError
from ..interfaces import FloatArray, IntArray
from ..models.checkpoint import Checkpoint
from .dvae_encoder import load_dvae_encoder

MIN_SECONDS, MAX_SECONDS = 1.0, 30.0
_SILENCE = 1e-4

EncodeReference = Callable[[bytes | str | Path], IntArray]


def load_reference_audio(source: bytes | str | Path, sample_rate: int) -> FloatArray:
    """Decode a recording to mono at `sample_rate`.

    Args:
        source: the bytes of an audio file, or its path.

    Returns:
        float32 [samples].

    Raises:
        RequestError: no such file, not a readable recording, not finite, silent, or not
            `MIN_SECONDS` to `MAX_SECONDS` long.
    """
    import soundfile  # both here: only recordings need them
    import soxr

    opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with soundfile.SoundFile(opened) as file:
            _check_duration(len(file) / file.samplerate)
            rate, samples = file.samplerate, file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise RequestError(
            f"the reference recording cannot be read: {error}", param="voice"
        ) from error
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise RequestError("the reference recording has samples that are no numbers", param="voice")
    # A header may promise more than the file holds.
    _check_duration(len(mono) / rate)
    if np.abs(mono).max() < _SILENCE:
        raise RequestError("the reference recording is silent", param="voice")
    resampled: FloatArray = soxr.resample(mono, rate, sample_rate) if rate != sample_rate else mono
    return np.ascontiguousarray(resampled, dtype=np.float32)


def _check_duration(seconds: float) -> None:
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise RequestError(
            f"the reference recording is {seconds:.1f} s long; "
            f"{MIN_SECONDS:g} to {MAX_SECONDS:g} s are needed",
            param="voice",
        )


def make_encode_reference(checkpoint: Checkpoint) -> EncodeReference | None:
    """A function from a recording to int32 [frames, num_codebooks], or None where the checkpoint
    has no encoder.

    Raises:
        CheckpointError: a tensor is missing or misshapen.
    """
    encoder = load_dvae_encoder(checkpoint)
    if encoder is None:
        return None

    def encode_reference(source: bytes | str | Path) -> IntArray:
        waveform = load_reference_audio(source, encoder.sample_rate)
        codes: IntArray = encoder.encode(torch.from_numpy(waveform)).numpy()
        return codes

    return encode_reference

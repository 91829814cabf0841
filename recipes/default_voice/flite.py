"""Debian's flite in this process, through ctypes: the source voices and their pronunciations.

It gives waveforms with the segments flite spoke and per-word pronunciations. It does not map them
to the tokens of the default voice and does not resample.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Speech", "Voice", "is_listed", "pronounce"]

_VOICES = ("slt", "rms")


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


@dataclass(frozen=True)
class Speech:
    """One utterance of a source voice.

    ``samples`` int16 [num_samples] at ``sample_rate``; ``segments`` are flite's phone names
    (no stress; ``pau`` is silence) with their end times in seconds.
    """

    samples: npt.NDArray[np.int16]
    sample_rate: int
    segments: tuple[tuple[str, float], ...]


@cache
def _flite() -> Any:
    flags = ctypes.RTLD_GLOBAL
    lib = ctypes.CDLL("libflite.so.1", mode=flags)
    for name in ("usenglish", "cmulex"):
        ctypes.CDLL(f"libflite_{name}.so.1", mode=flags)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    signatures = {
        "flite_init": (ctypes.c_int, ()),
        "flite_synth_text": (pointer, (text, pointer)),
        "delete_utterance": (None, (pointer,)),
        "utt_wave": (ctypes.POINTER(_Wave), (pointer,)),
        "utt_relation": (pointer, (pointer, text)),
        "relation_head": (pointer, (pointer,)),
        "item_next": (pointer, (pointer,)),
        "item_feat_string": (text, (pointer, text)),
        "item_feat_float": (ctypes.c_float, (pointer, text)),
        "flite_feat_set_float": (None, (pointer, text, ctypes.c_float)),
        "lex_lookup": (pointer, (pointer, text, text, pointer)),
        "in_lex": (ctypes.c_int, (pointer, text, text, pointer)),
        "val_car": (pointer, (pointer,)),
        "val_cdr": (pointer, (pointer,)),
        "val_string": (text, (pointer,)),
        "delete_val": (None, (pointer,)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.flite_init()
    return lib


@cache
def _lexicon() -> int:
    init = ctypes.CDLL("libflite_cmulex.so.1").cmu_lex_init
    init.restype = ctypes.c_void_p
    _flite()
    return int(init())


def _strings(value: int | None) -> Iterator[str]:
    lib = _flite()
    while value:
        yield lib.val_string(lib.val_car(value)).decode()
        value = lib.val_cdr(value)


def pronounce(word: str) -> tuple[str, ...]:
    """flite's phones of a lower-case word, vowels with stress digit; by rule if not listed."""
    value = _flite().lex_lookup(_lexicon(), word.encode(), None, None)
    phones = tuple(_strings(value))
    _flite().delete_val(value)
    return phones


def is_listed(word: str) -> bool:
    """Whether flite's lexicon lists the lower-case word, so that no rule guesses it."""
    return bool(_flite().in_lex(_lexicon(), word.encode(), None, None))


class Voice:
    """A source voice, ``slt`` (female) or ``rms`` (male); not thread-safe."""

    def __init__(self, name: str) -> None:
        if name not in _VOICES:
            raise ValueError(f"unknown source voice {name!r}, known: {', '.join(_VOICES)}")
        self._lib = _flite()
        library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1", mode=ctypes.RTLD_GLOBAL)
        register = getattr(library, f"register_cmu_us_{name}")
        register.restype = ctypes.c_void_p
        register.argtypes = (ctypes.c_void_p,)
        self._voice = register(None)

    def speak(self, text: str, speed: float = 1.0) -> Speech:
        """Speak plain ASCII text; durations are divided by ``speed``."""
        features = ctypes.cast(self._voice, ctypes.POINTER(_Voice)).contents.features
        self._lib.flite_feat_set_float(features, b"duration_stretch", 1.0 / speed)
        utterance = self._lib.flite_synth_text(text.encode("ascii"), self._voice)
        try:
            wave = self._lib.utt_wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).copy()
            return Speech(samples, wave.sample_rate, tuple(self._segments(utterance)))
        finally:
            self._lib.delete_utterance(utterance)

    def _segments(self, utterance: int) -> Iterator[tuple[str, float]]:
        lib = self._lib
        item = lib.relation_head(lib.utt_relation(utterance, b"Segment"))
        while item:
            yield lib.item_feat_string(item, b"name").decode(), lib.item_feat_float(item, b"end")
            item = lib.item_next(item)

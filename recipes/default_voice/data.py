"""Synthetic training data: source-voice audio with its prompt tokens and their alignment.

A shard is a ``.npz`` of a few hundred utterances, reproducible from its corpus and index alone, so
that an interrupted run goes on with the shards that are missing. Shards hold no codes and no mels:
those depend on the codec.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soxr

from stretto.model_executor.frontends.lexicon import possessive_ending
from stretto.model_executor.frontends.phones import (
    PUNCTUATION,
    SPEEDS,
    WORD_SEPARATOR,
    encode_chunk,
)

from .flite import Speech, Voice
from .pronunciations import dictionary_words, listed_names, word_phones
from .short_text import ShortTextGenerator
from .text import TextGenerator

__all__ = [
    "GENERAL",
    "LEAD",
    "SAMPLES_PER_FRAME",
    "SAMPLE_RATE",
    "SHORT",
    "SPEAKERS",
    "TAIL",
    "Corpus",
    "Utterance",
    "load_shards",
    "make_shards",
    "speak",
    "text_tokens",
]

SAMPLE_RATE = 24_000
SAMPLES_PER_FRAME = 512
SPEAKERS = ("slt", "rms")
LEAD, TAIL = 0.06, 0.12
"""Seconds of silence kept before the first and after the last phone."""

_SHARD_SIZE = 400
_MAX_SECONDS = 12.0
_MAX_MISMATCH = 0.15
_TEXT_START = 3  # [Stts] [spk_emb] [speed_k]
_SEPARATORS = frozenset({WORD_SEPARATOR, *PUNCTUATION})


@dataclass(frozen=True)
class Utterance:
    """One training example at 24 kHz.

    ``samples`` int16 [frames * 512]; ``tokens`` ids of the whole prompt; ``alignment`` int16
    [frames], the index into ``tokens`` of what is spoken in each frame.
    """

    text: str
    speaker: int
    samples: npt.NDArray[np.int16]
    tokens: npt.NDArray[np.int16]
    alignment: npt.NDArray[np.int16]


class Texts(Protocol):
    """A generator of texts."""

    def next(self) -> str:
        """One text."""
        ...


@dataclass(frozen=True)
class Corpus:
    """A family of shards.

    ``name`` begins the shards' file names; shard ``i`` is seeded with ``first_seed + i``; ``texts``
    makes the generator from dictionary words, names and seed; ``speakers`` and ``speeds`` weigh the
    voices and the speaking rates of ``phones.SPEEDS``.
    """

    name: str
    shards: int
    first_seed: int
    texts: Callable[[Sequence[str], Sequence[str], int], Texts]
    speakers: tuple[int, int]
    speeds: tuple[int, int, int, int, int]


GENERAL = Corpus("shard", 52, 0, TextGenerator, (56, 44), (3, 4, 86, 4, 3))
SHORT = Corpus("short", 20, 10_000, ShortTextGenerator, (62, 38), (0, 0, 1, 0, 0))


def text_tokens(text: str) -> list[str]:
    """TEXT tokens of a generated text (lower-case words, marks directly after a word)."""
    tokens: list[str] = []
    for word in text.split():
        mark = word[-1] if word[-1] in PUNCTUATION else WORD_SEPARATOR
        tokens += (*_phones(word.rstrip("".join(PUNCTUATION))), mark)
    return tokens


@cache
def _phones(word: str) -> tuple[str, ...]:
    if word.endswith("'s") and "'" not in word[:-2] and word not in _contractions():
        stem = word_phones(word[:-2])
        return stem + possessive_ending(stem)
    return word_phones(word)


@cache
def _contractions() -> frozenset[str]:
    from .pronunciations import CONTRACTIONS

    return frozenset(CONTRACTIONS)


def _match(tokens: Sequence[str], segments: Sequence[str]) -> list[int] | None:
    """For each segment the index of its token in ``tokens``; None if they differ too much."""
    phones = [index for index, token in enumerate(tokens) if token not in _SEPARATORS]
    spoken = [index for index, name in enumerate(segments) if name != "pau"]
    names = [tokens[index].rstrip("01") for index in phones]
    matcher = SequenceMatcher(None, names, [segments[index] for index in spoken], autojunk=False)
    if not phones or matcher.ratio() < 1 - _MAX_MISMATCH:
        return None
    target = [-1] * len(segments)
    for _, a, a_end, b, b_end in matcher.get_opcodes():
        for place in range(b, b_end):
            share = (place - b) / (b_end - b)
            target[spoken[place]] = phones[min(a + int(share * max(a_end - a, 1)), len(phones) - 1)]
    return _place_pauses(tokens, target)


def _place_pauses(tokens: Sequence[str], target: list[int]) -> list[int]:
    """Give each pause the separator after the phone before it; the first goes before TEXT."""
    last = -1
    for index, place in enumerate(target):
        if place < 0:
            following = range(max(last, 0), len(tokens))
            place = next((i for i in following if tokens[i] in _SEPARATORS), len(tokens) - 1)
            target[index] = place if last >= 0 else -1
        last = max(last, target[index])
    return target


def _trimmed(speech: Speech) -> tuple[npt.NDArray[np.int16], float]:
    """Samples at 24 kHz cut to whole frames with LEAD and TAIL, and the seconds cut before."""
    names = [name for name, _ in speech.segments]
    spoken = [index for index, name in enumerate(names) if name != "pau"]
    begin = speech.segments[spoken[0] - 1][1] if spoken[0] else 0.0
    start, end = max(begin - LEAD, 0.0), speech.segments[spoken[-1]][1] + TAIL
    rate = speech.sample_rate
    piece = speech.samples[int(start * rate) : int(end * rate)]
    resampled = soxr.resample(piece, rate, SAMPLE_RATE)
    frames = -(-len(resampled) // SAMPLES_PER_FRAME)
    samples = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
    samples[: len(resampled)] = resampled
    return samples, start


@cache
def _voice(speaker: str) -> Voice:
    return Voice(speaker)


def speak(text: str, speaker: str, speed: float = 1.0) -> npt.NDArray[np.int16]:
    """The source voice's audio of a text, trimmed as in training: int16 [samples] at 24 kHz."""
    return _trimmed(_voice(speaker).speak(text, speed))[0]


def _utterance(text: str, speaker: int, speed_index: int) -> Utterance | None:
    speech = _voice(SPEAKERS[speaker]).speak(text, SPEEDS[speed_index])
    tokens = text_tokens(text)
    target = _match(tokens, [name for name, _ in speech.segments])
    if target is None:
        return None
    samples, start = _trimmed(speech)
    if len(samples) > _MAX_SECONDS * SAMPLE_RATE:
        return None
    centres = (np.arange(len(samples) // SAMPLES_PER_FRAME) + 0.5) * SAMPLES_PER_FRAME / SAMPLE_RATE
    ends = np.array([end for _, end in speech.segments])
    segment = np.minimum(np.searchsorted(ends, centres + start), len(ends) - 1)
    alignment = np.array(target)[segment] + _TEXT_START
    ids = np.array(encode_chunk(tokens, speed_index), np.int16)
    return Utterance(text, speaker, samples, ids, alignment.astype(np.int16))


def _utterances(corpus: Corpus, index: int) -> Iterator[Utterance]:
    seed = corpus.first_seed + index
    chooser = random.Random(seed)
    texts = corpus.texts(dictionary_words(), listed_names(), seed)
    for _ in range(_SHARD_SIZE):
        speed = chooser.choices(range(len(SPEEDS)), corpus.speeds)[0]
        speaker = chooser.choices((0, 1), corpus.speakers)[0]
        utterance = _utterance(texts.next(), speaker, speed)
        if utterance is not None:
            yield utterance


def _write_shard(folder: Path, corpus: Corpus, index: int) -> None:
    path = folder / f"{corpus.name}-{index:03d}.npz"
    if path.exists():
        return
    items = list(_utterances(corpus, index))
    lengths = [(len(item.tokens), len(item.alignment)) for item in items]
    partial_path = path.with_suffix(".part")
    with partial_path.open("wb") as file:
        np.savez(
            file,
            text=np.array([item.text for item in items]),
            speaker=np.array([item.speaker for item in items]),
            lengths=np.array(lengths),
            samples=np.concatenate([item.samples for item in items]),
            tokens=np.concatenate([item.tokens for item in items]),
            alignment=np.concatenate([item.alignment for item in items]),
        )
    partial_path.rename(path)


def make_shards(folder: Path, corpus: Corpus, processes: int = 2) -> None:
    """Write the missing shards; 400 texts each, 10 to 25 minutes of audio."""
    folder.mkdir(parents=True, exist_ok=True)
    with get_context("spawn").Pool(processes) as pool:
        write = partial(_write_shard, folder, corpus)
        for _ in pool.imap_unordered(write, range(corpus.shards)):
            pass


def load_shards(folder: Path, corpus: Corpus, *, audio: bool = True) -> list[Utterance]:
    """All utterances of a corpus, in shard order; without ``audio`` their samples are empty."""
    paths = sorted(folder.glob(f"{corpus.name}-*.npz"))
    return [item for path in paths for item in _read_shard(path, audio)]


def _read_shard(path: Path, audio: bool) -> Iterator[Utterance]:
    with np.load(path) as shard:
        names = (name for name in shard.files if audio or name != "samples")
        arrays = {name: shard[name] for name in names}
    heard = arrays.get("samples", np.zeros(0, np.int16))
    token_end = frame_end = 0
    for text, speaker, (tokens, frames) in zip(
        arrays["text"], arrays["speaker"], arrays["lengths"], strict=True
    ):
        token_start, token_end = token_end, token_end + tokens
        frame_start, frame_end = frame_end, frame_end + frames
        samples = slice(frame_start * SAMPLES_PER_FRAME, frame_end * SAMPLES_PER_FRAME)
        yield Utterance(
            str(text),
            int(speaker),
            heard[samples],
            arrays["tokens"][token_start:token_end],
            arrays["alignment"][frame_start:frame_end],
        )

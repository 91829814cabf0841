"""Measures a checkpoint through the real engine, beside the source voices: hearing, length, ends.

    python -m recipes.default_voice.evaluate --model assets/default --out report.json

The sentences of ``sentences/test.txt`` are looked at for reporting only; checkpoints and the
sampling temperature are chosen on ``sentences/dev.txt``. No human listens here: word error rates
say nothing about naturalness.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import stretto

from .data import SAMPLE_RATE, SPEAKERS, speak
from .pronunciations import dictionary_words, listed_names
from .recogniser import Recogniser, bootstrap_interval, plain, word_errors
from .text import TextGenerator

__all__ = ["PARTS", "Hearing", "evaluate", "sentences"]

Samples = npt.NDArray[np.float32]
_FOLDER = Path(__file__).parent / "sentences"
_ROBUST_TEXTS = 500
_SINGLE_WORDS = 100
_CONTROLS = 12
PARTS = ("hearing", "words", "clean", "robust")


@dataclass(frozen=True)
class Hearing:
    """What pocketsphinx makes of one voice's audio.

    Rates are in words; ``choice`` is the share of sentences picked right by their grammar.
    """

    words: int
    language_model: float
    choice: float
    free: float | None
    free_errors: tuple[int, ...] = ()


def sentences(name: str) -> list[str]:
    """Sentences of ``dev`` or ``test``, without a final mark."""
    return (_FOLDER / f"{name}.txt").read_text().splitlines()


def hear(
    recogniser: Recogniser, texts: Sequence[str], audio: Sequence[Samples], *, free: bool
) -> Hearing:
    """Recognise each utterance with the language model, the grammar and, if asked, freely."""
    words = model_errors = right = 0
    free_errors = []
    for text, samples in zip(texts, audio, strict=True):
        reference = plain(text)
        words += len(reference)
        heard = recogniser.with_language_model(samples, SAMPLE_RATE)
        model_errors += word_errors(reference, heard)
        right += recogniser.choice(samples, SAMPLE_RATE) == reference
        if free:
            free_errors.append(word_errors(reference, recogniser.free(samples, SAMPLE_RATE)))
    rate = sum(free_errors) / words if free else None
    return Hearing(words, model_errors / words, right / len(texts), rate, tuple(free_errors))


def source_audio(texts: Iterable[str], voice: str) -> list[Samples]:
    """The source voice on the same texts, [samples] in [-1, 1] at 24 kHz."""
    spoken = [speak(f"{text}.", voice) for text in texts]
    return [(samples / 32768).astype(np.float32) for samples in spoken]


def engine_audio(
    engine: stretto.SpeechEngine, texts: Sequence[str], voice: str, seed: int = 0
) -> list[Samples]:
    """The engine on the texts, in one batch."""
    requests = [stretto.SpeechRequest(text=f"{text}.", voice=voice, seed=seed) for text in texts]
    results = engine.generate(requests)
    return [result.audio for result in results]


def _levelled(audio: Sequence[Samples], model: Sequence[Samples]) -> list[Samples]:
    """``audio`` at the mean power of ``model``: the recogniser hears quieter speech better."""
    powers = [np.mean(np.concatenate(part) ** 2) for part in (model, audio)]
    return [samples * np.sqrt(powers[0] / powers[1]) for samples in audio]


def _reversed(audio: Iterable[Samples]) -> list[Samples]:
    return [samples[::-1].copy() for samples in audio]


def _shuffled(audio: Iterable[Samples]) -> Iterator[Samples]:
    """Pieces of 0.2 s in random order."""
    chooser = random.Random(0)
    for samples in audio:
        pieces = np.array_split(samples, max(2, len(samples) * 5 // SAMPLE_RATE))
        chooser.shuffle(pieces)
        yield np.concatenate(pieces)


def source_hearing(voice: str, texts: Sequence[str]) -> dict[str, Any]:
    """What is heard of the source voice."""
    return asdict(hear(Recogniser(texts), texts, source_audio(texts, voice), free=True))


def engine_hearing(
    engine: stretto.SpeechEngine, voice: str, texts: Sequence[str], source: Mapping[str, Any]
) -> dict[str, Any]:
    """What is heard of the engine, against ``source``, with the controls that must fail."""
    recogniser = Recogniser(texts)
    spoken = engine_audio(engine, texts, voice)
    heard = hear(recogniser, texts, spoken, free=True)
    pairs = zip(heard.free_errors, source["free_errors"], strict=True)
    gap = [float(ours - theirs) for ours, theirs in pairs]
    weights = [float(len(plain(text))) for text in texts]
    levelled = _levelled(source_audio(texts, voice), spoken)
    few = slice(0, _CONTROLS)
    controls = {"reversed": _reversed(spoken[few]), "shuffled": list(_shuffled(spoken[few]))}
    return {
        "engine": asdict(heard),
        "levelled_source": asdict(hear(recogniser, texts, levelled, free=False)),
        "free_gap": sum(gap) / sum(weights),
        "free_gap_interval": bootstrap_interval(gap, weights),
        "controls": {
            name: asdict(hear(recogniser, texts[few], audio, free=False))
            for name, audio in controls.items()
        },
    }


def single_words(engine: stretto.SpeechEngine, voice: str) -> dict[str, float]:
    """Share of single everyday words chosen right by a grammar of them, engine and source."""
    texts = sorted({word for text in sentences("test") for word in plain(text) if len(word) > 3})
    texts = random.Random(1).sample(texts, _SINGLE_WORDS)
    recogniser = Recogniser(texts)
    spoken, source = engine_audio(engine, texts, voice), source_audio(texts, voice)
    result = {}
    for name, audio in (
        ("engine", spoken),
        ("source", source),
        ("levelled_source", _levelled(source, spoken)),
    ):
        pairs = zip(texts, audio, strict=True)
        right = sum(recogniser.choice(samples, SAMPLE_RATE) == [text] for text, samples in pairs)
        result[name] = right / len(texts)
    return result


def _robust_texts() -> list[str]:
    """Random texts of training's kinds and unlike it: repetitions, pasted sentences."""
    generator = TextGenerator(dictionary_words(), listed_names(), seed=987_654)
    chooser = random.Random(5)
    texts: list[str] = []
    while len(texts) < _ROBUST_TEXTS:
        text = generator.next()
        kind = chooser.random()
        if kind < 0.15:
            text = " ".join(generator.next() for _ in range(chooser.randint(2, 5)))
        elif kind < 0.25:
            word = chooser.choice(plain(text))
            text = " ".join([word] * chooser.randint(2, 8)) + "."
        if len(text.split()) <= 60:
            texts.append(text)
    return texts


def robustness(engine: stretto.SpeechEngine) -> dict[str, object]:
    """Audio length over the source voice's on 500 random texts, and how each request ended."""
    texts = _robust_texts()
    voices = [SPEAKERS[index % len(SPEAKERS)] for index in range(len(texts))]
    requests = [
        stretto.SpeechRequest(text=text, voice=voice, seed=index)
        for index, (text, voice) in enumerate(zip(texts, voices, strict=True))
    ]
    results = engine.generate(requests)
    ratios = []
    for text, voice, result in zip(texts, voices, results, strict=True):
        ratios.append(len(result.audio) / len(speak(text, voice)))
    outside = [
        (text, voice, round(ratio, 3), str(result.finish_reason))
        for text, voice, ratio, result in zip(texts, voices, ratios, results, strict=True)
        if not 0.75 <= ratio <= 1.35
    ]
    reasons = [str(result.finish_reason) for result in results]
    return {
        "texts": len(texts),
        "finish_reasons": {reason: reasons.count(reason) for reason in set(reasons)},
        "ratio_quantiles": np.quantile(ratios, (0, 0.01, 0.5, 0.99, 1)).round(3).tolist(),
        "outside": outside,
    }


def _edges(samples: Samples, level: float = 0.003) -> tuple[float, float]:
    """Seconds below ``level`` at the beginning and at the end."""
    loud = np.flatnonzero(np.abs(samples) > level)
    if not len(loud):
        return len(samples) / SAMPLE_RATE, 0.0
    return loud[0] / SAMPLE_RATE, (len(samples) - 1 - loud[-1]) / SAMPLE_RATE


def cleanliness(engine: stretto.SpeechEngine, voice: str) -> dict[str, object]:
    """Peak, level over the sentences, silence at the ends, and steps at streamed chunk joins."""
    texts = sentences("test")[:20]
    audio = engine_audio(engine, texts, voice)
    levels = [20 * np.log10(np.sqrt(np.mean(samples**2)) + 1e-9) for samples in audio]
    edges = np.array([_edges(samples) for samples in audio])
    request = stretto.SpeechRequest(text=f"{texts[0]}.", voice=voice, seed=0)
    chunks = [chunk.audio for chunk in engine.stream(request)]
    joined = np.concatenate(chunks)
    whole = engine.generate([request])[0].audio
    return {
        "peak": float(max(np.abs(samples).max() for samples in audio)),
        "level_db": [round(float(np.mean(levels)), 2), round(float(np.std(levels)), 2)],
        "silence_begin_s": [round(float(x), 3) for x in (edges[:, 0].min(), edges[:, 0].max())],
        "silence_end_s": [round(float(x), 3) for x in (edges[:, 1].min(), edges[:, 1].max())],
        "chunks": len(chunks),
        "streamed_equals_whole": float(np.abs(joined - whole).max())
        if len(joined) == len(whole)
        else None,
    }


def evaluate(model: str, parts: Sequence[str], voices: Sequence[str], out: Path) -> None:
    """Measure ``parts`` of ``voices``, each written into the JSON of ``out`` once it is known.

    The source voices' hearing is taken from ``out`` where it is already there.
    """
    report: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}

    def note(name: str, make: Callable[[], object]) -> None:
        report[name] = make()
        out.write_text(json.dumps(report, indent=1) + "\n")

    texts = sentences("test")
    for voice in voices:
        if f"source {voice}" not in report:
            note(f"source {voice}", partial(source_hearing, voice, texts))
    if parts == ["source"]:
        return
    with stretto.SpeechEngine(model=model) as engine:
        for voice in voices:
            source = report[f"source {voice}"]
            makers: dict[str, Callable[[], object]] = {
                "hearing": partial(engine_hearing, engine, voice, texts, source),
                "words": partial(single_words, engine, voice),
                "clean": partial(cleanliness, engine, voice),
            }
            for part in (part for part in makers if part in parts):
                note(f"{part} {voice}", makers[part])
        if "robust" in parts:
            note("robust", partial(robustness, engine))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS), help="or: source")
    parser.add_argument("--voices", default=",".join(SPEAKERS))
    options = parser.parse_args()
    evaluate(options.model, options.parts.split(","), options.voices.split(","), options.out)


if __name__ == "__main__":
    main()

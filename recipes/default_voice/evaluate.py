"""Measures a checkpoint through the real engine, beside the source voices: hearing, length, ends.

    python -m recipes.default_voice.evaluate --model assets/default --out report.json

The sentences of ``sentences/test.txt`` and ``test2.txt`` are looked at for reporting only;
checkpoints and the sampling temperature are chosen on ``sentences/dev.txt``. Each list has its own
language model and grammar; the lists are also pooled, which narrows the interval of the gap. No
human listens here: word error rates say nothing about naturalness.
"""

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import stretto

from .data import SAMPLE_RATE, SPEAKERS, speak
from .pronunciations import dictionary_words, listed_names
from .recogniser import Recogniser, bootstrap_interval, plain, word_errors
from .text import TextGenerator

__all__ = ["PARTS", "TEST_SETS", "Hearing", "evaluate", "pooled_hearing", "sentences"]

Samples = npt.NDArray[np.float32]
_FOLDER = Path(__file__).parent / "sentences"
_ROBUST_TEXTS = 500
_SINGLE_WORDS = 100
_CONTROLS = 12
PARTS = ("hearing", "words", "clean", "robust")
TEST_SETS = ("test", "test2")


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
    """Sentences of ``dev`` or of one of the test sets, without a final mark."""
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


def source_hearing(voice: str, name: str) -> dict[str, Any]:
    """What is heard of the source voice in one test set."""
    texts = sentences(name)
    return asdict(hear(Recogniser(texts), texts, source_audio(texts, voice), free=True))


def engine_hearing(
    engine: stretto.SpeechEngine, voice: str, name: str, source: Mapping[str, Any]
) -> dict[str, Any]:
    """What is heard of the engine, against ``source``, with the controls that must fail."""
    texts = sentences(name)
    recogniser = Recogniser(texts)
    spoken = engine_audio(engine, texts, voice)
    heard = asdict(hear(recogniser, texts, spoken, free=True))
    levelled = _levelled(source_audio(texts, voice), spoken)
    few = slice(0, _CONTROLS)
    controls = {"reversed": _reversed(spoken[few]), "shuffled": list(_shuffled(spoken[few]))}
    return {
        "engine": heard,
        "levelled_source": asdict(hear(recogniser, texts, levelled, free=False)),
        **_free_gap(heard["free_errors"], source["free_errors"], texts),
        "controls": {
            name: asdict(hear(recogniser, texts[few], audio, free=False))
            for name, audio in controls.items()
        },
    }


def _free_gap(
    ours: Sequence[int], theirs: Sequence[int], texts: Sequence[str]
) -> dict[str, object]:
    """Difference of the free word error rates with its paired bootstrap interval."""
    gap = [float(a - b) for a, b in zip(ours, theirs, strict=True)]
    weights = [float(len(plain(text))) for text in texts]
    return {
        "free_gap": sum(gap) / sum(weights),
        "free_gap_interval": bootstrap_interval(gap, weights),
    }


def pooled_hearing(
    sources: Mapping[str, Mapping[str, Any]], engines: Mapping[str, Mapping[str, Any]]
) -> dict[str, object]:
    """Both hearings over several test sets as one, each set heard on its own, by its name."""
    texts = [text for name in sources for text in sentences(name)]
    ours = [engines[name]["engine"] for name in sources]
    theirs = list(sources.values())
    free = [[error for part in parts for error in part["free_errors"]] for parts in (ours, theirs)]
    return {
        "source": _pooled(theirs),
        "engine": _pooled(ours),
        "levelled_source_choice": sum(
            engines[name]["levelled_source"]["choice"] * len(sentences(name)) for name in sources
        )
        / len(texts),
        **_free_gap(free[0], free[1], texts),
    }


def _pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    words = sum(part["words"] for part in parts)
    counts = [len(part["free_errors"]) for part in parts]
    right = sum(part["choice"] * count for part, count in zip(parts, counts, strict=True))
    errors = sum(part["language_model"] * part["words"] for part in parts)
    return {
        "words": words,
        "sentences": sum(counts),
        "language_model": errors / words,
        "choice": right / sum(counts),
        "free": sum(sum(part["free_errors"]) for part in parts) / words,
    }


def _single_words(name: str) -> list[str]:
    """100 words of a test set of more than 3 letters; of the second, words the first lacks."""
    pools = [
        {word for text in sentences(part) for word in plain(text) if len(word) > 3}
        for part in TEST_SETS[: TEST_SETS.index(name) + 1]
    ]
    return random.Random(1).sample(sorted(pools[-1].difference(*pools[:-1])), _SINGLE_WORDS)


def single_words(engine: stretto.SpeechEngine, voice: str, name: str) -> dict[str, float]:
    """Share of single everyday words chosen right by a grammar of them, engine and source."""
    texts = _single_words(name)
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


class _Report:
    """A JSON file that is written whenever one more measurement is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def note(self, name: str, value: object) -> None:
        self.known[name] = value
        self._path.write_text(json.dumps(self.known, indent=1) + "\n")


def _note_hearing(report: _Report, engine: stretto.SpeechEngine, voice: str) -> None:
    sources = {name: report.known[f"source {voice} {name}"] for name in TEST_SETS}
    heard = {}
    for name, source in sources.items():
        heard[name] = engine_hearing(engine, voice, name, source)
        report.note(f"hearing {voice} {name}", heard[name])
    report.note(f"hearing {voice} pooled", pooled_hearing(sources, heard))


def evaluate(model: str, parts: Sequence[str], voices: Sequence[str], out: Path) -> None:
    """Measure ``parts`` of ``voices``, each written into the JSON of ``out`` once it is known.

    The source voices' hearing is taken from ``out`` where it is already there.
    """
    report = _Report(out)
    for voice, name in product(voices, TEST_SETS):
        if f"source {voice} {name}" not in report.known:
            report.note(f"source {voice} {name}", source_hearing(voice, name))
    if parts == ["source"]:
        return
    with stretto.SpeechEngine(model=model) as engine:
        for voice in voices:
            if "hearing" in parts:
                _note_hearing(report, engine, voice)
            for name in TEST_SETS if "words" in parts else ():
                report.note(f"words {voice} {name}", single_words(engine, voice, name))
            if "clean" in parts:
                report.note(f"clean {voice}", cleanliness(engine, voice))
        if "robust" in parts:
            report.note("robust", robustness(engine))


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

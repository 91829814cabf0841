"""One command from nothing to the shipped voice; every stage goes on where it was interrupted.

    python -m recipes.default_voice.make --out assets/default --work DIR --minutes 180

The vocoder and the speech model need only the frozen codes, so they train beside each other, in two
processes of half the cores each.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stretto.model_executor.frontends.lexicon import save_lexicon

from .codec import code_usage, encode_all, train_codec
from .data import GENERAL, SHORT, SPEAKERS, Corpus, Utterance, load_shards, make_shards
from .evaluate import PARTS, evaluate
from .export import duration_guard, export, load_for_export, voice_gains
from .pronunciations import build_lexicon
from .train_gpt import FIRST_PHASE, SECOND_PHASE, Source, train_gpt
from .vocoder import train_vocoder

__all__ = ["SAMPLING", "make"]

SAMPLING = {"temperature": 0.7, "top_p": 0.8, "top_k": 30, "repetition_penalty": 1.0}
"""Chosen on the development sentences with the shipped weights."""

_HELD_BACK = 300
_SHORT_SHARE = 0.3
_SHARES = {"codec": 0.04, "vocoder": 0.25, "first phase": 0.39, "second phase": 0.195}
"""Of the minutes, the vocoder's beside the two phases. The other stages take what they take."""

_Codes = list[npt.NDArray[np.int16]]


@contextmanager
def _stage(name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"stage {name}: {(time.monotonic() - begin) / 60:.1f} min", flush=True)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _make_codes(work: Path, corpora: Sequence[Corpus], minutes: float) -> None:
    """Train the codec on the first corpus and freeze the codes of all."""
    for corpus in corpora:
        utterances = load_shards(work / "data", corpus)
        codec = train_codec(utterances, work / "codec.pt", minutes, _device())
        path = _codes_path(work, corpus)
        if path.exists():
            continue
        codes = encode_all(codec, utterances, _device())
        for book, (used, bits) in enumerate(code_usage(codes, 625)):
            print(f"{corpus.name}, codebook {book}: {used} codes, {bits:.2f} bits", flush=True)
        np.save(path, np.concatenate(codes))


def _codes_path(work: Path, corpus: Corpus) -> Path:
    return work / f"codes-{corpus.name}.npy"


def _load(work: Path, corpus: Corpus, *, audio: bool) -> tuple[list[Utterance], _Codes]:
    """Utterances and their codes; of the first corpus the last few are never trained on."""
    utterances = load_shards(work / "data", corpus, audio=audio)
    ends = np.cumsum([len(utterance.alignment) for utterance in utterances])
    codes = np.split(np.load(_codes_path(work, corpus)), ends[:-1])
    used = len(utterances) - (_HELD_BACK if corpus.name == GENERAL.name else 0)
    return utterances[:used], codes[:used]


def _train_speech_model(work: Path, corpora: Sequence[Corpus], minutes: float) -> None:
    general, short = (Source(*_load(work, corpus, audio=False)) for corpus in corpora)
    with _stage("speech model, first phase"):
        share = minutes * _SHARES["first phase"]
        train_gpt([general], work / "gpt.pt", share, _device(), FIRST_PHASE)
    mixed = [
        Source(general.utterances, general.codes, 1 - _SHORT_SHARE),
        Source(short.utterances, short.codes, _SHORT_SHARE),
    ]
    with _stage("speech model, second phase"):
        path, share = work / "gpt-tuned.pt", minutes * _SHARES["second phase"]
        train_gpt(mixed, path, share, _device(), SECOND_PHASE, work / "gpt.pt")


def _train_vocoder(out: Path, work: Path, corpus: Corpus, minutes: float, threads: int) -> None:
    """What runs beside the speech model: the vocoder, then all that needs no speech model."""
    torch.set_num_threads(threads)
    with _stage("vocoder"):
        utterances, codes = _load(work, corpus, audio=True)
        decoder = train_codec(utterances, work / "codec.pt", 0, _device()).decoder
        share = minutes * _SHARES["vocoder"]
        train_vocoder(utterances, codes, decoder, work / "vocoder.pt", share, _device())
    with _stage("letter to sound"):
        _make_letter_to_sound(out / "letter_to_sound.safetensors")
    with _stage("hearing of the source voices"):
        evaluate(str(out), ["source"], SPEAKERS, work / "report.json")


def _make_letter_to_sound(path: Path) -> None:
    if not path.exists():
        command = [sys.executable, "-m", "recipes.letter_to_sound", "--out", str(path)]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        subprocess.run(command, check=True, env={**os.environ, **threads})


def _train_both(out: Path, work: Path, corpora: Sequence[Corpus], minutes: float) -> None:
    threads = max(1, (os.cpu_count() or 1) // 2)
    beside = get_context("spawn").Process(
        target=_train_vocoder, args=(out, work, corpora[0], minutes, threads)
    )
    beside.start()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    _train_speech_model(work, corpora, minutes)
    beside.join()
    torch.set_num_threads(before)
    if beside.exitcode:
        raise RuntimeError(f"the vocoder's process ended with status {beside.exitcode}")


def make(
    out: Path, work: Path, minutes: float, corpora: tuple[Corpus, Corpus] = (GENERAL, SHORT)
) -> None:
    """All stages; on a CUDA device the same minutes see several times the data."""
    work.mkdir(parents=True, exist_ok=True)
    with _stage("lexicon"):
        out.mkdir(parents=True, exist_ok=True)
        save_lexicon(out / "lexicon.txt.xz", build_lexicon())
    with _stage("text, synthesis and alignment"):
        for corpus in corpora:
            make_shards(work / "data", corpus)
    with _stage("codec and codes"):
        _make_codes(work, corpora, minutes * _SHARES["codec"])
    with _stage("vocoder beside speech model"):
        _train_both(out, work, corpora, minutes)
    with _stage("export"):
        training, _ = _load(work, corpora[0], audio=True)
        guard, gains = duration_guard(training), voice_gains(training)
        export(*load_for_export(work), SAMPLING, guard, gains, out)
    with _stage("evaluation"):
        evaluate(str(out), PARTS, SPEAKERS, work / "report.json")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=180)
    options = parser.parse_args()
    make(options.out, options.work, options.minutes)


if __name__ == "__main__":
    main()

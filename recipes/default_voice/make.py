"""One command from nothing to the shipped voice; every stage goes on where it was interrupted.

python -m recipes.default_voice.make --out assets/default --work DIR --minutes 180
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stretto.model_executor.frontends.lexicon import save_lexicon

from .codec import code_usage, encode_all, train_codec
from .data import SPEAKERS, Utterance, load_shards, make_shards
from .evaluate import PARTS, evaluate
from .export import duration_guard, export, load_for_export, voice_gains
from .pronunciations import build_lexicon
from .train_gpt import train_gpt
from .vocoder import train_vocoder

__all__ = ["SAMPLING", "main"]

SAMPLING = {"temperature": 0.5, "top_p": 0.8, "top_k": 30, "repetition_penalty": 1.0}
"""Chosen on the development sentences with the shipped weights."""

_SHARDS = 52
_HELD_BACK = 300
_SHARES = {"codec": 0.04, "vocoder": 0.25, "gpt": 0.39}
"""Of the minutes. Of 180, 57 are left for the stages that take what they take, about 50."""


@contextmanager
def _stage(name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"stage {name}: {(time.monotonic() - begin) / 60:.1f} min", flush=True)


def _codes(
    utterances: list[Utterance], codec_path: Path, path: Path, minutes: float, device: torch.device
) -> list[npt.NDArray[np.int16]]:
    """The frozen codes of every utterance, from ``path`` or from the trained codec."""
    codec = train_codec(utterances, codec_path, minutes, device)
    if not path.exists():
        codes = encode_all(codec, utterances, device)
        for book, (used, bits) in enumerate(code_usage(codes, 625)):
            print(f"codebook {book}: {used} codes used, {bits:.2f} bits", flush=True)
        np.save(path, np.concatenate(codes))
    ends = np.cumsum([len(utterance.alignment) for utterance in utterances])
    return np.split(np.load(path), ends[:-1])


def _make_letter_to_sound(path: Path) -> None:
    if not path.exists():
        command = [sys.executable, "-m", "recipes.letter_to_sound", "--out", str(path)]
        subprocess.run(command, check=True)


def make(out: Path, work: Path, minutes: float) -> None:
    """All stages; on a CUDA device the same minutes see several times the data."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work.mkdir(parents=True, exist_ok=True)
    with _stage("lexicon"):
        out.mkdir(parents=True, exist_ok=True)
        save_lexicon(out / "lexicon.txt.xz", build_lexicon())
    with _stage("text, synthesis and alignment"):
        make_shards(work / "data", _SHARDS)
        utterances = load_shards(work / "data")
    with _stage("codec"):
        share = minutes * _SHARES["codec"]
        codes = _codes(utterances, work / "codec.pt", work / "codes.npy", share, device)
    training = utterances[:-_HELD_BACK], codes[:-_HELD_BACK]
    with _stage("vocoder"):
        decoder = train_codec(utterances, work / "codec.pt", 0, device).decoder
        path, share = work / "vocoder.pt", minutes * _SHARES["vocoder"]
        train_vocoder(*training, decoder, path, share, device)
    with _stage("speech model"):
        train_gpt(*training, work / "gpt.pt", minutes * _SHARES["gpt"], device)
    with _stage("export"):
        guard, gains = duration_guard(training[0]), voice_gains(training[0])
        export(*load_for_export(work), SAMPLING, guard, gains, out)
    with _stage("letter to sound"):
        _make_letter_to_sound(out / "letter_to_sound.safetensors")
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

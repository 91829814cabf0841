"""What the harness asks to be spoken: text sets that ship with it, or a file.

A set is drawn by a seeded generator, so a seed names a workload. The shipped sentences were written
for this project. Longer texts are made by joining sentences up to a length drawn from a log-normal
distribution, which is how the lengths of real requests look. Nothing here sends requests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

LANGUAGES = ("en", "zh")
_GOLDEN = (5**0.5 - 1) / 2
_CHARS = {"en": 1.0, "zh": 0.35}  # characters that take as long to say as one English one


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Log-normal length of a text, in characters of English.

    Attributes:
        median: half the texts are shorter.
        sigma: spread of the logarithm; 0 makes all of one length.
        maximum: longer draws are cut to it.
    """

    median: float
    sigma: float = 0.5
    maximum: float = 4000.0

    def draw(self, rng: np.random.Generator) -> float:
        """One length."""
        return min(float(rng.lognormal(np.log(self.median), self.sigma)), self.maximum)


LENGTHS = {
    "short": LengthDistribution(25.0, 0.4),
    "medium": LengthDistribution(90.0, 0.5),
    "long": LengthDistribution(400.0, 0.5),
    "mixed": LengthDistribution(90.0, 1.0),
}
TEXT_SETS = tuple(f"{language}-{size}" for language in (*LANGUAGES, "all") for size in LENGTHS)


@cache
def sentences(language: str) -> tuple[str, ...]:
    """The shipped sentences of a language, shortest first."""
    text = (files(__package__) / "texts" / f"{language}.txt").read_text(encoding="utf-8")
    return tuple(sorted((line for line in text.splitlines() if line), key=len))


def _compose(language: str, length: float, rng: np.random.Generator) -> str:
    """Join sentences until about `length` characters of English are reached."""
    pool = sentences(language)
    wanted = max(length * _CHARS[language], 1.0)
    joiner = " " if language == "en" else ""
    text = ""
    while len(text) < wanted * 0.85:
        room = wanted - len(text)
        fitting = [line for line in pool if 0.4 * room <= len(line) <= 1.2 * room]
        fitting = fitting or ([pool[0]] if len(pool[0]) > room else list(pool[len(pool) // 2 :]))
        line = fitting[int(rng.integers(len(fitting)))]
        text = f"{text}{joiner}{line}" if text else line
    return text


def generate_texts(name: str, count: int, seed: int) -> list[str]:
    """`count` texts of a shipped set (`en-short`, `zh-long`, `all-mixed`, ...).

    Raises:
        ValueError: no such set.
    """
    if name not in TEXT_SETS:
        raise ValueError(
            f"unknown text set {name!r}; choose from {', '.join(TEXT_SETS)}, or a file"
        )
    language, size = name.split("-")
    rng = np.random.default_rng(seed)
    languages = LANGUAGES if language == "all" else (language,)
    drawn = [languages[int(rng.integers(len(languages)))] for _ in range(count)]
    return [_compose(one, LENGTHS[size].draw(rng), rng) for one in drawn]


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if path.suffix in (".jsonl", ".ndjson"):
        lines = [_text_of(json.loads(line), path) for line in lines]
    if not lines:
        raise ValueError(f"{path} holds no text")
    return lines


def _text_of(item: object, path: Path) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        for key in ("input", "text", "prompt"):
            if isinstance(item.get(key), str):
                return str(item[key])
    raise ValueError(f"{path}: each line must be a string or have an 'input', 'text' or 'prompt'")


def load_texts(source: str, count: int, seed: int) -> list[str]:
    """`count` texts from a shipped set or a file (one text a line, or JSON lines).

    A file's lines are shuffled by the seed and repeated as needed.

    Raises:
        ValueError: neither a set nor a readable file with texts in it.
    """
    path = Path(source)
    if source in TEXT_SETS or not path.is_file():
        return generate_texts(source, count, seed)
    lines = _lines(path)
    order = np.random.default_rng(seed).permutation(len(lines))
    return [lines[order[index % len(lines)]] for index in range(count)]


def spread_frames(longest: int, index: int) -> int:
    """Frames of request `index` of a load with fixed lengths, from a quarter of `longest` to all.

    Multiples of the golden ratio fill the range evenly, wherever the indices begin and end.
    """
    shortest = max(longest // 4, 1)
    return shortest + int((index * _GOLDEN) % 1.0 * (longest - shortest + 1))

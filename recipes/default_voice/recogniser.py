"""What pocketsphinx hears: free decoding, a language model of the sentences, a grammar of them.

All three use the acoustic model in pocketsphinx's own wheel. The language model is a trigram with
Witten-Bell back-off (Chen & Goodman 1999) over the given sentences only.
"""

import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pocketsphinx
import soxr

__all__ = ["Recogniser", "bootstrap_interval", "plain", "word_errors"]

_RATE = 16_000
_Gram = tuple[str, ...]


def plain(sentence: str) -> list[str]:
    """Words of a sentence without its marks."""
    return "".join(char for char in sentence.lower() if char not in ",.;:?!").split()


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            step = min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
            previous, row[j] = row[j], step
    return row[-1]


def bootstrap_interval(
    differences: Sequence[float], weights: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """95 % interval of sum(differences) / sum(weights), resampling sentences."""
    random = np.random.default_rng(seed)
    draws = random.integers(len(differences), size=(4000, len(differences)))
    ratio = np.asarray(differences)[draws].sum(1) / np.asarray(weights)[draws].sum(1)
    low, high = np.quantile(ratio, (0.025, 0.975))
    return float(low), float(high)


def _counts(sentences: Sequence[Sequence[str]]) -> list[dict[_Gram, Counter[str]]]:
    tables: list[dict[_Gram, Counter[str]]] = [defaultdict(Counter) for _ in range(3)]
    for words in sentences:
        padded = ["<s>", *words, "</s>"]
        for place in range(1, len(padded)):
            for order in range(min(3, place + 1)):
                tables[order][tuple(padded[place - order : place])][padded[place]] += 1
    return tables


def _probability(tables: list[dict[_Gram, Counter[str]]], context: _Gram, word: str) -> float:
    counter = tables[len(context)].get(context)
    if counter is None:
        return _probability(tables, context[1:], word)
    total, kinds = sum(counter.values()), len(counter)
    if not context:
        return (counter[word] + 1) / (total + kinds)
    lower = _probability(tables, context[1:], word)
    return (counter[word] + kinds * lower) / (total + kinds)


def _arpa(sentences: Sequence[Sequence[str]]) -> str:
    tables = _counts(sentences)
    sections: list[list[str]] = [["-99\t<s>\t" + _back_off(tables, ("<s>",))], [], []]
    for order, table in enumerate(tables):
        for context, counter in sorted(table.items()):
            for word in sorted(counter):
                log = math.log10(_probability(tables, context, word))
                gram = (*context, word)
                tail = "" if order == 2 else "\t" + _back_off(tables, gram)
                sections[order].append(f"{log:.5f}\t{' '.join(gram)}{tail}")
    head = [f"ngram {order + 1}={len(lines)}" for order, lines in enumerate(sections)]
    parts = ["\\data\\", *head]
    for order, lines in enumerate(sections):
        parts += ["", f"\\{order + 1}-grams:", *lines]
    return "\n".join([*parts, "", "\\end\\", ""])


def _back_off(tables: list[dict[_Gram, Counter[str]]], gram: _Gram) -> str:
    counter = tables[len(gram)].get(gram)
    if counter is None:
        return "0.00000"
    return f"{math.log10(len(counter) / (sum(counter.values()) + len(counter))):.5f}"


class Recogniser:
    """One decoder each for free speech, the sentences' language model, and their grammar.

    Each is made when it is first needed.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        words = [plain(sentence) for sentence in sentences]
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "sentences.arpa").write_text(_arpa(words))
        choices = " | ".join(" ".join(sentence) for sentence in words)
        (folder / "sentences.gram").write_text(
            f"#JSGF V1.0;\ngrammar sentences;\npublic <sentence> = {choices};\n"
        )

    @cached_property
    def _free(self) -> pocketsphinx.Decoder:
        return self._decoder(lm=pocketsphinx.get_model_path("en-us/en-us.lm.bin"))

    @cached_property
    def _model(self) -> pocketsphinx.Decoder:
        return self._decoder(lm=str(Path(self._folder.name) / "sentences.arpa"))

    @cached_property
    def _grammar(self) -> pocketsphinx.Decoder:
        return self._decoder(jsgf=str(Path(self._folder.name) / "sentences.gram"))

    @staticmethod
    def _decoder(**options: str) -> pocketsphinx.Decoder:
        return pocketsphinx.Decoder(samprate=_RATE, loglevel="FATAL", **options)

    def free(self, samples: npt.NDArray[np.float32], rate: int) -> list[str]:
        """Words heard with the general language model; samples [n] in [-1, 1]."""
        return _decode(self._free, samples, rate)

    def with_language_model(self, samples: npt.NDArray[np.float32], rate: int) -> list[str]:
        """Words heard with the sentences' language model."""
        return _decode(self._model, samples, rate)

    def choice(self, samples: npt.NDArray[np.float32], rate: int) -> list[str]:
        """The sentence chosen by the grammar, as words; empty if none fits."""
        return _decode(self._grammar, samples, rate)


def _decode(
    decoder: pocketsphinx.Decoder, samples: npt.NDArray[np.float32], rate: int
) -> list[str]:
    """A fresh utterance between 0.25 s of silence, with the decoder's adaptation reset."""
    resampled = soxr.resample(samples, rate, _RATE) if rate != _RATE else samples
    padded = np.pad(resampled, _RATE // 4)
    dither = np.random.default_rng(0).normal(0, 1, len(padded))
    pcm = np.clip(padded * 32767 + dither, -32768, 32767).astype(np.int16)
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return [] if hypothesis is None else plain(hypothesis.hypstr)

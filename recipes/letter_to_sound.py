"""Train the letter-to-sound network of the default voice from its own lexicon.

    python -m recipes.letter_to_sound --out assets/default/letter_to_sound.safetensors

Letters are aligned with phones by expectation maximisation (hard, Viterbi), then the network
learns each letter's group of phones. Words are split by their first four letters, so that no form
of a held-out word is trained on; the held-out words measure the result and are never trained on,
not even for the shipped file. About ten minutes on one quiet core; deterministic on one machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stretto.model_executor.frontends.letter_to_sound import (
    ALPHABET,
    LetterNetwork,
    LetterToSound,
    letter_ids,
)
from stretto.model_executor.frontends.lexicon import Lexicon, load_lexicon

__all__ = ["Accuracy", "align", "evaluate", "is_held_out", "trainable_words"]

Group = tuple[str, ...]
Pair = tuple[str, Group]
Entries = dict[str, tuple[str, ...]]

LEXICON = Path(__file__).parents[1] / "assets" / "default" / "lexicon.txt.xz"
_MAX_GROUP = 3
_NULL_PRICE = 8.0
_MIN_GROUP_COUNT = 8
_WIDTH, _BATCH, _EPOCHS, _PEAK_RATE = 112, 192, 13, 5e-3


class Accuracy:
    """Share of words that are right, and phone errors per phone, with stress and without."""

    def __init__(self) -> None:
        self.words = self.right = self.right_unstressed = 0
        self.phones = self.errors = self.errors_unstressed = 0

    def add(self, spoken: Sequence[str], wanted: Sequence[str]) -> None:
        """Count one word."""
        bare = [phone.rstrip("01") for phone in spoken], [phone.rstrip("01") for phone in wanted]
        errors, bare_errors = edit_distance(spoken, wanted), edit_distance(*bare)
        self.words += 1
        self.right += errors == 0
        self.right_unstressed += bare_errors == 0
        self.phones += len(wanted)
        self.errors += errors
        self.errors_unstressed += bare_errors

    def __str__(self) -> str:
        return (
            f"{self.words} words: phones right {1 - self.errors / self.phones:.4f} "
            f"(without stress {1 - self.errors_unstressed / self.phones:.4f}), "
            f"words right {self.right / self.words:.4f} "
            f"(without stress {self.right_unstressed / self.words:.4f})"
        )


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(right) + 1))
    for index, item in enumerate(left, start=1):
        previous, row[0] = row[0], index
        for place, other in enumerate(right, start=1):
            cost = min(row[place] + 1, row[place - 1] + 1, previous + (item != other))
            previous, row[place] = row[place], cost
    return row[-1]


def is_held_out(word: str) -> bool:
    """One word family in twenty, by the word's first four letters."""
    return zlib.crc32(word[:4].encode()) % 20 == 0


def trainable_words(lexicon: Lexicon) -> Entries:
    """Words with letters enough for their phones; single letters are names, not readings."""
    entries = {word: lexicon.get(word) or () for word in lexicon if len(word) > 1}
    return {word: phones for word, phones in entries.items() if 0 < len(phones) <= 3 * len(word)}


def _prices(counts: Counter[Pair]) -> dict[str, dict[Group, float]]:
    totals: Counter[str] = Counter()
    for (letter, _), count in counts.items():
        totals[letter] += count
    prices: dict[str, dict[Group, float]] = defaultdict(dict)
    for (letter, group), count in counts.items():
        prices[letter][group] = math.log(totals[letter] / count)
    return prices


def _best_path(
    word: str, phones: Sequence[str], prices: dict[str, dict[Group, float]]
) -> list[Group]:
    """Groups of phones, one a letter, at the lowest total price."""
    size = len(phones)
    costs = [0.0] + [math.inf] * size
    steps: list[list[int]] = []
    for letter in word:
        known = prices.get(letter, {})
        fresh, taken = [math.inf] * (size + 1), [0] * (size + 1)
        for start, cost in enumerate(costs):
            if cost == math.inf:
                continue
            for length in range(min(_MAX_GROUP, size - start) + 1):
                group = tuple(phones[start : start + length])
                total = cost + known.get(group, _NULL_PRICE + 6.0 * length)
                if total < fresh[start + length]:
                    fresh[start + length], taken[start + length] = total, length
        costs = fresh
        steps.append(taken)
    groups, end = [], size
    for taken in reversed(steps):
        groups.append(tuple(phones[end - taken[end] : end]))
        end -= taken[end]
    return groups[::-1]


def _even_split(word: str, phones: Sequence[str]) -> list[Group]:
    edges = [round(index * len(phones) / len(word)) for index in range(len(word) + 1)]
    return [tuple(phones[a:b]) for a, b in pairwise(edges)]


def align(entries: Entries, rounds: int = 6) -> dict[str, list[Group]]:
    """The phones of every letter of every word."""
    aligned = {word: _even_split(word, phones) for word, phones in entries.items()}
    for _ in range(rounds):
        counts: Counter[Pair] = Counter()
        for word, groups in aligned.items():
            counts.update(zip(word, groups, strict=True))
        prices = _prices(counts)
        aligned = {word: _best_path(word, phones, prices) for word, phones in entries.items()}
    return aligned


def _vocabulary(aligned: dict[str, list[Group]]) -> list[Group]:
    counts = Counter(group for groups in aligned.values() for group in groups)
    return [group for group, count in counts.most_common() if count >= _MIN_GROUP_COUNT]


def _batches(
    aligned: dict[str, list[Group]], ids: dict[Group, int], generator: torch.Generator
) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    words = [word for word, groups in aligned.items() if all(group in ids for group in groups)]
    order = torch.randperm(len(words), generator=generator).tolist()
    for start in range(0, len(order), _BATCH):
        chosen = [words[index] for index in order[start : start + _BATCH]]
        lengths = torch.tensor([len(word) for word in chosen])
        letters = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
        targets = torch.full_like(letters, -1)
        for row, word in enumerate(chosen):
            letters[row, : len(word)] = torch.tensor(letter_ids(word))
            targets[row, : len(word)] = torch.tensor([ids[group] for group in aligned[word]])
        yield letters, lengths, targets


def train(aligned: dict[str, list[Group]], groups: Sequence[Group]) -> LetterNetwork:
    """Fit a network; prints the loss of every epoch."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = LetterNetwork(len(groups), _WIDTH)
    ids = {group: index for index, group in enumerate(groups)}
    optimizer = torch.optim.AdamW(network.parameters(), lr=_PEAK_RATE, weight_decay=0.01)
    num_steps = _EPOCHS * math.ceil(len(aligned) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, num_steps + 1)
    for epoch in range(_EPOCHS):
        losses, started = [], time.monotonic()
        for letters, lengths, targets in _batches(aligned, ids, generator):
            scores = network(letters, lengths)
            loss = nn.functional.cross_entropy(
                scores.flatten(0, 1), targets.flatten(), ignore_index=-1, label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        seconds = time.monotonic() - started
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}, {seconds:.0f} s", flush=True)
    return network


def evaluate(model: LetterToSound, entries: Entries) -> Accuracy:
    """Accuracy on given words."""
    accuracy = Accuracy()
    for word, phones in entries.items():
        accuracy.add(model(word), phones)
    return accuracy


def main() -> None:
    """Align, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    entries = {
        word: phones
        for word, phones in trainable_words(load_lexicon(LEXICON)).items()
        if set(word) <= set(ALPHABET)
    }
    kept = {word: phones for word, phones in entries.items() if not is_held_out(word)}
    aligned = align(kept)
    groups = _vocabulary(aligned)
    print(f"{len(kept)} words, {len(groups)} groups", flush=True)
    network = train(aligned, groups)
    state = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, out, metadata={"groups": json.dumps(groups)})
    held_out = {word: phones for word, phones in entries.items() if is_held_out(word)}
    print(f"held out: {evaluate(LetterToSound.from_file(out), held_out)}", flush=True)
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Phones of English words that no lexicon has: a small network that reads letters.

A bidirectional GRU over the letters of one word gives each letter zero to three phones (the usual
one-letter-to-phones alignment; "x" becomes `k s`, the "e" of "make" nothing). It is trained on the
shipped lexicon by `recipes/letter_to_sound.py`, which also says how often it is right. It knows
nothing of context, acronyms or spelling out: those are decided before it is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...engine.errors import CheckpointError
from .phones import is_vowel

__all__ = ["ALPHABET", "LetterNetwork", "LetterToSound", "letter_ids"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz'"
"""Letters the network reads; id 0 is padding, ids go on from 1 in this order."""

_LETTER_IDS = {letter: index for index, letter in enumerate(ALPHABET, start=1)}
_MAX_LETTERS = 40


def letter_ids(word: str) -> list[int]:
    """Ids of the letters of a lower-case word; others are left out."""
    return [_LETTER_IDS[letter] for letter in word if letter in _LETTER_IDS]


class LetterNetwork(nn.Module):
    """Letters to scores of phone groups.

    Args:
        num_groups: size of the output vocabulary, each entry zero to three phones.
        width: units of each direction of each of the two layers.
    """

    def __init__(self, num_groups: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET) + 1, 32, padding_idx=0)
        self.recurrent = nn.GRU(32, width, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, num_groups)

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Scores [batch, letters, num_groups] of ids [batch, letters] with lengths [batch]."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(letters), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = self.recurrent(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
        scores: Tensor = self.head(padded)
        return scores


class LetterToSound:
    """The trained network with its output vocabulary. Thread-safe; answers are cached.

    Args:
        network: in evaluation mode.
        groups: phones of each output id.
    """

    def __init__(self, network: LetterNetwork, groups: Sequence[tuple[str, ...]]) -> None:
        self._network = network.eval()
        self._groups = tuple(groups)
        self._lock = Lock()
        self._cached = lru_cache(maxsize=4096)(self._predict)

    @classmethod
    def from_file(cls, path: Path) -> LetterToSound:
        """Read a safetensors file whose metadata names the phone groups.

        Raises:
            CheckpointError: missing or malformed.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                groups = [tuple(group) for group in json.loads(file.metadata()["groups"])]
                state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            width = state["head.weight"].shape[1] // 2
            network = LetterNetwork(len(groups), width)
            network.load_state_dict(state)
        except Exception as error:  # the libraries raise many kinds for a broken file
            raise CheckpointError(f"{path} is no letter-to-sound model: {error}") from error
        return cls(network, groups)

    def __call__(self, word: str) -> tuple[str, ...]:
        """Phones of a lower-case word, at least one vowel stressed; empty without letters."""
        return self._cached(word[:_MAX_LETTERS])

    @torch.inference_mode()
    def _predict(self, word: str) -> tuple[str, ...]:
        ids = letter_ids(word)
        if not ids:
            return ()
        with self._lock:
            scores = self._network(torch.tensor([ids]), torch.tensor([len(ids)]))
        choices = scores[0].argmax(-1).tolist()
        return _stressed([phone for choice in choices for phone in self._groups[choice]])


def _stressed(phones: list[str]) -> tuple[str, ...]:
    """Stress the first full vowel of a word that would have no stress at all."""
    if not any(phone.endswith("1") for phone in phones):
        vowels = [index for index, phone in enumerate(phones) if is_vowel(phone)]
        full = [index for index in vowels if phones[index] not in ("ax0", "er0")]
        for index in (full or vowels)[:1]:
            phones[index] = phones[index][:-1] + "1"
    return tuple(phones)

"""`SentenceStream`: text that arrives in pieces, leaving in whole sentences.

A language model's tokens come a few letters at a time; speech needs sentences. sentencex judges
where they end; this holds back what may still grow. Normalising and cutting long sentences is the
model's frontend's work.
"""

from __future__ import annotations

import sentencex

# A name: after an abbreviation ("Dr. ") it continues the sentence, after a full stop it begins one.
_PROBE = "Smith"


class SentenceStream:
    """Collects text and gives back complete sentences."""

    def __init__(self, language: str | None = None) -> None:
        self._language = language
        self._buffer = ""

    @property
    def num_pending(self) -> int:
        """Characters held back."""
        return len(self._buffer)

    def add(self, text: str) -> list[str]:
        """Take a piece of text; return the sentences it completes."""
        self._buffer += text
        pieces = self._split(self._buffer)
        if not pieces:
            return []
        if not self._is_complete(pieces[-1]):
            self._buffer = pieces.pop()
        else:
            self._buffer = ""
        return [piece.strip() for piece in pieces if piece.strip()]

    def finish(self) -> list[str]:
        """Return what is left."""
        rest, self._buffer = self._buffer.strip(), ""
        return [rest] if rest else []

    def _is_complete(self, piece: str) -> bool:
        return piece[-1].isspace() and len(self._split(piece + _PROBE)) > 1

    def _split(self, text: str) -> list[str]:
        language = self._language or ("zh" if any("一" <= c <= "鿿" for c in text) else "en")
        return list(sentencex.segment(language, text))

"""`ResultCache`: the audio of finished requests, bounded in bytes, least recently used first out.

Only requests whose seed is given are kept: of the others each call may rightly sound different.
The key is the whole request but for what does not shape its audio.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ..engine.output import AudioChunk
from ..engine.request import SpeechRequest


def audio_key(request: SpeechRequest) -> SpeechRequest:
    """The part of a request that determines its audio; equal keys, equal audio."""
    return replace(request, priority="interactive", deadline_s=None)


class ResultCache:
    """Finished chunks by request.

    Args:
        max_bytes: bytes of samples kept; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[SpeechRequest, tuple[AudioChunk, ...]] = OrderedDict()
        self.num_bytes = 0

    def can_hold(self, request: SpeechRequest, num_bytes: int) -> bool:
        """Whether the result of this request may be kept at that size."""
        return request.seed is not None and num_bytes <= self._max_bytes and self._max_bytes > 0

    def get(self, key: SpeechRequest) -> tuple[AudioChunk, ...] | None:
        """The chunks of a request, or None."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: SpeechRequest, chunks: Sequence[AudioChunk]) -> None:
        """Keep a finished request's chunks, and let go of the oldest beyond the limit."""
        if not self.can_hold(key, size_of(chunks)) or key in self._entries:
            return
        self._entries[key] = tuple(chunks)
        self.num_bytes += size_of(chunks)
        while self.num_bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.num_bytes -= size_of(dropped)


def size_of(chunks: Sequence[AudioChunk]) -> int:
    """Bytes of samples in chunks."""
    return sum(chunk.audio.nbytes for chunk in chunks)

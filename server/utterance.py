"""`Utterance`: one stream of speech from text that is still being written.

Sentences are spoken through the same synthesizer as any request; a few run ahead of the one being
heard. Sockets and encoding are the session's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace

from ..engine.output import AudioChunk
from ..engine.request import SpeechRequest
from .errors import ApiError
from .sentence_stream import SentenceStream
from .synthesis import Speech, Synthesizer

_AHEAD = 4  # sentences in the engine at once


class Utterance:
    """Text in, chunks out.

    Args:
        template: the request of each sentence, but for its text.
        synthesizer: speaks them.
        max_pending_chars: text that may wait to be spoken.
    """

    def __init__(
        self, template: SpeechRequest, synthesizer: Synthesizer, max_pending_chars: int
    ) -> None:
        self._template = template
        self._synthesizer = synthesizer
        self._max_pending = max_pending_chars
        self._splitter = SentenceStream(template.language)
        self._sentences: deque[str] = deque()
        self._ended = False
        self._changed = asyncio.Event()

    def add(self, text: str) -> None:
        """Append text.

        Raises:
            ApiError: 400; too much text is waiting, or the text has been ended.
        """
        if self._ended:
            raise ApiError(409, "the text was ended by input.done", code="utterance_in_progress")
        waiting = sum(map(len, self._sentences)) + self._splitter.num_pending
        if waiting + len(text) > self._max_pending:
            message = f"more than {self._max_pending} characters wait to be spoken"
            raise ApiError(400, message, param="text", code="string_too_long")
        self._sentences.extend(self._splitter.add(text))
        self._changed.set()

    def end(self) -> None:
        """No more text will come."""
        if not self._ended:
            self._sentences.extend(self._splitter.finish())
            self._ended = True
            self._changed.set()

    async def chunks(self) -> AsyncGenerator[AudioChunk, None]:
        """The audio of all sentences, in order."""
        ahead: deque[Speech] = deque()
        try:
            while True:
                self._start(ahead)
                if ahead:
                    async for chunk in ahead[0]:
                        yield chunk
                        self._start(ahead)
                    ahead.popleft().close()
                elif self._ended:
                    return
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            for speech in ahead:
                speech.close()

    def _start(self, ahead: deque[Speech]) -> None:
        while self._sentences and len(ahead) < _AHEAD:
            request = replace(self._template, text=self._sentences.popleft())
            ahead.append(self._synthesizer.start(request))

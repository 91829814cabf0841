"""From what callers write (a text or a `SpeechRequest`) to a `SpeechRequest` with an id."""

from __future__ import annotations

import uuid
from dataclasses import replace

from .request import Priority, SamplingParams, SpeechRequest, Voice


def new_request_id() -> str:
    """An id that no other request has."""
    return f"speech-{uuid.uuid4().hex}"


def as_request(
    text_or_request: str | SpeechRequest,
    *,
    voice: str | Voice | None = None,
    speed: float | None = None,
    seed: int | None = None,
    sampling: SamplingParams | None = None,
    language: str | None = None,
    priority: Priority | None = None,
) -> SpeechRequest:
    """A request; options that are given override it.

    Raises:
        RequestError: a value is out of range or of the wrong type, or the text is empty.
    """
    if isinstance(text_or_request, SpeechRequest):
        request = text_or_request
    else:
        request = SpeechRequest(text=text_or_request)
    options = {
        "voice": voice,
        "speed": speed,
        "seed": seed,
        "sampling": sampling,
        "language": language,
        "priority": priority,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return replace(request, **given) if given else request  # type: ignore[arg-type]

"""Stretto: a continuous-batching engine for text-to-speech.

Public names only, each imported when it is first used, so that `import stretto` is quick. See
`SpeechEngine` for scripts and `AsyncSpeechEngine` for services.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.async_engine import AsyncSpeechEngine
    from .engine.config import EngineConfig
    from .engine.errors import (
        CheckpointError,
        DeadlineExceededError,
        EngineDeadError,
        OverloadedError,
        RequestError,
        RequestTooLongError,
        StrettoError,
        UnknownModelError,
        UnknownVoiceError,
    )
    from .engine.offline import SpeechEngine
    from .engine.output import AudioChunk, RequestMetrics, SpeechResult
    from .engine.request import SamplingParams, SpeechRequest, Voice

# Read when torch is first imported. OpenMP threads that spin between products keep cores from the
# engine's other threads, and make a loaded machine many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_MODULES = {
    "AsyncSpeechEngine": "async_engine",
    "EngineConfig": "config",
    "CheckpointError": "errors",
    "DeadlineExceededError": "errors",
    "EngineDeadError": "errors",
    "OverloadedError": "errors",
    "RequestError": "errors",
    "RequestTooLongError": "errors",
    "StrettoError": "errors",
    "UnknownModelError": "errors",
    "UnknownVoiceError": "errors",
    "SpeechEngine": "offline",
    "AudioChunk": "output",
    "RequestMetrics": "output",
    "SpeechResult": "output",
    "SamplingParams": "request",
    "SpeechRequest": "request",
    "Voice": "request",
}

__all__ = [
    "AsyncSpeechEngine",
    "AudioChunk",
    "CheckpointError",
    "DeadlineExceededError",
    "EngineConfig",
    "EngineDeadError",
    "OverloadedError",
    "RequestError",
    "RequestMetrics",
    "RequestTooLongError",
    "SamplingParams",
    "SpeechEngine",
    "SpeechRequest",
    "SpeechResult",
    "StrettoError",
    "UnknownModelError",
    "UnknownVoiceError",
    "Voice",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'stretto' has no attribute {name!r}")
    return getattr(import_module(f".engine.{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__

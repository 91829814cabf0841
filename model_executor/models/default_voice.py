"""What the voice in the box declares: ChatTTS's architecture with sizes and sampling of its own.

Its sampling stands in `asset/stretto.json`, because it was chosen with the weights. It reads
phones, not words, so it has no text head and cannot refine.
"""

from __future__ import annotations

from ...engine.errors import CheckpointError
from ..interfaces import SamplingDefaults, SpeechModelSpec
from .chattts import llama_spec
from .checkpoint import Checkpoint


def speech_spec(checkpoint: Checkpoint) -> SpeechModelSpec:
    """The declaration.

    Raises:
        CheckpointError: `asset/stretto.json` lacks the sampling or has a value of a wrong type.
    """
    settings = checkpoint.settings
    try:
        given = settings["sampling"]
        sampling = SamplingDefaults(
            temperature=float(given["temperature"]),
            top_p=float(given["top_p"]),
            top_k=int(given["top_k"]),
            repetition_penalty=float(given["repetition_penalty"]),
            min_new_tokens=int(given.get("min_new_tokens", 0)),
            max_new_tokens=int(settings["max_new_tokens"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        where = checkpoint.asset / "stretto.json"
        raise CheckpointError(f"{where}: missing or malformed sampling: {error!r}") from error
    return llama_spec(checkpoint, sampling)

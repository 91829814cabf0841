"""wetext's normalisation grammars, guarded: cached, locked, and never an exception.

Its grammars read Chinese numbers, dates and units, and English units. Some inputs make its token
parser fail an assertion; then the caller's own rules have to do. Which text is worth asking about
is decided by the callers.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from threading import Lock
from typing import Any

__all__ = ["MAX_VERBALIZE_CHARS", "verbalize", "warm_up"]

MAX_VERBALIZE_CHARS = 600
"""Longer texts are refused: the grammars' time grows faster than the text."""

_logger = logging.getLogger(__name__)
_lock = Lock()


@lru_cache(maxsize=2)
def _normalizer(language: str) -> Any:
    from wetext import Normalizer  # takes half a second, and many requests need no grammar

    return Normalizer(lang=language, operator="tn")


@lru_cache(maxsize=4096)
def verbalize(text: str, language: str) -> str | None:
    """`text` with its digits and symbols in words, or None where the grammar has no answer.

    Args:
        language: `en` or `zh`.
    """
    if not text or len(text) > MAX_VERBALIZE_CHARS:
        return None
    try:
        with _lock:
            return str(_normalizer(language).normalize(text))
    except Exception:  # its parser asserts, and its FST library raises bare RuntimeErrors
        _logger.debug("wetext cannot read %r", text)
        return None


def warm_up() -> None:
    """Load the Chinese grammar now, half a second, so that no request has to."""
    verbalize("1", "zh")

"""English text to words."""

from __future__ import annotations

from .wetext_rules import verbalize

__all__ = ["speak_english"]


def speak_english(run: str) -> str:
    return verbalize(run, "en") or run

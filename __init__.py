"""Stretto: a continuous-batching engine for text-to-speech."""

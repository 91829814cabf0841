"""Frames to waveform."""

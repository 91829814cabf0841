"""Layers shared by speech models."""

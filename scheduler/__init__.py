"""Decides what runs next: sequences, KV blocks, vocoder jobs. Pure Python, no torch, no clock."""

"""Text to prompts: normalisation, segmentation, tokens, voices."""

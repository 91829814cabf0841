"""Speech models, their checkpoints, and the registry of what can be served."""

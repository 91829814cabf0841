"""Parses a `NewSequence` into a `Sequence`: what could never run is refused here, at the edge.

After this the scheduler never meets a sequence that does not fit an empty cache, so every waiting
sequence runs once the others have gone.
"""

from __future__ import annotations

from ..engine.errors import RequestTooLongError
from .interfaces import NewSequence, SchedulerConfig
from .kv_cache import hash_blocks
from .sequence import Sequence


def admit_sequence(new: NewSequence, config: SchedulerConfig, ticket: int) -> Sequence:
    """The scheduler's own record of a sequence.

    Args:
        new: the sequence; its frames are capped to what the model's length leaves.
        config: the limits.
        ticket: order of arrival among equals.

    Raises:
        RequestTooLongError: it could never run, even alone.
        ValueError: it has no position or no frame to compute.
    """
    if new.num_prompt_tokens < 1 or new.max_new_frames < 1:
        raise ValueError(f"sequence {new.seq_id!r} has nothing to compute")
    hashes: list[bytes] = []
    max_new_frames = _cap_frames(new, config)
    if config.enable_prefix_caching:
        hashes = hash_blocks(new.prefix_keys, config.block_size, new.prefix_salt)
    return Sequence(
        seq_id=new.seq_id,
        request_id=new.request_id,
        arrival_time=new.arrival_time,
        segment_index=new.segment_index,
        ticket=ticket,
        priority=new.priority,
        num_prompt_tokens=new.num_prompt_tokens,
        max_new_frames=max_new_frames,
        block_hashes=hashes,
    )


def _cap_frames(new: NewSequence, config: SchedulerConfig) -> int:
    """Frames the sequence may have; the position of the last one is never computed."""
    room = config.max_model_len - new.num_prompt_tokens
    if room < 1:
        raise RequestTooLongError(
            f"the prompt has {new.num_prompt_tokens} positions; the model takes at most "
            f"{config.max_model_len - 1} and needs one for speech",
            param="input",
        )
    frames = min(new.max_new_frames, room)
    needed = -(-(new.num_prompt_tokens + frames - 1) // config.block_size)
    if needed > config.num_blocks:
        raise RequestTooLongError(
            f"the prompt of {new.num_prompt_tokens} positions and up to {frames} frames need "
            f"{needed} KV blocks; the cache has {config.num_blocks}",
            param="input",
        )
    return frames

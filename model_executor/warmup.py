"""Runs every kind of step once, so that nothing is compiled or allocated while a user waits.

Kernels are compiled, and matrix products planned, per number of rows. Warm-up uses the executor's
own interface on throw-away sequences, before the scheduler has given out any block.
"""

from __future__ import annotations

import logging
import time

import numpy as np

from ..scheduler.interfaces import ScheduledSequence, SchedulerOutput, VocoderBatch, VocoderJob
from .interfaces import Executor, Prompt, ResolvedSampling

logger = logging.getLogger(__name__)

_VOCODER_CHUNK = 4  # frames


def warm_up(executor: Executor, max_num_seqs: int, max_num_batched_tokens: int) -> None:
    """One prefill of each size, one decode step of each size, one vocoder batch.

    Args:
        executor: loaded and idle.
        max_num_seqs: sequences in the largest decode step.
        max_num_batched_tokens: positions in the largest step.
    """
    started = time.perf_counter()
    sizes = _decode_sizes(min(max_num_seqs, max_num_batched_tokens))
    names = [f"warmup-{index}" for index in range(sizes[-1])]
    for name in names:
        executor.add_sequence(name, Prompt(token_ids=np.zeros(1, np.int32)), _sampling(executor))
    for size in sizes:
        executor.execute_model(_decode_step(names[:size], step=0))
        executor.execute_model(_decode_step(names[:size], step=1))
    executor.execute_vocoder(_vocoder_batch(names[0]))
    for name in names:
        executor.remove_sequence(name)
    _warm_prefill(executor, max_num_batched_tokens)
    logger.info("warm-up took %.1f s", time.perf_counter() - started)


def _decode_sizes(largest: int) -> list[int]:
    """Every size to 16, then every fourth."""
    sizes = {size for size in range(1, largest + 1) if size <= 16 or size % 4 == 0}
    return sorted(sizes | {largest})


def _decode_step(names: list[str], step: int) -> SchedulerOutput:
    items = tuple(
        ScheduledSequence(
            seq_id=name,
            num_computed_tokens=step,
            num_scheduled_tokens=1,
            block_table=[0],
            first_new_block=0,
            samples=True,
        )
        for name in names
    )
    return SchedulerOutput(items)


def _warm_prefill(executor: Executor, max_num_batched_tokens: int) -> None:
    for length in (32, 128):
        if length > min(max_num_batched_tokens, executor.speech_spec.max_model_len):
            return
        prompt = Prompt(token_ids=np.zeros(length, np.int32))
        executor.add_sequence("warmup", prompt, _sampling(executor))
        item = ScheduledSequence(
            seq_id="warmup",
            num_computed_tokens=0,
            num_scheduled_tokens=length,
            block_table=[0] * length,
            first_new_block=0,
            samples=True,
        )
        executor.execute_model(SchedulerOutput((item,)))
        executor.remove_sequence("warmup")


def _vocoder_batch(name: str) -> VocoderBatch:
    job = VocoderJob(
        seq_id=name, start=0, end=1, window_start=0, window_end=_VOCODER_CHUNK, is_last=False
    )
    return VocoderBatch((job,))


def _sampling(executor: Executor) -> ResolvedSampling:
    defaults = executor.speech_spec.sampling
    return ResolvedSampling(
        temperature=(defaults.temperature,) * executor.speech_spec.num_codebooks,
        top_p=defaults.top_p,
        top_k=defaults.top_k,
        repetition_penalty=defaults.repetition_penalty,
        min_new_tokens=_VOCODER_CHUNK,
        max_new_tokens=_VOCODER_CHUNK,
        seed=0,
    )

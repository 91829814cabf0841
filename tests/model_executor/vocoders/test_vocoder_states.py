"""What the vocoder keeps between the chunks of a stream changes no sample, and is given back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.chain import Chain, Row, Stage, StreamState
from stretto.model_executor.vocoders.layers import FrameConv, Placement
from stretto.model_executor.vocoders.row_layout import Span
from stretto.scheduler.interfaces import VocoderJob
from tests.model_executor.vocoders.vocoder_support import (
    chunk_jobs,
    decode_whole,
    difference_db,
    random_codes,
    random_hidden,
    stream,
)

LENGTH = 150
CPU = torch.device("cpu")


def renamed(job: VocoderJob, seq_id: str) -> VocoderJob:
    return VocoderJob(
        seq_id, job.start, job.end, job.window_start, job.window_end, is_last=job.is_last
    )


def test_interleaved_streams_equal_their_whole_decodes(runner: VocoderRunner) -> None:
    """Streams of both kinds that start, advance and end at different times share launches."""
    sources = [random_hidden(150), random_codes(97), random_hidden(60, 1), random_hidden(3, 2)]
    schedules: list[Iterator[VocoderJob]] = [
        chunk_jobs(len(frames), 1 + index, 11 + 7 * index, 52, 52)
        for index, frames in enumerate(sources)
    ]
    audio: list[list[NDArray[np.float32]]] = [[] for _ in sources]
    turn = 0
    while True:
        batch = []
        for index, schedule in enumerate(schedules):
            if turn >= index and (job := next(schedule, None)) is not None:
                batch.append((index, renamed(job, f"s{index}")))
        if not batch:
            break
        windows = [sources[index][job.window_start : job.window_end] for index, job in batch]
        decoded = runner.decode(windows, [job for _, job in batch])
        for (index, _), samples in zip(batch, decoded, strict=True):
            audio[index].append(samples)
        turn += 1
    for index, frames in enumerate(sources):
        wanted = decode_whole(runner, frames)
        np.testing.assert_allclose(np.concatenate(audio[index]), wanted, atol=1e-5, rtol=0)
    assert runner.num_streams == 0


@pytest.mark.parametrize("lookahead", [4, 16, 30])
def test_smaller_lookahead_does_not_spoil_the_state(runner: VocoderRunner, lookahead: int) -> None:
    """Samples made with too little look-ahead are as good as a fresh window's, never worse."""
    frames = random_hidden(LENGTH)
    whole = decode_whole(runner, frames)
    jobs = list(chunk_jobs(LENGTH, 4, 9, 52, lookahead))
    kept = np.concatenate(stream(runner, frames, jobs))
    fresh = []
    for job in jobs:
        runner.forget(job.seq_id)
        fresh += stream(runner, frames, [job])
    np.testing.assert_allclose(kept, np.concatenate(fresh), atol=1e-5, rtol=0)
    assert difference_db(kept, whole) < {4: -10, 16: -50, 30: -80}[lookahead]


def test_a_lost_state_changes_nothing(runner: VocoderRunner) -> None:
    """Jobs may be decoded twice, or after their sequence was forgotten."""
    frames = random_hidden(LENGTH)
    jobs = list(chunk_jobs(LENGTH, 10, 20, 52, 52))
    wanted = decode_whole(runner, frames)
    pieces = []
    for index, job in enumerate(jobs):
        pieces += stream(runner, frames, [job])
        if index == 2:
            stream(runner, frames, [job])
        if index == 4:
            runner.forget("s")
    np.testing.assert_allclose(np.concatenate(pieces), wanted, atol=1e-5, rtol=0)


def test_states_are_given_back(runner: VocoderRunner) -> None:
    frames = random_hidden(LENGTH)
    jobs = list(chunk_jobs(LENGTH, 10, 20, 52, 52))
    stream(runner, frames, jobs[:2])
    assert runner.num_streams == 1
    runner.forget("s")
    runner.forget("never seen")
    assert runner.num_streams == 0
    stream(runner, frames, jobs)
    assert runner.num_streams == 0


def test_warmup_leaves_nothing(runner: VocoderRunner) -> None:
    frames = random_hidden(20)
    before = decode_whole(runner, frames)
    runner.warmup()
    assert runner.num_streams == 0
    np.testing.assert_allclose(decode_whole(runner, frames), before, atol=1e-6, rtol=0)


def test_a_state_is_small(runner: VocoderRunner) -> None:
    """It holds each layer's padding and nothing that grows with the stream."""
    frames = random_hidden(LENGTH)
    sizes = []
    for job in chunk_jobs(LENGTH, 10, 10, 52, 52):
        stream(runner, frames, [job])
        resume = runner._resumes.get("s")
        if resume is not None:
            sizes.append([len(tail) for tail in resume.state.tails])
    assert sizes[3:] == [sizes[3]] * len(sizes[3:])
    assert max(sizes[-1]) == 12


def small_chain(rights: list[int]) -> Chain:
    generator = torch.Generator().manual_seed(0)
    stages: list[Stage] = [
        FrameConv(
            torch.randn(3, 3, 5, generator=generator),
            torch.randn(3, generator=generator),
            Placement(CPU),
            right=right,
            activation="gelu",
        )
        for right in rights
    ]
    return Chain(stages)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    rights=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    ends=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    extra=st.integers(0, 3),
)
def test_any_paddings_and_any_chunks(rights: list[int], ends: list[int], extra: int) -> None:
    """Chunks that end at growing frames, given just enough look-ahead or more, equal the whole."""
    chain = small_chain(rights)
    bounds = [0, *np.cumsum(ends).tolist()]
    length = bounds[-1]
    frames = torch.randn(length, 3, generator=torch.Generator().manual_seed(1))
    whole = Span(0, length)
    (wanted,), _ = chain([frames.clone()], [Row(whole, whole)])
    state: StreamState | None = None
    pieces = []
    for start, end in pairwise(bounds):
        window = Span(0, min(length, end + chain.context.right + extra))
        row = Row(window, Span(start, end), state, keep_state=True)
        (piece,), (state,) = chain([frames[row.first_input : window.end].clone()], [row])
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces), wanted, atol=1e-5, rtol=1e-5)

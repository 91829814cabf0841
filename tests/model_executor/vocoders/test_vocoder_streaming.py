"""Batched equals alone and streamed equals whole, with the context that the vocoder declares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.frame_vocoder import FrameVocoder, Window
from stretto.model_executor.vocoders.row_layout import Span
from stretto.scheduler.interfaces import VocoderJob
from tests.model_executor.vocoders.vocoder_support import (
    chunk_jobs,
    decode_whole,
    difference_db,
    random_codes,
    random_hidden,
    stream,
    whole_job,
)

LENGTH = 130
LOW_LOOKAHEAD = 16


def test_chattts_declares_52_frames_each_side(runner: VocoderRunner) -> None:
    spec = runner.spec
    assert (spec.left_context, spec.right_context) == (52, 52)
    assert (spec.samples_per_frame, spec.tail_samples, spec.sample_rate) == (512, 256, 24_000)


@pytest.mark.parametrize("side", [-1, 1])
def test_declared_context_is_exactly_the_receptive_field(
    deep_vocoder: FrameVocoder, side: int
) -> None:
    """A NaN spreads to everything that depends on its frame, however weakly."""
    middle, reach = LENGTH // 2, 52

    def is_reached(distance: int) -> bool:
        frames = random_hidden(LENGTH)
        frames[middle + side * distance] = torch.nan
        with torch.inference_mode():
            (samples,), _ = deep_vocoder.decode([Window(frames, 0, Span(0, LENGTH))], "hidden")
        return bool(samples[middle * 512 : (middle + 1) * 512].isnan().any())

    assert is_reached(reach)
    assert not is_reached(reach + 1)


@pytest.mark.parametrize("steady", [8, 25, 50, 100])
@pytest.mark.parametrize("first", [1, 4, 12, 24])
def test_streamed_equals_whole(runner: VocoderRunner, first: int, steady: int) -> None:
    frames = random_hidden(LENGTH, seed=first * steady)
    jobs = list(chunk_jobs(LENGTH, first, steady, 52, 52))
    streamed = np.concatenate(stream(runner, frames, jobs))
    np.testing.assert_allclose(streamed, decode_whole(runner, frames), atol=1e-5, rtol=0)


def test_streamed_codes_equal_whole(runner: VocoderRunner) -> None:
    frames = random_codes(LENGTH)
    jobs = list(chunk_jobs(LENGTH, 4, 25, 52, 52))
    streamed = np.concatenate(stream(runner, frames, jobs))
    np.testing.assert_allclose(streamed, decode_whole(runner, frames), atol=1e-5, rtol=0)


@pytest.mark.parametrize("first", [1, 4, 12, 24])
@pytest.mark.parametrize("kind", ["hidden", "codes"])
def test_low_lookahead_is_close_and_does_not_click(
    runner: VocoderRunner, kind: str, first: int
) -> None:
    frames = random_hidden(LENGTH) if kind == "hidden" else random_codes(LENGTH)
    whole = decode_whole(runner, frames)
    jobs = list(chunk_jobs(LENGTH, first, 25, 52, LOW_LOOKAHEAD))
    streamed = np.concatenate(stream(runner, frames, jobs))
    assert difference_db(streamed, whole) < -50
    joins = np.array([job.start * 512 for job in jobs[1:]])
    error = streamed - whole
    # A click is a step that the whole decode does not have.
    assert np.abs(error[joins] - error[joins - 1]).max() < 0.01 * np.abs(whole).max()


def test_mixed_batch_equals_each_job_alone(runner: VocoderRunner) -> None:
    """Whole sequences, first chunks, middle chunks and both input kinds in one launch."""
    hidden, codes = random_hidden(LENGTH), random_codes(LENGTH)
    jobs = [
        whole_job(LENGTH, "whole"),
        VocoderJob("first", 0, 4, 0, 56, is_last=False),
        VocoderJob("middle", 60, 72, 8, 124, is_last=False),
        VocoderJob("codes", 60, 72, 8, 124, is_last=False),
        VocoderJob("last", 110, 130, 58, 130, is_last=True),
        VocoderJob("low", 20, 45, 0, 61, is_last=False),
        VocoderJob("one", 129, 130, 77, 130, is_last=True),
    ]
    sources = [codes if job.seq_id == "codes" else hidden for job in jobs]
    windows = [
        source[job.window_start : job.window_end] for source, job in zip(sources, jobs, strict=True)
    ]
    together = runner.decode(windows, jobs)
    for window, job, got in zip(windows, jobs, together, strict=True):
        alone = runner.decode([window], [job])[0]
        expected = (job.end - job.start) * 512 - (256 if job.is_last else 0)
        assert len(got) == len(alone) == expected
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, alone, atol=1e-5, rtol=0)


def test_neighbours_of_any_size_do_not_matter(runner: VocoderRunner) -> None:
    frames = random_hidden(40)
    alone = decode_whole(runner, frames)
    loud = 1e3 * random_hidden(23, seed=1)
    for others in ([loud], [loud, loud[:1]], [random_hidden(n, seed=n) for n in range(1, 12)]):
        windows = [*others, frames]
        together = runner.decode(windows, [whole_job(len(window)) for window in windows])
        np.testing.assert_allclose(together[-1], alone, atol=1e-5, rtol=0)


def test_a_window_without_lookahead_is_refused(runner: VocoderRunner) -> None:
    job = VocoderJob("s", 0, 8, 0, 8, is_last=False)
    with pytest.raises(ValueError, match="look-ahead"):
        runner.decode([random_hidden(8)], [job])

"""The packaged voice's vocoder: asymmetric paddings, its own sizes, the same promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.frame_vocoder import FrameVocoder, Window, load_vocoder
from stretto.model_executor.vocoders.row_layout import Span
from tests.model_executor.vocoders.vocoder_support import (
    chunk_jobs,
    decode_whole,
    difference_db,
    random_codes,
    stream,
)

LENGTH = 90


@pytest.fixture(scope="module")
def vocoder() -> FrameVocoder:
    return load_vocoder(load_checkpoint("default"))


def test_it_looks_less_far_ahead_than_back(vocoder: FrameVocoder) -> None:
    spec = vocoder.spec
    assert spec.input_kinds == ("codes",)
    assert spec.right_context <= 12
    assert spec.right_context < spec.left_context


@pytest.mark.parametrize("side", ["left", "right"])
def test_declared_context_is_the_receptive_field(vocoder: FrameVocoder, side: str) -> None:
    """No change of a frame beyond the context is heard; the nearest ones are."""
    spec, middle = vocoder.spec, 45

    def changed(distance: int) -> bool:
        codes, index = random_codes(LENGTH), middle + distance
        other = codes.clone()
        other[index] = (other[index] + 312) % 625
        with torch.inference_mode():
            windows = [Window(frames, 0, Span(0, LENGTH)) for frames in (codes, other)]
            samples, _ = vocoder.decode(windows, "codes")
        kept = slice(middle * 512, (middle + 1) * 512)
        return not torch.allclose(samples[0][kept], samples[1][kept], atol=1e-6, rtol=0)

    sign, reach = (-1, spec.left_context) if side == "left" else (1, spec.right_context)
    assert not changed(sign * (reach + 1))
    assert changed(sign * (reach // 2))


@pytest.mark.parametrize("steady", [8, 25])
@pytest.mark.parametrize("first", [1, 4, 24])
def test_streamed_equals_whole(vocoder: FrameVocoder, first: int, steady: int) -> None:
    runner, spec = VocoderRunner(vocoder), vocoder.spec
    frames = random_codes(LENGTH, seed=first)
    jobs = list(chunk_jobs(LENGTH, first, steady, spec.left_context, spec.right_context))
    streamed = np.concatenate(stream(runner, frames, jobs))
    np.testing.assert_allclose(streamed, decode_whole(runner, frames), atol=1e-5, rtol=0)


def test_bfloat16_products_are_close() -> None:
    half = load_vocoder(load_checkpoint("default"), matmul_dtype=torch.bfloat16)
    frames = random_codes(LENGTH)
    got = decode_whole(VocoderRunner(half), frames)
    wanted = decode_whole(VocoderRunner(load_vocoder(load_checkpoint("default"))), frames)
    assert difference_db(got, wanted) < -35

"""The vocoder gives upstream's numbers on the reference checkpoint, alone and batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stretto.engine.request import VocoderInput
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.dvae_encoder import load_dvae_encoder
from stretto.model_executor.vocoders.frame_vocoder import FrameVocoder, Window, load_vocoder
from stretto.model_executor.vocoders.row_layout import Span
from tests.model_executor.vocoders.vocoder_support import TINY, decode_whole, whole_job

Golden = dict[str, NDArray[np.float32]]
CASES: list[tuple[VocoderInput, str, str]] = [
    ("hidden", "dec.hidden", "dec"),
    ("codes", "dvae.codes", "dvae"),
]


@pytest.fixture(scope="module")
def golden() -> Golden:
    with np.load(TINY / "golden.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def vocoder() -> FrameVocoder:
    return load_vocoder(load_checkpoint(str(TINY / "ckpt")))


@pytest.mark.parametrize(("kind", "inputs", "outputs"), CASES)
def test_mel(
    golden: Golden, vocoder: FrameVocoder, kind: VocoderInput, inputs: str, outputs: str
) -> None:
    rows = torch.from_numpy(golden[inputs])
    windows = [Window(row, 0, Span(0, len(row))) for row in rows]
    with torch.inference_mode():
        mel = torch.stack(vocoder.mel(windows, kind)).transpose(1, 2)
    np.testing.assert_allclose(mel.numpy(), golden[f"{outputs}.mel"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "inputs", "outputs"), CASES)
def test_waveform_alone_and_batched(
    golden: Golden, vocoder: FrameVocoder, kind: VocoderInput, inputs: str, outputs: str
) -> None:
    runner = VocoderRunner(vocoder)
    windows = list(torch.from_numpy(golden[inputs]))
    wanted = golden[f"{outputs}.wav"]
    together = runner.decode(windows, [whole_job(len(window)) for window in windows])
    for row, window in enumerate(windows):
        alone = decode_whole(runner, window)
        np.testing.assert_allclose(alone, wanted[row], atol=1e-5, rtol=0)
        np.testing.assert_allclose(together[row], wanted[row], atol=1e-5, rtol=0)


def test_rows_cut_short_equal_the_same_rows_alone(golden: Golden, vocoder: FrameVocoder) -> None:
    runner = VocoderRunner(vocoder)
    rows = torch.from_numpy(golden["dec.hidden"])
    windows = [rows[0, :5], rows[1], rows[0, 3:24], rows[1, :1]]
    together = runner.decode(windows, [whole_job(len(window)) for window in windows])
    for window, got in zip(windows, together, strict=True):
        assert len(got) == len(window) * 512 - 256
        np.testing.assert_allclose(got, decode_whole(runner, window), atol=1e-6, rtol=0)


def test_encoded_codes_are_equal(golden: Golden) -> None:
    encoder = load_dvae_encoder(load_checkpoint(str(TINY / "ckpt")))
    assert encoder is not None
    codes = encoder.encode(torch.from_numpy(golden["enc.wav"]))
    np.testing.assert_array_equal(codes.numpy().T, golden["enc.codes"])

"""What the vocoder tests share: checkpoints, chunked decoding, the difference in dB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from stretto.benchmarks.random_checkpoint import Sizes, Stack, write_checkpoint
from stretto.model_executor.interfaces import FloatArray
from stretto.model_executor.models.checkpoint import load_checkpoint
from stretto.model_executor.vocoder_runner import VocoderRunner
from stretto.model_executor.vocoders.frame_vocoder import FrameVocoder, load_vocoder
from stretto.scheduler.interfaces import VocoderJob

TINY = Path(__file__).parents[2] / "assets" / "chattts_tiny"

# As deep as the published vocoder, hence with its receptive field, but narrow.
DEEP = Sizes(
    hidden=64,
    intermediate=64,
    heads=4,
    layers=1,
    text_tokens=2_000,
    unused_vocabulary=8,
    decoder=Stack(32, 16, 32, 12, 32),
    dvae_decoder=Stack(32, 16, 24, 12, 32),
    dvae_encoder=Stack(32, 16, 24, 1, 64),
    vocos_width=48,
    vocos_inner=96,
    vocos_blocks=8,
)


def make_deep_vocoder(folder: Path) -> FrameVocoder:
    write_checkpoint(folder, DEEP)
    return load_vocoder(load_checkpoint(str(folder)))


def random_hidden(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, 64, generator=torch.Generator().manual_seed(seed))


def random_codes(length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 625, (length, 4), generator=generator, dtype=torch.int32)


def whole_job(length: int, seq_id: str = "s") -> VocoderJob:
    return VocoderJob(seq_id, 0, length, 0, length, is_last=True)


def chunk_jobs(length: int, first: int, steady: int, left: int, right: int) -> Iterator[VocoderJob]:
    start, size = 0, first
    while start < length:
        end = min(start + size, length)
        window = max(0, start - left), min(length, end + right)
        yield VocoderJob("s", start, end, *window, is_last=end == length)
        start, size = end, steady


def stream(
    runner: VocoderRunner, frames: torch.Tensor, jobs: Sequence[VocoderJob]
) -> list[FloatArray]:
    return [runner.decode([frames[job.window_start : job.window_end]], [job])[0] for job in jobs]


def decode_whole(runner: VocoderRunner, frames: torch.Tensor) -> FloatArray:
    return runner.decode([frames], [whole_job(len(frames))])[0]


def difference_db(got: FloatArray, wanted: FloatArray) -> float:
    """Power of the difference over the power of `wanted`."""
    power = float(np.mean(np.square(wanted.astype(np.float64))))
    error = float(np.mean(np.square(got.astype(np.float64) - wanted)))
    return 10 * float(np.log10(error / power + 1e-30))

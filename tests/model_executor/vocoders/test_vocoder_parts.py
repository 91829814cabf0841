"""The parts of the vocoder against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stretto.engine.errors import CheckpointError
from stretto.model_executor.models.checkpoint import VocoderConfig
from stretto.model_executor.vocoders.chain import Chain, Row, Stage
from stretto.model_executor.vocoders.fsq import FSQDecoder, FSQEncoder, fsq_points
from stretto.model_executor.vocoders.istft import InverseSTFT
from stretto.model_executor.vocoders.layers import (
    DepthwiseConv,
    FrameConv,
    Linear,
    Placement,
    conv_context,
)
from stretto.model_executor.vocoders.row_layout import (
    Context,
    RowLayout,
    Span,
    bucket,
    buckets,
    split_rows,
)

CPU = torch.device("cpu")
LENGTHS = (7, 1, 30, 12)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(stage: Stage, rows: list[torch.Tensor]) -> list[torch.Tensor]:
    """Whole rows through a single stage."""
    spans = [Span(0, len(row)) for row in rows]
    outputs, _ = Chain([stage])(rows, [Row(span, span) for span in spans])
    return outputs


@pytest.mark.parametrize("right", [None, 0, 2, 6])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format], ids=str)
def test_depthwise_conv_pads_every_row_with_zeros(
    order: torch.memory_format, dilation: int, right: int | None
) -> None:
    """In the order of the CPU and in that of CUDA."""
    weight, bias = noise(16, 1, 7), noise(16)
    conv = DepthwiseConv(weight, bias, Placement(CPU), dilation=dilation, right=right)
    conv._order, conv.weight = order, conv.weight.contiguous(memory_format=order)
    context = conv_context(7, dilation, right)
    rows = [noise(length, 16, seed=length) for length in LENGTHS]
    spans = [Span(0, length) for length in LENGTHS]
    layout = RowLayout(tuple(spans), 12)
    got = split_rows(layout.select(conv(layout.pack([[row] for row in rows])), spans), spans)
    for row, samples in zip(rows, got, strict=True):
        padded = F.pad(row.T, (context.left, context.right))
        wanted = F.conv1d(padded[None], weight, bias, dilation=dilation, groups=16)[0].T
        torch.testing.assert_close(samples, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("right", [None, 0, 2])
def test_frame_conv_pads_every_row_with_zeros(right: int | None) -> None:
    weight, bias = noise(5, 8, 3), noise(5)
    conv = FrameConv(weight, bias, Placement(CPU), right=right, activation="gelu")
    context = conv_context(3, 1, right)
    rows = [noise(length, 8, seed=length) for length in LENGTHS]
    for row, got in zip(rows, run(conv, rows), strict=True):
        padded = F.pad(row.T, (context.left, context.right))
        wanted = F.gelu(F.conv1d(padded[None], weight, bias))[0].T
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_is_the_same_for_any_number_of_rows(dtype: torch.dtype) -> None:
    linear = Linear(noise(64, 48), noise(64), Placement(CPU, dtype), activation="gelu")
    x = noise(40, 48)
    whole = linear(x)
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    wanted = F.gelu(F.linear(x, noise(64, 48), noise(64)))
    torch.testing.assert_close(whole, wanted, atol=tolerance, rtol=0)
    for count in (2, 3, 17, 39):
        torch.testing.assert_close(linear(x[:count]), whole[:count], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (64, 32), (64, 8)])
def test_inverse_stft_equals_torch_per_row(n_fft: int, hop: int) -> None:
    window = torch.hann_window(n_fft)
    istft = InverseSTFT(window, hop, CPU)
    rows = [torch.complex(noise(n, n_fft // 2 + 1), noise(n, n_fft // 2 + 1)) for n in LENGTHS]
    got = run(istft, [istft.synthesize(row) for row in rows])
    for row, hops in zip(rows, got, strict=True):
        if len(row) > 1:
            wanted = torch.istft(row.T, n_fft, hop, window=window, center=True)
            torch.testing.assert_close(hops[:-1].flatten(), wanted, atol=1e-6, rtol=0)


def test_few_numbers_of_rows_are_computed() -> None:
    assert bucket(0) == 0
    lengths = range(1, 5_000)
    assert all(length <= bucket(length) <= max(16, 1.126 * length + 16) for length in lengths)
    assert buckets(4_999) == sorted({bucket(length) for length in lengths})
    assert len(buckets(4_096)) < 60
    assert all(bucket(length) == length for length in buckets(4_096))


def test_no_rows_are_no_error() -> None:
    linear = Linear(noise(6, 4), noise(6), Placement(CPU), activation="gelu")
    assert linear(noise(0, 4)).shape == (0, 6)


def test_contexts_add() -> None:
    assert conv_context(7, 2, None) + conv_context(3, 1, 0) == Context(8, 6)


def test_fsq_points_are_the_digits_of_the_code() -> None:
    points = fsq_points((5, 3))
    assert points.shape == (15, 2)
    assert points[7].tolist() == [0.0, 0.0]
    assert points[0].tolist() == [-1.0, -1.0]
    assert points[4].tolist() == [1.0, -1.0]


@pytest.mark.parametrize(("groups", "residuals"), [(1, 1), (2, 2), (4, 1), (1, 3)])
def test_fsq_decodes_group_by_group(groups: int, residuals: int) -> None:
    config = VocoderConfig(groups=groups, residuals=residuals)
    projections = [(noise(6, 4, seed=g), noise(6, seed=10 + g)) for g in range(groups)]
    codes = torch.randint(0, 625, (9, groups * residuals))
    got = FSQDecoder(config, projections, CPU)(codes)
    points = fsq_points(config.levels)
    for group, (weight, bias) in enumerate(projections):
        columns = codes[:, group * residuals : (group + 1) * residuals]
        latent = sum(points[columns[:, r]] * 0.25**r for r in range(residuals))
        wanted = F.linear(torch.as_tensor(latent), weight, bias)
        torch.testing.assert_close(got[:, 6 * group : 6 * group + 6], wanted)


def test_fsq_encodes_what_it_decodes() -> None:
    """With orthonormal projections, codes come back from the features they decode to."""
    config = VocoderConfig(groups=4, residuals=1, bound_residual=False)
    basis = torch.linalg.qr(noise(8, 4)).Q
    codes = torch.randint(0, 625, (50, 4))
    features = FSQDecoder(config, [(basis, torch.zeros(8))] * 4, CPU)(codes)
    encoder = FSQEncoder(config, [(1.2 * basis.T, torch.zeros(4))] * 4, CPU)
    assert torch.equal(encoder(features), codes)


def test_even_levels_are_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    from safetensors.torch import save_file

    from stretto.model_executor.tensor_file import TensorFile
    from stretto.model_executor.vocoders.fsq import load_projections

    path = tmp_path_factory.mktemp("even") / "a.safetensors"
    save_file({"w": torch.ones(1)}, path)
    with TensorFile(path) as file, pytest.raises(CheckpointError, match="levels must be odd"):
        load_projections(file, VocoderConfig(levels=(8, 5)), "project_out")

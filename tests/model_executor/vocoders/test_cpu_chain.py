"""The compiled chain gives what the chain of packs gives, whatever the rows and their states."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stretto.model_executor.vocoders.chain import Chain, Row, Stage, StreamState, Then
from stretto.model_executor.vocoders.cpu_chain import CpuChain
from stretto.model_executor.vocoders.istft import MAX_MAGNITUDE, InverseSTFT, head_spectrum
from stretto.model_executor.vocoders.layers import (
    ConvNeXtBlock,
    DepthwiseConv,
    FrameConv,
    LayerNorm,
    Linear,
    Placement,
)
from stretto.model_executor.vocoders.row_layout import Context, Span

CPU = torch.device("cpu")
CHANNELS, INNER, HOP = 6, 10, 4


def make_chain(
    rights: tuple[int, int], dilation: int = 1, dtype: torch.dtype = torch.float32
) -> Chain:
    """A convolution, two blocks, a head and an inverse STFT."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.5

    exact, placement = Placement(CPU), Placement(CPU, dtype)
    conv = FrameConv(draw(CHANNELS, CHANNELS, 5), draw(CHANNELS), exact, right=rights[0])
    blocks = [
        ConvNeXtBlock(
            DepthwiseConv(
                draw(CHANNELS, 1, 3), draw(CHANNELS), placement, dilation=dilation, right=rights[1]
            ),
            LayerNorm(draw(CHANNELS), draw(CHANNELS), placement),
            (draw(INNER, CHANNELS), draw(INNER)),
            (draw(CHANNELS, INNER), draw(CHANNELS)),
            draw(CHANNELS),
            placement,
        )
        for _ in range(2)
    ]
    istft = InverseSTFT(torch.hann_window(4 * HOP), HOP, CPU)
    head = Linear(draw(4 * HOP + 2, CHANNELS), draw(4 * HOP + 2), exact)
    stages: list[Stage] = [
        Then(conv, LayerNorm(draw(CHANNELS), draw(CHANNELS), exact)),
        *blocks[:-1],
        Then(blocks[-1], head, head_spectrum, istft.synthesize),
        istft,
    ]
    return Chain(stages)


def frames_of(length: int, seed: int) -> torch.Tensor:
    return torch.randn(length, CHANNELS, generator=torch.Generator().manual_seed(seed))


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    rights=st.tuples(st.integers(0, 4), st.integers(0, 2)),
    spans=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(0, 9)),
        min_size=1,
        max_size=4,
    ),
)
def test_single_windows(rights: tuple[int, int], spans: list[tuple[int, int, int, int]]) -> None:
    """Rows of any length, with more or less context than the layers see."""
    chain = make_chain(rights, dilation=1)
    rows, inputs = [], []
    for seed, (start, before, length, after) in enumerate(spans):
        window = Span(start, start + before + length + after)
        wanted = Span(start + before, start + before + length)
        rows.append(Row(window, wanted))
        inputs.append(frames_of(len(window), seed))
    outputs, states = CpuChain(chain)(inputs, rows)
    expected, _ = chain(inputs, rows)
    assert states == [None] * len(rows)
    for got, wanted_output in zip(outputs, expected, strict=True):
        # The last hops of a window see too few of its frames for all of their samples.
        whole = max(0, len(wanted_output) - chain.stages[-1].context.right)
        assert got.shape == wanted_output.shape
        assert_close(got[:whole], wanted_output[:whole])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    rights=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    ends=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    extra=st.integers(0, 3),
)
def test_streams_beside_a_neighbour(rights: tuple[int, int], ends: list[int], extra: int) -> None:
    """Chunk by chunk, in company: bit for bit the whole decode, and the reference's states."""
    chain = make_chain(rights, dilation=2)
    compiled = CpuChain(chain)
    bounds = [0, *(sum(ends[: i + 1]) for i in range(len(ends)))]
    length = bounds[-1]
    frames, neighbour = frames_of(length, 1), frames_of(5, 2)
    whole, aside = Span(0, length), Row(Span(0, 5), Span(0, 5))
    (wanted,), _ = compiled([frames], [Row(whole, whole)])
    state: StreamState | None = None
    pieces = []
    for start, end in pairwise(bounds):
        window = Span(0, min(length, end + chain.context.right + extra))
        row = Row(window, Span(start, end), state, keep_state=True)
        given_frames = frames[row.first_input : window.end]
        _, (expected,) = chain([given_frames.clone()], [row])
        (_, piece), (_, state) = compiled([neighbour, given_frames], [aside, row])
        assert state is not None
        assert expected is not None
        assert state.ends == expected.ends
        for tail, other in zip(state.tails, expected.tails, strict=True):
            assert_close(tail, other)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces), wanted, atol=0, rtol=0, equal_nan=True)


def test_bfloat16_products_are_those_of_the_reference() -> None:
    chain = make_chain((2, 1), dtype=torch.bfloat16)
    frames, whole = frames_of(30, 0), Span(0, 30)
    (got,), _ = CpuChain(chain)([frames], [Row(whole, whole)])
    (wanted,), _ = chain([frames], [Row(whole, whole)])
    error = (got - wanted)[:-2].square().mean() / wanted[:-2].square().mean()
    assert error < 1e-3


def test_the_spectrum_is_torchs() -> None:
    head = frames_of(40, 3).repeat(1, 5)  # [40, 2 * 15]
    head[0, :3] = torch.tensor([95.0, -300.0, 4.0])
    head[:, 15:] *= 20
    magnitude = head[:, :15].double().exp().clamp(max=MAX_MAGNITUDE)
    wanted = torch.polar(magnitude, head[:, 15:].double())
    error = (head_spectrum(head) - wanted).abs()
    assert (error <= 1e-6 * magnitude + 1e-30).all()


def test_an_unknown_stage_is_refused() -> None:
    class Odd:
        context = Context()

        def look(self, pack: torch.Tensor, layout: object) -> torch.Tensor:
            return pack

        def apply(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(TypeError, match="Odd"):
        CpuChain(Chain([Odd()]))

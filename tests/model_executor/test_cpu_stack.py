"""The layers as one compiled kernel: against plain torch, in every mode, for any threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from numba import njit

from stretto.model_executor.attention.selector import create_attention
from stretto.model_executor.interfaces import SamplingDefaults, SpeechModelSpec
from stretto.model_executor.layers import cpu_head, cpu_packing, cpu_panels
from stretto.model_executor.layers.cpu_head import CpuHead
from stretto.model_executor.layers.cpu_team import Team
from stretto.model_executor.layers.cpu_vectors import procedure
from stretto.model_executor.models.llama_speech import LlamaConfig, LlamaSpeech
from tests.model_executor.attention.cases import Case

# Kernels are compiled on first use, which a crowded machine makes long.
pytestmark = pytest.mark.timeout(900)

HIDDEN, INNER, LAYERS, HEAD_DIM = 96, 160, 2, 32
MODES = {
    "float32": (torch.float32, cpu_panels.FLOAT32, True),
    "widen": (torch.bfloat16, cpu_panels.WIDEN, True),
    "dot": (torch.bfloat16, cpu_panels.DOT, cpu_panels.has_dots()),
    "amx": (torch.bfloat16, cpu_panels.AMX, cpu_panels.has_tiles()),
}


class RandomTensors:
    """Weights of any name and shape, the same for the same name."""

    def get(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        if name.endswith("norm.weight"):
            return torch.rand(shape, generator=generator) + 0.5
        return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])

    def folded_weight(self, prefix: str, shape: tuple[int, int]) -> torch.Tensor:
        return self.get(prefix, shape)


def create_model(dtype: torch.dtype, inner: int = INNER) -> LlamaSpeech:
    """Grouped queries, and widths that are no multiples of two tiles."""
    spec = SpeechModelSpec(
        num_codebooks=2,
        codebook_size=20,
        eos_id=19,
        text_vocab_size=30,
        text_eos_id=None,
        hidden_size=HIDDEN,
        num_layers=LAYERS,
        num_heads=4,
        num_kv_heads=2,
        head_dim=HEAD_DIM,
        max_model_len=256,
        frame_rate=50.0,
        sampling=SamplingDefaults(
            temperature=1.0,
            top_p=1.0,
            top_k=20,
            repetition_penalty=1.0,
            min_new_tokens=0,
            max_new_tokens=9,
        ),
        text_sampling=None,
    )
    tensors, device = RandomTensors(), torch.device("cpu")
    config = LlamaConfig(intermediate_size=inner)
    return LlamaSpeech(spec, config, tensors, tensors, dtype=dtype, device=device)


def run(model: LlamaSpeech, case: Case, backend: str) -> torch.Tensor:
    """The residual stream after a step over an empty cache."""
    attention = create_attention(backend, case.shape(model.dtype, num_layers=LAYERS))
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(case.num_new, HIDDEN, generator=generator)
    positions = torch.cat([torch.arange(old, old + new) for old, new in case.sequences])
    return model.forward(embeddings, positions, case.metadata(), attention)


def step(*lengths: int, block_size: int = 16) -> Case:
    sequences = [(0, length) for length in lengths]
    return Case(sequences, num_heads=4, num_kv_heads=2, head_dim=HEAD_DIM, block_size=block_size)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=list(MODES))
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LlamaSpeech:
    dtype, mode, available = MODES[request.param]
    if not available:
        pytest.skip("this processor has no such instructions")
    made = create_model(dtype)
    assert made._stack is not None
    monkeypatch.setattr(made._stack, "_mode", mode)
    return made


@pytest.mark.parametrize("lengths", [(1,), (7, 1, 20), (40, 3), (150,)])
def test_equals_plain_torch(model: LlamaSpeech, threads: int, lengths: tuple[int, ...]) -> None:
    case = step(*lengths)
    got, wanted = run(model, case, "cpu_paged"), run(model, case, "reference")
    tolerance = 2e-5 if model.dtype == torch.float32 else 6e-2
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)


def test_a_sequence_has_the_same_bits_in_any_company(model: LlamaSpeech, threads: int) -> None:
    """Alone, as one of three, and beside so many that rows fill several chunks."""
    length = 9
    alone = run(model, step(length), "cpu_paged")
    for others in ((), (1, 30), (20,) * 8):
        with_others = run(model, step(length, *others), "cpu_paged")
        assert torch.equal(with_others[:length], alone)


def test_any_block_size_gives_the_same_values(model: LlamaSpeech) -> None:
    wanted = run(model, step(40), "cpu_paged")
    got = run(model, step(40, block_size=5), "cpu_paged")
    tolerance = 2e-5 if model.dtype == torch.float32 else 6e-2
    torch.testing.assert_close(got, wanted, atol=tolerance, rtol=tolerance)


def test_other_sizes_run_in_plain_torch() -> None:
    model = create_model(torch.float32, inner=100)
    assert model._stack is None
    case = step(7, 12)
    got, wanted = run(model, case, "cpu_paged"), run(model, case, "reference")
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_panels_hold_the_weight(dtype: torch.dtype) -> None:
    weight = torch.randn(64, 96).to(dtype)
    assert torch.equal(cpu_packing.Panels(weight).unpack(), weight)
    assert torch.equal(cpu_packing.separate(cpu_packing.interleave(weight)), weight)


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are not stored in 12 bits."""
    monkeypatch.setattr(cpu_packing, "can_expand", lambda: False)


def with_exceptions(outputs: int, inputs: int) -> torch.Tensor:
    """A weight with a few numbers, zeros among them, that are far from all others."""
    weight = torch.randn(outputs, inputs)
    weight.view(-1)[:: 32 * inputs // 3] *= 1e-20
    weight[0, 0], weight[-1, -1], weight[5, 7] = 0.0, -3e30, float("inf")
    return weight.to(torch.bfloat16)


needs_lookup = pytest.mark.skipif(not cpu_packing.can_expand(), reason="needs AVX512BW")


@needs_lookup
def test_twelve_bits_hold_the_weight() -> None:
    weight = with_exceptions(96, 1088)
    panels = cpu_packing.Panels(weight)
    assert panels.is_compact
    assert panels.nbytes == weight.nbytes * 3 // 4
    assert torch.equal(panels.unpack().view(torch.int16), weight.view(torch.int16))


@needs_lookup
def test_codes_are_looked_up_one_by_one_where_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = (torch.rand(32, 32) + 0.5).to(torch.bfloat16)  # no exceptions
    panels, out = cpu_packing.Panels(weight), torch.empty(16, 32, 2, dtype=torch.bfloat16)
    assert panels.is_compact
    monkeypatch.setattr(cpu_packing, "can_expand", lambda: False)
    expand = procedure(cpu_packing._emit_expand)

    @njit  # type: ignore[untyped-decorator]
    def expand_all(source: Any, target: Any, table: Any) -> Any:
        for unit in range(8):
            expand((source + unit * 192, target + unit * 256, table))

    data, table = (int(panels.record[index]) for index in (0, 1))
    expand_all(data, out.data_ptr(), table)
    assert torch.equal(out, weight.view(1, 32, 16, 2).transpose(1, 2)[0])


def test_a_weight_of_many_magnitudes_is_stored_as_it_is() -> None:
    weight = torch.randn(64, 64).exp2().pow(20).to(torch.bfloat16)
    panels = cpu_packing.Panels(weight)
    assert not panels.is_compact
    assert torch.equal(panels.unpack(), weight)


@needs_lookup
@pytest.mark.parametrize("rows", [1, 5, 17, 40, 150])
@pytest.mark.parametrize("mode", ["widen", "dot", "amx"])
def test_products_are_the_same_from_either_form(
    mode: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not MODES[mode][2]:
        pytest.skip("this processor has no such instructions")
    weight, x = torch.randn(3 * 32, 1088).to(torch.bfloat16), torch.randn(rows, 1088)
    weight[33, 900], weight[95, 1087] = 1e-20, 1e6
    monkeypatch.setattr(cpu_head, "choose_mode", lambda dtype: MODES[mode][1])
    compact = CpuHead(weight, Team())
    monkeypatch.setattr(cpu_packing, "can_expand", lambda: False)
    plain = CpuHead(weight, Team())
    assert compact._panels.is_compact
    assert not plain._panels.is_compact
    assert torch.equal(compact(x), plain(x))


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize("lengths", [(1,), (7, 1, 20), (150,)])
def test_weights_stored_as_they_are_equal_plain_torch(lengths: tuple[int, ...]) -> None:
    model = create_model(torch.bfloat16)
    case = step(*lengths)
    got, wanted = run(model, case, "cpu_paged"), run(model, case, "reference")
    torch.testing.assert_close(got, wanted, atol=6e-2, rtol=6e-2)


def test_gates_and_values_share_a_panel() -> None:
    weight: Any = torch.arange(128.0)[:, None].expand(128, 32)
    panel = cpu_packing.interleave(weight)[: cpu_packing.PANEL, 0].tolist()
    assert panel == [*range(16), *range(64, 80)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_any_width(dtype: torch.dtype, threads: int) -> None:
    weight, x = torch.randn(2 * 626, 96).to(dtype), torch.randn(70, 96)
    head = CpuHead(weight, Team())
    whole = head(x)
    torch.testing.assert_close(whole, x.to(dtype).float() @ weight.float().T, atol=1e-4, rtol=1e-4)
    for count in (1, 2, 5, 33):
        assert torch.equal(head(x[:count]), whole[:count])


def test_a_team_may_grow_and_shrink(threads: int) -> None:
    head, x = CpuHead(torch.randn(64, 32), Team()), torch.randn(3, 32)
    results = []
    for workers in (threads, 3, 2, 1):  # the fixture restores torch's own number
        torch.set_num_threads(workers)
        results.append(head(x))
    assert all(torch.equal(result, results[0]) for result in results)

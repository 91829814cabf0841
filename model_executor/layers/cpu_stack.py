"""All layers of a Llama in one compiled kernel, run by a team of threads.

The arithmetic is that of `functional`, `Linear` and `attention.reference`. What differs is how it
is handed out: every phase of a layer (norm, projections, attention, ...) is cut into units of work
that the threads take one by one, and between phases they meet. The residual stream is float32; what
enters a product is in the weights' type. A row's result does not depend on the other rows, on the
number of threads, or on who took which unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit

from ..attention.cpu_kernel import attend_item
from ..attention.interface import AttentionMetadata, CpuCaches
from ..memory import large_pages
from .cpu_finish import ADD, GATE, STORE, finish_block
from .cpu_math import compiled, element_bytes, marker, pointer
from .cpu_packing import PANEL, Panels, panel_address
from .cpu_panels import (
    BLOCK_ROWS,
    SCRATCH_BYTES,
    begin_products,
    choose_mode,
    end_products,
    input_index,
    multiply_panel,
)
from .cpu_rows import norm_scale, rotate_head, scale_run
from .cpu_team import Team, meet, new_counters, reset_counters, take
from .cpu_tiles import tile_configuration

_F32 = np.float32(0)
_PHASES = 7  # of a layer, each with its counter
# Rows that stay in the second-level cache while panels pass by, and their sums with one panel.
_CHUNK_ROWS, _CHUNK_BYTES = 512, 1 << 20
_SUMS_BYTES = _CHUNK_ROWS * PANEL * 4
_ROOM_BYTES = _SUMS_BYTES + SCRATCH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class StackShape:
    """Sizes of the layers.

    Attributes:
        hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim: as in a Llama.
        eps: of the norms.
    """

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float


class CpuStack:
    """The layers of one model.

    Args:
        shape: sizes.
        norms: input_norm and post_norm of each layer, float32 [hidden].
        weights: qkv, attention_out, gate_up (gated, see `PanelLinear`) and down of each layer.
        dtype: of the packed weights, float32 or bfloat16.
        team: who runs them.
    """

    def __init__(
        self,
        shape: StackShape,
        norms: Sequence[tuple[torch.Tensor, torch.Tensor]],
        weights: Sequence[tuple[Panels, ...]],
        dtype: torch.dtype,
        team: Team,
    ) -> None:
        self._shape, self._dtype, self._kept = shape, dtype, (norms, weights)
        self._mode, self._kind = choose_mode(dtype), marker(dtype)
        self._weights = np.array(
            [
                [*(norm.data_ptr() for norm in pair), *(w.record.ctypes.data for w in layer)]
                for pair, layer in zip(norms, weights, strict=True)
            ],
            np.int64,
        )
        self._words = new_counters(_PHASES * len(weights))
        self._configuration = tile_configuration()
        self._team = team
        self._rooms = torch.empty(0, _ROOM_BYTES, dtype=torch.int8)
        self._buffers: tuple[torch.Tensor, ...] = ()

    def run(
        self,
        residual: torch.Tensor,
        cos_sin: torch.Tensor,
        metadata: AttentionMetadata,
        caches: CpuCaches,
    ) -> None:
        """Run all layers over packed positions, in place.

        Args:
            residual: [N, hidden] float32, contiguous.
            cos_sin: [N, head_dim] float32, rows of `functional.rotary_table`.
            metadata: where the positions belong.
            caches: of the attention backend.
        """
        shape = self._shape
        num_rows, workers = len(residual), torch.get_num_threads()
        if len(self._rooms) < workers:
            self._rooms = torch.empty(workers, _ROOM_BYTES, dtype=torch.int8)
        reset_counters(self._words)
        self._team.run(
            workers,
            _run_layers,
            self._words,
            (self._weights, caches.addresses),
            (
                residual.data_ptr(),
                cos_sin.data_ptr(),
                *(buffer.data_ptr() for buffer in self._reserve(num_rows)),
                self._rooms.data_ptr(),
            ),
            (
                metadata.query_start_loc.data_ptr(),
                metadata.seq_lens.data_ptr(),
                metadata.block_tables.data_ptr(),
            ),
            (num_rows, len(metadata.seq_lens), metadata.block_tables.stride(0)),
            (
                *(shape.hidden_size, shape.intermediate_size, shape.num_heads),
                *(shape.num_kv_heads, shape.head_dim, caches.block_size, caches.lanes),
            ),
            np.float32(shape.eps),
            self._configuration.ctypes.data,
            self._kind,
            self._mode,
        )

    def _reserve(self, num_rows: int) -> tuple[torch.Tensor, ...]:
        """Room for normed, qkv, attended and inner rows, up to whole blocks of rows. Zeros, because
        rows that are nobody's are multiplied too, and odd numbers are slow."""
        if not self._buffers or len(self._buffers[0]) < num_rows:
            shape = self._shape
            rows = -(-num_rows // BLOCK_ROWS) * BLOCK_ROWS
            query = shape.num_heads * shape.head_dim
            qkv = query + 2 * shape.num_kv_heads * shape.head_dim
            widths = (shape.hidden_size, qkv, query, shape.intermediate_size)
            self._buffers = tuple(large_pages((rows, w), self._dtype) for w in widths)
        return self._buffers


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _multiply(
    purpose: Any,
    queue: Any,
    rows: Any,
    sizes: Any,
    weights: Any,
    target: Any,
    ways: Any,
) -> Any:
    """A product by units of one panel and one chunk of rows, as they are taken from the `queue`
    (words, counter).

    `sizes` is (rows, input features, panels); `weights` this product's and the next one's, whose
    beginning is asked for at the end of this one; `target` is (address, elements of a row), and
    `ways` (the worker's own room, kind, mode).
    """
    words, counter = queue
    num_rows, inputs, num_panels = sizes
    (block, scratch), kind, mode = ways
    weight, next_weight = weights
    out, width = target
    stride = inputs * element_bytes(kind)
    chunk_rows = min(_CHUNK_ROWS, _CHUNK_BYTES // stride // BLOCK_ROWS * BLOCK_ROWS)
    num_units = num_panels * ((num_rows + chunk_rows - 1) // chunk_rows)
    unit = take(words, counter)
    while unit < num_units:
        first, panel = unit // num_panels * chunk_rows, unit % num_panels
        count, source = min(chunk_rows, num_rows - first), rows + first * stride
        unit = take(words, counter)
        following = panel_address(weight, unit % num_panels)
        if unit >= num_units:
            following = panel_address(next_weight, unit - num_units)
        multiply_panel(mode, source, count, weight, panel, following, inputs, block, scratch)
        finish_block(purpose, block, count, out, first, width, panel, kind, mode)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _norm(
    queue: Any,
    residual: Any,
    weight: Any,
    out: Any,
    sizes: Any,
    eps: Any,
    kind: Any,
    mode: Any,
) -> Any:
    """Normed rows as inputs of a product; `sizes` is (rows, width)."""
    words, counter = queue
    num_rows, size = sizes
    xs, ws, ys = pointer(residual, _F32), pointer(weight, _F32), pointer(out, kind)
    row = take(words, counter)
    while row < num_rows:
        base = row * size
        scale = norm_scale(xs, base, size, eps)
        for first in range(0, size, PANEL):
            place = input_index(mode, row, first, size)
            scale_run(xs, base + first, scale, ws, first, ys, place, PANEL, kind)
        row = take(words, counter)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _attend(
    queue: Any,
    workers: Any,
    tensors: Any,
    angles: Any,
    indices: Any,
    counts: Any,
    sizes: Any,
    kind: Any,
    mode: Any,
) -> Any:
    """Rotate, store and attend, by units of one sequence and one range of its KV heads."""
    words, counter = queue
    _, num_sequences, max_blocks = counts
    _, _, num_heads, num_kv_heads, head_dim, block_size, lanes = sizes
    group = num_heads // num_kv_heads
    ranges = min(workers, num_kv_heads)
    width, size = (num_heads + 2 * num_kv_heads) * head_dim, element_bytes(kind)
    starts = pointer(indices[0], np.int32(0))
    unit = take(words, counter)
    while unit < num_sequences * ranges:
        current, unit = unit, take(words, counter)
        sequence, part = current // ranges, current % ranges
        first, last = part * num_kv_heads // ranges, (part + 1) * num_kv_heads // ranges
        for row in range(np.int64(starts[sequence]), np.int64(starts[sequence + 1])):
            at, angle = tensors[0] + row * width * size, angles + row * head_dim * 4
            for head in range(first * group, last * group):
                rotate_head(at + head * head_dim * size, angle, head_dim, kind)
            for head in range(num_heads + first, num_heads + last):
                rotate_head(at + head * head_dim * size, angle, head_dim, kind)
        attend_item(
            tensors,
            indices,
            current,
            ranges,
            min(unit, num_sequences * ranges - 1),
            (width, width),
            (block_size, lanes, num_kv_heads, head_dim),
            (group, max_blocks),
            kind,
            mode,
        )


@compiled()
def _run_layers(
    worker: Any,
    workers: Any,
    words: Any,
    weights: Any,
    tensors: Any,
    indices: Any,
    counts: Any,
    sizes: Any,
    eps: Any,
    configuration: Any,
    kind: Any,
    mode: Any,
) -> Any:
    """What one worker does in a step. Addresses are those of `CpuStack.run`."""
    shared = pointer(words.ctypes.data, np.int64(0))
    table, caches = weights
    residual, angles, normed, qkv, attended, inner, rooms = tensors
    num_rows, _, _ = counts
    hidden, intermediate, num_heads, num_kv_heads, head_dim, _, _ = sizes
    query = num_heads * head_dim
    width = query + 2 * num_kv_heads * head_dim
    element = element_bytes(kind)
    own = rooms + worker * _ROOM_BYTES
    ways = ((own, own + _SUMS_BYTES), kind, mode)
    begin_products(mode, configuration)
    for layer in range(len(table)):
        at, w = layer * _PHASES, table[layer]
        after = table[(layer + 1) % len(table), 2]
        _norm((shared, at), residual, w[0], normed, (num_rows, hidden), eps, kind, mode)
        meet(shared, workers)
        panels = (num_rows, hidden, width // PANEL)
        _multiply(STORE, (shared, at + 1), normed, panels, (w[2], w[3]), (qkv, width), ways)
        meet(shared, workers)
        keys, values = qkv + query * element, qkv + (width - num_kv_heads * head_dim) * element
        addresses = (qkv, keys, values, attended, caches[layer])
        _attend((shared, at + 2), workers, addresses, angles, indices, counts, sizes, kind, mode)
        meet(shared, workers)
        panels, out = (num_rows, query, hidden // PANEL), (residual, hidden)
        _multiply(ADD, (shared, at + 3), attended, panels, (w[3], w[4]), out, ways)
        meet(shared, workers)
        _norm((shared, at + 4), residual, w[1], normed, (num_rows, hidden), eps, kind, mode)
        meet(shared, workers)
        panels, gated = (num_rows, hidden, 2 * intermediate // PANEL), (inner, intermediate)
        _multiply(GATE, (shared, at + 5), normed, panels, (w[4], w[5]), gated, ways)
        meet(shared, workers)
        panels = (num_rows, intermediate, hidden // PANEL)
        _multiply(ADD, (shared, at + 6), inner, panels, (w[5], after), out, ways)
        meet(shared, workers)
    end_products(mode)

"""A head of the speech model: one product by a team of threads, sums and logits in float32.

The output width need not fill panels. A row is summed in one order whatever the other rows are
(docs/adr/0004).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit

from .cpu_math import compiled, marker, narrow, pointer
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
from .cpu_team import Team, meet, new_counters, reset_counters, take
from .cpu_tiles import tile_configuration

_F32 = np.float32(0)


class CpuHead:
    """y = x W^T on the CPU.

    Args:
        weight: [out_features, in_features], float32 or bfloat16; in_features is a multiple of
            `PANEL`. Copied.
        team: who runs it.
    """

    def __init__(self, weight: torch.Tensor, team: Team) -> None:
        self._outputs, self._inputs = weight.shape
        self._panels = Panels(F.pad(weight, (0, 0, 0, -self._outputs % PANEL)))
        self._mode, self._configuration = choose_mode(weight.dtype), tile_configuration()
        self._kind = marker(weight.dtype)
        self._team, self._words = team, new_counters(2)
        self._rows = torch.zeros(0, self._inputs, dtype=weight.dtype)
        self._rooms = torch.empty(0, 0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: float32 [N, in_features], rounded to the weight's type, to float32
        [N, out_features]."""
        workers, count = torch.get_num_threads(), len(x)
        self._reserve(workers, count)
        x, out = x.contiguous(), torch.empty(count, self._outputs)
        reset_counters(self._words)
        self._team.run(
            workers,
            _multiply,
            self._words,
            (x.data_ptr(), self._rows.data_ptr(), self._panels.record.ctypes.data, out.data_ptr()),
            (count, self._inputs, self._outputs),
            (self._rooms.data_ptr(), self._rooms.stride(0) * 4),
            self._configuration.ctypes.data,
            self._kind,
            self._mode,
        )
        return out

    def _reserve(self, workers: int, count: int) -> None:
        """Whole blocks of rows, because they are read and written whole; for each worker scratch,
        then sums."""
        if len(self._rows) < count or len(self._rooms) < workers:
            rows = max(len(self._rows), -(-count // BLOCK_ROWS) * BLOCK_ROWS)
            self._rows = torch.zeros(rows, self._inputs, dtype=self._rows.dtype)
            self._rooms = torch.empty(workers, SCRATCH_BYTES // 4 + rows * PANEL)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _round_rows(queue: Any, x: Any, rows: Any, sizes: Any, kind: Any, mode: Any) -> Any:
    """Activations in the weight's type and the products' order, row by row as they are taken."""
    words, counter = queue
    count, inputs, _ = sizes
    source, target = pointer(x, _F32), pointer(rows, kind)
    row = take(words, counter)
    while row < count:
        for first in range(0, inputs, PANEL):
            place = input_index(mode, row, first, inputs)
            for i in range(PANEL):
                target[place + i] = narrow(source[row * inputs + first + i], kind)
        row = take(words, counter)


@compiled()
def _multiply(
    worker: Any,
    workers: Any,
    words: Any,
    tensors: Any,
    sizes: Any,
    rooms: Any,
    configuration: Any,
    kind: Any,
    mode: Any,
) -> Any:
    """What one worker does: rows, then panels, as they are taken."""
    shared = pointer(words.ctypes.data, np.int64(0))
    x, rows, weight, out = tensors
    count, inputs, outputs = sizes
    scratch = rooms[0] + worker * rooms[1]
    block = scratch + SCRATCH_BYTES
    sums, target = pointer(block, _F32), pointer(out, _F32)
    begin_products(mode, configuration)
    _round_rows((shared, 0), x, rows, sizes, kind, mode)
    meet(shared, workers)
    panel = take(shared, 1)
    while panel * PANEL < outputs:
        following = panel_address(weight, panel + workers)
        multiply_panel(mode, rows, count, weight, panel, following, inputs, block, scratch)
        width = min(PANEL, outputs - panel * PANEL)
        for row in range(count):
            for column in range(width):
                target[row * outputs + panel * PANEL + column] = sums[row * PANEL + column]
        panel = take(shared, 1)
    end_products(mode)
    meet(shared, workers)

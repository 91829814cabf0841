"""A head of the speech model: one product by a team of threads, sums and logits in float32.

The output width need not fill panels. A row is summed in one order whatever the other rows are
(docs/adr/0004).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .cpu_math import compiled, pointer
from .cpu_panels import (
    BLOCK_ROWS,
    PANEL,
    arrange_rows,
    begin_products,
    choose_mode,
    end_products,
    multiply_panel,
    pack_panels,
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
        self._panels = pack_panels(F.pad(weight, (0, 0, 0, -self._outputs % PANEL)))
        self._mode, self._configuration = choose_mode(weight.dtype), tile_configuration()
        self._team, self._words = team, new_counters(1)
        self._rows = torch.zeros(0, self._inputs, dtype=weight.dtype)
        self._rooms = torch.empty(0, 0)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply: float32 [N, in_features], rounded to the weight's type, to float32
        [N, out_features]."""
        workers, count = torch.get_num_threads(), len(x)
        self._reserve(workers, count)
        self._rows[:count] = x
        out = torch.empty(count, self._outputs)
        reset_counters(self._words)
        self._team.run(
            workers,
            _multiply,
            self._words,
            (self._rows.data_ptr(), self._panels.data_ptr(), out.data_ptr()),
            (count, self._inputs, self._outputs),
            (self._rooms.data_ptr(), self._rooms.stride(0) * 4, len(self._rows) * PANEL * 4),
            (self._configuration.ctypes.data, self._rows.element_size()),
            self._mode,
        )
        return out

    def _reserve(self, workers: int, count: int) -> None:
        """Whole blocks of rows, because they are read and written whole; for each worker sums, and
        then the rows in its own order."""
        if len(self._rows) < count or len(self._rooms) < workers:
            rows = max(len(self._rows), -(-count // BLOCK_ROWS) * BLOCK_ROWS)
            self._rows = torch.zeros(rows, self._inputs, dtype=self._rows.dtype)
            self._rooms = torch.empty(workers, rows * (PANEL + self._inputs))


@compiled()
def _multiply(
    worker: Any,
    workers: Any,
    words: Any,
    tensors: Any,
    sizes: Any,
    rooms: Any,
    settings: Any,
    mode: Any,
) -> Any:
    """What one worker does: panels as they are taken."""
    shared = pointer(words.ctypes.data, np.int64(0))
    rows, panels, out = tensors
    count, inputs, outputs = sizes
    configuration, element = settings
    room = rooms[0] + worker * rooms[1]
    sums, target = pointer(room, _F32), pointer(out, _F32)
    begin_products(mode, configuration)
    arranged = arrange_rows(mode, rows, count, inputs, room + rooms[2])
    panel = take(shared, 0)
    while panel * PANEL < outputs:
        at = panels + panel * PANEL * inputs * element
        following = at + workers * PANEL * inputs * element
        multiply_panel(mode, arranged, count, at, inputs, room, following, inputs)
        width = min(PANEL, outputs - panel * PANEL)
        for row in range(count):
            for column in range(width):
                target[row * outputs + panel * PANEL + column] = sums[row * PANEL + column]
        panel = take(shared, 0)
    end_products(mode)
    meet(shared, workers)

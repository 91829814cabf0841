"""`AttentionBackend`: write new keys and values to the paged cache, then attend over it.

Every backend takes the same arguments and is compared with `reference` in the tests. Causal
attention over [cached positions | new positions] of each sequence; sequences are packed one after
the other without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, slots=True, eq=False)
class AttentionMetadata:
    """Where the packed positions of one step belong. B sequences, N positions.

    Attributes:
        query_start_loc: int32 [B + 1]; positions of sequence b are [q[b], q[b + 1]).
        seq_lens: int32 [B]; positions of the sequence after this step.
        block_tables: int32 [B, max_blocks]; entries past the sequence's end are not read.
        slot_mapping: int64 [N]; block * block_size + offset where a position's KV goes.
        max_query_len: largest number of new positions of a sequence.
        max_seq_len: largest of `seq_lens`.
    """

    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    block_tables: torch.Tensor
    slot_mapping: torch.Tensor
    max_query_len: int
    max_seq_len: int


@dataclass(frozen=True, slots=True, eq=False)
class CpuCaches:
    """Where a CPU backend's KV cache lies, for a kernel that runs whole layers.

    Attributes:
        addresses: int64 [layers], one layer each; its order is that of `cpu_kernel`.
        block_size: positions in a block.
        lanes: positions for which a block has room.
    """

    addresses: npt.NDArray[np.int64]
    block_size: int
    lanes: int


class AttentionBackend(Protocol):
    """Paged attention of one model. Holds the KV cache of all layers.

    A backend may say `takes_padding = True`: it never waits for the device, and rows with slots
    below 0 and sequences of length 0 do no harm, so that its steps can be captured in a graph. It
    may have `cpu_caches` (`CpuCaches`): whole layers may then be run without it, on its cache.
    """

    def forward(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        metadata: AttentionMetadata,
    ) -> torch.Tensor:
        """Store key, value and attend.

        Args:
            layer: index of the layer.
            query: [N, num_heads, head_dim], rotated.
            key: [N, num_kv_heads, head_dim], rotated.
            value: [N, num_kv_heads, head_dim].
            metadata: where the positions belong.

        Returns:
            [N, num_heads, head_dim] in the dtype of `query`.
        """

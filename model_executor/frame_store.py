"""`FrameStore`: the frames and hidden states of every sequence, paged, on the device.

The speech model writes one row per drawn frame, reads rows back as its next input (also when a
preempted sequence is replayed), and the vocoder gathers windows of them. Codes of prompt frames
live here too, so that one gather serves every frame position. Pages come from one pool that grows;
which sequence owns which page is host data. It does not know what a frame means.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

PAGE_SIZE = 64  # frames
FIRST_PAGES = 32
SCRATCH_ROW = 0  # belongs to no sequence, nor does its page: padding rows are written there
BLANK_ROW = 1  # of the same page; zeros for ever, which every reader takes for a frame

LongArray = npt.NDArray[np.int64]


class FrameStore:
    """Rows of codes (and of hidden states, where the vocoder wants them).

    Args:
        num_codebooks: ids in a frame.
        hidden_size: width of a hidden state; 0 keeps none.
        device: where the rows live.
        num_pages: to begin with. Growing moves the rows, so that captured graphs, which hold
            their address, must be captured anew.
    """

    def __init__(
        self,
        num_codebooks: int,
        hidden_size: int,
        device: torch.device,
        *,
        num_pages: int = FIRST_PAGES,
    ) -> None:
        rows = num_pages * PAGE_SIZE
        self.codes = torch.zeros(rows, num_codebooks, dtype=torch.int64, device=device)
        self.hidden = torch.zeros(rows, hidden_size, device=device)
        self._free = list(range(num_pages - 1, SCRATCH_ROW, -1))
        self._pages: dict[str, list[int]] = {}

    @property
    def num_sequences(self) -> int:
        """Sequences that hold a place."""
        return len(self._pages)

    def add(self, seq_id: str) -> None:
        """Give a sequence a place; it holds no page yet."""
        self._pages[seq_id] = []

    def remove(self, seq_id: str) -> None:
        """Take a sequence's pages back."""
        self._free.extend(self._pages.pop(seq_id, ()))

    def reserve(self, seq_id: str, num_frames: int) -> None:
        """See to it that a sequence has rows for so many frames."""
        pages = self._pages[seq_id]
        while len(pages) * PAGE_SIZE < num_frames:
            if not self._free:
                self._grow()
            pages.append(self._free.pop())

    def rows(self, seq_id: str, start: int, end: int) -> LongArray:
        """Rows int64 [end - start] of a sequence's frames."""
        frames = np.arange(start, end, dtype=np.int64)
        pages = np.array(self._pages[seq_id], dtype=np.int64)
        return pages[frames // PAGE_SIZE] * PAGE_SIZE + frames % PAGE_SIZE

    def row(self, seq_id: str, frame: int) -> int:
        """Row of one frame."""
        return self._pages[seq_id][frame // PAGE_SIZE] * PAGE_SIZE + frame % PAGE_SIZE

    def write(self, rows: torch.Tensor, codes: torch.Tensor, hidden: torch.Tensor) -> None:
        """Store S frames.

        Args:
            rows: int64 [S].
            codes: int64 [S, num_codebooks].
            hidden: float32 [S, hidden_size]; ignored when none are kept.
        """
        self.codes.index_copy_(0, rows, codes)
        if self.hidden.shape[1]:
            self.hidden.index_copy_(0, rows, hidden)

    def check_integrity(self) -> None:
        """Every page is free or owned once.

        Raises:
            AssertionError: a page leaked or has two owners.
        """
        owned = [page for pages in self._pages.values() for page in pages]
        assert sorted(owned + self._free) == list(range(1, len(self.codes) // PAGE_SIZE))

    def _grow(self) -> None:
        pages = len(self.codes) // PAGE_SIZE
        self.codes = torch.cat([self.codes, torch.zeros_like(self.codes)])
        self.hidden = torch.cat([self.hidden, torch.zeros_like(self.hidden)])
        self._free = list(range(2 * pages - 1, pages - 1, -1))
        if self.codes.is_cuda:
            # The vocoder reads frames on another stream, which does not wait for this copy.
            torch.cuda.current_stream(self.codes.device).synchronize()

"""A few threads that run one compiled kernel together and meet inside it.

Waking a thread takes 0.1 ms on a virtual machine, more than a small product, and a step of a Llama
has about a hundred products. So a step is one kernel that every thread enters once. Inside, threads
take units of work from shared counters and meet at barriers, where they spin for a moment and then
let others run: a thread whose core is taken by another program does not burn the others'.

A thread of OpenMP that spins after some product of torch's keeps a core from the team for
milliseconds; `OMP_WAIT_POLICY=PASSIVE` (see `stretto.__init__`) prevents it.
"""

from __future__ import annotations

import platform
import sys
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

CACHE_LINE_WORDS = 8
_ARRIVED, _ROUND = 0, CACHE_LINE_WORDS
_FIRST_COUNTER = 2 * CACHE_LINE_WORDS
_SPINS = 2000  # about 0.1 ms; then the processor is offered to others

_INT64 = ir.IntType(64)
_ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
_offer_processor = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)

_Work = tuple[Callable[..., None], tuple[Any, ...]]


def new_counters(count: int) -> npt.NDArray[np.int64]:
    """The shared words of one team: a barrier and `count` counters, each on a line of its own."""
    return np.zeros(_FIRST_COUNTER + count * CACHE_LINE_WORDS, np.int64)


def reset_counters(words: npt.NDArray[np.int64]) -> None:
    """All counters to zero, between two kernels."""
    words[_FIRST_COUNTER:] = 0


@intrinsic  # type: ignore[untyped-decorator]
def _add(_c: Any, words: Any, index: Any, amount: Any) -> Any:
    """words[index] += amount as one operation; the value before."""

    def codegen(_context: Any, builder: Any, _s: Any, args: Any) -> Any:
        place = builder.gep(args[0], [args[1]])
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(words, index, amount), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _read(_c: Any, words: Any, index: Any) -> Any:
    def codegen(_context: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "seq_cst", 8)

    return types.int64(words, index), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _pause(_c: Any) -> Any:
    def codegen(context: Any, builder: Any, _s: Any, _a: Any) -> Any:
        if _ON_X86:
            signature = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [])
        return context.get_dummy_value()

    return types.none(), codegen


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def take(words: Any, counter: Any) -> Any:
    """The next unit of work of a counter: 0, 1, 2, ... for whoever asks. For compiled code."""
    return _add(words, np.int64(_FIRST_COUNTER + counter * CACHE_LINE_WORDS), np.int64(1))


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def meet(words: Any, workers: Any) -> Any:
    """Wait until all workers are here; what they wrote before is seen after. For compiled code."""
    if workers == 1:
        return
    current = _read(words, np.int64(_ROUND))
    if _add(words, np.int64(_ARRIVED), np.int64(1)) == workers - 1:
        _add(words, np.int64(_ARRIVED), np.int64(-workers))
        _add(words, np.int64(_ROUND), np.int64(1))
        return
    spins = 0
    while _read(words, np.int64(_ROUND)) == current:
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            _offer_processor()


class Team:
    """Threads that wait to run kernels together with the caller. One caller at a time."""

    def __init__(self) -> None:
        self._size = 1
        self._work: SimpleQueue[_Work | None] = SimpleQueue()

    def run(self, workers: int, function: Callable[..., None], *args: Any) -> None:
        """`function(worker, workers, *args)` on all workers at once, the caller being worker 0;
        returns when the caller's own is done. The function must end with a barrier (`meet`), and
        must not raise."""
        if workers != self._size:
            self._resize(workers)
        for worker in range(1, workers):
            self._work.put((function, (worker, workers, *args)))
        function(0, workers, *args)

    def _resize(self, workers: int) -> None:
        _dismiss(self._work, self._size - 1)
        self._size, self._work = workers, SimpleQueue()
        for _ in range(workers - 1):
            threading.Thread(
                target=_serve, args=(self._work,), name="stretto-layers", daemon=True
            ).start()
        weakref.finalize(self, _dismiss, self._work, workers - 1)


def _serve(work: SimpleQueue[_Work | None]) -> None:
    while (item := work.get()) is not None:
        function, args = item
        function(*args)
        del item, function, args  # the team may go away while this thread waits


def _dismiss(work: SimpleQueue[Any], count: int) -> None:
    for _ in range(count):
        work.put(None)

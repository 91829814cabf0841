"""That freed audio buffers go back to the system, counted by the C library itself."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

# Asks mallinfo2(3) how many blocks are mapped singly (hblks).
_COUNT = """
import ctypes
from stretto.server.memory import return_freed_memory

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if {asked}:
    assert return_freed_memory()
libc.free(libc.malloc(4 << 20))  # what makes glibc raise its threshold
before = libc.mallinfo2().hblks
held = libc.malloc(1 << 20)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
@pytest.mark.parametrize(("asked", "mapped"), [(False, 0), (True, 1)])
def test_a_large_buffer_is_mapped_singly_even_after_a_larger_one(asked: bool, mapped: int) -> None:
    code = _COUNT.format(asked=asked)
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == mapped

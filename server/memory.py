"""`return_freed_memory`: let the C library give large freed blocks back to the system.

Audio comes and goes in buffers of hundreds of KiB. By default glibc takes the first few it frees as
a reason to keep all later ones on its heap, up to 32 MiB each, where what lives between them pins
what is free: a server that has been busy stays several times its size. A fixed threshold ends that
(mallopt(3), M_MMAP_THRESHOLD). It is a setting of the whole process, so only a server that owns its
process asks for it. This module measures nothing and frees nothing by itself.
"""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # malloc.h
_THRESHOLD = 128 << 10  # bytes; glibc's own initial value


def return_freed_memory() -> bool:
    """Fix the size from which blocks are mapped singly; False where the C library is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl and others have no such setting
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _THRESHOLD))

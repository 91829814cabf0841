"""Compiled kernels on disk are forgotten when any source of a kernel has changed.

numba keeps a kernel with a fingerprint of the one file that defines it. Our kernels are made of
pieces from many files, so after an upgrade, or an edit, an old kernel could meet new data. A stamp
beside the kernels tells which sources they were made of.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache, lru_cache
from pathlib import Path

_SOURCES = Path(__file__).parents[1]
_STAMP = "stretto-kernels.sha256"


@lru_cache(maxsize=1)
def fingerprint() -> str:
    """Of every source that a kernel may be made of."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def forget_old_kernels(folder: Path) -> None:
    """Remove numba's indices from a cache folder unless they belong to the present sources; once
    per process. Does nothing where the folder cannot be written."""
    stamp = folder / _STAMP
    with contextlib.suppress(OSError):
        if stamp.exists() and stamp.read_text(encoding="ascii") == fingerprint():
            return
        for index in folder.glob("*.nbi"):
            index.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_text(fingerprint(), encoding="ascii")

"""`cut_after`: break a connection whose client takes no bytes, instead of waiting for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cut_after(transport: asyncio.BaseTransport | None, seconds: float) -> Iterator[None]:
    """Abort the transport when the block, one write, takes longer than `seconds`.

    Raises:
        ConnectionResetError: there is no transport: the client has left.
    """
    if not isinstance(transport, asyncio.Transport):
        raise ConnectionResetError("the client has left")
    cut = asyncio.get_running_loop().call_later(seconds, transport.abort)
    try:
        yield
    finally:
        cut.cancel()

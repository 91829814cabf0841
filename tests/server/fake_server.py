"""A server process over a fake engine, as the tests of signals start it; prints its address."""

from __future__ import annotations

import asyncio
import logging
import sys

from stretto.engine.fake_engine import FakeEngine, FakeEngineConfig
from stretto.server.app import serve
from stretto.server.config import ServerConfig


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
    engine = FakeEngine(FakeEngineConfig(pace=1.0))
    asyncio.run(serve(ServerConfig(port=0, voices_dir=sys.argv[1]), engine, max_num_seqs=64))


if __name__ == "__main__":
    main()

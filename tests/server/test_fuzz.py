"""Fuzzing from `/openapi.json`: two thousand requests, valid and not; no 5xx, no hang, no leak."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

from tests.server.support import Server, serving

PATIENCE_S = 120.0
EXAMPLES = {
    "POST /v1/audio/speech": 1300,
    "POST /v1/audio/speech/batch": 300,
    "POST /v1/audio/voices": 200,
    "DELETE /v1/audio/voices/{voice}": 100,
    "GET /v1/models/{model}": 100,
}
MIN_REQUESTS = 2000
ROUTES_WITHOUT_INPUT = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def serving_in_a_thread(tmp_path: Path) -> Iterator[Server]:
    """The server in a loop of its own, for the blocking client; its final checks run here too."""
    started: Queue[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Queue()
    failures: list[BaseException] = []

    async def serve() -> None:
        async with serving(tmp_path, max_input_chars=2000, max_batch_items=8) as server:
            stop = asyncio.Event()
            started.put((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server, loop, stop = started.get(timeout=PATIENCE_S)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not failures, failures


class Fuzzer:
    """Sends cases and judges answers."""

    def __init__(self, url: str) -> None:
        self.session = requests.Session()
        self.url = url
        self.sent = 0
        self.statuses: set[int] = set()

    def send(self, case: schemathesis.Case) -> None:
        """One request; the answer must be of the described kind, and never a 5xx."""
        self.sent += 1
        response = case.call(base_url=self.url, session=self.session, timeout=PATIENCE_S)
        self.statuses.add(response.status_code)
        assert response.status_code < 500, (response.status_code, response.content, case)
        assert response.headers["x-request-id"]
        if response.status_code >= 400:
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}

    def run(self, operation: Any, examples: int) -> None:
        """Valid and invalid cases of one operation; the same ones on every run.

        Any string is a valid path, so only bodies have invalid cases.
        """
        modes = [GenerationMode.POSITIVE, *[GenerationMode.NEGATIVE] * bool(operation.body)]
        for mode in modes:

            @settings(
                max_examples=examples // len(modes),
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                self.send(case)

            check()


def test_fuzz(tmp_path: Path) -> None:
    with serving_in_a_thread(tmp_path) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        fuzzer = Fuzzer(server.url)
        for result in schema.get_all_operations():
            operation = result.ok()
            if (examples := EXAMPLES.get(operation.label)) is not None:
                fuzzer.run(operation, examples)
            elif operation.label not in ("GET /ready",):
                for _ in range(ROUTES_WITHOUT_INPUT):
                    fuzzer.send(operation.Case())
        while fuzzer.sent < MIN_REQUESTS:  # duplicates are not drawn twice; make up for them
            fuzzer.send(schema["/v1/audio/speech"]["POST"].Case(body={"input": f"{fuzzer.sent}"}))
        assert {200, 400} <= fuzzer.statuses

"""Answers to HTTP that no client library sends: JSON errors with an id, like every other error."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.server.support import Server, serving

PATIENCE_S = 60.0
END = "Host: x\r\nConnection: close\r\n"

BROKEN: list[tuple[str, int, str | None]] = [
    ("\x16\x03\x01\x02 no HTTP at all\r\n\r\n", 400, "invalid_http"),
    ("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_http"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    ("GET / HTTP/1.1\r\nA: " + "x" * 20_000 + "\r\n\r\n", 400, "invalid_http"),
    ("POST /v1/audio/speech HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400, "invalid_http"),
    (
        "POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        400,
        "invalid_http",
    ),
    (f"POST /v1/audio/speech HTTP/1.1\r\n{END}Expect: wonders\r\n\r\n", 417, None),
    (f"POST /nowhere HTTP/1.1\r\n{END}Expect: wonders\r\n\r\n", 417, None),
    (
        f"POST /v1/audio/speech HTTP/1.1\r\n{END}Content-Length: 99000000\r\n\r\n{{",
        413,
        "body_too_large",
    ),
    (f"GET /nowhere HTTP/1.1\r\n{END}\r\n", 404, "not_found"),
    (f"GET /static/../app.py HTTP/1.1\r\n{END}\r\n", 404, "not_found"),
    (f"GET /static/app.py HTTP/1.1\r\n{END}\r\n", 404, "not_found"),
    (f"GET /v1/audio/speech HTTP/1.1\r\n{END}\r\n", 405, "method_not_allowed"),
    (f"OPTIONS /v1/audio/speech HTTP/1.1\r\n{END}\r\n", 405, "method_not_allowed"),
    (f"OPTIONS * HTTP/1.1\r\n{END}\r\n", 404, "not_found"),
    (f"GET /v1/audio/speech/stream HTTP/1.1\r\n{END}\r\n", 400, None),
]


async def exchange(server: Server, sent: str) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes; status, headers with lower-case names, and body of the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent.encode("latin-1"))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = b""
    if not sent.startswith("HEAD"):
        length = int(headers.get("content-length", 0))
        body = await asyncio.wait_for(reader.readexactly(length), PATIENCE_S)
    writer.close()
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize(("sent", "status", "code"), BROKEN)
async def test_it_is_a_json_error_with_an_id(
    sent: str, status: int, code: str | None, tmp_path: Path
) -> None:
    async with serving(tmp_path) as server:
        got, headers, body = await exchange(server, sent)
        assert (await server.speak())[0] == 200, "and the server goes on"
    error = json.loads(body)["error"]
    assert (got, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert headers["content-type"].startswith("application/json")
    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/nowhere", 404), ("/v1/audio/speech/stream", 400)]
)
async def test_head_has_an_id_and_no_body(path: str, status: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        got, headers, _ = await exchange(server, f"HEAD {path} HTTP/1.1\r\n{END}\r\n")
    assert got == status
    assert headers["x-request-id"].startswith("req_")


async def test_every_answer_has_its_own_id(tmp_path: Path) -> None:
    ids = set()
    async with serving(tmp_path) as server:
        paths = ("/", "/static/page.js", "/health", "/ready", "/metrics", "/openapi.json")
        for path in (*paths, "/v1/models", "/v1/audio/voices", "/nowhere"):
            async with server.session.get(f"{server.url}{path}") as response:
                ids.add(response.headers["x-request-id"])
        socket = await server.session.ws_connect(f"{server.url}/v1/audio/speech/stream")
        ids.add(socket._response.headers["x-request-id"])
        await socket.close()
        body = {"input": "x"}
        async with server.session.post(f"{server.url}/v1/audio/speech", json=body) as response:
            ids.add(response.headers["x-request-id"])
    assert len(ids) == 11


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Basic secret", "Bearer \xff\xfe", "secret"]
)
async def test_a_wrong_key_is_told_whatever_its_bytes(header: str, tmp_path: Path) -> None:
    async with serving(tmp_path, api_key="secret") as server:
        sent = f"GET /v1/models HTTP/1.1\r\n{END}Authorization: {header}\r\n\r\n"
        status, headers, body = await exchange(server, sent)
        assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
        assert headers["www-authenticate"] == "Bearer"
        right = f"GET /v1/models HTTP/1.1\r\n{END}Authorization: bearer secret\r\n\r\n"
        assert (await exchange(server, right))[0] == 200

# SPDX-License-Identifier: Apache-2.0
"""Starlette, FastAPI, Django Channels and Quart: an answer, server-sent events, a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from harness import ASGI_CARRIERS, SLOW, Server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FRAMEWORKS = ("starlette", "fastapi", "channels", "quart")
AT_ONCE = 30


@pytest.fixture(
    params=[(name, kind) for name in FRAMEWORKS for kind in ASGI_CARRIERS], ids="-".join
)
def example(request: pytest.FixtureRequest, serve: Callable[..., Server]) -> tuple[str, Server]:
    """The name of a framework, and a server with its example in one of the carriers."""
    name, kind = request.param
    return name, serve(*ASGI_CARRIERS[kind], EXAMPLES / name / "webapp.py", fibers=kind == "fibers")


def test_hello(example: tuple[str, Server]) -> None:
    name, server = example
    with httpx.Client(base_url=server.url, timeout=30 * SLOW, trust_env=False) as client:
        for _ in range(3):
            answer = client.get("/")
            assert answer.status_code == 200
            assert answer.json()["framework"] == name
        assert client.get("/nowhere").status_code == 404


def read_events(server: Server, count: int) -> list[str]:
    with httpx.stream(
        "GET", f"{server.url}/events?count={count}", timeout=30 * SLOW, trust_env=False
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [line for line in answer.iter_lines() if line]


def test_server_sent_events(example: tuple[str, Server]) -> None:
    _, server = example
    wanted = [line for n in range(5) for line in (f"id: {n}", f"data: tick {n}")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for lines in pool.map(lambda _: read_events(server, 5), range(AT_ONCE)):
            assert lines == wanted


def test_a_reader_of_events_leaves(example: tuple[str, Server]) -> None:
    _, server = example
    with httpx.stream(
        "GET", f"{server.url}/events?count=100000", timeout=30 * SLOW, trust_env=False
    ) as answer:
        assert next(answer.iter_lines()) == "id: 0"
    assert server.get("/").status == 200


def test_websocket(example: tuple[str, Server]) -> None:
    name, server = example
    if name == "channels":  # it says so, and is right
        server.expect_log("GET /nowhere: the application failed")
    url = f"ws://127.0.0.1:{server.port}"
    with connect(f"{url}/ws", proxy=None) as socket:
        for text in ("one", "zwei", "три", "x" * 100_000):
            socket.send(text)
            assert socket.recv(timeout=30 * SLOW) == f"you said {text}"
    with pytest.raises((InvalidStatus, ConnectionClosed)):  # refused
        connect(f"{url}/nowhere", proxy=None).recv()
    assert server.get("/").status == 200

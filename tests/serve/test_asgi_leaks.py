# SPDX-License-Identifier: Apache-2.0
"""Nothing is left of thousands of ASGI requests: objects, Python's memory, the C library's.

PELTON_LEAK_ROUNDS (1000) says how many. The server counts itself, after a collection, when it has
warmed up and again after that many; what a request leaves would be there that often.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
from collections.abc import Callable

import pytest
from harness import SLOW, Server
from wsraw import HANDSHAKE, Raw

Serve = Callable[..., Server]

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "1000"))
# Not one object, and not one byte, for each; caches and free lists may still move a little.
OBJECTS_MAX = 20
BYTES_MAX = max(16 * ROUNDS, 16384)  # the least that malloc gives is 32

APP = """
import asyncio, ctypes, gc, json, os, tracemalloc
from collections import Counter

class Figures(ctypes.Structure):  # struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Figures

async def start(send, **more):
    await send({"type": "http.response.start", "status": 200, "headers": [], **more})

async def body(send, data=b"", more=False):
    await send({"type": "http.response.body", "body": data, "more_body": more})

async def hello(scope, receive, send):
    await start(send)
    await body(send, b"hello")

async def echo(scope, receive, send):
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        parts.append(message["body"])
        more = message.get("more_body")
    await start(send)
    await body(send, b"".join(parts))

async def stream(scope, receive, send):
    await start(send, trailers=True)
    for _ in range(5):
        await asyncio.sleep(0)
        await body(send, b"part", True)
    await body(send)
    await send({"type": "http.response.trailers", "headers": [(b"x-t", b"1")]})

async def fails(scope, receive, send):
    local = ["what only this request knows"] * 10
    raise ValueError("on purpose")

async def flood(scope, receive, send):
    await start(send)
    while True:
        await body(send, b"x" * 10_000, True)

async def events(scope, receive, send):
    await start(send)
    await body(send, b"data: 1\\n\\n", True)
    while (await receive())["type"] != "http.disconnect":
        pass

async def cancels(scope, receive, send):
    await receive()
    try:
        async with asyncio.timeout(0):
            await receive()
    except TimeoutError:
        pass
    await hello(scope, receive, send)

async def socket(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})

async def refuses(scope, receive, send):
    await send({"type": "websocket.close"})

async def figures(scope, receive, send):
    if scope["query_string"] == b"trace":
        tracemalloc.start()
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0.01)
    kinds = Counter(type(o).__name__ for o in gc.get_objects())
    heap = mallinfo()
    found = {
        "kinds": kinds,
        "python": tracemalloc.get_traced_memory()[0],
        "c": heap.uordblks + heap.hblkhd,
        "tasks": len(asyncio.all_tasks()) - 1,
    }
    await start(send)
    await body(send, json.dumps(found).encode())

async def app(scope, receive, send):
    await globals()[scope["path"].strip("/")](scope, receive, send)
"""


class Client:
    """Asks in one way, again and again."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.connection = http.client.HTTPConnection(*server.address, timeout=20 * SLOW)

    def ask(self, path: str, body: bytes = b"", status: int = 200) -> None:
        self.connection.request("POST" if body else "GET", path, body or None)
        response = self.connection.getresponse()
        data = response.read()
        assert response.status == status
        if body:
            assert data == body

    def leave(self, data: bytes, count: int, *, reset: bool) -> None:
        """Sends DATA, and leaves after COUNT bytes of the answer. Then waits for the server."""
        with socket.create_connection(self.server.address, 20 * SLOW) as sock:
            sock.sendall(data)
            while count > 0 and (got := sock.recv(count)):
                count -= len(got)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ask("/hello")

    def hello(self, n: int) -> None:
        self.ask("/hello")

    def echo(self, n: int) -> None:
        self.ask("/echo", b"x" * (100_000 if n % 10 == 0 else 100))

    def stream(self, n: int) -> None:
        self.ask("/stream")

    def cancels(self, n: int) -> None:
        self.ask("/cancels")

    def fails(self, n: int) -> None:
        self.ask("/fails", status=500)

    def cut_answer(self, n: int) -> None:
        self.leave(b"GET /flood HTTP/1.1\r\nHost: h\r\n\r\n", 1000, reset=n % 2 == 0)

    def cut_events(self, n: int) -> None:
        self.leave(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n", 50, reset=n % 2 == 0)

    def cut_body(self, n: int) -> None:
        head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
        self.leave(head + b"x" * 70_000, 0, reset=n % 2 == 0)

    def websocket(self, n: int) -> None:
        with Raw(self.server, "socket") as raw:
            raw.send(0x81, b"x" * (n % 200))
            assert raw.frame() == (0x81, b"x" * (n % 200))
            raw.send(0x88, struct.pack("!H", 1000))
            assert raw.code() == 1000

    def cut_websocket(self, n: int) -> None:
        frame = b"\x81\xfe\x10\x00abcd" + bytes(100)
        self.leave(HANDSHAKE % b"socket" + frame, 50, reset=n % 2 == 0)

    def refused(self, n: int) -> None:
        self.leave(HANDSHAKE % b"refuses", 50, reset=False)


WAYS = "hello echo stream cancels fails cut_answer cut_events cut_body".split()
WAYS += "websocket cut_websocket refused".split()


def figures(server: Server, query: str = "") -> dict[str, object]:
    return json.loads(server.get(f"/figures{query}", timeout_s=20).body)


def too_much(before: dict[str, object], after: dict[str, object]) -> dict[str, int]:
    """What there is more of than any cache explains."""
    old, new = before["kinds"], after["kinds"]
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    more = {name: count - old.get(name, 0) for name, count in new.items()}
    found = {name: n for name, n in more.items() if n > OBJECTS_MAX}
    # The C library's heap is a sanitizer's under one.
    for name, limit in {"tasks": 0, "python": BYTES_MAX, "c": BYTES_MAX}.items():
        grown = int(str(after[name])) - int(str(before[name]))
        if grown > limit and (name != "c" or SLOW == 1):
            found[f"{name}, of all"] = grown
    return found


@pytest.mark.timeout(300 * SLOW)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left(serve: Serve, kind: tuple[str, ...], way: str) -> None:
    server = serve(
        *kind, "--disable-logging", "--ws-ping-interval", "0", app=APP,
        env={"MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    if way == "fails":
        server.expect_log("GET /fails: the application failed(.|\n)*on purpose")
    client = Client(server)
    one = getattr(client, way)
    for n in range(200):
        one(n)
    before = figures(server, "?trace")
    # What leaks does so each time; a cache, or one more buffer of a pool, comes once.
    with contextlib.closing(client.connection):
        for _ in range(5):
            for n in range(ROUNDS):
                one(n)
            after = figures(server)
            left = too_much(before, after)
            if not left:
                return
            before = after
    raise AssertionError(f"{ROUNDS} times more, and each time there are more of: {left}")

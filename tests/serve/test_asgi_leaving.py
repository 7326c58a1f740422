# SPDX-License-Identifier: Apache-2.0
"""A client that leaves in the middle of an ASGI answer: what is an application's fault then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Server
from wsraw import HANDSHAKE

Serve = Callable[..., Server]

APP = """
import asyncio, sys
import pelton

class FrameworksDisconnect(Exception):
    pass

async def heed(scope, receive, send):
    assert (await receive())["type"] == "http.disconnect"

async def raises(scope, receive, send):
    await heed(scope, receive, send)
    raise pelton.ClientDisconnected

async def deaf(scope, receive, send):
    print("deaf waits", file=sys.stderr)
    await asyncio.sleep(0.3)

async def handshake(receive, send):
    assert (await receive())["type"] == "websocket.connect"
    print("handshake waits", file=sys.stderr)
    assert (await receive())["type"] == "websocket.disconnect"
    print("handshake is over", file=sys.stderr)

async def write(scope, receive, send):
    while True:
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await asyncio.sleep(0.001)

async def wrap(scope, receive, send):
    try:
        await write(scope, receive, send)
    except OSError:
        raise FrameworksDisconnect()

async def cause(scope, receive, send):
    try:
        await write(scope, receive, send)
    except OSError as exc:
        raise RuntimeError("no more") from exc

async def group(scope, receive, send):
    try:
        await write(scope, receive, send)
    except OSError as exc:
        raise BaseExceptionGroup("of a task group", [exc, BaseExceptionGroup("inner", [exc])])

async def mistake(scope, receive, send):
    try:
        await write(scope, receive, send)
    except OSError:
        no_such_name

async def mixed(scope, receive, send):
    try:
        await write(scope, receive, send)
    except OSError as exc:
        raise BaseExceptionGroup("of a task group", [exc, ValueError("its own")])

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        return await handshake(receive, send)
    assert scope["type"] == "http"
    await receive()
    name = scope["path"][1:]
    if name != "late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
    try:
        await globals()["heed" if name == "late" else name](scope, receive, send)
    finally:
        print(f"{name} is over", file=sys.stderr)
"""


def leave(server: Server, name: str, wait_for: bytes = b"first") -> None:
    """Asks for /NAME, reads until WAIT_FOR, and closes the connection."""
    sock = server.connect()
    sock.sendall(f"GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    received = b""
    while wait_for not in received:
        received += sock.recv(4096)
    sock.close()
    server.wait_log(f"^{name} is over")


@pytest.mark.parametrize("name", ["heed", "raises", "write", "wrap", "cause", "group"])
def test_no_fault(serve: Serve, kind: tuple[str, ...], name: str) -> None:
    """It ends since its client has left: that is no failure. The fixture looks at the log."""
    server = serve(*kind, app=APP)
    leave(server, name)
    server.wait_log(rf'"GET /{name} HTTP/1.1" 200 .*error="client gone"')


def test_left_before_the_answer(serve: Serve, kind: tuple[str, ...]) -> None:
    server = serve(*kind, app=APP)
    leave(server, "late", wait_for=b"")
    server.wait_log(r'"GET /late HTTP/1.1" .*error="client gone"')
    assert '" 500 ' not in server.log


def test_left_before_the_handshake_was_answered(serve: Serve, kind: tuple[str, ...]) -> None:
    server = serve(*kind, app=APP)
    with server.connect() as sock:
        sock.sendall(HANDSHAKE % b"handshake")
        server.wait_log("^handshake waits")
    server.wait_log("^handshake is over")
    server.wait_log(r'"GET /handshake HTTP/1.1" .*error="client gone"')


def test_who_has_not_asked_has_not_heard(serve: Serve, kind: tuple[str, ...]) -> None:
    """That it returned in the middle of its answer is a mistake, though its client has left."""
    server = serve(*kind, app=APP)
    server.expect_log("/deaf: the application returned without completing its response")
    leave(server, "deaf")


@pytest.mark.parametrize(
    ("name", "says"),
    [("mistake", "NameError: name 'no_such_name'"), ("mixed", "ValueError: its own")],
)
def test_a_fault_of_its_own(serve: Serve, kind: tuple[str, ...], name: str, says: str) -> None:
    """What goes wrong beside it is said all the same."""
    server = serve(*kind, app=APP)
    server.expect_log("the application failed")
    leave(server, name)
    server.wait_log(says)

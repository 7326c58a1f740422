# SPDX-License-Identifier: Apache-2.0
"""The server's end, and what is not over then: generators, requests not begun, tasks that stay."""

from __future__ import annotations

import re
import signal
import socket
import struct
import time
from collections.abc import Callable

import pytest
from harness import Server, parse_responses
from test_asgi import HEAD
from wsraw import Raw

Serve = Callable[..., Server]

# --- Asynchronous generators ------------------------------------------------------------------

GENERATORS = (
    HEAD
    + """
async def ticks(name, cleans_up=0):
    try:
        while True:
            yield name
    finally:
        await asyncio.sleep(cleans_up)
        print("closed", name, flush=True)

kept = []

async def keeps(scope, receive, send):
    kept.append(ticks("kept"))
    await answer(send, await anext(kept[-1]))

async def drops(scope, receive, send):
    await answer(send, await anext(ticks("dropped")))

async def hangs(scope, receive, send):
    kept.append(ticks("hanging", 600))
    await answer(send, await anext(kept[-1]))
"""
)


def test_generators_are_closed(serve: Serve, kind: tuple[str, ...]) -> None:
    """One that nobody has any more at once, the rest with the server: their clean-up may wait."""
    server = serve(*kind, app=GENERATORS)
    assert server.get("/keeps").body == b"kept"
    assert server.get("/drops").body == b"dropped"
    server.wait_log("^closed dropped$")
    assert "closed kept" not in server.log
    assert server.stop() == 0
    assert "\nclosed kept\n" in server.log


def test_generators_that_do_not_end_are_given_up(serve: Serve, kind: tuple[str, ...]) -> None:
    server = serve(*kind, "--shutdown-timeout", "0.3", app=GENERATORS)
    server.expect_log("asynchronous generators did not end with the server")
    assert server.get("/hangs").body == b"hanging"
    assert server.stop() == 0
    assert "closed hanging" not in server.log


# --- Requests that have not begun -------------------------------------------------------------

# /blocks holds home in a call that waits: the loop goes on in another fiber, and reads what comes.
BLOCKS = (
    HEAD
    + """
import time

async def blocks(scope, receive, send):
    print("blocks", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
    await answer(send, "blocked")

async def waits(scope, receive, send):
    print("begun", flush=True)
    await answer(send, "waited")
"""
)


def ask(server: Server, path: str) -> socket.socket:
    sock = server.connect()
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    return sock


def until_end(sock: socket.socket) -> bytes:
    with sock:
        received = b""
        while data := sock.recv(65536):
            received += data
    return received


def test_cut_before_it_began(serve: Serve) -> None:
    """The application is not called for it any more."""
    server = serve("--shutdown-timeout", "0.5", app=BLOCKS)
    server.expect_log("2 requests are cut")
    first = ask(server, "/blocks")
    server.wait_log("^blocks$")
    second = ask(server, "/waits")
    server.kill(signal.SIGTERM)
    assert parse_responses(until_end(second))[0].status == 503
    assert parse_responses(until_end(first))[0].status == 503
    assert server.wait() == 0
    assert "begun" not in server.log


def test_left_before_it_began(serve: Serve) -> None:
    server = serve(app=BLOCKS)
    first = ask(server, "/blocks")
    server.wait_log("^blocks$")
    second = ask(server, "/waits")
    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    second.close()
    server.wait_log(r'"GET /waits HTTP/1.1" .*error="client gone"')
    server.write("go", "")
    assert parse_responses(until_end(first))[0].body == b"blocked"
    assert server.get().body == b"Hello, world!"
    assert "begun" not in server.log


# --- Tasks that go on -------------------------------------------------------------------------

STAYS = """
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await send({"type": "websocket.accept"})
    print("open", flush=True)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            print("not yet", flush=True)
"""


@pytest.mark.parametrize("answers", [True, False])
def test_a_websocket_whose_task_goes_on(serve: Serve, kind: tuple[str, ...], answers: bool) -> None:
    """Nobody can end it but the process; its client has been told."""
    server = serve(*kind, "--shutdown-timeout", "0.2", app=STAYS)
    server.expect_log("1 request is cut")
    server.expect_log("it went on when the server ended, and is lost")
    with Raw(server, "stays") as raw:
        server.wait_log("^open$")
        server.kill(signal.SIGTERM)
        assert raw.frame() == (0x88, struct.pack("!H", 1012) + b"the server stops")
        if answers:
            raw.send(0x88, struct.pack("!H", 1012))
        assert not raw.more()
    assert server.wait() == 0
    assert len(re.findall("^not yet$", server.log, re.MULTILINE)) >= 2


def test_who_comes_behind_an_exit_is_served(serve: Serve) -> None:
    """The first ends the server; the second was in the same turn, and has the grace time."""
    app = BLOCKS + "\nasync def leaves(scope, receive, send):\n    raise SystemExit(3)\n"
    server = serve(app=app)
    server.expect_log(r"a callback raised SystemExit\(3\): the server stops")
    server.expect_log(r"\[error\]|Traceback", required=False)
    socks = [ask(server, "/blocks")]
    server.wait_log("^blocks$")
    socks += [ask(server, "/leaves"), ask(server, "/waits")]
    time.sleep(0.1)  # both are read
    server.write("go", "")
    bodies = [parse_responses(until_end(sock))[0].body for sock in socks]
    assert (bodies[0], bodies[2]) == (b"blocked", b"waited")
    assert server.wait() == 0


# --- Lifespan ---------------------------------------------------------------------------------

LIFESPAN = """
import asyncio, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(scope.get("state")).encode()})

async def raises(text):
    try:
        await asyncio.sleep(600)
    finally:
        raise ValueError(text)
"""


def test_a_lifespan_in_the_wrong_order(serve: Serve) -> None:
    app = (
        LIFESPAN
        + """
async def lifespan(receive, send):
    for kind in ("shutdown.complete", "shutdown.failed", "startup.begun", "other"):
        try:
            await send({"type": "lifespan." + kind})
        except RuntimeError as exc:
            print("refused", exc, flush=True)
    await send({"type": "lifespan.startup.complete"})
    await asyncio.sleep(0)
    assert [(await receive())["type"] for _ in range(2)] == [
        "lifespan.startup", "lifespan.shutdown"]
    await send({"type": "lifespan.shutdown.complete"})
"""
    )
    server = serve(app=app)
    assert server.get().body == b"{}"
    assert server.stop() == 0
    assert server.log.count("refused Unexpected ASGI message 'lifespan.") == 4


def test_a_lifespan_that_fails_has_none(serve: Serve) -> None:
    """Where nobody has said that there is one; but it is said, since it knew the protocol."""
    app = (
        LIFESPAN
        + """
async def lifespan(receive, send):
    await receive()
    raise ValueError("no db")
"""
    )
    server = serve(app=app)
    server.expect_log("ValueError: no db")
    assert server.get().body == b"None"
    assert "the application failed at its start-up, and has no lifespan" in server.log


def test_a_shutdown_that_takes_too_long(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        LIFESPAN
        + """
async def lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.sleep(600)
"""
    )
    server = serve(*kind, "--shutdown-timeout", "0.3", app=app)
    server.expect_log("the application's shutdown took longer than ")
    assert server.get().body == b"{}"
    assert server.stop() == 0


def test_what_a_task_raises_at_the_end_is_said(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        LIFESPAN
        + """
async def lifespan(receive, send):
    await receive()
    global kept
    kept = asyncio.create_task(raises("at the end"))
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
"""
    )
    server = serve(*kind, app=app)
    server.expect_log("ValueError: at the end")
    assert server.get().body == b"{}"
    assert server.stop() == 0
    assert "unhandled exception while the server ended" in server.log

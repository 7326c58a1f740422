# SPDX-License-Identifier: Apache-2.0
"""A cancellation, a client that leaves, and a stop, at every await point of an ASGI request.

Whatever is interrupted where: the client has a whole answer, a 500 or a cut, never a wrong piece;
the log has one traceback for what the application let through and nothing else; no task and no
awaitable is left; and a connection that had its whole answer goes on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import socket
import struct
import time
from collections.abc import Callable

import pytest
from harness import SLOW, Server, wait_until
from webapps import Reader
from wsraw import HANDSHAKE, Raw

Serve = Callable[..., Server]

BIG = 5_000_000  # more than the kernel takes
# Of a request's body: the application is called before the rest is there, which is little enough to
# be read for the next request's sake when the application does not want it.
FIRST, REST = 70_000, 30_000
PARTS = {"part": b"a" * 1000, "big": b"b" * BIG, "last": b"c" * 10}

# /KIND?ID,MODE,POINT,REACTION: a request of KIND that is interrupted at POINT in the way of MODE,
# and lets that through or goes on. /state?ID: what has become of it.
APP = """
import asyncio, gc, json

cases = {}

class Case:
    def __init__(self, scope):
        self.id, self.mode, self.at, reaction = scope["query_string"].decode().split(",")
        self.goes_on = reaction == "on"
        self.done, self.waited, self.raised, self.over = [], [], "", False
        cases[self.id] = self

    async def plain(self, name, awaitable):
        result = await awaitable
        self.done.append(name)
        return result

    async def __call__(self, name, make):
        if name != self.at:
            return await self.plain(name, make())
        self.at = ""
        try:
            return await globals()[self.mode](self, name, make)
        except (asyncio.CancelledError, TimeoutError):
            if not self.goes_on:
                raise
            task = asyncio.current_task()
            while task.cancelling():
                task.uncancel()
            if name not in self.done and make.__name__ != "receive":
                return await self.plain(name, make())

# --- the ways to interrupt

async def before(case, name, make):
    asyncio.current_task().cancel()
    await case.plain(name, make())
    await asyncio.sleep(0)

async def during(case, name, make):
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
    await case.plain(name, make())
    await asyncio.sleep(0)

async def timeout(case, name, make):
    async with asyncio.timeout(0):
        await case.plain(name, make())
        await asyncio.sleep(0)

async def child(case, name, make):
    task = asyncio.create_task(make())
    task.cancel()
    await case.plain(name, task)

async def child_later(case, name, make):
    task = asyncio.create_task(make())
    await asyncio.sleep(0)
    task.cancel()
    await case.plain(name, task)
    raise asyncio.CancelledError

def step(case, name, awaitable):
    try:
        awaitable.send(None)
    except StopIteration:
        case.done.append(name)
        raise asyncio.CancelledError from None
    case.waited.append(name)

async def throw(case, name, make):
    awaitable = make()
    step(case, name, awaitable)
    awaitable.throw(asyncio.CancelledError())

async def close(case, name, make):
    awaitable = make()
    step(case, name, awaitable)
    awaitable.close()
    raise asyncio.CancelledError

async def drop(case, name, make):
    make()
    raise asyncio.CancelledError

# --- the requests

def sends(send, kind, **fields):
    return lambda: send({"type": kind, **fields})

async def http(case, scope, receive, send, trailers=False):
    message = await case("first", receive)
    size = len(message["body"]) if message else FIRST
    while size < FIRST:
        message = await receive()
        size += len(message["body"])
    await case("hint", sends(send, "http.response.early_hint", links=[b"</a>"]))
    while message and message.get("more_body"):
        message = await case("more", receive)
    length = [] if trailers else [(b"content-length", b"%d" % SIZE)]
    await case("start", sends(send, "http.response.start", status=200, headers=length,
                              trailers=trailers))
    for name, data in PARTS.items():
        await case(name, sends(send, "http.response.body", body=data, more_body=name != "last"))
    if trailers:
        await case("trailers", sends(send, "http.response.trailers", headers=[(b"x-t", b"1")]))
    await case("left", receive)

async def chunked(case, scope, receive, send):
    await http(case, scope, receive, send, True)

async def websocket(case, scope, receive, send):
    await case("connect", receive)
    await case("accept", sends(send, "websocket.accept"))
    await case("text", receive)
    await case("echo", sends(send, "websocket.send", text="echo"))
    await case("big", sends(send, "websocket.send", bytes=PARTS["big"]))
    await case("again", receive)
    await case("close", sends(send, "websocket.close", code=3000))
    await case("end", receive)

async def state(scope, receive, send):
    case = cases.get(scope["query_string"].decode())
    seen = {k: v for k, v in vars(case).items()} if case else {}
    gc.collect()
    seen["tasks"] = len(asyncio.all_tasks()) - 1
    seen["awaitables"] = sum(type(o).__name__ == "Awaitable" for o in gc.get_objects())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})

async def app(scope, receive, send):
    name = scope["path"].strip("/")
    if name == "state":
        return await state(scope, receive, send)
    case = Case(scope)
    try:
        await globals()[name](case, scope, receive, send)
    except BaseException as exc:
        case.raised = type(exc).__name__
        print("raised", case.id, case.raised, flush=True)
        raise
    finally:
        case.over = True
"""
APP += f"PARTS = {{'part': b'a' * 1000, 'big': b'b' * {BIG}, 'last': b'c' * 10}}\n"
APP += f"FIRST = {FIRST}\n"
APP += "SIZE = sum(map(len, PARTS.values()))\n"

MODES = ("before", "during", "timeout", "child", "child_later", "throw", "close", "drop")
HTTP_POINTS = ("first", "hint", "more", "start", "part", "big", "last", "left")
WS_POINTS = ("connect", "accept", "text", "echo", "big", "again", "close", "end")
# What has nothing to give until the client does something: there an interruption meets a wait.
HTTP_WAITS, WS_WAITS = {"more", "big"}, {"text", "big", "again"}

ids = itertools.count()


def slow_socket(server: Server) -> socket.socket:
    """One that takes little at a time."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.settimeout(20 * SLOW)
    sock.connect(server.address)
    return sock


def state(server: Server, case: str) -> dict[str, object]:
    return json.loads(server.get(f"/state?{case}").body)


def record(server: Server, case: str) -> dict[str, object]:
    """What the application has noted of a request that is over, and of which nothing is left."""
    found: dict[str, object] = {}

    def look() -> bool:
        found.update(state(server, case))
        return bool(found.get("over")) and found["tasks"] == found["awaitables"] == 0

    try:
        wait_until(look, 10 * SLOW)
    except TimeoutError:
        raise AssertionError(f"{case} is not over: {found}\n{server.log}") from None
    return found


class HttpClient:
    """Sends its request in two parts, and begins to read a little later than it could."""

    def __init__(self, server: Server, target: str) -> None:
        self.sock = slow_socket(server)
        self.reader = Reader(self.sock)
        self.target = target
        self.status = 0
        self.body = b""
        self.trailers = b""

    # Each step is one more message between the two.
    def send_half_head(self) -> None:
        self.sock.sendall(f"POST {self.target} HTTP/1.1\r\nHost: h\r\nCont".encode())

    def send_first(self) -> None:
        self.sock.sendall(b"ent-Length: %d\r\n\r\n" % (FIRST + REST) + b"1" * FIRST)

    def read_hint(self) -> None:
        self.head = self.reader.until(b"\r\n\r\n")
        self.status = int(self.head.split(b" ")[1])

    def send_rest(self) -> None:
        time.sleep(0.005)
        with contextlib.suppress(OSError):
            self.sock.sendall(b"2" * REST)

    def read_head(self) -> None:
        while self.status in (0, 103):
            self.read_hint()
        time.sleep(0.01)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    def read_some(self) -> None:
        data = self.reader.exactly(2000)
        self.reader.data = data + self.reader.data

    def read_body(self) -> None:
        lower = self.head.lower()
        if b"content-length: " in lower:
            self.body = self.reader.exactly(int(lower.split(b"content-length: ")[1].split()[0]))
            return
        assert b"transfer-encoding: chunked" in lower, self.head
        while size := int(self.reader.until(b"\r\n"), 16):
            self.body += self.reader.exactly(size)
            assert self.reader.exactly(2) == b"\r\n"
        while (line := self.reader.until(b"\r\n")) != b"\r\n":
            self.trailers += line

    STEPS = (
        send_half_head,
        send_first,
        read_hint,
        send_rest,
        read_head,
        read_some,
        read_body,
    )

    def whole(self) -> bool:
        """Does all of it; false: the connection was cut."""
        try:
            for step in self.STEPS:
                if step is not HttpClient.read_some:
                    step(self)
        except (AssertionError, OSError):
            return False
        return True

    def goes_on(self) -> bool:
        """Another request on the same connection is answered."""
        self.sock.sendall(b"GET /state?none HTTP/1.1\r\nHost: h\r\n\r\n")
        return self.reader.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def judge_http(client: HttpClient, whole: bool, seen: dict[str, object]) -> None:
    done = seen["done"]
    assert isinstance(done, list)
    ended = "last" in done and (client.target.startswith("/http") or "trailers" in done)
    if ended:
        expected = b"".join(data for name, data in PARTS.items() if name in done)
        assert whole
        assert client.status == 200
        assert client.body == expected, f"{len(client.body)} of {len(expected)}"
        assert (b"x-t: 1" in client.trailers) == ("trailers" in done)
        assert client.goes_on()
    elif "start" in done:
        assert not whole, "a piece passed for the whole"
    else:
        assert whole
        assert client.status == 500


def raised_in_log(server: Server, seen: list[dict[str, object]]) -> None:
    """One traceback for each exception that came out, one line for each answer that was left."""
    raised = sum(bool(case["raised"]) for case in seen)
    log = server.log
    assert log.count(": the application failed\n") == raised, log
    assert "never" not in log


def interrupt(
    server: Server,
    what: str,
    mode: str,
    *,
    points: tuple[str, ...],
    make: Callable[[Server, str], HttpClient | WsClient],
    judge: Callable[[HttpClient | WsClient, bool | None, dict[str, object]], None],
) -> set[str]:
    """Requests of a kind, one at each of these points with each reaction; where that met a wait."""
    all_seen: list[dict[str, object]] = []
    waited: set[str] = set()
    for point, reaction in itertools.product(points, ("raise", "on")):
        case = f"{next(ids)}"
        client = make(server, f"/{what}?{case},{mode},{point},{reaction}")
        try:
            whole = client.whole()
            seen = record(server, case) | {"interrupted": point}
            assert seen["at"] == "", "was not reached"
            judge(client, whole, seen)
        except AssertionError as error:
            raise AssertionError(f"{point}, {reaction}: {error}; {record(server, case)}") from error
        finally:
            client.sock.close()
        all_seen.append(seen)
        waited.update(seen["waited"])
    raised_in_log(server, all_seen)
    return waited


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind_of_body", ["http", "chunked"])
def test_cancelled_request(
    serve: Serve, kind: tuple[str, ...], kind_of_body: str, mode: str
) -> None:
    server = serve(*kind, "--disable-logging", app=APP)
    server.expect_log(r"POST /\w+\?.*: the application failed")
    server.expect_log(r"the application returned without completing", required=False)
    points = HTTP_POINTS + (("trailers",) if kind_of_body == "chunked" else ())
    waited = interrupt(server, kind_of_body, mode, points=points, make=HttpClient, judge=judge_http)
    assert waited >= HTTP_WAITS or mode not in ("throw", "close")


# --- WebSocket --------------------------------------------------------------------------------


class WsClient(Raw):
    """Sends a text, takes what comes, sends another, and answers the close."""

    def __init__(self, server: Server, target: str) -> None:
        self.sock = slow_socket(server)
        self.got = bytearray()
        self.target = target
        self.status = 0
        self.frames: list[tuple[int, bytes]] = []
        self.code: int | None = None

    def send_half_head(self) -> None:
        self.head = HANDSHAKE.replace(b"/%s", self.target.encode())
        self.sock.sendall(self.head[:30])

    def send_head(self) -> None:
        self.sock.sendall(self.head[30:])

    def read_head(self) -> None:
        while b"\r\n\r\n" not in self.got:
            assert self.more(), "the end, and no answer"
        self.status = int(self.got.split(b" ")[1])
        del self.got[: self.got.index(b"\r\n\r\n") + 4]
        time.sleep(0.005)

    def send_half_text(self) -> None:
        self.sock.sendall(b"\x81\x83\0\0\0\0o")

    def send_text(self) -> None:
        self.sock.sendall(b"ne")

    def read_echo(self) -> None:
        self.take_frame()
        time.sleep(0.01)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    def read_some(self) -> None:
        while len(self.got) < 10_000:
            assert self.more()

    def read_big(self) -> None:
        self.take_frame()

    def send_again(self) -> None:
        time.sleep(0.005)
        self.send(0x81, b"two")

    def read_close(self) -> None:
        while self.code is None:
            self.take_frame()

    def send_close(self) -> None:
        self.send(0x88, struct.pack("!H", self.code or 0))

    def take_frame(self) -> None:
        if self.code is not None:
            return
        first, payload = self.frame()
        if first == 0x88:
            self.code = int.from_bytes(payload[:2], "big")
        else:
            self.frames.append((first, payload))

    STEPS = (
        send_half_head,
        send_head,
        read_head,
        send_half_text,
        send_text,
        read_echo,
        read_some,
        read_big,
        send_again,
        read_close,
        send_close,
    )

    def whole(self) -> None:
        """Up to the end of the connection, or the answer that is no 101."""
        for step in self.STEPS:
            if self.status not in (0, 101) or (self.code is not None and step in self.STEPS[:-1]):
                continue
            if step is not WsClient.read_some:
                step(self)
        if self.status == 101:
            while self.more():
                pass


def judge_websocket(client: WsClient, whole: None, seen: dict[str, object]) -> None:
    done = seen["done"]
    assert isinstance(done, list)
    if "accept" not in done:
        assert client.status == 500
        return
    assert client.status == 101
    # A send that is cancelled while it waits has sent its message: once more, and it comes twice.
    sent = {name: done.count(name) for name in ("echo", "big")}
    echo = client.frames.count((0x81, b"echo"))
    big = client.frames.count((0x82, PARTS["big"]))
    assert echo + big == len(client.frames)
    assert echo == sent["echo"]
    assert sent["big"] <= big <= sent["big"] + (seen["interrupted"] == "big")
    assert client.code == (3000 if "close" in done else 1011 if seen["raised"] else 1000)


@pytest.mark.parametrize("mode", MODES)
def test_cancelled_websocket(serve: Serve, kind: tuple[str, ...], mode: str) -> None:
    server = serve(*kind, "--disable-logging", app=APP)
    server.expect_log(r"GET /\w+\?.*: the application failed")
    waited = interrupt(
        server, "websocket", mode, points=WS_POINTS, make=WsClient, judge=judge_websocket
    )
    assert waited >= WS_WAITS or mode not in ("throw", "close")


# --- Clients that leave -----------------------------------------------------------------------

LEAVES = ("closes", "resets", "half-closes")


def leave(sock: socket.socket, how: str) -> None:
    if how == "half-closes":
        sock.shutdown(socket.SHUT_WR)
        return
    if how == "resets":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until_end(sock: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionResetError), sock:
        while data := sock.recv(1 << 20):
            received += data
    return bytes(received)


@pytest.mark.parametrize("how", LEAVES)
@pytest.mark.parametrize("what", ["http", "chunked", "websocket"])
def test_client_leaves(serve: Serve, kind: tuple[str, ...], what: str, how: str) -> None:
    """After each step of the client's: the application hears of it, in receive() or send()."""
    server = serve(*kind, "--disable-logging", app=APP)
    make = WsClient if what == "websocket" else HttpClient
    for steps in range(1, len(make.STEPS) + 1):
        case = f"{next(ids)}"
        client = make(server, f"/{what}?{case},none,none,raise")
        for step in make.STEPS[:steps]:
            step(client)
        begun = steps > 1  # else the application is never called
        if begun:
            wait_until(lambda case=case: state(server, case).get("id"), 10 * SLOW)
        leave(client.sock, how)
        if how == "half-closes":
            until_end(client.sock)
        if not begun:
            continue
        seen = record(server, case)
        assert seen["raised"] in ("", "ClientDisconnected"), f"after {step.__name__}: {seen}"
        # It ended by that exception, or after its last message.
        assert bool(seen["raised"]) != bool({"left", "end"} & set(seen["done"])), seen


# --- The server's end -------------------------------------------------------------------------

STAYS = """
import asyncio

async def app(scope, receive, send):
    name = scope["path"].strip("/")
    print("begins", name, flush=True)
    try:
        await globals()[name](receive, send)
    except asyncio.CancelledError:
        print("cancelled", name, flush=True)
        raise
    except OSError as exc:
        print("failed", name, type(exc).__name__, flush=True)
        raise
    print("came back", name, flush=True)

async def start(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})

async def flood(send, kind, **fields):
    while True:
        await send({"type": kind, **fields})

async def request(receive, send):
    while (await receive())["type"] != "http.disconnect": pass

async def answered(receive, send):
    await start(send)
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    while (await receive())["type"] != "http.disconnect": pass

async def body(receive, send):
    await start(send)
    await flood(send, "http.response.body", body=b"x" * 100_000, more_body=True)

async def asleep(receive, send):
    await asyncio.sleep(600)

async def swallows(receive, send):
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        pass
    await start(send)
    await send({"type": "http.response.body", "body": b"late"})

async def ws_before(receive, send):
    while (await receive())["type"] != "websocket.disconnect": pass

async def ws_open(receive, send):
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect": pass

async def ws_sends(receive, send):
    await send({"type": "websocket.accept"})
    await flood(send, "websocket.send", bytes=b"x" * 100_000)

async def ws_asleep(receive, send):
    await send({"type": "websocket.accept"})
    await asyncio.sleep(600)

async def ws_closed(receive, send):
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close"})
    await asyncio.sleep(600)
"""
# How each of them ends, and what its client gets at the end.
CUT, RESTART = rb"^HTTP/1.1 503 ", rb"\x88.\x03\xf4"
ENDS = {
    "request": ("cancelled", CUT),
    "answered": ("cancelled", rb"\r\n\r\n1\r\nx\r\n$"),
    "body": ("cancelled", rb"x$"),
    "asleep": ("cancelled", CUT),
    "swallows": ("came back", rb"^HTTP/1.1 200 .*\r\n\r\nlate$"),
    "ws_before": ("cancelled", CUT),
    "ws_open": ("came back", RESTART),
    "ws_sends": ("cancelled", rb"x$"),
    "ws_asleep": ("cancelled", RESTART),
    "ws_closed": ("cancelled", rb"\x88\x02\x03\xe8"),
}


def test_stop_at_every_wait(serve: Serve, kind: tuple[str, ...]) -> None:
    """After the grace each wait ends, and nothing is said of it but that it was cut."""
    server = serve(*kind, "--shutdown-timeout", "0.5", "--disable-logging", app=STAYS)
    server.expect_log(r"9 requests are cut")
    socks = {}
    for name in ENDS:
        sock = socks[name] = slow_socket(server)
        if name.startswith("ws"):
            sock.sendall(HANDSHAKE % name.encode())
        else:
            sock.sendall(f"GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        server.wait_log(f"^begins {name}$")
    time.sleep(0.2)
    assert server.stop(signal.SIGTERM) == 0
    for name, (end, pattern) in ENDS.items():
        assert f"\n{end} {name}\n" in server.log, server.log
        received = until_end(socks[name])
        assert re.search(pattern, received, re.DOTALL), f"{name}: {received[-100:]!r}"
    assert "never" not in server.log


# --- Lifespan ---------------------------------------------------------------------------------

LIFESPAN = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        at = {at!r}
        for name in ("startup", "shutdown"):
            await interrupted(at == name + " receive", receive())
            await interrupted(at == name + " send", send({{"type": f"lifespan.{{name}}.complete"}}))
        return
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"served"}})

async def interrupted(now, awaitable):
    if now:
        asyncio.current_task().cancel()
    await awaitable
    if now:
        await asyncio.sleep(0)
"""


@pytest.mark.parametrize("name", ["startup", "shutdown"])
@pytest.mark.parametrize("action", ["receive", "send"])
def test_cancelled_lifespan(serve: Serve, kind: tuple[str, ...], name: str, action: str) -> None:
    """A lifespan that ends so before its start-up is complete is none; later, the log has it."""
    server = serve(*kind, app=LIFESPAN.format(at=f"{name} {action}"))
    complete = (name, action) != ("startup", "receive")
    if complete:
        server.expect_log("the application's shutdown failed(.|\n)*CancelledError")
    assert server.get().body == b"served"
    assert server.stop() == 0
    assert "never" not in server.log


def test_required_lifespan_is_cancelled(
    run_pelton: Callable[..., object], tmp_path: object
) -> None:
    (tmp_path / "some.py").write_text(LIFESPAN.format(at="startup receive"))  # type: ignore[operator]
    done = run_pelton("--lifespan", "on", "--bind", "127.0.0.1:0", "some.py", timeout_s=10)
    assert done.returncode == 3, done  # type: ignore[attr-defined]
    assert "start-up failed" in done.stdout + done.stderr  # type: ignore[attr-defined]

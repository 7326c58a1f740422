# SPDX-License-Identifier: Apache-2.0
"""WebSocket under ASGI, with the client of `websockets` and with bytes of our own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import SLOW, Server, said, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from wsraw import HANDSHAKE, NO_ANSWER, PINGS, Raw

Serve = Callable[..., Server]

# /NAME calls the coroutine function NAME; /said is what was said until now.
HEAD = """
import asyncio, json

words = []

def say(*parts):
    words.append(" ".join(map(str, parts)))

async def hold(receive):
    message = await receive()
    assert message == {"type": "websocket.connect"}, message

async def accept(send, **more):
    await send({"type": "websocket.accept", **more})

async def end(receive):
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    say("end", message["code"], message["reason"])

async def echo(scope, receive, send):
    await hold(receive)
    await accept(send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    say("end", message["code"], message["reason"])

async def silent(scope, receive, send):
    await hold(receive)
    await accept(send)
    await end(receive)

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": "\\n".join(words).encode()})
    else:
        assert scope["type"] == "websocket"
        await globals()[scope["path"].split("/")[1]](scope, receive, send)
"""


@contextlib.contextmanager
def client(server: Server, path: str = "/echo", **options: object) -> Iterator[ClientConnection]:
    options.setdefault("open_timeout", 20 * SLOW)
    options.setdefault("close_timeout", 20 * SLOW)
    with connect(f"ws://127.0.0.1:{server.port}{path}", proxy=None, **options) as ws:
        yield ws


def drain(ws: ClientConnection) -> None:
    while True:
        ws.recv(timeout=20 * SLOW)


def closed(ws: ClientConnection) -> tuple[int, str]:
    """Receives until the server's close: its code and reason."""
    with pytest.raises(ConnectionClosed) as info:
        drain(ws)
    assert info.value.rcvd is not None, "no close frame came"
    return info.value.rcvd.code, info.value.rcvd.reason


# --- Messages ---------------------------------------------------------------------------------


def test_echo(serve: Serve, kind: tuple[str, ...]) -> None:
    server = serve(*kind, app=HEAD)
    with client(server) as ws:
        for message in ("", "grüße", b"", b"\0\xff", "x" * 200_000, os.urandom(1_000_000)):
            ws.send(message)
            assert ws.recv(timeout=20 * SLOW) == message
        for i in range(100):
            ws.send(f"pipelined {i}")
        assert [ws.recv(timeout=20 * SLOW) for _ in range(100)] == [
            f"pipelined {i}" for i in range(100)
        ]
        ws.close(4001, "bye")
    assert said(server, "end") == "end 4001 bye"
    wait_until(lambda: re.search(r'"GET /echo HTTP/1.1" 101 ', server.log), 5 * SLOW, server.log)


def test_fragments_and_control_frames(serve: Serve) -> None:
    server = serve(app=HEAD)
    with Raw(server) as raw:
        raw.send(0x01, b"gr")
        raw.send(0x89, b"in between")
        assert raw.frame() == (0x8A, b"in between")
        raw.send(0x8A, b"a pong that nobody asked for")
        raw.send(0x00, "ü".encode()[:1])
        raw.send(0x80, "ü".encode()[1:])
        assert raw.frame() == (0x81, "grü".encode())
        raw.send(0x88, struct.pack("!H", 1000))
        assert raw.code() == 1000


def test_scope_and_subprotocols(serve: Serve) -> None:
    app = (
        HEAD
        + """
async def pre(scope, receive, send):
    await hold(receive)
    await accept(send, subprotocol="two", headers=[(b"x-own", b"1")])
    seen = {k: repr(v) for k, v in scope.items() if k != "headers"}
    await send({"type": "websocket.send", "text": json.dumps(seen)})
    await send({"type": "websocket.close"})
"""
    )
    server = serve("--root-path", "/pre", "--forwarded-allow-ips", "127.0.0.1", app=app)
    options = {"subprotocols": ["one", "two"]}
    with client(server, "/a%20b?q=1", **options) as ws:
        assert ws.subprotocol == "two"
        assert ws.response is not None
        assert ws.response.headers["x-own"] == "1"
        seen = json.loads(ws.recv(timeout=20 * SLOW))
        assert closed(ws) == (1000, "")
    assert seen["type"] == "'websocket'"
    assert seen["scheme"] == "'ws'"
    assert seen["path"] == "'/pre/a b'"
    assert seen["raw_path"] == "b'/pre/a%20b'"
    assert seen["root_path"] == "'/pre'"
    assert seen["query_string"] == "b'q=1'"
    assert seen["subprotocols"] == "['one', 'two']"
    assert seen["extensions"] == "{'websocket.http.response': {}}"
    assert seen["asgi"] == "{'version': '3.0', 'spec_version': '2.5'}"
    assert seen["server"] == repr(("127.0.0.1", server.port))
    assert seen["client"].startswith("('127.0.0.1', ")
    assert "method" not in seen
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    with client(server, "/", additional_headers=headers, **options) as ws:
        seen = json.loads(ws.recv(timeout=20 * SLOW))
    assert seen["scheme"] == "'wss'"
    assert seen["client"].startswith("('192.0.2.7', ")


def test_compression(serve: Serve) -> None:
    app = (
        HEAD
        + """
async def offer(scope, receive, send):
    say("offer", dict(scope["headers"]).get(b"sec-websocket-extensions", b"-").decode())
    await echo(scope, receive, send)
"""
    )
    server = serve(app=app)
    text = "again and again " * 10_000
    with client(server, "/offer") as ws:
        assert ws.response is not None
        agreed = ws.response.headers["Sec-WebSocket-Extensions"]
        assert agreed.startswith("permessage-deflate")
        for message in (text, text, "short", text.encode()):
            ws.send(message)
            assert ws.recv(timeout=20 * SLOW) == message
    server = serve("--no-ws-per-message-deflate", app=app)
    with client(server, "/offer") as ws:
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers
        ws.send(text)
        assert ws.recv(timeout=20 * SLOW) == text


def sizes_of_two(server: Server, text: str) -> tuple[str, list[int]]:
    """The agreement, and how many bytes each of two equal messages took on the wire."""
    with Raw(server, more=b"Sec-WebSocket-Extensions: permessage-deflate\r\n") as raw:
        agreed = raw.head.decode().split("Sec-WebSocket-Extensions: ")[1].split("\r\n")[0]
        squeeze = zlib.compressobj(wbits=-15)
        sizes = []
        for _ in range(2):
            data = squeeze.compress(text.encode()) + squeeze.flush(zlib.Z_SYNC_FLUSH)
            raw.send(0xC1, data[:-4])
            first, payload = raw.frame()
            assert first == 0xC1
            sizes.append(len(payload))
            if "client_no_context_takeover" in agreed:
                squeeze = zlib.compressobj(wbits=-15)
        return agreed, sizes


def test_context_takeover(serve: Serve) -> None:
    text = "".join(random.Random(1).choices("0123456789abcdef", k=3000))
    agreed, (first, second) = sizes_of_two(serve(app=HEAD), text)
    assert "server_no_context_takeover; client_no_context_takeover" in agreed
    assert second == first
    agreed, (first, second) = sizes_of_two(serve("--ws-context-takeover", app=HEAD), text)
    assert agreed == "permessage-deflate"
    assert second < first / 10


def test_window_bits(serve: Serve) -> None:
    text = "".join(random.Random(1).choices("0123456789abcdef", k=3000))
    server = serve("--ws-context-takeover", "--ws-window-bits", "9", app=HEAD)
    agreed, (first, second) = sizes_of_two(server, text)
    assert agreed == "permessage-deflate; server_max_window_bits=9"
    assert second > first / 2  # the first is further away than 512 bytes


# --- Rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(0x81, b"\xff")], 1007),
        ([(0x01, b"\xce"), (0x80, b"x")], 1007),
        ([(0x80, b"continues nothing")], 1002),
        ([(0xC1, b"RSV1 that was not agreed on")], 1002),
        ([(0x83, b"reserved")], 1002),
        ([(0x09, b"a ping in two parts")], 1002),
        ([(0x89, b"x" * 126)], 1002),
        ([(0x88, b"\x03")], 1002),
        ([(0x88, struct.pack("!H", 1006))], 1002),
        ([(0x88, struct.pack("!H", 1000) + b"\xff")], 1007),
        ([(0x82, b"x" * 1001)], 1009),
        ([(0x02, b"x" * 600), (0x80, b"x" * 600)], 1009),
    ],
)
def test_broken_rules(serve: Serve, frames: list[tuple[int, bytes]], code: int) -> None:
    server = serve("--ws-max-size", "1000", app=HEAD)
    with Raw(server) as raw:
        for first, payload in frames:
            raw.send(first, payload)
        assert raw.code() == code
    assert said(server, "end") == f"end {code} "


def test_unmasked(serve: Serve) -> None:
    server = serve(app=HEAD)
    with Raw(server) as raw:
        raw.send(0x81, b"open", mask=False)
        assert raw.code() == 1002


def test_bad_handshakes(serve: Serve) -> None:
    server = serve(app=HEAD)
    good = HANDSHAKE % b"echo"
    for bad, status in (
        (good.replace(b"Version: 13", b"Version: 8"), b"426"),
        (good.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ="), b"400"),
        (good.replace(b"GET ", b"POST "), b"400"),
        (good.replace(b"Sec-WebSocket-Version: 13\r\n", b""), b"400"),
        (good.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"), b"400"),
    ):
        answer = server.raw(bad.replace(b"Connection: Upgrade", b"Connection: Upgrade, close"))
        assert answer.startswith(b"HTTP/1.1 " + status), answer
        assert (b"\r\nSec-WebSocket-Version: 13\r\n" in answer) == (status == b"426")


# --- Refusals and ends ------------------------------------------------------------------------


def test_refusals(serve: Serve) -> None:
    app = (
        HEAD
        + """
async def no(scope, receive, send):
    await hold(receive)
    await send({"type": "websocket.close"})
    say("end", (await receive())["code"])

async def custom(scope, receive, send):
    await hold(receive)
    await send({"type": "websocket.http.response.start", "status": 418,
                "headers": [(b"x-why", b"tea")]})
    await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"and stout"})
    try:
        await send({"type": "websocket.http.response.body", "body": b"and more"})
    except RuntimeError as exc:
        say("more:", exc)
    say("custom", (await receive())["type"])
"""
    )
    server = serve(app=app)
    with pytest.raises(InvalidStatus) as info, client(server, "/no"):
        pass
    assert info.value.response.status_code == 403
    assert said(server, "end") == "end 1006"
    with pytest.raises(InvalidStatus) as info, client(server, "/custom"):
        pass
    assert info.value.response.status_code == 418
    assert info.value.response.headers["x-why"] == "tea"
    assert info.value.response.body == b"short and stout"
    assert said(server, "custom") == "custom websocket.disconnect"
    assert said(server, "more:").endswith("was closed or refused by the application.")
    server = serve("--no-asgi-websocket-response", app=app)
    server.expect_log("Expected ASGI message 'websocket.accept'")
    with pytest.raises(InvalidStatus) as info, client(server, "/custom"):
        pass
    assert info.value.response.status_code == 500


def test_closed_by_the_application(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def closes(scope, receive, send):
    await hold(receive)
    await accept(send)
    await send({"type": "websocket.close", "code": 3456, "reason": "enough"})
    await end(receive)

async def returns(scope, receive, send):
    await hold(receive)
    await accept(send)

async def crashes(scope, receive, send):
    await hold(receive)
    await accept(send)
    raise ValueError("on purpose")

async def early(scope, receive, send):
    raise ValueError("too early")
"""
    )
    server = serve(*kind, app=app)
    with client(server, "/closes") as ws:
        assert closed(ws) == (3456, "enough")
    assert said(server, "end") == "end 3456 enough"
    with client(server, "/returns") as ws:
        assert closed(ws) == (1000, "")
    server.expect_log("GET /crashes: the application failed(.|\n)*ValueError: on purpose")
    with client(server, "/crashes") as ws:
        assert closed(ws) == (1011, "")
    server.expect_log("ValueError: too early")
    with pytest.raises(InvalidStatus) as info, client(server, "/early"):
        pass
    assert info.value.response.status_code == 500


def test_who_waits_hears_of_our_own_end(serve: Serve, kind: tuple[str, ...]) -> None:
    """Whatever the client does: this one says nothing."""
    app = (
        HEAD
        + """
async def both(scope, receive, send):
    await hold(receive)
    await accept(send)
    waits = asyncio.create_task(end(receive))
    await asyncio.sleep(0)
    await send({"type": "websocket.close", "code": 3456})
    await waits

async def neither(scope, receive, send):
    await hold(receive)
    waits = asyncio.create_task(end(receive))
    await asyncio.sleep(0)
    await send({"type": "websocket.close"})
    await waits
"""
    )
    server = serve(*kind, app=app)
    with Raw(server, "both"):
        assert said(server, "end 3456") == "end 3456 "
    with server.connect() as sock:
        sock.sendall(HANDSHAKE % b"neither")
        assert said(server, "end 1006") == "end 1006 "


def test_client_cut(serve: Serve, kind: tuple[str, ...]) -> None:
    server = serve(*kind, app=HEAD)
    with Raw(server, "silent"):
        pass
    assert said(server, "end") == "end 1006 "
    with Raw(server, "silent") as raw:
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with Raw(server, "silent") as raw:
        raw.send(0x88)
        assert raw.code() == 1005
    wait_until(lambda: server.get("/").body.count(b"end 1006 ") == 2, 5 * SLOW)
    assert said(server, "end 1005")


def test_wrong_order(serve: Serve) -> None:
    app = (
        HEAD
        + """
async def attempt(send, name, **message):
    try:
        await send(message)
    except Exception as e:
        say(name, type(e).__name__, e)
    else:
        say(name, "went through")

async def wrong(scope, receive, send):
    await hold(receive)
    await attempt(send, "1", type="websocket.send", text="x")
    await attempt(send, "2", type="http.response.start", status=200)
    await attempt(send, "3", type="websocket.accept", subprotocol="never offered")
    await attempt(send, "4", type="websocket.accept", headers=[(b"sec-websocket-accept", b"x")])
    await attempt(send, "5", type="websocket.accept", headers=[(b"x", b"a\\r\\nb: c")])
    await accept(send)
    await attempt(send, "6", type="websocket.accept")
    await attempt(send, "7", type="websocket.send")
    await attempt(send, "8", type="websocket.send", text="x", bytes=b"x")
    await attempt(send, "9", type="websocket.send", text=b"x")
    await attempt(send, "10", type="websocket.send", bytes="x")
    await attempt(send, "11", type="websocket.close", code=1006)
    await attempt(send, "11a", type="websocket.close", code=5000)
    await attempt(send, "11b", type="websocket.close", code=2**32 + 1000)
    await attempt(send, "12", type="websocket.close", reason="x" * 124)
    await send({"type": "websocket.close"})
    await attempt(send, "13", type="websocket.send", text="x")
    await attempt(send, "14", type="websocket.close")

async def left(scope, receive, send):
    await hold(receive)
    await accept(send)
    await end(receive)
    await attempt(send, "15", type="websocket.send", text="x")
    await attempt(send, "16", type="websocket.close")
"""
    )
    server = serve(app=app)
    with client(server, "/wrong") as ws:
        assert closed(ws) == (1000, "")
    with client(server, "/left") as ws:
        pass
    said(server, "16")
    lines = server.get("/").body.decode().split("\n")
    expected = [
        "1 RuntimeError Expected ASGI message 'websocket.accept', 'websocket.close' or "
        "'websocket.http.response.start', but got 'websocket.send'.",
        "2 RuntimeError Expected ASGI message 'websocket.accept', 'websocket.close' or "
        "'websocket.http.response.start', but got 'http.response.start'.",
        "3 ValueError websocket.accept: the client has not offered the subprotocol 'never offered'",
        "4 ValueError websocket.accept: the header b'sec-websocket-accept' is the server's: "
        "subprotocol says which one is chosen",
        "5 ValueError the response header b'x': b'a\\r\\nb: c' cannot be sent",
        "6 RuntimeError Expected ASGI message 'websocket.send' or 'websocket.close', but got "
        "'websocket.accept'.",
        "7 ValueError websocket.send: exactly one of text and bytes must be there and not None",
        "8 ValueError websocket.send: exactly one of text and bytes must be there and not None",
        "9 TypeError websocket.send: text must be str, not bytes",
        "10 TypeError websocket.send: bytes must be bytes, not str",
        "11 ValueError websocket.close: 1006 is no code that may be sent",
        "11a ValueError websocket.close: 5000 is no code that may be sent",
        "11b ValueError websocket.close: 4294968296 is no code that may be sent",
        "12 ValueError websocket.close: reason is 124 bytes long, more than 123",
        "13 RuntimeError Unexpected ASGI message 'websocket.send' sent, after the WebSocket was "
        "closed or refused by the application.",
        "14 RuntimeError Unexpected ASGI message 'websocket.close' sent, after the WebSocket was "
        "closed or refused by the application.",
        "16 went through",
    ]
    for line in expected:
        assert line in lines
    assert any(line.startswith("15 ClientDisconnected ") for line in lines)


# --- Back-pressure, time ----------------------------------------------------------------------


def test_a_slow_client_stops_send(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def flood(scope, receive, send):
    await hold(receive)
    await accept(send)
    for i in range(400):
        say("sent", i)
        await send({"type": "websocket.send", "bytes": bytes([i % 256]) * 100_000})
    await send({"type": "websocket.close"})
"""
    )
    server = serve(*kind, app=app)
    with Raw(server, "flood") as raw:
        said(server, "sent 5")
        time.sleep(0.3)
        before = server.get("/").body.count(b"sent")
        assert before < 200, "nobody waited for the client"
        for i in range(400):
            assert raw.frame() == (0x82, bytes([i % 256]) * 100_000)
        assert raw.frame()[0] == 0x88


def test_several_tasks_send_to_a_slow_client(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def crowd(scope, receive, send):
    await hold(receive)
    await accept(send)
    async def flood(i):
        for j in range(20):
            say("sends", i)
            await send({"type": "websocket.send", "bytes": bytes([i, j]) * 50_000})
    await asyncio.gather(*(flood(i) for i in range(10)))
    await send({"type": "websocket.close"})
"""
    )
    server = serve(*kind, app=app)
    with Raw(server, "crowd") as raw:
        said(server, "sends 9")
        time.sleep(0.3)
        assert server.get("/").body.count(b"sends") < 150, "nobody waited for the client"
        came: dict[int, list[int]] = {}
        for _ in range(200):
            first, payload = raw.frame()
            i, j = payload[:2]
            assert (first, payload) == (0x82, bytes([i, j]) * 50_000)
            came.setdefault(i, []).append(j)
        assert came == {i: list(range(20)) for i in range(10)}
        assert raw.frame() == (0x88, struct.pack("!H", 1000))


def test_a_slow_application_stops_the_client(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def slow(scope, receive, send):
    await hold(receive)
    await accept(send)
    while not any(word == "go" for word in words):
        await asyncio.sleep(0.01)
    n = 0
    while (message := await receive())["type"] == "websocket.receive":
        n += len(message["bytes"])
    say("got", n)

async def go(scope, receive, send):
    say("go")
    await send({"type": "websocket.close"})
"""
    )
    server = serve(*kind, app=app)
    with Raw(server, "slow") as raw:
        raw.sock.settimeout(0.5)
        message = b"\x82\xff" + struct.pack("!Q", 70_000) + b"\0\0\0\0" + b"x" * 70_000
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += raw.sock.send((message[sent % len(message) :] + message * 3)[:100_000])
        assert sent < 50_000_000
        raw.sock.settimeout(20 * SLOW)
        with pytest.raises(InvalidStatus), client(server, "/go"):
            pass
        raw.sock.sendall(message[sent % len(message) :])
        whole = sent // len(message) + 1
        raw.send(0x88)
        assert raw.code() == 1005
    assert said(server, "got") == f"got {whole * 70_000}"


def test_pings(serve: Serve) -> None:
    server = serve(*PINGS, app=HEAD)
    with Raw(server) as raw:
        raw.answer_pings()
    with Raw(server, "silent") as raw:
        assert [raw.frame()[0], raw.frame()] == [0x89, NO_ANSWER]
    assert said(server, "end 1011") == "end 1011 no answer to a ping"


def test_cancelled_waits(serve: Serve) -> None:
    app = (
        HEAD
        + """
async def cancels(scope, receive, send):
    await hold(receive)
    await accept(send)
    for i in range(5):
        try:
            await asyncio.wait_for(receive(), 0.01)
        except TimeoutError:
            say("nothing")
    both = asyncio.create_task(receive())
    await asyncio.sleep(0.01)
    both.cancel()
    await send({"type": "websocket.send", "text": "now"})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"]})
    big = b"x" * 30_000_000
    try:
        await asyncio.wait_for(send({"type": "websocket.send", "bytes": big}), 0.05)
    except TimeoutError:
        say("cut")
    await send({"type": "websocket.send", "text": "whole"})
    await end(receive)
"""
    )
    server = serve(app=app)
    with Raw(server, "cancels") as raw:
        assert raw.frame() == (0x81, b"now")
        raw.send(0x81, b"this one")
        assert raw.frame() == (0x81, b"this one")
        said(server, "cut")
        first, payload = raw.frame()
        assert (first, len(payload)) == (0x82, 30_000_000)
        assert raw.frame() == (0x81, b"whole")
        raw.send(0x88)
    assert server.get("/").body.count(b"nothing") == 5


# --- The end of the server --------------------------------------------------------------------


def test_server_stops(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def stays(scope, receive, send):
    await hold(receive)
    await accept(send)
    try:
        message = await receive()
        print("stays", message["code"], message["reason"], flush=True)
    finally:
        print("cleaned up", flush=True)
"""
    )
    server = serve(*kind, app=app)
    with client(server, "/stays") as ws, client(server, "/echo") as other:
        server.kill(signal.SIGTERM)
        assert closed(ws) == (1012, "the server stops")
        assert closed(other) == (1012, "the server stops")
    server.wait()
    assert "stays 1012 the server stops" in server.log
    assert "cleaned up" in server.log


def test_server_stops_beside_clients_that_say_nothing(serve: Serve) -> None:
    server = serve("--shutdown-timeout", "1", app=HEAD)
    with Raw(server, "silent") as raw:
        server.kill(signal.SIGTERM)
        assert raw.frame()[0] == 0x88
        server.wait()


# --- Memory -----------------------------------------------------------------------------------


def rss(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(bool(os.environ.get("PELTON_TEST_SANITIZER")), reason="memory is a sanitizer's")
def test_idle_connections_are_small(serve: Serve) -> None:
    count = 1000
    server = serve("--disable-logging", app=HEAD)
    with contextlib.ExitStack() as stack:

        def open_some(n: int) -> None:
            for _ in range(n):
                stack.enter_context(Raw(server, "echo"))

        open_some(100)
        before = rss(server.pid)
        open_some(count)
        each = (rss(server.pid) - before) / count
        print(f"{each:.0f} bytes for an idle WebSocket")
        assert each < 12_000

# SPDX-License-Identifier: Apache-2.0
"""uwsgi.websocket_*: WebSockets of WSGI applications, in each carrier."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest
from harness import CARRIERS, SLOW, Server, wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from wsraw import HANDSHAKE, NO_ANSWER, PINGS, Raw

Serve = Callable[..., Server]
ONE_AT_A_TIME = "a WebSocket keeps this worker from all other requests"

APP = """
import os, time, uwsgi

words = []

def echo(environ):
    uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], environ.get("HTTP_ORIGIN", ""))
    try:
        while True:
            message = uwsgi.websocket_recv()
            assert isinstance(message, bytes)
            (uwsgi.websocket_send_binary if message[:1] == b"b" else uwsgi.websocket_send)(message)
    except OSError as e:
        words.append(f"end {type(e).__name__} {e}")
    return []

def plain(environ):
    uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], "", "two")
    while True: # ends by the exception
        uwsgi.websocket_send(uwsgi.websocket_recv().decode() + "!")

def looks(environ):
    uwsgi.websocket_handshake()
    assert uwsgi.websocket_recv_nb() == b""
    uwsgi.websocket_send("looked")
    while not (message := uwsgi.websocket_recv_nb()):
        time.sleep(0.01)
    uwsgi.websocket_send(message)
    return [b"dropped"]

def generates(environ):
    uwsgi.websocket_handshake()
    yield b""
    uwsgi.websocket_send("from a generator")
    yield b"dropped"

def crashes(environ):
    uwsgi.websocket_handshake()
    raise ValueError("on purpose")

def no_text(environ):
    uwsgi.websocket_handshake()
    for bad in (b"\\xff", b"gr\\xc3", 5):
        try:
            uwsgi.websocket_send(bad)
        except (ValueError, TypeError) as e:
            uwsgi.websocket_send(f"{type(e).__name__} {e}")
    uwsgi.websocket_send(b"gr\\xc3\\xbc")
    uwsgi.websocket_send_binary(b"\\xff")

def held(environ):
    uwsgi.websocket_handshake()
    while not os.path.exists("go"):
        time.sleep(0.01)
    uwsgi.websocket_send("behind pongs")

def computes(environ):
    uwsgi.websocket_handshake()
    uwsgi.websocket_send("computes")
    while True:
        sum(range(100))

def refused():
    try:
        uwsgi.websocket_handshake()
    except OSError as e:
        return str(e).encode()

def twice(environ):
    uwsgi.websocket_handshake()
    uwsgi.websocket_send(refused())

def late(start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    write(b"begun, ")
    return [refused()]

def flood(environ):
    uwsgi.websocket_handshake()
    for i in range(300):
        words.append("sent")
        uwsgi.websocket_send_binary(bytes([i % 256]) * 100_000)
    return []

def errors(environ):
    for call in (uwsgi.websocket_recv, uwsgi.websocket_recv_nb, uwsgi.websocket_handshake):
        try:
            call()
        except OSError as e:
            words.append(str(e))
    return None

def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name == "late":
        return late(start_response)
    result = globals()[name](environ) if name else None
    if result is None:
        start_response("200 OK", [("Content-Type", "text/plain")])
        result = ["\\n".join(words).encode()]
    return result
"""


@pytest.fixture(params=list(CARRIERS))
def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    made = serve(*CARRIERS[request.param], app=APP)
    if request.param == "inline":
        made.expect_log(ONE_AT_A_TIME, required=False)
    return made


@contextlib.contextmanager
def client(server: Server, path: str, **options: object) -> Iterator[ClientConnection]:
    options.setdefault("open_timeout", 20 * SLOW)
    options.setdefault("close_timeout", 20 * SLOW)
    with connect(f"ws://127.0.0.1:{server.port}{path}", proxy=None, **options) as ws:
        yield ws


def drain(ws: ClientConnection) -> None:
    while True:
        ws.recv(timeout=20 * SLOW)


def closed(ws: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as info:
        drain(ws)
    assert info.value.rcvd is not None, "no close frame came"
    return info.value.rcvd.code


def said(server: Server, word: str) -> None:
    wait_until(lambda: word in server.get("/").body.decode(), 5 * SLOW, f"{word} was not said")


def test_echo(server: Server) -> None:
    with client(server, "/echo") as ws:
        for message in ("text", "grüße", b"bytes", "x" * 100_000, b"b" * 1_000_000):
            ws.send(message)
            assert ws.recv(timeout=20 * SLOW) == message
    said(server, "end ClientDisconnected unable to receive websocket message")


def test_ends_by_the_exception(server: Server) -> None:
    with client(server, "/plain", subprotocols=["one", "two"]) as ws:
        assert ws.subprotocol == "two"
        ws.send("hello")
        assert ws.recv(timeout=20 * SLOW) == "hello!"
    assert server.get("/").status == 200


def test_recv_nb(server: Server) -> None:
    with client(server, "/looks") as ws:
        assert ws.recv(timeout=20 * SLOW) == "looked"
        ws.send("seen")
        assert ws.recv(timeout=20 * SLOW) == "seen"
        assert closed(ws) == 1000


def test_a_generator(server: Server) -> None:
    with client(server, "/generates") as ws:
        assert ws.recv(timeout=20 * SLOW) == "from a generator"
        assert closed(ws) == 1000


def test_a_crash(server: Server) -> None:
    server.expect_log("GET /crashes: the application failed(.|\n)*ValueError: on purpose")
    with client(server, "/crashes") as ws:
        assert closed(ws) == 1011


def test_a_slow_client_stops_send(server: Server) -> None:
    with client(server, "/flood", max_size=None) as ws:
        for i in range(300):
            assert ws.recv(timeout=20 * SLOW) == bytes([i % 256]) * 100_000
        assert closed(ws) == 1000


def test_errors(server: Server) -> None:
    words = server.get("/errors").body.decode().split("\n")
    assert words == [
        "uwsgi.websocket_recv: websocket_handshake comes first",
        "uwsgi.websocket_recv_nb: websocket_handshake comes first",
        "unable to complete websocket handshake",
    ]


def test_bytes_that_are_no_text(server: Server) -> None:
    with client(server, "/no_text") as ws:
        got = [ws.recv(timeout=20 * SLOW) for _ in range(5)]
        assert closed(ws) == 1000
    bad = "ValueError websocket_send sends text: these bytes are not UTF-8, "
    bad += "websocket_send_binary sends them"
    assert got == [bad, bad, "TypeError str or bytes expected, not int", "gr\u00fc", b"\xff"]


def test_handshakes_that_come_too_late(server: Server) -> None:
    with client(server, "/twice") as ws:
        assert ws.recv(timeout=20 * SLOW) == "unable to complete websocket handshake"
    answer = server.raw(HANDSHAKE % b"late")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"begun, " in answer
    assert b"unable to complete websocket handshake" in answer


@pytest.mark.parametrize("carrier", CARRIERS)
def test_pings(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], *PINGS, app=APP)
    if carrier == "inline":
        server.expect_log(ONE_AT_A_TIME)
    with Raw(server) as raw:
        raw.answer_pings()
    with Raw(server) as raw:
        assert [raw.frame()[0], raw.frame()] == [0x89, NO_ANSWER]
    with Raw(server, "looks") as raw:
        assert [raw.frame(), raw.frame()[0], raw.frame()] == [(0x81, b"looked"), 0x89, NO_ANSWER]
    said(server, "end ClientDisconnected unable to receive websocket message")


@pytest.mark.parametrize("carrier", ["threads", "fibers"])
def test_others_go_on(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], app=APP)
    with client(server, "/echo") as one, client(server, "/echo") as two:
        for i in range(20):
            two.send(str(i))
            assert server.get("/").status == 200
            assert two.recv(timeout=20 * SLOW) == str(i)
        one.send("still here")
        assert one.recv(timeout=20 * SLOW) == "still here"


@pytest.mark.parametrize("carrier", ["threads", "fibers"])
def test_server_stops(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], app=APP)
    with client(server, "/echo") as ws:
        ws.send("x")
        ws.recv(timeout=20 * SLOW)
        server.kill(signal.SIGTERM)
        assert closed(ws) == 1012
    server.wait()


@pytest.mark.parametrize("carrier", ["threads", "fibers"])
def test_server_stops_beside_one_that_computes(serve: Serve, carrier: str) -> None:
    """Its end is no failure of the application's, also where nobody else could say so before."""
    server = serve(*CARRIERS[carrier], "--shutdown-timeout", "0.3", app=APP)
    server.expect_log("is cut before the end", required=False)
    with client(server, "/computes") as ws:
        assert ws.recv(timeout=20 * SLOW) == "computes"
        server.kill(signal.SIGTERM)
        assert closed(ws) == 1012
    server.wait()


@pytest.mark.parametrize("carrier", ["threads", "fibers"])
def test_a_message_behind_pongs_that_nobody_takes(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], app=APP)
    with Raw(server, "held") as raw:
        raw.sock.settimeout(0.5)
        ping = b"\x89\xfd\0\0\0\0" + b"p" * 125
        with contextlib.suppress(TimeoutError):
            while True:  # until the server does not read any more
                raw.sock.sendall(ping * 1000)
        server.write("go", "")
        raw.sock.settimeout(20 * SLOW)
        frame = raw.frame()
        while frame == (0x8A, b"p" * 125):
            frame = raw.frame()
        assert frame == (0x81, b"behind pongs")

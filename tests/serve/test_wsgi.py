# SPDX-License-Identifier: Apache-2.0
"""PEP 3333 over real sockets, in every carrier: what an application may do, and what goes wrong."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

import pytest
from harness import SLOW, Server, parse_responses, wait_until
from webapps import Reader

Serve = Callable[..., Server]
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

# --- Every path under wsgiref.validate --------------------------------------------------------

VALID = """
import io
import sys
import warnings
from wsgiref.validate import validator

warnings.simplefilter("error")
TEXT = [("Content-Type", "text/plain")]


class Closing:
    def __init__(self, parts, path):
        self.parts, self.path = iter(parts), path

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.parts)

    def close(self):
        print("closed", self.path, flush=True)


def plain(environ, start_response):
    path = environ["PATH_INFO"]
    stream = environ["wsgi.input"]
    if path == "/read":
        body = stream.read(2) + stream.readline() + b"".join(stream.readlines())
        body += b"".join(stream) + stream.read(1)
    else:
        body = b""
        while block := stream.read(65536):
            body += block
    if path == "/204":
        start_response("204 No Content", [])
        return Closing([], path)
    if path == "/write":
        write = start_response("200 OK", TEXT)
        write(b"one,")
        write(body)
        return Closing([b",two"], path)
    if path == "/generator":
        start_response("200 OK", TEXT)
        return Closing((b"%d," % i for i in range(5)), path)
    if path == "/empties":
        start_response("200 OK", TEXT)
        return Closing([b"", b"a", b"", b"b", b""], path)
    if path == "/length":
        start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
        return Closing([body], path)
    if path == "/exc_info":
        start_response("200 OK", TEXT)
        try:
            raise ValueError("replaced")
        except ValueError:
            start_response("500 Replaced", TEXT, sys.exc_info())
        return Closing([b"sorry"], path)
    if path == "/file":
        start_response("200 OK", [*TEXT, ("Content-Length", "9")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"some file"), 4)
    environ["wsgi.errors"].write("a note\\n")
    environ["wsgi.errors"].writelines(["another\\n"])
    environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return Closing([body], path)


application = validator(plain)
"""


def test_the_validator_is_silent(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=VALID)
    head = b" HTTP/1.1\r\nHost: a\r\n"
    body = b"ab\ncd\nef"
    length = head + b"Content-Length: 8\r\n\r\n" + body
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab\n\r\n5\r\ncd\nef\r\n0\r\n\r\n"
    expected = {
        b"/": body,
        b"/read": body,
        b"/write": b"one," + body + b",two",
        b"/generator": b"0,1,2,3,4,",
        b"/empties": b"ab",
        b"/length": body,
        b"/exc_info": b"sorry",
        b"/204": b"",
        b"/file": b"some file",
    }
    data = b"".join(b"POST " + path + tail for path in expected for tail in (length, chunked))
    answers = parse_responses(server.raw(data + LAST))
    for at, (path, want) in enumerate(expected.items()):
        for answer in answers[2 * at : 2 * at + 2]:
            assert answer.body == want, path
            assert answer.status == {b"/204": 204, b"/exc_info": 500}.get(path, 200)
    for path in expected:
        if path != b"/file":
            closed = f"closed {path.decode()}\n"
            wait_until(lambda text=closed: server.log.count(text) == 2, 5 * SLOW, closed)
    server.wait_log("^a note\nanother$")
    head_requests = b"".join(b"HEAD " + path + head + b"\r\n" for path in expected)
    answers = parse_responses(server.raw(head_requests + LAST), ["HEAD"] * len(expected))
    assert len(answers) == len(expected) + 1


# --- Failures ---------------------------------------------------------------------------------

FAILING = """
import sys

class Body:
    def __init__(self, path):
        self.path, self.left = path, 2

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        if self.left == 0 and self.path == "/next":
            raise ValueError("on purpose")
        if self.left < 0:
            raise StopIteration
        return b"" if self.path == "/next-early" and self.left == 1 else b"piece"

    def close(self):
        print("closed", self.path, flush=True)
        if self.path == "/close":
            raise ValueError("on purpose")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/call":
        raise ValueError("on purpose")
    if path == "/exit":
        sys.exit(3)
    if path == "/none":
        start_response("200 OK", [])
        return None
    if path == "/text":
        start_response("200 OK", [])
        return ["text"]
    if path == "/no-start":
        return [b"abc"]
    if path == "/twice":
        start_response("200 OK", [])
        start_response("200 OK", [])
    if path == "/long":
        start_response("200 OK", [("Content-Length", "3")])
        return [b"12345"]
    if path == "/short":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"12345"]
    if path == "/exc-late":
        start_response("200 OK", [])(b"piece")
        try:
            raise ValueError("on purpose")
        except ValueError:
            start_response("500 Late", [], sys.exc_info())
    start_response("200 OK", [])
    return Body(path)
"""


@pytest.mark.parametrize("path", ["/call", "/exit", "/none", "/text", "/no-start", "/twice"])
def test_an_exception_before_the_head(serve: Serve, carrier: tuple[str, ...], path: str) -> None:
    """A 500 and the reason in the log; the connection and the worker go on."""
    server = serve(*carrier, app=FAILING)
    server.expect_log(f"GET {path}: the application failed")
    request = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    answers = parse_responses(server.raw(request + LAST))
    assert [answer.status for answer in answers] == [500, 200]
    assert b"on purpose" not in answers[0].body
    if path == "/call":
        server.wait_log(r'File ".*webapp.py", line \d+, in application')
        server.wait_log("ValueError: on purpose")


@pytest.mark.parametrize("path", ["/next", "/exc-late"])
def test_an_exception_after_the_head(serve: Serve, carrier: tuple[str, ...], path: str) -> None:
    """The connection is cut: no client takes the piece for the whole."""
    server = serve(*carrier, app=FAILING)
    server.expect_log(f"GET {path}: the application failed")
    data = server.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + LAST, allow_reset=True)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"\r\n5\r\npiece\r\n")
    if path == "/next":
        server.wait_log("^closed /next$")
        assert server.log.count("closed /next\n") == 1
    data = server.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode(), allow_reset=True)
    assert b"200 OK" in data or data == b""
    assert server.get("/last").body == b"piecepiece"


def test_an_exception_in_close(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=FAILING)
    server.expect_log("GET /close: ")
    data = server.raw(b"GET /close HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True, allow_reset=True)
    assert b"piece" in data
    server.wait_log("^closed /close$")
    assert server.get("/last").body == b"piecepiece"


def test_wrong_lengths(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=FAILING)
    server.expect_log("/long")
    server.expect_log("/short")
    for path in (b"/long", b"/short"):
        request = b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        data = server.raw(request + LAST, allow_reset=True)
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 500 " in head:
            assert b"12345" not in data
        elif path == b"/short":
            assert body == b"12345"
        else:
            assert body.startswith(b"123")
            assert not body.startswith(b"1234")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_endless_iterable_ends_where_nothing_more_is_wanted(
    serve: Serve, carrier: tuple[str, ...], method: str
) -> None:
    app = """
    def application(environ, start_response):
        get = environ["REQUEST_METHOD"] == "GET"
        start_response("200 OK", [("Content-Length", "3")] if get else [])
        try:
            while True:
                yield b"ab"
        finally:
            print("closed", flush=True)
    """
    server = serve(*carrier, app=app)
    server.expect_log("longer than its Content-Length of 3")  # the last request is a GET
    data = server.raw(method.encode() + b" / HTTP/1.1\r\nHost: a\r\n\r\n" + LAST, allow_reset=True)
    assert data.partition(b"\r\n\r\n")[2].startswith(b"aba" if method == "GET" else b"HTTP/1.1")
    server.wait_log("^closed$")


# --- Bodies -----------------------------------------------------------------------------------

READING = """
def application(environ, start_response):
    stream, how = environ["wsgi.input"], environ["QUERY_STRING"]
    print("called", flush=True)
    if how == "read":
        parts = [stream.read()]
    elif how == "some":
        parts = []
        while part := stream.read(7):
            parts.append(part)
    elif how == "line":
        parts = []
        while part := stream.readline():
            parts.append(part)
    elif how == "line-some":
        parts = []
        while part := stream.readline(3):
            parts.append(part)
    elif how == "lines":
        parts = stream.readlines()
    elif how == "iterate":
        parts = list(stream)
    elif how == "length":
        parts = [stream.read(int(environ["CONTENT_LENGTH"]))]
    parts.append(stream.read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(parts).encode()]
"""
TEXT = b"first\nse\n\nthird line\nno newline"


def parts_of(how: str) -> list[bytes]:
    if how == "some":
        return [TEXT[i : i + 7] for i in range(0, len(TEXT), 7)]
    if how in ("line", "lines", "iterate"):
        return TEXT.splitlines(keepends=True)
    if how == "line-some":
        return [
            line[i : i + 3]
            for line in TEXT.splitlines(keepends=True)
            for i in range(0, len(line), 3)
        ]
    return [TEXT]


@pytest.mark.parametrize("buffering", ["65536", "0"])
def test_input_in_all_forms(serve: Serve, carrier: tuple[str, ...], buffering: str) -> None:
    """As one piece, and byte by byte while the application waits for it."""
    server = serve(*carrier, "--post-buffering", buffering, app=READING)
    for how in ("read", "some", "line", "line-some", "lines", "iterate", "length"):
        head = f"POST /?{how} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".encode()
        length = [head, b"Content-Length: %d\r\n\r\n" % len(TEXT)]
        pieces = [TEXT[i : i + 5] for i in range(0, len(TEXT), 5)]
        bodies = [[*length, TEXT], [*length, *pieces]]
        if how != "length":
            start = [head, b"Transfer-Encoding: chunked\r\n\r\n"]
            chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
            bodies += [[*start, *chunks, b"0\r\n\r\n"], [b"".join([*start, *chunks, b"0\r\n\r\n"])]]
        for parts in bodies:
            answer = parse_responses(server.raw(*parts, gap_s=0.003))[0]
            assert answer.body == repr([*parts_of(how), b""]).encode(), (how, len(parts))


def test_a_slow_body_holds_its_own_core_only(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str
) -> None:
    if carrier_name == "inline":
        pytest.skip("one core: who reads a slow body holds it")
    server = serve(*carrier, "--post-buffering", "0", app=READING)
    slow = []
    for _ in range(3):
        sock = server.connect(timeout_s=20)
        sock.sendall(b"POST /?read HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        slow.append(sock)
    wait_until(lambda: server.log.count("called\n") == 3, 5 * SLOW)
    for _ in range(5):
        assert server.request("/?read", "POST", body=b"xyz").body == b"[b'xyz', b'']"
    for sock in slow:
        sock.sendall(b"def")
        assert Reader(sock).answer()[1] == b"[b'abcdef', b'']"


def test_slow_bodies_below_the_bound_take_no_core(serve: Serve, carrier: tuple[str, ...]) -> None:
    """They are gathered before the application is called: also inline others are served."""
    server = serve(*carrier, app=READING)
    slow = [server.connect(timeout_s=20) for _ in range(30)]
    for sock in slow:
        sock.sendall(b"POST /?read HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    assert server.request("/?read", "POST", body=b"xyz").body == b"[b'xyz', b'']"
    assert server.log.count("called\n") == 1
    for sock in slow:
        sock.sendall(b"def")
        assert Reader(sock).answer()[1] == b"[b'abcdef', b'']"


# --- Clients that leave -----------------------------------------------------------------------

LEAVING = """
import time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    print("began", path, flush=True)
    if path == "/read":
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            print("read:", type(error).__name__, flush=True)
            raise
        print("never", flush=True)
    if path == "/write":
        write = start_response("200 OK", [])
        try:
            while True:
                write(b"x" * 65536)
        finally:
            print("unwound", path, flush=True)
    start_response("200 OK", [])
    return stream(path)


def stream(path):
    try:
        while path == "/stream":
            yield b"x" * 65536
        yield b"last"
    finally:
        print("unwound", path, flush=True)
"""


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves(serve: Serve, carrier: tuple[str, ...], how: str) -> None:
    """Its request ends: reads and write() raise, generators are closed; the log stays calm."""
    server = serve(*carrier, "--post-buffering", "0", app=LEAVING)
    for path in ("/read", "/stream", "/write"):
        sock = server.connect()
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc".encode())
        server.wait_log(f"^began {path}$")
        if path != "/read":
            assert sock.recv(1000)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        if path == "/read":
            server.wait_log("^read: ClientDisconnected$")
        else:
            server.wait_log(f"^unwound {path}$")
    assert server.get("/last").body == b"last"
    assert "never" not in server.log
    assert "Traceback" not in server.log


# --- Slow readers -----------------------------------------------------------------------------

STREAMING = """
sent = 0

def application(environ, start_response):
    global sent
    if environ["PATH_INFO"] == "/sent":
        start_response("200 OK", [])
        return [b"%d" % sent]
    start_response("200 OK", [])
    return stream()


def stream():
    global sent
    for i in range(1000):
        sent += 1
        yield b"%09d\\n" % i * 6000
"""


def test_back_pressure(serve: Serve, carrier: tuple[str, ...], carrier_name: str) -> None:
    """A generator is asked for no more than a slow reader takes; others go on meanwhile."""
    server = serve(*carrier, "--write-timeout", "60", app=STREAMING)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.settimeout(20 * SLOW)
    with contextlib.closing(sock):
        sock.connect(server.address)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = sock.recv(100_000)
        if carrier_name != "inline":
            counts = [int(server.get("/sent").body)]
            while len(counts) < 2 or counts[-1] != counts[-2]:
                counts.append(int(server.get("/sent").body))
            assert counts[-1] < 300  # of 1000: 18 MB, kernel buffers included
        blocks = [data]
        while block := sock.recv(1 << 20):
            blocks.append(block)
    answer = parse_responses(b"".join(blocks))[0]
    assert answer.body == b"".join(b"%09d\n" % i * 6000 for i in range(1000))


FILES = """
import os

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hello":
        start_response("200 OK", [])
        return [b"hello"]
    file = open("data.bin", "rb")
    if path == "/tail":
        file.seek(1000)
    headers = [("Content-Type", "application/octet-stream")]
    if path == "/length":
        headers.append(("Content-Length", str(os.path.getsize("data.bin"))))
    if path == "/part":
        headers.append(("Content-Length", "1234"))
    start_response("200 OK", headers)
    return environ["wsgi.file_wrapper"](file)
"""


def test_files(serve: Serve, carrier: tuple[str, ...], carrier_name: str) -> None:
    data = bytes(range(256)) * 40_000
    server = serve(*carrier, app=FILES, files={"data.bin": data})
    for path, body in (
        ("/whole", data),
        ("/length", data),
        ("/tail", data[1000:]),
        ("/part", data[:1234]),
    ):
        answer = server.get(path, timeout_s=20)
        assert answer.body == body, path
        assert answer["content-length"] == str(len(body))
        assert server.request(path, "HEAD").body == b""
    if carrier_name != "inline":
        slow = server.connect(timeout_s=20)
        slow.sendall(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")
        assert server.get("/hello").body == b"hello"
        assert Reader(slow).answer()[1] == data
    gone = server.connect()
    gone.sendall(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")
    gone.recv(100)
    gone.close()
    assert server.get("/hello").body == b"hello"

# SPDX-License-Identifier: Apache-2.0
"""Every time-out and every bound, with its answer, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest
from harness import SLOW, Server, parse_responses
from webapps import ECHO, Reader

Serve = Callable[..., Server]
HOST = b"Host: a\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def refusal(server: Server, *parts: bytes, gap_s: float = 0.0) -> int:
    """Sends what is refused, and a request behind it, which must not be served."""
    data = server.raw(*parts, gap_s=gap_s, timeout_s=10)
    answers = parse_responses(data)
    assert len(answers) == 1, data[:1000]
    answer = answers[0]
    assert answer["connection"] == "close"
    assert answer["content-type"] == "text/plain"
    assert "date" in answer
    return answer.status


# --- Time-outs --------------------------------------------------------------------------------


def test_header_timeout(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--http-headers-timeout", "0.3", app=ECHO)
    assert refusal(server, b"GET / HTTP/1.1\r\nHo") == 408
    # It counts from the first byte: a byte now and then buys no time.
    sock = server.connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in b"GET / HTTP/1.1\r\nHost: abcdefghijklmnopqrstuvwxyz":
            sock.sendall(bytes([byte]))
            time.sleep(0.02 * SLOW)
    server.wait_log(r'"-" 408 .*error="header time-out"(.|\n)*"-" 408')
    # It comes again for a later request of the same connection.
    sock = server.connect()
    sock.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET /")
    reader = Reader(sock)
    assert reader.answer()[0].startswith(b"HTTP/1.1 200 ")
    assert parse_responses(reader.end())[0].status == 408


def test_a_connection_that_says_nothing_gets_nothing(
    serve: Serve, carrier: tuple[str, ...]
) -> None:
    server = serve(*carrier, "--http-headers-timeout", "0.2", "--no-defer-accept", app=ECHO)
    assert server.raw() == b""
    assert server.raw(b"\r\n") in (b"",) or refusal(server, b"\r\n") == 408


def test_body_timeout(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Before the application has it (buffered), and while it reads."""
    server = serve(*carrier, "--body-timeout", "0.3", app=ECHO)
    head = b"POST /upper HTTP/1.1\r\n" + HOST
    assert refusal(server, head + b"Content-Length: 10\r\n\r\nabc") == 408
    assert refusal(server, head + b"Transfer-Encoding: chunked\r\n\r\n3\r\na") == 408
    server.wait_log(r'408 .*error="body time-out"')


def test_body_timeout_begins_anew_with_each_piece(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--body-timeout", "2", app=ECHO)
    head = b"POST /upper HTTP/1.1\r\n" + HOST
    parts = [head + b"Connection: close\r\nContent-Length: 6\r\n\r\n", *[b"a"] * 6]
    assert parse_responses(server.raw(*parts, gap_s=0.4))[0].body == b"AAAAAA"


def test_body_timeout_while_the_application_reads(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--body-timeout", "0.3", "--post-buffering", "0", app=ECHO)
    server.expect_log("TimeoutError|time", required=False)
    head = b"POST /upper HTTP/1.1\r\n" + HOST
    assert refusal(server, head + b"Content-Length: 100000\r\n\r\nabc") == 408
    # After the head of an answer there is no other answer: the connection is cut.
    data = server.raw(
        head.replace(b"/upper", b"/early") + b"Content-Length: 9\r\n\r\nabc", allow_reset=True
    )
    assert data.endswith(b"first,\r\n")
    assert b"\r\n0\r\n" not in data
    assert server.get().status == 200


def test_keepalive_timeout(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--http-keepalive=0.3", app=ECHO)
    reader = Reader(server.connect())
    reader.sock.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert reader.answer()[0].startswith(b"HTTP/1.1 200 ")
    assert reader.end() == b""


def test_no_keepalive(serve: Serve) -> None:
    server = serve("--http-keepalive=0", app=ECHO)
    answer = parse_responses(server.raw(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"))[0]
    assert answer["connection"] == "close"


def test_keepalive_requests(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--http-keepalive-requests", "3", app=ECHO)
    answers = parse_responses(server.raw((b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 5))
    assert [answer.get("connection") for answer in answers] == [None, None, "close"]


def test_write_timeout(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Who takes nothing of its answer is cut, and holds nothing any more."""
    server = serve(*carrier, "--write-timeout", "0.4", app=ECHO)
    server.expect_log("time-out|gone|Disconnected", required=False)
    sock = server.connect(timeout_s=20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.sendall(b"GET /big?50000000 HTTP/1.1\r\n" + HOST + b"\r\n")
    server.wait_log('error="write time-out"', timeout_s=10)
    got = 0
    with contextlib.suppress(ConnectionResetError):
        while block := sock.recv(65536):
            got += len(block)
    assert got < 50_000_000
    assert server.get().status == 200


def test_queue_timeout_and_full_queue(serve: Serve) -> None:
    app = """
    import time

    def application(environ, start_response):
        print("began", environ["PATH_INFO"], flush=True)
        time.sleep(float(environ["QUERY_STRING"] or 0))
        start_response("200 OK", [])
        return [b"done"]
    """
    options = ("--threads", "2", "--queue-timeout", "0.3", "--queue-size", "3")
    server = serve(*options, app=app)
    holders = [server.connect(timeout_s=20) for _ in range(2)]
    for sock in holders:
        sock.sendall(b"GET /hold?2 HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    server.wait_log(r"began /hold(.|\n)*began /hold")
    waiting = [server.connect(timeout_s=20) for _ in range(6)]
    for sock in waiting:
        sock.sendall(b"GET /late HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    answers = [parse_responses(Reader(sock).end())[0].status for sock in waiting]
    assert answers == [503] * 6
    assert [parse_responses(Reader(sock).end())[0].body for sock in holders] == [b"done"] * 2
    assert "began /late" not in server.log


# --- Bounds -----------------------------------------------------------------------------------

BOUNDS = [
    ("target", 414, (), b"GET /" + b"a" * 16384 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("target-option", 414, ("--max-target", "100"), b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n"),
    ("target-endless", 414, (), b"GET /" + b"a" * 40000),
    ("method-endless", 501, (), b"G" * 40000),
    ("line", 431, (), b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 16384 + b"\r\n\r\n"),
    ("line-endless", 431, (), b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 40000),
    (
        "line-option",
        431,
        ("--max-header-line", "100"),
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 100 + b"\r\n\r\n",
    ),
    ("count", 431, (), b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n"),
    (
        "count-option",
        431,
        ("--max-headers", "2"),
        b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 2 + b"\r\n",
    ),
    (
        "head",
        431,
        ("--buffer-size", "2048"),
        b"GET / HTTP/1.1\r\n" + HOST + (b"A: " + b"a" * 200 + b"\r\n") * 12 + b"\r\n",
    ),
    (
        "body",
        413,
        ("--limit-post", "10"),
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\n01234567890",
    ),
    (
        "body-continue",
        413,
        ("--limit-post", "10"),
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n",
    ),
    (
        "body-chunked",
        413,
        ("--limit-post", "10"),
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n",
    ),
    (
        "extensions",
        400,
        (),
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + (b"1;" + b"e" * 500 + b"\r\na\r\n") * 9
        + b"0\r\n\r\n",
    ),
    (
        "trailers",
        431,
        (),
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"A: b\r\n" * 40
        + b"\r\n",
    ),
    ("expectation", 417, (), b"GET / HTTP/1.1\r\n" + HOST + b"Expect: 200-ok\r\n\r\n"),
    ("coding", 501, (), b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: x, chunked\r\n\r\n"),
    ("connect", 501, (), b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("version", 505, (), b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    ("garbage", 400, (), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)),
    ("preface", 400, (), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("http09", 400, (), b"GET /\r\n"),
]


@pytest.mark.parametrize(
    ("status", "options", "request_"), [row[1:] for row in BOUNDS], ids=[row[0] for row in BOUNDS]
)
def test_bounds(serve: Serve, status: int, options: tuple[str, ...], request_: bytes) -> None:
    server = serve(*options, app=ECHO)
    assert refusal(server, request_ + LAST) == status
    server.wait_log(rf'" {status} \d+ .*error="')
    # Cut in two, the same.
    half = len(request_) // 2
    assert refusal(server, request_[:half], request_[half:] + LAST, gap_s=0.02) == status
    assert server.get().status == 200


def test_what_is_just_within_the_bounds(serve: Serve) -> None:
    server = serve("--limit-post", "10", app=ECHO)
    long = b"GET /" + b"a" * 16383 + b" HTTP/1.1\r\n" + HOST
    lines = b"A: b\r\n" * 98
    requests = [
        long + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 16381 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + lines + b"C: d\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n0123456789",
        b"GET / HTTP/1.7\r\n" + HOST + b"\r\n",
    ]
    answers = parse_responses(server.raw(b"".join(requests) + LAST))
    assert [answer.status for answer in answers] == [200] * 6


def test_no_limit_of_bodies(serve: Serve) -> None:
    """Said by 0, as uWSGI has it."""
    server = serve("--limit-post", 0, app=ECHO)
    assert server.request("/upper", "POST", body=b"x" * 200_000).body == b"X" * 200_000
    chunked = (
        b"POST /upper HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    )
    (answer,) = parse_responses(server.raw(chunked + b"\r\n3\r\nabc\r\n0\r\n\r\n"))
    assert answer.body == b"ABC"

# SPDX-License-Identifier: Apache-2.0
"""What other servers fell to, against the real server over real sockets (docs/security.md).

The parsers' unit tests have every byte of these. Here it is shown that the whole server keeps to
it: what is refused ends its connection, nothing behind it is served, and nothing of an
application's or of a client's reaches a place where it could be taken for something else.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable

import pytest
from harness import SLOW, Server, parse_responses, wait_until
from webapps import ECHO, Reader, environ_of

Serve = Callable[..., Server]
POST = b"POST /upper HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

# --- Requests smuggled ------------------------------------------------------------------------

SMUGGLED = {
    "cl-te": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "te-cl": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "te-te": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "te-unknown": POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabc",
    "te-nbsp": POST + b"Transfer-Encoding\xa0: chunked\r\n\r\n0\r\n\r\n",
    "te-vt": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "te-space": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "te-folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "te-in-1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "cl-list": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "cl-twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "cl-plus": POST + b"Content-Length: +3\r\n\r\nabc",
    "cl-hex": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "cl-minus": POST + b"Content-Length: -3\r\n\r\nabc",
    "cl-huge": POST + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "cl-space": POST + b" Content-Length: 3\r\n\r\nabc",
    "bare-lf": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare-cr": b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "cr-lf-cr": b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
    "nul": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n",
    "chunk-plus": CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
    "chunk-hex": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "chunk-huge": CHUNKED + b"fffffffffffffffff1\r\nx\r\n0\r\n\r\n",
    "chunk-end": CHUNKED + b"1\r\nxAB0\r\n\r\n",
    "chunk-lf": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "extension-lf": CHUNKED + b"1;a\nb\r\nx\r\n0\r\n\r\n",
    "extension-cr": CHUNKED + b"1;a\rb\r\nx\r\n0\r\n\r\n",
    "trailer-request": CHUNKED + b"0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "trailer-length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("name", list(SMUGGLED))
def test_smuggling(serve: Serve, name: str) -> None:
    """400, the connection ends, and what lies behind is never served: not in the same piece, not
    in a later one (waitress CVE-2024-49768)."""
    server = serve(app=ECHO)
    request = SMUGGLED[name]
    for parts in ([request + NEXT * 3], [request, NEXT, NEXT], [NEXT + request + NEXT]):
        data = server.raw(*parts, gap_s=0.02, allow_reset=True)
        answers = parse_responses(data)
        assert answers[-1].status == 400, answers
        assert answers[-1]["connection"] == "close"
        assert len(answers) == (2 if parts[0].startswith(NEXT) else 1)
    server.wait_log('"GET /smuggled')  # the one in front
    assert server.log.count('"GET /smuggled') == 1


def test_a_body_is_never_a_request(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Whatever the application leaves of a body, its bytes begin no request."""
    app = """
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/some":
            environ["wsgi.input"].read(3)
        if environ["PATH_INFO"] == "/raise":
            raise ValueError("on purpose")
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]
    """
    server = serve(*carrier, app=app)
    server.expect_log("on purpose")
    for path in (b"/none", b"/some", b"/raise"):
        for size in (len(NEXT), len(NEXT) * 4000):
            head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
            data = server.raw(head + NEXT * (size // len(NEXT)), half_close=True, allow_reset=True)
            answers = parse_responses(data)
            assert [a.status for a in answers] == [500 if path == b"/raise" else 200]
    assert "/smuggled" not in server.log


def test_a_truncated_body_never_looks_whole(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Cut where it was buffered (400), and in the application's read (an exception)."""
    for option in ("65536", "0"):
        server = serve(*carrier, "--post-buffering", option, app=ECHO)
        server.expect_log("ClientDisconnected", required=False)
        for request in (
            POST + b"Content-Length: 10\r\n\r\nabc",
            CHUNKED + b"5\r\nab",
            CHUNKED + b"3\r\nabc\r\n",
            CHUNKED + b"3\r\nabc\r\n0\r\n",  # gunicorn 26.1: cut after the last chunk's line
        ):
            answers = parse_responses(server.raw(request, half_close=True, allow_reset=True))
            assert [answer.status for answer in answers] in ([400], [])
            assert not any(b"ABC" in answer.body for answer in answers)
        assert server.get().status == 200


# --- Answers split ----------------------------------------------------------------------------

SPLIT = """
import json, sys
from urllib.parse import unquote_to_bytes

def application(environ, start_response):
    what, _, value = environ["QUERY_STRING"].partition("=")
    value = unquote_to_bytes(value).decode("latin-1")
    headers = [("Content-Type", "text/plain")]
    status = "200 OK"
    if what == "status":
        status = "200 " + value
    elif what == "name":
        headers.append((value, "v"))
    elif what == "value":
        headers.append(("Location", value))
    elif what == "cookie":
        headers.append(("Set-Cookie", value))
    elif what == "replace":
        start_response(status, headers)
        try:
            raise ValueError
        except ValueError:
            start_response("500 Bad", [("X", value)], sys.exc_info())
        return [b"split"]
    start_response(status, headers)
    return [b"plain"]
"""


@pytest.mark.parametrize("what", ["status", "name", "value", "cookie", "replace"])
def test_splitting(serve: Serve, carrier: tuple[str, ...], what: str) -> None:
    server = serve(*carrier, app=SPLIT)
    server.expect_log("the application failed")
    for bad in ("%0d%0aX-Evil:%201", "%0aX-Evil:1", "%0dX-Evil:1", "a%00b", "%0d%0a%0d%0a<b>"):
        request = f"GET /?{what}={bad} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        data = server.raw(request.encode())
        answers = parse_responses(data)
        assert [answer.status for answer in answers] == [500]
        assert b"X-Evil" not in data
        assert b"<b>" not in data


def test_framing_is_the_servers(serve: Serve, carrier: tuple[str, ...]) -> None:
    """What an application says of Transfer-Encoding, Connection and two lengths makes no second
    framing (mod_proxy_uwsgi CVE-2023-27522, CVE-2024-24795)."""
    app = """
    CASES = {
        "/te": [("Transfer-Encoding", "chunked")],
        "/te-length": [("Transfer-Encoding", "chunked"), ("Content-Length", "2")],
        "/lengths": [("Content-Length", "2"), ("Content-Length", "1")],
        "/plus": [("Content-Length", "+2")],
        "/negative": [("Content-Length", "-1")],
        "/connection": [("Connection", "X-Secret"), ("Keep-Alive", "timeout=1")],
    }

    def application(environ, start_response):
        start_response("200 OK", CASES[environ["PATH_INFO"]])
        return [b"ab"]
    """
    server = serve(*carrier, app=app)
    server.expect_log("Error", required=False)
    for path in ("/te", "/te-length", "/lengths", "/plus", "/negative", "/connection"):
        data = server.raw(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = parse_responses(data)[-1]
        assert len(answer.all("content-length")) + len(answer.all("transfer-encoding")) == 1
        assert answer.status == 500 or answer.body == b"ab"
        assert answer["connection"] == "close"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HEAD / HTTP/1.1\r\nHost: a b", 400),
        (b"HEAD /" + b"a" * 17000 + b" HTTP/1.1\r\nHost: a", 414),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nExpect: more", 417),
        (b"HEAD / HTTP/2.0\r\nHost: a", 505),
    ],
    ids=["400", "414", "417", "505"],
)
def test_no_body_in_a_refused_head_either(serve: Serve, line: bytes, status: int) -> None:
    got = serve(app=ECHO).raw(line + b"\r\n\r\n")
    (answer,) = parse_responses(got, ["HEAD"])
    assert answer.status == status
    assert int(answer["content-length"]) > 0
    assert got.endswith(b"\r\n\r\n")


def test_no_body_where_none_may_be(serve: Serve, carrier: tuple[str, ...]) -> None:
    """HEAD, 204, 304 (gunicorn 3413, 3621): not a byte, however the application sends it, and the
    next answer begins where the client looks for it."""
    app = """
    def application(environ, start_response):
        path = environ["PATH_INFO"]
        status = {"/204": "204 No Content", "/304": "304 Not Modified"}.get(path, "200 OK")
        how = environ["QUERY_STRING"]
        headers = [("Content-Length", "7")] if how == "length" else []
        write = start_response(status, headers)
        if how == "write":
            write(b"abc")
        return [b"abc", b"defg"] if how != "generator" else (x for x in [b"abc", b"defg"])
    """
    server = serve(*carrier, app=app)
    requests, methods = b"", []
    for method, path in (("HEAD", "/"), ("GET", "/204"), ("GET", "/304"), ("HEAD", "/304")):
        for how in ("length", "write", "generator", "list"):
            requests += f"{method} {path}?{how} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            methods.append(method)
    requests += b"GET /?length HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = parse_responses(server.raw(requests), methods)
    assert len(answers) == len(methods) + 1
    assert answers[0]["content-length"] == "7"
    assert answers[-1].body == b"abcdefg"
    for answer in answers:
        if answer.status == 204:
            assert "content-length" not in answer


# --- Identity ---------------------------------------------------------------------------------


def seen(server: Server, *lines: str) -> dict[str, str]:
    head = "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "Connection: close", "", ""])
    return environ_of(parse_responses(server.raw(head.encode("latin-1")))[0])


def test_header_spoofing(serve: Serve) -> None:
    """gunicorn 2799, 2650, 2350; httpoxy CVE-2016-5388; mod_wsgi CVE-2022-2255."""
    server = serve(app=ECHO)
    plain = seen(server)
    found = seen(
        server,
        "X_Forwarded_For: 6.6.6.6",
        "Remote_User: admin",
        "SCRIPT_NAME: /evil",
        "Content_Length: 100",
        "Proxy: http://evil/",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Port: 1",
        "Forwarded: for=6.6.6.6;proto=https;host=evil",
        "X-Forwarded-Protocol: ssl",
        "X-Forwarded-Ssl: on",
        "Front-End-Https: on",
    )
    for name in ("HTTP_PROXY", "HTTP_REMOTE_USER", "HTTP_SCRIPT_NAME", "REMOTE_USER"):
        assert name not in found
    for name in ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"):
        assert found[name] == plain[name], name
    assert found["SCRIPT_NAME"] == ""
    assert "CONTENT_LENGTH" not in found or found["CONTENT_LENGTH"] in ("", "0")
    assert "HTTP_CONTENT_LENGTH" not in found


def test_forwarded_headers_of_trusted_proxies(serve: Serve) -> None:
    server = serve("--forwarded-allow-ips", "127.0.0.0/8", app=ECHO)
    found = seen(server, "X-Forwarded-For: 6.6.6.6, 9.9.9.9", "X-Forwarded-Proto: https")
    assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("9.9.9.9", "https")
    # The name with underscores is no other spelling of it, also for a proxy that is trusted.
    found = seen(server, "X_Forwarded_For: 6.6.6.6")
    assert found["REMOTE_ADDR"] == "127.0.0.1"
    server = serve("--forwarded-allow-ips", "10.0.0.0/8", app=ECHO)
    assert seen(server, "X-Forwarded-For: 6.6.6.6")["REMOTE_ADDR"] == "127.0.0.1"


# --- The log ----------------------------------------------------------------------------------


def test_log_injection(serve: Serve) -> None:
    """uvicorn CVE-2020-7694: no field of a client's brings a control character into the log."""
    server = serve(app=ECHO)
    server.raw(
        b'GET /%1b%5b31m%0d%0aFAKE?\xc2\x9b%0aa\xff" HTTP/1.1\r\nHost: a\r\n'
        b"User-Agent: \xff\x9b\r\nConnection: close\r\n\r\n"
    )
    server.raw(b"G\x1b[31mET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.raw(b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n")
    server.wait_log('" 400 .*error=(.|\n)*" 400 .*error=')
    data = server.log_path.read_bytes()
    assert rb"GET /%1b%5b31m%0d%0aFAKE?\xc2\x9b%0aa\xff\x22 HTTP/1.1" in data
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\xff]", data)
    assert not any(line.startswith(b"FAKE") for line in data.splitlines())


# --- Floods, and peers that leave -------------------------------------------------------------


def reset(sock: socket.socket) -> None:
    """Closes with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_peers_that_leave_before_they_are_accepted(serve: Serve, carrier: tuple[str, ...]) -> None:
    """waitress CVE-2024-49769: no busy loop, no lost listener."""
    server = serve(*carrier, "--no-defer-accept", app=ECHO)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for at in range(60):
            sock = server.connect()
            if at % 2:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            if at % 3:
                reset(sock)
            else:
                sock.close()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert server.get().status == 200
    before = cpu_ticks(server.pid)
    time.sleep(0.3)
    assert cpu_ticks(server.pid) - before < 15
    assert server.get().status == 200


def test_peers_that_reset_at_every_point(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=ECHO)
    server.expect_log("ClientDisconnected", required=False)
    request = CHUNKED + b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"
    for cut in range(1, len(request) + 1, 3):
        sock = server.connect()
        sock.sendall(request[:cut])
        reset(sock)
    for _ in range(30):
        sock = server.connect()
        sock.sendall(b"GET /big?3000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.recv(10)
        reset(sock)
    assert server.get().status == 200
    wait_until(lambda: server.get().status == 200, 5 * SLOW)


def test_a_thousand_slow_heads_hold_nobody_up(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Slowloris: connections that never end their heads take no core."""
    server = serve(*carrier, app=ECHO)
    slow = [server.connect() for _ in range(1000)]
    for sock in slow:
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
    assert server.get().status == 200
    for sock in slow[::2]:
        sock.sendall(b"y\r\nHost: a\r\n\r\n")
    assert b" 200 " in Reader(slow[0]).until(b"\r\n\r\n")
    assert server.get().status == 200


def test_many_tiny_chunks(serve: Serve, carrier: tuple[str, ...]) -> None:
    """A body of one-byte chunks is read in linear time and its framing costs no memory."""
    server = serve(*carrier, app=ECHO)
    head = CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    data = server.raw(head + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n", timeout_s=20)
    assert parse_responses(data)[0].body == b"X" * 100_000

# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 as RFC 9112 has it, over real sockets: connections, framing, forms of a request."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness import SLOW, Server, parse_responses
from webapps import ECHO, Reader, environ_of

Serve = Callable[..., Server]
GET = b"GET /chunks?1 HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def server(serve: Serve, carrier: tuple[str, ...]) -> Server:
    return serve(*carrier, app=ECHO)


# --- Connections ------------------------------------------------------------------------------


def test_keep_alive(server: Server) -> None:
    sock = server.connect()
    reader = Reader(sock)
    for at in range(20):
        sock.sendall(b"GET /?%d HTTP/1.1\r\nHost: a\r\n\r\n" % at)
        head, body = reader.answer()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection:" not in head.lower()
        assert b'"QUERY_STRING": "%d"' % at in body
    sock.sendall(LAST)
    head, _ = reader.answer()
    assert b"\r\nConnection: close\r\n" in head
    assert reader.end() == b""


def test_versions_and_connection_options(server: Server) -> None:
    for version, option, stays in [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: foo, Close\r\n", False),
        (b"1.1", b"Connection: keep-alive, close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: Keep-Alive, close\r\n", False),
    ]:
        sock = server.connect()
        reader = Reader(sock)
        request = b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + option + b"\r\n"
        sock.sendall(request + (request if stays else b""))
        head, _ = reader.answer()
        told = b"\r\nConnection: close\r\n" in head
        assert told == (not stays), (version, option, head)
        if stays:
            assert (b"\r\nConnection: keep-alive\r\n" in head) == (version == b"1.0")
            reader.answer()
        else:
            assert reader.end() == b""


def test_http10_without_length_ends_with_the_connection(server: Server) -> None:
    data = server.raw(b"GET /chunks?3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer = parse_responses(data)[0]
    assert answer.body == b"0,1,2,"
    assert "transfer-encoding" not in answer
    assert "content-length" not in answer
    assert answer["connection"] == "close"


def data_segments_in(sock: socket.socket) -> int:
    """TCP segments with data that this end has received (tcpi_data_segs_in)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, 152)[0]


def test_pipelined_answers_leave_in_one_send(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=ECHO)
    sock = server.connect()
    sock.sendall(b"".join(b"GET /big?%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(50)))
    reader = Reader(sock)
    for n in range(50):
        assert reader.answer()[1] == b"x" * n
    assert data_segments_in(sock) == 1


def test_pipelining_keeps_the_order(server: Server) -> None:
    post = b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc%02d"
    chunked = b"POST /upper HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"3\r\nxyz\r\n0\r\n\r\n"
    data = b"".join(post % n + chunked for n in range(40)) + LAST
    for cut in (0, 1, 70, 190, len(data) - 3):
        answers = parse_responses(server.raw(data[:cut], data[cut:], gap_s=0.02))
        bodies = [answer.body for answer in answers]
        assert bodies[:-1] == [part for n in range(40) for part in (b"ABC%02d" % n, b"XYZ")]


def test_more_pipelined_requests_than_one_turn_serves(server: Server) -> None:
    """Some hundreds come in one piece, and the client reads only afterwards."""
    count = 700
    sock = server.connect(timeout_s=20)
    sock.sendall(b"GET /big?400 HTTP/1.1\r\nHost: a\r\n\r\n" * count + LAST)
    reader = Reader(sock)
    for _ in range(count):
        assert reader.answer()[1] == b"x" * 400
    reader.answer()
    assert reader.end() == b""


def test_client_that_reads_nothing_while_it_pipelines(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str
) -> None:
    """Answers are not piled up in the server: it stops reading, and others are served (inline,
    the client holds the only core until the write time-out)."""
    server = serve(*carrier, "--write-timeout", "1" if carrier_name == "inline" else "60", app=ECHO)
    sock = server.connect(timeout_s=20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    before = rss_of(server.pid)
    sock.setblocking(False)
    sent = 0
    request = b"GET /big?60000 HTTP/1.1\r\nHost: a\r\n\r\n"
    for _ in range(200):
        try:
            sent += sock.send(request * 100)
        except BlockingIOError:
            break
        if carrier_name != "inline":
            assert server.get("/").status == 200
    assert rss_of(server.pid) - before < 64 << 20
    assert server.get("/", timeout_s=10).status == 200


def rss_of(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def test_lingering_close(server: Server) -> None:
    """The answer to a request that is refused while its body still comes is not lost to a reset."""
    server.expect_log("error=", required=False)
    body = b"x" * 400_000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +%d\r\n\r\n" % len(body)
    sock = server.connect()
    sock.sendall(head + body[:200_000])
    sock.sendall(body[200_000:])
    data = Reader(sock).end()
    assert parse_responses(data)[0].status == 400


def test_unread_bodies(server: Server) -> None:
    """What nobody read is skipped when small; else it costs the connection, not the answer."""
    head = b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    small = head % 3 + b"abc"
    data = server.raw(small * 3 + LAST)
    assert [a.body for a in parse_responses(data)[:3]] == [b"ignored"] * 3
    sock = server.connect()
    sock.sendall(head % 10_000_000 + b"x" * 100_000)
    answer = parse_responses(Reader(sock).end())[0]
    assert answer.body == b"ignored"
    assert answer["connection"] == "close"


def test_half_closed_clients_get_their_answers(server: Server) -> None:
    """The end of a client's data is the end of its requests, not of its interest."""
    answers = parse_responses(server.raw(GET + GET, half_close=True))
    assert [answer.body for answer in answers] == [b"0,", b"0,"]


# --- Bodies -----------------------------------------------------------------------------------


def test_chunked_both_ways(server: Server) -> None:
    head = b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    head += b"Connection: close\r\n\r\n"
    body = b"".join(b"%x;ext=1\r\n%s\r\n" % (n, b"y" * n) for n in range(1, 60))
    end = b"0\r\nX-Trailer: 1\r\nAnother: 2\r\n\r\n"
    for parts in ([head, body, end], [head + body + end], [head, body[:1000], body[1000:] + end]):
        answer = parse_responses(server.raw(*parts, gap_s=0.02))[0]
        assert answer["transfer-encoding"] == "chunked"
        assert answer.body == b"first," + b"y" * sum(range(1, 60))


def test_trailers_are_not_the_next_request(server: Server) -> None:
    data = b"POST /upper HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"1\r\na\r\n0\r\nGET: /x\r\nHost-Of: b\r\n\r\n" + LAST
    answers = parse_responses(server.raw(data))
    assert len(answers) == 2
    assert answers[0].body == b"A"
    assert environ_of(answers[1])["PATH_INFO"] == "/"


def test_chunked_body_byte_by_byte(server: Server) -> None:
    data = b"POST /upper HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"3\r\nabc\r\n0a\r\n0123456789\r\n0\r\nA: b\r\n\r\n" + LAST
    answers = parse_responses(server.raw(*[data[i : i + 1] for i in range(len(data))]))
    assert [answers[0].body, answers[1].status] == [b"ABC0123456789", 200]


def test_continue_comes_when_the_application_reads(server: Server) -> None:
    sock = server.connect()
    sock.sendall(
        b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    )
    reader = Reader(sock)
    # The head of the answer is on its way when the application reads: too late for a 100.
    assert reader.until(b"first,\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    sock.sendall(b"body")
    assert b"body" in reader.until(b"0\r\n\r\n")

    sock = server.connect()
    sock.sendall(
        b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    )
    reader = Reader(sock)
    assert reader.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"body")
    assert reader.answer()[1] == b"BODY"
    # The state does not outlive its request (gevent 2075).
    sock.sendall(b"POST /upper HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nmore")
    head, body = reader.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"MORE"


def test_no_continue_where_nobody_reads(server: Server) -> None:
    head = b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    answers = parse_responses(server.raw(head))
    assert [answer.status for answer in answers] == [200]
    assert answers[0]["connection"] == "close"
    # Nor where the body is there already, nor in HTTP/1.0.
    answers = parse_responses(server.raw(head.replace(b"/ignore", b"/upper") + b"abcd" + LAST))
    assert [answer.status for answer in answers] == [200, 200]
    head = head.replace(b"/ignore", b"/upper").replace(b"HTTP/1.1", b"HTTP/1.0")
    answers = parse_responses(server.raw(head, b"abcd", gap_s=0.05))
    assert [answer.status for answer in answers] == [200]


def test_head_has_the_head_of_get(server: Server) -> None:
    for target in (b"/", b"/big?1000", b"/chunks?3"):
        pair = b"%s " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        data = server.raw(pair % b"HEAD" + pair % b"GET" + LAST)
        head, get, _ = parse_responses(data, ["HEAD", "GET"])
        drop = ("date", "content-length" if target == b"/" else "")
        left, right = (
            [(k, v) for k, v in answer.headers if k.lower() not in drop] for answer in (head, get)
        )
        assert head.body == b""
        if target != b"/chunks?3":
            assert left == right
        assert "content-length" not in head or head["content-length"] != "0"


@pytest.mark.parametrize("status", ["204_No_Content", "304_Not_Modified", "205_Reset_Content"])
def test_statuses_without_a_body(server: Server, status: str) -> None:
    for path in ("/status", "/status-length"):
        request = f"GET {path}?{status} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        answers = parse_responses(server.raw(request + request + LAST))
        assert [answer.status for answer in answers] == [int(status[:3]), int(status[:3]), 200]
        assert "transfer-encoding" not in answers[0]
        if status.startswith("204"):
            assert "content-length" not in answers[0]


@pytest.mark.parametrize("status", ["100_Continue", "101_Switching_Protocols", "199_X"])
def test_interim_statuses_are_the_servers(serve: Serve, status: str) -> None:
    server = serve(app=ECHO)
    server.expect_log("status")
    request = f"GET /status?{status} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    answers = parse_responses(server.raw(request))
    assert [answer.status for answer in answers] == [500]


# --- Forms of a request -----------------------------------------------------------------------


def test_absolute_form_and_host(server: Server) -> None:
    def seen(start: str, host: str) -> dict[str, str]:
        request = f"{start} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        return environ_of(parse_responses(server.raw(request.encode()))[0])

    found = seen("GET http://example.org:81/a%20b?c", "other")
    assert (found["PATH_INFO"], found["QUERY_STRING"]) == ("/a b", "c")
    assert found["HTTP_HOST"] == "example.org:81"
    assert seen("GET http://example.org", "other")["PATH_INFO"] == "/"
    assert seen("GET /", "[::1]:80")["HTTP_HOST"] == "[::1]:80"
    assert seen("OPTIONS *", "a")["PATH_INFO"] == "*"
    assert seen("FOO-bar /", "a")["REQUEST_METHOD"] == "FOO-bar"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET http:/// HTTP/1.1\r\nHost: b\r\n\r\n",
    ],
    ids=lambda head: head.decode().replace("\r\n", "|").rstrip("|"),
)
def test_host_rules(serve: Serve, head: bytes) -> None:
    server = serve(app=ECHO)
    answers = parse_responses(server.raw(head + LAST))
    assert [answer.status for answer in answers] == [400]
    assert answers[0]["connection"] == "close"


# --- Clients of others ------------------------------------------------------------------------


def test_httpx(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=10 * SLOW, trust_env=False) as client:
        for _ in range(3):
            assert client.get("/a%C3%A4?b=c").json()["QUERY_STRING"] == "b=c"
            assert client.post("/upper", content=b"x" * 300_000).text == "X" * 300_000
            assert client.post("/upper", content=iter([b"ab", b"cd"])).text == "ABCD"
            assert client.head("/big?77").headers["content-length"] == "77"
            assert client.get("/chunks?1000").text == "".join(f"{n}," for n in range(1000))
            with client.stream("POST", "/early", content=iter([b"1"] * 1000)) as answer:
                assert b"".join(answer.iter_bytes()) == b"first," + b"1" * 1000


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_curl(server: Server, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"q" * 2_500_000)

    def curl(*args: str) -> bytes:
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(20 * SLOW), *args]
        return subprocess.run(command, check=True, capture_output=True).stdout

    # Its own Expect: 100-continue for a body of this size, chunked, and one connection for all.
    assert curl("--data-binary", f"@{big}", f"{server.url}/upper") == b"Q" * 2_500_000
    chunked = ("-H", "Transfer-Encoding: chunked", "-H", "Expect:")
    assert curl(*chunked, "--data-binary", f"@{big}", f"{server.url}/upper") == b"Q" * 2_500_000
    counts = curl("-w", "%{num_connects}\n", "-o", "/dev/null", f"{server.url}/a?[1-5]")
    assert counts.split() == [b"1", b"0", b"0", b"0", b"0"]
    assert curl("-I", f"{server.url}/big?9").startswith(b"HTTP/1.1 200 OK\r\n")
    assert curl("-0", f"{server.url}/chunks?4") == b"0,1,2,3,"

# SPDX-License-Identifier: Apache-2.0
"""Many clients that behave well, badly and halfway at the same time.

Each whole request carries a number of its own, and its answer must be that request's: whole,
or cut where its client cut it. What is left at the end is what the fixture looks for: descriptors,
processes, unexpected lines in the log.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from harness import SLOW, Server, parse_responses

Serve = Callable[..., Server]

APP = """
import time
from urllib.parse import parse_qs

def application(environ, start_response):
    q = {k: v[0] for k, v in parse_qs(environ["QUERY_STRING"]).items()}
    me, size, how = q["id"].encode(), int(q["size"]), q["how"]
    if how == "early":
        start_response("200 OK", [])
        return early(environ, me, size)
    body = environ["wsgi.input"].read() if how != "unread" else b""
    if how == "sleep":
        time.sleep(0.01)
    if how == "raise":
        raise ValueError("chaos")
    answer = me + b":" + body + b"." * size
    if how == "write":
        write = start_response("200 OK", [])
        for at in range(0, len(answer), 50_000):
            write(answer[at:at + 50_000])
        return []
    if how == "pieces":
        start_response("200 OK", [])
        return (answer[at:at + 7_000] for at in range(0, len(answer), 7_000))
    if how == "raise-late":
        start_response("200 OK", [])
        return failing(answer)
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


def early(environ, me, size):
    yield me + b":"
    while block := environ["wsgi.input"].read(1000):
        yield block
    yield b"." * size


def failing(answer):
    yield answer[:10]
    raise ValueError("chaos")
"""
WAYS = ("plain", "sleep", "write", "pieces", "early", "unread", "raise", "raise-late")


class Client:
    """One thread's worth of chaos, the same for the same seed."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server, self.seed = server, seed
        self.random = random.Random(seed)
        self.problems: list[str] = []
        self.count = 0

    def request(self) -> tuple[bytes, str, bytes | None]:
        """A request, its way, and the body that its answer must have (None: there is no such)."""
        self.count += 1
        rnd = self.random
        me = b"%d-%d" % (self.seed, self.count)
        size = rnd.choice((0, 0, 10, 1000, 70_000, 300_000))
        how = rnd.choice(WAYS)
        head = b"POST /?id=%s&size=%d&how=%s HTTP/1.1\r\nHost: a\r\n" % (me, size, how.encode())
        body = rnd.randbytes(rnd.choice((0, 1, 100, 5000, 100_000))).hex().encode()
        if rnd.random() < 0.5:
            data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            data = head + b"Transfer-Encoding: chunked\r\n\r\n"
            at = 0
            while at < len(body):
                piece = body[at : at + rnd.choice((1, 10, 3000, 70_000))][:100_000]
                data += b"%x\r\n%s\r\n" % (len(piece), piece)
                at += len(piece)
                if len(piece) < 10:
                    body = body[: at + 20_000]
            data += b"0\r\n\r\n"
        if how in ("raise", "raise-late"):
            return data, how, None
        return data, how, me + b":" + (b"" if how == "unread" else body) + b"." * size

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            n = self.random.choice((1, 50, 4000, 100_000, 1 << 20))
            yield data[:n]
            data = data[n:]

    def run(self) -> None:
        for _ in range(25):
            try:
                self.connection()
            except Exception as error:
                self.problems.append(f"seed {self.seed}, request {self.count}: {error!r}"[:500])

    def connection(self) -> None:
        wanted = [self.request() for _ in range(self.random.choice((1, 1, 2, 5)))]
        data = b"".join(request for request, _, _ in wanted)
        manner = self.random.choice(("good", "good", "good", "leave", "reset", "cut"))
        if manner == "cut":
            data = data[: self.random.randrange(len(data))]
        with contextlib.closing(socket.create_connection(self.server.address, 20 * SLOW)) as sock:
            received = bytearray()
            reader = threading.Thread(target=read_all, args=(sock, received))
            if manner in ("good", "cut"):
                reader.start()
            try:
                for piece in self.pieces(data):
                    sock.sendall(piece)
                    if manner in ("leave", "reset") and self.random.random() < 0.1:
                        break
                if manner == "reset":
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                elif manner != "leave":
                    sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                # An answer ended the connection (raise-late, a large body that nobody read); the
                # reader may have taken the reset before shutdown() looks.
                if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                    raise
            if manner in ("good", "cut"):
                reader.join()
        if manner == "good":
            self.check(bytes(received), wanted)

    def check(self, data: bytes, wanted: list[tuple[bytes, str, bytes | None]]) -> None:
        if any(how == "raise-late" for _, how, _ in wanted):
            return  # cut in the middle, as it must be
        answers = parse_responses(data)
        for answer, (_, how, body) in zip(answers, wanted, strict=False):
            if body is None:
                assert answer.status == 500, answer.status
            else:
                assert answer.status == 200, answer.status
                assert answer.body == body, f"{how}: another answer: {answer.body[:60]!r}"
        short = len(answers) < len(wanted)
        assert not short or answers[-1].get("connection") == "close", f"{len(answers)} answers"


def read_all(sock: socket.socket, received: bytearray) -> None:
    with contextlib.suppress(ConnectionResetError):
        while block := sock.recv(1 << 18):
            received.extend(block)


def test_chaos(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=APP)
    server.expect_log("ValueError: chaos")
    server.expect_log("GET|POST", required=False)
    clients = [Client(server, seed) for seed in range(8)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [problem for client in clients for problem in client.problems] == []
    assert server.get("/?id=last&size=0&how=plain").body == b"last:"

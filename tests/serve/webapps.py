# SPDX-License-Identifier: Apache-2.0
"""Applications that several test files serve."""

from __future__ import annotations

import json
import socket

from harness import Response

# What came in, as JSON; /PATH chooses how it is answered.
ECHO = """
import json
import sys


def seen(environ, body):
    found = {k: v for k, v in environ.items() if isinstance(v, str)}
    found["body"] = body.decode("latin-1")
    found["terminated"] = environ.get("wsgi.input_terminated")
    return json.dumps(found).encode()


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    text = [("Content-Type", "text/plain")]
    if path == "/ignore":
        start_response("200 OK", text)
        return [b"ignored"]
    if path == "/early":
        start_response("200 OK", text)
        return stream(environ)
    body = environ["wsgi.input"].read()
    if path == "/big":
        start_response("200 OK", [*text, ("Content-Length", query)])
        return [b"x" * int(query)]
    if path == "/chunks":
        start_response("200 OK", text)
        return (b"%d," % i for i in range(int(query)))
    if path == "/status":
        start_response(query.replace("_", " "), text)
        return [b"a body"]
    if path == "/status-length":
        start_response(query.replace("_", " "), [*text, ("Content-Length", "6")])
        return [b"a body"]
    if path == "/upper":
        start_response("200 OK", text)
        return [body.upper()]
    answer = seen(environ, body)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer]


def stream(environ):
    yield b"first,"
    yield environ["wsgi.input"].read()
"""


def environ_of(answer: Response) -> dict[str, str]:
    """What ECHO saw."""
    assert answer.status == 200, answer
    return json.loads(answer.body)


class Reader:
    """Takes a keep-alive connection's answers apart as they come."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""

    def until(self, end: bytes) -> bytes:
        """All up to and with END."""
        while end not in self.data:
            block = self.sock.recv(65536)
            assert block, f"the connection ended within {self.data!r}"
            self.data += block
        found, _, self.data = self.data.partition(end)
        return found + end

    def exactly(self, size: int) -> bytes:
        blocks, have = [self.data], len(self.data)
        while have < size:
            block = self.sock.recv(max(65536, size - have))
            assert block, f"the connection ended after {have} of {size} bytes"
            blocks.append(block)
            have += len(block)
        data = b"".join(blocks)
        found, self.data = data[:size], data[size:]
        return found

    def answer(self) -> tuple[bytes, bytes]:
        """Head and body of one answer with a Content-Length."""
        head = self.until(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return head, self.exactly(int(value))
        raise AssertionError(f"no Content-Length: {head!r}")

    def end(self) -> bytes:
        """What still comes until the server closes."""
        rest = self.data
        self.data = b""
        while block := self.sock.recv(65536):
            rest += block
        return rest

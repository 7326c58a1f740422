# SPDX-License-Identifier: Apache-2.0
"""The module `uwsgi` in a real server: waiting that lets other requests go on."""

from __future__ import annotations

import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from harness import SLOW, Server, parse_responses, wait_until
from webapps import Reader

Serve = Callable[..., Server]

WAITING = """
import os
import socket
import threading
import time

import uwsgi

pairs = {}


def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    print("began", path, query, flush=True)
    said = b"ok"
    if path == "/sleep":
        uwsgi.async_sleep(float(query))
    elif path == "/read":
        ours, theirs = pairs[query] = socket.socketpair()
        uwsgi.wait_fd_read(ours.fileno(), 20)
        uwsgi.suspend()
        said = ours.recv(100)
        ours.close()
    elif path == "/feed":
        pairs[query][1].sendall(b"fed")
        pairs[query][1].close()
    elif path == "/write":
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        sent = 0
        try:
            while True:
                sent += ours.send(b"x" * 65536)
        except BlockingIOError:
            pass
        thread = threading.Thread(target=drain, args=(theirs, sent))
        thread.start()
        uwsgi.wait_fd_write(ours.fileno(), 20)
        uwsgi.suspend()
        said = b"writable" if ours.send(b"y") == 1 else b"not"
        thread.join()
        ours.close()
        theirs.close()
    elif path == "/timeout":
        ours, theirs = socket.socketpair()
        began = time.monotonic()
        uwsgi.wait_fd_read(ours.fileno(), 1)
        uwsgi.suspend()
        said = b"%.1f" % (time.monotonic() - began)
        ours.close()
        theirs.close()
    start_response("200 OK", [])
    return [said]


def drain(sock, size):
    time.sleep(0.1)
    while size > 0:
        size -= len(sock.recv(65536))
"""


@pytest.fixture(params=["threads", "fibers"])
def waiting(request: pytest.FixtureRequest, serve: Serve) -> Server:
    options = {"threads": ("--threads", "30"), "fibers": ("--async", "30")}[request.param]
    return serve(*options, app=WAITING)


def ask(server: Server, target: str) -> socket.socket:
    sock = server.connect(timeout_s=20)
    head = f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    sock.sendall(head.encode())
    return sock


def answer(sock: socket.socket) -> bytes:
    return parse_responses(Reader(sock).end())[0].body


def test_sleepers_sleep_side_by_side(waiting: Server) -> None:
    began = time.monotonic()
    sleepers = [ask(waiting, "/sleep?1.5") for _ in range(25)]
    wait_until(lambda: waiting.log.count("began /sleep") == 25, 10 * SLOW)
    assert waiting.get("/").body == b"ok"
    assert [answer(sock) for sock in sleepers] == [b"ok"] * 25
    # One after the other they would have taken 37 seconds.
    assert time.monotonic() - began < 15 * SLOW


def test_waiting_for_descriptors(waiting: Server) -> None:
    readers = [ask(waiting, f"/read?{i}") for i in range(10)]
    wait_until(lambda: waiting.log.count("began /read") == 10, 10 * SLOW)
    for i in reversed(range(10)):
        assert waiting.get(f"/feed?{i}").body == b"ok"
        assert answer(readers[i]) == b"fed"
    assert waiting.get("/write", timeout_s=20).body == b"writable"
    assert float(waiting.get("/timeout", timeout_s=20).body) >= 1.0


def test_importable_in_the_server_only() -> None:
    command = [sys.executable, "-c", "import pelton, uwsgi"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: No module named 'uwsgi'" in result.stderr


def test_ten_thousand_waiting_requests(serve: Serve) -> None:
    """10,000 requests wait at once in one process, and all are answered.

    (AddressSanitizer clears a megabyte of its shadow for each fiber's stack: fewer will do.)
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 10_000 if SLOW == 1 else 500
    if hard < count + 200:
        pytest.skip("too few descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        _wait_by_the_thousand(serve, count)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


APP = """
import uwsgi

peak = here = 0

def application(environ, start_response):
    global peak, here
    if environ["PATH_INFO"] == "/sleep":
        here += 1
        peak = max(peak, here)
        uwsgi.async_sleep(3)
        while peak < COUNT:
            uwsgi.async_sleep(1)
        here -= 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % peak]
"""


def _wait_by_the_thousand(serve: Serve, count: int) -> None:
    server = serve("--async", str(count), "--disable-logging", app=APP.replace("COUNT", str(count)))
    request = b"GET /sleep HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    socks = []
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            sock = server.connect(timeout_s=60)
            sock.sendall(request)
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, bytearray())
            socks.append(sock)
        good = 0
        end = time.monotonic() + 40 * SLOW
        while good < count and time.monotonic() < end:
            for key, _ in selector.select(1):
                block = key.fileobj.recv(65536)
                key.data.extend(block)
                if not block:
                    good += parse_responses(bytes(key.data))[0].status == 200
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    assert good == count
    assert server.get("/").body == b"%d" % count

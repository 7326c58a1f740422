# SPDX-License-Identifier: Apache-2.0
"""Ordinary blocking code in requests: their waits for descriptors and names overlap.

A small slow server answers when as many requests are in flight as the test sends, and never before:
a server that let one request after the other wait would not get a single answer.
"""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import SLOW, Server

Serve = Callable[..., Server]

AT_ONCE = 8
WAITING_CARRIERS = {
    "threads": ("--threads", "24"),
    # Eight interpreters at once may hold the loop for long: that is not what is looked at here.
    "fibers": ("--async", "24", "--log-blocking", "0"),
}

APP = """
import asyncio, os, select, selectors, socket, ssl, subprocess, sys, threading, urllib.request

HTTP, HTTPS, CA = int(os.environ["SLOW_HTTP"]), int(os.environ["SLOW_HTTPS"]), os.environ["SLOW_CA"]
ASK = b"GET /%s HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n"

def read_all(sock):
    data = b""
    while chunk := sock.recv(7):
        data += chunk
    return data.partition(b"\\r\\n\\r\\n")[2].decode()

def sockets(name):
    with socket.create_connection(("127.0.0.1", HTTP)) as sock:
        sock.sendall(ASK % name)
        return read_all(sock)

def sockets_with_a_timeout(name):
    with socket.create_connection(("127.0.0.1", HTTP), timeout=30) as sock:
        sock.sendall(ASK % name)
        return read_all(sock)

def files(name):
    with socket.create_connection(("127.0.0.1", HTTP)) as sock, sock.makefile("rwb") as stream:
        stream.write(ASK % name)
        stream.flush()
        return stream.read().partition(b"\\r\\n\\r\\n")[2].decode()

def descriptors(name):
    with socket.create_connection(("127.0.0.1", HTTP)) as sock:
        os.write(sock.fileno(), ASK % name)
        data = b""
        while chunk := os.read(sock.fileno(), 100):
            data += chunk
        return data.partition(b"\\r\\n\\r\\n")[2].decode()

def tls(name):
    context = ssl.create_default_context(cafile=CA)
    with socket.create_connection(("localhost", HTTPS)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(ASK % name)
            return read_all(sock)

def urllib_(name):
    return urllib.request.urlopen(f"http://localhost:{HTTP}/{name.decode()}").read().decode()

def requests_http(name):
    import requests
    return requests.get(f"http://localhost:{HTTP}/{name.decode()}").text

def requests_https(name):
    import requests
    return requests.get(f"https://localhost:{HTTPS}/{name.decode()}", verify=CA).text

def select_(name):
    with socket.create_connection(("127.0.0.1", HTTP)) as sock:
        sock.sendall(ASK % name)
        assert select.select([sock], [], [], 30)[0] == [sock]
        return read_all(sock)

def poll(name):
    idle, other = socket.socketpair()
    with socket.create_connection(("127.0.0.1", HTTP)) as sock, idle, other:
        sock.sendall(ASK % name)
        p = select.poll()
        p.register(idle, select.POLLIN)
        p.register(sock, select.POLLIN)
        assert [fd for fd, _ in p.poll(30000)] == [sock.fileno()]
        return read_all(sock)

def selectors_(name):
    with socket.create_connection(("127.0.0.1", HTTP)) as sock:
        with selectors.DefaultSelector() as selector:
            sock.setblocking(False)
            sock.sendall(ASK % name)
            selector.register(sock, selectors.EVENT_READ)
            data = b""
            while True:
                assert selector.select(30)
                chunk = sock.recv(100)
                if not chunk:
                    return data.partition(b"\\r\\n\\r\\n")[2].decode()
                data += chunk

def asyncio_(name):
    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", HTTP)
        writer.write(ASK % name)
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        return data.partition(b"\\r\\n\\r\\n")[2].decode()
    return asyncio.run(ask())

CHILD = '''
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
    sock.sendall(b"GET /%s HTTP/1.0\\\\r\\\\n\\\\r\\\\n" % sys.stdin.buffer.read())
    data = b""
    while chunk := sock.recv(100):
        data += chunk
print(data.partition(b"\\\\r\\\\n\\\\r\\\\n")[2].decode(), end="")
print("x" * 200000, file=sys.stderr)
'''

def subprocess_(name):
    done = subprocess.run([sys.executable, "-S", "-c", CHILD, str(HTTP)], input=name,
                          capture_output=True, check=True)
    assert done.stderr == b"x" * 200000 + b"\\n"
    return done.stdout.decode()

# Two requests that need each other: whoever comes first waits for the other one.
lock, pairs = threading.Lock(), {}

def halves(name, make):
    with lock:
        if name in pairs:
            return 1, pairs.pop(name)
        pairs[name] = make()
        return 0, pairs[name]

def socketpair(name):
    side, pair = halves(name[:-1], socket.socketpair)
    big = b"%d" % side * 1000000
    # The one sends more than the buffers take before the other has answered.
    if side == 0:
        pair[0].sendall(big)
        answer = pair[0].recv(1000000, socket.MSG_WAITALL)
    else:
        answer = pair[1].recv(1000000, socket.MSG_WAITALL)
        pair[1].sendall(big)
    assert answer == b"%d" % (1 - side) * 1000000
    pair[side].close()
    return name.decode()

def pipes(name):
    side, (there, back) = halves(name[:-1], lambda: (os.pipe(), os.pipe()))
    read, write = (back[0], there[1]) if side == 0 else (there[0], back[1])
    with open(read, "rb") as source, open(write, "wb") as sink:
        if side == 0:
            sink.write(b"x" * 300000)
            sink.close()
            assert source.read() == b"y" * 300000
        else:
            assert source.read() == b"x" * 300000
            sink.write(b"y" * 300000)
    return name.decode()

def listener(name):
    side, server = halves(name[:-1], lambda: socket.create_server(("127.0.0.1", 0)))
    if side == 0:
        with server, server.accept()[0] as sock:
            sock.sendall(name[:-1])
    else:
        with socket.create_connection(server.getsockname()) as sock:
            assert sock.recv(100) == name[:-1]
    return name.decode()

def application(environ, start_response):
    _, action, name = environ["PATH_INFO"].split("/")
    answer = globals()[action](name.encode())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""

PLAIN = [
    "sockets",
    "sockets_with_a_timeout",
    "files",
    "descriptors",
    "tls",
    "urllib_",
    "requests_http",
    "requests_https",
    "select_",
    "poll",
    "selectors_",
    "asyncio_",
    "subprocess_",
]


class SlowHandler(socketserver.BaseRequestHandler):
    """Answers with the path, when all are there."""

    server: SlowServer

    def handle(self) -> None:
        if self.server.context:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = self.request.recv(1000)
            if not chunk:
                return
            head += chunk
        answer, status = head.split()[1].lstrip(b"/"), b"200 OK"
        try:
            self.server.barrier.wait(20 * SLOW)
        except threading.BrokenBarrierError:
            answer, status = b"not all were waiting at once", b"503 Alone"
        self.request.sendall(
            b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, len(answer), answer)
        )


class SlowServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 100

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), SlowHandler)
        self.context = context
        self.barrier = threading.Barrier(AT_ONCE)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        self.barrier.abort()


@pytest.fixture
def slow(certificate: Path) -> Iterator[tuple[SlowServer, SlowServer]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    servers = SlowServer(), SlowServer(context)
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=list(WAITING_CARRIERS))
def server(
    request: pytest.FixtureRequest,
    serve: Serve,
    certificate: Path,
    slow: tuple[SlowServer, SlowServer],
) -> Server:
    env = {
        "SLOW_HTTP": str(slow[0].server_address[1]),
        "SLOW_HTTPS": str(slow[1].server_address[1]),
        "SLOW_CA": str(certificate / "certificate.pem"),
        "NO_PROXY": "*",
    }
    return serve(*WAITING_CARRIERS[request.param], app=APP, env=env)


def ask_at_once(server: Server, paths: list[str]) -> list[tuple[int, str]]:
    def ask(path: str) -> tuple[int, str]:
        answer = server.get(path, timeout_s=40)
        return answer.status, answer.body.decode()

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(ask, paths))


@pytest.mark.parametrize("action", PLAIN)
def test_requests_wait_beside_each_other(server: Server, action: str) -> None:
    for turn in range(2):  # the second time nothing is new: imports, cores, helpers
        names = [f"{action}{turn}{i}" for i in range(AT_ONCE)]
        answers = ask_at_once(server, [f"/{action}/{name}" for name in names])
        assert answers == [(200, name) for name in names]


@pytest.mark.parametrize("action", ["socketpair", "pipes", "listener"])
def test_requests_wait_for_each_other(server: Server, action: str) -> None:
    names = [f"{i}{side}" for i in range(AT_ONCE) for side in "ab"]
    answers = ask_at_once(server, [f"/{action}/{name}" for name in names])
    assert answers == [(200, name) for name in names]

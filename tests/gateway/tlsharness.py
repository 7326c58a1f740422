# SPDX-License-Identifier: Apache-2.0
"""What the tests of TLS share.

A certificate, protocols that write down what they hear, peers in threads, and a way to run a
scenario on Pelton's loop and on asyncio's own and compare what was seen."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import logging
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path

import protocols
from test_loop import Loop

TIMEOUT_S = 30
_lock = threading.Lock()


def certificate() -> Path:
    """Of localhost, signed by itself, and its key, in one file."""
    with _lock:  # threads ask, too
        return _make_certificate()


@functools.cache
def _make_certificate() -> Path:
    folder = tempfile.mkdtemp(prefix="pelton-tls-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder, "certificate.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-out", "certificate.pem"]
    command += ["-keyout", "key.pem", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(folder, "key.pem").read_text())
    return path


def server_context(kind=ssl.SSLContext, **attributes):
    context = kind(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate())
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


def client_context(kind=ssl.SSLContext, trusting=True, **attributes):
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    if trusting:
        context.load_verify_locations(certificate())
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


class Seen(protocols.Seen):
    """Writes down what it hears of, and by which exception it ended."""

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.said[-1] += f" {type(exc).__name__}"


class Buffered(Seen, asyncio.BufferedProtocol):
    """The same by way of a small buffer of its own."""

    size = 7

    def __init__(self):
        super().__init__()
        self.buffer = bytearray(self.size)

    def get_buffer(self, hint):
        assert hint >= -1
        return memoryview(self.buffer)

    def buffer_updated(self, count):
        self.data += self.buffer[:count]


class Peer:
    """The other end, which blocks in a thread of its own: WORK is called with the socket."""

    def __init__(self, sock, work):
        self.result = self.error = None
        sock.settimeout(TIMEOUT_S)
        self.thread = threading.Thread(target=self._run, args=(sock, work), daemon=True)
        self.thread.start()

    def _run(self, sock, work):
        try:
            with contextlib.closing(sock):
                self.result = work(sock)
        except Exception as error:
            self.error = error

    async def over(self):
        """What WORK returned, or the exception that it raised."""
        await asyncio.to_thread(self.thread.join)
        return self.error or self.result


def tls_peer(sock, work, server_side=True, context=None):
    """The same with TLS."""
    if context is None:
        context = server_context() if server_side else client_context()
    name = None if server_side else "localhost"

    def wrapped(plain):
        with context.wrap_socket(plain, server_side=server_side, server_hostname=name) as tls:
            return work(tls)

    return Peer(sock, wrapped)


def read_all(sock):
    """Until the other end says goodbye, or is gone."""
    found = bytearray()
    with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
        while data := sock.recv(65536):
            found += data
    return bytes(found)


async def connect(loop, work, factory=Seen, context=None, **options):
    """A client's transport, its protocol, and the server in a thread that does WORK."""
    here, there = socket.socketpair()
    peer = tls_peer(there, work)
    transport, protocol = await loop.create_connection(
        factory,
        sock=here,
        ssl=context or client_context(),
        server_hostname="localhost",
        **options,
    )
    return transport, protocol, peer


async def until(condition):
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.001)


class Watched:
    """What a loop and asyncio's log were told of; reprs are left out."""

    def __init__(self, loop):
        self.lines = []
        loop.set_exception_handler(self._handle)
        self.handler = logging.Handler()
        self.handler.emit = self._emit
        logging.getLogger("asyncio").addHandler(self.handler)

    def _handle(self, loop, context):
        exc = context.get("exception")
        self.lines.append(f"handler: {context['message']}: {type(exc).__name__}")

    def _emit(self, record):
        if record.levelno >= logging.WARNING:
            self.lines.append(f"log: {record.getMessage()}")


def on(factory, scenario):
    """What SCENARIO returned on a loop, and what was said meanwhile."""
    with asyncio.Runner(loop_factory=factory) as runner:
        watched = Watched(runner.get_loop())
        try:
            result = runner.run(asyncio.wait_for(scenario(runner.get_loop()), TIMEOUT_S))
        finally:
            logging.getLogger("asyncio").removeHandler(watched.handler)
        return result, watched.lines


def alike(scenario):
    """SCENARIO on both loops: what was seen has to be the same. Returns it."""
    standard = on(asyncio.SelectorEventLoop, scenario)
    pelton = on(Loop, scenario)
    assert pelton == standard, f"pelton: {pelton}\nasyncio: {standard}"
    return pelton

# SPDX-License-Identifier: Apache-2.0
"""What the cells without a database talk to: a slow HTTP service, and a name server of their own.

Both hold their answers until they are opened, and say how many wait for one.
"""

from __future__ import annotations

import contextlib
import random
import shlex
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from harness import server_command

DOMAIN = "shop.test"
WAIT_S = 120


class Gate:
    """Lets nobody through until it is opened; counts who waits."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[object, int] = {}

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def waiting(self) -> int:
        """How many wait, by what they ask for: who asks twice counts once."""
        with self._lock:
            return len(self._waiting)

    def passed(self, what: object) -> bool:
        """Comes back when the gate is open; whether it was in time."""
        with self._lock:
            self._waiting[what] = self._waiting.get(what, 0) + 1
        try:
            return self._open.wait(WAIT_S)
        finally:
            with self._lock:
                self._waiting[what] -= 1
                if not self._waiting[what]:
                    del self._waiting[what]


class Service(Protocol):
    """One of socketserver's, with a gate, whose thread runs."""

    gate: Gate

    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


S = TypeVar("S", bound=Service)


@contextlib.contextmanager
def serving(service: S) -> Iterator[S]:
    """Opens its gate at the end, for those who still wait there, and ends it."""
    try:
        yield service
    finally:
        service.gate.open()
        service.shutdown()
        service.server_close()


# --- HTTP -------------------------------------------------------------------------------------


def body(path: str) -> bytes:
    """What is answered to a path: more than one read takes."""
    return path.encode() * 30_000


class HTTPHandler(socketserver.StreamRequestHandler):
    """Answers each request of a connection with its path, many times."""

    server: HTTPService

    def setup(self) -> None:
        if self.server.context:
            self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        while line := self.rfile.readline():
            path = line.split()[1].decode()
            closes = line.rstrip().endswith(b"1.0")
            while (field := self.rfile.readline()) not in (b"\r\n", b""):
                closes = closes or field.lower().replace(b" ", b"") == b"connection:close\r\n"
            in_time = self.server.gate.passed(path)
            answer = body(path) if in_time else b"nobody opened"
            self.wfile.write(
                b"HTTP/1.1 %d Slow\r\nContent-Length: %d\r\n%s\r\n%s"
                % (200 if in_time else 503, len(answer), b"Connection: close\r\n" * closes, answer)
            )
            if closes:
                return


class HTTPService(socketserver.ThreadingTCPServer):
    """An HTTP service, over TLS when it has a context."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), HTTPHandler)
        self.context = context
        self.gate = Gate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is the application's to complain about."""


def certificate(folder: Path) -> Path:
    """A certificate for localhost and the domain, its own authority, with its key in one file."""
    path = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=DNS:localhost,DNS:*.{DOMAIN}"]
    command += ["-addext", "basicConstraints=critical,CA:TRUE"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-keyout", "key.pem", "-out", path.name]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "key.pem").read_bytes())
    return path


def context(path: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(path)
    return made


# --- Names ------------------------------------------------------------------------------------


class NameHandler(socketserver.BaseRequestHandler):
    """Knows every name below the domain: it is 127.0.0.1, and has no other address."""

    server: NameService

    def handle(self) -> None:
        query, sock = self.request
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind = struct.unpack_from(">H", query, at + 1)[0]
        name = ".".join(labels)
        self.server.gate.passed(name)
        known = name.endswith("." + DOMAIN)
        answers = int(known and kind == 1)
        flags = 0x8580 if known else 0x8583
        answer = query[:2] + struct.pack(">HHHHH", flags, 1, answers, 0, 0) + query[12 : at + 5]
        if answers:
            answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton("127.0.0.1")
        sock.sendto(answer, self.client_address)


class NameService(socketserver.ThreadingUDPServer):
    """A name server on a loopback address of its own: port 53 cannot be another one.

    Raises OSError where that is not the user's to take.
    """

    daemon_threads = True

    def __init__(self) -> None:
        numbers = (random.randrange(1, 255) for _ in range(3))
        super().__init__((".".join(["127", *map(str, numbers)]), 53), NameHandler)
        self.gate = Gate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


def resolving_by(service: NameService, folder: Path) -> str:
    """The server's command in a mount namespace of its own, where this service knows the names."""
    (folder / "resolv.conf").write_text(
        f"nameserver {service.server_address[0]}\noptions timeout:30 attempts:1\n"
    )
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    mounts = " && ".join(
        f"mount --bind {shlex.quote(str(folder / name))} /etc/{name}"
        for name in ("resolv.conf", "nsswitch.conf")
    )
    command = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    return shlex.join([*command, *server_command()])


def may_mount() -> bool:
    done = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    return done.returncode == 0

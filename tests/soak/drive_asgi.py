# SPDX-License-Identifier: Apache-2.0
"""The soak of ASGI (`make soak-asgi`): HTTP, streams, SSE and WebSockets at once, with cuts.

As drive.py, whose world, watch over the memory and verdict these are. At the end the application
has no task, no transport and no awaitable left.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import sys
import time
from pathlib import Path

import drive
import services
from drive import HERE, SLOW, Server, World, free_port
from harness import ASGI_CARRIERS, wait_until
from wsraw import HANDSHAKE, Raw

WAYS = ("hello", "echo", "stream", "sse", "asyncio", "cancels", "websocket")


class AsgiWorld(World):
    """One service, and what the clients have seen."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.folder = folder
        self.addresses: dict[str, object] = {"plain": port}
        self.services = {"plain": services.echo("plain", folder, port)}
        self.ways = list(WAYS)
        self.nothing_seen()


class Client(drive.Client):
    cut_share = 0.15

    def turn(self, way: str, me: str, begin: float) -> None:
        if way == "websocket":
            self.websocket(me)
        elif way == "sse":
            self.events(me)
        else:
            data = self.random.randbytes(self.random.randrange(200_000)) if way == "echo" else b""
            self.request("POST" if data else "GET", way, me, data, begin)

    def request(self, method: str, way: str, me: str, data: bytes, begin: float) -> None:
        connection = self.open()
        connection.request(method, f"/{way}?id={me}", data or None)
        response = connection.getresponse()
        body = response.read()
        if not body.startswith(data):
            self.world.trouble(f"{way} {me}: the body came back wrong")
        self.judge(way, me, response.status, body[len(data) :].decode(), begin)

    def events(self, me: str) -> None:
        """Some of them; then it leaves, which is how a stream of events ends."""
        connection = http.client.HTTPConnection(*self.server.address, timeout=60 * SLOW)
        with contextlib.closing(connection):
            connection.request("GET", f"/sse?id={me}")
            with connection.getresponse() as response:
                for _ in range(self.random.randrange(1, 20)):
                    lines = response.readline(), response.readline()
                    if lines != (f"data: {me}\n".encode(), b"\n"):
                        self.world.trouble(f"sse {me}: {lines}")
                        return
        self.world.seen["sse"] += 1

    def websocket(self, me: str) -> None:
        with Raw(self.server, f"websocket?id={me}") as raw:
            for _ in range(self.random.randrange(1, 10)):
                data = self.random.randbytes(self.random.choice((0, 10, 1000, 70_000)))
                raw.send(0x82, data)
                if raw.frame() != (0x82, data):
                    self.world.trouble(f"websocket {me}: a message came back wrong")
                    return
                if self.random.random() < 0.05:
                    return
            raw.send(0x88, struct.pack("!H", 1000))
            if raw.code() == 1000:
                self.world.seen["websocket"] += 1

    def cut(self, way: str, me: str) -> None:
        """Leaves in the head, before the answer, in it, or in a frame."""
        if way == "websocket":
            data = HANDSHAKE % f"websocket?id={me}".encode()
            data += b"\x82\x7e\x03\xe8abcd" + bytes(1000)
        else:
            size = 100_000 if way == "echo" else 0
            head = f"POST /{way}?id={me} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"
            data = head.encode() + bytes(size)
        with socket.create_connection(self.server.address, 60 * SLOW) as sock:
            sizes = 5, len(data), self.random.randrange(len(data))
            sock.sendall(data[: self.random.choice(sizes)])
            time.sleep(self.random.random() * 0.03)
            if self.random.random() < 0.3:
                sock.settimeout(0.05)
                with contextlib.suppress(OSError):
                    sock.recv(self.random.randrange(1, 2000))
            if self.random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def nothing_is_left(server: Server) -> str | None:
    left: dict[str, int] = {}

    def look() -> bool:
        left.clear()
        left.update(json.loads(server.get("/settle?id=1").body))
        return not left

    try:
        wait_until(look, 20 * SLOW)
    except TimeoutError:
        return f"left at the end: {left}"
    return None


if __name__ == "__main__":
    app = (str(HERE / "asgiapp.py"),)
    sys.exit(drive.main(drive.Soak(ASGI_CARRIERS, app, AsgiWorld, Client, nothing_is_left)))

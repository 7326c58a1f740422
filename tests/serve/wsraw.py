# SPDX-License-Identifier: Apache-2.0
"""A WebSocket client of bytes, which may break rules and leave when it likes."""

from __future__ import annotations

import socket
import struct

from harness import SLOW, Server

HANDSHAKE = (
    b"GET /%s HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

# Options for pings that a test can wait for, and what a client gets that answers none.
PINGS = ("--ws-ping-interval", "0.1", "--ws-ping-timeout", "0.5")
NO_ANSWER = (0x88, struct.pack("!H", 1011) + b"no answer to a ping")


class Raw:
    """A client that may break rules."""

    def __init__(self, server: Server, path: str = "echo", more: bytes = b"") -> None:
        """MORE: whole lines of the handshake's head."""
        self.sock = socket.create_connection(("127.0.0.1", server.port))
        self.sock.settimeout(20 * SLOW)
        self.got = bytearray()
        self.sock.sendall((HANDSHAKE % path.encode())[:-2] + more + b"\r\n")
        while b"\r\n\r\n" not in self.got:
            assert self.more()
        end = self.got.index(b"\r\n\r\n") + 4
        self.head = bytes(self.got[:end])
        del self.got[:end]

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *unused: object) -> None:
        self.sock.close()

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.got += data
        return bool(data)

    def send(self, first: int, payload: bytes = b"", *, mask: bool = True) -> None:
        key = b"\x12\x34\x56\x78"
        n = len(payload)
        if n < 126:
            head = struct.pack("!BB", first, n | mask << 7)
        elif n < 65536:
            head = struct.pack("!BBH", first, 126 | mask << 7, n)
        else:
            head = struct.pack("!BBQ", first, 127 | mask << 7, n)
        if mask:
            whole = key * (n // 4 + 1)
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(whole[:n], "big")).to_bytes(
                n, "big"
            )
            head += key
        self.sock.sendall(head + payload)

    def frame(self) -> tuple[int, bytes]:
        """The next one's first byte and payload."""
        while len(self.got) < 2:
            assert self.more(), "the end, and no frame"
        n, head = self.got[1], 2
        assert n < 128, "a server masks nothing"
        if n >= 126:
            head = 4 if n == 126 else 10
            while len(self.got) < head:
                assert self.more()
            n = int.from_bytes(self.got[2:head], "big")
        while len(self.got) < head + n:
            assert self.more()
        frame = self.got[0], bytes(self.got[head : head + n])
        del self.got[: head + n]
        return frame

    def code(self) -> int:
        """Of the close frame, which must be the next but for pings; then nothing follows."""
        first, payload = self.frame()
        assert first == 0x88, (hex(first), payload)
        while self.more():
            pass
        assert not self.got
        return int.from_bytes(payload[:2], "big") if payload else 1005

    def answer_pings(self) -> None:
        """Some, and an echo is there all the same."""
        for _ in range(3):
            first, payload = self.frame()
            assert first == 0x89
            self.send(0x8A, payload)
        self.send(0x81, b"alive")
        assert self.frame()[0] in (0x81, 0x89)

# SPDX-License-Identifier: Apache-2.0
"""Ten thousand streams of events (SSE) that one process has open at once.

Each has its first event at once, and is weighed while all wait; then all of them get five more, one
a second. Late is an event by the time from when it was due until this program, which has a
processor of its own at best, has read it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

from measure import Book
from memory import BATCH, ask
from servers import Row
from serving import BenchError, Server, running

TIMEOUT_S = 60
EVENTS = 5
INTERVAL_S = 1.0
EVENT, LAST = b"data: event", b"0\r\n\r\n"


class Stream:
    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.sock.setblocking(False)
        self.tail = b""  # an event may be cut anywhere
        self.events = 0
        self.ended = False

    def read(self) -> int:
        """How many events have come; the end counts for none."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        self.ended = not data or (self.tail + data).endswith(LAST)
        before = self.tail.count(EVENT)
        found = (self.tail + data).count(EVENT) - before
        self.tail = (self.tail + data)[-len(EVENT) :]
        self.events += found
        return found


class Streams:
    """All that are open to one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.poll = select.epoll()
        self.streams: dict[int, Stream] = {}
        self.late_s: list[float] = []

    def close(self) -> None:
        for stream in self.streams.values():
            stream.sock.close()
        self.poll.close()

    def open(self, count: int) -> None:
        """COUNT of them, each with its first event."""
        end = time.monotonic() + TIMEOUT_S
        while len(self.streams) < count:
            for _ in range(min(BATCH, count - len(self.streams))):
                stream = Stream(self.server.port)
                self.streams[stream.sock.fileno()] = stream
                self.poll.register(stream.sock, select.EPOLLIN)
                ask(stream.sock, "/events")
            while sum(stream.events for stream in self.streams.values()) < len(self.streams):
                if time.monotonic() > end:
                    raise BenchError(f"{len(self.streams)} streams: not all have begun")
                for fd, _ in self.poll.poll(1.0):
                    self.streams[fd].read()

    def follow(self, began_s: float) -> int:
        """Reads the events that came from BEGAN_S on; how many streams had all, and their end."""
        end = began_s + EVENTS * INTERVAL_S + TIMEOUT_S
        left = len(self.streams)
        while left and time.monotonic() < end:
            for fd, _ in self.poll.poll(1.0):
                stream = self.streams[fd]
                if stream.read():
                    due_s = began_s + (stream.events - 2) * INTERVAL_S
                    self.late_s.append(time.monotonic() - due_s)
                if stream.ended:
                    self.poll.unregister(fd)
                    left -= 1
        return sum(stream.events == 1 + EVENTS for stream in self.streams.values())


def go(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        ask(sock, "/go")
        if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
            raise BenchError("/go was not answered")


def _events(streams: Streams, count: int, book: Book) -> None:
    server = streams.server
    bare_kb = sum(server.memory_kb())
    streams.open(count)
    open_kb = sum(server.memory_kb())
    cpu_ns, began_s = server.cpu_ns(), time.monotonic()
    go(server.port)
    good = streams.follow(began_s)
    cpu_us = (server.cpu_ns() - cpu_ns) / 1000
    late = sorted(streams.late_s) or [0.0]
    book.add(
        server.row.name,
        events_errors=float(count - good),
        events_kb=(open_kb - bare_kb) / count,
        events_cpu_us=cpu_us / (count * EVENTS),
        events_p50_ms=late[len(late) // 2] * 1000,
        events_p99_ms=late[len(late) * 99 // 100] * 1000,
    )


def events(row: Row, count: int, book: Book) -> None:
    """COUNT streams to the server of ROW."""
    try:
        with running(row) as server, contextlib.closing(Streams(server)) as streams:
            _events(streams, count, book)
    except (BenchError, OSError) as error:
        book.fail(row.name, f"events: {error}")

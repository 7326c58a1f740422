# SPDX-License-Identifier: Apache-2.0
"""What a waiting request weighs: ten thousand of them above ten thousand idle connections.

Opens the connections and has each answered once, so that all are idle; sends a request that waits
on each; weighs the server again while all of them wait. RSS and page tables of the process don't
hold what the kernel keeps for a thread (its stack, its task), so for threads it is the machine's
MemAvailable that counts. Everything else that runs here moves that as well, by megabytes: beside it
the sum is taken of the RSS and of what the kernel counts for itself (stacks, page tables, slabs).
"""

from __future__ import annotations

import resource
import select
import socket
import statistics
import time
from pathlib import Path

from measure import Book
from servers import Row
from serving import BenchError, Server, running, status_kb

TIMEOUT_S = 60
BATCH = 500  # connections opened before their first answers are read
SETTLE_S = 0.5
SAMPLE_S = 0.25
SAMPLES = 4  # the last before the first answer came; the median counts
KERNEL = ("KernelStack", "PageTables", "SUnreclaim")
ANSWER_END = b"Hello World"


def ask(sock: socket.socket, target: str) -> None:
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


class Clients:
    """Keep-alive connections to one server, one request on each."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.poll = select.epoll()
        self.socks: dict[int, socket.socket] = {}

    def close(self) -> None:
        for sock in self.socks.values():
            sock.close()
        self.poll.close()

    def open(self, count: int) -> None:
        """Connections that were answered once, and rest."""
        while len(self.socks) < count:
            batch = min(BATCH, count - len(self.socks))
            for _ in range(batch):
                sock = socket.create_connection(("127.0.0.1", self.server.port), 10)
                sock.setblocking(False)
                self.socks[sock.fileno()] = sock
                self.poll.register(sock, select.EPOLLIN)
                ask(sock, "/")
            if self.read_answers(batch) != batch:
                raise BenchError("a connection was not answered before the test began")

    def ask_all(self, target: str) -> None:
        for sock in self.socks.values():
            ask(sock, target)

    def read_answers(self, wanted: int) -> int:
        """Waits for WANTED answers, one on each connection; returns how many were good."""
        end = time.monotonic() + TIMEOUT_S
        good = ended = 0
        while ended < wanted and time.monotonic() < end:
            for fd, _ in self.poll.poll(1.0):
                try:
                    data = self.socks[fd].recv(4096)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                ended += 1
                if data.startswith(b"HTTP/1.1 200") and data.endswith(ANSWER_END):
                    good += 1
                else:
                    self.poll.unregister(fd)
        return good

    def answer_is_there(self) -> bool:
        return bool(self.poll.poll(0, 1))


def weigh(server: Server) -> dict[str, int]:
    """kB by what they are counted of."""
    machine = Path("/proc/meminfo").read_text()
    rss, tables = server.memory_kb()
    return {
        "process": rss + tables,
        "counted": rss + status_kb(machine, *KERNEL),
        "machine": -status_kb(machine, "MemAvailable"),
    }


def weigh_waiting(clients: Clients) -> dict[str, float]:
    """While all wait: what was seen last before the first answer came."""
    samples = [weigh(clients.server)]
    end = time.monotonic() + TIMEOUT_S
    while not clients.answer_is_there() and time.monotonic() < end:
        time.sleep(SAMPLE_S)
        samples.append(weigh(clients.server))
    # The last may have been taken when the first answers were on their way.
    samples = samples[-SAMPLES - 1 : -1] or samples
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def descriptors(count: int) -> str:
    """Why COUNT connections can't be had here; empty when they can."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < count + 100:
        return f"only {hard} descriptors are allowed here"
    return ""


def memory(row: Row, target: str, count: int, book: Book) -> None:
    """COUNT requests for TARGET at once on the server of ROW."""
    try:
        with running(row) as server:
            clients = Clients(server)
            try:
                _memory(clients, target, count, book)
            finally:
                clients.close()
    except (BenchError, OSError) as error:
        book.fail(row.name, f"memory, {target}: {error}")


def _memory(clients: Clients, target: str, count: int, book: Book) -> None:
    server = clients.server
    bare_kb = sum(server.memory_kb())
    clients.open(count)
    time.sleep(SETTLE_S)
    idle = weigh(server)
    cpu_ns, started = server.cpu_ns(), time.monotonic()
    clients.ask_all(target)
    waiting = weigh_waiting(clients)
    threads = server.threads()
    good = clients.read_answers(count)
    took_s = time.monotonic() - started
    each = {name: (waiting[name] - idle[name]) / count for name in idle}
    name = target.strip("/")
    book.add(
        server.row.name,
        idle_kb=(idle["process"] - bare_kb) / count,
        **{
            f"{name}_errors": float(count - good),
            f"{name}_seconds": took_s,
            f"{name}_cpu_us": (server.cpu_ns() - cpu_ns) / count / 1000,
            f"{name}_process_kb": each["process"],
            f"{name}_counted_kb": each["counted"],
            f"{name}_machine_kb": each["machine"],
            f"{name}_threads": float(threads),
        },
    )

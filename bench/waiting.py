# SPDX-License-Identifier: Apache-2.0
"""Ten thousand requests that wait at once, in one process: errors, time, and memory for each.

Opens the connections and has each answered once, so that all are idle; takes the server's memory
(RSS and page tables); sends a request that waits three seconds on each; takes the memory again
while all of them wait. What a waiting request costs is the difference. Called by `make bench`.

    bench/waiting.py [COUNT]
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import time
from pathlib import Path

from run import OUT, BenchError, Server, running
from servers import PELTON, Row, missing

COUNT = 10_000
WAIT_S = 3.0
TIMEOUT_S = 60
BATCH = 500  # connections opened before their first answers are read
MEMORY_TARGET_KB = 20.0
ANSWER_END = b"Hello World"


def row(count: int) -> Row:
    argv = (
        str(PELTON / "python"),
        str(PELTON / "pelton"),
        "--http-socket",
        "127.0.0.1:{port}",
        "--processes",
        "1",
        "--async",
        str(count),
        "--disable-logging",
        "--wsgi-file",
        "waiting.py",
    )
    return Row("pelton, waiting", argv, PELTON / "pelton", "pelton._pelton")


def memory_kb(server: Server) -> int:
    """RSS and page tables of all its processes."""
    total = 0
    for pid in server.pids():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("VmRSS:", "VmPTE:")):
                total += int(line.split()[1])
    return total


def ask(sock: socket.socket, target: str) -> None:
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


def read_answers(poll: select.epoll, socks: dict[int, socket.socket], wanted: int) -> int:
    """Waits for one answer on each of ``wanted`` connections; returns how many were good."""
    end = time.monotonic() + TIMEOUT_S
    good = ended = 0
    while ended < wanted and time.monotonic() < end:
        for fd, _ in poll.poll(1.0):
            try:
                data = socks[fd].recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            ended += 1
            if data.startswith(b"HTTP/1.1 200") and data.endswith(ANSWER_END):
                good += 1
            else:
                poll.unregister(fd)
    return good


def open_idle(
    poll: select.epoll, socks: dict[int, socket.socket], server: Server, count: int
) -> None:
    """Connections that were answered once, and rest."""
    while len(socks) < count:
        batch = min(BATCH, count - len(socks))
        for _ in range(batch):
            sock = socket.create_connection(("127.0.0.1", server.port), 10)
            sock.setblocking(False)
            socks[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
            ask(sock, "/")
        if read_answers(poll, socks, batch) != batch:
            raise BenchError("a connection was not answered before the test began")


def measure(count: int) -> dict[str, float]:
    socks: dict[int, socket.socket] = {}
    with running(row(count)) as server, select.epoll() as poll:
        open_idle(poll, socks, server, count)
        time.sleep(0.5)
        idle_kb = memory_kb(server)
        started = time.monotonic()
        cpu_ns = server.cpu_ns()
        for sock in socks.values():
            ask(sock, "/wait")
        asked_s = time.monotonic() - started
        time.sleep(max(0.0, WAIT_S - 1.0 - asked_s))
        waiting_kb = memory_kb(server)
        good = read_answers(poll, socks, count)
        took_s = time.monotonic() - started
        cpu_us = (server.cpu_ns() - cpu_ns) / 1000
        for sock in socks.values():
            sock.close()
    return {
        "requests": count,
        "errors": count - good,
        "seconds": round(took_s, 2),
        "cpu_us_each": round(cpu_us / count, 1),
        "idle_mb": round(idle_kb / 1024, 1),
        "waiting_mb": round(waiting_kb / 1024, 1),
        "kb_each": round((waiting_kb - idle_kb) / count, 2),
    }


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < count + 100:
        print(f"waiting: left out, only {hard} descriptors are allowed here")
        return 1
    why = missing(row(count))
    if why:
        print(f"waiting: left out, {why}")
        return 1
    try:
        figures = measure(count)
    except (BenchError, OSError) as error:
        print(f"waiting: {error}")
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "waiting.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(
        f"waiting: {figures['requests']:,} requests at once in uwsgi.async_sleep({WAIT_S:.0f}):"
        f" {figures['errors']} errors, all answered after {figures['seconds']} s,"
        f" CPU {figures['cpu_us_each']} us each\n"
        f"waiting: {figures['idle_mb']} MB with idle connections, {figures['waiting_mb']} MB with"
        f" waiting requests: {figures['kb_each']} kB each (at most {MEMORY_TARGET_KB:.0f})"
    )
    return 1 if figures["errors"] or figures["kb_each"] > MEMORY_TARGET_KB else 0


if __name__ == "__main__":
    sys.exit(main())

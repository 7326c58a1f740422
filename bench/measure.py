# SPDX-License-Identifier: Apache-2.0
"""What is taken of servers that answer hello world, the example programs, and sleeping requests.

Servers that are compared run at the same time, and are asked in turns: a machine that is busy with
something else is so for all of them, and the ratio of two rows is the median of the rounds' ratios.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from loads import LOADS, ab, load
from servers import PELTON, WAITING_COUNT, Row
from serving import CALLGRIND, BenchError, Server, running

PAIR_REQUESTS = 10_000
PAIR_LINES = 6 * PAIR_REQUESTS
PAIR_LINE = re.compile(rb"^[0-5]:(?:zero|one|two|three|four|five)$", re.MULTILINE)
PAIR_LINES_TIMEOUT_S = 60
MANY_CONNECTIONS = 50
CALL_LATER_TIMEOUT_S = 60


@dataclass
class Sizes:
    """How much each measurement takes."""

    rounds: int = 5
    round_s: float = 0.7  # one round of one row of hello world
    pair_rounds: int = 3
    waiting_rounds: int = 3
    waiting_requests: int = 20_000
    memory_rounds: int = 3  # where MemAvailable counts, which others move as well
    instructions: tuple[int, int, int] = (500, 1000, 4000)  # to warm up, smaller, larger
    peers_instructions: tuple[int, int, int] = (200, 400, 1200)  # some take minutes for more
    loops: tuple[int, int] = (300, 1300)  # smaller, larger
    loops_small: tuple[int, int] = (1000, 5000)

    @classmethod
    def quick(cls) -> Sizes:
        return cls(1, 0.3, 1, 1, 5000, 1, (200, 500, 1500), (200, 300, 800))


class Book:
    """Rounds of figures by row and name, and what could not be taken."""

    def __init__(self) -> None:
        self.rounds: dict[str, dict[str, list[float]]] = {}
        self.failed: dict[str, list[str]] = {}

    def add(self, row: str, **figures: float) -> None:
        for name, value in figures.items():
            self.rounds.setdefault(row, {}).setdefault(name, []).append(value)

    def fail(self, row: str, text: str) -> None:
        self.failed.setdefault(row, []).append(text)

    def figure(self, row: str, name: str) -> float | None:
        """The median of the rounds."""
        values = self.rounds.get(row, {}).get(name)
        return statistics.median(values) if values else None

    def ratio(self, over: str, under: str, name: str) -> float | None:
        """The median of the rounds' ratios; of the medians where one row has fewer rounds."""
        a = self.rounds.get(over, {}).get(name, [])
        b = self.rounds.get(under, {}).get(name, [])
        if not a or not b or min(b) <= 0:
            return None
        if len(a) != len(b):
            return statistics.median(a) / statistics.median(b)
        return statistics.median(x / y for x, y in zip(a, b, strict=True))


@contextlib.contextmanager
def side_by_side(rows: Iterable[Row], book: Book, what: str) -> Iterable[list[Server]]:
    """All that start; the others are told."""
    with contextlib.ExitStack() as stack:
        servers = []
        for row in rows:
            try:
                servers.append(stack.enter_context(running(row)))
            except BenchError as error:
                book.fail(row.name, f"{what}: {error}")
        yield servers


def in_turns(
    servers: list[Server], rounds: int, book: Book, what: str, job: Callable[[Server], None]
) -> None:
    """JOB for each server in each round; one that fails is left out of the rounds that follow."""
    left = list(servers)
    for _ in range(rounds):
        for server in list(left):
            try:
                job(server)
            except BenchError as error:
                book.fail(server.row.name, f"{what}: {error}")
                left.remove(server)


def hello_cpu(rows: Iterable[Row], which: str, sizes: Sizes, book: Book) -> None:
    """CPU microseconds a request, and requests per second."""
    requests: dict[str, int] = {}

    def warm_up(server: Server) -> None:
        rps = LOADS[which](server, 2000)["rps"]
        requests[server.row.name] = max(2000, min(100_000, int(rps * sizes.round_s)))

    def one(server: Server) -> None:
        count = requests[server.row.name]
        before = server.cpu_ns()
        rps = LOADS[which](server, count)["rps"]
        cpu_us = (server.cpu_ns() - before) / count / 1000
        book.add(server.row.name, **{f"{which}_cpu_us": cpu_us, f"{which}_rps": rps})

    with side_by_side(rows, book, which) as servers:
        in_turns(servers, 1, book, which, warm_up)
        servers = [server for server in servers if server.row.name in requests]
        in_turns(servers, sizes.rounds, book, which, one)


def sleeping(rows: Iterable[Row], sizes: Sizes, book: Book) -> None:
    """1,000 ASGI requests at once in asyncio.sleep(0.1)."""

    def ask(server: Server, requests: int) -> dict[str, float]:
        before = server.cpu_ns()
        figures = load(server, requests, "-l", "-p", "/sleep", connections=WAITING_COUNT)
        return figures | {"cpu_us": (server.cpu_ns() - before) / requests / 1000}

    def one(server: Server) -> None:
        figures = ask(server, sizes.waiting_requests)
        book.add(server.row.name, **{f"asleep_{name}": v for name, v in figures.items()})

    with side_by_side(rows, book, "asgi, asleep") as servers:
        in_turns(servers, 1, book, "asgi, asleep", lambda server: ask(server, 2 * WAITING_COUNT))
        bad = {server.row.name for server in servers if server.row.name in book.failed}
        servers = [server for server in servers if server.row.name not in bad]
        in_turns(servers, sizes.waiting_rounds, book, "asgi, asleep", one)


def instructions(row: Row, which: str, sizes: Sizes, book: Book) -> None:
    """User instructions a request, by the difference of two counts."""
    warm, small, large = sizes.instructions if row.own else sizes.peers_instructions
    try:
        with running(row, CALLGRIND) as server:
            LOADS[which](server, warm)
            server.instructions()
            counts = []
            for requests in (small, large):
                LOADS[which](server, requests)
                counts.append(server.instructions())
    except BenchError as error:
        book.fail(row.name, f"instructions, {which}: {error}")
        return
    each = (counts[1] - counts[0]) / (large - small)
    book.add(row.name, **{f"{which}_instructions": each})


# --- The two example programs -----------------------------------------------------------------


def wait_lines(log: Path, wanted: int) -> None:
    end = time.monotonic() + PAIR_LINES_TIMEOUT_S
    found = 0
    while time.monotonic() < end:
        data = log.read_bytes() if log.exists() else b""
        found = len(PAIR_LINE.findall(data))
        if found >= wanted:
            return
        time.sleep(0.2)
    raise BenchError(f"{found} of {wanted} lines in the log after {PAIR_LINES_TIMEOUT_S} s")


def pair(rows: Iterable[Row], sizes: Sizes, book: Book) -> None:
    """ab on each program, then its CPU time up to the last line that it prints."""
    expected: dict[str, int] = {}

    def first_lines(server: Server) -> None:
        # wait_ready asked once already: that request's lines come, too, and are waited for.
        wait_lines(server.folder / "server.log", 6)
        ab(server, 500)
        wait_lines(server.folder / "server.log", 6 + 6 * 500)
        expected[server.row.name] = 6 + 6 * 500

    def one(server: Server) -> None:
        expected[server.row.name] += PAIR_LINES
        before = server.cpu_ns()
        rps = ab(server, PAIR_REQUESTS)["rps"]
        under_load = server.cpu_ns() - before
        wait_lines(server.folder / "server.log", expected[server.row.name])
        whole = server.cpu_ns() - before
        book.add(
            server.row.name,
            pair_rps=rps,
            pair_cpu_us=under_load / PAIR_REQUESTS / 1000,
            whole_cpu_us=whole / PAIR_REQUESTS / 1000,
        )

    with side_by_side(rows, book, "pair") as servers:
        in_turns(servers, 1, book, "pair", first_lines)
        servers = [server for server in servers if server.row.name in expected]
        in_turns(servers, sizes.pair_rounds, book, "pair", one)


def call_later_alone(script: Path, sizes: Sizes, book: Book) -> None:
    """What 10,000 call_later cost on the server's own loop, without a server."""
    for _ in range(sizes.pair_rounds):
        done = subprocess.run(
            [PELTON / "python", script],
            capture_output=True,
            text=True,
            timeout=CALL_LATER_TIMEOUT_S,
            check=False,
        )
        match = re.search(r"^(\S+) us=([\d.]+)$", done.stdout, re.MULTILINE)
        if done.returncode != 0 or not match:
            book.fail("call_later", f"pair: {done.stderr.strip()[-200:]}")
            return
        book.add(f"call_later, {match[1]}", call_later_us=float(match[2]))


# --- Sleeping requests ------------------------------------------------------------------------


def waiting(rows: Iterable[Row], sizes: Sizes, book: Book) -> None:
    """1,000 requests at once that sleep for 0.1 s; then 50 at once that sleep 20 times 1 ms."""

    def ask(server: Server, path: str, connections: int, requests: int) -> dict[str, float]:
        before = server.cpu_ns()
        figures = load(
            server, requests, "-l", "-p", path, *server.row.load, connections=connections
        )
        return figures | {"cpu_us": (server.cpu_ns() - before) / requests / 1000}

    def warm_up(server: Server) -> None:
        ask(server, "/sleep", WAITING_COUNT, 2 * WAITING_COUNT)

    def one(server: Server) -> None:
        for kind, path, connections, requests in (
            ("sleep", "/sleep", WAITING_COUNT, sizes.waiting_requests),
            ("many", "/many", MANY_CONNECTIONS, sizes.waiting_requests // 4),
        ):
            figures = ask(server, path, connections, requests)
            book.add(server.row.name, **{f"{kind}_{name}": v for name, v in figures.items()})

    with side_by_side(rows, book, "waiting") as servers:
        in_turns(servers, 1, book, "waiting", warm_up)
        bad = {server.row.name for server in servers if server.row.name in book.failed}
        servers = [server for server in servers if server.row.name not in bad]
        in_turns(servers, sizes.waiting_rounds, book, "waiting", one)

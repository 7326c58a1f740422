# SPDX-License-Identifier: Apache-2.0
"""make bench: what a request costs, for Pelton and for other servers, in the same run.

The parts, in the order in which they are taken:

  instructions  user instructions of hello world, by callgrind: Pelton's rows (peers come last)
  hello         CPU time and requests per second of hello world, keep-alive and new connections
  pair          the two example programs under ab
  waiting       1,000 requests at once that sleep; 50 at once that sleep twenty times
  memory        10,000 waiting requests above 10,000 idle connections
  patching      redirecting the calls of libraries
  loops         user instructions an operation of asyncio event loops
  asgi          ASGI: hello world, 10 kB echo, Starlette's JSON, 1,000 requests asleep, all servers
  events        10,000 streams of events (SSE) open to one process, all servers of ASGI
  peers         user instructions of the other servers

Every load is bounded in count and in time, and goes to 127.0.0.1 only. No part begins after
--minutes; what was left out for that is said. Prints tables and a verdict for each target, writes
bench/out/bench.json; ends with 1 where a figure of Pelton's own could not be taken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import loops
import report
from events import events
from machine import Others, take_precedence
from measure import (
    Book,
    Sizes,
    call_later_alone,
    hello_cpu,
    instructions,
    pair,
    sleeping,
    waiting,
)
from memory import descriptors, memory
from patching import patching
from servers import ROOT, ROWS, Row, memory_row, missing

OUT = ROOT / "bench" / "out" / "bench.json"
PARTS = (
    "instructions",
    "hello",
    "pair",
    "waiting",
    "memory",
    "patching",
    "loops",
    "asgi",
    "events",
    "peers",
)
MEMORY_COUNT = 10_000
CALL_LATER = ROOT / "bench" / "apps" / "call_later.py"


class Run:
    """One run: what is wanted of it, what it found, what it left out."""

    def __init__(self, parts: set[str], rows: tuple[str, ...], sizes: Sizes, end_s: float) -> None:
        self.prefixes = rows
        self.sizes = sizes
        self.end_s = end_s
        self.book = Book()
        self.facts = report.Facts(parts)
        self.own_missing = False
        self._why: dict[str, str] = {}

    def rows(self, takes: str) -> list[Row]:
        """The rows that are asked for and can be had; the others are told once."""
        found = []
        for row in (row for row in ROWS if takes in row.takes):
            if self.prefixes and not row.name.startswith(self.prefixes):
                continue
            if row.name not in self._why:
                self._why[row.name] = missing(row)
                if self._why[row.name]:
                    self.leave_out(f"{row.name}: {self._why[row.name]}", row.own)
            if not self._why[row.name]:
                found.append(row)
        return found

    def leave_out(self, text: str, own: bool = False) -> None:
        self.facts.left_out.append(text)
        self.own_missing |= own
        print(f"left out: {text}", flush=True)

    def job(self, text: str, job: Callable[..., None], *args: object) -> None:
        """One measurement, where there is time left for it."""
        if time.monotonic() > self.end_s:
            self.leave_out(f"{text}: the time is over")
            return
        print(f"{text} ...", flush=True)
        job(*args, self.book)

    def instructions(self, own: bool) -> None:
        for which in ("keep_alive", "varied", "browser", "new"):
            takes = "new" if which == "new" else "keep_alive"
            for row in self.rows(takes):
                if row.own is own and (own or which in ("keep_alive", "new")):
                    self.job(f"instructions, {which}, {row.name}", instructions, row, which,
                             self.sizes)  # fmt: skip

    def hello(self) -> None:
        for which in ("keep_alive", "new"):
            self.job(f"hello world, {which}", hello_cpu, self.rows(which), which, self.sizes)

    def pair(self) -> None:
        rows = self.rows("pair")
        self.job("the two example programs", pair, rows, self.sizes)
        if any(row.own for row in rows):
            self.job("call_later by itself", call_later_alone, CALL_LATER, self.sizes)

    def waiting(self) -> None:
        self.job("sleeping requests", waiting, self.rows("waiting"), self.sizes)

    def memory(self) -> None:
        why = descriptors(MEMORY_COUNT) or missing(memory_row("fibers", MEMORY_COUNT))
        if why:
            self.leave_out(f"memory: {why}", own=True)
            return
        threads = [("threads", "/hold")] * self.sizes.memory_rounds
        for carrier, target in [("fibers", "/wait"), ("fibers", "/hold"), *threads]:
            row = memory_row(carrier, MEMORY_COUNT)
            self.job(f"memory, {carrier}, {target}", memory, row, target, MEMORY_COUNT)

    def patching(self) -> None:
        self.job("redirecting libraries' calls", patching)

    def loops(self) -> None:
        for loop in loops.LOOPS:
            own = loop.name == loops.OWN
            why = loop.missing()
            if why:
                self.leave_out(f"{loop.name}: {why}", own)
                continue
            for case in loops.CASES:
                counts = self.sizes.loops_small if case in loops.SMALL else self.sizes.loops
                self.job(f"loops, {case}, {loop.name}", loops.loop_case, loop, case, counts)

    def asgi(self) -> None:
        hello, starlette = self.rows("asgi"), self.rows("starlette")
        kinds = ("keep_alive", hello), ("echo", hello), ("websocket", hello)
        for which, rows in (*kinds, ("keep_alive", starlette)):
            for row in rows:
                self.job(f"instructions, {which}, {row.name}", instructions, row, which, self.sizes)
            self.job(f"asgi, {which}", hello_cpu, rows, which, self.sizes)
        self.job("asgi, asleep", sleeping, hello, self.sizes)

    def events(self) -> None:
        why = descriptors(MEMORY_COUNT)
        if why:
            self.leave_out(f"events: {why}", own=True)
            return
        for row in self.rows("asgi"):
            self.job(f"events, {row.name}", events, row, MEMORY_COUNT)

    def all(self) -> None:
        jobs: dict[str, Callable[[], None]] = {
            "instructions": lambda: self.instructions(own=True),
            "hello": self.hello,
            "pair": self.pair,
            "waiting": self.waiting,
            "memory": self.memory,
            "patching": self.patching,
            "loops": self.loops,
            "asgi": self.asgi,
            "events": self.events,
            "peers": lambda: self.instructions(own=False),
        }
        for part in PARTS:
            if part in self.facts.parts:
                others = Others()
                jobs[part]()
                self.facts.others[part] = others.share()


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description="what a request costs")
    parser.add_argument("--only", default="", help=f"parts, by commas: {', '.join(PARTS)}")
    parser.add_argument("--rows", default="", help="beginnings of servers' names, by commas")
    parser.add_argument("--quick", action="store_true", help="fewer requests, one round")
    parser.add_argument("--minutes", type=float, default=18, help="begin nothing after so many")
    parser.add_argument("--nice", type=int, default=0, help="-20: before others (as root)")
    options = parser.parse_args()
    parts = set(names(options.only) or PARTS)
    if parts - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(parts - set(PARTS)))}")
    if options.nice:
        take_precedence(os.getpid(), options.nice)
    started = time.monotonic()
    sizes = Sizes.quick() if options.quick else Sizes()
    run = Run(parts, names(options.rows), sizes, started + options.minutes * 60)
    run.all()
    run.facts.took_s = time.monotonic() - started
    print(report.report(run.book, run.facts))
    report.write_json(OUT, run.book, run.facts)
    own = {row.name for row in ROWS if row.own} | {"call_later", "patching", loops.OWN}
    own |= {memory_row(carrier, MEMORY_COUNT).name for carrier in ("fibers", "threads")}
    return 1 if run.own_missing or own & set(run.book.failed) else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What the figures are aimed at: a verdict, met or not met, for each target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from loops import OWN, against_best
from measure import Book

AT_MOST, AT_LEAST = "at most", "at least"


@dataclass(frozen=True)
class Target:
    text: str
    part: str  # of run.py: the target is passed over where that part isn't run
    take: Callable[[Book], float | None]
    sense: str
    limit: float
    unit: str = ""

    def verdict(self, book: Book) -> tuple[str, float | None]:
        value = self.take(book)
        if value is None:
            return "not taken", None
        good = value <= self.limit if self.sense == AT_MOST else value >= self.limit
        return "met" if good else "NOT MET", value


def figure(row: str, name: str) -> Callable[[Book], float | None]:
    return lambda book: book.figure(row, name)


def ratio(over: str, under: str, name: str) -> Callable[[Book], float | None]:
    return lambda book: book.ratio(over, under, name)


def more(row: str, than: str, name: str) -> Callable[[Book], float | None]:
    def take(book: Book) -> float | None:
        a, b = book.figure(row, name), book.figure(than, name)
        return None if a is None or b is None else a - b

    return take


def delayed_cpu(book: Book) -> float | None:
    """The delayed program's whole CPU less call_later's own, against the blocking one's."""
    blocking = book.figure("pelton, blocking", "whole_cpu_us")
    ratio_of_both = book.ratio("pelton, delayed", "pelton, blocking", "whole_cpu_us")
    alone = book.figure("call_later, pelton.Loop", "call_later_us")
    if blocking is None or ratio_of_both is None or alone is None:
        return None
    return ratio_of_both - alone / blocking


def _sleeping(carrier: str, cpu_us: float, p99_ms: float) -> Iterator[Target]:
    row = f"pelton {carrier}, waiting"
    yield Target(
        f"1,000 sleeping, {carrier}: CPU each",
        "waiting",
        figure(row, "sleep_cpu_us"),
        AT_MOST,
        cpu_us,
        "us",
    )
    yield Target(f"1,000 sleeping, {carrier}: p99", "waiting",
                 figure(row, "sleep_p99_ms"), AT_MOST, p99_ms, "ms")  # fmt: skip


PEERS_OF_ASGI = ("uvicorn", "granian", "peregrine", "freastal")


def best_of(peers: Iterable[str], row: str, name: str) -> Callable[[Book], float | None]:
    """The least of the peers' figures by the row's: above one, the row is first."""

    def take(book: Book) -> float | None:
        ratios = [book.ratio(peer, row, name) for peer in peers]
        return min((r for r in ratios if r is not None), default=None)

    return take


def _first(kind: str, name: str, text: str) -> Iterator[Target]:
    peers = [f"{peer} {kind}" for peer in PEERS_OF_ASGI]
    yield Target(f"{text}: requests per CPU-second, against the best peer", "asgi",
                 best_of(peers, f"pelton {kind}", name), AT_LEAST, 1)  # fmt: skip


TARGETS: tuple[Target, ...] = (
    Target("hello world, keep-alive: user instructions", "instructions",
           figure("pelton inline", "keep_alive_instructions"), AT_MOST, 7000),
    Target("  the request log: instructions more", "instructions",
           more("pelton inline, log", "pelton inline", "keep_alive_instructions"), AT_MOST, 800),
    Target("  threads / inline", "instructions",
           ratio("pelton threads", "pelton inline", "keep_alive_instructions"), AT_MOST, 1.05),
    Target("  fibers / inline", "instructions",
           ratio("pelton fibers", "pelton inline", "keep_alive_instructions"), AT_MOST, 1.05),
    Target("requests per CPU-second, keep-alive, against uWSGI's router", "hello",
           ratio("uwsgi http router", "pelton inline", "keep_alive_cpu_us"), AT_LEAST, 3),
    Target("requests per CPU-second, ab, against uWSGI", "hello",
           ratio("uwsgi http-socket", "pelton inline", "new_cpu_us"), AT_LEAST, 1),
    Target("requests per CPU-second, blocking program, against uWSGI", "pair",
           ratio("uwsgi, blocking", "pelton, blocking", "pair_cpu_us"), AT_LEAST, 1.5),
    Target("delayed / blocking program: requests per second", "pair",
           ratio("pelton, delayed", "pelton, blocking", "pair_rps"), AT_LEAST, 1),
    Target("delayed / blocking program: CPU to the last line, without call_later's", "pair",
           delayed_cpu, AT_MOST, 1.1),
    *_sleeping("fibers", 15, 130),
    Target("1,000 sleeping, fibers: requests per second", "waiting",
           figure("pelton fibers, waiting", "sleep_rps"), AT_LEAST, 9300),
    *_sleeping("threads", 35, 200),
    Target("  bound to a processor: CPU each", "waiting",
           figure("pelton threads, bound", "sleep_cpu_us"), AT_MOST, 35, "us"),
    Target("ASGI hello world: user instructions", "asgi",
           figure("pelton asgi", "keep_alive_instructions"), AT_MOST, 15_000),
    *_first("asgi", "keep_alive_cpu_us", "ASGI hello world"),
    *_first("asgi", "echo_cpu_us", "ASGI echo of 10 kB"),
    *_first("asgi", "websocket_cpu_us", "WebSocket echo of 100 bytes"),
    *_first("asgi", "asleep_cpu_us", "ASGI, 1,000 asleep"),
    *_first("starlette", "keep_alive_cpu_us", "Starlette JSON"),
    Target("10,000 open streams of events: errors", "events",
           figure("pelton asgi", "events_errors"), AT_MOST, 0),
    Target("an idle connection: RSS and page tables", "memory",
           figure("pelton fibers, memory", "idle_kb"), AT_MOST, 6, "kB"),
    Target("10,000 in uwsgi.async_sleep(3), fibers: errors", "memory",
           figure("pelton fibers, memory", "wait_errors"), AT_MOST, 0),
    Target("  RSS and page tables each", "memory",
           figure("pelton fibers, memory", "wait_process_kb"), AT_MOST, 20, "kB"),
    Target("10,000 in time.sleep, fibers: RSS and page tables each", "memory",
           figure("pelton fibers, memory", "hold_process_kb"), AT_MOST, 20, "kB"),
    Target("10,000 in time.sleep, threads: MemAvailable each", "memory",
           figure("pelton threads, memory", "hold_machine_kb"), AT_MOST, 60, "kB"),
    Target("call_soon: user instructions", "loops",
           figure(OWN, "loop_call_soon"), AT_MOST, 3200),
    Target("call_later and cancel", "loops", figure(OWN, "loop_call_later"), AT_MOST, 1600),
    Target("sleep(0)", "loops", figure(OWN, "loop_sleep"), AT_MOST, 6600),
    *(
        Target(f"echo by {case} / the best other loop's", "loops", against_best(case), AT_MOST,
               0.9 if case in ("protocol", "buffered", "sock") else 1)
        for case in ("protocol", "buffered", "sock", "streams", "accept", "tls")
    ),
    Target("redirecting at start: CPU", "patching",
           figure("patching", "start_cpu_us"), AT_MOST, 1000, "us"),
    Target("redirecting 280 more libraries: CPU", "patching",
           figure("patching", "scan_280_cpu_us"), AT_MOST, 10_000, "us"),
    Target("redirecting at start with 280 libraries: CPU", "patching",
           figure("patching", "start_280_cpu_us"), AT_MOST, 10_000, "us"),
)  # fmt: skip


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def verdicts(book: Book, parts: set[str]) -> list[dict[str, object]]:
    """One for each target of the parts that were run."""
    found = []
    for target in TARGETS:
        if target.part in parts:
            verdict, value = target.verdict(book)
            found.append(
                {
                    "target": target.text.strip(),
                    "wanted": f"{target.sense} {target.limit:,g} {target.unit}".strip(),
                    "value": value,
                    "verdict": verdict,
                    "line": _line(target, verdict, value),
                }
            )
    return found


def _line(target: Target, verdict: str, value: float | None) -> str:
    shown = "-" if value is None else f"{number(value)} {target.unit}".strip()
    wanted = f"{target.sense} {target.limit:,g} {target.unit}".strip()
    return f"{verdict:9}  {target.text:72} {shown:>10}  ({wanted})"

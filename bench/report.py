# SPDX-License-Identifier: Apache-2.0
"""The tables that make bench prints, and bench/out/bench.json."""

from __future__ import annotations

import datetime
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from measure import Book
from servers import ASGI_ROWS
from verdicts import number, verdicts

ASGI_NAMES = {row.name for row in ASGI_ROWS}
HELLO = (
    ("keep_alive_instructions", "ka instr"),
    ("varied_instructions", "varied"),
    ("browser_instructions", "browser"),
    ("keep_alive_cpu_us", "ka CPU us"),
    ("keep_alive_rps", "ka req/s"),
    ("new_instructions", "new instr"),
    ("new_cpu_us", "new CPU us"),
    ("new_rps", "new req/s"),
)
PAIR = (
    ("pair_rps", "req/s"),
    ("pair_cpu_us", "CPU us"),
    ("whole_cpu_us", "whole CPU us"),
    ("call_later_us", "call_later"),
)
WAITING = (
    ("sleep_cpu_us", "CPU us"),
    ("sleep_rps", "req/s"),
    ("sleep_p50_ms", "p50 ms"),
    ("sleep_p99_ms", "p99 ms"),
    ("many_cpu_us", "20x CPU us"),
    ("many_rps", "20x req/s"),
    ("many_p99_ms", "20x p99 ms"),
)
ASGI = (
    ("keep_alive_instructions", "instr"),
    ("keep_alive_cpu_us", "CPU us"),
    ("keep_alive_rps", "req/s"),
    ("echo_instructions", "echo instr"),
    ("echo_cpu_us", "echo CPU us"),
    ("echo_rps", "echo req/s"),
    ("websocket_instructions", "ws instr"),
    ("websocket_cpu_us", "ws CPU us"),
    ("websocket_rps", "ws msg/s"),
    ("asleep_cpu_us", "asleep us"),
    ("asleep_rps", "asleep req/s"),
    ("asleep_p99_ms", "p99 ms"),
)
EVENTS = (
    ("events_kb", "kB a stream"),
    ("events_cpu_us", "CPU us"),
    ("events_p50_ms", "p50 ms late"),
    ("events_p99_ms", "p99 ms late"),
    ("events_errors", "errors"),
)
MEMORY = (
    ("idle_kb", "idle kB"),
    ("wait_process_kb", "a.sleep kB"),
    ("wait_seconds", "a.sleep s"),
    ("hold_process_kb", "sleep kB"),
    ("hold_counted_kb", "counted kB"),
    ("hold_machine_kb", "machine kB"),
    ("hold_seconds", "sleep s"),
    ("hold_threads", "threads"),
    ("hold_cpu_us", "CPU us"),
)
PATCHING = (
    ("start_cpu_us", "start CPU us"),
    ("start_us", "start us"),
    ("start_slots", "slots"),
    ("scan_280_cpu_us", "280 CPU us"),
    ("scan_280_us", "280 us"),
    ("scan_280_slots", "slots"),
)
LOOPS = (
    ("loop_call_soon", "call_soon"),
    ("loop_call_later", "later+cancel"),
    ("loop_sleep", "sleep(0)"),
    ("loop_protocol", "Protocol"),
    ("loop_buffered", "Buffered"),
    ("loop_streams", "streams"),
    ("loop_sock", "sock_*"),
    ("loop_accept", "accept"),
    ("loop_tls", "TLS"),
)
TABLES = (
    (("instructions", "hello"), "Hello world, a request", HELLO),
    (("pair",), "The two example programs, ab -n 10000 -c 100, a request", PAIR),
    (("waiting",), "1,000 requests at once that sleep 0.1 s; 50 at once, 20 times 1 ms", WAITING),
    (
        ("asgi",),
        "ASGI: hello world, echo of 10 kB, WebSocket echo of 100 bytes,"
        " 1,000 in asyncio.sleep(0.1); Starlette",
        ASGI,
    ),
    (("events",), "10,000 open streams of events: memory each, an event's CPU", EVENTS),
    (("memory",), "10,000 connections: idle; waiting, each above an idle one", MEMORY),
    (("patching",), "Redirecting the calls of libraries", PATCHING),
    (("loops",), "Event loops: user instructions a call, or an echo of 1 kB, both ends", LOOPS),
)


def table(book: Book, columns: tuple[tuple[str, str], ...], asgi: bool = False) -> list[str]:
    """Rows that have any of the columns, in the order in which they were taken."""
    lines = [f"{'':26}" + "".join(f"{title:>13}" for _, title in columns)]
    for row, rounds in book.rounds.items():
        if (row in ASGI_NAMES) is not asgi or not any(key in rounds for key, _ in columns):
            continue
        values = (book.figure(row, key) for key, _ in columns)
        cells = "".join(f"{'-' if v is None else number(v):>13}" for v in values)
        lines.append(f"{row:26}{cells}")
    return lines


@dataclass
class Facts:
    """What a report says besides its figures."""

    parts: set[str]
    left_out: list[str] = field(default_factory=list)
    others: dict[str, float] = field(default_factory=dict)  # by part: see machine.py
    took_s: float = 0


def report(book: Book, facts: Facts) -> str:
    """All that is printed at the end."""
    parts = facts.parts
    lines = []
    for wanted, title, columns in TABLES:
        if parts & set(wanted):
            lines += ["", title, *table(book, columns, bool({"asgi", "events"} & set(wanted)))]
    lines += ["", *(verdict["line"] for verdict in verdicts(book, parts))]
    if facts.left_out or book.failed:
        lines += ["", "Left out:"]
        lines += [f"  {text}" for text in facts.left_out]
        lines += [f"  {row}: {text}" for row, texts in book.failed.items() for text in texts]
    shares = ", ".join(f"{part} {share:.0%}" for part, share in facts.others.items())
    lines += ["", f"Of the processors' time, others took: {shares}"] if shares else []
    lines += [f"{facts.took_s:.0f} s in all"]
    return "\n".join(lines)


def write_json(path: Path, book: Book, facts: Facts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "parts": sorted(facts.parts),
        "seconds": round(facts.took_s, 1),
        "others": facts.others,
        "verdicts": [
            {k: v for k, v in verdict.items() if k != "line"}
            for verdict in verdicts(book, facts.parts)
        ],
        "rounds": book.rounds,
        "failed": book.failed,
        "left_out": facts.left_out,
    }
    path.write_text(json.dumps(data, indent=2) + "\n")

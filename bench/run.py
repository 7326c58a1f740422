# SPDX-License-Identifier: Apache-2.0
"""make bench: what a request costs, for Pelton and for other servers, in the same run.

Three figures for hello world, over 64 keep-alive connections (bench/load.c) and over a new
connection for each request (ab):

* user instructions: callgrind's count between two dumps, for a smaller and for a larger number of
  requests, the difference divided by the difference; start-up and connections cancel out;
* CPU time: what /proc/PID/task/*/schedstat gained, kernel included, all the server's processes;
* requests per second, which on a small machine says as much about the load generator.

And for the two example programs, under ab: requests per second, and CPU time to the last line that
they print. Every load is bounded in count and in time, and goes to 127.0.0.1 only. Prints a table,
writes bench/out/bench.json.

    bench/run.py [--only NAME[,NAME]] [--quick] [--no-instructions]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from servers import BUILD, PEERS, ROOT, ROWS, Row, missing

LOAD = BUILD / "load"
OUT = ROOT / "bench" / "out"
CONNECTIONS = 64
CLIENTS = 100  # of ab
START_TIMEOUT_S = 60
LOAD_TIMEOUT_S = 120
DUMP_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
PAIR_REQUESTS = 10_000
PAIR_LINES = 6 * PAIR_REQUESTS
PAIR_LINE = re.compile(rb"^[0-5]:(?:zero|one|two|three|four|five)$", re.MULTILINE)
PAIR_LINES_TIMEOUT_S = 60


@dataclass
class Sizes:
    """How many requests each measurement takes."""

    keep_alive: int = 100_000
    new: int = 20_000
    rounds: int = 3
    instructions: tuple[int, int, int] = (500, 1000, 4000)  # to warm up, smaller, larger


class BenchError(Exception):
    """A measurement that could not be taken; the text says why."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# --- A server under measurement ---------------------------------------------------------------


class Server:
    """One server's processes: a session of their own, in a folder of their own."""

    def __init__(self, row: Row, prefix: tuple[str, ...] = ()) -> None:
        self.row = row
        self.folder = Path(tempfile.mkdtemp(prefix="pelton-bench-"))
        self.port = free_port()
        source = ROOT / "bench" / "apps" if row.kind == "hello" else ROOT / "examples" / row.kind
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, self.folder)
        argv = [arg.replace("{port}", str(self.port)) for arg in row.argv]
        prefix = tuple(arg.replace("{folder}", str(self.folder)) for arg in prefix)
        env = dict(os.environ, PYTHONHASHSEED="0", PYTHONPATH=str(self.folder))
        # uWSGI embeds the interpreter, and is told by this where its environment is.
        env["VIRTUAL_ENV"] = str(PEERS.parent)
        with (self.folder / "server.out").open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, *argv],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        """The end of its output."""
        text = (self.folder / "server.out").read_text(errors="replace")
        return " / ".join(line.strip() for line in text.splitlines()[-3:])

    def wait_ready(self) -> None:
        """Until it answers one request."""
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise BenchError(f"ended at start ({self.process.returncode}): {self.said()}")
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 5) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if sock.recv(12).endswith(b"200"):
                    return
            time.sleep(0.1)
        raise BenchError(f"no answer after {START_TIMEOUT_S} s: {self.said()}")

    def pids(self) -> list[int]:
        """All processes of its session."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{name}/stat").read_text()
                fields = text.rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    found.append(int(name))
        return found

    def cpu_ns(self) -> int:
        """CPU time of every living thread, user and kernel."""
        total = 0
        for pid in self.pids():
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    total += int(path.read_text().split()[0])
        return total

    def instructions(self) -> int:
        """Instructions since the last call, from callgrind's dumps; the counters start again."""
        total = 0
        for pid in self.pids():
            before = set(self.folder.glob(f"callgrind.{pid}.*"))
            subprocess.run(
                ["callgrind_control", "-d", str(pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=DUMP_TIMEOUT_S,
                check=False,
            )
            total += self._dumped(pid, before)
        return total

    def _dumped(self, pid: int, before: set[Path]) -> int:
        end = time.monotonic() + DUMP_TIMEOUT_S
        while time.monotonic() < end:
            for path in set(self.folder.glob(f"callgrind.{pid}.*")) - before:
                match = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
                if match:
                    return int(match[1])
            time.sleep(0.1)
        raise BenchError(f"callgrind wrote no dump for process {pid}")

    def stop(self) -> None:
        """Ends all of it: some servers want a second word, some leave workers behind."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_TIMEOUT_S)
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running(row: Row, prefix: tuple[str, ...] = ()) -> Iterator[Server]:
    server = Server(row, prefix)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


# --- Load -------------------------------------------------------------------------------------


def load_keep_alive(server: Server, requests: int) -> float:
    """Requests per second; an error ends the measurement."""
    argv = [LOAD, str(server.port), str(CONNECTIONS), str(requests), str(LOAD_TIMEOUT_S)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    match = re.search(r"errors=(\d+) .* rps=(\d+)", done.stdout)
    if done.returncode != 0 or not match:
        raise BenchError(f"load: {done.stdout.strip()} {done.stderr.strip()}")
    return float(match[2])


def load_new(server: Server, requests: int) -> float:
    """ab: a connection for each request."""
    url = f"http://127.0.0.1:{server.port}/"
    argv = ["ab", "-q", "-n", str(requests), "-c", str(CLIENTS), url]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"ab had no end after {LOAD_TIMEOUT_S} s") from None
    rps = re.search(r"^Requests per second:\s+([\d.]+)", done.stdout, re.MULTILINE)
    failed = re.search(r"^Failed requests:\s+(\d+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not rps or not failed:
        raise BenchError(f"ab ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    if int(failed[1]) or "Non-2xx" in done.stdout:
        raise BenchError(f"ab: {failed[1]} failed requests, or answers that are not 200")
    return float(rps[1])


LOADS = {"keep_alive": load_keep_alive, "new": load_new}


# --- Measurements -----------------------------------------------------------------------------


def measure_cpu(row: Row, which: str, sizes: Sizes) -> dict[str, float]:
    """Median of some rounds: CPU microseconds a request, and requests per second."""
    requests = getattr(sizes, which)
    cpu, rps = [], []
    with running(row) as server:
        LOADS[which](server, max(requests // 20, 2000))
        for _ in range(sizes.rounds):
            before = server.cpu_ns()
            rps.append(LOADS[which](server, requests))
            cpu.append((server.cpu_ns() - before) / requests / 1000)
    return {
        f"{which}_cpu_us": statistics.median(cpu),
        f"{which}_cpu_us_min": min(cpu),
        f"{which}_cpu_us_max": max(cpu),
        f"{which}_rps": statistics.median(rps),
    }


def measure_instructions(row: Row, which: str, sizes: Sizes) -> dict[str, float]:
    """User instructions a request, by the difference of two counts."""
    warm, small, large = sizes.instructions
    prefix = (
        "valgrind",
        "-q",
        "--tool=callgrind",
        "--trace-children=yes",
        "--callgrind-out-file={folder}/callgrind.%p",
    )
    with running(row, prefix) as server:
        LOADS[which](server, warm)
        server.instructions()
        counts = []
        for requests in (small, large):
            LOADS[which](server, requests)
            counts.append(server.instructions())
    return {f"{which}_instructions": (counts[1] - counts[0]) / (large - small)}


def measure_pair(row: Row) -> dict[str, float]:
    """One of the example programs: ab, then its CPU time up to the last line it prints."""
    with running(row) as server:
        log = server.folder / "server.log"
        # wait_ready asked once already: that request's lines come, too, and are waited for.
        wait_lines(log, 6)
        before, started = server.cpu_ns(), time.monotonic()
        rps = load_new(server, PAIR_REQUESTS)
        under_load = server.cpu_ns() - before
        wait_lines(log, 6 + PAIR_LINES)
        whole = server.cpu_ns() - before
        took = time.monotonic() - started
    return {
        "new_rps": rps,
        "new_cpu_us": under_load / PAIR_REQUESTS / 1000,
        "whole_cpu_us": whole / PAIR_REQUESTS / 1000,
        "seconds": took,
    }


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


def measure(row: Row, sizes: Sizes, instructions: bool) -> dict[str, object]:
    """All figures of one row; what could not be taken is told in "errors"."""
    figures: dict[str, object] = {"name": row.name, "kind": row.kind}
    errors: list[str] = []
    jobs = []
    if row.kind == "hello":
        for which, has in (("keep_alive", row.keep_alive), ("new", row.new_connections)):
            if has:
                jobs.append((measure_cpu, (row, which, sizes)))
                if instructions:
                    jobs.append((measure_instructions, (row, which, sizes)))
    else:
        jobs.append((measure_pair, (row,)))
    for job, args in jobs:
        try:
            figures.update(job(*args))
        except BenchError as error:
            errors.append(f"{job.__name__}: {error}")
    if errors:
        figures["errors"] = errors
    return figures


# --- Report -----------------------------------------------------------------------------------

COLUMNS = (
    ("keep_alive_instructions", "ka instr"),
    ("keep_alive_cpu_us", "ka CPU us"),
    ("keep_alive_rps", "ka req/s"),
    ("new_instructions", "new instr"),
    ("new_cpu_us", "new CPU us"),
    ("new_rps", "new req/s"),
    ("whole_cpu_us", "whole CPU us"),
)


def cell(value: object) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def table(results: list[dict[str, object]]) -> str:
    lines = [f"{'':24}" + "".join(f"{title:>13}" for _, title in COLUMNS)]
    for figures in results:
        cells = "".join(f"{cell(figures.get(key)):>13}" for key, _ in COLUMNS)
        lines.append(f"{figures['name']:24}{cells}")
    return "\n".join(lines)


def ratios(results: list[dict[str, object]]) -> list[str]:
    """The figures that docs/benchmarks.md sets a target for."""
    by_name = {figures["name"]: figures for figures in results}

    def figure(name: str, key: str) -> float | None:
        value = by_name.get(name, {}).get(key)
        return value if isinstance(value, float) and value > 0 else None

    wanted = (
        ("threads / inline, instructions, keep-alive", "pelton threads", "pelton inline",
         "keep_alive_instructions", "at most 1.05"),
        ("fibers / inline, instructions, keep-alive", "pelton fibers", "pelton inline",
         "keep_alive_instructions", "at most 1.05"),
        ("delayed / blocking program, requests per second", "pelton, delayed", "pelton, blocking",
         "new_rps", "at least 1"),
        ("delayed / blocking program, CPU to the last line", "pelton, delayed", "pelton, blocking",
         "whole_cpu_us", "at most 1.1 and what call_later costs"),
        ("uwsgi router / pelton, CPU, keep-alive", "uwsgi http router", "pelton inline",
         "keep_alive_cpu_us", "at least 3"),
        ("uwsgi / pelton, CPU, blocking program", "uwsgi, blocking", "pelton, blocking",
         "new_cpu_us", "at least 1.5"),
        ("uwsgi / pelton, CPU, new connections", "uwsgi http-socket", "pelton inline",
         "new_cpu_us", "at least 1"),
    )  # fmt: skip
    lines = []
    inline = figure("pelton inline", "keep_alive_instructions")
    logged = figure("pelton inline, log", "keep_alive_instructions")
    if inline:
        lines.append(f"hello world, keep-alive: {inline:,.0f} instructions (at most 7,000)")
        if logged:
            lines.append(f"the request log: {logged - inline:,.0f} more (at most 800)")
    for text, over, under, key, target in wanted:
        a, b = figure(over, key), figure(under, key)
        if a and b:
            lines.append(f"{text}: {a / b:.2f} ({target})")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="what a request costs")
    parser.add_argument("--only", default="", help="names (or their beginnings), by commas")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--no-instructions", action="store_true", help="no callgrind")
    options = parser.parse_args()
    sizes = Sizes(10_000, 4_000, 1, (200, 500, 1500)) if options.quick else Sizes()
    only = tuple(name.strip() for name in options.only.split(",") if name.strip())
    results = []
    own_missing = False  # another server may be missing, Pelton may not
    for row in ROWS:
        if only and not row.name.startswith(only):
            continue
        why = missing(row)
        if why:
            print(f"{row.name}: left out, {why}", flush=True)
            own_missing |= row.name.startswith("pelton")
            continue
        figures = measure(row, sizes, not options.no_instructions)
        results.append(figures)
        shown = ", ".join(f"{title} {cell(figures[k])}" for k, title in COLUMNS if k in figures)
        print(f"{row.name}: {shown}", flush=True)
        own_missing |= row.name.startswith("pelton") and "errors" in figures
        for text in figures.get("errors", []):
            print(f"    {text}", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    report = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "connections": CONNECTIONS,
        "rows": results,
    }
    (OUT / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    print("\n" + table(results))
    print("\n" + "\n".join(ratios(results)))
    return 1 if own_missing else 0


if __name__ == "__main__":
    sys.exit(main())

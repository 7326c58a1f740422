# SPDX-License-Identifier: Apache-2.0
"""The two load generators: bench/load.c over keep-alive, ab over new connections."""

from __future__ import annotations

import re
import subprocess

from servers import BUILD
from serving import BenchError, Server

LOAD = BUILD / "load"
CONNECTIONS = 64
CLIENTS = 100  # of ab
TIMEOUT_S = 120

LOAD_LINE = re.compile(r"errors=(\d+) .* rps=(\d+)(?: p50=([\d.]+) p99=([\d.]+) max=([\d.]+))?")


def read_load(text: str) -> dict[str, float]:
    """What bench/load.c printed: requests per second, and latencies where they were asked for."""
    match = LOAD_LINE.search(text)
    if not match:
        raise BenchError(f"load: {text.strip() or 'no word'}")
    if int(match[1]):
        raise BenchError(f"load: {match[1]} errors")
    figures = {"rps": float(match[2])}
    if match[3]:
        figures |= {"p50_ms": float(match[3]), "p99_ms": float(match[4]), "max_ms": float(match[5])}
    return figures


def load(
    server: Server,
    requests: int,
    *options: str,
    connections: int = CONNECTIONS,
) -> dict[str, float]:
    """REQUESTS over keep-alive connections; an error ends the measurement."""
    argv = [LOAD, *options, str(server.port), str(connections), str(requests), str(TIMEOUT_S)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    figures = read_load(done.stdout)
    if done.returncode != 0:
        raise BenchError(f"load: {done.stdout.strip()} {done.stderr.strip()}")
    return figures


def read_ab(text: str) -> float:
    """Requests per second of a run without failures."""
    rps = re.search(r"^Requests per second:\s+([\d.]+)", text, re.MULTILINE)
    failed = re.search(r"^Failed requests:\s+(\d+)", text, re.MULTILINE)
    if not rps or not failed:
        raise BenchError("ab printed no result")
    if int(failed[1]) or "Non-2xx" in text:
        raise BenchError(f"ab: {failed[1]} failed requests, or answers that are not 200")
    return float(rps[1])


def ab(server: Server, requests: int) -> dict[str, float]:
    """A connection for each request."""
    url = f"http://127.0.0.1:{server.port}/"
    argv = ["ab", "-q", "-n", str(requests), "-c", str(CLIENTS), url]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"ab had no end after {TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise BenchError(f"ab ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    return {"rps": read_ab(done.stdout)}


def keep_alive(server: Server, requests: int) -> dict[str, float]:
    return load(server, requests)


def varied(server: Server, requests: int) -> dict[str, float]:
    """No request repeats the headers of the one before it."""
    return load(server, requests, "-v")


def browser(server: Server, requests: int) -> dict[str, float]:
    """What a browser sends: fourteen headers, another cookie each time."""
    return load(server, requests, "-b")


def echo(server: Server, requests: int) -> dict[str, float]:
    """A body of 10 kB, which comes back."""
    return load(server, requests, "-d", "10000", "-p", "/echo")


def websocket(server: Server, requests: int) -> dict[str, float]:
    """Messages of 100 bytes over WebSockets, which come back."""
    return load(server, requests, "-w", "100")


LOADS = {"keep_alive": keep_alive, "varied": varied, "browser": browser, "new": ab}
LOADS |= {"echo": echo, "websocket": websocket}

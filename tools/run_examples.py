# SPDX-License-Identifier: Apache-2.0
"""Serves the Flask and the Django program in each carrier, beside services that it starts itself.

Called by `make examples` with the virtual environment's ``pelton`` first in PATH. A PostgreSQL, a
Redis (or Valkey) and the slow price service run in folders of their own while it lasts. Ends with
1, and says why, when an answer was wrong, a request failed, a server didn't stop as it should, or
a carrier that can wait took longer than half of what its requests would one after the other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "drivers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "serve"))

import psycopg2
import redis
import services
from harness import free_port, wait_until

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# Options, clients at once, requests.
CARRIERS = {
    "inline": ("--threads 1", 8, 24),
    "threads": ("--threads 64", 50, 500),
    "fibers": ("--async 1000", 50, 500),
}
PROGRAMS = ("flask", "django")
ITEMS = 64
WAIT_S = 0.11  # the price service's delay and PostgreSQL's
TIMEOUT_S = 60


@dataclass
class Result:
    """What one program showed in one carrier."""

    program: str
    carrier: str
    clients: int
    requests: int
    took_s: float = 0.0
    longest_s: float = 0.0
    problems: list[str] = field(default_factory=list)


@contextmanager
def prices() -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(EXAMPLES / "prices.py"), str(port)])
    try:
        wait_until(lambda: fetch(f"http://127.0.0.1:{port}/1"), TIMEOUT_S, "no price service")
        yield port
    finally:
        process.terminate()
        process.wait()


def fetch(url: str) -> dict[str, object] | None:
    """The answer as JSON; None when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return json.load(answer)
    except OSError:
        return None


def fill(dsn: str) -> None:
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE shop_item (id int PRIMARY KEY, name text NOT NULL)")
        cursor.execute(
            "INSERT INTO shop_item SELECT n, 'item ' || n FROM generate_series(0, %s) AS n",
            (ITEMS - 1,),
        )
    connection.close()


def environment(dsn: str, redis_port: int, prices_port: int) -> dict[str, str]:
    port = dsn.split("port=")[1].split(maxsplit=1)[0]
    return {
        **os.environ,
        "NO_PROXY": "*",
        "PRICES_URL": f"http://127.0.0.1:{prices_port}",
        "DATABASE_URL": f"postgresql+psycopg2://tester@127.0.0.1:{port}/postgres",
        "DATABASE_HOST": "127.0.0.1",
        "DATABASE_PORT": port,
        "DATABASE_USER": "tester",
        "DATABASE_NAME": "postgres",
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
    }


def drive(result: Result, url: str) -> None:
    """All requests, so many at once; every answer is looked at."""
    visits: list[object] = []
    lock = threading.Lock()

    def ask(number: int) -> None:
        began = time.monotonic()
        item = number % ITEMS
        answer = fetch(f"{url}/item/{item}")
        took_s = time.monotonic() - began
        wanted = {"number": item, "name": f"item {item}", "price": item * 100 + 99}
        with lock:
            result.longest_s = max(result.longest_s, took_s)
            if not answer or {**answer, **wanted} != answer:
                result.problems.append(f"/item/{item}: {answer}")
            else:
                visits.append(answer["visit"])

    began = time.monotonic()
    with ThreadPoolExecutor(result.clients) as pool:
        list(pool.map(ask, range(result.requests)))
    result.took_s = time.monotonic() - began
    if len(set(visits)) != result.requests:
        result.problems.append(f"{len(set(visits))} visits counted, not {result.requests}")
    one_by_one_s = result.requests * WAIT_S
    if result.carrier != "inline" and result.took_s > one_by_one_s / 2:
        result.problems.append(f"{result.took_s:.1f} s: the requests waited for each other")


def run(program: str, carrier: str, env: dict[str, str]) -> Result:
    options, clients, requests = CARRIERS[carrier]
    result = Result(program, carrier, clients, requests)
    port = free_port()
    command = f"pelton --http-socket 127.0.0.1:{port} {options} --disable-logging webapp.py"
    print(f"== {program}, {carrier}\n   {command}", flush=True)
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            command.split(),
            cwd=EXAMPLES / program,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: server.poll() is not None or fetch(f"{url}/item/0"), TIMEOUT_S)
            if server.poll() is None:
                drive(result, url)
                server.send_signal(signal.SIGTERM)
            if server.wait(TIMEOUT_S) != 0:
                result.problems.append(f"the server ended with {server.returncode}")
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            result.problems.append(str(error))
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
        if result.problems:
            output.seek(0)
            print(output.read().decode(errors="replace"), file=sys.stderr)
    return result


def table(results: list[Result]) -> None:
    print(f"\n{'program':10}{'carrier':10}{'at once':>8}{'requests':>10}", end="")
    print(f"{'seconds':>9}{'requests/s':>12}{'longest':>10}")
    for r in results:
        rate = r.requests / r.took_s if r.took_s else 0.0
        print(
            f"{r.program:10}{r.carrier:10}{r.clients:8}{r.requests:10}{r.took_s:9.1f}{rate:12.0f}"
            f"{r.longest_s:8.2f} s"
        )
    print(f"Each request waits for {WAIT_S} s: one by one would be {1 / WAIT_S:.0f} a second.")


def main() -> int:
    with services.postgres() as dsn, services.redis_server() as redis_port, prices() as price_port:
        fill(dsn)
        redis.Redis(port=redis_port).flushall()
        env = environment(dsn, redis_port, price_port)
        results = [run(program, carrier, env) for program in PROGRAMS for carrier in CARRIERS]
    table(results)
    problems = [f"{r.program}, {r.carrier}: {text}" for r in results for text in r.problems[:5]]
    for text in problems:
        print(f"error: {text}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

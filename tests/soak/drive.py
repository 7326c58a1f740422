# SPDX-License-Identifier: Apache-2.0
"""The soak (`make soak`): all kinds of waits at once, for minutes, with cuts and restarts.

Clients ask for every kind of wait of webapp.py; CUT_SHARE of their connections are cut at a random
moment, and the services that the application talks to are restarted under it. What is held against
a carrier: each whole request has its own answer, or a 503 while its service was away; nothing in
the log, no descriptor and no process is left over (the harness of tests/serve looks); and the
server's memory does not grow after the first minute.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.util
import json
import os
import random
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import services

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "serve"))
from harness import SLOW, Server, free_port  # noqa: E402

CARRIERS = {"threads": ("--threads", "64"), "fibers": ("--async", "64")}
# free_port's last range: a test beside this would take a service's port while that is away.
os.environ.setdefault("PYTEST_XDIST_WORKER", "gw9")
# Which service a way needs; the others have none to blame.
NEEDS = {"socket": "plain", "asyncio": "plain", "ssl": "tls", "redis": "redis"}
NEEDS |= {"postgres": "postgres"}
WAYS = ("sleep", "socket", "ssl", "lock", "queue", "subprocess", "asyncio", "flock")
CUT_SHARE = 0.03
CLIENTS = 32
WARM_S = 60.0
# The line through the samples may rise by so much from the first minute's end to the soak's end.
GROWTH_MAX_KB, GROWTH_MAX_SHARE = 2048, 0.03


class World:
    """The services of one soak, and what the clients have seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pem = services.certificate(folder)
        ports = {name: free_port() for name in ("plain", "tls", "redis", "postgres")}
        self.addresses: dict[str, object] = {"certificate": str(pem)}
        self.services = {
            "plain": services.echo("plain", folder, ports["plain"]),
            "tls": services.echo("tls", folder, ports["tls"], pem),
        }
        self.addresses |= {"plain": ports["plain"], "tls": ports["tls"]}
        # The application runs in this program's virtual environment.
        drivers = importlib.util.find_spec("redis") and importlib.util.find_spec("psycopg2")
        if drivers and (service := services.redis_server(folder, ports["redis"])):
            self.services["redis"] = service
            self.addresses["redis"] = ports["redis"]
        if drivers and (made := services.postgres(folder, ports["postgres"])):
            self.services["postgres"], self.addresses["postgres"] = made
        self.ways = [*WAYS, *(name for name in ("redis", "postgres") if name in self.services)]
        self.nothing_seen()

    def nothing_seen(self) -> None:
        self.seen: Counter[str] = Counter()
        self.problems: list[str] = []
        self.over = threading.Event()

    def start(self) -> None:
        for service in self.services.values():
            service.start()

    def stop(self) -> None:
        for service in self.services.values():
            if service.ready():
                service.stop()

    def trouble(self, text: str) -> None:
        if len(self.problems) < 50:
            self.problems.append(text[:500])

    def restarts(self, rnd: random.Random, end: float) -> None:
        """One service after the other goes away for a moment.

        In the main thread: what a thread has started goes with it (services.py's pdeathsig).
        """
        while time.monotonic() < end and not self.over.is_set():
            self.over.wait(min(5.0, end - time.monotonic()))
            service = rnd.choice(list(self.services.values()))
            service.restart(rnd.random())
            self.seen["restarts of " + service.name] += 1

    def watch(self, server: Server, begin: float, samples: list[tuple[float, int]]) -> None:
        """A sample of the server's memory each second; ends the soak when it is no more.

        Without what malloc keeps of what was freed: its holes grow for long, and are no leak.
        """
        while not self.over.wait(1.0):
            if server.process.poll() is None:
                with contextlib.suppress(OSError, AssertionError):
                    free = int(server.get("/free_kb?id=1", timeout_s=60 * SLOW).body)
                    samples.append((time.monotonic() - begin, rss_kb(server.pid) - free))
            else:
                self.trouble(f"the server ended with {server.process.returncode}")
                self.over.set()


class Client:
    """One connection at a time; the same for the same seed."""

    cut_share = CUT_SHARE

    def __init__(self, world: World, server: Server, seed: int) -> None:
        self.world, self.server, self.seed = world, server, seed
        self.random = random.Random(seed)
        self.count = 0
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while not self.world.over.is_set():
            self.count += 1
            way, me = self.random.choice(self.world.ways), f"{self.seed}-{self.count}"
            begin = time.monotonic()
            try:
                if self.random.random() < self.cut_share:
                    self.cut(way, me)
                    self.world.seen["cut"] += 1
                    continue
                self.turn(way, me, begin)
            except Exception as error:
                if isinstance(error, TimeoutError):
                    self.where(f"{way}-{me}")
                self.world.trouble(f"{way} {me}: {error!r} after {time.monotonic() - begin:.1f} s")
                self.connection = None
            time.sleep(self.random.random() * 0.1)
        if self.connection:
            self.connection.close()

    def turn(self, way: str, me: str, begin: float) -> None:
        """One request and its answer."""
        connection = self.open()
        connection.request("GET", f"/{way}?id={me}")
        response = connection.getresponse()
        self.judge(way, me, response.status, response.read().decode(), begin)

    def open(self) -> http.client.HTTPConnection:
        """The connection that is there, most of the time."""
        if self.connection is None or self.random.random() < 0.1:
            if self.connection:
                self.connection.close()
            self.connection = http.client.HTTPConnection(*self.server.address, timeout=60 * SLOW)
        return self.connection

    def where(self, name: str) -> None:
        """An answer has not come: the stacks of all requests, beside the server's log."""
        with contextlib.suppress(OSError):
            stacks = self.server.get("/where?id=1", timeout_s=60).body
            (self.server.folder / f"where-{name}.txt").write_bytes(stacks)

    def judge(self, way: str, me: str, status: int, body: str, begin: float) -> None:
        if status == 200 and body == me:
            self.world.seen[way] += 1
            return
        service = self.world.services.get(NEEDS.get(way, ""))
        if status == 503 and service and service.excuses(begin, time.monotonic()):
            self.world.seen["service away"] += 1
            return
        self.world.trouble(f"{way} {me}: {status} {body}")

    def cut(self, way: str, me: str) -> None:
        """A request of which the client leaves: in its head, while it waits, or at its answer."""
        data = f"GET /{way}?id={me} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        with socket.create_connection(self.server.address, 60 * SLOW) as sock:
            sock.sendall(data[: self.random.choice((5, len(data), len(data)))])
            time.sleep(self.random.random() * 0.03)
            if self.random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def rss_kb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def slope(samples: list[tuple[float, int]]) -> float:
    """Of the straight line through them by least squares, in kB a second."""
    n = len(samples)
    at, kb = sum(t for t, _ in samples) / n, sum(y for _, y in samples) / n
    square = sum((t - at) ** 2 for t, _ in samples)
    return sum((t - at) * (y - kb) for t, y in samples) / square if square else 0.0


def judge_memory(samples: list[tuple[float, int]]) -> str | None:
    """Says what memory did; returns what is wrong with it."""
    late = [(t, y) for t, y in samples if t >= WARM_S]
    if len(late) < 30:
        say("  memory: too short a soak to tell")
        return None
    rise = slope(late)
    grown = rise * (late[-1][0] - late[0][0])
    say(
        f"  memory: {late[0][1]} kB after {WARM_S:.0f} s, {late[-1][1]} kB at the end,"
        f" {rise * 60:+.0f} kB a minute, most {max(y for _, y in samples)} kB"
    )
    limit = max(GROWTH_MAX_KB, GROWTH_MAX_SHARE * late[0][1])
    # AddressSanitizer keeps what is freed: its memory says nothing.
    if grown > limit and SLOW == 1:
        return f"memory grew by {grown:.0f} kB after the first minute (at most {limit:.0f})"
    return None


def settled(server: Server) -> str | None:
    return None if server.get("/settle?id=1").body == b"settled" else "/settle did not answer"


@dataclass
class Soak:
    """What is soaked: an application in its carriers, by clients in a world."""

    carriers: dict[str, tuple[str, ...]]
    app: tuple[str, ...]
    world: type[World]
    client: type[Client]
    settled: Callable[[Server], str | None]  # what is wrong when all clients have gone

    def run(self, folder: Path, carrier: str, seconds: float, seed: int) -> list[str]:
        """One carrier's soak; returns what was wrong."""
        folder.mkdir(parents=True)
        # A database's own user must come in, which it may not everywhere.
        place = Path(tempfile.mkdtemp(prefix="pelton-soak-"))
        place.chmod(0o755)
        world = self.world(place)
        server = Server(
            folder,
            [*self.carriers[carrier], "--disable-logging", *self.app],
            # In one arena: with one for every few threads, malloc's fragments grow for minutes.
            env={"SOAK_SERVICES": json.dumps(world.addresses), "MALLOC_ARENA_MAX": "1"},
            fibers=carrier == "fibers",
        )
        problems: list[str] = []
        try:
            world.start()
            server.start()
            problems += self.drive(world, server, seconds, seed)
        finally:
            world.over.set()
            problems += server.finish()
            world.stop()
            shutil.rmtree(place, ignore_errors=True)
        return problems

    def drive(self, world: World, server: Server, seconds: float, seed: int) -> list[str]:
        clients = [self.client(world, server, seed * 1000 + n) for n in range(CLIENTS)]
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
        begin: float = time.monotonic()
        samples: list[tuple[float, int]] = []
        watch = threading.Thread(target=world.watch, args=(server, begin, samples), daemon=True)
        for thread in [*threads, watch]:
            thread.start()
        world.restarts(random.Random(seed), begin + seconds)
        world.over.set()
        for thread in [*threads, watch]:
            thread.join(120 * SLOW)
        hanging = sum(thread.is_alive() for thread in threads)
        say("  " + ", ".join(f"{count} {name}" for name, count in sorted(world.seen.items())))
        problems = list(world.problems)
        problems += [f"{hanging} clients had no answer at the end"] if hanging else []
        problems += [f"{way} was never right" for way in world.ways if not world.seen[way]]
        left = self.settled(server) if server.process.poll() is None else None
        return problems + [text for text in (left, judge_memory(samples)) if text]


def say(text: str) -> None:
    print(text, flush=True)


def main(kind: Soak) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="for logs; must not exist")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--carriers", default=" ".join(kind.carriers))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    status = 0
    for carrier in args.carriers.split():
        say(f"soak: {carrier}, {args.seconds:.0f} s, seed {args.seed}")
        problems = kind.run(args.folder.resolve() / carrier, carrier, args.seconds, args.seed)
        for problem in problems:
            say("  WRONG: " + problem)
        status = status or (1 if problems else 0)
    say("the soak " + ("found something" if status else "found nothing"))
    return status


if __name__ == "__main__":
    app = ("--wsgi-file", str(HERE / "webapp.py"))
    sys.exit(main(Soak(CARRIERS, app, World, Client, settled)))

# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the driver matrix: the real servers, and what every cell does.

A cell sends N requests at once; each waits in the driver for something that only the test can give.
The test looks at the driver's server until N of them are in flight there, then gives it, and every
answer must be right. A carrier that let one request after the other wait would never show N.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))

import services
from fixtures import serve
from harness import SLOW, Server, become_subreaper, wait_until

__all__ = ["serve"]

CARRIERS = {"threads": ("--threads", "24"), "fibers": ("--async", "24")}

# /NAME?NUMBER calls NAME(NUMBER); what it returns is the answer.
HEAD = """
import contextlib, json, os, sys, threading, time

guard, kept = threading.Lock(), {}

def once(name, make):
    # For all requests: who comes first makes it, and the others wait.
    with guard:
        if name not in kept:
            kept[name] = make()
        return kept[name]

def application(environ, start_response):
    name, query = environ["PATH_INFO"][1:], environ["QUERY_STRING"]
    answer = json.dumps(globals()[name](int(query or 0))).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]

def ping(_):
    return "pong"
"""


class Matrix:
    """One cell: a server, and requests to it that meet at the driver's server."""

    def __init__(self, server: Server, carrier: str) -> None:
        self.server = server
        self.carrier = carrier

    def ask(self, target: str) -> object:
        response = self.server.get(target, timeout_s=60)
        body = response.body.decode()
        assert response.status == 200, f"{target}: {response.status} {body}\n{self.server.log}"
        return json.loads(body)

    def meet(
        self,
        name: str,
        count: int,
        in_flight: Callable[[], int],
        give: Callable[[], object],
        *,
        at_server: int | None = None,
    ) -> list[object]:
        """The answers, by number, to COUNT requests that were in flight together.

        ``at_server``: how many of them the driver's server sees at most, when a lock or a pool of
        the driver keeps the others; the application must answer beside those that wait.
        """
        expected = count if at_server is None else at_server
        with ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(self.ask, f"/{name}?{n}") for n in range(count)]
            met = False
            try:
                # Whoever has its answer already has failed: its own words say more.
                wait_until(
                    lambda: in_flight() == expected or any(each.done() for each in asked),
                    30 * SLOW,
                    f"{name}: not {expected} in flight",
                )
                met = in_flight() == expected
                if met:
                    assert self.ask("/ping") == "pong"
                    met = in_flight() == expected
            finally:
                give()
            answers = [each.result() for each in asked]
            assert met, f"{name}: {expected} were to be in flight, and were not"
            return answers


def pytest_configure(config: pytest.Config) -> None:
    become_subreaper()


@pytest.fixture(params=list(CARRIERS))
def matrix(request: pytest.FixtureRequest, serve: Callable[..., Server]) -> Callable[..., Matrix]:
    """``matrix(app, env)`` serves the application in each carrier."""

    def start(app: str, env: dict[str, str], **more: object) -> Matrix:
        server = serve(*CARRIERS[request.param], app=HEAD + app, env=env, **more)
        return Matrix(server, request.param)

    return start


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with services.postgres() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def mariadb() -> Iterator[dict[str, object]]:
    with services.mariadb() as to:
        yield to


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    with services.redis_server() as port:
        yield port

# SPDX-License-Identifier: Apache-2.0
"""What is said about requests that hold the loop, and about the carrier that serves."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SLOW, Server, build, wait_until

Serve = Callable[..., Server]

APP = """
import time
import pelton

def holds(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: sum(range(100))

def also_holds(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: sum(range(100))

def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/holds":
        holds(float(query))
    elif path == "/both":
        holds(float(query))
        also_holds(float(query))
    elif path == "/steps":
        for _ in range(int(query)):
            holds(0.01)
            time.sleep(0.001)
    elif path == "/waits":
        time.sleep(float(query))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [pelton.explain().encode()]
"""

REPORT = r"core \d+ has kept the loop waiting for (\d+) ms(?: \([^\n]*\))?; it is in"


def reports(server: Server) -> list[str]:
    """The functions that the reports found, innermost ones."""
    stacks = re.findall(REPORT + r"\n(?:[^ \n].*\n)?  File .* in (\w+)", server.log)
    return [name for _, name in stacks if name != "sum"]


def test_a_fiber_that_holds_the_loop_is_reported(serve: Serve) -> None:
    server = serve("--async", "4", "--log-blocking", "50", app=APP)
    server.expect_log(REPORT)
    assert server.get("/holds?0.4", timeout_s=20).status == 200
    assert reports(server) == ["holds"]
    assert "in application" in server.log
    assert int(re.search(REPORT, server.log)[1]) >= 50


def test_the_default_is_a_tenth_of_a_second(serve: Serve) -> None:
    server = serve("--async", "4", app=APP, fibers=False)
    server.expect_log(REPORT)
    assert server.get("/holds?0.5", timeout_s=20).status == 200
    assert reports(server) == ["holds"]
    assert int(re.search(REPORT, server.log)[1]) >= 100


def test_a_place_is_reported_once_a_second(serve: Serve) -> None:
    server = serve("--async", "4", "--log-blocking", "20", app=APP)
    server.expect_log(REPORT)
    began = time.monotonic()
    for _ in range(8):
        assert server.get("/holds?0.08", timeout_s=20).status == 200
    took_s = time.monotonic() - began
    assert 1 <= len(reports(server)) <= 1 + took_s
    wait_until(lambda: time.monotonic() > began + took_s + 1.1, 5)
    before = len(reports(server))
    assert server.get("/holds?0.2", timeout_s=20).status == 200
    assert len(reports(server)) == before + 1


def test_each_place_is_reported(serve: Serve) -> None:
    """Also when they follow each other in one stay, a second later."""
    server = serve("--async", "4", "--log-blocking", "50", app=APP)
    server.expect_log(REPORT)
    assert server.get("/both?1.2", timeout_s=20 * SLOW).status == 200
    assert set(reports(server)) == {"holds", "also_holds"}


DEEP = """
import time

def deep(n):
    return deep(n - 1) + 1 if n else 0

def application(environ, start_response):
    end = time.monotonic() + 0.004
    while time.monotonic() < end:
        # So deep that CPython maps memory for the frames, and unmaps it at once.
        deep(300)
        deep(5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_reports_while_frames_come_and_go(serve: Serve) -> None:
    """The frames that a report names were unmapped by the fiber that went on: a crash."""
    server = serve("--async", "4", "--log-blocking", "1", app=DEEP)
    server.expect_log(REPORT)
    with contextlib.closing(server.connect(60)) as sock:
        for _ in range(500):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_fiber_that_waits_is_not_reported(serve: Serve) -> None:
    server = serve("--async", "4", "--log-blocking", "50", app=APP)
    assert server.get("/waits?0.3", timeout_s=20).status == 200
    assert not re.search(REPORT, server.log)


@pytest.mark.parametrize("target", ["/holds?0.01", "/steps?300"])
def test_short_stays_are_not_added_up(serve: Serve, target: str) -> None:
    """Three seconds of 10 ms each: in many requests, and in one that waits in between."""
    server = serve("--async", "4", "--log-blocking", "500", app=APP)
    count = 1 if target.startswith("/steps") else 300
    request = f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    with (
        contextlib.closing(server.connect(60)) as one,
        contextlib.closing(server.connect(60)) as two,
    ):
        began = time.monotonic()
        for _ in range(count):
            for sock in (one, two):  # the loop has the next one when the first one is over
                sock.sendall(request)
            for sock in (one, two):
                assert sock.recv(10_000).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began >= 3
    assert not re.search(REPORT, server.log)


def test_inline_reports_when_it_is_told_to(serve: Serve) -> None:
    server = serve("--threads", "1", "--log-blocking", "50", app=APP)
    server.expect_log(REPORT)
    assert server.get("/holds?0.4", timeout_s=20).status == 200
    assert reports(server) == ["holds"]
    quiet = serve("--threads", "1", app=APP)
    assert quiet.get("/holds?0.4", timeout_s=20).status == 200
    assert reports(quiet) == []


HOLDS = """
#include <poll.h>
int hold(int ms) { int n = poll(0, 0, ms); return n + 1; }
"""

HOLDING = """
import ctypes
library = ctypes.PyDLL("./holds.so")  # keeps the GIL

def application(environ, start_response):
    held = library.hold(int(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % held]
"""


@pytest.mark.parametrize(
    "carrier", [("--async", "4"), ("--threads", "1")], ids=["fibers", "inline"]
)
def test_the_library_that_blocks_is_named(
    serve: Serve, tmp_path: Path, carrier: tuple[str, ...]
) -> None:
    """What no carrier can set aside: a call that waits with the GIL held."""
    files = {"holds.so": build(tmp_path, "holds", HOLDS)}
    server = serve(*carrier, "--log-blocking", "50", app=HOLDING, files=files)
    server.expect_log(REPORT)
    assert server.get("/?400", timeout_s=20).body == b"1"
    found = re.search(REPORT, server.log)
    assert found
    assert "ms (in poll() of holds.so); it is in\n" in found[0] + "\n", server.log
    assert "in application" in server.log


def test_computing_is_called_so(serve: Serve) -> None:
    server = serve("--async", "4", "--log-blocking", "50", app=APP)
    server.expect_log(REPORT)
    assert server.get("/holds?0.4", timeout_s=20).status == 200
    assert "(computing); it is in" in server.log


def test_a_thread_that_computes_is_a_matter_of_debugging(serve: Serve) -> None:
    """The loop goes on without it."""
    server = serve("--threads", "4", "--log-level", "debug", app=APP)
    first = server.connect()
    first.sendall(b"GET /holds?0.5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    while not re.search(r"computes; core \d+ has taken the loop over", server.log):
        assert server.get("/", timeout_s=20).status == 200
        first.settimeout(0.01)
        try:
            assert first.recv(1) == b"", "it was over before anybody took over"
        except TimeoutError:
            continue
    assert not re.search(REPORT, server.log)


@pytest.mark.parametrize(
    ("options", "regexes"),
    [
        (("--threads", "1"), ["one request at a time", "waits or computes delays all others"]),
        (("--threads", "4"), ["up to 4 requests at once, in threads", "shares Python with them"]),
        (("--async", "8"), ["up to 8 requests at once, in fibers", "when that takes 100 ms"]),
        (("--async", "8", "--log-blocking", "0"), ["one that computes delays them$"]),
        (("--async", "8", "--no-redirect"), ["in a call of the module uwsgi"]),
    ],
    ids=["inline", "threads", "fibers", "no report", "no redirect"],
)
def test_the_carrier_is_explained(
    serve: Serve, options: tuple[str, ...], regexes: list[str]
) -> None:
    server = serve(*options, app=APP, fibers=False)
    for regex in regexes:
        assert re.search(regex, server.log, re.MULTILINE), regex
        text = server.get().body.decode()
        assert re.search(regex.replace("$", r"\."), text), text


def test_pelton_app_takes_threads(serve: Serve) -> None:
    """uWSGI's options, which the harness uses, mean uWSGI's carrier."""
    server = serve("webapp.py", app=APP)
    assert "up to 64 requests at once, in threads" in server.get().body.decode()
    blocking = serve("--wsgi-file", "webapp.py", app=APP)
    assert "one request at a time" in blocking.get().body.decode()


def test_outside_of_the_server_there_is_nothing_to_explain(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import pelton; print(pelton.explain())"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=Server(tmp_path, listen=False).environment(),
    )
    assert done.stdout == "This process is no server of Pelton's.\n"

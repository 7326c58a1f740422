# SPDX-License-Identifier: Apache-2.0
"""WSGI and asyncio together: ``pelton.await_``, and ``async def`` views in every carrier."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness import SLOW, Server, wait_until

Serve = Callable[..., Server]

APP = """
import asyncio, contextvars, threading

import pelton

variable = contextvars.ContextVar("variable", default="none")
gate = asyncio.Event()
cleaned = []

async def home():
    await asyncio.sleep(0.01)
    return f"{type(asyncio.get_running_loop()).__name__} {variable.get()}"

async def opens():
    gate.set()
    return "opened"

async def waits():
    await gate.wait()
    return "waited"

async def fails():
    await asyncio.sleep(0)
    raise LookupError("on purpose")

async def nested():
    try:
        pelton.await_(home())
    except RuntimeError as exc:
        return str(exc)

class Awaitable:
    def __await__(self):
        return (yield from home().__await__())

def application(environ, start_response):
    variable.set(environ["QUERY_STRING"])
    name = environ["PATH_INFO"][1:]
    try:
        if name == "other":
            answer = pelton.await_(Awaitable())
        elif name == "wrong":
            answer = pelton.await_(5)
        else:
            answer = pelton.await_(globals()[name]())
    except (LookupError, TypeError) as exc:
        answer = repr(exc)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]
"""

CARRIERS = {
    "inline": ("--threads", 1),
    "threads": ("--threads", 4),
    "fibers": ("--async", 8),
    "asyncio": ("--asyncio", 8),
}


def text(server: Server, target: str) -> str:
    return server.get(target).body.decode()


@pytest.mark.parametrize("carrier", CARRIERS)
def test_await(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], app=APP)
    loop = "HomeLoop" if carrier == "asyncio" else "Loop"
    for _ in range(3):
        assert text(server, "/home?x=1") == f"{loop} x=1"
    assert text(server, "/other?y") == f"{loop} y"
    assert text(server, "/fails") == "LookupError('on purpose')"
    assert "use await" in text(server, "/nested")
    assert "TypeError" in text(server, "/wrong")


def test_other_requests_go_on(serve: Serve) -> None:
    server = serve("--asyncio", 8, app=APP)
    got = []
    waiting = [
        threading.Thread(target=lambda: got.append(text(server, "/waits"))) for _ in range(5)
    ]
    for thread in waiting:
        thread.start()
    assert text(server, "/home?z") == "HomeLoop z"
    assert not got
    assert text(server, "/opens") == "opened"
    for thread in waiting:
        thread.join(SLOW)
    assert got == ["waited"] * 5


def program(folder: Path, source: str) -> str:
    """What a program says that runs without a server."""
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore::RuntimeWarning", "-c", source],
        env=Server(folder, listen=False).environment(),
        capture_output=True,
        text=True,
        timeout=60 * SLOW,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SPAWN = """
import asyncio, contextvars, threading, time

import pelton

variable = contextvars.ContextVar("variable", default="none")

def work(a, b=0):
    time.sleep(0.01)
    return f"{a + b} {variable.get()}"

def fails():
    raise LookupError("on purpose")

def spawned():
    futures = [pelton.spawn(work, i, b=1) for i in range(3)]
    return ", ".join(f.result(30) for f in futures)

def spawn_fails():
    return repr(pelton.spawn(fails).exception(30))

def nested():
    return pelton.spawn(lambda: pelton.spawn(work, 1).result(30)).result(30)

ran = []

def current():
    return pelton.spawn(lambda: type(asyncio.get_event_loop()).__name__).result(30)

def crowded():
    gate = threading.Event()
    first = pelton.spawn(gate.wait)
    answer = repr(pelton.spawn(ran.append, "dropped").exception(30))
    gate.set()
    return f"{first.result(30)} {answer} {ran}"

def later():
    kept, dropped = (pelton.spawn(ran.append, name) for name in ("kept", "dropped"))
    return f"{dropped.cancel()} {not kept.done()}"

def what_ran():
    return " ".join(ran)

async def core():
    tick = asyncio.create_task(asyncio.sleep(0))
    got = await asyncio.gather(*(pelton.to_core(work, i) for i in range(3)))
    return ", ".join(got) + f" {tick.done()}"

async def core_fails():
    try:
        await pelton.to_core(fails)
    except LookupError as exc:
        return repr(exc)

def application(environ, start_response):
    variable.set("mine")
    function = globals()[environ["PATH_INFO"][1:]]
    answer = pelton.await_(function()) if asyncio.iscoroutinefunction(function) else function()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


@pytest.mark.parametrize("carrier", [("--threads", 2), ("--async", 2)])
def test_spawn_in_a_crowd(serve: Serve, carrier: tuple[str, int]) -> None:
    server = serve(*carrier, "--queue-timeout", "0.3", app=SPAWN)
    assert text(server, "/crowded") == "True RuntimeError('no core was free for it in time') []"


@pytest.mark.parametrize("carrier", ["threads", "fibers", "asyncio"])
def test_spawn(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], app=SPAWN)
    for _ in range(3):
        assert text(server, "/spawned") == "1 mine, 2 mine, 3 mine"
        assert text(server, "/nested") == "1 mine"
        assert text(server, "/core") == "0 mine, 1 mine, 2 mine True"
    assert text(server, "/spawn_fails") == "LookupError('on purpose')"
    assert text(server, "/core_fails") == "LookupError('on purpose')"


def test_what_is_spawned_has_the_servers_loop(serve: Serve) -> None:
    server = serve("--asyncio", 8, app=SPAWN)
    for _ in range(3):
        assert text(server, "/current") == "HomeLoop"


def test_spawn_with_a_single_core(serve: Serve) -> None:
    server = serve(*CARRIERS["inline"], app=SPAWN)
    assert text(server, "/core") == "0 mine, 1 mine, 2 mine True"
    assert text(server, "/later") == "True True"
    wait_until(lambda: text(server, "/what_ran") == "kept", 5 * SLOW, "it was not called")


AT_THE_END = """
import asyncio, sys
import pelton

kept = []

async def task():
    try:
        await asyncio.Event().wait()
    finally:
        try:
            await pelton.to_core(print)
        except RuntimeError as exc:
            print("refused:", exc, file=sys.stderr, flush=True)

async def start():
    kept.append(asyncio.create_task(task()))
    await asyncio.sleep(0)

def application(environ, start_response):
    pelton.await_(start())
    start_response("200 OK", [])
    return [b"ok"]
"""


def test_what_is_spawned_at_the_end_is_refused(serve: Serve) -> None:
    server = serve("--asyncio", 4, app=AT_THE_END)
    assert text(server, "/") == "ok"
    server.stop()
    assert "refused: no core was free" in server.log


CUT = """
import sys, time
import pelton

def waits():
    print("waits", file=sys.stderr, flush=True)
    time.sleep(60)

def over(future):
    print("it raised", type(future.exception()).__name__, file=sys.stderr, flush=True)

def application(environ, start_response):
    pelton.spawn(waits).add_done_callback(over)
    start_response("200 OK", [])
    return [b"ok"]
"""


@pytest.mark.parametrize("carrier", ["threads", "fibers", "asyncio"])
def test_what_is_spawned_is_cut_after_the_grace(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], "--shutdown-timeout", "0.3", app=CUT)
    server.expect_log("1 request is cut before the end")
    assert text(server, "/") == "ok"
    server.wait_log("waits")
    server.stop()
    assert "it raised RequestCut" in server.log


FLASK = """
import asyncio

from flask import Flask

app = application = Flask(__name__)

@app.get("/")
async def hello():
    await asyncio.sleep(0.01)
    return "async view"
"""

DJANGO = """
import asyncio

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(DEBUG=False, SECRET_KEY="only a test's", ALLOWED_HOSTS=["*"],
                   ROOT_URLCONF=__name__)

async def hello(request):
    await asyncio.sleep(0.01)
    return HttpResponse("async view")

urlpatterns = [path("", hello)]
application = get_wsgi_application()
"""


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("framework", ["flask", "django"])
def test_async_views(serve: Serve, framework: str, carrier: str) -> None:
    pytest.importorskip("asgiref")
    app = {"flask": FLASK, "django": DJANGO}[framework]
    server = serve(*CARRIERS[carrier], app=app)
    got: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=SLOW, trust_env=False) as client:
            got.extend(client.get("/").text for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["async view"] * 9


INTERRUPTED = """
import asyncio, signal, threading, time
import pelton
from pelton import _home

class Alarm(Exception):
    pass

def ring(number, frame):
    raise Alarm

async def waits():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.set()
        raise

cancelled = threading.Event()
loop = pelton.Loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
_home._running = loop
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    pelton.await_(waits())
except Alarm:
    print("interrupted", cancelled.wait(30))
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
"""


def test_an_interrupted_wait_cancels_its_task(tmp_path: Path) -> None:
    assert program(tmp_path, INTERRUPTED) == "interrupted True\n"


CUT_AWAIT = """
import asyncio, sys
import pelton

def say(*words):
    print(*words, file=sys.stderr, flush=True)

async def waits():
    say("waits")
    try:
        await asyncio.Event().wait()
    finally:
        say("cleaned up")

def application(environ, start_response):
    try:
        pelton.await_(waits())
    except BaseException as exc:
        say("raised", type(exc).__name__)
        raise
"""


@pytest.mark.parametrize("carrier", ["threads", "fibers", "asyncio"])
def test_a_cut_wait_cancels_its_task(serve: Serve, carrier: str) -> None:
    server = serve(*CARRIERS[carrier], "--shutdown-timeout", "0.3", app=CUT_AWAIT)
    server.expect_log("1 request is cut before the end")
    sock = server.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    server.wait_log("^waits$")
    assert server.stop() == 0
    lines = server.log.splitlines()
    assert "raised RequestCut" in lines
    assert "cleaned up" in lines
    with sock:
        assert sock.recv(100).startswith(b"HTTP/1.1 503 ")


PROGRAM = """
import asyncio
import pelton

async def main():
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()) is pelton.Loop

assert pelton.run(main())
assert pelton.await_(main())
assert not asyncio.run(main())
pelton.install()
assert asyncio.run(main())
loop = asyncio.new_event_loop()
assert type(loop) is pelton.Loop
loop.close()
async def twice():
    try:
        pelton.run(main())
    except RuntimeError as exc:
        return str(exc)
print(pelton.run(twice()))
"""


def test_without_a_server(tmp_path: Path) -> None:
    assert "cannot be called from a running event loop" in program(tmp_path, PROGRAM)

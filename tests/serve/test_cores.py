# SPDX-License-Identifier: Apache-2.0
"""What a core promises to the application, in every carrier: it looks like a thread.

Idents, locks, callbacks, asyncio, deep recursion: each request is answered as if it were alone in
its thread, however many of them wait at the same time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import SLOW, Response, Server, build, wait_until

Serve = Callable[..., Server]

# Calls the function that the path names; what it returns is the answer, as JSON.
HEAD = """
import asyncio, contextvars, decimal, json, os, re, sys, threading, time

def application(environ, start_response):
    name, query = environ["PATH_INFO"][1:], environ["QUERY_STRING"]
    answer = json.dumps(globals()[name](query) if name else "here").encode()
    start_response("200 OK", [("Content-Type", "application/json"),
                              ("Content-Length", str(len(answer)))])
    return [answer]
"""

MANY = {"inline": 3, "threads": 4, "fibers": 8}


def together(server: Server, targets: list[str], timeout_s: float = 20.0) -> list[object]:
    """The answers to requests that are all sent at once."""

    def ask(target: str) -> Response:
        return server.get(target, timeout_s=timeout_s)

    with ThreadPoolExecutor(len(targets)) as pool:
        responses = list(pool.map(ask, targets))
    assert [response.status for response in responses] == [200] * len(targets)
    return [json.loads(response.body) for response in responses]


# --- A callback after a wait ------------------------------------------------------------------

LIBRARY = """
#include <time.h>

/* What a C driver does: waits without the GIL, and calls back before it returns. */
int wait_then_call(int (*call)(int), int number, int ms)
{
    struct timespec span = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&span, 0);
    int first = call(number);
    nanosleep(&span, 0);
    return first + call(number);
}
"""

CALLBACK = """
import ctypes

library = ctypes.CDLL("./driver.so")
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
state = ctypes.pythonapi.PyThreadState_Get
state.restype = ctypes.c_void_p
local = threading.local()
variable = contextvars.ContextVar("variable")

def facts():
    return [threading.get_ident(), state(), local.number, variable.get(),
            threading.current_thread().name, decimal.getcontext().prec]

def callback(query):
    number = int(query)
    local.number = number
    variable.set(number)
    decimal.getcontext().prec = number + 1
    before = facts()
    seen = []

    @Callback
    def call(argument):
        seen.append(facts() == before)
        time.sleep(0.01)
        seen.append(facts() == before)
        return argument

    result = library.wait_then_call(call, number, 30)
    return [result == 2 * number, facts() == before, seen]
"""


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(tmp_path_factory.mktemp("driver"), "driver", LIBRARY)


def test_a_driver_that_waits_and_then_calls_back(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str, driver: bytes
) -> None:
    server = serve(*carrier, app=HEAD + CALLBACK, files={"driver.so": driver})
    for _ in range(3):
        answers = together(server, [f"/callback?{n}" for n in range(1, MANY[carrier_name] + 1)])
        assert answers == [[True, True, [True] * 4]] * MANY[carrier_name]


# --- asyncio in a request ---------------------------------------------------------------------

NESTED = """
async def part(number):
    await asyncio.sleep(0.02)
    return number

async def main(number):
    return sum(await asyncio.gather(*(part(number) for _ in range(5))))

def nested(query):
    number = int(query)
    return [asyncio.run(main(number)), asyncio.run(main(number + 1))]
"""


def test_asyncio_run(serve: Serve, carrier: tuple[str, ...], carrier_name: str) -> None:
    server = serve(*carrier, app=HEAD + NESTED)
    count = MANY[carrier_name]
    answers = together(server, [f"/nested?{n}" for n in range(count)])
    assert answers == [[5 * n, 5 * n + 5] for n in range(count)]


HOME = """
async def at_home(number):
    await asyncio.sleep(0.005)
    return [number, threading.get_ident(), asyncio.get_running_loop() is asyncio.get_event_loop()]

def scheduled(query):
    '''Nests a loop of its own in between, and schedules on the server's before and after.'''
    number = int(query)
    loop = asyncio.get_event_loop()
    done = threading.Event()
    ran = []

    def call(argument):
        ran.append([argument, threading.get_ident()])
        if len(ran) == 2:
            done.set()

    loop.call_later(0.02, call, number)
    nested_answer = asyncio.run(main(number))
    loop.call_soon_threadsafe(call, -number)
    task = asyncio.run_coroutine_threadsafe(at_home(number), loop).result(20)
    arrived = done.wait(20)
    idents = {ident for _, ident in ran} | {task[1]}
    return {
        "nested": nested_answer == 5 * number,
        "the server's own": type(loop).__module__.startswith("pelton"),
        "ran": arrived and sorted(argument for argument, _ in ran) == sorted([number, -number]),
        "task": task[0] == number and task[2],
        "in one thread": len(idents) == 1,
        "not in mine": threading.get_ident() not in idents,
    }
"""


def test_asyncio_run_between_calls_on_the_servers_loop(serve: Serve) -> None:
    server = serve("--asyncio", "8", app=HEAD + NESTED + HOME)
    for _ in range(3):
        for answer in together(server, [f"/scheduled?{n}" for n in range(1, 9)]):
            assert all(answer.values()), answer


# --- Locks over waits -------------------------------------------------------------------------

LOCKS = """
import queue

lock = threading.RLock()
inside = 0
most = 0
plain = threading.Lock()
condition = threading.Condition()
arrived = 0

def again(depth):
    with lock:
        if depth:
            return again(depth - 1)
        time.sleep(0.01)
        return lock._is_owned()

def held(query):
    global inside, most
    with lock:
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        owned = again(5)
        most = max(most, inside)
        inside -= 1
    return [most, owned, lock._is_owned()]

def foreign(query):
    if query == "hold":
        with plain, lock:
            time.sleep(0.3)
        return True
    while not plain.locked():
        time.sleep(0.005)
    try:
        lock.release()
    except RuntimeError:
        return not lock.acquire(blocking=False)
    return "released what another one holds"

def meet(query):
    global arrived
    with condition:
        arrived += 1
        condition.notify_all()
        return condition.wait_for(lambda: arrived >= int(query), 20)
"""


def test_an_rlock_over_a_wait_has_one_owner(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str
) -> None:
    server = serve(*carrier, app=HEAD + LOCKS)
    for _ in range(3):
        answers = together(server, ["/held"] * MANY[carrier_name])
        assert answers == [[1, True, False]] * MANY[carrier_name]


def test_nobody_releases_the_rlock_of_another(serve: Serve, carrier_name: str) -> None:
    if carrier_name == "inline":
        pytest.skip("there is no other request beside one that waits")
    options = {"threads": ("--threads", "4"), "fibers": ("--async", "8")}[carrier_name]
    server = serve(*options, app=HEAD + LOCKS)
    assert together(server, ["/foreign?hold", "/foreign", "/foreign"]) == [True] * 3


def test_requests_meet(serve: Serve, carrier: tuple[str, ...], carrier_name: str) -> None:
    count = 1 if carrier_name == "inline" else MANY[carrier_name]
    server = serve(*carrier, app=HEAD + LOCKS)
    assert together(server, [f"/meet?{count}"] * count) == [True] * count


# --- Recursion to the limit -------------------------------------------------------------------

RECURSION = """
class Attributes:
    def __getattr__(self, name):
        return getattr(self, name + "x")

class Less:
    def __lt__(self, other):
        return sorted([Less(), Less()]) and True

class Repr:
    def __repr__(self):
        return repr([self])

class Missing(dict):
    def __missing__(self, key):
        return self[key + 1]

def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value

def by_key(value):
    return sorted([2, 1], key=by_key)

def by_function(number):
    return by_function(number + 1) + 1

def substitute(match):
    return re.sub("a", substitute, "a")

def compile_deep():
    return eval("(" * 90 + "1" + ")" * 90)

WAYS = {
    "function": lambda: by_function(0),
    "sorted": lambda: by_key(0),
    "less": lambda: sorted([Less(), Less()]),
    "getattr": lambda: Attributes().name,
    "repr": lambda: repr(Repr()),
    "repr of lists": lambda: repr(nested(100_000)),
    "json": lambda: json.dumps(nested(100_000)),
    "json back": lambda: json.loads("[" * 100_000),
    "re": lambda: re.sub("a", substitute, "a"),
    "missing": lambda: Missing()[0],
    "comparison": lambda: nested(100_000) == nested(100_000),
}

def recurse(query):
    kinds = {}
    for name, way in WAYS.items():
        try:
            way()
            kinds[name] = "nothing"
        except BaseException as error:
            kinds[name] = type(error).__name__
        time.sleep(0.001)
    kinds["still"] = by_sum(100)
    return kinds

def by_sum(n):
    return n and n + by_sum(n - 1)
"""


def test_recursion_to_the_limit(serve: Serve, carrier: tuple[str, ...], carrier_name: str) -> None:
    server = serve(*carrier, "--log-blocking", "0", app=HEAD + RECURSION)
    for _ in range(2):
        for answer in together(server, ["/recurse"] * MANY[carrier_name], timeout_s=60):
            assert answer.pop("still") == 5050
            if sys.version_info >= (3, 14):
                answer.pop("comparison")  # its limit is the C stack, which is enough for it
            assert set(answer.values()) == {"RecursionError"}, answer


DEEP = """
int down(volatile int n)
{
    volatile char pad[512];
    pad[0] = (char)n;
    return down(n + 1) + pad[0];
}
"""

OVERFLOW = """
import ctypes, faulthandler

library = ctypes.CDLL("./deep.so")

def dive(query):
    if query == "enable":
        faulthandler.enable()
    time.sleep(0.01)
    library.down(0)
"""


@pytest.mark.parametrize("handler", ["none", "before", "later"])
def test_an_overflow_names_its_core(serve: Serve, handler: str, tmp_path: Path) -> None:
    library = build(tmp_path, "deep", DEEP)
    # A sanitizer's own handler would end the process in another way.
    env = {
        "PYTHONFAULTHANDLER": "1" if handler == "before" else None,
        "ASAN_OPTIONS": "handle_segv=0",
    }
    server = serve("--async", "4", app=HEAD + OVERFLOW, files={"deep.so": library}, env=env)
    server.check_fds = False
    server.expected_status = -signal.SIGSEGV
    server.expect_log(r"^pelton: error: core \d+ has overflowed its stack", required=False)
    server.expect_log("^Fatal Python error: Segmentation fault", required=handler != "none")
    with server.connect() as sock:
        query = b"enable" if handler == "later" else b""
        sock.sendall(b"GET /dive?" + query + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert server.wait() == -signal.SIGSEGV
    if handler != "later":  # faulthandler is first then, and raises the signal again by itself
        assert re.search(r"core \d+ has overflowed its stack of 8192 kB", server.log)
    if handler != "none":
        assert "in dive" in server.log


# --- One that computes ------------------------------------------------------------------------

COMPUTE = """
released = False

def spin(query):
    '''Computes until another request says so, and for 200 ms at least.'''
    began = time.monotonic()
    while time.monotonic() < began + 0.2 or not released and time.monotonic() < began + 20:
        sum(range(100))
    return released

def release(query):
    global released
    released = True
    return "released"

def short(query):
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        sum(range(100))
    return "short"
"""


def test_others_are_answered_while_one_computes(serve: Serve) -> None:
    server = serve("--threads", "4", app=HEAD + COMPUTE)
    with ThreadPoolExecutor(1) as pool:
        spinning = pool.submit(server.get, "/spin", timeout_s=30)
        wait_until(lambda: server.get("/").status == 200, 10 * SLOW)
        time.sleep(0.05)
        for _ in range(20):
            assert server.get("/", timeout_s=20).body == b'"here"'
        assert not spinning.done()
        assert server.get("/release", timeout_s=20).body == b'"released"'
        assert spinning.result().body == b"true"


def test_those_who_wait_for_one_that_computes(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str
) -> None:
    server = serve(*carrier, "--log-blocking", "0", app=HEAD + COMPUTE)
    assert together(server, ["/short", "/", "/", "/short", "/"]) == [
        "short",
        "here",
        "here",
        "short",
        "here",
    ]


# --- A fork beside others that wait -----------------------------------------------------------

FORK = """
local = threading.local()

def doze(query):
    local.value = query
    time.sleep(float(query))
    return local.value == query

def fork(query):
    lock = threading.RLock()
    local.value = query
    time.sleep(0.02)
    with lock:
        pid = os.fork()
        if pid == 0:
            right = lock._is_owned() and local.value == query
            time.sleep(0.05)
            os._exit(7 if right else 8)
    time.sleep(0.02)
    _, status = os.waitpid(pid, 0)
    return [os.waitstatus_to_exitcode(status), local.value == query]
"""


def test_forks_beside_those_that_wait(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str
) -> None:
    server = serve(*carrier, app=HEAD + FORK)
    half = MANY[carrier_name] // 2
    for _ in range(2):
        answers = together(server, ["/doze?0.2"] * half + [f"/fork?{n}" for n in range(half)])
        assert answers == [True] * half + [[7, True]] * half


# --- The end ----------------------------------------------------------------------------------

PARKED = """
import queue

events = queue.Queue()
forever = threading.Lock()
forever.acquire()

class Tracked:
    alive = 0
    def __init__(self):
        Tracked.alive += 1
    def __del__(self):
        Tracked.alive -= 1

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def parked(query):
    tracked = Tracked()
    try:
        say("began")
        time.sleep(60)
    finally:
        time.sleep(0.01)  # a clean-up may wait as well
        say("unwound", sys.exc_info()[0].__name__)

def swallow(query):
    for turn in range(int(query)):
        try:
            say("began")
            time.sleep(60)
        except BaseException as error:
            say("swallowed", type(error).__name__)
    say("unwound itself")
    return "ended"

def compute(query):
    try:
        say("began")
        while True:
            sum(range(100))
    finally:
        say("unwound", sys.exc_info()[0].__name__)

def leave():
    say("alive at the end:", Tracked.alive)

import atexit
atexit.register(leave)
"""


@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param(("--threads", "1"), 1, id="inline"),
        pytest.param(("--threads", "100"), 100, id="threads"),
        pytest.param(("--async", "100"), 100, id="fibers"),
    ],
)
def test_the_end_unwinds_everyone(serve: Serve, options: tuple[str, ...], count: int) -> None:
    server = serve(*options, "--shutdown-timeout", "0.5", app=HEAD + PARKED)
    server.expect_log("cut before the end|does not give the server back", required=False)
    server.expect_log("RequestCut|KeyboardInterrupt", required=False)
    for _ in range(count):
        server.connect().sendall(b"GET /parked HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: server.log.count("began") == count, 20 * SLOW)
    server.kill()
    assert server.wait(10 * SLOW) == 0
    assert server.log.count("unwound ") == count
    assert "alive at the end: 0" in server.log


def begin(server: Server, target: str) -> object:
    sock = server.connect(timeout_s=20)
    before = server.log.count("began")
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    wait_until(lambda: server.log.count("began") > before, 10 * SLOW)
    return sock


def test_one_that_computes_is_cut(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--shutdown-timeout", "0.3", "--log-blocking", "0", app=HEAD + PARKED)
    server.expect_log("cut before the end|does not give the server back", required=False)
    server.expect_log("RequestCut|KeyboardInterrupt", required=False)
    begin(server, "/compute")
    server.kill()
    assert server.wait(10 * SLOW) == 0
    server.wait_log("^unwound (RequestCut|KeyboardInterrupt)$")


# --- Alone ------------------------------------------------------------------------------------

ALONE = """
import glob

def alone(query):
    time.sleep(0.02)
    names = [open(path).read() for path in glob.glob("/proc/self/task/*/comm")]
    return sum(name.startswith("pn-core-") for name in names)
"""


def threads_for_one(server: Server) -> int:
    """How many cores one request after the other has brought about."""
    client = http.client.HTTPConnection(*server.address, timeout=10 * SLOW)
    with contextlib.closing(client):
        for target in ("/", "/alone", "/alone"):
            client.request("GET", target)
            answer = json.loads(client.getresponse().read())
    return answer


def test_one_that_sleeps_alone_needs_one_thread(serve: Serve) -> None:
    """It sleeps with the loop: nobody else is called to look after that. (One that is not given a
    processor for ten milliseconds looks like one that computes: hence more than one try.)"""
    counts: list[int] = []
    while 1 not in counts and len(counts) < 5:
        counts.append(threads_for_one(serve("--threads", "8", app=HEAD + ALONE)))
    assert 1 in counts, counts

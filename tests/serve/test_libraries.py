# SPDX-License-Identifier: Apache-2.0
"""Libraries that keep something for each thread: each core is a thread to them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import CARRIERS, Server

Serve = Callable[..., Server]

HEAD = """
import json, os, threading, time

def application(environ, start_response):
    name, query = environ["PATH_INFO"][1:], environ["QUERY_STRING"]
    answer = json.dumps(globals()[name](query)).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""

MANY = {"inline": 2, "threads": 4, "fibers": 8}


def together(server: Server, targets: list[str]) -> list[object]:
    with ThreadPoolExecutor(len(targets)) as pool:
        responses = list(pool.map(lambda target: server.get(target, timeout_s=20), targets))
    assert [response.status for response in responses] == [200] * len(targets)
    return [json.loads(response.body) for response in responses]


# --- greenlet ---------------------------------------------------------------------------------

# What SQLAlchemy's asyncio part and gevent do: a greenlet for the work, which goes to its
# parent whenever it would wait; the parent waits for it.
GREENLET = """
def ask(number):
    '''The synchronous side: gets every answer by a switch.'''
    total = 0
    for turn in range(5):
        total += greenlet.getcurrent().parent.switch(number + turn)
    return total

def bridge(query):
    number = int(query)
    main = greenlet.getcurrent()
    worker = greenlet.greenlet(ask)
    value = worker.switch(number)
    while not worker.dead:
        time.sleep(0.005)  # the other requests go on, in greenlets of their own
        assert greenlet.getcurrent() is main
        value = worker.switch(value)
    return value == sum(number + turn for turn in range(5))

def hub(query):
    '''Waits inside the greenlets, and switches between them.'''
    seen = []

    def task(name):
        for turn in range(3):
            time.sleep(0.003)
            seen.append((name, turn))
            main.switch()

    main = greenlet.getcurrent()
    tasks = [greenlet.greenlet(task) for _ in range(3)]
    for name, each in enumerate(tasks):
        each.switch(name)
    while any(not each.dead for each in tasks):
        for each in tasks:
            if not each.dead:
                each.switch()
    return seen == [(name, turn) for turn in range(3) for name in range(3)]

def thrown(query):
    '''Exceptions cross over greenlets and waits.'''
    def child():
        try:
            time.sleep(0.005)
            main.switch()
        finally:
            time.sleep(0.005)

    main = greenlet.getcurrent()
    worker = greenlet.greenlet(child)
    worker.switch()
    try:
        worker.throw(KeyError(query))
    except KeyError as error:
        return error.args == (query,) and worker.dead
"""

EARLY = "import greenlet\n"
LATE = """
class Late:
    def __getattr__(self, name):
        import greenlet
        globals()["greenlet"] = greenlet
        return getattr(greenlet, name)

greenlet = Late()
"""


@pytest.mark.parametrize("when", [EARLY, LATE], ids=["imported before", "imported in a request"])
def test_greenlets_in_a_request(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str, when: str
) -> None:
    server = serve(*carrier, app=HEAD + when + GREENLET)
    count = MANY[carrier_name]
    for _ in range(3):
        for name in ("bridge", "hub", "thrown"):
            assert together(server, [f"/{name}?{n}" for n in range(count)]) == [True] * count
        mixed = [f"/{('bridge', 'hub', 'thrown')[n % 3]}?{n}" for n in range(count)]
        assert together(server, mixed) == [True] * count


# --- Values that a C library keeps for each thread ----------------------------------------------

LIBRARY = """
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static pthread_key_t key;

int begin(void) { return pthread_key_create(&key, free); }
int again(void) { return pthread_key_delete(key) || pthread_key_create(&key, free); }
void *get(void) { return pthread_getspecific(key); }

/* As OpenSSL's queue of errors: left in a call that waits, looked at after it. */
int leave_and_wait(int number, int ms)
{
    struct timespec span = {0, ms * 1000000L};
    int *mine = pthread_getspecific(key);
    if (!mine) {
        mine = malloc(sizeof *mine);
        if (pthread_setspecific(key, mine))
            return -1;
    }
    *mine = number;
    nanosleep(&span, 0);
    int *found = pthread_getspecific(key);
    return found == mine ? *found : -2;
}
"""

VALUES = """
import ctypes

library = ctypes.CDLL("./values.so")
library.get.restype = ctypes.c_void_p
library.begin()

def leave(query):
    number = int(query)
    answers = [library.leave_and_wait(number + turn, 10) for turn in range(3)]
    return answers == [number + turn for turn in range(3)]

def again(query):
    return [library.again(), library.get()]
"""


def build(folder: object, name: str, source: str, compiler: str) -> bytes:
    suffix = "cc" if "++" in compiler else "c"
    (folder / f"{name}.{suffix}").write_text(source)
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.{suffix}"],
        cwd=folder,
        check=True,
    )
    return (folder / f"{name}.so").read_bytes()


def test_values_of_a_thread_are_values_of_a_core(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str, tmp_path: object
) -> None:
    library = build(tmp_path, "values", LIBRARY, shutil.which("cc") or "gcc")
    server = serve(*carrier, app=HEAD + VALUES, files={"values.so": library})
    count = MANY[carrier_name]
    for _ in range(2):
        assert together(server, [f"/leave?{10 * n}" for n in range(count)]) == [True] * count
        # A later key may have the same number, and nobody has a value for it yet.
        assert together(server, ["/again"]) == [[0, None]]


# --- C++ exceptions in flight -----------------------------------------------------------------

THROWS = """
#include <exception>
#include <stdexcept>
#include <time.h>

static void doze(int ms)
{
    struct timespec span = {0, ms * 1000000L};
    nanosleep(&span, nullptr);
}

struct Dozes {
    int ms;
    ~Dozes() { doze(ms); }
};

/* Waits while an exception is thrown, while it is handled, and while it is thrown again. */
extern "C" int throws(int number, int ms)
{
    try {
        try {
            Dozes dozes{ms};
            throw number;
        } catch (int caught) {
            doze(ms);
            if (caught != number)
                return -1;
            try {
                throw;
            } catch (...) {
                doze(ms);
                throw;
            }
        }
    } catch (int caught) {
        return std::uncaught_exceptions() == 0 ? caught : -2;
    }
    return -3;
}
"""

CPP = """
import ctypes

library = ctypes.CDLL("./throws.so")

def throws(query):
    number = int(query)
    return all(library.throws(number + turn, 2 + number % 3) == number + turn for turn in range(5))
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_cpp_exceptions_over_waits(
    serve: Serve, carrier: tuple[str, ...], carrier_name: str, tmp_path: object
) -> None:
    library = build(tmp_path, "throws", THROWS, "g++")
    server = serve(*carrier, app=HEAD + CPP, files={"throws.so": library})
    count = MANY[carrier_name]
    for _ in range(3):
        assert together(server, [f"/throws?{10 * n + n}" for n in range(count)]) == [True] * count


# --- What threading has for new threads ---------------------------------------------------------

HOOKS = """
seen = {}

def profiler(frame, event, arg):
    if event == "call" and frame.f_code.co_name == "profiled":
        seen[threading.get_ident()] = "profile"

def tracer(frame, event, arg):
    if frame.f_code.co_name == "traced":
        seen[threading.get_ident()] = "trace"

threading.setprofile(profiler)
threading.settrace(tracer)

def profiled(query):
    time.sleep(0.01)
    return seen.get(threading.get_ident())

def traced(query):
    time.sleep(0.01)
    return seen.get(threading.get_ident())
"""


@pytest.mark.parametrize("name", ["threads", "fibers"])
def test_cores_take_the_hooks_of_new_threads(serve: Serve, name: str) -> None:
    """coverage.py counts on this: without it, no line of a request was seen."""
    server = serve(*CARRIERS[name], app=HEAD + HOOKS)
    for _ in range(2):
        assert together(server, ["/profiled", "/traced"] * 2) == ["profile", "trace"] * 2

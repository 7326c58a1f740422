# SPDX-License-Identifier: Apache-2.0
"""What ``threading`` knows of the cores: a thread each, until its core ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import SLOW, Server

Serve = Callable[..., Server]
TOGETHER = 4

# threading is imported by a request, as far as the application goes.
APP = """
import atexit, json, os, time

def names():
    import threading
    me = threading.current_thread()
    listed = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    return {"me": me.name, "repr": repr(me), "native": me.native_id == threading.get_native_id(),
            "mine": me.ident == threading.get_ident(), "alive": me.is_alive(), "daemon": me.daemon,
            "listed": me in listed, "kinds": [type(thread).__name__ for thread in listed],
            "names": sorted(thread.name for thread in listed),
            "main": threading.main_thread().name, "is main": me is threading.main_thread()}

def together():
    while len(inside) < 4:
        time.sleep(0.01)
    return names()

def child():
    import multiprocessing, threading
    threading.current_thread()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(names()))
    process.start()
    answer = queue.get()
    process.join()
    return {**answer, "exit": process.exitcode, "parent": threading.current_thread().name}

def arenas():
    import ctypes
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    held = [bytes(5000) for _ in range(100)]
    while len(inside) < 4:
        time.sleep(0.01)
    name = f"malloc-{names()['me']}".encode()
    file = ctypes.c_void_p(libc.fopen(name, b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    return open(name).read().count("<heap nr=")

inside = []

@atexit.register
def at_the_end():
    import threading
    os.write(1, f"left: {[thread.name for thread in threading.enumerate()]}\\n".encode())

def application(environ, start_response):
    start_response("200 OK", [])
    inside.append(1)
    return [json.dumps(globals()[environ["PATH_INFO"][1:]]()).encode()]
"""


@pytest.fixture(params=[("--threads", "8"), ("--async", "8")], ids=["threads", "fibers"])
def carrier(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


def ask(server: Server, path: str) -> dict:
    return json.loads(server.get(path, timeout_s=60).body)


def test_a_core_is_a_named_thread(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=APP)
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = list(pool.map(lambda _: ask(server, "/together"), range(TOGETHER)))
    for answer in answers:
        assert re.fullmatch(r"pelton-core-[1-9]\d*", answer["me"])
        assert f"({answer['me']}, started daemon " in answer["repr"]
        assert all(answer[key] for key in ("native", "mine", "alive", "daemon", "listed"))
        assert not answer["is main"]
        assert answer["main"] == "MainThread"
        assert set(answer["kinds"]) == {"Core"}
    mine = sorted(answer["me"] for answer in answers)
    assert len(set(mine)) == TOGETHER
    assert answers[0]["names"] == mine
    server.stop()
    assert server.log.count("left: ['MainThread']") == 1


def test_inline_is_the_main_thread(serve: Serve) -> None:
    answer = ask(serve("--threads", "1", app=APP), "/names")
    assert (answer["me"], answer["is main"], answer["names"]) == ("MainThread", True, [])


def test_who_forks_is_its_childs_main_thread(serve: Serve, carrier: tuple[str, ...]) -> None:
    """multiprocessing ends a child by threading's shutdown, which wants a true one."""
    answer = ask(serve(*carrier, app=APP), "/child")
    assert answer["exit"] == 0
    assert (answer["me"], answer["is main"], answer["names"]) == ("MainThread", True, [])
    assert not answer["daemon"]
    assert answer["parent"].startswith("pelton-core-")


@pytest.mark.skipif(SLOW > 1, reason="a sanitizer's malloc has no arenas")
@pytest.mark.parametrize(("env", "most"), [({}, 2), ({"MALLOC_ARENA_MAX": "8"}, 8)])
def test_threads_share_mallocs_arenas(serve: Serve, env: dict[str, str], most: int) -> None:
    """Else each has one (up to eight a processor), and each keeps what it held at most."""
    server = serve("--threads", "8", app=APP, env=env)
    with ThreadPoolExecutor(TOGETHER) as pool:
        found = max(pool.map(lambda _: ask(server, "/arenas"), range(TOGETHER)))
    assert found <= 2 if most == 2 else 2 < found <= most

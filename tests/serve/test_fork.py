# SPDX-License-Identifier: Apache-2.0
"""fork inside a request, in every carrier: the child is no worker, and the parent serves on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from harness import SLOW, Server

Serve = Callable[..., Server]

APP = """
import json, os, signal, subprocess, sys, time

def in_child(work):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer

def facts():
    kinds = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    began = time.monotonic()
    time.sleep(0.1)
    return {
        "epoll": sum("eventpoll" in kind for kind in kinds),
        "slept": time.monotonic() - began > 0.09,
        "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "frames": len(sys._current_frames()),
    }

def falls_back():
    pid = os.fork()
    if pid == 0:
        return "child"
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def terminated():
    pid = os.fork()
    if pid == 0:
        time.sleep(30)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

def program():
    done = subprocess.run(["sh", "-c", "cat; ls -l /proc/self/fd"], input=b"text ", preexec_fn=int,
                          stdout=subprocess.PIPE, check=True, timeout=20)
    return done.stdout.decode()

def application(environ, start_response):
    name = environ["PATH_INFO"][1:]
    answer = in_child(facts) if name == "facts" else globals()[name]() if name else "here"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


@pytest.fixture
def server(serve: Serve, carrier: tuple[str, ...]) -> Server:
    return serve(*carrier, app=APP)


def test_a_child_has_no_loop_and_waits_by_itself(server: Server) -> None:
    for _ in range(3):
        answer = server.get("/facts", timeout_s=20).body.decode()
        assert answer == '{"epoll": 0, "slept": true, "term": true, "frames": 1}'
    assert server.get("/").body == b"here"


def test_a_child_that_comes_back_ends(server: Server) -> None:
    assert server.get("/falls_back", timeout_s=20).body == b"70"
    assert server.get("/").body == b"here"


def test_a_child_ends_by_sigterm(server: Server) -> None:
    assert server.get("/terminated", timeout_s=20).body == b"-15"
    assert server.get("/").body == b"here"


def test_programs_inherit_nothing(server: Server) -> None:
    answer = server.get("/program", timeout_s=20).body.decode()
    assert answer.startswith("text ")
    assert "socket" not in answer
    assert "eventpoll" not in answer
    assert server.get("/").body == b"here"


def test_a_listener_is_not_kept_by_a_child(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Otherwise a server cannot be started again while a child of its last one runs on; and its
    connections end when the server ends them."""
    app = """
import os, time

def application(environ, start_response):
    pid = os.fork()
    if pid == 0:
        time.sleep(2)
        os._exit(0)
    start_response("200 OK", [])
    return [b"forked"]
"""
    server = serve(*carrier, app=app)
    began = time.monotonic()
    assert server.get().body == b"forked"
    assert server.stop() == 0
    assert time.monotonic() - began < 1.5 * SLOW
    again = serve(*carrier, "--bind", f"127.0.0.1:{server.port}", app=app, ready="serving")
    again.address = ("127.0.0.1", server.port)
    assert again.get().body == b"forked"


def test_multiprocessing(serve: Serve, carrier: tuple[str, ...]) -> None:
    app = """
import multiprocessing

def work(pipe, number):
    pipe.send(number * 2)

def application(environ, start_response):
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=work, args=(there, 21))
    child.start()
    answer = here.recv()
    child.join()
    start_response("200 OK", [])
    return [str(answer).encode()]
"""
    server = serve(*carrier, app=app)
    server.check_fds = False  # the application never closes its pipes
    assert server.get(timeout_s=20).body == b"42"

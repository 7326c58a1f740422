# SPDX-License-Identifier: Apache-2.0
"""The server's exception in a request that is to end: whatever it waits for, its clean-up runs.

A stop is what cuts here. Each request waits for longer than any of these tests: one whose wait
is not cut is lost at the hard deadline, and the server's status says so.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import SLOW, Server, wait_until

Serve = Callable[..., Server]

APP = """
import _thread, os, select, signal, socket, ssl, subprocess, threading, time

LONG = 90
shared, cuts = threading.Lock(), []

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def sleep():
    time.sleep(LONG)

def recv():
    a, b = socket.socketpair()
    a.recv(1)

def recv_timeout():
    a, b = socket.socketpair()
    a.settimeout(LONG)
    a.recv(1)

def send():
    a, b = socket.socketpair()
    a.sendall(bytes(10_000_000))

def accept():
    server = socket.create_server(("127.0.0.1", 0))
    server.accept()

def read():
    r, w = os.pipe()
    reader, writer = open(r, "rb", 0), open(w, "wb", 0)
    reader.read(1)

def watch():
    a, b = socket.socketpair()
    select.select([a], [], [], LONG)

def poll():
    a, b = socket.socketpair()
    poller = select.poll()
    poller.register(a, select.POLLIN)
    poller.poll(LONG * 1000)

def epoll():
    a, b = socket.socketpair()
    epoll = select.epoll()
    epoll.register(a, select.EPOLLIN)
    epoll.poll(LONG)

def tls():
    a, b = socket.socketpair()
    a.settimeout(LONG)
    ssl.create_default_context().wrap_socket(a, server_hostname="a")

def child():
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.wait()

def sigwait():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMAX])
    signal.sigwait([signal.SIGRTMAX])

def lock():
    # Its holder is cut, and so lets it go; a wait for a lock is not cut itself.
    with shared:
        say("locked", shared.locked())
        time.sleep(LONG)

def compute():
    while True:
        sum(range(100))

def swallow():
    try:
        sleep()
    except BaseException as error:
        say("swallowed", type(error).__name__)
    sleep()

def clean_up():
    # A wait as long as a server's answer: the cut is over and leaves it alone.
    a, b = socket.socketpair()
    with a, b:
        _thread.start_new_thread(answer, (b,))
        return a.recv(3).decode()

def answer(sock):
    time.sleep(0.1)
    sock.send(b"bye")

def application(environ, start_response):
    name = environ["PATH_INFO"][1:]
    say("began", name)
    end = "returned"
    try:
        try:
            globals()[name.removeprefix("swallowed-")]()
        except OSError:
            cuts.append(time.monotonic())
            # The call has said that its time is over: the exception comes where that is no end.
            # (Not in a loop here: from 3.12 on its jump is in no try block, and skips the finally.)
            if name.startswith("swallowed-"):
                compute()
            raise
    except BaseException as error:
        end = type(error).__name__
        raise
    finally:
        say("unwound", name, end, clean_up())
        # All are cut at once, and again a second later.
        if cuts and time.monotonic() > cuts[0] + 0.8:
            say("late", name)
"""

WAITS = "sleep watch poll epoll lock lock".split()
# What these wait for they would return: they fail, as if their time were over.
FAILING = "recv recv_timeout send accept read tls child sigwait".split()


@pytest.fixture(params=[("--threads", "16"), ("--async", "16")], ids=["threads", "fibers"])
def carrier(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


def cut(serve: Serve, carrier: tuple[str, ...], names: list[str]) -> str:
    """The log of a server that was stopped while it served these requests."""
    server = serve(*carrier, "--shutdown-timeout", "0.3", "--log-blocking", "0", app=APP)
    server.expect_log("cut before the end")
    for count, name in enumerate(names, 1):
        server.connect().sendall(f"GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        wait_until(lambda count=count: server.log.count("began ") == count, 10 * SLOW)
    server.kill()
    assert server.wait(15 * SLOW) == 0, server.log
    return server.log


def ends(log: str) -> list[str]:
    return sorted(line for line in log.splitlines() if line.startswith("unwound "))


def test_every_wait_is_cut(serve: Serve, carrier: tuple[str, ...]) -> None:
    log = cut(serve, carrier, WAITS)
    assert ends(log) == sorted(f"unwound {name} RequestCut bye" for name in WAITS)


def test_a_wait_that_fails_is_cut_once(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Its error is all that the request sees: no second exception in the first one's clean-up."""
    log = cut(serve, carrier, FAILING)
    found = [line for line in ends(log) if f"late {line.split()[1]}\n" not in log]
    in_time = [name for name in FAILING if f"late {name}\n" not in log]
    assert in_time, log
    assert found == sorted(f"unwound {name} TimeoutError bye" for name in in_time)


def test_who_swallows_the_failure_is_cut_again(serve: Serve, carrier: tuple[str, ...]) -> None:
    names = [f"swallowed-{name}" for name in ("recv", "recv_timeout", "child")]
    log = cut(serve, carrier, names)
    assert ends(log) == sorted(f"unwound {name} RequestCut bye" for name in names)


SIGNALS = """
import json, signal, subprocess, time

def application(environ, start_response):
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        sum(range(100))
    child = subprocess.Popen(["sleep", "90"])
    child.terminate()
    try:
        status = child.wait(30)
    finally:
        child.kill()
    start_response("200 OK", [])
    return [json.dumps([len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), status]).encode()]
"""


def test_no_signal_is_blocked_in_a_request(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Nor in its children: threads that the watchdog made had all of them blocked."""
    server = serve(*carrier, app=SIGNALS)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.get("/", timeout_s=60).body, range(6)))
    assert answers == [b"[0, -15]"] * 6


def test_who_computes_is_cut_beside_who_waits(serve: Serve, carrier: tuple[str, ...]) -> None:
    log = cut(serve, carrier, ["sleep", "compute"])
    assert ends(log) == ["unwound compute RequestCut bye", "unwound sleep RequestCut bye"]


def test_a_cut_that_is_swallowed_comes_again(serve: Serve, carrier: tuple[str, ...]) -> None:
    log = cut(serve, carrier, ["swallow"])
    assert log.count("swallowed RequestCut") == 1
    assert ends(log) == ["unwound swallow RequestCut bye"]

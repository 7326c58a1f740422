# SPDX-License-Identifier: Apache-2.0
"""The end: requests under way finish, a deadline bounds them, a second signal cuts them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SLOW, Server, parse_responses, wait_until

# /slow?SECONDS sleeps; /spin computes; /finally says whether it was unwound.
APP = """
import time

def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    print("began", path, flush=True)
    if path == "/slow":
        time.sleep(float(query))
    elif path == "/spin":
        end = time.monotonic() + float(query)
        while time.monotonic() < end:
            sum(range(1000))
    elif path == "/finally":
        try:
            time.sleep(float(query))
        finally:
            print("unwound", flush=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done " + path.encode()]
"""

Serve = Callable[..., Server]


def begin(server: Server, target: str) -> socket.socket:
    """Sends a request and returns when the application has it."""
    sock = server.connect(timeout_s=20)
    before = server.log.count("began")
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    wait_until(lambda: server.log.count("began") > before, 5 * SLOW)
    return sock


def rest(sock: socket.socket) -> bytes:
    """Everything that still comes; a reset is the end as well."""
    data = b""
    try:
        while block := sock.recv(65536):
            data += block
    except ConnectionResetError:
        pass
    return data


def refused(server: Server) -> bool:
    try:
        server.connect(timeout_s=0.5).close()
    except (ConnectionError, FileNotFoundError, TimeoutError):
        return True
    return False


@pytest.fixture(params=[(), ("--master",), ("--processes", "2")], ids=["alone", "master", "two"])
def processes(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return request.param


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...], number: int
) -> None:
    server = serve(*carrier, *processes, app=APP)
    assert server.get().status == 200
    began = time.monotonic()
    assert server.stop(number) == 0
    assert time.monotonic() - began < 2 * SLOW
    server.wait_log(r"stopping: ")


def test_requests_under_way_finish(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...]
) -> None:
    server = serve(*carrier, *processes, app=APP)
    sock = begin(server, "/slow?0.7")
    server.kill()
    response = parse_responses(rest(sock))[0]
    assert response.body == b"done /slow"
    assert server.wait() == 0


def test_idle_connections_are_closed(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=APP)
    idle = [server.connect() for _ in range(3)]
    for sock in idle:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(65536).endswith(b"done /")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 2 * SLOW
    assert all(sock.recv(1) == b"" for sock in idle)


def test_nobody_new_is_accepted(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...]
) -> None:
    if carrier == ("--threads", "1"):
        pytest.skip("a blocking worker sees the signal when its request is over")
    server = serve(*carrier, *processes, app=APP)
    sock = begin(server, "/slow?1.5")
    server.kill()
    wait_until(lambda: refused(server), 1 * SLOW)
    assert parse_responses(rest(sock))[0].body == b"done /slow"
    assert server.wait() == 0


def test_a_request_in_the_middle_of_its_head_is_served(
    serve: Serve, carrier: tuple[str, ...]
) -> None:
    server = serve(*carrier, app=APP)
    sock = server.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: local")
    time.sleep(0.1 * SLOW)
    server.kill()
    server.wait_log("stopping: ")
    sock.sendall(b"host\r\n\r\n")
    response = parse_responses(rest(sock))[0]
    assert response.status == 200
    assert response["Connection"].lower() == "close"
    assert server.wait() == 0


def test_the_deadline_cuts_waiting_requests(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...]
) -> None:
    server = serve(*carrier, *processes, "--shutdown-timeout", "0.5", app=APP)
    server.expect_log("is cut before the end|does not give the server back", required=False)
    server.expect_log("RequestCut|KeyboardInterrupt", required=False)
    sock = begin(server, "/finally?30")
    began = time.monotonic()
    server.kill()
    assert server.wait(8 * SLOW) in (0, 75)
    assert 0.4 < time.monotonic() - began < 5 * SLOW
    assert "unwound" in server.log
    server.expected_status = None
    assert b"done" not in rest(sock)


def test_a_second_signal_cuts_at_once(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...]
) -> None:
    server = serve(*carrier, *processes, app=APP)
    server.expect_log("is cut before the end", required=False)
    server.expect_log("RequestCut|KeyboardInterrupt", required=False)
    sock = begin(server, "/finally?30")
    server.kill(signal.SIGINT)
    time.sleep(0.3 * SLOW)
    began = time.monotonic()
    server.kill(signal.SIGINT)
    assert server.wait(8 * SLOW) in (0, 75)
    assert time.monotonic() - began < 4 * SLOW
    assert "unwound" in server.log
    server.expected_status = None
    assert b"done" not in rest(sock)


def test_the_exception_has_a_name(serve: Serve) -> None:
    app = """
import time
from pelton import ClientDisconnected, RequestCut

def application(environ, start_response):
    print("began", flush=True)
    try:
        time.sleep(60)
    except RequestCut as error:
        print("caught", isinstance(error, Exception), flush=True)
        raise
"""
    server = serve("--threads", "4", "--shutdown-timeout", "0.2", app=app)
    server.expect_log("is cut before the end")
    server.expect_log("RequestCut", required=False)
    begin(server, "/")
    assert server.stop() == 0
    server.wait_log("^caught False$")


STUBBORN = """
import time

def application(environ, start_response):
    print("began", flush=True)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            print("swallowed", flush=True)
"""


def test_nothing_outlives_the_hard_deadline(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...]
) -> None:
    server = serve(*carrier, *processes, "--shutdown-timeout", "0.2", app=STUBBORN)
    server.expect_log("is cut before|did not end in time|does not give the server back")
    server.expect_log("are lost|killed|Traceback|is cut", required=False)
    begin(server, "/")
    began = time.monotonic()
    server.kill()
    assert server.wait(12 * SLOW) == 75
    assert time.monotonic() - began < 8 * SLOW
    server.expected_status = 75


def test_sigquit_stops_at_once(serve: Serve, processes: tuple[str, ...]) -> None:
    server = serve("--async", "4", *processes, app=APP)
    server.expect_log("is cut before the end|RequestCut", required=False)
    sock = begin(server, "/finally?30")
    began = time.monotonic()
    server.kill(signal.SIGQUIT)
    assert server.wait(8 * SLOW) in (0, 75)
    assert time.monotonic() - began < 4 * SLOW
    server.expected_status = None
    assert b"done" not in rest(sock)


def test_ctrl_c_reaches_every_process(serve: Serve, processes: tuple[str, ...]) -> None:
    """A terminal signals the whole group: that is one wish, and requests under way finish."""
    server = serve("--threads", "4", *processes, app=APP)
    sock = begin(server, "/slow?0.7")
    os.killpg(server.pid, signal.SIGINT)
    assert parse_responses(rest(sock))[0].body == b"done /slow"
    assert server.wait() == 0


def test_sighup_is_answered(serve: Serve, processes: tuple[str, ...]) -> None:
    server = serve(*processes, app=APP)
    server.kill(signal.SIGHUP)
    server.wait_log("SIGHUP: reloading is not built yet")
    assert server.get().status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_the_application_is_loaded(
    serve: Serve, processes: tuple[str, ...], number: int, tmp_path: Path
) -> None:
    app = "import time\nprint('loading', flush=True)\ntime.sleep(30)\n"
    path = tmp_path / "app.sock"
    server = serve(*processes, "--bind", path, app=app, spawn_only=True)
    server.wait_log("loading")
    assert path.exists()
    began = time.monotonic()
    server.kill(number)
    assert server.wait(8 * SLOW) == (0 if processes else 130)
    assert not path.exists()
    assert time.monotonic() - began < 4 * SLOW
    server.expected_status = None
    assert "Traceback" not in server.log


@pytest.mark.parametrize("carrier_args", [("--threads", "4"), ("--async", "100")])
def test_a_hundred_parked_requests_unwind(serve: Serve, carrier_args: tuple[str, ...]) -> None:
    count = 4 if carrier_args[0] == "--threads" else 100
    server = serve(*carrier_args, "--shutdown-timeout", "0.5", app=APP)
    server.expect_log("are cut before the end")
    server.expect_log("RequestCut", required=False)
    for _ in range(count):
        server.connect().sendall(b"GET /finally?60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: server.log.count("began /finally") == count, 10 * SLOW)
    server.kill()
    assert server.wait(10 * SLOW) == 0
    assert server.log.count("unwound") == count

# SPDX-License-Identifier: Apache-2.0
"""The end: requests under way finish, a deadline bounds them, a second signal cuts them."""

from __future__ import annotations

import array
import fcntl
import io
import os
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SLOW, Server, parse_responses, server_command, wait_until

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


IGNORE_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")


def test_in_the_background_of_a_script(
    serve: Serve, carrier: tuple[str, ...], processes: tuple[str, ...]
) -> None:
    """A shell without job control has SIGINT ignored: the server stops, and cuts, as elsewhere."""
    options = (*carrier, *processes, "--shutdown-timeout", "0.5")
    server = serve(*options, app=APP, prefix=IGNORE_SIGINT)
    server.expect_log("is cut before the end", required=False)
    server.expect_log("RequestCut|KeyboardInterrupt", required=False)
    sock = begin(server, "/finally?30")
    server.kill(signal.SIGINT)
    assert server.wait(8 * SLOW) == 0
    assert "unwound" in server.log
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
    assert server.wait(8 * SLOW) == 0
    assert not path.exists()
    assert time.monotonic() - began < 4 * SLOW
    server.expected_status = None
    assert "Traceback" not in server.log


# Signals itself at the NUMBER-th import after its own end: the server does some by itself, on its
# way to where it serves.
BETWEEN = """
    import asyncio, builtins, inspect, logging, os, signal  # so that they import nothing later

    real, calls = builtins.__import__, 0

    def counting(name, *args, **more):
        global calls
        calls += armed
        if armed and calls == NUMBER:
            print("signalled at", name, flush=True)
            os.kill(os.getpid(), signal.SIGNAME)
        return real(name, *args, **more)

    armed = False
    builtins.__import__ = counting
"""
INTERFACES = {
    "wsgi": "def application(environ, start_response): pass",
    "asgi": """
    async def application(scope, receive, send):
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                break
    """,
}


@pytest.mark.parametrize(("interface", "name"), [("wsgi", "SIGTERM"), ("asgi", "SIGINT")])
def test_a_stop_between_loading_and_serving(
    serve: Serve, processes: tuple[str, ...], interface: str, name: str, tmp_path: Path
) -> None:
    """It killed the process, whose handlers were not there yet: the socket's file stayed."""
    path = tmp_path / "app.sock"
    for number in range(1, 60):
        app = BETWEEN.replace("NUMBER", str(number)).replace("SIGNAME", name)
        app += "\n    " + INTERFACES[interface].strip() + "\n    armed = True\n"
        server = serve(*processes, "--bind", path, app=app, spawn_only=True)
        wait_until(lambda s=server: "signalled at" in s.log or "serving" in s.log, 20 * SLOW)
        # Whoever swallows the interruption may say so: a weak reference's callback, a __del__.
        # The group's signal may reach the generation before the manager.
        server.expect_log("ended with status 0; the next one starts", required=False)
        server.expect_log("Exception ignored|Traceback|RuntimeWarning", required=False)
        if "signalled at" not in server.log:  # it serves, and the next import is in its end
            server.kill(signal.SIGKILL)
            server.expected_status = -signal.SIGKILL
            break
        if processes:
            server.kill()
        assert server.wait(20 * SLOW) == 0, server.log
        assert not path.exists(), server.log
        assert "was killed by" not in server.log
    assert 2 < number < 59


@pytest.mark.parametrize("carrier_args", [("--threads", "1"), ("--threads", "4"), ("--async", "4")])
def test_a_stop_at_any_moment_of_the_start(
    serve: Serve, carrier_args: tuple[str, ...], tmp_path: Path
) -> None:
    """From the opening of the listeners on, a stop is a graceful one."""
    path = tmp_path / "app.sock"
    app = "import sys\nprint('loaded', file=sys.stderr)\ndef application(*_): pass\n"
    for number in range(6):
        server = serve(*carrier_args, "--bind", path, app=app, spawn_only=True)
        # As with Ctrl-C: the interruption of an import may come out in a weak reference's callback.
        server.expect_log(r"(?s)Exception ignored in.*KeyboardInterrupt", required=False)
        wait_until(path.exists, 20 * SLOW)
        if number:
            while "loaded" not in server.log:
                time.sleep(0.0005)
            time.sleep(number * 0.0005)
        server.kill()
        assert server.wait(10 * SLOW) == 0, server.log
        assert not path.exists()


def test_clients_in_the_backlog_are_served(serve: Serve) -> None:
    """The kernel has taken their connections: a blocking worker meets them after its request.

    They are more than it accepts in two turns of its loop, and take longer than the end waits."""
    server = serve("--threads", "1", app=APP)
    socks = [begin(server, "/slow?0.5")]
    for _ in range(160):
        socks.append(server.connect(timeout_s=20))
        socks[-1].sendall(b"GET /slow?0.002 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.kill()
    for sock in socks:
        assert rest(sock).endswith(b"done /slow")
    assert server.wait(5 * SLOW) == 0


@pytest.mark.parametrize("signals", [1, 2])
def test_clients_that_wait_at_the_deadline_are_refused(serve: Serve, signals: int) -> None:
    """A blocking worker begins with none of them after its request was interrupted."""
    grace = "0.5" if signals == 1 else "30"
    server = serve("--threads", "1", "--shutdown-timeout", grace, app=APP)
    server.expect_log("the application failed")
    server.expect_log("cut before the end", required=False)
    socks = [begin(server, "/finally?60")]
    for _ in range(5):
        socks.append(server.connect(timeout_s=20))
        socks[-1].sendall(b"GET /slow?60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(signals):
        server.kill()
        time.sleep(0.2)
    assert server.wait(20 * SLOW) == 0
    answers = [rest(sock)[:12] for sock in socks]
    assert answers == [b"HTTP/1.1 500"] + [b"HTTP/1.1 503"] * 5
    assert server.log.count("unwound") == 1


def test_a_silent_connection_does_not_delay_the_end(serve: Serve) -> None:
    """Browsers open some in advance. The time for a first head would be 15 s."""
    server = serve("--no-defer-accept", "--threads", "4", app=APP)
    server.connect()
    assert server.get("/").status == 200  # the one before was accepted as well
    began = time.monotonic()
    server.kill()
    assert server.wait(14 * SLOW) == 0
    assert time.monotonic() - began < 7 * SLOW


SWALLOW = """
    import os, signal, time

    def swallow():
        try:
            os.kill(os.getpid(), signal.SIGNUMBER)
            time.sleep(10)
        except KeyboardInterrupt:
            print("swallowed", flush=True)
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_stop_is_kept_when_the_loading_swallows_it(serve: Serve, number: str) -> None:
    """A bare except of the application's, or a question of the server's own to its callable."""
    app = SWALLOW.replace("SIGNUMBER", number) + "\n    swallow()\n    application = print\n"
    server = serve(app=app, spawn_only=True)
    assert server.wait(10 * SLOW) == 0
    assert "swallowed" in server.log
    assert "told to stop while the application was being loaded" in server.log
    assert "serving" not in server.log


def test_a_stop_is_kept_when_the_lifespan_swallows_it(serve: Serve) -> None:
    app = (
        SWALLOW.replace("SIGNUMBER", "SIGTERM")
        + """
    async def application(scope, receive, send):
        assert scope["type"] == "lifespan"
        await receive()
        swallow()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    """
    )
    server = serve(app=app, spawn_only=True)
    assert server.wait(10 * SLOW) == 0
    assert "swallowed" in server.log
    assert "shut down" in server.log


def test_workers_that_become_ready_after_the_stop(serve: Serve) -> None:
    """The generation must not speak of listeners that it has closed: it died, and left them."""
    app = """
    import signal, time
    signal.signal(signal.SIGTERM, lambda *_: print("deaf", flush=True))
    print("loading", flush=True)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        time.sleep(0.1)
    application = print
    """
    server = serve("--processes", "2", "--lazy-apps", app=app, spawn_only=True)
    wait_until(lambda: server.log.count("loading") == 2, 10 * SLOW)
    server.kill()
    assert server.wait(10 * SLOW) == 0
    assert server.log.count("is ready: pid") == 2
    assert server.log.count(" ended after ") == 2
    assert "serving" not in server.log


@pytest.mark.parametrize("carrier_args", [("--threads", "1"), ("--threads", "4"), ("--async", "4")])
def test_a_log_that_nobody_reads_does_not_keep_the_server(
    carrier_args: tuple[str, ...], tmp_path: Path
) -> None:
    """The log is a pipe that is full: a second signal ends the server all the same."""
    app = tmp_path / "webapp.py"
    app.write_text("def application(environ, start_response):\n    print('x' * 1000000)\n")
    address = tmp_path / "app.sock"
    command = [*server_command(), "--bind", str(address), *carrier_args, str(app)]
    read, write = os.pipe()
    env = Server(tmp_path, listen=False).environment()
    with subprocess.Popen(command, stdout=write, stderr=write, env=env) as server:
        os.close(write)
        try:
            with open(read, "rb", buffering=0) as log:
                head = b""
                while b"serving" not in head:
                    part = log.read(4096)
                    assert part, head.decode(errors="replace")
                    head += part
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(address))
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    wait_until(lambda: is_full(log), 10 * SLOW)
                    server.terminate()
                    time.sleep(0.2)
                    server.terminate()
                    assert server.wait(20 * SLOW) == 75
        finally:
            server.kill()


def is_full(pipe: io.FileIO) -> bool:
    """The writer stands: 64 kB wait, and there were more to come."""
    waiting = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    return waiting[0] >= 60_000


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

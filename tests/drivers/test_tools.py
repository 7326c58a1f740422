# SPDX-License-Identifier: Apache-2.0
"""Tools that look inside: each is really used on a server, in every carrier. See docs/tools.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import HEAD
from harness import Server, server_command

Serve = Callable[..., Server]
CARRIERS = {
    "inline": ("--threads", "1"),
    "threads": ("--threads", "8"),
    "fibers": ("--async", "8"),
    "asyncio": ("--asyncio", "8"),
}
N = 4

COMMON = """
def wait(n, seconds=0.02):
    for _ in range(3):
        time.sleep(seconds)
    return n
"""


@pytest.fixture(params=list(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> str:
    return request.param


def options(carrier: str) -> tuple[str, ...]:
    return (*CARRIERS[carrier], "--log-blocking", "0")


def ask(server: Server, target: str) -> object:
    response = server.get(target, timeout_s=40)
    assert response.status == 200, f"{target}: {response.status}\n{server.log}"
    return json.loads(response.body)


def together(server: Server, name: str) -> list[object]:
    with ThreadPoolExecutor(N) as pool:
        return list(pool.map(lambda n: ask(server, f"/{name}?{n}"), range(N)))


# --- coverage.py, trace and profile functions ---------------------------------------------------

COVERED = """
def branches(n):
    if n == 0:
        found = "zero"
        wait(n)
        found += "!"
    elif n == 1:
        wait(n)
        found = "one"
    elif n == 99:
        found = "never"
    else:
        found = "more"
        wait(n)
    return found
"""


def test_coverage(serve: Serve, carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pelton = server_command()[-1]
    command = [sys.executable, "-m", "coverage", "run", "--branch", "--include=*/webapp.py", pelton]
    monkeypatch.setenv("PELTON_TEST_SERVER", shlex.join(command))
    server = serve(*options(carrier), app=HEAD + COMMON + COVERED)
    assert together(server, "branches") == ["zero!", "one", "more", "more"]
    assert server.stop() == 0
    report = subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-o", "-"],
        cwd=server.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    [file] = json.loads(report.stdout[report.stdout.index("{") :])["files"].values()
    source = (server.folder / "webapp.py").read_text().splitlines()
    # What HEAD has of its own is not asked for.
    missed = [line for line in file["missing_lines"] if line > HEAD.count("\n")]
    assert [source[line - 1].strip() for line in missed] == ['found = "never"'], report.stdout


TRACED = """
seen, profiled = {}, {}

def tracer(frame, event, arg):
    if frame.f_code.co_filename.endswith("webapp.py"):
        seen.setdefault(threading.get_ident(), []).append((frame.f_code.co_name, event))
        return tracer

def traced(n):
    sys.settrace(tracer)
    try:
        wait(n)
    finally:
        sys.settrace(None)
    return seen.pop(threading.get_ident()).count(("wait", "line"))

def untraced(n):
    wait(n)
    return len(seen.get(threading.get_ident(), ()))

def either(n):
    return untraced(n) if n % 2 else traced(n)

def profiler(frame, event, arg):
    if event == "call" and frame.f_code.co_filename.endswith("webapp.py"):
        profiled.setdefault(frame.f_code.co_name, []).append(threading.get_ident())

def everywhere(n):
    wait(n)
    return [profiled["everywhere"].count(threading.get_ident()) > 0, "wait" in profiled]
"""


def test_settrace_in_a_request(serve: Serve, carrier: str) -> None:
    server = serve(*options(carrier), app=HEAD + COMMON + TRACED)
    lines = together(server, "either")
    assert lines[0] == lines[2] > 5
    assert lines[1] == lines[3] == 0


def test_a_profile_function_for_all_threads(serve: Serve, carrier: str) -> None:
    """What threading.setprofile() was told is a core's from its start."""
    app = HEAD + COMMON + TRACED + "threading.setprofile(profiler)\nsys.setprofile(profiler)\n"
    server = serve(*options(carrier), app=app)
    assert together(server, "everywhere") == [[True, True]] * N


PROFILE = """
import cProfile, pstats

one = threading.Lock()

def profile(n):
    with one:  # from 3.12 on cProfile refuses to run twice at once in a process
        profiler = cProfile.Profile()
        profiler.enable()
        wait(n, 0.01)
        profiler.disable()
    stats = {name: calls for (_, _, name), (calls, *_) in pstats.Stats(profiler).stats.items()}
    return [stats["wait"], stats.get("<built-in method time.sleep>", 0)]

def other(n):
    return wait(n, 0.001)
"""


def test_cprofile_in_a_request(serve: Serve, carrier: str) -> None:
    server = serve(*options(carrier), app=HEAD + COMMON + PROFILE)
    with ThreadPoolExecutor(2 * N) as pool:
        others = [pool.submit(ask, server, f"/other?{n}") for n in range(N)]
        found = together(server, "profile")
        # From 3.12 on cProfile loses a call now and then when other threads run, in any program.
        calls = range(4) if sys.version_info >= (3, 12) else [3]
        assert [waits for waits, _ in found] == [1] * N
        assert all(sleeps in calls for _, sleeps in found), found
        assert [each.result() for each in others] == list(range(N))


# --- From outside -------------------------------------------------------------------------------

PARKED = """
import faulthandler, signal

faulthandler.register(signal.SIGUSR1, all_threads=True)
inside, opened = 0, threading.Event()

def parked_here(n):
    global inside
    inside += 1
    print("parked", inside, file=sys.stderr, flush=True)
    opened.wait(int(os.environ["SECONDS"]))
    return n

def give(_):
    opened.set()

def dump(_):
    with open("stacks", "w") as file:
        faulthandler.dump_traceback(file)

def crash(_):
    import ctypes
    ctypes.string_at(0)
"""


def while_parked(server: Server, carrier: str, look: Callable[[], object]) -> object:
    """What LOOK finds while requests wait in parked_here(); the server goes on after it."""
    count = 1 if carrier == "inline" else N
    with ThreadPoolExecutor(N) as pool:
        asked = [pool.submit(ask, server, f"/parked_here?{n}") for n in range(count)]
        # Inline nobody else could ask: the request says it in the log.
        server.wait_log(f"parked {count}", 20)
        found = look()
        if carrier != "inline":
            ask(server, "/give")
        assert [each.result() for each in asked] == list(range(count))
    assert ask(server, "/ping") == "pong"
    return found


def serve_parked(serve: Serve, carrier: str) -> Server:
    seconds = "6" if carrier == "inline" else "60"
    return serve(*options(carrier), app=HEAD + PARKED, env={"SECONDS": seconds})


def test_faulthandler_shows_all_requests(serve: Serve, carrier: str) -> None:
    server = serve_parked(serve, carrier)
    count = 1 if carrier == "inline" else N

    def look() -> None:
        os.kill(server.pid, signal.SIGUSR1)
        server.wait_log("(?s)" + " in parked_here.*" * count, 20)

    while_parked(server, carrier, look)
    ask(server, "/dump")
    assert " in dump" in (server.folder / "stacks").read_text()


def test_faulthandler_at_a_crash(serve: Serve, carrier: str) -> None:
    server = serve(*options(carrier), app=HEAD + PARKED, env={"PYTHONFAULTHANDLER": "1"})
    server.expect_log("Fatal Python error: Segmentation fault")
    server.expected_status = -signal.SIGSEGV
    sock = server.connect()
    sock.sendall(b"GET /crash HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.wait(20)
    assert re.search(r"Fatal Python error: Segmentation fault(.|\n)* in crash", server.log)


def test_py_spy(serve: Serve, carrier: str) -> None:
    py_spy = Path(sys.executable).with_name("py-spy")
    server = serve_parked(serve, carrier)

    def look() -> str:
        command = [str(py_spy), "dump", "--pid", str(server.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if "ermission" in done.stderr:
            pytest.skip("py-spy may not look at other processes here")
        return done.stdout + done.stderr

    found = while_parked(server, carrier, look)
    assert found.count("parked_here (webapp.py") == (1 if carrier == "inline" else N), found


@pytest.mark.skipif(not shutil.which("gdb"), reason="needs gdb")
def test_gdb(serve: Serve, carrier: str) -> None:
    """Stopped and looked at, the server goes on."""
    server = serve_parked(serve, carrier)

    def look() -> str:
        command = ["gdb", "-nx", "-batch", "-p", str(server.pid), "-ex", "thread apply all bt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if "not permitted" in done.stderr:
            pytest.skip("gdb may not look at other processes here")
        return done.stdout

    found = while_parked(server, carrier, look)
    # A fiber that is set aside is on no thread: gdb sees who runs.
    waits = found.count("sem_clockwait") + found.count("sem_wait") + found.count("futex_abstimed")
    assert "_pelton" in found, found
    assert waits >= (1 if carrier == "inline" else N if carrier == "threads" else 0), found


# --- Error reports and traces ---------------------------------------------------------------------

SENTRY = """
import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

events = []

class Kept(Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event:
            events.append(event)

sentry_sdk.init(dsn="https://key@localhost/1", transport=Kept)

def fails(n):
    sentry_sdk.set_tag("number", n)
    sentry_sdk.add_breadcrumb(message=f"before {n}")
    wait(n)
    raise ValueError(f"failed {n}")

def found(_):
    return sorted([e["exception"]["values"][0]["value"], e["tags"], e["request"]["query_string"],
                   [b["message"] for b in e["breadcrumbs"]["values"]]] for e in events)

inner = application

def application(environ, start_response):
    try:
        return SentryWsgiMiddleware(inner)(environ, start_response)
    except ValueError:
        start_response("200 OK", [])
        return [b"0"]
"""


def test_sentry(serve: Serve, carrier: str) -> None:
    """Each request's exception comes with its own tags, request and breadcrumbs."""
    server = serve(*options(carrier), app=HEAD + COMMON + SENTRY)
    for _ in range(2):
        assert together(server, "fails") == [0] * N
    wanted = [[f"failed {n}", {"number": n}, f"{n}", [f"before {n}"]] for n in range(N)]
    found = [[a, {k: int(v) for k, v in b.items()}, c, d] for a, b, c, d in ask(server, "/found")]
    assert found == [each for each in wanted for _ in range(2)]


OPENTELEMETRY = """
from opentelemetry import trace
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, batched = InMemorySpanExporter(), InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
provider.add_span_processor(BatchSpanProcessor(batched, schedule_delay_millis=50))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")

def steps(n):
    for name in ("first", "second"):
        with tracer.start_as_current_span(name) as span:
            span.set_attribute("number", n)
            wait(n, 0.005)
            with tracer.start_as_current_span("inner") as inner_span:
                inner_span.set_attribute("number", n)
                time.sleep(0.005)
    return n

def spans(_):
    while len(batched.get_finished_spans()) < len(exporter.get_finished_spans()):
        time.sleep(0.01)
    found = {span.context.span_id: span for span in exporter.get_finished_spans()}
    paths = []
    for span in found.values():
        if span.name == "inner":
            way = []
            while span:
                way.append([span.name, span.attributes.get("number")])
                parent = span.parent and found.get(span.parent.span_id)
                root, span = span, parent
            query = root.attributes.get("http.target") or root.attributes.get("url.query")
            paths.append([way, query])
    return paths

application = OpenTelemetryMiddleware(application)
"""


def test_opentelemetry(serve: Serve, carrier: str) -> None:
    """The spans of requests that wait beside each other have their own parents."""
    server = serve(*options(carrier), app=HEAD + COMMON + OPENTELEMETRY)
    assert together(server, "steps") == list(range(N))
    seen = set()
    for way, query in ask(server, "/spans"):
        (inner, number), (step, same), root = way
        assert inner == "inner"
        assert number == same
        assert root[0].startswith("GET")
        assert query.endswith(str(number)), way
        seen.add((number, step))
    assert seen == {(n, step) for n in range(N) for step in ("first", "second")}

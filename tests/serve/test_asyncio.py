# SPDX-License-Identifier: Apache-2.0
"""``--asyncio``: requests schedule on the server's own event loop, which runs beside them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SLOW, Server, parse_responses, wait_until

Serve = Callable[..., Server]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "delayed"
WORDS = ("zero", "one", "two", "three", "four", "five")
FORMS = {
    "as uWSGI has it": ("--asyncio", 2, "--greenlet", "--processes", 1, "--threads", 1),
    "one": ("--asyncio", 1, "--greenlet", "--processes", 1, "--threads", 1),
    "without greenlet": ("--asyncio", 2, "--processes", 1, "--threads", 1),
    "short": ("--asyncio", 4),
}

# /NAME calls the function NAME of an app with the loop; its result is the answer. /said is what
# was said until now, one a line.
HEAD = """
import asyncio, contextvars, os, socket, sys, threading, time

words = []

def say(word, *more):
    words.append(" ".join(map(str, (word, *more))))

def said(loop):
    return "\\n".join(words)

def application(environ, start_response):
    name = environ["PATH_INFO"][1:]
    answer = globals()[name](asyncio.get_event_loop()) if name else "here"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]
"""


def said(server: Server, *wanted: str, timeout_s: float = 5.0) -> list[str]:
    """Waits until all these words are there; all that are."""
    end = time.monotonic() + timeout_s * SLOW
    while True:
        words = server.get("/said").body.decode().split("\n")
        if all(word in words for word in wanted):
            return words
        assert time.monotonic() < end, f"{wanted} expected, said are {words}\n{server.log}"
        time.sleep(0.02)


def lines_of(log: str) -> dict[str, int]:
    whole = [f"{i}:{word}" for i, word in enumerate(WORDS)]
    lines = log.splitlines()
    return {line: lines.count(line) for line in whole}


@pytest.fixture
def delayed() -> dict[str, str]:
    """The example, with a delay that suits a test."""
    text = (EXAMPLE / "webapp.py").read_text()
    assert "call_later(5, read)" in text
    return {
        "webapp.py": text.replace("call_later(5, read)", "call_later(0.5, read)"),
        "numbers.txt": (EXAMPLE / "numbers.txt").read_text(),
    }


# --- The example ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_example(serve: Serve, delayed: dict[str, str], form: str) -> None:
    options = (*FORMS[form], "--logto", "pelton.log", "--wsgi-file", "webapp.py")
    server = serve(*options, files=delayed)
    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for _ in range(2):
        answers = parse_responses(server.raw(request * 99 + last))
        assert [a.body for a in answers] == [b"Hello World"] * 100
    wait_until(lambda: lines_of(server.log)["5:five"] == 200, 20 * SLOW)
    assert set(lines_of(server.log).values()) == {200}
    assert server.stop() == 0
    assert "dropped" not in server.log


def test_two_processes(serve: Serve, delayed: dict[str, str]) -> None:
    """Each worker has a home loop of its own, though the application was loaded before the fork."""
    server = serve("--asyncio", 2, "--processes", 2, "--wsgi-file", "webapp.py", files=delayed)
    for _ in range(40):
        assert server.get().body == b"Hello World"
    wait_until(lambda: lines_of(server.log)["5:five"] == 40, 20 * SLOW)
    assert set(lines_of(server.log).values()) == {40}


# --- Which loop -------------------------------------------------------------------------------


def test_the_current_loop(serve: Serve) -> None:
    """The same in every request; it is running, but not in a request; nobody takes it away."""
    app = (
        HEAD
        + """
import pelton
first = asyncio.get_event_loop()

def facts(loop):
    try:
        asyncio.get_running_loop()
        running = True
    except RuntimeError:
        running = False
    return loop is first, isinstance(loop, pelton.Loop), loop.is_running(), running

def nested(loop):
    return asyncio.run(asyncio.sleep(0.01, "ran"))

def takes(loop):
    asyncio.set_event_loop(None)
    asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())

def refused(loop):
    found = []
    def complete():
        loop.run_until_complete(loop.create_future())
    for call in (loop.run_forever, loop.stop, loop.close, complete):
        try:
            call()
        except RuntimeError as exc:
            found.append(str(exc))
    return len(found), loop.is_running()

def later(loop):
    loop.call_later(0.05, say, "later")

def inside(loop):
    loop.call_soon(lambda: say("inside", asyncio.get_running_loop() is first,
                               threading.current_thread() is threading.main_thread()))
"""
    )
    server = serve("--asyncio", 2, app=app)
    for name in ("/facts", "/nested", "/facts", "/takes", "/facts", "/refused", "/facts"):
        answer = server.get(name).body.decode()
        assert name != "/facts" or answer == "(True, True, True, False)"
        assert name != "/nested" or answer == "ran"
        assert name != "/refused" or answer == "(4, True)"
    server.get("/later")
    server.get("/inside")
    said(server, "later", "inside True True")


def test_at_import(serve: Serve) -> None:
    """run_until_complete works while the application is loaded, and what is left over waits."""
    app = (
        HEAD
        + """
here, there = socket.socketpair()

async def prepare():
    loop = asyncio.get_running_loop()
    loop.call_later(0.3, say, "timer", "of", "import")
    loop.add_reader(there, lambda: (say("read", there.recv(9)), loop.remove_reader(there)))
    task = loop.create_task(goes_on())
    await asyncio.sleep(0.05)
    return task

async def goes_on():
    say("begun")
    await asyncio.sleep(0.3)
    say("ended")

task = asyncio.get_event_loop().run_until_complete(prepare())
asyncio.get_event_loop().call_soon(say, "soon")

def send(loop):
    here.send(b"x")
"""
    )
    server = serve("--asyncio", 2, app=app)
    words = said(server, "ended", "soon", "timer of import")
    assert words[0] == "begun"
    server.get("/send")
    said(server, "read b'x'")


# --- Scheduling -------------------------------------------------------------------------------


def test_ways_to_schedule(serve: Serve) -> None:
    app = (
        HEAD
        + """
def soon(loop):
    for i in range(3):
        loop.call_soon(say, "soon", i)

def timers(loop):
    at = loop.time()
    for i in (3, 1, 2):
        loop.call_at(at + i / 20, say, "timer", i)
    loop.call_later(0.05, say, "cancelled").cancel()
    loop.call_soon(say, "cancelled").cancel()
    late = loop.call_later(0.1, say, "cancelled")
    loop.call_later(0.02, late.cancel)
    loop.call_later(0.2, say, "timers")

def thread(loop):
    def work():
        for i in range(20):
            loop.call_soon_threadsafe(say, "thread", i)
        loop.call_soon_threadsafe(loop.call_later, 0.01, say, "threads")
    threading.Thread(target=work).start()

def executor(loop):
    name = threading.current_thread().name
    future = loop.run_in_executor(None, lambda: threading.current_thread().name != name)
    future.add_done_callback(lambda f: say("executor", f.result()))

def reader(loop):
    here, there = socket.socketpair()
    def ready():
        say("read", there.recv(10))
        say("removed", loop.remove_reader(there), loop.remove_reader(there))
        here.close(), there.close()
    def writable():
        say("written", here.send(b"text"))
        loop.remove_writer(here)
    loop.add_reader(there, ready)
    loop.add_writer(here, writable)
"""
    )
    server = serve("--asyncio", 3, app=app)
    for name in ("/soon", "/timers", "/thread", "/executor", "/reader"):
        assert server.get(name).status == 200
    words = said(server, "soon 2", "timers", "threads", "executor True", "removed True False")
    assert [w for w in words if w.startswith("soon")] == ["soon 0", "soon 1", "soon 2"]
    assert [w for w in words if w.startswith("timer ")] == ["timer 1", "timer 2", "timer 3"]
    assert [w for w in words if w.startswith("thread ")] == [f"thread {i}" for i in range(20)]
    assert "read b'text'" in words
    assert "cancelled" not in words


def test_a_thread_wakes_a_sleeping_server(serve: Serve) -> None:
    """A timer that a thread sets comes in time, though nothing else happens in the server."""
    app = (
        HEAD
        + """
def thread(loop):
    def work():
        time.sleep(0.3)
        loop.call_soon_threadsafe(print, "in the log")
        loop.call_later(0.1, print, "a timer")
    threading.Thread(target=work).start()
"""
    )
    server = serve("--asyncio", 1, app=app)
    server.get("/thread")
    server.wait_log("^in the log$")
    server.wait_log("^a timer$")


def test_tasks(serve: Serve) -> None:
    """Made on home, in a copy of the request's context; the request gets a future."""
    app = (
        HEAD
        + """
variable = contextvars.ContextVar("variable", default="nothing")
kept = {}

async def work(word, delay=0.05):
    try:
        await asyncio.sleep(delay)
        say(word, variable.get(), asyncio.current_task().get_name(),
            threading.current_thread() is threading.main_thread())
        return word
    except asyncio.CancelledError:
        say(word, "cancelled")
        raise

def make(loop):
    variable.set("mine")
    kept["t"] = loop.create_task(work("task"), name="own")
    kept["t"].add_done_callback(lambda t: say("over", t is kept["t"], t.result()))
    return kept["t"].get_name()

def ensure(loop):
    kept["e"] = asyncio.ensure_future(work("ensured"), loop=loop)

def cancel(loop):
    early = loop.create_task(work("early", 9))
    early.cancel()
    kept["c"] = loop.create_task(work("late", 9))
    loop.call_later(0.1, kept["c"].cancel)
    return early.cancelled()

def fails(loop):
    async def failing():
        raise LookupError("in a task")
    kept["f"] = loop.create_task(failing())
    kept["f"].add_done_callback(lambda t: say("failed", repr(t.exception())))

def waits(loop):
    return asyncio.run_coroutine_threadsafe(work("from afar"), loop).result(5)

def nothing_left(loop):
    return kept["c"].cancelled(), len(asyncio.all_tasks(loop))
"""
    )
    server = serve("--asyncio", 3, app=app)
    assert server.get("/make").body == b"own"
    assert server.get("/ensure").status == 200
    assert server.get("/cancel").body == b"True"
    assert server.get("/fails").status == 200
    assert server.get("/waits").body == b"from afar"
    words = said(
        server,
        "task mine own True",
        "over True task",
        "late cancelled",
        "failed LookupError('in a task')",
    )
    assert any(re.fullmatch(r"ensured nothing Task-\d+ True", word) for word in words)
    assert "early cancelled" not in words
    assert server.get("/nothing_left").body == b"(True, 0)"


# --- What goes wrong --------------------------------------------------------------------------


def test_a_callback_fails(serve: Serve) -> None:
    app = (
        HEAD
        + """
def bad(text):
    raise ValueError(text)

def fails(loop):
    loop.call_soon(bad, "not a number")
    loop.call_soon(say, "after")

def handled(loop):
    loop.set_exception_handler(lambda loop, context: say("handler", repr(context["exception"])))
    loop.call_later(0.01, bad, "nor this")
"""
    )
    server = serve("--asyncio", 2, app=app)
    server.expect_log("(?s)Traceback.*in bad.*not a number")
    server.get("/fails")
    said(server, "after")
    server.wait_log("^Exception in callback bad(.|\n)*ValueError: not a number")
    server.get("/handled")
    said(server, "handler ValueError('nor this')")


def test_a_callback_exits(serve: Serve) -> None:
    """sys.exit() in a callback ends the server as SIGTERM does: requests under way finish."""
    app = (
        HEAD
        + """
def leave(loop):
    loop.call_soon(sys.exit, 3)
    time.sleep(0.3)
    return "finished"
"""
    )
    server = serve("--asyncio", 2, app=app)
    server.expect_log(r"a callback raised SystemExit\(3\): the server stops")
    assert server.get("/leave").body == b"finished"
    assert server.wait() == 0


def test_debug_mode(serve: Serve) -> None:
    """Scheduling from a request is legal in debug mode, too; from a foreign thread it is not."""
    app = (
        HEAD
        + """
def debug(loop):
    loop.set_debug(True)
    loop.call_soon(say, "soon")
    loop.call_later(0.01, say, "later")
    loop.call_soon(time.sleep, 0.15)
    def work():
        try:
            loop.call_soon(say, "wrong")
        except RuntimeError as exc:
            say("refused")
    threading.Thread(target=work).start()
"""
    )
    server = serve("--asyncio", 2, app=app)
    server.get("/debug")
    words = said(server, "soon", "later", "refused")
    assert "wrong" not in words
    server.wait_log(r"Executing <Handle sleep\(0.15\) created at .*webapp.py:\d+> took 0\.\d+ sec")


def test_blocking_in_a_coroutine(serve: Serve) -> None:
    """It stops asyncio, but not the server."""
    app = (
        HEAD
        + """
going = threading.Event()

def block(loop):
    async def waits():
        say("waits")
        going.wait(20)
        say("went on")
    loop.create_task(waits())
    loop.call_later(0.05, say, "timer")

def go(loop):
    going.set()
"""
    )
    server = serve("--asyncio", 2, app=app)
    server.get("/block")
    said(server, "waits")
    for _ in range(20):
        assert server.get("/").body == b"here"
    assert "timer" not in said(server)
    server.get("/go")
    assert said(server, "timer")[:2] == ["waits", "went on"]


def test_fork(serve: Serve) -> None:
    """In a child the loop is closed; it has one of its own; the parent's goes on."""
    app = (
        HEAD
        + """
def in_child(work):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer

def request(loop):
    loop.call_later(0.5, say, "timer")
    return in_child(lambda: (loop.is_closed(), asyncio.run(asyncio.sleep(0.01, "ran"))))

def callback(loop):
    def forks():
        say("child", in_child(lambda: loop.is_closed()))
    loop.call_soon(forks)
    loop.call_soon(say, "after")

def returns(loop):
    def forks():
        pid = os.fork()
        if pid:
            say("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    loop.call_soon(forks)
    loop.call_soon(say, "once")

def gathers(loop):
    here, there = socket.socketpair()
    async def connects():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
        def forks():
            for text in (b"a", b"b", b"c"):
                transport.write(text)
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                loop.call_soon(lambda: say("sent", there.recv(9)))
        loop.call_soon(forks)
    loop.create_task(connects())
"""
    )
    server = serve("--asyncio", 2, app=app)
    assert server.get("/request").body == b"(True, 'ran')"
    server.get("/callback")
    server.get("/returns")
    words = said(server, "child True", "after", "status 70", "once", "timer")
    assert len(words) == len(set(words))
    server.get("/gathers")
    said(server, "sent b'abc'")


def test_output_in_tls_is_the_parents(serve: Serve, certificate: Path) -> None:
    """Also what was gathered when the process forked: it is sent once."""
    app = (
        HEAD
        + """
import ssl

def gathers(loop):
    here, there = socket.socketpair()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
    theirs.load_cert_chain("certificate.pem", "key.pem")
    class Peer(asyncio.Protocol):
        got = b""
        def data_received(self, data):
            self.got += data
        def connection_lost(self, exc):
            say("got", self.got, exc)
    async def connects():
        peer = loop.create_task(loop.connect_accepted_socket(Peer, there, ssl=theirs))
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=here, ssl=ours, server_hostname="h")
        await peer
        def forks():
            for text in (b"a", b"b", b"c"):
                transport.write(text)
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                transport.close()
        loop.call_soon(forks)
    loop.create_task(connects())
"""
    )
    names = ("certificate.pem", "key.pem")
    files = {name: (certificate / name).read_bytes() for name in names}
    server = serve("--asyncio", 2, app=app, files=files)
    server.get("/gathers")
    said(server, "got b'abc' None")


# --- The end ----------------------------------------------------------------------------------

END = (
    HEAD
    + """
def later(loop):
    loop.call_later(0.7, print, "it was time")
    loop.call_later(60, print, "never").cancel()

def far(loop):
    for _ in range(3):
        loop.call_later(60, print, "never")

def task(loop):
    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            print("cleaned up")
    async def generate():
        try:
            while True:
                yield 1
        finally:
            print("generator closed")
    async def iterate():
        async for _ in generate():
            await asyncio.sleep(60)
    global kept
    kept = [loop.create_task(work()), loop.create_task(iterate())]

def stubborn(loop):
    async def work():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                print("no")
    global kept
    kept = loop.create_task(work())
"""
)


def test_calls_are_dropped(serve: Serve) -> None:
    server = serve("--asyncio", 2, app=END)
    server.expect_log("asyncio: 3 scheduled calls are not due yet and are dropped")
    server.get("/far")
    assert server.stop() == 0
    assert "never" not in server.log


def test_drain(serve: Serve) -> None:
    """It waits for what is due in time, and says what is not."""
    server = serve("--asyncio", 2, "--asyncio-drain", 20, app=END)
    server.get("/later")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10 * SLOW  # not until the end of the drain
    assert "\nit was time\n" in server.log
    server = serve("--asyncio", 2, "--asyncio-drain", "0.3", app=END)
    server.expect_log("asyncio: 3 scheduled calls are not due yet and are dropped")
    server.get("/far")
    assert server.stop() == 0


def test_tasks_clean_up(serve: Serve) -> None:
    server = serve("--asyncio", 2, app=END)
    server.expect_log("asyncio: 2 scheduled calls are not due yet and are dropped")
    server.get("/task")
    time.sleep(0.1)
    assert server.stop() == 0
    assert "\ncleaned up\n" in server.log
    assert "\ngenerator closed\n" in server.log


def test_a_task_that_will_not_end(serve: Serve) -> None:
    server = serve("--asyncio", 2, app=END)
    server.expect_log("asyncio: 1 scheduled call is not due yet and is dropped")
    server.expect_log("it went on when the server ended, and is lost", required=False)
    server.expect_log("Task was destroyed but it is pending", required=False)
    server.get("/stubborn")
    time.sleep(0.1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 8 * SLOW
    assert "\nno\n" in server.log
    assert "is lost: <Task" in server.log

# SPDX-License-Identifier: Apache-2.0
"""ASGI: http and lifespan, on the real server, in each carrier that serves it."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable

import pytest
from harness import SLOW, Server, parse_responses, said, wait_until

Serve = Callable[..., Server]

# /NAME?ARGUMENT calls the coroutine function NAME; /said is what was said until now.
HEAD = """
import asyncio, contextvars, json, os
import pelton

words = []

def say(*parts):
    words.append(" ".join(map(str, parts)))

async def start(send, status=200, headers=(), **more):
    await send({"type": "http.response.start", "status": status, "headers": headers, **more})

async def body(send, data=b"", more=False):
    await send({"type": "http.response.body", "body": data, "more_body": more})

async def answer(send, value):
    data = value if isinstance(value, bytes) else str(value).encode()
    await start(send, headers=[(b"content-type", b"text/plain")])
    await body(send, data)

async def hello(scope, receive, send):
    await answer(send, "Hello, world!")

async def said(scope, receive, send):
    await answer(send, "\\n".join(words))

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await globals()[scope["path"].split("/")[1] or "hello"](scope, receive, send)
"""


def test_hello_again_and_again(serve: Serve, kind: tuple[str, ...]) -> None:
    server = serve(*kind, app=HEAD)
    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answers = parse_responses(server.raw(request * 99 + last))
    assert [a.body for a in answers] == [b"Hello, world!"] * 100
    assert {a["content-length"] for a in answers} == {"13"}
    assert server.request("/", "HEAD").body == b""


def test_scope(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def scope(scope, receive, send):
    await answer(send, json.dumps({k: repr(v) for k, v in scope.items()}))

pre = scope
"""
    )
    server = serve(*kind, "--root-path", "/pre", app=app)
    headers = {"X-Twice": "1", "X_Under": "no", "Accept": "*/*"}
    seen = json.loads(server.get("/scope/%C3%A4%20b?a=%20", headers=headers).body)
    assert seen["path"] == repr("/pre/scope/ä b")
    assert seen["raw_path"] == repr(b"/pre/scope/%C3%A4%20b")
    assert seen["query_string"] == repr(b"a=%20")
    assert seen["root_path"] == "'/pre'"
    assert seen["method"] == "'GET'"
    assert seen["http_version"] == "'1.1'"
    assert seen["asgi"] == repr({"version": "3.0", "spec_version": "2.5"})
    assert seen["server"] == repr(("127.0.0.1", server.port))
    assert seen["client"].startswith("('127.0.0.1', ")
    assert "(b'x-twice', b'1')" in seen["headers"]
    assert "under" not in seen["headers"]
    assert "state" not in seen


@pytest.mark.parametrize("trusted", [True, False])
def test_forwarded(serve: Serve, trusted: bool) -> None:
    app = (
        HEAD
        + """
async def scope(scope, receive, send):
    host = dict(scope["headers"])[b"host"].decode()
    await answer(send, repr([scope["client"][0], scope["scheme"], host]))
"""
    )
    server = serve("--forwarded-allow-ips", "127.0.0.1" if trusted else "10.0.0.1", app=app)
    headers = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "example.org",
    }
    expected = ["192.0.2.7", "https", "example.org"] if trusted else None
    seen = server.get("/scope", headers=headers).body.decode()
    assert seen == repr(expected or ["127.0.0.1", "http", "localhost"])
    for _ in range(3):  # lines that are kept, since no value is a client's own
        seen = server.get("/scope", headers={"X-Forwarded-Proto": "https"}).body.decode()
        assert seen == repr(["127.0.0.1", "https" if trusted else "http", "localhost"])


def test_bodies(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def echo(scope, receive, send):
    data, parts = b"", 0
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        data += message["body"]
        parts += 1
        if not message["more_body"]:
            break
    await start(send, headers=[(b"parts", b"%d" % parts)])
    await body(send, data)
"""
    )
    server = serve(*kind, app=app)
    assert server.request("/echo", "POST").body == b""
    small = server.request("/echo", "POST", body=b"x" * 1000)
    assert (small.body, small["parts"]) == (b"x" * 1000, "1")  # which says that it is all
    big = bytes(range(256)) * 4000
    assert server.request("/echo", "POST", body=big).body == big
    chunked = (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    parts = [chunked, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"]
    assert parse_responses(server.raw(*parts, gap_s=0.05))[0].body == b"abcde"


def test_a_real_task(serve: Serve, kind: tuple[str, ...]) -> None:
    """current_task, timeout(), TaskGroup, contextvars, and a send that is a task of its own."""
    app = (
        HEAD
        + """
variable = contextvars.ContextVar("variable", default="unset")

async def facts(scope, receive, send):
    before = variable.get()
    variable.set("set")
    task = asyncio.current_task()
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.01))
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)
    except TimeoutError:
        timed_out = True
    assert asyncio.current_task() is task and isinstance(task, asyncio.Task)
    await asyncio.create_task(start(send))
    await asyncio.create_task(send({"type": "http.response.body", "body": repr(
        [before, variable.get(), timed_out,
         isinstance(asyncio.get_running_loop(), pelton.Loop)]).encode()}))
"""
    )
    server = serve(*kind, app=app)
    for _ in range(3):
        assert server.get("/facts").body == b"['unset', 'set', True, True]"


def test_disconnect(serve: Serve, kind: tuple[str, ...]) -> None:
    """receive() says at once that the client has left; sending is an OSError after that."""
    app = (
        HEAD
        + """
async def stream(scope, receive, send):
    await receive()
    await start(send)
    await body(send, b"first", True)
    message = await receive()
    say("got", message["type"])
    try:
        while True:
            await body(send, b"x" * 1000, True)
            await asyncio.sleep(0.001)
    except OSError as exc:
        say("raised", type(exc).__name__, isinstance(exc, pelton.ClientDisconnected))
"""
    )
    server = serve(*kind, app=app)
    sock = server.connect()
    sock.sendall(b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n")
    received = b""
    while b"first" not in received:
        received += sock.recv(4096)
    sock.close()
    assert said(server, "got") == "got http.disconnect"
    assert said(server, "raised") == "raised ClientDisconnected True"


def test_back_pressure(serve: Serve, kind: tuple[str, ...]) -> None:
    """send() waits while the client takes nothing."""
    app = (
        HEAD
        + """
async def flood(scope, receive, send):
    await start(send)
    for i in range(400):
        await body(send, b"x" * 100_000, True)
        words[:] = [f"sent {i}"]
    await body(send)
"""
    )
    server = serve(*kind, app=app)
    sock = server.connect()
    sock.sendall(b"GET /flood HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    first = said(server, "sent")
    time.sleep(0.3)
    assert int(said(server, "sent").split()[1]) < 399, first
    received = b""
    while data := sock.recv(1 << 20):
        received += data
    assert len(parse_responses(received)[0].body) == 40_000_000


def test_one_send_at_a_time(serve: Serve, kind: tuple[str, ...]) -> None:
    """A second one would stand in the middle of the first; so would one after a cancelled one."""
    app = (
        HEAD
        + """
async def twice(scope, receive, send):
    await start(send)
    first = asyncio.create_task(body(send, b"x" * 20_000_000, True))
    for _ in range(2):
        await asyncio.sleep(0.05)
        try:
            await body(send, b"y", True)
        except RuntimeError as exc:
            say(exc)
        first.cancel()
"""
    )
    server = serve(*kind, app=app)
    server.expect_log("without completing its response")
    sock = server.connect()
    sock.sendall(b"GET /twice HTTP/1.1\r\nHost: h\r\n\r\n")
    assert said(server, "send") == "send() is under way already"
    assert said(server, "a send").endswith("cancelled when a part of its body had gone")
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(1 << 20):
            received += data
    assert b"y" not in received


ORDER = {
    "body_first": ("await body(send)", 500, "Expected ASGI message 'http.response.start', but got"),
    "two_starts": ("await start(send); await start(send)", 0, "Expected ASGI message 'http.resp"),
    "nothing": ("pass", 500, "returned without starting its response"),
    "half": ("await start(send); await body(send, b'x', True)", 0, "without completing its resp"),
    "boom": ("raise KeyError('boom')", 500, "KeyError: 'boom'"),
    "late": (
        "await start(send); await body(send, b'x', True); raise KeyError('late')",
        0,
        "'late'",
    ),
    "crlf": ("await start(send, headers=[(b'a', b'b\\r\\nc: d')])", 500, "cannot be sent"),
    "text": ("await start(send, headers=[('a', 'b')])", 500, "must be bytes"),
    "long": (
        "await start(send, headers=[(b'content-length', b'1')]); await body(send, b'ab')",
        0,
        "Response content longer than Content-Length",
    ),
    "short": (
        "await start(send, headers=[(b'content-length', b'3')]); await body(send, b'ab')",
        0,
        "Response content shorter than Content-Length",
    ),
    "after": ("await answer(send, 'x'); await body(send)", 200, "after response already completed"),
    "dict": ("await send(1)", 500, "an ASGI message must be a dict"),
    "listed": ("await start(send); await body(send, [1, 2])", 0, "body must be bytes, not list"),
}


@pytest.mark.parametrize("name", ORDER)
def test_errors(serve: Serve, name: str) -> None:
    """A wrong message is an exception that names it; no client takes a piece for the whole."""
    code, status, text = ORDER[name]
    app = HEAD + f"\nasync def {name}(scope, receive, send):\n    {code}\n"
    server = serve(app=app)
    server.expect_log(r"\[error\]")
    server.expect_log("Traceback", required=False)
    received = server.raw(
        f"GET /{name} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode(), allow_reset=True
    )
    if status:
        assert parse_responses(received)[0].status == status
    else:
        with pytest.raises(AssertionError):  # cut short
            assert parse_responses(received), "no answer"
    assert server.get().body == b"Hello, world!"
    wait_until(lambda: text in server.log, 5 * SLOW, f"{text!r} is not in the log")
    assert "never retrieved" not in server.log


ODD = """
class Text(str): pass
class Data(bytes): pass
class Message(dict): pass

def text(word):  # equal to the constant, and another object
    return "".join(list(word))

def fresh(message):
    return {text(key): value for key, value in message.items()}

class Bad:
    '''Empties the message while it is read.'''
    def __init__(self, message): self.message = message
    def __bool__(self): self.message.clear(); return False

async def odd(scope, receive, send):
    how = scope["query_string"].decode()
    head = {"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1")]}
    tail = {"type": "http.response.body", "body": b"odd"}
    if how == "keys":
        head, tail = fresh(head), fresh(tail)
    elif how == "types":
        head["type"], tail["type"] = Text(head["type"]), text(tail["type"])
    elif how == "dicts":
        head, tail = Message(head), Message(tail)
    elif how == "more":
        head["color"] = tail["color"] = "green"
    elif how == "generator":
        head["headers"] = (pair for pair in [[b"x-a", b"1"]])
        tail["body"] = bytearray(b"odd")
    elif how == "lists":
        head["headers"] = ([b"x-a", Data(b"1")],)
        tail["body"] = Data(b"odd")
    elif how == "flags":
        head["trailers"] = tail["more_body"] = 0
    elif how == "clears":
        tail["more_body"] = Bad(tail)
    await send(head)
    await send(tail)
"""


@pytest.mark.parametrize(
    "how",
    ["plain", "keys", "types", "dicts", "more", "generator", "lists", "flags", "clears"],
)
def test_odd_messages(serve: Serve, how: str) -> None:
    """What is equal to the usual message means the same; code that it runs can do no harm."""
    server = serve(app=HEAD + ODD)
    for _ in range(3):
        response = server.get(f"/odd?{how}")
        assert (response.status, response.all("x-a")) == (201, ["1"])
        assert response.body == (b"" if how == "clears" else b"odd")


def test_a_scope_is_the_requests_own(serve: Serve, kind: tuple[str, ...]) -> None:
    """What an application does to its scope is not in the next one, though its lines are equal."""
    app = (
        HEAD
        + """
async def mine(scope, receive, send):
    seen = json.dumps([scope["headers"], scope["extensions"], scope["method"]], default=repr)
    scope["headers"].append((b"x-mine", b"1"))
    scope["headers"][0] = (b"host", b"changed")
    scope["extensions"]["mine"] = {}
    scope.clear()
    await answer(send, seen)
"""
    )
    server = serve(*kind, app=app)
    one = b"GET /mine HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nAccept: */*\r\n"
    plain = b"GET /mine HTTP/1.1\r\nHost: h\r\nUser-Agent: a\r\nAccept: */*\r\n"
    other = b"GET /mine HTTP/1.1\r\nHost: h\r\nUser-Agent: b\r\nAccept: */*\r\n"
    secret = b"GET /mine HTTP/1.1\r\nHost: h\r\nCookie: %d\r\nAccept: */*\r\n"
    heads = [plain, plain, one, one, other, plain, *[other] * 40, *(secret % i for i in range(4))]
    data = b"".join(head + b"\r\n" for head in heads[:-1])
    data += heads[-1] + b"Connection: close\r\n\r\n"
    bodies = [response.body for response in parse_responses(server.raw(data))]
    assert len(bodies) == len(heads)
    for head, body in zip(heads, bodies, strict=True):
        headers, extensions, method = json.loads(body)
        lines = [line.split(b": ") for line in head.split(b"\r\n")[1:-1]]
        assert [repr(part) for line in lines for part in (line[0].lower(), line[1])] == [
            part for pair in headers for part in pair
        ][: 2 * len(lines)]
        assert len(headers) == len(lines) + (head is heads[-1])
        assert "mine" not in extensions
        assert method == "GET"


@pytest.mark.parametrize("when", ["at once", "later"])
def test_exit_in_a_request_stops_the_server(serve: Serve, kind: tuple[str, ...], when: str) -> None:
    app = HEAD + (
        "\nasync def leave(scope, receive, send):\n"
        + ("    await asyncio.sleep(0.01)\n" if when == "later" else "")
        + "    raise SystemExit(3)\n"
    )
    server = serve(*kind, app=app)
    server.expect_log(r"a callback raised SystemExit\(3\): the server stops")
    server.expect_log(r"\[error\]|Traceback", required=False)
    assert server.get("/leave").status == 500
    assert server.wait() == 0


FORGED = "[2026-01-01 00:00:00 +0000] [1] [error] forged"


@pytest.mark.parametrize("where", ["request", "task", "callback"])
def test_what_asyncio_logs_cannot_forge_lines(serve: Serve, where: str) -> None:
    """A message may be what a client has sent: also in what asyncio says by logging."""
    app = HEAD + (
        f"\ndef fail():\n    raise ValueError('a\\n{FORGED}\\n{FORGED}')\n"
        "\nasync def task():\n    fail()\n"
        "\nasync def request(scope, receive, send):\n    fail()\n"
        "\nasync def in_task(scope, receive, send):\n"
        "    asyncio.ensure_future(task())\n    await asyncio.sleep(0)\n"
        "    await answer(send, 'x')\n"
        "\nasync def in_callback(scope, receive, send):\n"
        "    asyncio.get_running_loop().call_soon(fail)\n    await answer(send, 'x')\n"
    )
    server = serve(app=app)
    server.expect_log(r"\[error\]|Traceback", required=False)
    server.get("/request" if where == "request" else f"/in_{where}")
    server.wait_log("forged")
    server.stop()
    lines = server.log.splitlines()
    assert lines.count("    " + FORGED) == 2
    assert not any(line.startswith(FORGED) for line in lines)


LIFESPAN = """
import asyncio, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["count"] = 1
        scope["state"]["pid"] = os.getpid()
        scope["state"]["loop"] = asyncio.get_running_loop()
        ticker = asyncio.create_task(tick())
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await asyncio.sleep(0.02)
        print("ticker", ticker.done(), flush=True)
        ticker.cancel()
        print("clean end", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    state = scope["state"]
    same = state["loop"] is asyncio.get_running_loop() and state["pid"] == os.getpid()
    state["count"] += 1
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": f"{state['count']} {same}".encode()})

async def tick():
    while True:
        await asyncio.sleep(0.01)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_lifespan(serve: Serve, kind: tuple[str, ...], processes: int) -> None:
    """State is each worker's, and copied for each request; what runs beside goes on to the end."""
    server = serve(*kind, "--processes", processes, app=LIFESPAN)
    for _ in range(5):
        assert server.get().body == b"2 True"
    assert server.stop() == 0
    assert server.log.count("clean end") == processes
    assert server.log.count("ticker False") == processes
    assert "never" not in server.log


FAILS = {
    "failed": "await send({'type': 'lifespan.startup.failed', 'message': 'no db'})",
    "crash": "await receive(); raise KeyError('no db')",
}


@pytest.mark.parametrize("master", [(), ("--master",)])
@pytest.mark.parametrize("how", FAILS)
def test_lifespan_fails(
    run_pelton: Callable[..., object], tmp_path: object, how: str, master: tuple[str, ...]
) -> None:
    text = f"async def app(scope, receive, send):\n    {FAILS[how]}\n"
    (tmp_path / "failing.py").write_text(text)  # type: ignore[operator]
    done = run_pelton(
        "--lifespan", "on", "--bind", "127.0.0.1:0", *master, "failing.py", timeout_s=10
    )
    assert done.returncode == 3, done  # type: ignore[attr-defined]
    output = done.stdout + done.stderr  # type: ignore[attr-defined]
    assert "start-up failed" in output
    assert "no db" in output


def test_threads_are_refused(run_pelton: Callable[..., object], tmp_path: object) -> None:
    (tmp_path / "some.py").write_text("async def app(scope, receive, send): pass\n")  # type: ignore[operator]
    done = run_pelton("--threads", 4, "--bind", "127.0.0.1:0", "some.py")
    assert done.returncode == 2  # type: ignore[attr-defined]
    assert "'--threads 4' is for WSGI" in done.stdout + done.stderr  # type: ignore[attr-defined]


def test_version_2(serve: Serve) -> None:
    app = """
class app:
    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        if self.scope["type"] != "http":
            raise ValueError("http only")
        version = self.scope["asgi"]["version"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": version})
"""
    server = serve("--interface", "asgi2", app=app)
    assert server.get().body == b"2.0"


def test_extensions(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def trailers(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await start(send, trailers=True)
    await body(send, b"data")
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

async def path(scope, receive, send):
    await start(send, headers=[(b"content-length", b"5000000")])
    await send({"type": "http.response.pathsend", "path": os.path.abspath("big")})

async def zero(scope, receive, send):
    await start(send)
    with open("big", "rb") as file:
        await send({"type": "http.response.zerocopysend", "file": file, "offset": 10,
                    "count": 20, "more_body": True})
    await body(send, b"end")
"""
    )
    server = serve(*kind, app=app)
    content = bytes(range(250)) * 20000
    server.write("big", content)
    raw = server.raw(b"GET /trailers HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    hint, answer = parse_responses(raw)
    assert (hint.status, hint["link"]) == (103, "</a.css>; rel=preload")
    assert (answer.body, answer.trailers) == (b"data", [("x-sum", "1")])
    assert server.get("/path").body == content
    assert server.get("/zero").body == content[10:30] + b"end"


def test_stop_cuts(serve: Serve, kind: tuple[str, ...]) -> None:
    """After the grace open requests are cancelled, and their finally blocks run."""
    app = (
        HEAD
        + """
async def wait(scope, receive, send):
    words.append("waiting")
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up", flush=True)
"""
    )
    server = serve(*kind, "--shutdown-timeout", "0.2", app=app)
    server.expect_log(r"1 request is cut")
    sock = server.connect()
    sock.sendall(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
    said(server, "waiting")
    assert server.stop(signal.SIGTERM) == 0
    assert "cleaned up" in server.log
    assert "never" not in server.log


def test_a_cut_request_is_over_before_the_lifespan(serve: Serve, kind: tuple[str, ...]) -> None:
    """It is cancelled, and receive() says why at once: shutdown comes when no request runs."""
    app = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for name in ("startup", "shutdown"):
            await receive()
            print("lifespan", name, flush=True)
            await send({"type": f"lifespan.{name}.complete"})
        return
    await receive()
    print("waiting", flush=True)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
    message = await receive()
    print("told", message["type"], flush=True)
"""
    server = serve(*kind, "--shutdown-timeout", "0.2", app=app)
    server.expect_log(r"1 request is cut")
    sock = server.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    server.wait_log("waiting")
    assert server.stop(signal.SIGTERM) == 0
    lines = server.log.splitlines()
    wanted = ["cancelled", "told http.disconnect", "lifespan shutdown"]
    assert [line for line in lines if line in wanted] == wanted
    with sock:  # in time for an answer
        assert sock.recv(100).startswith(b"HTTP/1.1 503 ")

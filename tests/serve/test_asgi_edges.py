# SPDX-License-Identifier: Apache-2.0
"""ASGI at its edges: scopes of odd requests, files, trailers, statuses, what other tasks do."""

from __future__ import annotations

import json
from collections.abc import Callable

from harness import Server, parse_responses
from test_asgi import HEAD

Serve = Callable[..., Server]

SCOPE = (
    HEAD
    + """
async def app(scope, receive, send):
    fields = ("http_version", "path", "raw_path", "query_string", "client", "server", "headers")
    await answer(send, json.dumps({name: repr(scope[name]) for name in fields}))
"""
)


def scope_of(server: Server, request: bytes) -> dict[str, str]:
    (answer,) = parse_responses(server.raw(request))
    assert answer.status == 200
    return json.loads(answer.body)


def test_odd_scopes(serve: Serve) -> None:
    server = serve(app=SCOPE)
    seen = scope_of(server, b"GET /a%20%ff%c3?%ff HTTP/1.0\r\n\r\n")
    assert seen["http_version"] == "'1.0'"
    assert seen["path"] == repr("/a \ufffd\ufffd")
    assert seen["raw_path"] == repr(b"/a%20%ff%c3")
    assert seen["query_string"] == repr(b"%ff")
    assert seen["headers"] == "[]"
    # An absolute target is the host, whatever Host says.
    seen = scope_of(
        server,
        b"GET http://other.example:8/x HTTP/1.1\r\nHost: some.example\r\nConnection: close\r\n\r\n",
    )
    assert seen["path"] == repr("/x")
    assert "(b'host', b'other.example:8')" in seen["headers"]
    assert "some.example" not in seen["headers"]


def test_scope_on_a_unix_socket(serve: Serve) -> None:
    server = serve("--bind", "unix:sock", app=SCOPE, listen=False, ready="serving")
    server.address = str(server.folder / "sock")
    seen = scope_of(server, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert seen["client"] == "None"
    assert "sock" in seen["server"]


def test_secrets_are_not_kept(serve: Serve) -> None:
    """Headers that come again are made once, but for those that may be secrets."""
    app = (
        HEAD
        + """
import gc

async def look(scope, receive, send):
    gc.collect()
    found = {value for o in gc.get_objects() if type(o) is list
             for pair in o if type(pair) is tuple and len(pair) == 2
             for value in pair if type(value) is bytes and value.startswith(b"kept-")}
    await answer(send, repr(sorted(found)))
"""
    )
    server = serve(app=app)
    for headers in (
        {"Cookie": "kept-cookie", "Accept": "text/plain"},
        {"Authorization": "kept-authorization", "Accept": "text/plain"},
        {"Accept": "kept-accept"},
    ):
        for _ in range(3):
            assert server.get("/", headers=headers).body == b"Hello, world!"
    assert server.get("/look").body == b"[b'kept-accept']"


# --- Files ------------------------------------------------------------------------------------

FILES = (
    HEAD
    + """
async def zero(scope, receive, send):
    await start(send)
    for fields in ({"offset": 2, "count": 3}, {"count": 0}, {}, {}, {"offset": 9, "count": 9},
                   {"offset": 11}, {"offset": 0, "count": 1}):
        with open("ten", "rb") as file:
            if not fields:
                file.seek(4)
                fields = {"count": 2}
            await send({"type": "http.response.zerocopysend", "file": file, "more_body": True,
                        **fields})
            await body(send, b"|", True)
    with open("ten", "rb") as file:
        file.seek(7)
        for count in (1, 5):
            await send({"type": "http.response.zerocopysend", "file": file, "count": count,
                        "more_body": True})
            await body(send, b"(%d)" % file.tell(), True)
    await body(send)

async def bad(scope, receive, send):
    said = []
    async def attempt(**message):
        try:
            await send(message)
        except Exception as exc:
            said.append(f"{type(exc).__name__} {exc}")
    await start(send)
    for fields in ({"offset": -1}, {"count": -1}, {"count": "x"}, {"offset": 1 << 70}):
        with open("ten", "rb") as file:
            await attempt(type="http.response.zerocopysend", file=file, **fields)
    await attempt(type="http.response.zerocopysend", file=object())
    await attempt(type="http.response.zerocopysend")
    for path in (".", "missing", b"fifo", 5):
        await attempt(type="http.response.pathsend", path=path)
    await attempt(type="http.response.pathsend")
    await body(send, "\\n".join(said).encode())

async def shrinks(scope, receive, send):
    await start(send, headers=[(b"content-length", b"30000000")])
    with open("big", "r+b") as file:
        sending = asyncio.create_task(send(
            {"type": "http.response.zerocopysend", "file": file, "offset": 0, "count": 30_000_000}))
        await asyncio.sleep(0)
        file.truncate(1000)
        await sending
"""
)


def test_ranges_of_files(serve: Serve, kind: tuple[str, ...]) -> None:
    """From an offset, or where the file stands, which is moved then as by a read."""
    server = serve(*kind, app=FILES, files={"ten": "0123456789"})
    assert server.get("/zero").body == b"234||45|45|9||0|7(8)89(10)"


def test_what_is_no_file_to_send(serve: Serve) -> None:
    server = serve(app="import os\nos.mkfifo('fifo')\n" + FILES, files={"ten": "0123456789"})
    lines = server.get("/bad").body.decode().split("\n")
    expected = [
        "ValueError http.response.zerocopysend: offset must not be negative",
        "ValueError http.response.zerocopysend: count must not be negative",
        "TypeError",
        "OverflowError",
        "TypeError",
        "KeyError 'file'",
        "ValueError only a plain file can be sent",
        "FileNotFoundError",
        "ValueError only a plain file can be sent",
        "TypeError",
        "KeyError 'path'",
    ]
    assert len(lines) == len(expected)
    for line, wanted in zip(lines, expected, strict=True):
        assert line.startswith(wanted), line


def test_a_file_that_becomes_shorter(serve: Serve) -> None:
    """Its client gets no whole answer."""
    server = serve(app=FILES, files={"big": b"x" * 30_000_000})
    server.expect_log("GET /shrinks: the application failed")
    with server.connect() as sock:
        sock.sendall(b"GET /shrinks HTTP/1.1\r\nHost: h\r\n\r\n")
        received = 0
        while data := sock.recv(1 << 20):
            received += len(data)
    assert received < 30_000_000


# --- Heads and trailers -----------------------------------------------------------------------

HEADS = (
    HEAD
    + """
async def said_of(send, *messages):
    try:
        for message in messages:
            await send(message)
    except Exception as exc:
        return f"{type(exc).__name__} {exc}"

async def statuses(scope, receive, send):
    said = [await said_of(send, {"type": "http.response.start", "status": status, "headers": []})
            for status in (101, 199, 1000, -200, 1 << 70, "200", None)]
    said.append(await said_of(send, {"type": "http.response.start"}))
    await start(send, 599)
    await body(send, "\\n".join(said).encode())

async def trailers(scope, receive, send):
    await start(send, trailers=True)
    await body(send, b"data")
    kind = "http.response.trailers"
    said = [await said_of(send, {"type": kind, "headers": [(b"x-a", b"1")], "more_trailers": True}),
            await said_of(send, {"type": kind, "headers": [(b"x-b", b"2")], "more_trailers": True}),
            await said_of(send, {"type": kind}),
            await said_of(send, {"type": kind})]
    print("said", said, flush=True)

async def bad_trailers(scope, receive, send):
    await start(send, trailers=True)
    await body(send, b"data")
    await send({"type": "http.response.trailers", "headers": [(b"x-a", b"1\\r\\nx-b: 2")]})

async def extensions(scope, receive, send):
    said = [sorted(scope["extensions"]), "trailers" in scope]
    for kind in ("early_hint", "debug"):
        said.append(await said_of(send, {"type": f"http.response.{kind}", "links": [], "info": {}}))
    await start(send, trailers=True)
    for kind in ("pathsend", "zerocopysend"):
        said.append(await said_of(send, {"type": f"http.response.{kind}", "path": "x", "file": 1}))
    await body(send, json.dumps(said).encode())
"""
)


def test_statuses(serve: Serve) -> None:
    server = serve(app=HEADS)
    answer = server.get("/statuses")
    assert answer.status == 599
    lines = answer.body.decode().split("\n")
    assert [line.split()[0] for line in lines] == ["ValueError"] * 5 + ["TypeError"] * 2 + [
        "KeyError"
    ]


def test_trailers_in_parts(serve: Serve) -> None:
    server = serve(app=HEADS)
    request = b"GET /%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    (answer,) = parse_responses(server.raw(request % b"trailers"))
    assert (answer.body, answer.trailers) == (b"data", [("x-a", "1"), ("x-b", "2")])
    server.wait_log("^said .None, None, None, .RuntimeError .*after response already completed")
    server.expect_log("ValueError: the response header .* cannot be sent")
    received = server.raw(request % b"bad_trailers", allow_reset=True)
    assert b"x-b" not in received
    assert not received.endswith(b"0\r\n\r\n")


def test_extensions_that_are_switched_off(serve: Serve) -> None:
    off = ("trailers", "pathsend", "zerocopysend", "early-hint", "debug")
    server = serve(*(f"--no-asgi-{name}" for name in off), app=HEADS)
    found, _, *said = json.loads(server.get("/extensions").body)
    assert found == []
    assert all("RuntimeError Expected ASGI message" in words for words in said), said


# --- Other tasks, other threads ---------------------------------------------------------------


def test_send_and_receive_belong_to_the_loop(serve: Serve) -> None:
    app = (
        HEAD
        + """
import threading

def step(awaitable, said):
    try:
        awaitable.send(None)
    except Exception as exc:
        said.append(f"{type(exc).__name__} {exc}")

async def threads(scope, receive, send):
    said = []
    for call in (receive, lambda: send({"type": "http.response.start", "status": 200})):
        thread = threading.Thread(target=step, args=(call(), said))
        thread.start()
        thread.join()
        await pelton.to_core(step, call(), said)
    await answer(send, "\\n".join(said))

async def again(scope, receive, send):
    said = []
    awaitable = receive()
    await awaitable
    step(awaitable, said)
    waits = receive()
    assert waits.send(None) is not None
    waits.close()
    step(waits, said)
    await answer(send, "\\n".join(said))
"""
    )
    server = serve(app=app)
    lines = server.get("/threads").body.decode().split("\n")
    assert lines == ["RuntimeError receive() and send() work in the server's event loop only"] * 4
    lines = server.get("/again").body.decode().split("\n")
    assert lines == ["RuntimeError cannot reuse already awaited coroutine"] * 2


def test_a_context_of_its_own(serve: Serve, kind: tuple[str, ...]) -> None:
    """The application's, as it was loaded: not what another request has set."""
    app = (
        HEAD
        + """
variable = contextvars.ContextVar("variable", default="default")
variable.set("loaded")

async def context(scope, receive, send):
    before = variable.get()
    variable.set("request's")
    await answer(send, before)
"""
    )
    server = serve(*kind, app=app)
    for _ in range(3):
        assert server.get("/context").body == b"loaded"


def test_who_waits_hears_of_the_end_of_the_answer(serve: Serve, kind: tuple[str, ...]) -> None:
    app = (
        HEAD
        + """
async def completes(scope, receive, send):
    await receive()
    waits = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await answer(send, "x")
    print("told", (await waits)["type"], flush=True)
"""
    )
    server = serve(*kind, app=app)
    with server.connect() as sock:
        sock.sendall(b"GET /completes HTTP/1.1\r\nHost: h\r\n\r\n")
        server.wait_log("^told http.disconnect$")

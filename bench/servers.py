# SPDX-License-Identifier: Apache-2.0
"""Which servers are measured, and how each is started: one row of a table for each.

``{port}`` is filled in; the working directory holds the application. Every server runs one worker
process without an access log, and listens on 127.0.0.1 (the two example programs: as the README has
them). What an option doesn't say is the server's own default.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PELTON = ROOT / ".venv-bench" / "bin"
PEERS = ROOT / ".venv-bench-peers" / "bin"
BUILD = ROOT / "build" / "bench"

HELLO = "keep_alive", "new"


@dataclass(frozen=True)
class Row:
    """One server in one mode, for the measurements that ``takes`` names."""

    name: str
    argv: tuple[str, ...]
    needs: Path  # the row is left out where this file isn't there
    module: str = ""  # and where the interpreter beside it can't import this
    takes: tuple[str, ...] = HELLO
    folder: str = "bench/apps"  # is copied: the server runs there
    load: tuple[str, ...] = ()  # options of bench/load.c: -n where it has no keep-alive

    @property
    def own(self) -> bool:
        """A row of Pelton's: it may not be missing."""
        return self.name.startswith("pelton")


def pelton(name: str, *options: str, app: str = "hello.py", takes: tuple[str, ...] = HELLO) -> Row:
    argv = (
        str(PELTON / "python"),
        str(PELTON / "pelton"),
        "--http-socket",
        "127.0.0.1:{port}",
        "--processes",
        "1",
        *options,
        "--wsgi-file",
        app,
    )
    return Row(name, argv, PELTON / "pelton", "pelton._pelton", takes)


def _peer(
    name: str,
    module: str,
    *argv: str,
    takes: tuple[str, ...] = HELLO,
    load: tuple[str, ...] = (),
) -> Row:
    script = PEERS / argv[0]
    command = (str(PEERS / "python"), str(script), *argv[1:])
    return Row(name, command, script, module, takes, load=load)


def _peer_code(name: str, module: str, code: str) -> Row:
    text = f"import {module}; from hello import application; {code}"
    return Row(name, (str(PEERS / "python"), "-c", text), PEERS / "python", module)


def _uwsgi(
    name: str,
    *options: str,
    app: str = "hello.py",
    takes: tuple[str, ...] = HELLO,
    load: tuple[str, ...] = (),
) -> Row:
    argv = (str(PEERS / "uwsgi"), *options, "--disable-logging", "--wsgi-file", app)
    return Row(name, argv, PEERS / "uwsgi", takes=takes, load=load)


UWSGI_ONE = ("--processes", "1", "--threads", "1")
ASYNC_PAIR = ("--asyncio", "2", "--http-socket", ":{port}", "--greenlet", *UWSGI_ONE)
BLOCKING_PAIR = ("--http-socket", ":{port}", *UWSGI_ONE)
PAIR_END = ("--logto", "server.log", "--wsgi-file", "webapp.py")


def _pair(name: str, kind: str, *argv: str) -> Row:
    mode = BLOCKING_PAIR if kind == "blocking" else ASYNC_PAIR
    module = "pelton._pelton" if name.startswith("pelton") else ""
    return Row(
        name,
        (*argv, *mode, *PAIR_END),
        Path(argv[-1]),
        module,
        takes=("pair",),
        folder=f"examples/{kind}",
    )


BARE = (
    Row("bare C", (str(BUILD / "limit"), "{port}"), BUILD / "limit"),
    Row(
        "bare C + Python",
        (str(BUILD / "limit_py"), "{port}", ".", "hello:application"),
        BUILD / "limit_py",
    ),
)

PELTON_ROWS = (
    pelton("pelton inline", "--threads", "1", "--disable-logging"),
    pelton("pelton inline, log", "--threads", "1", "--logto", "server.log"),
    pelton("pelton threads", "--threads", "4", "--disable-logging"),
    pelton("pelton fibers", "--async", "64", "--disable-logging"),
)

UWSGI_ROWS = (
    _uwsgi("uwsgi http-socket", "--http-socket", "127.0.0.1:{port}", *UWSGI_ONE, takes=("new",)),
    _uwsgi(
        "uwsgi http router",
        "--http",
        "127.0.0.1:{port}",
        "--http-keepalive",
        *UWSGI_ONE,
        takes=("keep_alive",),
    ),
)

PEER_ROWS = (
    _peer_code("freastal", "freastal", "freastal.serve(application, '127.0.0.1', {port})"),
    _peer_code(
        "fastpysgi", "fastpysgi", "fastpysgi.run(application, '127.0.0.1', {port}, loglevel=0)"
    ),
    _peer_code("bjoern", "bjoern", "bjoern.run(application, '127.0.0.1', {port})"),
    _peer(
        "granian",
        "granian",
        "granian",
        "--interface",
        "wsgi",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--workers",
        "1",
        "--blocking-threads",
        "1",
        "hello:application",
    ),
    _peer(
        "peregrine",
        "peregrine",
        "peregrine",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "--workers",
        "1",
        "--protocol",
        "wsgi",
        "hello:application",
    ),
    _peer(
        "gunicorn gthread",
        "gunicorn",
        "gunicorn",
        "--bind",
        "127.0.0.1:{port}",
        "--workers",
        "1",
        "--worker-class",
        "gthread",
        "--threads",
        "4",
        "hello:application",
    ),
)

PAIR_ROWS = (
    _pair("pelton, blocking", "blocking", str(PELTON / "python"), str(PELTON / "pelton")),
    _pair("pelton, delayed", "delayed", str(PELTON / "python"), str(PELTON / "pelton")),
    _pair("uwsgi, blocking", "blocking", str(PEERS / "uwsgi")),
    _pair("uwsgi, delayed", "delayed", str(PEERS / "uwsgi")),
)

ASGI = ("asgi",)
STARLETTE = ("starlette",)
_HOST = ("--host", "127.0.0.1", "--port", "{port}")


def _asgi(kind: str, app: str, takes: tuple[str, ...]) -> tuple[Row, ...]:
    """Every server that speaks ASGI, with one of the applications."""
    module = app.partition(":")[0]
    peer = f"import freastal; from {module} import app; "
    return (
        _pelton_asgi(f"pelton {kind}", app, takes),
        _peer(f"uvicorn {kind}", "uvicorn", "uvicorn", *_HOST, "--no-access-log", "--log-level",
              "warning", "--loop", "uvloop", "--http", "httptools", app, takes=takes),
        _peer(f"granian {kind}", "granian", "granian", "--interface", "asgi", *_HOST,
              "--workers", "1", app, takes=takes),
        _peer(f"peregrine {kind}", "peregrine", "peregrine", *_HOST, "--workers", "1",
              "--protocol", "asgi", app, takes=takes),
        Row(f"freastal {kind}",
            (str(PEERS / "python"), "-c", peer + "freastal.serve_asgi(app, '127.0.0.1', {port})"),
            PEERS / "python", "freastal", takes),
    )  # fmt: skip


def _pelton_asgi(name: str, app: str, takes: tuple[str, ...]) -> Row:
    argv = (
        str(PELTON / "python"),
        str(PELTON / "pelton"),
        "--bind",
        "127.0.0.1:{port}",
        "--disable-logging",
        app,
    )
    return Row(name, argv, PELTON / "pelton", "pelton._pelton", takes)


ASGI_ROWS = (
    *_asgi("asgi", "hello_asgi:app", ASGI),
    *_asgi("starlette", "starlette_json:app", STARLETTE),
)

WAITING_COUNT = 1000
WAITING = ("waiting",)
_COUNT = str(WAITING_COUNT)

WAITING_ROWS = (
    pelton("pelton fibers, waiting", "--async", _COUNT, "--disable-logging",
           app="waiting.py", takes=WAITING),
    pelton("pelton threads, waiting", "--threads", _COUNT, "--disable-logging",
           app="waiting.py", takes=WAITING),
    pelton("pelton threads, bound", "--threads", _COUNT, "--disable-logging", "--cpu-affinity", "1",
           app="waiting.py", takes=WAITING),
    _peer("granian, 1,000 threads", "granian", "granian", "--interface", "wsgi",
          "--host", "127.0.0.1", "--port", "{port}", "--workers", "1",
          "--blocking-threads", _COUNT, "waiting:application", takes=WAITING),
    _peer("gunicorn gevent", "gevent", "gunicorn", "--bind", "127.0.0.1:{port}",
          "--workers", "1", "--worker-class", "gevent", "--worker-connections", "2000",
          "waiting:application", takes=WAITING),
    # With --http11-socket its gevent loop ends in a failed assertion: a connection each.
    _uwsgi("uwsgi gevent", "--http-socket", "127.0.0.1:{port}", "--processes", "1",
           "--gevent", _COUNT, "--gevent-monkey-patch", "--listen", "1024",
           app="waiting.py", takes=WAITING, load=("-n",)),
    _uwsgi("uwsgi threads", "--http11-socket", "127.0.0.1:{port}", "--processes", "1",
           "--threads", _COUNT, "--listen", "1024", app="waiting.py", takes=WAITING),
    Row("Go net/http", (str(BUILD / "sleep_go"), "{port}"), BUILD / "sleep_go", takes=WAITING),
)  # fmt: skip


def memory_row(carrier: str, count: int) -> Row:
    """A server for COUNT waiting requests."""
    option = {"fibers": "--async", "threads": "--threads"}[carrier]
    return pelton(
        f"pelton {carrier}, memory",
        option,
        str(count),
        "--disable-logging",
        app="waiting.py",
        takes=("memory",),
    )


ROWS = (
    *BARE,
    *PELTON_ROWS,
    *UWSGI_ROWS,
    *PEER_ROWS,
    *PAIR_ROWS,
    *WAITING_ROWS,
    *ASGI_ROWS,
)


def missing(row: Row) -> str:
    """Why a row can't be measured here; empty when it can."""
    if not row.needs.exists():
        return f"{row.needs.name} is not there"
    if row.module:
        done = subprocess.run(
            # -I: the tree's own folder of that name isn't what is asked for.
            [row.needs.parent / "python", "-I", "-c", f"import {row.module}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.strip().rpartition("\n")[2]
            return f"{row.module} did not install ({said})"
    return ""

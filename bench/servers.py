# SPDX-License-Identifier: Apache-2.0
"""Which servers are measured, and how each is started: one row of a table for each.

``{port}`` is filled in; the working directory holds the application. Every server runs one worker
without an access log, and listens on 127.0.0.1 (the two example programs: as the README has them).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PELTON = ROOT / ".venv-bench" / "bin"
PEERS = ROOT / ".venv-bench-peers" / "bin"
BUILD = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Row:
    """One server in one mode. ``kind`` is "hello" or the name of an example program."""

    name: str
    argv: tuple[str, ...]
    needs: Path  # the row is left out where this file isn't there
    module: str = ""  # and where the interpreter beside it can't import this
    kind: str = "hello"
    keep_alive: bool = True
    new_connections: bool = True


def _pelton(name: str, *options: str) -> Row:
    argv = (
        str(PELTON / "python"),
        str(PELTON / "pelton"),
        "--http-socket",
        "127.0.0.1:{port}",
        "--processes",
        "1",
        *options,
        "--wsgi-file",
        "hello.py",
    )
    return Row(name, argv, PELTON / "pelton", "pelton._pelton")


def _peer(name: str, module: str, *argv: str) -> Row:
    script = PEERS / argv[0]
    return Row(name, (str(PEERS / "python"), str(script), *argv[1:]), script, module)


def _peer_code(name: str, module: str, code: str) -> Row:
    text = f"import {module}; from hello import application; {code}"
    return Row(name, (str(PEERS / "python"), "-c", text), PEERS / "python", module)


def _uwsgi(name: str, *options: str, keep_alive: bool, new_connections: bool) -> Row:
    argv = (str(PEERS / "uwsgi"), *options, "--disable-logging", "--wsgi-file", "hello.py")
    return Row(
        name,
        argv,
        PEERS / "uwsgi",
        keep_alive=keep_alive,
        new_connections=new_connections,
    )


UWSGI_ONE = ("--processes", "1", "--threads", "1")
ASYNC_PAIR = ("--asyncio", "2", "--http-socket", ":{port}", "--greenlet", *UWSGI_ONE)
BLOCKING_PAIR = ("--http-socket", ":{port}", *UWSGI_ONE)
PAIR_END = ("--logto", "server.log", "--wsgi-file", "webapp.py")


def _pair(name: str, kind: str, *argv: str) -> Row:
    mode = BLOCKING_PAIR if kind == "blocking" else ASYNC_PAIR
    module = "pelton._pelton" if name.startswith("pelton") else ""
    return Row(name, (*argv, *mode, *PAIR_END), Path(argv[-1]), module, kind=kind)


ROWS = (
    Row(
        "bare C",
        (str(BUILD / "limit"), "{port}"),
        BUILD / "limit",
    ),
    Row(
        "bare C + Python",
        (str(BUILD / "limit_py"), "{port}", ".", "hello:application"),
        BUILD / "limit_py",
    ),
    _pelton("pelton inline", "--threads", "1", "--disable-logging"),
    _pelton("pelton inline, log", "--threads", "1", "--logto", "server.log"),
    _pelton("pelton threads", "--threads", "4", "--disable-logging"),
    _pelton("pelton fibers", "--async", "64", "--disable-logging"),
    _uwsgi(
        "uwsgi http-socket",
        "--http-socket",
        "127.0.0.1:{port}",
        *UWSGI_ONE,
        keep_alive=False,
        new_connections=True,
    ),
    _uwsgi(
        "uwsgi http router",
        "--http",
        "127.0.0.1:{port}",
        "--http-keepalive",
        *UWSGI_ONE,
        keep_alive=True,
        new_connections=False,
    ),
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
    _pair("pelton, blocking", "blocking", str(PELTON / "python"), str(PELTON / "pelton")),
    _pair("pelton, delayed", "delayed", str(PELTON / "python"), str(PELTON / "pelton")),
    _pair("uwsgi, blocking", "blocking", str(PEERS / "uwsgi")),
    _pair("uwsgi, delayed", "delayed", str(PEERS / "uwsgi")),
)


def missing(row: Row) -> str:
    """Why a row can't be measured here; empty when it can."""
    if not row.needs.exists():
        return f"{row.needs.name} is not there"
    if row.module:
        done = subprocess.run(
            [row.needs.parent / "python", "-c", f"import {row.module}"],
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            return f"{row.module} did not install"
    return ""

# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL, MariaDB and Redis for the length of a test run: own folder, own port, own process.

Each is started from Debian's binaries in a temporary folder, under a user of the system when the
tests run as root, and goes when the context ends, or with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pymysql
import redis
from harness import SLOW, free_port, wait_until

START_S = 60.0 * SLOW


def owner(name: str) -> dict[str, object]:
    """What makes Popen run a program as this user; nothing when the tests aren't root's."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def folder(user: dict[str, object]) -> Iterator[Path]:
    """A folder of the user's own; not below pytest's, which only its own user may enter."""
    path = Path(tempfile.mkdtemp(prefix="pelton-drivers-"))
    try:
        if user:
            os.chown(path, user["user"], user["group"])  # type: ignore[arg-type]
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(
    command: list[str], path: Path, user: dict[str, object], up: Callable[[], object]
) -> Iterator[None]:
    """The program runs, and ``up()`` doesn't raise any more."""
    log = path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            cwd=path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **user,  # type: ignore[call-overload]
        )

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} ended:\n{log.read_text(errors='replace')}"
        with contextlib.suppress(psycopg2.Error, pymysql.Error, redis.RedisError, OSError):
            up()
            return True
        return False

    try:
        wait_until(answers, START_S, f"{command[0]} does not answer")
        yield
    finally:
        # PostgreSQL's fast stop is SIGINT; SIGTERM would wait for connections that a test left.
        process.send_signal(2 if "postgres" in command[0] else 15)
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def setup(command: list[str], path: Path, user: dict[str, object]) -> None:
    done = subprocess.run(
        command, cwd=path, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        **user,  # type: ignore[call-overload]
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The connection string of a PostgreSQL."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    user, port = owner("postgres"), free_port()
    dsn = f"host=127.0.0.1 port={port} user=tester dbname=postgres"
    with folder(user) as path:
        binary, data = homes[-1], str(path / "data")
        options = ["-A", "trust", "-U", "tester", "-E", "UTF8", "--no-sync", "--locale=C"]
        setup([str(binary.with_name("initdb")), "-D", data, *options], path, user)
        command = [str(binary), "-D", data, "-k", str(path), "-p", str(port)]
        command += ["-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=60"]
        with running(command, path, user, lambda: psycopg2.connect(dsn).close()):
            yield dsn


@contextlib.contextmanager
def mariadb() -> Iterator[dict[str, object]]:
    """What PyMySQL and mysqlclient connect to a MariaDB with."""
    user, port = owner("nobody"), free_port()
    to: dict[str, object] = {
        "host": "127.0.0.1", "port": port, "user": "root", "database": "test",
    }  # fmt: skip
    with folder(user) as path:
        data = f"--datadir={path}/data"
        options = ["--no-defaults", "--auth-root-authentication-method=normal"]
        setup(["mariadb-install-db", *options, data, f"--tmpdir={path}"], path, user)
        (path / "data" / "test").mkdir(exist_ok=True)
        if user:
            os.chown(path / "data" / "test", user["user"], user["group"])  # type: ignore[arg-type]
        command = ["mariadbd", "--no-defaults", data, f"--socket={path}/s", f"--port={port}"]
        command += ["--bind-address=127.0.0.1", "--skip-name-resolve", f"--tmpdir={path}"]
        command += ["--innodb-flush-log-at-trx-commit=0"]
        with running(command, path, user, lambda: pymysql.connect(**to).close()):
            yield to


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """The port of a Redis (or a Valkey, where that is what there is)."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    assert binary, "no redis-server"
    user, port = owner("nobody"), free_port()
    with folder(user) as path:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
        with running(command, path, user, lambda: redis.Redis(port=port).ping()):
            yield port

# SPDX-License-Identifier: Apache-2.0
"""What the soak's application talks to, each in a process of its own that can be restarted.

python services.py PORT [CERTIFICATE KEY]     answers each line with itself, a little later
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path


class Service:
    """A program on a port of its own. ``down`` has the spans of time in which it may be away."""

    def __init__(
        self, name: str, command: list[str], port: int, folder: Path, user: str = ""
    ) -> None:
        self.name, self.command, self.port, self.folder = name, command, port, folder
        self.down: list[tuple[float, float]] = []
        self.who: dict[str, object] = {}
        if user and os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            self.who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Service:
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                **self.who,  # type: ignore[call-overload]
            )
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self.process.poll() is None, f"{self.name} ended: see its log"
                assert time.monotonic() < end, f"{self.name} does not listen"
                time.sleep(0.05)

    def stop(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def restart(self, away_s: float) -> None:
        begin = time.monotonic()
        self.down.append((begin, math.inf))
        self.stop()
        time.sleep(away_s)
        self.start()
        self.down[-1] = (begin, time.monotonic())

    def ready(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def excuses(self, begin: float, end: float) -> bool:
        """Whether it was away, or had just come back, at some time between these."""
        return any(gone < end and begin < back + 2.0 for gone, back in self.down)


def postgres(folder: Path, port: int) -> tuple[Service, str] | None:
    """A PostgreSQL and its connection string, where Debian's is installed."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not homes:
        return None
    path = folder / "postgres"
    path.mkdir()
    command = [str(homes[-1]), "-D", str(path / "data"), "-k", str(path), "-p", str(port)]
    command += ["-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=150"]
    service = Service("postgres", command, port, folder, "postgres")
    if service.who:
        os.chown(path, service.who["user"], service.who["group"])  # type: ignore[arg-type]
    initdb = [str(homes[-1].with_name("initdb")), "-D", str(path / "data"), "-A", "trust"]
    initdb += ["-U", "soak", "-E", "UTF8", "--no-sync", "--locale=C"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", **service.who)  # type: ignore
    return service, f"host=127.0.0.1 port={port} user=soak dbname=postgres"


def redis_server(folder: Path, port: int) -> Service | None:
    """A Redis or a Valkey, where one is installed."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if not binary:
        return None
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return Service("redis", command, port, folder, "nobody")


def echo(name: str, folder: Path, port: int, certificate: Path | None = None) -> Service:
    command = [sys.executable, str(Path(__file__).resolve()), str(port)]
    if certificate:
        command += [str(certificate), str(certificate.with_suffix(".key"))]
    return Service(name, command, port, folder)


def certificate(folder: Path) -> Path:
    """A certificate for localhost that signs itself; its key lies beside it."""
    path = folder / "soak.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-out", str(path)]
    command += ["-keyout", str(path.with_suffix(".key")), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return path


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            await asyncio.sleep(0.01)
            writer.write(line)
            await writer.drain()
        writer.close()
    except (ConnectionError, ssl.SSLError):
        pass


async def serve(port: int, context: ssl.SSLContext | None) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port, ssl=context, backlog=512)
    await server.serve_forever()


def main(port: str, *files: str) -> None:
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(port), context))


if __name__ == "__main__":
    main(*sys.argv[1:])

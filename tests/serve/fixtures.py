# SPDX-License-Identifier: Apache-2.0
"""The fixtures that every folder of tests against the real server may have."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """``serve(*args, app=..., ...)`` starts a server; each is stopped and judged at the end."""
    servers: list[Server] = []

    def start(*args: object, spawn_only: bool = False, **more: object) -> Server:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = Server(folder, [str(arg) for arg in args], **more)  # type: ignore[arg-type]
        servers.append(server)
        return server.spawn() if spawn_only else server.start()

    yield start
    problems = [problem for server in servers for problem in server.finish()]
    if problems:
        logs = "".join(f"--- log of {server.folder.name}:\n{server.log}" for server in servers)
        pytest.fail("the server:\n" + "\n".join(problems) + "\n" + logs, pytrace=False)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that is its own authority, and its key, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-addext", "basicConstraints=critical,CA:TRUE"]
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder

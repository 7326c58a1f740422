# SPDX-License-Identifier: Apache-2.0
"""The fixture that every folder of tests against the real server has."""

from __future__ import annotations

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

# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests against the real server; harness.py says what is checked after each."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import certificate, serve
from harness import ASGI_CARRIERS, CARRIERS, SLOW, Server, become_subreaper, server_command

__all__ = ["certificate", "serve"]


def pytest_configure(config: pytest.Config) -> None:
    become_subreaper()
    if SLOW > 1 and hasattr(config.option, "timeout") and not config.option.timeout:
        config.option.timeout = 60 * SLOW


@pytest.fixture(params=list(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options of each carrier in turn: ``serve(*carrier, app=...)``."""
    return CARRIERS[request.param]


@pytest.fixture
def carrier_name(request: pytest.FixtureRequest, carrier: tuple[str, ...]) -> str:
    """The name of the carrier under test: "inline", "threads" or "fibers"."""
    return next(name for name, options in CARRIERS.items() if options == carrier)


@pytest.fixture(params=list(ASGI_CARRIERS))
def kind(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options of each carrier that serves ASGI in turn."""
    return ASGI_CARRIERS[request.param]


@pytest.fixture
def run_pelton(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_pelton(*args)`` runs the command to its end, in tmp_path: for starts that fail."""

    def run(*args: object, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*server_command(), *map(str, args)],
            cwd=tmp_path,
            env=Server(tmp_path, listen=False).environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s * SLOW,
            check=False,
        )

    return run

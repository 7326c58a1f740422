# SPDX-License-Identifier: Apache-2.0
"""Pelton: a web application server for Python, written in C.

The server is the C extension ``pelton._pelton``; this package is what a user imports or runs:
``pelton module:app`` on the command line, ``python -m pelton``, ``pelton.Loop`` and ``pelton.run``
for asyncio, ``pelton.await_`` and its kin between the two. The extension is loaded when it is first
needed, so that ``import pelton`` alone costs nothing.
"""

__all__ = [
    "Loop",
    "__version__",
    "await_",
    "explain",
    "install",
    "main",
    "run",
    "spawn",
    "to_core",
]

__version__ = "0.1.0"


def main(argv: "list[str] | None" = None) -> int:
    """Run the server as the ``pelton`` command does; return its exit status.

    ``argv`` is what stands after the program's name; without it, the process's own.
    """
    import sys

    from pelton import _pelton

    return _pelton.main(sys.argv[1:] if argv is None else list(argv))


def explain() -> str:
    """Say in words how many requests this process serves at once, in what, and what delays them."""
    from pelton import _pelton

    return _pelton.explain()


_LATER = {
    "Loop": "pelton._loop",
    "await_": "pelton._run",
    "install": "pelton._run",
    "run": "pelton._run",
    "spawn": "pelton._run",
    "to_core": "pelton._run",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value

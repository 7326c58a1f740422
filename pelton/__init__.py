# SPDX-License-Identifier: Apache-2.0
"""Pelton: a web application server for Python, written in C.

The server is the C extension ``pelton._pelton``; this package is what a user imports or runs:
``pelton module:app`` on the command line, ``python -m pelton``, and ``pelton.Loop`` for asyncio.
The extension is loaded when it is first needed, so that ``import pelton`` alone costs nothing.
"""

__all__ = ["Loop", "__version__", "explain", "main"]

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


def __getattr__(name: str) -> object:
    if name == "Loop":
        from pelton._loop import Loop

        globals()["Loop"] = Loop
        return Loop
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

# SPDX-License-Identifier: Apache-2.0
"""What the tests of the gateway share: a server over a wire in memory, and its answers.

The tests need nothing but the interpreter and ``_gwtest`` (PELTON_GWTEST names its folder): run.py
runs them in the meson suite, pytest collects them as well.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
import tracemalloc

if os.environ.get("PELTON_GWTEST"):
    sys.path.insert(0, os.environ["PELTON_GWTEST"])

import _gwtest

INLINE, THREADS, FIBERS = 0, 1, 2
CARRIERS = (INLINE, THREADS, FIBERS)

# Flags of pn_exchange_head, enum pn_cancel.
NO_MORE, HAS_LENGTH, HAS_DATE, HAS_SERVER, CLOSE = 1, 2, 4, 8, 16
CLIENT_GONE, TIMEOUT, PROTOCOL, TOO_LARGE, HANDLER, SHUTDOWN = 1, 2, 3, 4, 5, 6


def collect():
    """Garbage, and the interpreter's method cache: it keeps 4,096 names, one for each address at
    which an attribute's name was looked up, and an allocator that doesn't hand out an address
    twice fills it for long."""
    gc.collect()
    sys._clear_type_cache()


async def leaves_nothing(turn, count, each):
    """``await turn(count)`` again and again: no objects more, and less than EACH bytes a time."""
    await turn(count)
    tracemalloc.start()
    await turn(count)
    objects, grown = len(gc.get_objects()), []
    for _ in range(3):
        begun = tracemalloc.get_traced_memory()[0]
        await turn(count)
        grown.append(tracemalloc.get_traced_memory()[0] - begun)
    tracemalloc.stop()
    assert abs(len(gc.get_objects()) - objects) < 20, (len(gc.get_objects()), objects)
    assert min(grown) < count * each, grown


inside = _gwtest.inside
owning = _gwtest.owning


class Answer:
    """What the wire was told, taken apart."""

    def __init__(self, events):
        self.events = events
        self.names = [e[0] for e in events]
        heads = [e for e in events if e[0] == "head"]
        assert len(heads) <= 1
        self.status = self.reason = self.headers = self.length = self.flags = None
        if heads:
            _, self.status, self.reason, self.headers, self.length, self.flags = heads[0]
        self.blocks = [e[1] for e in events if e[0] in ("write", "file")]
        self.body = b"".join(self.blocks)
        cancels = [e[1] for e in events if e[0] == "cancel"]
        self.cancel = cancels[0] if cancels else None
        self.ended = "end" in self.names

    def header(self, name):
        found = [v for n, v in self.headers if n.lower() == name.lower()]
        assert len(found) <= 1, found
        return found[0] if found else None


class Server:
    def __init__(self, app, carrier=INLINE, **kwargs):
        self.raw = _gwtest.Server(app, carrier=carrier, **kwargs)
        self.counts = self.raw.counts
        self.ClientDisconnected, self.RequestCut = self.raw.exceptions()

    def request(self, method="GET", target="/", headers=(), **kwargs):
        return Answer(
            self.raw.request(
                method=method.encode(),
                target=target.encode("latin-1"),
                headers=[(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers],
                **kwargs,
            )
        )


@contextlib.contextmanager
def serving(app, carrier=INLINE, **kwargs):
    server = Server(app, carrier, **kwargs)
    try:
        yield server
    finally:
        server.raw.close()


def ask(app, method="GET", target="/", headers=(), carrier=INLINE, **kwargs):
    """One request to a server of its own."""
    with serving(app, carrier) as server:
        return server.request(method, target, headers, **kwargs)


class Log:
    def __init__(self):
        self.text = ""


@contextlib.contextmanager
def logged():
    """What is written to descriptor 2 meanwhile: the log has no sink of its own here."""
    log = Log()
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as f:
        os.dup2(f.fileno(), 2)
        try:
            yield log
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            f.seek(0)
            log.text = f.read().decode("utf-8")


@contextlib.contextmanager
def raising(kind, text=""):
    """The body must raise KIND with TEXT in its message."""
    caught = None
    try:
        yield
    except kind as exc:
        caught = exc
    assert caught is not None, f"{kind.__name__} was not raised"
    assert text in str(caught), caught


def simple(body=b"Hello World", status="200 OK", headers=()):
    """An application with a fixed answer."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return [body] if isinstance(body, bytes) else body

    return app

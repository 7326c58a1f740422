# SPDX-License-Identifier: Apache-2.0
"""Nothing is left behind: objects, memory and reference counts over many requests on every path."""

from __future__ import annotations

import gc
import io
import os
import sys
import tracemalloc

from gwharness import CARRIERS, FIBERS, INLINE, collect, logged, serving

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))
BOUND = max(8 * ROUNDS, 2048)  # bytes in a round; no object is that small
SINGLE = "a value that only this test knows"
HEADERS = [("Content-Type", "text/plain"), ("X-Own", SINGLE)]


def whole(environ, start_response):
    start_response("200 OK", HEADERS)
    return [b"x"]


def streams(environ, start_response):
    start_response("200 OK", [*HEADERS, ("Content-Length", "2")])
    yield b"a"
    yield b"b"


def writes(environ, start_response):
    start_response("200 OK", HEADERS)(b"a")
    return [b"b"]


def reads(environ, start_response):
    stream = environ["wsgi.input"]
    start_response("200 OK", HEADERS)
    return [stream.readline(), stream.read(1), *stream]


def fails(environ, start_response):
    start_response("200 OK", HEADERS)
    raise ValueError(SINGLE)


def fails_later(environ, start_response):
    start_response("200 OK", HEADERS)
    yield b"a"
    raise ValueError(SINGLE)


def refused(environ, start_response):
    start_response("200 OK", [*HEADERS, ("bad", 1)])


def split(environ, start_response):
    start_response("200 OK", [*HEADERS, ("bad", "\n")])
    return [b""]


def replaces(environ, start_response):
    start_response("200 OK", HEADERS)
    try:
        raise ValueError
    except ValueError:
        start_response("500 Oh", [("a", "b")] * 40, sys.exc_info())
    return ()


def wraps(environ, start_response):
    start_response("200 OK", HEADERS)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"abc"))


def sends(environ, start_response):
    start_response("200 OK", HEADERS)
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))


def cycles(environ, start_response):
    environ["self"] = environ
    environ["app"] = start_response
    start_response("200 OK", HEADERS)
    return [b""]


APPS = (
    *(whole, streams, writes, reads, fails, fails_later),
    *(refused, split, replaces, wraps, sends, cycles),
)


def one(server, i):
    server.request(
        method="POST" if i % 2 else "GET",
        target=f"/path/{i}?q={i}",
        headers=[
            ("Host", "h"),
            ("User-Agent", f"agent {i}"),
            ("Cookie", f"c={i}"),
            ("Cookie", "d"),
            (f"X-{i}", "v"),
            ("X-Forwarded-For", f"1.2.3.{i % 250}"),
        ],
        body=[b"line\n", None, b"more"] if i % 3 else None,
        port=1000 + i % 7,
        trusted=True,
        take=4 if i % 5 else -1,
        gone_after=1 if i % 11 == 0 else -1,
    )


def growth(server):
    begun = tracemalloc.get_traced_memory()[0]
    for i in range(ROUNDS):
        one(server, i)
    collect()
    return tracemalloc.get_traced_memory()[0] - begun


def least_growth(server):
    """A leak grows in every round. Caches (values of headers, the interpreter's free lists) fill
    up; how soon hangs on where things lie in memory."""
    grown = growth(server)
    for _ in range(20):
        if grown < BOUND:
            break
        grown = min(grown, growth(server))
    return grown


def measure(app, carrier):
    """What ROUNDS requests leave behind: objects, references, bytes."""
    with serving(app, carrier) as server:
        tracemalloc.start()
        for i in range(ROUNDS):
            one(server, i)  # caches are full then
        collect()
        objects, refs = len(gc.get_objects()), sys.getrefcount(SINGLE)
        none = sys.getrefcount(None)
        grown = least_growth(server)
        tracemalloc.stop()
        return (
            len(gc.get_objects()) - objects,
            sys.getrefcount(SINGLE) - refs,
            sys.getrefcount(None) - none if sys.version_info < (3, 12) else 0,
            grown,
        )


def test_no_path_leaks():
    for app in APPS:
        for carrier in (INLINE, FIBERS):
            with logged():
                objects, refs, none, grown = measure(app, carrier)
            what = (app.__name__, carrier, objects, refs, none, grown)
            assert refs == 0, what
            assert objects < 20, what
            assert none < 50, what
            assert grown < BOUND, what


def test_servers_leave_nothing():
    """The dict of interned strings grows by doubling: the least of several rounds counts."""

    def growth_of(n):
        begun = tracemalloc.get_traced_memory()[0]
        for i in range(n):
            with serving(whole, CARRIERS[i % 3]) as server:
                one(server, i)
        collect()
        return tracemalloc.get_traced_memory()[0] - begun

    tracemalloc.start()
    growth_of(30)
    objects = len(gc.get_objects())
    grown = min(growth_of(60) for _ in range(3))
    tracemalloc.stop()
    assert abs(len(gc.get_objects()) - objects) < 20
    assert grown < 60 * 20, grown

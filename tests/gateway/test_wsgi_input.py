# SPDX-License-Identifier: Apache-2.0
"""wsgi.input: every way of reading, waits, and bodies that are not whole."""

from __future__ import annotations

import io
import random

from gwharness import (
    CARRIERS,
    CLIENT_GONE,
    INLINE,
    PROTOCOL,
    TIMEOUT,
    TOO_LARGE,
    ask,
    logged,
    raising,
    serving,
)


def reading(how, body, carrier=INLINE, **kwargs):
    """What HOW(stream) gives inside of a request with BODY (a list of chunks)."""
    got = []

    def app(environ, start_response):
        got.append(how(environ["wsgi.input"]))
        start_response("200 OK", [])
        return [b"done"]

    a = ask(app, method="POST", body=body, carrier=carrier, **kwargs)
    assert (a.body, a.ended) == (b"done", True)
    return got[0]


def test_read():
    for carrier in CARRIERS:
        for chunks in ([b"hello world"], [b"hel", b"lo w", b"orld"], [b"he", None, b"llo world"]):
            assert reading(lambda s: s.read(), chunks, carrier) == b"hello world"
            assert reading(lambda s: s.read(-1), chunks, carrier) == b"hello world"
            assert reading(lambda s: s.read(None), chunks, carrier) == b"hello world"
            assert reading(lambda s: s.read(100), chunks, carrier) == b"hello world"
            assert reading(lambda s: s.read(5), chunks, carrier) == b"hello"
            assert reading(lambda s: s.read(0), chunks, carrier) == b""
            parts = reading(lambda s: [s.read(4) for _ in range(5)], chunks, carrier)
            assert parts == [b"hell", b"o wo", b"rld", b"", b""]


def test_no_body():
    def how(s):
        return s.read(), s.read(5), s.readline(), s.readlines(), list(s)

    assert reading(how, None) == (b"", b"", b"", [], [])
    assert reading(how, []) == (b"", b"", b"", [], [])


def test_readline():
    for chunks in ([b"one\ntwo\r\n\nend"], [b"on", b"e", b"\ntw", None, b"o\r\n", b"\nend"]):
        lines = reading(lambda s: [s.readline() for _ in range(5)], chunks)
        assert lines == [b"one\n", b"two\r\n", b"\n", b"end", b""]
        assert reading(lambda s: s.readlines(), chunks) == [b"one\n", b"two\r\n", b"\n", b"end"]
        assert reading(list, chunks) == [b"one\n", b"two\r\n", b"\n", b"end"]
    pieces = reading(lambda s: [s.readline(3) for _ in range(4)], [b"ab\ncdef\n"])
    assert pieces == [b"ab\n", b"cde", b"f\n", b""]


def test_readlines_hint():
    body = [b"a\nbb\nccc\ndddd\n"]
    assert reading(lambda s: s.readlines(3), body) == [b"a\n", b"bb\n"]
    assert reading(lambda s: s.readlines(0), body) == [b"a\n", b"bb\n", b"ccc\n", b"dddd\n"]
    assert reading(lambda s: s.readlines(None), body) == [b"a\n", b"bb\n", b"ccc\n", b"dddd\n"]


def test_wrong_arguments():
    def how(s):
        for call in (s.read, s.readline, s.readlines):
            with raising(TypeError):
                call(1, 2)
            with raising(TypeError):
                call("1")
            with raising(TypeError):
                call(1.5)
            with raising(OverflowError):
                call(1 << 80)
        return s.read()

    assert reading(how, [b"abc"]) == b"abc"


def test_against_bytesio():
    """Random reads of random bodies in random chunks give what io.BytesIO gives."""
    rng = random.Random(4)
    for _ in range(300):
        data = bytes(rng.choice(b"ab\n") for _ in range(rng.randrange(200)))
        chunks, at = [], 0
        while at < len(data):
            n = rng.randrange(1, 40)
            chunks.append(data[at : at + n])
            at += n
            if rng.random() < 0.3:
                chunks.append(None)
        calls = [
            (rng.choice(("read", "readline", "readlines")), rng.choice((-1, 0, 1, 3, 10, 50)))
            for _ in range(8)
        ]

        def how(s, calls=calls):
            return [getattr(s, name)(n) for name, n in calls]

        got = reading(how, chunks, rng.choice(CARRIERS))
        assert got == how(io.BytesIO(data)), (data, calls)


def test_large_body():
    data = bytes(range(256)) * 4096
    chunks = [data[i : i + 7001] for i in range(0, len(data), 7001)]
    assert reading(lambda s: s.read(), chunks) == data
    assert reading(lambda s: s.read(len(data) * 2), chunks) == data
    assert reading(lambda s: b"".join(iter(lambda: s.read(1000), b"")), chunks) == data
    assert reading(b"".join, chunks) == data


def test_a_wish_for_much_allocates_little():
    assert reading(lambda s: s.read(1 << 60), [b"abc"]) == b"abc"


def test_cut_short():
    for why, text in (
        (CLIENT_GONE, "closed"),
        (TIMEOUT, "slow"),
        (PROTOCOL, "framing"),
        (TOO_LARGE, "larger"),
    ):
        for carrier in CARRIERS:
            caught = []

            def app(environ, start_response, caught=caught):
                try:
                    environ["wsgi.input"].read()
                except OSError as exc:
                    caught.append(exc)
                    raise
                raise AssertionError("it looked whole")

            with logged() as log, serving(app, carrier) as server:
                a = server.request(method="POST", body=[b"abc", None, why])
                assert type(caught[0]) is server.ClientDisconnected
            assert isinstance(caught[0], ConnectionError)
            assert text in str(caught[0])
            assert a.names in ([], ["keep"])
            assert log.text == ""


def test_cut_short_while_iterating():
    lines = []

    def app(environ, start_response):
        start_response("200 OK", [])
        for line in environ["wsgi.input"]:
            lines.append(line)
            yield line

    with logged() as log:
        a = ask(app, method="POST", body=[b"one\ntw", CLIENT_GONE])
    assert lines == [b"one\n"]
    assert not a.ended
    assert log.text == ""


def test_slow_body_times_out_inline():
    caught = []

    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError as exc:
            caught.append(str(exc))
        start_response("200 OK", [])
        return [b""]

    with serving(app, INLINE, timeout=0.05) as server:
        a = server.request(method="POST", body=[b"abc", None, b"def"], stalled=True)
    assert caught == ["the client was too slow"]
    assert a.cancel == TIMEOUT


def test_body_and_answer_mixed():
    def app(environ, start_response):
        start_response("200 OK", [])
        for line in environ["wsgi.input"]:
            yield line.upper()

    for carrier in CARRIERS:
        a = ask(app, method="POST", body=[b"a\nb", None, b"b\n", b"c"], carrier=carrier, take=2)
        assert a.body == b"A\nBB\nC"


def test_each_request_reads_its_own():
    got = []

    def app(environ, start_response):
        got.append(environ["wsgi.input"].read(3))
        start_response("200 OK", [])
        return [b""]

    with serving(app) as server:
        server.request(body=[b"abcdef"])
        server.request()
        server.request(body=[b"123456"])
    assert got == [b"abc", b"", b"123"]


def test_io_wrappers():
    def how(s):
        return io.TextIOWrapper(io.BufferedReader(Raw(s)), "utf-8").read()

    class Raw(io.RawIOBase):
        def __init__(self, stream):
            self.stream = stream

        def readable(self):
            return self.stream.readable()

        def readinto(self, b):
            data = self.stream.read(len(b))
            b[: len(data)] = data
            return len(data)

    assert reading(how, ["zwölf\n".encode()]) == "zwölf\n"

# SPDX-License-Identifier: Apache-2.0
"""wsgi.file_wrapper: what goes out by sendfile, what is read, and what closes."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tempfile

from gwharness import CARRIERS, HAS_LENGTH, NO_MORE, ask, logged

DATA = bytes(range(256)) * 100


def opened(name, mode="rb", buffering=-1):
    """A file that the server must close."""
    return open(name, mode, buffering)


@contextlib.contextmanager
def a_file(data=DATA):
    with tempfile.NamedTemporaryFile() as f:
        f.write(data)
        f.flush()
        yield f.name


def wrapping(make, headers=(), block=None):
    made = []

    def app(environ, start_response):
        start_response("200 OK", list(headers))
        f = make()
        made.append(f)
        args = (f,) if block is None else (f, block)
        return environ["wsgi.file_wrapper"](*args)

    app.made = made
    return app


def kinds(a):
    return {e for e in a.names if e in ("write", "file")}


def test_plain_files_go_by_sendfile():
    with a_file() as name:
        for make in (
            lambda: opened(name),
            lambda: opened(name, "rb", 0),
            lambda: opened(name, "r+b"),
        ):
            for carrier in CARRIERS:
                app = wrapping(make)
                a = ask(app, carrier=carrier)
                assert a.body == DATA
                assert kinds(a) == {"file"}
                assert (a.length, a.ended) == (len(DATA), True)
                assert app.made[0].closed


def test_temporary_files():
    def make():
        f = tempfile.NamedTemporaryFile()  # noqa: SIM115
        f.write(DATA)  # still in its buffer
        f.seek(10)
        return f

    a = ask(wrapping(make))
    assert (a.body, kinds(a)) == (DATA[10:], {"file"})


def test_from_where_the_file_stands():
    def make():
        f = opened(name)
        f.read(7)  # the descriptor itself is ahead by a buffer
        return f

    with a_file() as name:
        a = ask(wrapping(make))
        assert a.body == DATA[7:]
        a = ask(wrapping(make, [("Content-Length", "20")]))
        assert (a.body, a.length, a.flags) == (DATA[7:27], 20, HAS_LENGTH)
        with logged() as log:
            a = ask(wrapping(make, [("Content-Length", str(len(DATA)))]))
        assert (a.body, a.ended) == (DATA[7:], False)
        assert "shorter" in log.text


def test_position_at_or_behind_the_end():
    def make(at):
        f = opened(name)
        f.seek(at)
        return f

    with a_file() as name:
        for at in (len(DATA), len(DATA) + 100):
            a = ask(wrapping(lambda at=at: make(at)))
            assert (a.body, a.ended) == (b"", True)


def test_without_sendfile_it_is_read():
    with a_file() as name:
        for take in (-1, 1000):
            a = ask(wrapping(lambda: opened(name)), no_sendfile=True, take=take)
            assert (a.body, kinds(a)) == (DATA, {"write"})


def test_what_only_looks_like_a_file_is_read():
    class Fancy:
        def __init__(self):
            self.f = opened(name)

        def fileno(self):
            return self.f.fileno()

        def tell(self):
            return self.f.tell()

        def read(self, n):
            return self.f.read(n).swapcase()

        def close(self):
            self.f.close()

    with a_file(b"abc" * 1000) as name:
        a = ask(wrapping(Fancy))
        assert (a.body, kinds(a)) == (b"ABC" * 1000, {"write"})
    with a_file(gzip.compress(DATA)) as name:
        a = ask(wrapping(lambda: gzip.open(name, "rb")))  # noqa: SIM115
        assert (a.body, kinds(a)) == (DATA, {"write"})
    a = ask(wrapping(lambda: io.BytesIO(DATA), block=1000))
    assert (a.body, kinds(a)) == (DATA, {"write"})
    assert max(map(len, a.blocks)) == 1000


def test_text_files_are_refused():
    with a_file(b"text") as name, logged() as log:
        app = wrapping(lambda: opened(name, "r"))
        a = ask(app)
        assert a.status == 500
        assert app.made[0].closed
    assert "TypeError" in log.text


def test_slow_reader_and_one_that_leaves():
    with a_file() as name:
        for carrier in CARRIERS:
            app = wrapping(lambda: opened(name))
            a = ask(app, take=700, carrier=carrier)
            assert a.body == DATA
            assert a.ended
            a = ask(app, take=700, gone_after=1400, carrier=carrier)
            assert a.body == DATA[:1400]
            assert all(f.closed for f in app.made)


def test_file_that_shrinks():
    """Between the head, which announces its length, and its last piece."""

    with a_file() as name, logged() as log:

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", str(len(DATA)))])(DATA[:100])
            f = opened(name)
            f.seek(100)
            os.truncate(name, 5000)
            return environ["wsgi.file_wrapper"](f)

        a = ask(app, take=4000)
    assert a.body == DATA[:5000]
    assert not a.ended
    assert "shorter than its Content-Length" in log.text


def test_head_of_a_file():
    with a_file() as name:
        app = wrapping(lambda: opened(name))
        a = ask(app, method="HEAD")
        assert (a.length, a.body, a.ended) == (len(DATA), b"", True)
        assert app.made[0].closed


def test_wrapper_is_an_iterable_of_its_own():
    def app(environ, start_response):
        start_response("200 OK", [])
        wrapper = environ["wsgi.file_wrapper"](io.BytesIO(b"abcdef"), 4)
        assert iter(wrapper) is wrapper
        assert wrapper.tell() == 0
        blocks = list(wrapper)
        wrapper.close()
        assert wrapper.closed
        return blocks

    a = ask(app)
    assert (a.blocks, a.flags & NO_MORE) == ([b"abcd", b"ef"], 0)


def test_wrapped_in_a_generator():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield from environ["wsgi.file_wrapper"](opened(name), 1000)

    with a_file() as name:
        assert ask(app).body == DATA


def test_without_close():
    class Bare:
        def __init__(self):
            self.blocks = [b"a", b"b"]

        def read(self, n):
            return self.blocks.pop(0) if self.blocks else b""

    assert ask(wrapping(Bare)).body == b"ab"


def test_reading_fails():
    class Failing:
        closed = 0

        def read(self, n):
            raise OSError("disk")

        def close(self):
            self.closed += 1

    app = wrapping(Failing)
    with logged() as log:
        assert ask(app).status == 500
    assert "OSError: disk" in log.text
    assert app.made[0].closed == 1

# SPDX-License-Identifier: Apache-2.0
"""start_response, write(), iterables, lengths, back-pressure, close()."""

from __future__ import annotations

import sys
import threading

from gwharness import (
    CARRIERS,
    CLIENT_GONE,
    CLOSE,
    FIBERS,
    HANDLER,
    HAS_DATE,
    HAS_LENGTH,
    HAS_SERVER,
    INLINE,
    NO_MORE,
    Answer,
    ask,
    inside,
    logged,
    raising,
    serving,
    simple,
)


class Closing:
    """An iterable that counts what is done to it."""

    def __init__(self, blocks, fail_at=None, fail_close=False):
        self.blocks = iter(blocks)
        self.taken = 0
        self.closed = 0
        self.fail_at = fail_at
        self.fail_close = fail_close
        self.order = []

    def __iter__(self):
        return self

    def __next__(self):
        assert inside()
        if self.taken == self.fail_at:
            raise ZeroDivisionError("in the iterable")
        block = next(self.blocks)
        self.taken += 1
        return block

    def close(self):
        assert inside()
        self.closed += 1
        if self.fail_close:
            raise KeyError("in close")


def returning(result, status="200 OK", headers=()):
    def app(environ, start_response):
        start_response(status, list(headers))
        return result

    return app


def test_one_block_is_whole():
    for result in ([b"abc"], (b"abc",)):
        with serving(returning(result)) as server:
            a = server.request()
            assert (a.status, a.reason, a.body) == (200, b"OK", b"abc")
            assert (a.length, a.flags) == (3, NO_MORE)
            assert a.names == ["head", "write", "end"]
            assert server.counts() == (1, 0)


def test_nothing_is_whole_too():
    for result in ([], (), [b""]):
        a = ask(returning(result))
        assert (a.length, a.body, a.ended) == (0, b"", True)
        assert "write" not in a.names


def test_several_blocks_are_flushed_one_by_one():
    a = ask(returning([b"a", b"", b"bc", b"d"]))
    assert a.length == -1
    assert a.names == ["head", "write", "flush", "write", "flush", "write", "flush", "end"]
    assert a.body == b"abcd"


def test_generator():
    log = []

    def app(environ, start_response):
        log.append("called")
        start_response("200 OK", [("Content-Type", "text/plain")])
        log.append("started")
        yield b"one"
        log.append("more")
        yield b"two"
        log.append("done")

    for carrier in CARRIERS:
        a = ask(app, carrier=carrier)
        assert a.blocks == [b"one", b"two"]
        assert a.ended
    assert log[:4] == ["called", "started", "more", "done"]


def test_empty_generator():
    def app(environ, start_response):
        start_response("204 No Content", [])
        yield b""

    a = ask(app)
    assert (a.status, a.length, a.ended) == (204, -1, True)


def test_nothing_leaves_before_the_first_byte():
    def app(environ, start_response):
        start_response("200 OK", [("A", "1")])
        yield b""
        yield b""
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oh", [("B", "2")], sys.exc_info())
        yield b"x"

    a = ask(app)
    assert (a.status, a.headers) == (500, [(b"B", b"2")])


def test_subclasses_of_list_are_iterated():
    class Mine(list):
        closed = 0

        def __iter__(self):
            yield b"other"

        def close(self):
            self.closed += 1

    mine = Mine([b"x"])
    assert ask(returning(mine)).body == b"other"
    assert mine.closed == 1


def test_subclass_of_bytes():
    class Mine(bytes):
        def __del__(self):
            died.append(inside())

    died = []

    def app(environ, start_response):
        start_response("200 OK", [])
        return [Mine(b"abc")]

    assert ask(app).body == b"abc"
    assert died == [True]


def test_own_content_length():
    a = ask(simple(b"abc", headers=[("Content-Length", "3")]))
    assert (a.length, a.flags, a.body, a.ended) == (3, HAS_LENGTH | NO_MORE, b"abc", True)
    a = ask(simple(iter([b"a", b"bc"]), headers=[("content-length", "3")]))
    assert (a.length, a.flags, a.body, a.ended) == (3, HAS_LENGTH, b"abc", True)


def test_longer_than_its_length_is_cut():
    for body in (b"abcdef", iter([b"ab", b"cdef", b"never"]), [b"abcd", b"ef"]):
        with logged() as log:
            a = ask(simple(body, headers=[("Content-Length", "3")]))
        assert (a.body, a.ended) == (b"abc", True)
        assert "longer than its Content-Length of 3" in log.text, log.text


def test_shorter_than_its_length_is_told():
    for body in (b"ab", iter([b"ab"]), iter([])):
        with logged() as log:
            a = ask(simple(body, headers=[("Content-Length", "3")]), target="/the/path")
        assert not a.ended
        assert "short" in a.names
        assert "/the/path" in log.text
        assert "shorter than its Content-Length of 3" in log.text


def test_head():
    with logged() as log:
        a = ask(simple(b"abc"), method="HEAD")
        assert (a.length, a.body, a.ended) == (3, b"", True)
        a = ask(simple(b"", headers=[("Content-Length", "77")]), method="HEAD")
        assert (a.length, a.ended) == (77, True)
        a = ask(simple([]), method="HEAD")
        assert (a.length, a.ended) == (-1, True)
        endless = Closing(b"x" for _ in iter(int, 1))
        a = ask(returning(endless), method="HEAD")
        assert a.ended
        assert (endless.taken, endless.closed) == (1, 1)
    assert log.text == ""


def test_not_modified_has_no_length_of_ours():
    a = ask(simple(b"", status="304 Not Modified"))
    assert (a.status, a.length) == (304, -1)


def test_status_lines():
    def told(status):
        return ask(simple(b"", status=status))

    assert told("404 Not Found").reason == b"Not Found"
    assert told("404").reason == b""
    assert told("299 \xe4 b").reason == b"\xe4 b"
    for bad in (
        "",
        "20",
        "2000 OK",
        "abc OK",
        "200OK",
        "101 Switching",
        "99 x",
        " 200 OK",
        "-12 x",
    ):
        with logged() as log:
            a = told(bad)
        assert a.status == 500, bad
        assert "ValueError" in log.text


def test_flags_of_headers():
    a = ask(simple(headers=[("date", "x"), ("Server", "mine"), ("X", "y")]))
    assert a.flags == NO_MORE | HAS_DATE | HAS_SERVER
    assert len(a.headers) == 3


def test_hop_by_hop_headers_do_not_go_out():
    a = ask(
        simple(
            headers=[
                ("Connection", "close"),
                ("Keep-Alive", "timeout=5"),
                ("Transfer-Encoding", "chunked"),
                ("Upgrade", "h2c"),
                ("TE", "trailers"),
                ("Proxy-Connection", "x"),
                ("Stays", "yes"),
            ]
        )
    )
    assert a.headers == [(b"Stays", b"yes")]
    assert a.flags == NO_MORE | CLOSE


def test_many_headers():
    many = [(f"X-{i}", str(i)) for i in range(1000)]
    a = ask(simple(headers=many))
    assert a.headers == [(n.encode(), v.encode()) for n, v in many]
    with logged():
        assert ask(simple(headers=many * 2)).status == 500


def test_header_strings():
    class Str(str):
        __slots__ = ()

    a = ask(simple(headers=[(Str("A"), Str("b")), ("L", "\xff"), ("E", "")]))
    assert a.headers == [(b"A", b"b"), (b"L", b"\xff"), (b"E", b"")]
    a = ask(returning([b"x"], Str("201 Yes")))
    assert (a.status, a.reason) == (201, b"Yes")


def test_a_list_that_changes_later_changes_nothing():
    headers = [("A", "1")]

    def app(environ, start_response):
        start_response("200 OK", headers)
        headers[0] = ("B", "2")
        headers.append(("C", "3"))
        return [b""]

    assert ask(app).headers == [(b"A", b"1")]


def test_what_start_response_refuses():
    caught = []

    def app(environ, start_response):
        for args in CASES:
            try:
                start_response(*args[1:])
            except args[0] as exc:
                caught.append(str(exc))
            else:
                raise AssertionError(args)
        start_response("200 OK", [])
        return [b"fine"]

    CASES = [
        (TypeError, b"200 OK", []),
        (TypeError, 200, []),
        (TypeError, "200 OK", {}),
        (TypeError, "200 OK", iter([])),
        (TypeError, "200 OK", ["ab"]),
        (TypeError, "200 OK", [["a", "b"]]),
        (TypeError, "200 OK", [("a", "b", "c")]),
        (TypeError, "200 OK", [("a", b"b")]),
        (TypeError, "200 OK", [(b"a", "b")]),
        (TypeError, "200 OK", [("a", 1)]),
        (ValueError, "200 OK", [("a", "\u0100")]),
        (ValueError, "200 \u20ac", []),
        (ValueError, "200 OK", [("Content-Length", "-1")]),
        (ValueError, "200 OK", [("Content-Length", "1x")]),
        (ValueError, "200 OK", [("Content-Length", "99999999999999999999")]),
        (ValueError, "200 OK", [("Content-Length", "1"), ("content-length", "2")]),
        (TypeError, "200 OK", [], None, None),
        (TypeError, "200 OK"),
        (TypeError,),
        (TypeError, "200 OK", [], 5),
        (TypeError, "200 OK", [], (1, 2)),
    ]
    a = ask(app)
    assert a.body == b"fine"
    assert len(caught) == len(CASES)


def test_keywords():
    def app(environ, start_response):
        with raising(TypeError):
            start_response("200 OK", [], nothing=1)
        with raising(TypeError):
            start_response("200 OK", [], status="200 OK")
        start_response(status="200 OK", response_headers=[("A", "b")])
        try:
            raise ValueError
        except ValueError:
            start_response("201 Yes", headers=[("C", "d")], exc_info=sys.exc_info())
        return [b""]

    a = ask(app)
    assert (a.status, a.headers) == (201, [(b"C", b"d")])


def test_the_same_length_twice_goes_once():
    a = ask(simple(b"abc", headers=[("Content-Length", "3"), ("Content-Length", "3")]))
    assert a.headers == [(b"Content-Length", b"3")]


def test_splitting_is_refused():
    for name, value in (
        ("A", "b\r\nSet-Cookie: x"),
        ("A", "b\nc"),
        ("A", "b\0"),
        ("A\r\nB", "c"),
        ("A:", "c"),
        ("A B", "c"),
        ("", "c"),
        ("\xe4", "c"),
    ):
        for body in ([b"x"], iter([b"x"])):
            with logged() as log:
                a = ask(simple(body, headers=[("Good", "x"), (name, value)]))
            assert (a.status, a.ended) == (None, False) or a.status == 500
            assert a.status == 500
            assert "ValueError" in log.text
            assert "cannot be sent" in log.text
    with logged() as log:
        assert ask(simple(b"x", status="200 OK\r\nA: b")).status == 500
    assert "cannot be sent" in log.text


def test_second_call_needs_exc_info():
    def app(environ, start_response):
        start_response("200 OK", [("A", "1")])
        with raising(AssertionError, "exc_info"):
            start_response("201 Yes", [])
        with raising(AssertionError, "exc_info"):
            start_response("201 Yes", [], None)
        return [b"x"]

    a = ask(app)
    assert (a.status, a.headers) == (200, [(b"A", b"1")])


def test_exc_info_before_the_head_replaces():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        try:
            raise ValueError("x")
        except ValueError:
            start_response("500 Oops", [("B", "2")], sys.exc_info())
        return [b"sorry, an error"]

    a = ask(app)
    assert (a.status, a.headers, a.body) == (500, [(b"B", b"2")], b"sorry, an error")
    assert a.length == 15


def test_exc_info_after_the_head_is_raised():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"begin"
        try:
            raise ValueError("lost it")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    with logged() as log:
        a = ask(app)
    assert a.body == b"begin"
    assert a.cancel == HANDLER
    assert "ValueError: lost it" in log.text


def test_write():
    def app(environ, start_response):
        write = start_response("200 OK", [("A", "1")])
        write(b"one,")
        write(b"")
        write(b"two,")
        return [b"three"]

    for carrier in CARRIERS:
        a = ask(app, carrier=carrier)
        assert a.blocks == [b"one,", b"two,", b"three"]
        assert a.names == ["head", "write", "flush", "write", "flush", "write", "flush", "end"]


def test_write_alone():
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "3")])
        with raising(TypeError):
            write("abc")
        with raising(TypeError):
            write(b"a", b"b")
        write(b"abc")
        return []

    a = ask(app)
    assert (a.body, a.ended, a.length) == (b"abc", True, 3)


def test_objects_of_a_request_that_is_over():
    kept = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        kept.extend([start_response, write, environ["wsgi.input"]])
        return [b"x"]

    with serving(app) as server:
        server.request(body=[b"abc"])
        server.request(body=[b"abc"])
        for start_response, write, stream in (kept[:3], kept[3:]):
            with raising(RuntimeError, "after the end"):
                start_response("200 OK", [])
            with raising(RuntimeError, "after the end"):
                write(b"x")
            with raising(ValueError, "after the end"):
                stream.read()
        assert kept[0] is not kept[3]


def test_objects_are_used_again_when_nobody_kept_them():
    ids = set()

    def app(environ, start_response):
        ids.add(id(start_response))
        start_response("200 OK", [])
        return []

    with serving(app) as server:
        for _ in range(5):
            server.request()
    assert len(ids) == 1


def test_other_threads_may_not_write():
    problems = []

    def app(environ, start_response):
        write = start_response("200 OK", [])

        def other():
            for action in (lambda: write(b"x"), environ["wsgi.input"].read):
                try:
                    action()
                except RuntimeError as exc:
                    problems.append(str(exc))

        t = threading.Thread(target=other)
        t.start()
        t.join()
        return [b"mine"]

    a = ask(app, carrier=FIBERS, body=[b"abc"])
    assert a.body == b"mine"
    assert len(problems) == 2


def test_close_comes_once():
    for kwargs in ({}, {"fail_close": True}):
        it = Closing([b"a", b"b"], **kwargs)
        with logged() as log:
            a = ask(returning(it))
        assert (a.body, a.ended, it.closed) == (b"ab", True, 1)
        assert ("KeyError: 'in close'" in log.text) == bool(kwargs)


def test_close_after_a_failing_iteration():
    it = Closing([b"a", b"b"], fail_at=1)
    with logged() as log:
        a = ask(returning(it))
    assert (a.body, a.cancel, it.closed) == (b"a", HANDLER, 1)
    assert "ZeroDivisionError: in the iterable" in log.text
    it = Closing([b"a"], fail_at=0)
    with logged():
        a = ask(returning(it))
    assert (a.status, it.closed) == (500, 1)


def test_close_without_start_response():
    it = Closing([b"a"])
    with logged() as log:
        a = ask(lambda environ, start_response: it)
    assert (a.status, it.closed) == (500, 1)
    assert "before start_response" in log.text


def test_close_when_the_client_has_gone():
    for carrier in CARRIERS:
        it = Closing([b"aaaa"] * 100)
        with logged() as log:
            a = ask(returning(it), gone_after=8, carrier=carrier)
        assert a.body == b"aaaa" * 2
        assert (it.taken, it.closed) == (3, 1)
        assert log.text == ""


def test_generators_see_the_end():
    seen = []

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            for _ in range(100):
                yield b"xxxx"
        finally:
            seen.append(inside())

    ask(app, gone_after=4)
    ask(app)
    assert seen == [True, True]


def test_write_tells_that_the_client_has_gone():
    caught = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        try:
            for _ in range(10):
                write(b"xxxx")
        except OSError as exc:
            caught.append(exc)
            raise
        return []

    with logged() as log, serving(app) as server:
        a = server.request(gone_after=4)
        assert a.body == b"xxxx"
        assert type(caught[0]) is server.ClientDisconnected
        assert isinstance(caught[0], ConnectionError)
    assert log.text == ""


def test_whole_answer_to_a_client_that_has_gone():
    with logged() as log:
        a = ask(simple(b"abc"), gone_after=0)
    assert a.names == ["head"]
    assert log.text == ""


def test_back_pressure():
    for carrier in CARRIERS:
        asked = []

        def blocks(asked=asked):
            for i in range(4):
                asked.append(i)
                yield b"x" * 10

        app = returning(blocks())
        with serving(app, carrier) as server:
            a = server.request(take=4)
            assert a.body == b"x" * 40
            assert max(len(b) for b in a.blocks) == 4
            assert server.counts()[1] == 8
            assert "keep" in a.names[:4]
            assert a.names.count("keep") == 1


def test_whole_answer_to_a_slow_reader():
    for carrier in CARRIERS:
        with serving(simple(b"0123456789" * 100), carrier) as server:
            a = server.request(take=7)
            assert a.body == b"0123456789" * 100
            assert a.ended


def test_slow_reader_times_out_inline():
    it = Closing([b"aaaa"] * 10)
    with logged() as log, serving(returning(it), INLINE, timeout=0.05) as server:
        a = server.request(take=2, stalled=True)
    assert a.cancel == 2
    assert it.closed == 1
    assert log.text == ""


def test_client_leaves_a_waiting_writer():
    for carrier in (1, 2):
        it = Closing([b"aaaa"] * 10)
        a = ask(returning(it), carrier=carrier, take=2, gone_after=2)
        assert a.body == b"aa"
        assert (it.taken, it.closed) == (1, 1)


def test_queue():
    with serving(simple(b"x"), FIBERS) as server:
        server.raw.admission(True, False)
        assert server.request().status == 503
        server.raw.admission(False, True)
        assert server.request().body == b"x"
        assert server.request(drop=1).status == 503
        a = server.request(drop=2)
        assert a.events == []
        server.raw.admission(False, False)
        assert server.request().body == b"x"


def test_wire_text_is_not_used_after_the_end():
    """The harness overwrites the request's text when start has returned."""
    kept = []

    def app(environ, start_response):
        kept.append(environ)
        start_response("200 OK", [])
        return []

    ask(app, target="/some/path?q", headers=[("Host", "h")])
    assert kept[0]["PATH_INFO"] == "/some/path"
    assert kept[0]["HTTP_HOST"] == "h"


def test_reason_and_headers_outlive_their_strings():
    def app(environ, start_response):
        start_response("2" + "00 " + "fine" * 3, [("A" * 2, "b" * 3)])
        return [b"x" * 5]

    a = ask(app)
    assert (a.reason, a.headers) == (b"finefinefine", [(b"AA", b"bbb")])


def test_answer_class_is_strict():
    a = Answer([("head", 200, b"OK", [], -1, 0), ("write", b"a"), ("cancel", CLIENT_GONE)])
    assert a.cancel == CLIENT_GONE

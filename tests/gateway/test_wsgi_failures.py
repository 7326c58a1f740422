# SPDX-License-Identifier: Apache-2.0
"""Exceptions, their log, wsgi.errors, the server's own end, forks."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import time
import traceback

from gwharness import (
    CARRIERS,
    FIBERS,
    HANDLER,
    INLINE,
    SHUTDOWN,
    ask,
    inside,
    logged,
    raising,
    serving,
)


def test_exception_before_the_head():
    def app(environ, start_response):
        start_response("200 OK", [("A", "b")])
        raise ValueError("broken here")

    with logged() as log, serving(app) as server:
        a = server.request(method="POST", target="/a\x01path?q")
        assert (a.status, a.ended, a.cancel) == (500, True, None)
        assert a.header(b"A") is None
        assert server.request().status == 500
    assert "Traceback (most recent call last):" in log.text
    assert "ValueError: broken here" in log.text
    assert "POST /a\\x01path?q: the application failed" in log.text
    assert "raise ValueError" in log.text
    assert log.text.count("Traceback") == 2


def test_exception_after_the_head():
    def app(environ, start_response):
        start_response("200 OK", [])(b"begun")
        raise ValueError("broken here")

    for carrier in CARRIERS:
        with logged() as log:
            a = ask(app, carrier=carrier)
        assert (a.body, a.ended, a.cancel) == (b"begun", False, HANDLER)
        assert "ValueError: broken here" in log.text


def test_base_exceptions_are_failures_of_the_application():
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit):

        def app(environ, start_response, kind=kind):
            raise kind

        with logged() as log, serving(app) as server:
            assert server.request().status == 500
            assert server.request().status == 500
        assert kind.__name__ in log.text


def test_recursion():
    def app(environ, start_response):
        return app(environ, start_response)

    with logged() as log:
        assert ask(app).status == 500
    assert "RecursionError" in log.text


def test_wrong_results():
    for result in (None, 5, "text", [1], ["str"], {"a": 1}, iter(["x"]), iter([b"a", "x"])):

        def app(environ, start_response, result=result):
            start_response("200 OK", [])
            return result

        with logged() as log:
            a = ask(app)
        assert a.status == 500 or (a.body, a.cancel) == (b"a", HANDLER), result
        assert "TypeError" in log.text


def test_no_start_response():
    for result in ([b"x"], [], iter([b"x"]), iter([])):
        with logged() as log:
            a = ask(lambda environ, start_response, r=result: r)
        assert a.status == 500
        assert "start_response" in log.text


def test_long_tracebacks_are_whole():
    def app(environ, start_response):
        raise ValueError("x" * 20000 + "end")

    with logged() as log:
        ask(app)
    assert "x" * 20000 + "end" in log.text


def test_control_characters_do_not_reach_the_log():
    def app(environ, start_response):
        raise ValueError("a\x1b[31m\x00b\x7f \ud800 \x9b1m \xe4")

    with logged() as log:
        ask(app)
    assert "a?[31m?b? \\ud800 ??1m \xe4" in log.text


FORGED = "[2026-01-01 00:00:00 +0000] [1] [error] forged"


def failures():
    """Exceptions with a client's text in every place that a traceback shows."""
    text = "first\n" + FORGED + "\n\n\t" + FORGED
    plain = ValueError(text)
    noted = ValueError("noted")
    for note in (FORGED, text, "Traceback (most recent call last):\n" + FORGED, "\n\n" + FORGED):
        noted.add_note(note)
    noted.add_note("\nThe above exception was the direct cause of the following exception:\n\n")
    noted.add_note(FORGED)
    chained = KeyError("last")
    chained.__cause__ = ValueError(text)
    chained.__cause__.__context__ = noted
    group = ExceptionGroup(text, [plain, noted, ExceptionGroup("inner", [ValueError(text)])])
    syntax = SyntaxError(text, (text, 1, 1, text, 1, 2))
    named = type("Name\n" + FORGED, (Exception,), {})("x")
    after = RuntimeError("after the group")
    after.__cause__ = group
    return [plain, noted, chained, group, syntax, named, after]


def test_an_exceptions_text_cannot_forge_lines_of_the_log():
    for failure in failures():

        def app(environ, start_response, failure=failure):
            raise failure

        with logged() as log:
            assert ask(app).status == 500
        lines = log.text.splitlines()
        forged = [line for line in lines if FORGED in line]
        assert forged
        for line in lines:
            starts = line[:1]
            assert (
                starts in ("", " ")
                or "the application failed" in line
                or line.startswith(
                    (
                        "Traceback (most",
                        "ValueError: ",
                        "RuntimeError: after",
                        "KeyError: 'last'",
                        "SyntaxError: first",
                        "The above exception was",
                        "During handling of the above",
                    )
                )
                or "Name" in line
            ), line


def test_tracebacks_stay_as_python_has_them():
    """But for the lines of a message after its first."""

    def app(environ, start_response):
        try:
            try:
                raise ValueError("one")
            except ValueError:
                raise KeyError("two")  # noqa: B904
        except KeyError as exc:
            error = RuntimeError("three\n  four\nfive")
            error.add_note("six\nseven")
            raise error from exc

    with logged() as log, serving(app) as server:
        server.request()
    try:
        app(None, None)
    except RuntimeError as exc:
        expected = "".join(traceback.format_exception(exc))
    expected = expected.split("ValueError: one", 1)[1]
    expected = expected.replace(
        "three\n  four\nfive\nsix\nseven", "three\n      four\n    five\n    six\n    seven"
    )
    frame = re.compile(r'  File ".*\n(    .*\n)+')
    got = log.text.split("ValueError: one", 1)[1]
    assert frame.sub("", got).rstrip() == frame.sub("", expected).rstrip()


def test_an_exception_that_cannot_be_printed():
    class Bad(Exception):
        def __str__(self):
            raise ZeroDivisionError

        def __repr__(self):
            raise ZeroDivisionError

    def app(environ, start_response):
        raise Bad

    with logged() as log:
        assert ask(app).status == 500
    assert "Bad" in log.text


def test_errors_stream():
    def app(environ, start_response):
        errors = environ["wsgi.errors"]
        assert errors.write("one\n") == 4
        errors.write("tw")
        errors.write("o\nth")
        errors.writelines(["ree", "\n", "four \u20ac \ud800\n"])
        print("five", file=errors, flush=True)
        errors.write("unfinished")
        errors.flush()
        with raising(TypeError):
            errors.write(b"bytes")
        with raising(TypeError):
            errors.writelines([1])
        assert not errors.isatty()
        assert errors.encoding == "utf-8"
        start_response("200 OK", [])
        return [b""]

    with logged() as log:
        ask(app)
    assert log.text == "one\ntwo\nthree\nfour \u20ac \\ud800\nfive\nunfinished\n"


def test_errors_outside_of_a_request():
    kept = []

    def app(environ, start_response):
        kept.append(environ["wsgi.errors"])
        start_response("200 OK", [])
        return []

    with logged() as log:
        with serving(app) as server:
            server.request()
            kept[0].write("later\nrest")
        assert "rest" not in log.text
    assert log.text == "later\nrest\n"


def test_errors_long_lines_are_broken():
    def app(environ, start_response):
        for _ in range(20):
            environ["wsgi.errors"].write("x" * 1000)
        start_response("200 OK", [])
        return []

    with logged() as log:
        ask(app)
    assert log.text.replace("\n", "") == "x" * 20000


def test_logging_handlers_work():
    def app(environ, start_response):
        handler = logging.StreamHandler(environ["wsgi.errors"])
        logger = logging.getLogger("gwtest")
        logger.addHandler(handler)
        logger.warning("a warning")
        logger.removeHandler(handler)
        start_response("200 OK", [])
        return []

    with logged() as log:
        ask(app)
    assert log.text == "a warning\n"


# --- The end of the server ---


def test_a_request_that_computes_is_cut():
    seen = []

    def app(environ, start_response):
        try:
            server.raw.cut()
            for _ in range(100000):
                pass
            raise AssertionError("not cut")
        except Exception:
            seen.append("wrong")
        finally:
            seen.append("finally")

    for carrier in (INLINE, FIBERS):
        with logged() as log, serving(app, carrier) as server:
            a = server.request()
            assert (a.status, a.flags) == (503, 16)
            assert seen == ["finally"]
            seen.clear()
        assert log.text == ""


def test_a_request_that_waits_is_cut():
    seen = []

    def app(environ, start_response):
        try:
            server.raw.cut()
        except server.RequestCut:
            seen.append("at once")
        try:
            environ["wsgi.input"].read()
        finally:
            for _ in range(1000):
                pass
            seen.append("finally")

    for carrier in CARRIERS:
        with logged() as log, serving(app, carrier) as server:
            a = server.request(method="POST", body=[b"a", None, b"b"])
            assert a.status == 503
            assert seen == ["at once", "finally"]
            seen.clear()
        assert log.text == ""


def test_a_stream_is_cut():
    seen = []

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"aaaa"
            with contextlib.suppress(server.RequestCut):
                server.raw.cut()
                for _ in range(1000):
                    pass
            yield b"bbbb"
        finally:
            seen.append(inside())

    for carrier in CARRIERS:
        with logged() as log, serving(app, carrier) as server:
            a = server.request(take=2)
            assert a.cancel == SHUTDOWN
            assert seen == [True]
            seen.clear()
        assert log.text == ""


def test_a_cut_does_not_hit_the_next_request():
    """Raised at the very end: nothing of it is left."""

    class Late:
        def __del__(self):
            server.raw.cut()

    def app(environ, start_response):
        environ["late"] = Late()
        start_response("200 OK", [])
        return [b"fine"]

    def plain(environ, start_response):
        start_response("200 OK", [])
        return [b"fine"]

    current = app
    with logged(), serving(lambda e, s: current(e, s)) as server:  # noqa: PLW0108
        with contextlib.suppress(BaseException):
            server.request()
        current = plain
        for _ in range(3):
            assert server.request().body == b"fine"


def test_stalled_core_is_reported_with_its_stack():
    def app(environ, start_response):
        def a_function_that_stalls():
            server.raw.stall()

        a_function_that_stalls()
        start_response("200 OK", [])
        return []

    with logged() as log, serving(app) as server:
        server.request()
    assert "core 0 has kept the loop waiting for 50 ms" in log.text
    assert "a_function_that_stalls" in log.text


# --- Forks ---


def status_of_child(app, carrier):
    """APP forks; its child must end in the server. Returns the exit status."""
    pids = []

    def wrapped(environ, start_response):
        pid = os.fork()
        if pid:
            pids.append(pid)
            start_response("200 OK", [])
            return [b"parent"]
        return app(environ, start_response)

    a = ask(wrapped, carrier=carrier)
    assert a.body == b"parent"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pid, status = os.waitpid(pids[0], os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pids[0], 9)
    os.waitpid(pids[0], 0)
    raise AssertionError("the child went on")


def test_forked_child_that_returns():
    def returns(environ, start_response):
        start_response("200 OK", [])
        return [b"child"]

    def streams(environ, start_response):
        start_response("200 OK", [])
        return iter([b"child"])

    def leaves(environ, start_response):
        sys.exit(7)

    def fails(environ, start_response):
        raise ValueError("in the child")

    for carrier in CARRIERS:
        with logged() as log:
            assert status_of_child(returns, carrier) == 70
            assert status_of_child(streams, carrier) == 70
            assert status_of_child(leaves, carrier) == 7
            assert status_of_child(fails, carrier) == 1
        assert "a forked child" in log.text
        assert "ValueError: in the child" in log.text


def test_forked_child_in_an_iterable():
    pids = []

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        pid = os.fork()
        if not pid:
            with contextlib.suppress(RuntimeError):
                environ["wsgi.input"].read()
                os._exit(3)
            yield b"child"
        pids.append(pid)
        yield b"two"

    with logged():
        a = ask(app, body=[b"abc"])
    assert a.body == b"onetwo"
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 70


def test_stdout_of_a_forked_child_is_flushed():
    r, w = os.pipe()

    def app(environ, start_response):
        sys.stdout = io.TextIOWrapper(os.fdopen(w, "wb"), write_through=False)
        sys.stdout.write("from the child")
        return []

    with logged():
        assert status_of_child(app, INLINE) == 70
    os.close(w)
    with os.fdopen(r) as f:
        assert f.read() == "from the child"

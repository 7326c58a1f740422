# SPDX-License-Identifier: Apache-2.0
"""The module uwsgi, and the gateway's own life."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from gwharness import (
    CARRIERS,
    FIBERS,
    INLINE,
    Server,
    ask,
    inside,
    logged,
    raising,
    serving,
    simple,
)


def inside_a_request(what, carrier=INLINE, **kwargs):
    """WHAT(uwsgi) as a request calls it."""
    got = []

    def app(environ, start_response):
        import uwsgi

        got.append(what(uwsgi))
        start_response("200 OK", [])
        return [b""]

    with serving(app, carrier) as server:
        a = server.request(**kwargs)
        server.counts()
    assert a.status == 200
    return got[0]


def test_importable_inside_only():
    def import_it():
        import uwsgi  # noqa: F401

    with raising(ImportError):
        import_it()
    with serving(simple()):
        import_it()
    assert "uwsgi" not in sys.modules
    with raising(ImportError):
        import_it()


def test_attributes():
    with serving(simple(), processes=3):
        import uwsgi

        assert uwsgi.version.startswith(b"2.0.")
        assert uwsgi.version_info[:2] == (2, 0)
        assert len(uwsgi.version_info) == 5
        assert (uwsgi.numproc, uwsgi.cores, uwsgi.has_threads) == (3, 4, 1)
        assert uwsgi.hostname == socket.gethostname().encode()
        assert abs(uwsgi.started_on - time.time()) < 100
        assert uwsgi.opt == {
            "http-socket": b":9090",
            "master": True,
            "env": [b"A=1", b"B=2", b"C=3"],
            "enable-threads": True,
            "py-call-uwsgi-fork-hooks": True,
        }
        assert (uwsgi.worker_id(), uwsgi.masterpid()) == (1, 0)
        assert uwsgi.ready() is True
        rss, vsz = uwsgi.mem()
        assert 0 < rss <= vsz
        assert abs(uwsgi.micros() - time.time() * 1e6) < 1e8


def test_what_is_not_built():
    with serving(simple()):
        import uwsgi

        assert not hasattr(uwsgi, "cache_get")
        with raising(AttributeError, "'cache_get': Pelton has not built it"):
            uwsgi.cache_get("x")
        with raising(ImportError):
            from uwsgi import spool  # noqa: F401


def test_outside_of_a_request():
    with serving(simple()):
        import uwsgi

        for name in ("ready_fd", "connection_fd", "disconnect", "cl", "request_id"):
            with raising(RuntimeError, "no request"):
                getattr(uwsgi, name)()


def test_in_a_thread_of_the_application():
    got = []

    def other():
        import uwsgi

        r, w = os.pipe()
        got.append(uwsgi.async_sleep(0.01))
        os.write(w, b"x")
        got.append(uwsgi.wait_fd_read(r, 1))
        got.append(uwsgi.wait_fd_write(w))
        got.append(uwsgi.suspend())
        os.close(r)
        os.close(w)
        with raising(RuntimeError, "no request"):
            uwsgi.request_id()

    def app(environ, start_response):
        t = threading.Thread(target=other)
        t.start()
        t.join()
        start_response("200 OK", [])
        return [b""]

    ask(app, carrier=FIBERS)
    assert got == [b"", b"", b"", True]


def test_figures_of_a_request():
    def app(environ, start_response):
        import uwsgi

        start_response("200 OK", [])
        return [repr((uwsgi.request_id(), uwsgi.total_requests(), uwsgi.cl())).encode()]

    with serving(app) as server:
        assert server.request().body == b"(1, 1, 0)"
        a = server.request(method="POST", headers=[("Content-Length", "3")], body=[b"abc"])
        assert a.body == b"(2, 2, 3)"


def test_async_sleep():
    for carrier in CARRIERS:
        begun = time.monotonic()
        assert inside_a_request(lambda u: u.async_sleep(0.03), carrier) == b""
        assert time.monotonic() - begun >= 0.03
    inside_a_request(lambda u: u.async_sleep(0))

    def wrong(uwsgi):
        with raising(ValueError):
            uwsgi.async_sleep(-1)
        with raising(ValueError):
            uwsgi.async_sleep(float("nan"))
        with raising(TypeError):
            uwsgi.async_sleep("1")

    inside_a_request(wrong)


def test_it_can_be_yielded():
    def app(environ, start_response):
        import uwsgi

        start_response("200 OK", [])
        yield uwsgi.async_sleep(0.001)
        yield b"a"
        yield uwsgi.async_sleep(0.001)
        yield b"b"

    assert ask(app).blocks == [b"a", b"b"]


def test_wait_fd():
    def how(uwsgi):
        a, b = socket.socketpair()
        with a, b:
            begun = time.monotonic()
            assert uwsgi.wait_fd_read(a.fileno(), 0.03) == b""
            assert time.monotonic() - begun >= 0.03
            assert uwsgi.ready_fd() == -1
            threading.Timer(0.02, b.send, (b"x",)).start()
            assert uwsgi.wait_fd_read(a.fileno(), 5) == b""
            assert uwsgi.ready_fd() == a.fileno()
            assert uwsgi.wait_fd_read(a.fileno(), 0) == b""
            assert uwsgi.wait_fd_write(a.fileno(), None) == b""
            assert uwsgi.is_connected(a.fileno())
            a.recv(1)
            b.close()
            assert not uwsgi.is_connected(a)
            fd = a.fileno()
        with raising(OSError):
            uwsgi.wait_fd_read(fd, 1)
        with open(__file__) as f:
            assert uwsgi.wait_fd_read(f.fileno()) == b""
        return "fine"

    for carrier in CARRIERS:
        assert inside_a_request(how, carrier) == "fine"


def test_disconnect():
    for early in (True, False):
        after = []

        def app(environ, start_response, early=early, after=after):
            import uwsgi

            write = start_response("200 OK", [])
            if not early:
                write(b"sent")
            uwsgi.disconnect()
            uwsgi.disconnect()
            write(b"dropped")
            after.append(inside())
            yield b"dropped as well"
            after.append(inside())

        with logged() as log:
            a = ask(app)
        assert a.body == (b"" if early else b"sent")
        assert a.ended
        assert after == [True, True]
        assert log.text == ""


def test_disconnect_before_start_response():
    def app(environ, start_response):
        import uwsgi

        uwsgi.disconnect()
        start_response("200 OK", [])
        return [b"x"]

    with logged() as log:
        a = ask(app)
    assert a.names == ["cancel"]
    assert log.text == ""


def test_log():
    with logged() as log:
        inside_a_request(lambda u: (u.log("one \u20ac"), u.log(b"two\n")))
    assert "one \u20ac\n" in log.text
    assert "two\n" in log.text


def test_hooks():
    called = []

    def app(environ, start_response):
        start_response("200 OK", [])
        return []

    with serving(app):
        import uwsgi

        uwsgi.atexit = lambda: called.append("atexit")
    assert called == ["atexit"]


def test_module_that_outlives_its_server():
    with serving(simple()):
        import uwsgi

        keep = uwsgi
    with raising(AttributeError):
        keep.total_requests()


def test_applications_that_cannot_be_called():
    with raising(TypeError):
        Server(5)

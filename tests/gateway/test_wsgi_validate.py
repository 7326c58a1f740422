# SPDX-License-Identifier: Apache-2.0
"""wsgiref.validate between the gateway and the application: silent on every path."""

from __future__ import annotations

import sys
import warnings
from wsgiref.validate import validator

from gwharness import CARRIERS, logged, serving

TEXT = [("Content-Type", "text/plain")]


def whole(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"whole"]


def blocks(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"a", b"b", b"c"]


def generator(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"a"
    yield b"b"


def writing(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"a")
    return [b"b"]


def nothing(environ, start_response):
    start_response("204 No Content", [])
    return []


def with_length(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    return [b"12345"]


def reading(environ, start_response):
    stream = environ["wsgi.input"]
    parts = [stream.read(1), stream.readline(), *stream.readlines(), *stream]
    environ["wsgi.errors"].write("note\n")
    environ["wsgi.errors"].writelines(["more\n"])
    environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return [b"".join(parts)]


def replaced(environ, start_response):
    start_response("200 OK", TEXT)
    try:
        raise ValueError
    except ValueError:
        start_response("500 Oh", TEXT, sys.exc_info())
    return [b"sorry"]


def test_validator_is_silent():
    apps = (whole, blocks, generator, writing, nothing, with_length, reading, replaced)
    for app in apps:
        for carrier in CARRIERS:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with logged() as log, serving(validator(app), carrier) as server:
                    for method in ("GET", "POST", "HEAD", "DELETE"):
                        a = server.request(
                            method=method,
                            target="/some/path?a=b",
                            headers=[
                                ("Host", "h"),
                                ("Content-Length", "9"),
                                ("Content-Type", "a/b"),
                            ],
                            body=[b"one\n", None, b"two\nx"],
                        )
                        assert a.ended, (app, a.events, log.text)
                        assert a.status == (
                            500 if app is replaced else 204 if app is nothing else 200
                        )
            assert log.text.replace("note\nmore\n", "") == "", (app, log.text)

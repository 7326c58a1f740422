# SPDX-License-Identifier: Apache-2.0
"""Answers at once, or after waiting as ordinary code waits; under every server the same.

/sleep  0.1 s; /many  20 times 1 ms; /hold  8 s; /wait  3 s in uwsgi.async_sleep (Pelton only).
"""

import time

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "11")]
BODY = [b"Hello World"]


def many():
    for _ in range(20):
        time.sleep(0.001)


def wait():
    import uwsgi  # inside the server only

    uwsgi.async_sleep(3)


def sleep():
    time.sleep(0.1)


def hold():
    time.sleep(8)


WAYS = {"/sleep": sleep, "/many": many, "/hold": hold, "/wait": wait}


def application(environ, start_response):
    way = WAYS.get(environ["PATH_INFO"])
    if way:
        way()
    start_response("200 OK", HEADERS)
    return BODY

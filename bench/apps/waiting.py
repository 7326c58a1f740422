# SPDX-License-Identifier: Apache-2.0
"""Answers at once, or after three seconds of waiting that let others go on (/wait)."""

import uwsgi

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "11")]
BODY = [b"Hello World"]


def application(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        uwsgi.async_sleep(3)
    start_response("200 OK", HEADERS)
    return BODY

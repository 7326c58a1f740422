# SPDX-License-Identifier: Apache-2.0
"""The smallest application: what is measured is the server."""

HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "11")]
BODY = [b"Hello World"]


def application(environ, start_response):
    start_response("200 OK", HEADERS)
    return BODY

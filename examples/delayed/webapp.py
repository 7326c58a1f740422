# SPDX-License-Identifier: Apache-2.0
"""Answers at once; reads the file and prints its lines five seconds later, on the event loop.

pelton --asyncio 2 --http-socket :9090 --greenlet --processes 1 --threads 1 --logto pelton.log \
    --wsgi-file webapp.py
"""

import asyncio
from pathlib import Path

NUMBERS = Path(__file__).with_name("numbers.txt")


def lines():
    with NUMBERS.open() as file:
        for index, line in enumerate(file):
            yield f"{index}:{line.rstrip()}"


def read():
    for line in lines():
        print(line)


def application(environ, start_response):
    asyncio.get_event_loop().call_later(5, read)
    body = b"Hello World"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]

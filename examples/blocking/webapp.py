# SPDX-License-Identifier: Apache-2.0
"""Reads a file and prints its lines before it answers.

pelton --http-socket :9090 --processes 1 --threads 1 --logto pelton.log --wsgi-file webapp.py
"""

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
    read()
    body = b"Hello World"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]

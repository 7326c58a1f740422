# SPDX-License-Identifier: Apache-2.0
"""The ASGI applications that are measured: hello world, an echo, and one that sleeps."""

import asyncio

HEAD = [(b"content-type", b"text/plain"), (b"content-length", b"11")]


async def application(scope, receive, send):
    path = scope["path"]
    if path == "/echo":
        await echo(receive, send)
        return
    if path == "/sleep":
        await asyncio.sleep(0.1)
    await send({"type": "http.response.start", "status": 200, "headers": HEAD})
    await send({"type": "http.response.body", "body": b"Hello World"})


async def echo(receive, send):
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message["body"])
        more = message.get("more_body", False)
    body = b"".join(parts)
    head = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def app(scope, receive, send):
    """For servers that tell WSGI from ASGI by asking: no lifespan here, as its exception says."""
    if scope["type"] != "http":
        raise RuntimeError("http only")
    await application(scope, receive, send)

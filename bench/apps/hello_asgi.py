# SPDX-License-Identifier: Apache-2.0
"""The ASGI applications that are measured: hello world, echoes, one that sleeps, and events."""

import asyncio

GO = asyncio.Event()
HEAD = [(b"content-type", b"text/plain"), (b"content-length", b"11")]


async def application(scope, receive, send):
    path = scope["path"]
    if path == "/echo":
        await echo(receive, send)
        return
    if path == "/events":
        await events(send)
        return
    if path == "/go":
        GO.set()
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


async def events(send):
    """One at once; when /go was asked for, five more, a second apart."""
    head = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    event = {"type": "http.response.body", "body": b"data: event\n\n", "more_body": True}
    await send(event)
    await GO.wait()
    due_s = asyncio.get_running_loop().time()
    for _ in range(5):
        await send(event)
        due_s += 1
        await asyncio.sleep(due_s - asyncio.get_running_loop().time())
    await send({"type": "http.response.body", "body": b""})


async def websocket(receive, send):
    """Every message goes back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def app(scope, receive, send):
    """For servers that tell WSGI from ASGI by asking: no lifespan here, as its exception says."""
    if scope["type"] == "websocket":
        await websocket(receive, send)
        return
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    await application(scope, receive, send)

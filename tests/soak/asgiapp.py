# SPDX-License-Identifier: Apache-2.0
"""What the ASGI soak serves: /WAY?id=ME answers ME in the way of WAY; /settle says what is left."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
from collections import Counter

import pelton

PLAIN = json.loads(os.environ["SOAK_SERVICES"])["plain"]


async def start(send, status=200, kind=b"text/plain"):
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send, data=b"", more=False):
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def hello(me, receive, send):
    await start(send)
    await body(send, me)


async def echo(me, receive, send):
    """The request's body goes back as it comes."""
    await start(send)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise pelton.ClientDisconnected
        more = message.get("more_body", False)
        await body(send, message["body"], True)
    await body(send, me)


async def stream(me, receive, send):
    await start(send)
    for i in range(len(me)):
        await asyncio.sleep(random.random() * 0.005)
        await body(send, me[i : i + 1], True)
    await body(send)


async def sse(me, receive, send):
    """Events until the client has left, as Starlette's EventSourceResponse does it."""
    await start(send, kind=b"text/event-stream")

    async def events():
        while True:
            await body(send, b"data: " + me + b"\n\n", True)
            await asyncio.sleep(0.01)

    async def until_left():
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(events()), asyncio.create_task(until_left())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def by_asyncio(me, receive, send):
    """A stream of asyncio's to a service; some wait for an answer that comes too late."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", PLAIN)
        try:
            if random.random() < 0.2:
                await late(reader, writer)
            writer.write(me + b"\n")
            line = await reader.readline()
            if not line.endswith(b"\n"):
                raise EOFError
        finally:
            writer.close()
    except (ConnectionError, EOFError) as error:
        await start(send, 503)
        await body(send, repr(error).encode())
        return
    await start(send)
    await body(send, line.strip())


async def late(reader, writer):
    writer.write(b"late\n")
    try:
        async with asyncio.timeout(random.random() * 0.01):
            await reader.readline()
    except TimeoutError:
        await reader.readline()


async def cancels(me, receive, send):
    """A receive() that is given up again and again, and a group of which one fails."""
    await receive()
    for _ in range(3):
        try:
            async with asyncio.timeout(0.002):
                await receive()
        except TimeoutError:
            pass
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(fail())
    except* ValueError:
        pass
    await hello(me, receive, send)


async def fail():
    await asyncio.sleep(0.001)
    raise ValueError


async def websocket(me, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def settle(me, receive, send):
    gc.collect()
    kinds = Counter(type(o).__name__ for o in gc.get_objects())
    left = {name: n for name, n in kinds.items() if name in ("Transport", "Awaitable", "Exchange")}
    left["tasks"] = len(asyncio.all_tasks()) - 1
    await start(send)
    await body(send, json.dumps({name: n for name, n in left.items() if n}).encode())


WAYS = {"asyncio": by_asyncio}
WAYS |= {f.__name__: f for f in (hello, echo, stream, sse, cancels, websocket, settle)}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    me = scope["query_string"].partition(b"=")[2]
    await WAYS[scope["path"].strip("/")](me, receive, send)

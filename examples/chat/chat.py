# SPDX-License-Identifier: Apache-2.0
"""A chat room in one file of ASGI: what one says, all others of the room read.

    pelton examples/chat/chat.py

Then open http://127.0.0.1:8000/ in two windows. /ROOM is another room. The rooms live in one
worker: with --processes they would have to talk to each other, through Redis for example.
"""

import asyncio
import collections
import contextlib
import json

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<style>
  body { font: 1em sans-serif; max-width: 40em; margin: 2em auto }
  #log { min-height: 10em }
</style>
<h1>Chat</h1>
<div id="log"></div>
<form><input id="text" autocomplete="off" autofocus size="40"> <button>Say</button></form>
<script>
  const log = document.getElementById("log"), text = document.getElementById("text");
  const scheme = location.protocol === "https:" ? "wss://" : "ws://";
  const socket = new WebSocket(scheme + location.host + location.pathname);
  const show = line => {
    log.appendChild(document.createElement("div")).textContent = line;
  };
  socket.onmessage = event => {
    const said = JSON.parse(event.data);
    show(said.who + ": " + said.text);
  };
  socket.onclose = event => show("closed: " + event.code + " " + event.reason);
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    socket.send(text.value);
    text.value = "";
  };
</script>
"""

MESSAGES_BEHIND = 100  # of a visitor who reads too slowly: then the room goes on without

rooms = collections.defaultdict(set)


class Visitor:
    """What is said to one visitor waits here until the visitor's connection takes it."""

    def __init__(self, send, who):
        self.who = who
        self._send = send
        self._lines = asyncio.Queue(MESSAGES_BEHIND)

    def hear(self, line):
        """Never waits: one slow visitor must not stop a room."""
        with contextlib.suppress(asyncio.QueueFull):
            self._lines.put_nowait(line)

    async def deliver(self):
        while True:
            line = await self._lines.get()
            await self._send({"type": "websocket.send", "text": line})


def say(room, who, text):
    line = json.dumps({"who": who, "text": text})
    for visitor in rooms[room]:
        visitor.hear(line)


async def chat(scope, receive, send):
    room = scope["path"]
    host, port = scope["client"] or ("somebody", 0)
    visitor = Visitor(send, f"{host}:{port}")
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    rooms[room].add(visitor)
    deliver = asyncio.create_task(visitor.deliver())
    say(room, visitor.who, "is here")
    try:
        while (message := await receive())["type"] == "websocket.receive":
            say(room, visitor.who, message.get("text") or "")
    finally:
        deliver.cancel()
        await asyncio.gather(deliver, return_exceptions=True)
        rooms[room].discard(visitor)
        say(room, visitor.who, "has left")
        if not rooms[room]:
            del rooms[room]


async def page(send):
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE.encode()})


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await chat(scope, receive, send)
    else:
        assert scope["type"] == "http"
        await page(send)

# SPDX-License-Identifier: Apache-2.0
"""Quart: Flask's shape with async functions.

pelton examples/quart/webapp.py
"""

import asyncio

from quart import Quart, make_response, request, websocket

app = Quart(__name__)


@app.get("/")
async def hello():
    return {"framework": "quart", "client": request.remote_addr}


async def ticks(count: int):
    for number in range(count):
        yield f"id: {number}\ndata: tick {number}\n\n".encode()
        await asyncio.sleep(0.05)


@app.get("/events")
async def events():
    count = request.args.get("count", 5, type=int)
    response = await make_response(ticks(count), {"Content-Type": "text/event-stream"})
    response.timeout = None  # a stream may last
    return response


@app.websocket("/ws")
async def echo():
    while True:
        await websocket.send(f"you said {await websocket.receive()}")

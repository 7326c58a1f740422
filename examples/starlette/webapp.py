# SPDX-License-Identifier: Apache-2.0
"""Starlette: an answer, a stream of server-sent events, a WebSocket.

pelton examples/starlette/webapp.py
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"framework": "starlette", "client": request.client.host})


async def ticks(count: int):
    for number in range(count):
        yield f"id: {number}\ndata: tick {number}\n\n"
        await asyncio.sleep(0.05)


async def events(request: Request) -> StreamingResponse:
    count = int(request.query_params.get("count", "5"))
    return StreamingResponse(ticks(count), media_type="text/event-stream")


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"you said {text}")


app = Starlette(
    routes=[Route("/", hello), Route("/events", events), WebSocketRoute("/ws", echo)],
)

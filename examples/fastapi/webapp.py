# SPDX-License-Identifier: Apache-2.0
"""FastAPI: a plain function in a thread of its own, server-sent events, a WebSocket.

pelton examples/fastapi/webapp.py
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Hello(BaseModel):
    framework: str
    started: bool


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, bool]]:
    app.state.started = True
    yield {"started": True}


app = FastAPI(lifespan=lifespan)


@app.get("/")
def hello() -> Hello:
    time.sleep(0.01)  # a plain function may block: FastAPI calls it in a thread
    return Hello(framework="fastapi", started=app.state.started)


async def ticks(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"id: {number}\ndata: tick {number}\n\n"
        await asyncio.sleep(0.05)


@app.get("/events")
async def events(count: int = 5) -> StreamingResponse:
    return StreamingResponse(ticks(count), media_type="text/event-stream")


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"you said {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass

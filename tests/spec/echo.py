# SPDX-License-Identifier: Apache-2.0
"""What Autobahn's fuzzing client talks to: every message goes back as it came."""


async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})

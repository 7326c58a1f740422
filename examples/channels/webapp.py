# SPDX-License-Identifier: Apache-2.0
"""Django with Channels in one file: views, server-sent events, a WebSocket consumer.

pelton examples/channels/webapp.py
"""

import asyncio

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    INSTALLED_APPS=["channels"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only an example",
)
django.setup()


def hello(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"framework": "channels", "client": request.META["REMOTE_ADDR"]})


async def ticks(count: int):
    for number in range(count):
        yield f"id: {number}\ndata: tick {number}\n\n"
        await asyncio.sleep(0.05)


async def events(request: HttpRequest) -> StreamingHttpResponse:
    count = int(request.GET.get("count", "5"))
    return StreamingHttpResponse(ticks(count), content_type="text/event-stream")


class Echo(AsyncWebsocketConsumer):
    """Each message goes through the channel layer, to all who are connected."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("all", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("all", self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("all", {"type": "said", "text": text_data})

    async def said(self, event: dict[str, str]) -> None:
        await self.send(f"you said {event['text']}")


urlpatterns = [path("", hello), path("events", events)]
app = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("ws", Echo.as_asgi())])}
)

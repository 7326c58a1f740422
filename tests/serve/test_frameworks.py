# SPDX-License-Identifier: Apache-2.0
"""Flask and Django, as their documentation begins, in every carrier."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from harness import SLOW, Server

Serve = Callable[..., Server]

FLASK = """
import time

from flask import Flask, Response, request, session, stream_with_context

app = Flask(__name__)
app.secret_key = "only a test's"


@app.get("/")
def hello():
    return "Hello World"


@app.get("/count")
def count():
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@app.post("/form")
def form():
    upload = request.files["file"]
    return {"name": upload.filename, "size": len(upload.read()), "x": request.form["x"]}


@app.get("/stream")
def stream():
    def lines():
        for i in range(int(request.args["n"])):
            yield f"{i}\\n"
            time.sleep(0.001)
    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.get("/fail")
def fail():
    raise ValueError("on purpose")
"""

DJANGO = """
import sys

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    DEBUG=False, SECRET_KEY="only a test's", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    LOGGING={
        "version": 1,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["console"], "level": "ERROR"}},
    },
)


def hello(request):
    return HttpResponse("Hello World")


@csrf_exempt
def form(request):
    upload = request.FILES["file"]
    return JsonResponse({"name": upload.name, "size": upload.size, "x": request.POST["x"]})


def stream(request):
    return StreamingHttpResponse(f"{i}\\n" for i in range(int(request.GET["n"])))


def file(request):
    return FileResponse(open("webapp.py", "rb"))


def fail(request):
    raise ValueError("on purpose")


urlpatterns = [
    path("", hello), path("form", form), path("stream", stream), path("file", file),
    path("fail", fail),
]
application = get_wsgi_application()
"""


def visit(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=20 * SLOW, trust_env=False) as client:
        for _ in range(3):
            assert client.get("/").text == "Hello World"
            upload = {"file": ("big.bin", b"z" * 3_000_000)}
            answer = client.post("/form", data={"x": "ä"}, files=upload).json()
            assert answer == {"name": "big.bin", "size": 3_000_000, "x": "ä"}
            lines = client.get("/stream", params={"n": 200}).text.splitlines()
            assert lines == [str(i) for i in range(200)]
            assert client.get("/nowhere").status_code == 404
            assert client.head("/").status_code == 200
        assert client.get("/fail").status_code == 500
        assert client.get("/").text == "Hello World"


def test_flask(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=FLASK)
    server.expect_log("ValueError: on purpose")
    visit(server)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]


def test_django(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=DJANGO)
    server.expect_log("ValueError: on purpose")
    visit(server)
    assert server.get("/file").body == DJANGO.encode()

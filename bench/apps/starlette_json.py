# SPDX-License-Identifier: Apache-2.0
"""A Starlette application that answers with JSON."""

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def home(request):
    return JSONResponse({"hello": "world"})


app = Starlette(routes=[Route("/", home)])

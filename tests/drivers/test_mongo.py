# SPDX-License-Identifier: Apache-2.0
"""pymongo's waits overlap. Its server is mongo.py, which speaks as much as this needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mongo
import pytest
import slow
from conftest import Matrix

N = 8

APP = """
URL = f"mongodb://127.0.0.1:{os.environ['PORT']}/?serverSelectionTimeoutMS=30000"

def judged(found, n):
    assert [row["_id"] for row in found] == list(range(2000))
    assert all(row["n"] == n and row["text"] == f"item {n}" * 50 for row in found)
    return n

def own(n):
    import pymongo
    with pymongo.MongoClient(URL) as client:
        return judged(list(client.shop.items.find({"n": n})), n)

def shared(n):
    import pymongo
    client = once("shared", lambda: pymongo.MongoClient(URL))
    return judged(list(client.shop.items.find({"n": n})), n)

def small_pool(n):
    # Two connections: the others wait for the pool's condition.
    import pymongo
    client = once("small", lambda: pymongo.MongoClient(URL, maxPoolSize=2))
    return judged(list(client.shop.items.find({"n": n})), n)

def asyncio_(n):
    import asyncio, pymongo
    async def ask():
        async with pymongo.AsyncMongoClient(URL) as client:
            return judged(await client.shop.items.find({"n": n}).to_list(), n)
    return asyncio.run(ask())
"""

CELLS = {"own": None, "shared": None, "small_pool": 2, "asyncio_": None}
KEPT = {"shared": N + 2, "small_pool": 4}  # and its monitors' two


@pytest.fixture
def service() -> Iterator[mongo.MongoService]:
    with slow.serving(mongo.MongoService()) as made:
        yield made


@pytest.mark.parametrize("cell", CELLS)
def test_pymongo(matrix: Callable[..., Matrix], service: mongo.MongoService, cell: str) -> None:
    served = matrix(APP, {"PORT": str(service.server_address[1])})
    served.server.allow_fds("socket", KEPT.get(cell, 0))
    for _ in range(2):
        service.gate.close()
        answers = served.meet(
            cell, N, service.gate.waiting, service.gate.open, at_server=CELLS[cell]
        )
        assert answers == list(range(N))

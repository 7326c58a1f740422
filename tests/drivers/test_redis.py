# SPDX-License-Identifier: Apache-2.0
"""redis-py: its waits overlap, as the server's list of clients sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from conftest import Matrix

N = 8

APP = """
import redis
PORT = int(os.environ["PORT"])
shared = redis.Redis(port=PORT)
small = redis.Redis(connection_pool=redis.BlockingConnectionPool(
    port=PORT, max_connections=2, timeout=60))

def judged(found, n):
    key, value = found
    assert key == b"key%d" % n
    assert value == b"%d" % n * 100000
    return n

def own(n):
    with redis.Redis(port=PORT) as client:
        return judged(client.blpop(f"key{n}", timeout=60), n)

def pool(n):
    return judged(shared.blpop(f"key{n}", timeout=60), n)

def small_pool(n):
    # Two connections: the others wait in the pool's queue, which is a condition.
    return judged(small.blpop(f"key{n}", timeout=60), n)

def published(n):
    with redis.Redis(port=PORT) as client, client.pubsub() as channel:
        channel.subscribe("news")
        for message in channel.listen():
            if message["type"] == "message":
                return n if message["data"] == b"all" else message["data"].decode()

def locked(n):
    # Redis' own lock polls it with time.sleep().
    with shared.lock("lock", timeout=60, sleep=0.005):
        seen = int(shared.get("inside") or 0)
        shared.set("inside", seen + 1)
        time.sleep(0.002)
        shared.set("inside", seen)
        assert seen == 0
    return judged(shared.blpop(f"key{n}", timeout=60), n)

def asyncio_(n):
    import asyncio
    import redis.asyncio
    async def ask():
        async with redis.asyncio.Redis(port=PORT) as client:
            return judged(await client.blpop(f"key{n}", timeout=60), n)
    return asyncio.run(ask())
"""

BLOCKED = ["own", "pool", "locked", "asyncio_"]


@pytest.fixture
def client(redis_port: int) -> redis.Redis:
    made = redis.Redis(port=redis_port)
    made.flushall()
    return made


def waiting(client: redis.Redis, flag: str = "b") -> int:
    """How many connections wait in a command ("b"), or have subscribed to something ("P")."""
    return sum(flag in each["flags"] for each in client.client_list())


def give(client: redis.Redis) -> None:
    for n in range(N):
        client.rpush(f"key{n}", b"%d" % n * 100000)


@pytest.mark.parametrize("cell", BLOCKED)
def test_redis(
    matrix: Callable[..., Matrix], client: redis.Redis, redis_port: int, cell: str
) -> None:
    served = matrix(APP, {"PORT": str(redis_port)})
    served.server.allow_fds("socket", N)
    for _ in range(2):
        answers = served.meet(cell, N, lambda: waiting(client), lambda: give(client))
        assert answers == list(range(N))


def test_redis_by_a_small_pool(
    matrix: Callable[..., Matrix], client: redis.Redis, redis_port: int
) -> None:
    served = matrix(APP, {"PORT": str(redis_port)})
    served.server.allow_fds("socket", 2)
    for _ in range(2):
        answers = served.meet(
            "small_pool", N, lambda: waiting(client), lambda: give(client), at_server=2
        )
        assert answers == list(range(N))


def test_redis_publishes(
    matrix: Callable[..., Matrix], client: redis.Redis, redis_port: int
) -> None:
    served = matrix(APP, {"PORT": str(redis_port)})
    for _ in range(2):
        answers = served.meet(
            "published",
            N,
            lambda: waiting(client, "P"),
            lambda: client.publish("news", "all"),
        )
        assert answers == list(range(N))

# SPDX-License-Identifier: Apache-2.0
"""What the soak serves: one path for each kind of wait. The answer is the request's own id.

A service that is away (drive.py restarts them) is a 503; what else goes wrong is an error.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import queue
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from urllib.parse import parse_qs

try:
    import psycopg2
    import redis
except ImportError:  # drive.py does not ask for these then
    psycopg2 = redis = None

HERE = json.loads(os.environ["SOAK_SERVICES"])
# What a client sees of a service that goes away. A time-out is none of it.
AWAY: tuple[type[BaseException], ...] = (ConnectionError, ssl.SSLError, EOFError)
if redis:
    # A key that went with the service is waited for in vain.
    AWAY += (redis.ConnectionError, redis.TimeoutError, psycopg2.OperationalError)
    # Longer than any blpop: redis-py would begin it anew after 5 s of its own, ten times.
    POOL = redis.Redis(port=HERE.get("redis", 0), max_connections=256, socket_timeout=30)
    if "redis" in HERE:
        # As many as there are clients, now: what a connection keeps would look like growth later.
        opened = [POOL.connection_pool.get_connection() for _ in range(32)]
        for each in opened:
            each.send_command("PING")
            each.read_response()
            POOL.connection_pool.release(each)
        del opened
CONTEXT = ssl.create_default_context(cafile=HERE["certificate"])
LOCK, JOBS = threading.Lock(), queue.Queue()


def worker() -> None:
    while True:
        me, answers = JOBS.get()
        time.sleep(0.001)
        answers.put(me)


threading.Thread(target=worker, daemon=True).start()


def by_sleep(me: str) -> str:
    time.sleep(0.02)
    return me


def ask(sock: socket.socket, me: str) -> str:
    sock.sendall(me.encode() + b"\n")
    with sock.makefile("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the service went away")
    return line.decode().strip()


def by_socket(me: str) -> str:
    with socket.create_connection(("127.0.0.1", HERE["plain"]), 20) as sock:
        return ask(sock, me)


def by_ssl(me: str) -> str:
    with (
        socket.create_connection(("localhost", HERE["tls"]), 20) as sock,
        CONTEXT.wrap_socket(sock, server_hostname="localhost") as wrapped,
    ):
        return ask(wrapped, me)


def by_lock(me: str) -> str:
    with LOCK:
        time.sleep(0.001)
    return me


def by_queue(me: str) -> str:
    answers: queue.Queue[str] = queue.Queue()
    JOBS.put((me, answers))
    return answers.get(timeout=20)


def by_subprocess(me: str) -> str:
    command = ["/bin/sh", "-c", "sleep 0.01; cat"]
    return subprocess.run(command, input=me, capture_output=True, text=True, check=True).stdout


def by_asyncio(me: str) -> str:
    async def talk() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", HERE["plain"])
        try:
            writer.write(me.encode() + b"\n")
            await asyncio.sleep(0.001)
            line = await reader.readline()
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise EOFError("the service went away")
        return line.decode().strip()

    return asyncio.run(talk())


def by_flock(me: str) -> str:
    with open("soak.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(0.001)
    return me


def by_redis(me: str) -> str:
    POOL.rpush("soak-" + me, me)
    found = POOL.blpop(["soak-" + me], timeout=20)
    if found is None:
        raise ConnectionResetError("the key went with the service")
    POOL.blpop(["soak-nobody"], timeout=0.01)
    return found[1].decode()


def by_postgres(me: str) -> str:
    connection = psycopg2.connect(HERE["postgres"])
    try:
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(0.01), %s", (me,))
            return cursor.fetchone()[1]
    finally:
        connection.close()


def where(_me: str) -> str:
    """What every request and thread is in: drive.py asks when an answer doesn't come."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )


class MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        )
    ]


LIBC = ctypes.CDLL(None)
LIBC.mallinfo2.restype = MallInfo


def free_kb(_me: str) -> str:
    """What malloc keeps of what was freed."""
    return str(LIBC.mallinfo2().fordblks // 1024)


def settle(_me: str) -> str:
    """What is kept open between requests is closed: drive.py counts descriptors then."""
    if redis and POOL:
        POOL.connection_pool.disconnect()
    return "settled"


WAYS = {name[3:]: way for name, way in globals().items() if name.startswith("by_")}
WAYS |= {"settle": settle, "where": where, "free_kb": free_kb}


def application(environ: dict, start_response: Callable) -> list[bytes]:
    me = parse_qs(environ["QUERY_STRING"])["id"][0]
    status = "200 OK"
    try:
        answer = WAYS[environ["PATH_INFO"][1:]](me)
    except AWAY as error:
        status, answer = "503 Service Unavailable", repr(error)
    body = answer.encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]

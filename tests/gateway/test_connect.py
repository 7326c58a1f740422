# SPDX-License-Identifier: Apache-2.0
"""Connecting on ``pelton.Loop``: sock_connect() in C, and create_connection() to addresses."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import tempfile
import warnings

from gwharness import collect, leaves_nothing, raising
from protocols import Seen
from test_loop import Loop, run
from tlsharness import alike

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))
TIMEOUT_S = 60


def unused_port(family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return sock.getsockname()[1]


def plain(family=socket.AF_INET):
    sock = socket.socket(family)
    sock.setblocking(False)
    return sock


async def outcome(awaitable):
    """Its result's type, or its exception without numbers that differ."""
    try:
        return type(await asyncio.wait_for(awaitable, TIMEOUT_S)).__name__
    except Exception as exc:
        return type(exc).__name__, getattr(exc, "errno", None), str(exc)


def listeners():
    """One of each family that the machine has."""
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        try:
            yield socket.create_server((host, 0), family=family)
        except OSError:
            continue  # without IPv6


def test_sock_connect():
    async def main(loop):
        found = []
        for listener in listeners():
            with listener, plain(listener.family) as sock:
                assert await loop.sock_connect(sock, listener.getsockname()) is None
                peer, _ = listener.accept()
                with peer:
                    assert sock.getpeername()[:2] == listener.getsockname()[:2]
                    for _ in range(2):  # Linux tells once more that it succeeded, then EISCONN
                        again = loop.sock_connect(sock, listener.getsockname())
                        found.append(await outcome(again))
        return found

    seen, _ = alike(main)
    assert seen[1][0] == "OSError"


def test_refusals():
    port = unused_port()

    async def main(loop):
        found = []
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "nobody")
            cases = [
                (socket.AF_INET, ("127.0.0.1", port)),
                (socket.AF_INET, ("127.0.0.1", 70000)),
                (socket.AF_INET, ("127.0.0.1", -1)),
                (socket.AF_INET, "no tuple"),
                (socket.AF_INET, ("255.255.255.255", 9)),
                (socket.AF_UNIX, path),
                (socket.AF_UNIX, "x" * 200),
                (socket.AF_UNIX, ("a", 1)),
            ]
            for family, address in cases:
                with plain(family) as sock:
                    said = await outcome(loop.sock_connect(sock, address))
                    found.append(said if isinstance(said, str) else said[:2])
                    if address == ("127.0.0.1", port):
                        assert said[2] == f"[Errno 111] Connect call failed {address}", said
        return found

    seen, lines = alike(main)
    assert seen[0] == ("ConnectionRefusedError", 111)
    assert all(isinstance(one, tuple) for one in seen), seen
    assert lines == []


def test_names_and_other_sockets_take_asyncios_way():
    async def main(loop):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with plain() as sock:
                await loop.sock_connect(sock, ("localhost", listener.getsockname()[1]))
            with plain() as sock, raising(Exception):
                await loop.sock_connect(sock, ("::1", listener.getsockname()[1]))

    run(main)


def test_a_full_backlog():
    """Nothing says when there is room: it is said, and not taken for a connection."""

    async def main(loop):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(folder, "socket")
            listener.bind(path)
            listener.listen(0)
            clients = [plain(socket.AF_UNIX) for _ in range(8)]
            found = [await outcome(loop.sock_connect(sock, path)) for sock in clients]
            for sock, said in zip(clients, found, strict=True):
                if said == "NoneType":
                    sock.getpeername()  # or it would raise
                sock.close()
            return found

    found = run(main)
    assert found[0] == "NoneType"
    assert found[-1][0] == "BlockingIOError"


def test_cancelled():
    async def main(loop):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            socks = [plain() for _ in range(4)]  # more than the backlog takes: the last ones wait
            tasks = [
                asyncio.ensure_future(loop.sock_connect(sock, listener.getsockname()))
                for sock in socks
            ]
            done, waiting = await asyncio.wait(tasks, timeout=0.2)
            assert done
            assert waiting
            for task in waiting:
                task.cancel()
                with raising(asyncio.CancelledError):
                    await task
            for sock in socks:
                with raising((BlockingIOError, OSError)):
                    sock.recv(1)
                assert loop._watched(sock.fileno()) in (None, (None, None))
                sock.close()

    run(main)


def test_create_connection_to_an_address():
    async def main(loop):
        found = []
        for listener in listeners():
            with listener:
                address = listener.getsockname()
                transport, protocol = await loop.create_connection(Seen, *address[:2])
                peer, name = listener.accept()
                peer.sendall(b"hello")
                peer.close()
                await protocol.lost
                sock = transport.get_extra_info("socket")
                found.append((protocol.data, protocol.said, sock.family, sock.type, sock.proto))
                assert transport.get_extra_info("peername") == address
                assert transport.get_extra_info("sockname") == name
        return found

    seen, lines = alike(main)
    assert seen[0][0] == b"hello"
    assert lines == []


def test_create_connection_that_fails():
    port = unused_port()

    async def main(loop):
        def factory():
            raise LookupError("no protocol")

        async def cut(connecting):
            task = asyncio.ensure_future(connecting)
            await asyncio.sleep(0)
            task.cancel()
            try:
                transport, _ = await task
            except asyncio.CancelledError:
                return "cancelled"
            transport.abort()
            return "made"

        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = listener.getsockname()
            cases = [
                (Seen, "127.0.0.1", port),
                (Seen, "127.0.0.1", 70000),
                (Seen, "127.0.0.1", None),
                (Seen, "127.0.0.256", port),
                (Seen, "1:2", port),
                (factory, *here),
            ]
            found = [await outcome(loop.create_connection(*case)) for case in cases]
            found += [await cut(loop.create_connection(Seen, *here))]
        gc.collect()
        return [one if isinstance(one, str) else one[:2] for one in found]

    seen, lines = alike(main)
    assert seen[0] == ("ConnectionRefusedError", 111), seen
    assert seen[5] == ("LookupError", None), seen
    assert seen[6] == "cancelled", seen
    assert lines == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main)
    assert not [w for w in caught if w.category is ResourceWarning], caught


def test_options_and_debug_mode_take_asyncios_way():
    async def main(loop):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = listener.getsockname()
            for options in ({"local_addr": ("127.0.0.1", 0)}, {"happy_eyeballs_delay": 0.1}):
                transport, protocol = await loop.create_connection(Seen, *here, **options)
                transport.close()
                await protocol.lost
            with raising(ValueError):
                await loop.create_connection(Seen, *here, server_hostname="x")
            with raising(ValueError):
                await loop.create_connection(Seen, *here, sock=listener)
            loop.set_debug(True)
            transport, protocol = await loop.create_connection(Seen, *here)
            transport.close()
            await protocol.lost

    run(main)


def test_nothing_is_left():
    async def main(loop):
        listener = socket.create_server(("127.0.0.1", 0))
        nobody = unused_port()

        async def turn(count):
            for _ in range(count):
                transport, protocol = await loop.create_connection(Seen, *listener.getsockname())
                listener.accept()[0].close()
                await protocol.lost
                with contextlib.suppress(ConnectionRefusedError):
                    await loop.create_connection(Seen, "127.0.0.1", nobody)
            del transport, protocol
            collect()

        count = min(ROUNDS, 200)
        await turn(1)
        files = len(os.listdir("/proc/self/fd"))
        await leaves_nothing(turn, count, 40)
        assert len(os.listdir("/proc/self/fd")) == files
        listener.close()

    run(main)


def test_a_loop_of_its_own():
    """Without a running loop nothing is connected, and nothing is left."""
    loop = Loop()
    with plain() as sock:
        waiting = loop.sock_connect(sock, ("127.0.0.1", 9))
        waiting.close()
    loop.close()

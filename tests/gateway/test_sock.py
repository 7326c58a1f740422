# SPDX-License-Identifier: Apache-2.0
"""``loop.sock_recv`` and its kin, in C: what they return, how they wait, and what is left."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import os
import socket
import sys
import weakref

from gwharness import collect, leaves_nothing, raising
from test_loop import Loop, run

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))


def pair(*kind):
    ends = socket.socketpair(*kind)
    for end in ends:
        end.setblocking(False)
    return ends


async def asleep():
    """Until whoever was scheduled has begun to wait."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_at_once_and_later():
    async def main(loop):
        here, there = pair()
        call = loop.sock_recv(there, 100)
        assert isinstance(call, collections.abc.Coroutine)
        assert asyncio.iscoroutine(call)
        here.send(b"at once")
        assert await call == b"at once"
        with raising(RuntimeError, "already awaited"):
            await call
        task = asyncio.create_task(loop.sock_recv(there, 100))
        await asleep()
        assert not task.done()
        assert await loop.sock_sendall(here, bytearray(b"later")) is None
        assert await asyncio.wait_for(task, 60) == b"later"
        buffer = bytearray(b"12345678")
        task = asyncio.create_task(loop.sock_recv_into(there, memoryview(buffer)[2:6]))
        await asleep()
        here.send(b"abcdefgh")
        assert await task == 4
        assert buffer == b"12abcd78"
        assert await loop.sock_recv(there, 1 << 20) == b"efgh"  # more than the loop keeps room for
        here.close()
        assert await loop.sock_recv(there, 5) == b""
        there.close()

    run(main)


def test_all_of_it_is_sent():
    async def main(loop):
        here, there = pair()
        data = bytes(range(256)) * 20_000
        task = asyncio.create_task(loop.sock_sendall(here, data))
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(there, 1 << 16)
        await task
        assert got == data
        await loop.sock_sendall(here, b"")
        here.close()
        there.close()

    run(main)


def test_what_is_sent_is_free_again():
    async def main(loop):
        here, there = pair()
        data = bytearray(b"x" * 1000)
        call = loop.sock_sendall(here, data)
        await call
        data += b"y"  # nobody keeps its memory where it is
        data = bytearray(10_000_000)
        call = loop.sock_sendall(here, data)
        task = asyncio.create_task(call)
        await asleep()
        with raising(BufferError):
            data.clear()
        task.cancel()
        with raising(asyncio.CancelledError):
            await task
        data.clear()
        with raising(RuntimeError, "already awaited"):
            call.send(None)
        here.close()
        there.close()

    run(main)


def test_what_is_thrown_in():
    async def main(loop):
        here, there = pair()
        for thrown, kind in ((LookupError, LookupError), (LookupError("x"), LookupError)):
            with raising(kind):
                loop.sock_recv(there, 9).throw(thrown)
        with raising(TypeError, "BaseException"):
            loop.sock_recv(there, 9).throw(5)
        with raising(TypeError, "just-started"):
            loop.sock_recv(there, 9).send(5)
        here.close()
        there.close()

    run(main)


def test_datagrams_and_accept():
    async def main(loop):
        a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in "ab")
        for s in (a, b):
            s.setblocking(False)
            s.bind(("127.0.0.1", 0))
        task = asyncio.create_task(loop.sock_recvfrom(b, 100))
        await asleep()
        assert await loop.sock_sendto(a, b"hello", b.getsockname()) == 5
        assert await task == (b"hello", a.getsockname())
        buffer = bytearray(9)
        await loop.sock_sendto(a, b"again", b.getsockname())
        assert await loop.sock_recvfrom_into(b, buffer) == (5, a.getsockname())
        await loop.sock_sendto(a, b"third", b.getsockname())
        assert await loop.sock_recvfrom_into(b, buffer, 3) == (3, a.getsockname())
        assert buffer == b"thiin\0\0\0\0"
        a.close()
        b.close()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        task = asyncio.create_task(loop.sock_accept(listener))
        await asleep()
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        conn, address = await task
        assert address == client.getsockname()
        assert conn.gettimeout() == 0
        for s in (listener, client, conn):
            s.close()

    run(main)


def test_several_wait_for_one():
    async def main(loop):
        here, there = pair()
        tasks = [asyncio.create_task(loop.sock_recv(there, 1)) for _ in range(5)]
        await asleep()
        here.send(b"abc")
        done, waiting = await asyncio.wait(tasks, timeout=0.05)
        assert sorted(t.result() for t in done) == [b"a", b"b", b"c"]
        assert len(waiting) == 2
        here.send(b"de")
        assert {await t for t in waiting} == {b"d", b"e"}
        here.close()
        there.close()

    run(main)


def test_a_cancelled_one_has_taken_nothing():
    async def main(loop):
        here, there = pair()
        task = asyncio.create_task(loop.sock_recv(there, 9))
        await asleep()
        loop.call_soon(here.send, b"data")
        loop.call_later(0.02, task.cancel)
        await asyncio.wait([task])
        if task.cancelled():
            assert await loop.sock_recv(there, 9) == b"data"
        task = asyncio.create_task(loop.sock_recv(there, 9))
        await asleep()
        here.send(b"kept")
        task.cancel()
        with raising(asyncio.CancelledError):
            await task
        assert there.recv(9) == b"kept"
        with raising(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(there, 9), 0.01)
        closed = loop.sock_recv(there, 9)
        closed.close()
        with raising(RuntimeError, "already awaited"):
            closed.send(None)
        with raising(LookupError):
            loop.sock_recv(there, 9).throw(LookupError())
        here.close()
        there.close()

    run(main)


def test_errors():
    async def main(loop):
        here, there = pair()
        with raising(ValueError):
            await loop.sock_recv(there, -1)
        with raising(TypeError):
            await loop.sock_sendall(there, "text")
        with raising(TypeError):
            await loop.sock_recv_into(there, b"fixed")
        with raising(TypeError):
            await loop.sock_recv(there)
        there.close()
        with raising(BrokenPipeError):
            await loop.sock_sendall(here, b"x")
        here.close()
        with raising(OSError, "Bad file descriptor"):
            await loop.sock_recv(here, 1)
        # A descriptor that a transport has.
        here, there = pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
        with raising(RuntimeError, "is used by transport"):
            await loop.sock_recv(here, 1)
        transport.close()
        await asyncio.sleep(0)
        there.close()
        loop.set_debug(True)
        here, there = socket.socketpair()
        with here, there, raising(ValueError, "non-blocking"):
            await loop.sock_recv(here, 1)

    run(main)


# --- What is left -----------------------------------------------------------------------------


def test_calls_leave_nothing():
    async def main(loop):
        here, there = pair()

        async def turn(count):
            for _ in range(count):
                task = asyncio.create_task(loop.sock_recv(there, 100))
                lost = asyncio.create_task(loop.sock_recv_into(here, bytearray(9)))
                await asyncio.sleep(0)
                await loop.sock_sendall(here, b"x")
                await task
                lost.cancel()
                loop.sock_recv(there, 5)  # that nobody awaits
                await asyncio.wait([lost])
            collect()

        await leaves_nothing(turn, ROUNDS, 8)
        here.close()
        there.close()

    run(main)


def test_a_loop_that_goes_with_its_waiters():
    class Marked:
        pass

    def make():
        loop = Loop()
        here, there = pair()
        marked = Marked()

        async def wait(_marked):
            await loop.sock_recv(there, 9)

        task = loop.create_task(wait(marked))
        task._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0.001))
        here.close()
        return weakref.ref(loop), weakref.ref(marked), loop

    left = [make() for _ in range(4)]
    for _, _, loop in left[::2]:
        loop.close()
    refs = [(a, b) for a, b, _ in left]
    del left, loop
    gc.collect()
    assert not any(ref() for both in refs for ref in both), refs


def test_the_loop_is_left_as_it_was():
    async def main(loop):
        here, there = pair()
        refs = sys.getrefcount(loop)
        for _ in range(50):
            task = asyncio.create_task(loop.sock_recv(there, 1))
            await asyncio.sleep(0)
            here.send(b"x")
            await task
        task = None
        gc.collect()
        assert abs(sys.getrefcount(loop) - refs) < 3
        here.close()
        there.close()

    run(main)

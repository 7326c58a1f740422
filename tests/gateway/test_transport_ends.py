# SPDX-License-Identifier: Apache-2.0
"""How a C transport of ``pelton.Loop`` ends, what callbacks may do to it, and sendfile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import tempfile

from gwharness import raising
from protocols import Seen
from test_loop import run
from test_transport import Buffered, pair, until


async def take(there, count):
    """So many bytes of what comes out at the other end."""
    got = bytearray()
    async with asyncio.timeout(60):
        while len(got) < count:
            try:
                data = there.recv(count - len(got))
            except BlockingIOError:
                await asyncio.sleep(0)
            else:
                assert data, "the end came early"
                got += data
    return got


def test_it_is_lost_once():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        transport.abort()
        transport.abort()
        transport._force_close(OSError())
        transport.close()
        assert transport._conn_lost == 1
        assert await protocol.lost is None
        await asyncio.sleep(0.01)
        assert protocol.said == ["made", "lost"]
        there.close()

    run(main)


def test_what_connection_lost_raises():
    class Fails(Seen):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise LookupError("failed")

    async def main(loop):
        said = []
        loop.set_exception_handler(lambda _, context: said.append(context["exception"]))
        transport, protocol, there = await pair(loop, Fails)
        fd = transport._sock_fd
        transport.close()
        await protocol.lost
        await until(lambda: said)
        assert [type(e) for e in said] == [LookupError]
        with raising(OSError):
            os.fstat(fd)
        assert transport.get_protocol() is None
        there.close()

    run(main)


def test_connection_lost_that_calls_itself():
    class Twice(Seen):
        def connection_lost(self, exc):
            if not self.lost.done():
                super().connection_lost(exc)
                self.transport._call_connection_lost(None)

    async def main(loop):
        before = sys.getrefcount(loop)
        for _ in range(20):
            transport, protocol, there = await pair(loop, Twice)
            transport.close()
            await protocol.lost
            there.close()
        del transport, protocol
        await asyncio.sleep(0)
        assert abs(sys.getrefcount(loop) - before) < 5

    run(main)


def test_writes_after_the_end_are_said():
    class Lines(logging.Handler):
        def __init__(self):
            super().__init__()
            self.lines = []

        def emit(self, record):
            self.lines.append(record.getMessage())

    async def main(loop):
        handler = Lines()
        logging.getLogger("asyncio").addHandler(handler)
        transport, protocol, there = await pair(loop)
        transport.abort()
        for _ in range(4):
            transport.write(b"x")
        assert handler.lines == []
        transport.write(b"x")
        transport.writelines([b"x"])
        transport.writelines([])
        logging.getLogger("asyncio").removeHandler(handler)
        assert handler.lines == ["socket.send() raised exception."] * 2
        await protocol.lost
        there.close()

    run(main)


def test_eof_comes_once():
    async def main(loop):
        transport, protocol, there = await pair(loop, lambda: Seen(keep_open=True))
        there.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in protocol.said)
        await asyncio.sleep(0.02)
        assert protocol.said == ["made", "eof"]
        transport.abort()
        there.close()

    run(main)


def test_it_resumes_at_the_low_mark():
    class Sizes(Seen):
        def resume_writing(self):
            super().resume_writing()
            self.said.append(self.transport.get_write_buffer_size())

    async def main(loop):
        transport, protocol, there = await pair(loop, Sizes)
        transport.set_write_buffer_limits(high=500_000, low=10_000)
        transport.write(bytes(2_000_000))
        while "resume" not in protocol.said:
            await take(there, 10_000)
            await asyncio.sleep(0)
        assert protocol.said[:3] == ["made", "pause", "resume"]
        assert protocol.said[3] <= 10_000
        transport.abort()
        there.close()

    run(main)


def test_lines_are_written_all_or_none():
    async def main(loop):
        transport, _, there = await pair(loop)
        for bad in ("text", 5, memoryview(b"abcd")[::2]):
            with raising(TypeError if bad in ("text", 5) else BufferError):
                transport.writelines([b"first", bad])
        assert transport.get_write_buffer_size() == 0
        transport.writelines(iter([b"%03d" % i for i in range(200)]))
        assert there.recv(1000) == b"".join(b"%03d" % i for i in range(200))  # at once
        transport.abort()
        there.close()

    run(main)


def test_the_program_ends_when_output_waits():
    class Leaves(Seen):
        def pause_writing(self):
            raise SystemExit(7)

    async def main(loop):
        transport, _, there = await pair(loop, Leaves)
        transport.set_write_buffer_limits(10)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        kept = transport.get_extra_info("socket")
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        transport.write(b"x" * 1000)
        with contextlib.suppress(BlockingIOError):
            while True:
                there.send(b"x" * 1000)
        for _ in range(50):  # what is gathered leaves, and waits, when this callback is over
            transport.write(b"x" * 1000)
        try:
            await asyncio.sleep(60)
        finally:
            transport.abort()
            there.close()

    with raising(SystemExit, "7"):
        run(main)


def test_get_buffer_that_ends_it():
    class Ends(Buffered):
        def connection_made(self, transport):
            self.transport = transport

        def get_buffer(self, hint):
            self.transport.abort()
            return super().get_buffer(hint)

    async def main(loop):
        _, protocol, there = await pair(loop, Ends)
        there.send(b"x")
        assert await protocol.lost is None
        assert protocol.data == b""
        there.close()

    run(main)


def test_protocols_change_their_kind():
    async def main(loop):
        transport, first, there = await pair(loop)
        second, third = Buffered(), Seen()
        for protocol, data in ((second, b"second"), (third, b"third"), (first, b"first")):
            transport.set_protocol(protocol)
            there.send(data)
            await until(lambda p=protocol, d=data: p.data == d)
        transport.close()
        assert await first.lost is None
        assert not second.lost.done()
        there.close()

    run(main)


def test_paused_in_connection_made():
    class Pauses(Seen):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    async def main(loop):
        transport, protocol, there = await pair(loop, Pauses)
        there.send(b"x")
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        assert loop._watched(transport._sock_fd) is None
        transport.resume_reading()
        await until(lambda: protocol.data == b"x")
        transport.abort()
        there.close()

    run(main)


def test_a_connection_that_is_not_waited_for_any_more():
    async def main(loop):
        said = []
        loop.set_exception_handler(lambda _, context: said.append(context))
        here, there = socket.socketpair()
        waiter = loop.create_future()
        transport = loop._make_socket_transport(here, Seen(), waiter)
        waiter.cancel()
        await asyncio.sleep(0.01)
        assert not said
        transport.abort()
        there.close()

    run(main)


# --- sendfile ---------------------------------------------------------------------------------


@contextlib.contextmanager
def file_of(data):
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def test_sendfile_after_what_waits():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        transport.write(bytes(1 << 20))
        with file_of(b"file" * 1000) as file:
            task = asyncio.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0)
            for call in (transport.write, transport.writelines):
                with raising(RuntimeError, "sendfile is in progress"):
                    call([b"x"] if call == transport.writelines else b"x")
            with raising(RuntimeError, "already set"):
                transport._make_empty_waiter()
            assert await take(there, (1 << 20) + 4000) == bytes(1 << 20) + b"file" * 1000
            assert await asyncio.wait_for(task, 60) == 4000
        transport.write(b"more")
        assert await take(there, 4) == b"more"
        there.send(b"and back")
        await until(lambda: protocol.data == b"and back")
        transport.close()
        there.close()

    run(main)


def test_sendfile_whose_connection_ends():
    async def main(loop):
        for end in ("abort", "peer"):
            transport, protocol, there = await pair(loop)
            transport.write(bytes(1 << 20))
            with file_of(b"file") as file:
                task = asyncio.create_task(loop.sendfile(transport, file))
                await asyncio.sleep(0)
                if end == "abort":
                    transport.abort()
                else:
                    there.close()
                await asyncio.wait([task], timeout=60)
            assert isinstance(task.exception(), ConnectionError)
            by_peer = "Connection is closed by peer" in str(task.exception())
            assert by_peer == (end == "abort")  # else it is the error of the write
            await protocol.lost
            there.close()

    run(main)

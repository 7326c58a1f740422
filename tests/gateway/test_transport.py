# SPDX-License-Identifier: Apache-2.0
"""The C transports of ``pelton.Loop``: what protocols see, how output waits, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import sys
import warnings
import weakref

from gwharness import collect, leaves_nothing, raising
from protocols import Seen
from test_loop import Loop, run

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))


class Buffered(asyncio.BufferedProtocol):
    """Takes what comes in a buffer of its own."""

    def __init__(self, size=7):
        self.buffer = bytearray(size)
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, hint):
        assert hint == -1
        return memoryview(self.buffer)

    def buffer_updated(self, count):
        self.data += self.buffer[:count]

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def pair(loop, factory=Seen):
    """A transport, its protocol, and the plain socket at the other end."""
    here, there = socket.socketpair()
    there.setblocking(False)
    transport, protocol = await loop.create_connection(factory, sock=here)
    return transport, protocol, there


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_a_transport_is():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("socket").fileno() == transport._sock_fd
        assert transport.get_extra_info("nothing", default=5) == 5
        assert transport.get_extra_info("nothing") is None
        assert transport.can_write_eof()
        assert transport.is_reading()
        assert "read=polling" in repr(transport)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=8)
        assert transport.get_write_buffer_limits() == (2, 8)
        transport.set_write_buffer_limits(low=8)
        assert transport.get_write_buffer_limits() == (8, 32)
        with raising(ValueError):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.anything = 1  # as asyncio's own has a __dict__
        assert transport.__dict__ == {"anything": 1}
        with raising(RuntimeError, "is used by transport"):
            loop.add_reader(transport._sock_fd, print)
        with raising(TypeError, "bytes-like"):
            transport.write("text")
        with raising(TypeError):
            type(transport)()
        transport.close()
        assert await protocol.lost is None
        assert "closed" in repr(transport)
        assert protocol.said == ["made", "lost"]
        transport.close()
        transport.abort()
        transport.pause_reading()
        transport.resume_reading()
        transport.write(b"into the void")
        assert transport.is_closing()
        there.close()

    run(main)


def test_data_and_eof():
    async def main(loop):
        for factory in (Seen, Buffered):
            transport, protocol, there = await pair(loop, factory)
            there.send(b"hello, world")
            await until(lambda p=protocol: p.data == b"hello, world")
            transport.pause_reading()
            assert not transport.is_reading()
            there.send(b"!")
            await asyncio.sleep(0.02)
            assert protocol.data == b"hello, world"
            transport.resume_reading()
            await until(lambda p=protocol: p.data == b"hello, world!")
            there.close()
            assert await protocol.lost is None
            assert transport.is_closing()
        transport, protocol, there = await pair(loop, lambda: Seen(keep_open=True))
        there.shutdown(socket.SHUT_WR)
        await until(lambda: "eof" in protocol.said)
        transport.write(b"still there")
        assert there.recv(100) == b"still there"
        transport.write_eof()
        transport.write_eof()
        with raising(RuntimeError, "after write_eof"):
            transport.write(b"x")
        with raising(RuntimeError, "after write_eof"):
            transport.writelines([b"x"])
        assert there.recv(100) == b""
        transport.close()
        there.close()

    run(main)


def test_messages_of_one_size():
    class Keeps(Seen):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.messages = []

        def data_received(self, data):
            self.messages.append(data)

    async def main(loop):
        _, protocol, there = await pair(loop, Keeps)
        sent = []
        for size in (*[1000] * 5, 999, *[1000] * 5, 70_000, 3, *[1000] * 4, 1, *[300] * 4):
            sent.append(bytes([len(sent)]) * size)
            there.send(sent[-1])
            await until(lambda: sum(map(len, protocol.messages)) == sum(map(len, sent)))
        assert protocol.messages == sent
        there.close()
        assert await protocol.lost is None
        assert protocol.messages == sent

    run(main)


def test_a_callback_gathers_its_writes():
    async def main(loop):
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        there.setblocking(False)
        waiter = loop.create_future()
        transport = loop._make_socket_transport(here, Seen(), waiter)
        await waiter

        def say():
            changes = bytearray(b"2")
            transport.write(b"1")
            assert there.recv(100) == b"1"  # the first one goes at once
            transport.write(changes)
            changes[:] = b"x"
            transport.write(memoryview(b"3"))
            transport.writelines([b"4", b"", bytearray(b"5")])
            transport.write(b"")
            assert transport.get_write_buffer_size() == 4
            assert transport._buffer == [b"2", b"3", b"4", b"5"]

        loop.call_soon(say)
        await asyncio.sleep(0)
        assert there.recv(100) == b"2345"  # one message: one system call
        for end in ("close", "abort", "write_eof"):
            transport.abort()
            there.close()
            transport, _, there = await pair(loop)
            transport.write(b"a")
            transport.write(b"b")
            getattr(transport, end)()
            got = there.recv(100)
            assert got + (there.recv(100) if len(got) == 1 else b"") == b"ab"
        transport.close()
        there.close()

    run(main)


def test_water_marks():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        block = bytes(range(256)) * 1024
        sent = 0
        while "pause" not in protocol.said:
            transport.write(block)
            sent += len(block)
            await asyncio.sleep(0)
        assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
        transport.writelines([block[:3], bytearray(block[3:]), block])
        sent += 2 * len(block)
        got = bytearray()
        while len(got) < sent:
            try:
                got += there.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert got == block * (sent // len(block))
        await until(lambda: protocol.said == ["made", "pause", "resume"])
        assert transport.get_write_buffer_size() == 0
        # close() sends what is left; connection_lost() comes after that.
        transport.write(block * 20)
        transport.close()
        assert "lost" not in protocol.said
        got = bytearray()
        while len(got) < 20 * len(block):
            try:
                got += there.recv(1 << 20)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert await protocol.lost is None
        assert got == block * 20
        assert there.recv(1) == b""
        there.close()

    run(main)


def test_many_small_pieces_wait():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        transport.set_write_buffer_limits(high=1 << 30)
        transport.write(bytes(1 << 20))
        lines = [str(i).encode() for i in range(5000)]
        transport.writelines(lines)
        for line in lines:
            transport.write(line)
        transport.write_eof()
        got = bytearray()
        while not protocol.lost.done():
            try:
                block = there.recv(1 << 16)
                if not block:
                    break
                got += block
            except BlockingIOError:
                await asyncio.sleep(0)
        assert got == bytes(1 << 20) + b"".join(lines) * 2
        assert "pause" not in protocol.said
        transport.abort()
        there.close()

    run(main)


def test_errors():
    class Fails(Seen):
        def __init__(self, where):
            super().__init__()
            setattr(self, where, self.fail)

        def fail(self, *_):
            raise LookupError("failed")

    class NoRoom(Buffered):
        def __init__(self, buffer):
            super().__init__()
            self.get_buffer = lambda _: buffer

    async def main(loop):
        said = []
        loop.set_exception_handler(lambda _, context: said.append(context))
        for where in ("data_received", "eof_received"):
            transport, protocol, there = await pair(loop, lambda w=where: Fails(w))
            there.send(b"x") if where == "data_received" else there.close()
            exc = await protocol.lost
            assert isinstance(exc, LookupError)
            context = said.pop()
            assert context["exception"] is exc
            assert context["transport"] is transport
            assert context["protocol"] is protocol
            assert where in context["message"]
            there.close()
        for bad, kind in ((bytearray(), RuntimeError), (b"fixed", BufferError), (5, TypeError)):
            transport, protocol, there = await pair(loop, lambda b=bad: NoRoom(b))
            there.send(b"x")
            assert isinstance(await protocol.lost, kind)
            assert "get_buffer" in said.pop()["message"]
            there.close()
        # A peer that goes is no error of the program.
        transport, protocol, there = await pair(loop)
        transport.pause_reading()
        there.close()
        transport.write(b"x")
        assert isinstance(await protocol.lost, BrokenPipeError)
        # While output waits.
        transport, protocol, there = await pair(loop)
        transport.pause_reading()
        transport.write(bytes(1 << 22))
        assert protocol.said == ["made", "pause"]
        there.close()
        assert isinstance(await protocol.lost, OSError)
        assert not said
        for _ in range(10):
            transport.write(b"x")
        # The water marks' callbacks fail.
        transport, protocol, there = await pair(loop, lambda: Fails("pause_writing"))
        transport.write(bytes(1 << 22))
        assert "pause_writing" in said.pop()["message"]
        transport.abort()
        assert await protocol.lost is None
        there.close()

    run(main)


def test_the_program_ends_in_a_callback():
    class Leaves(Seen):
        def data_received(self, data):
            raise SystemExit(7)

    async def main(loop):
        _, _, there = await pair(loop, Leaves)
        there.send(b"x")
        there.close()
        await asyncio.sleep(60)

    with warnings.catch_warnings(), raising(SystemExit, "7"):
        warnings.simplefilter("ignore", ResourceWarning)
        run(main)
    gc.collect()


def test_a_socket_that_somebody_else_closes():
    async def main(loop):
        here, there = socket.socketpair()
        there.setblocking(False)
        transport, protocol = await loop.create_connection(Seen, sock=here)
        fd = here.fileno()
        here.close()
        with open(os.devnull) as other:
            assert other.fileno() != fd  # the number is the transport's as long as it lives
            transport.write(b"x")
            assert there.recv(9) == b"x"
            transport.close()
            await protocol.lost
        with raising(OSError):
            os.fstat(fd)
        there.close()

    run(main)


def test_one_that_nobody_closes():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        transport.pause_reading()
        watched, fd = weakref.ref(transport), transport._sock_fd
        del protocol.transport
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport
            protocol = None
            collect()
        assert any("unclosed transport <" in str(w.message) for w in caught), caught
        caught.clear()  # they hold it
        assert watched() is None
        with raising(OSError):
            os.fstat(fd)
        there.close()

    run(main)


def test_contexts():
    variable = contextvars.ContextVar("variable", default="none")

    class Asks(Seen):
        def data_received(self, data):
            super().data_received(data)
            self.said.append(variable.get())

    async def main(loop):
        variable.set("creator")
        transport, protocol, there = await pair(loop, Asks)
        variable.set("later")
        there.send(b"x")
        await until(lambda: protocol.data)
        assert protocol.said[-1] == "creator"
        transport.pause_reading()
        transport.resume_reading()
        there.send(b"x")
        await until(lambda: len(protocol.data) == 2)
        assert protocol.said[-1] == "later"
        transport.close()
        there.close()

    run(main)


def test_output_that_was_gathered_has_its_writers_context():
    variable = contextvars.ContextVar("variable", default="none")

    class Asks(Seen):
        def pause_writing(self):
            self.said.append(("pause", variable.get()))

        def resume_writing(self):
            self.said.append(("resume", variable.get()))

    async def main(loop):
        transport, protocol, there = await pair(loop, Asks)
        variable.set("writer")
        size = 60_000  # what is above this goes at once
        while len(protocol.said) < 2:
            transport.write(b"x" * size)
            transport.write(b"y" * size)
            await asyncio.sleep(0)
        assert protocol.said[1:] == [("pause", "writer")]
        while len(protocol.said) < 3:
            there.recv(size)
            await asyncio.sleep(0)
        assert protocol.said[2:] == [("resume", "writer")]
        transport.abort()
        there.close()

    run(main)


def test_gathered_output_is_not_what_the_marks_are_for():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        transport.write(b"1")
        transport.write(b"2" * 100)
        transport.set_write_buffer_limits(10)
        await asyncio.sleep(0)
        assert protocol.said == ["made"]
        there.close()
        await protocol.lost

    run(main)


def test_lines_that_are_written_when_there_is_room_again_go_at_once():
    class Writes(Seen):
        def resume_writing(self):
            super().resume_writing()
            self.transport.writelines([b"x" * 70_000])
            self.said.append(self.transport.get_write_buffer_size())

    async def main(loop):
        transport, protocol, there = await pair(loop, Writes)
        transport.write(bytes(1 << 20))
        while "resume" not in protocol.said:
            with contextlib.suppress(BlockingIOError):
                there.recv(1 << 20)
            await asyncio.sleep(0)
        assert protocol.said == ["made", "pause", "resume", 0]
        transport.abort()
        there.close()

    run(main)


def test_a_method_of_the_instance():
    async def main(loop):
        transport, protocol, there = await pair(loop)
        transport.pause_reading()
        got = []
        for mine in (lambda: got.append("function"), got.clear):
            transport._read_ready = mine
            transport.resume_reading()
            got[:] = ["begun"]
            there.send(b"x")
            await until(lambda: got != ["begun"])
            transport.pause_reading()
        assert not got
        assert protocol.data == b""
        transport.abort()
        there.close()

    run(main)


def test_a_connection_that_cannot_be_read_from_is_made_all_the_same():
    class Closes(Seen):
        def connection_made(self, transport):
            super().connection_made(transport)
            os.close(transport._sock_fd)

    async def main(loop):
        said = []
        loop.set_exception_handler(lambda _, context: said.append(context["exception"]))
        here, there = socket.socketpair()
        transport, _ = await asyncio.wait_for(loop.create_connection(Closes, sock=here), 60)
        assert [type(e) for e in said] == [OSError]
        here.detach()
        transport.abort()
        await asyncio.sleep(0)
        there.close()

    run(main)


def test_a_protocol_without_its_methods_is_not_counted_by_the_server():
    async def main(loop):
        server = await loop.create_server(object, "127.0.0.1", 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.setblocking(False)
                assert await asyncio.wait_for(loop.sock_recv(client, 1), 60) == b""
        server.close()
        await asyncio.wait_for(server.wait_closed(), 60)

    run(main)


# --- What is left -----------------------------------------------------------------------------


class EchoServer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        self.transport.write(b"")
        self.transport.writelines([b"-", bytearray(b"-")])


async def rounds(loop, port, count):
    """Connections that end in each of the ways there are."""
    for i in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * (1 + i % 3000))
        await reader.readexactly(3 + i % 3000)
        if i % 4 == 0:
            writer.transport.abort()
        elif i % 4 == 1:
            writer.write_eof()
            await reader.read()
        elif i % 4 == 2:
            writer.write(bytes(300_000))
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_connections_leave_nothing():
    async def main(loop):
        loop.set_exception_handler(lambda *_: None)
        server = await loop.create_server(EchoServer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def turn(count):
            await rounds(loop, port, count)
            await until(lambda: server._active_count == 0)
            await asyncio.sleep(0.01)
            collect()

        # From 3.13 on the server knows its transports, and doesn't count them.
        if not hasattr(server, "_active_count"):
            type(server)._active_count = property(lambda self: len(self._clients))
        count = max(ROUNDS // 4, 20)
        await leaves_nothing(turn, count, 40)  # a lost transport has some hundred bytes
        kinds = [o for o in gc.get_objects() if isinstance(o, asyncio.Transport)]
        assert not kinds, kinds
        server.close()
        await server.wait_closed()

    run(main)


def test_a_loop_that_goes_with_its_transports():
    def make():
        loop = Loop()

        async def main():
            transport, _, there = await pair(loop)
            transport.write(bytes(1 << 22))  # both ends are watched
            return weakref.ref(transport), there

        watched, there = loop.run_until_complete(main())
        there.close()
        return watched, weakref.ref(loop)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        found = [make() for _ in range(5)]
        gc.collect()
    assert not any(ref() for refs in found for ref in refs), found


def test_a_transport_is_collected_with_its_cycle():
    async def main(loop):
        refs = sys.getrefcount(loop)
        for _ in range(20):
            transport, protocol, there = await pair(loop)
            protocol.cycle = transport
            transport.close()
            await protocol.lost
            there.close()
        watched = weakref.ref(transport)
        del transport, protocol
        gc.collect()
        assert watched() is None
        assert abs(sys.getrefcount(loop) - refs) < 3

    run(main)

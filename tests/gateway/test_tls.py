# SPDX-License-Identifier: Apache-2.0
"""The C TLS transports of ``pelton.Loop``: data, flow control, callbacks, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
import weakref

from gwharness import collect, leaves_nothing, raising
from test_loop import Loop, run
from tlsharness import (
    Buffered,
    Peer,
    Seen,
    certificate,
    client_context,
    connect,
    read_all,
    server_context,
    tls_peer,
    until,
)

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))
KINDS = (Seen, Buffered)
BIG = os.urandom(1 << 16) * 48  # 3 MB


def test_what_a_tls_transport_is():
    async def main(loop):
        context = client_context()
        transport, protocol, peer = await connect(loop, read_all, context=context)
        assert type(transport) is Loop._TlsTransport
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is protocol
        info = transport.get_extra_info
        assert info("sslcontext") is context
        assert info("ssl_object").version() == "TLSv1.3"
        assert info("peercert")["subject"] == ((("commonName", "localhost"),),)
        assert info("cipher") == info("ssl_object").cipher()
        assert info("compression") is None
        assert info("socket").fileno() == transport._transport._sock_fd
        assert info("nothing", default=5) == 5
        assert info("nothing") is None
        assert not transport.can_write_eof()
        with raising(NotImplementedError):
            transport.write_eof()
        assert transport.is_reading()
        assert transport.get_write_buffer_limits() == (131072, 524288)
        assert transport.get_read_buffer_limits() == (65536, 262144)
        for kind in ("write", "read"):
            change = getattr(transport, f"set_{kind}_buffer_limits")
            limits = getattr(transport, f"get_{kind}_buffer_limits")
            change(high=8)
            assert limits() == (2, 8)
            change(low=8)
            assert limits() == (8, 32)
            with raising(ValueError, "high (1) must be >= low (2)"):
                change(high=1, low=2)
            change()
        transport.anything = 1
        assert transport.__dict__ == {"anything": 1}
        with raising(TypeError, "expecting a bytes-like instance, got str"):
            transport.write("text")
        with raising(TypeError):
            type(transport)()
        with raising(RuntimeError, "has a transport"):
            transport.connection_made(transport._transport)
        transport.write(b"")
        transport.close()
        assert transport.is_closing()
        assert await protocol.lost is None
        assert protocol.said == ["made", "eof", "lost NoneType"]
        assert info("ssl_object") is not None  # asyncio's keeps what it knows of TLS
        assert info("socket") is None
        transport.close()
        transport.abort()
        transport.pause_reading()
        transport.resume_reading()
        transport.set_protocol(protocol)
        transport.writelines([b"into the void"])
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == 0
        assert info("ssl_object") is None  # closed twice: the application needs it no more
        assert await peer.over() == b""

    run(main)


def test_data_both_ways():
    def work(sock):
        sock.sendall(BIG)
        return read_all(sock)

    async def main(loop):
        for kind in KINDS:
            size = 100_003 if kind is Buffered else 0
            factory = type("Sized", (kind,), {"size": size})
            transport, protocol, peer = await connect(loop, work, factory)
            transport.write(BIG)
            transport.writelines([BIG[:10], memoryview(BIG)[10:50], b"", bytearray(BIG[50:])])
            await until(lambda p=protocol: len(p.data) == len(BIG))
            assert protocol.data == BIG
            assert "pause" in protocol.said  # the peer sent before it read
            await until(lambda p=protocol: p.said[-1] == "resume")
            transport.close()
            assert await protocol.lost is None
            assert await peer.over() == BIG + BIG

    run(main)


def test_a_buffer_smaller_than_a_record():
    async def main(loop):
        _transport, protocol, peer = await connect(loop, lambda s: s.sendall(BIG[:5000]), Buffered)
        await until(lambda: len(protocol.data) == 5000)
        assert protocol.data == BIG[:5000]
        assert await protocol.lost is None  # the goodbye lay behind it
        await peer.over()

    run(main)


def test_both_ends_on_one_loop():
    async def main(loop):
        for kind in KINDS:
            made = []

            def factory(made=made, kind=kind):
                made.append(kind())
                return made[-1]

            server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
            port = server.sockets[0].getsockname()[1]
            client, protocol = await loop.create_connection(
                Seen, "127.0.0.1", port, ssl=client_context(), server_hostname="localhost"
            )
            await until(lambda made=made: made and made[0].said == ["made"])
            for i in range(20):
                client.write(b"%d" % i)
                await until(lambda m=made, n=i: m[0].data.endswith(b"%d" % n))
                made[0].transport.write(made[0].data)
            await until(lambda p=protocol, m=made: p.data.endswith(m[0].data))
            client.close()
            assert await protocol.lost is None
            assert await made[0].lost is None
            server.close()
            await server.wait_closed()

    run(main)


def test_pausing():
    def work(sock):
        sock.sendall(b"one")
        sock.recv(1)
        sock.sendall(b"two")

    async def main(loop):
        for kind in KINDS:
            transport, protocol, peer = await connect(loop, work, kind)
            await until(lambda p=protocol: p.data == b"one")
            transport.pause_reading()
            assert not transport.is_reading()
            transport.write(b"!")
            await peer.over()  # its goodbye and its FIN wait behind the data
            await asyncio.sleep(0.02)
            assert (protocol.data, protocol.said) == (b"one", ["made"])
            assert transport.get_read_buffer_size() > 0
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.lost is None
            assert (protocol.data, protocol.said[1]) == (b"onetwo", "eof")

    run(main)


def test_the_lower_transport_is_paused():
    async def main(loop):
        transport, protocol, peer = await connect(loop, lambda s: s.sendall(BIG))
        transport.set_read_buffer_limits(high=100_000)
        transport.pause_reading()
        await until(lambda: not transport._transport.is_reading())
        assert 100_000 <= transport.get_read_buffer_size() <= 100_000 + 262_144
        transport.resume_reading()
        assert await protocol.lost is None
        assert protocol.data == BIG
        await peer.over()

    run(main)


def test_a_callback_gathers_its_writes():
    async def main(loop):
        records = []

        def count_records(conn, direction, version, *what):
            if (direction, what[0]) == ("write", ssl._TLSContentType.HEADER):
                records.append(int.from_bytes(what[2][3:5], "big"))

        context = client_context()
        context._msg_callback = count_records
        transport, protocol, peer = await connect(loop, read_all, context=context)
        await asyncio.sleep(0)
        sizes = []
        records.clear()
        count = transport.get_write_buffer_size
        for i in range(5):
            transport.write(b"%d" % i)
            sizes.append(count())
        assert sizes == [0, 1, 2, 3, 4], sizes  # the first at once, the others together
        await asyncio.sleep(0)
        assert count() == 0
        assert len(records) == 2, records
        assert records[1] == records[0] + 3  # all four in one
        transport.write(b"5")
        transport.write(b"6" * 70_000)  # not worth waiting for
        assert count() == 0 or transport._transport.get_write_buffer_size() > 0
        transport.writelines([b"7", b"8"])
        transport.close()
        assert await protocol.lost is None
        assert await peer.over() == b"012345" + b"6" * 70_000 + b"78"

    run(main)


def test_abort_sends_what_was_written():
    async def main(loop):
        transport, protocol, peer = await connect(loop, read_all)
        await asyncio.sleep(0)
        transport.write(b"one ")
        transport.write(b"two")
        transport.abort()
        assert await protocol.lost is None
        assert await peer.over() == b"one two"
        assert protocol.said == ["made", "lost NoneType"]

    run(main)


def test_water_marks():
    def work(sock):
        go.wait()
        return len(read_all(sock))

    async def main(loop):
        transport, protocol, peer = await connect(loop, work)
        transport.set_write_buffer_limits(high=0)
        assert "pause" not in protocol.said  # nothing waits
        data = bytearray(1 << 20)
        for _ in range(3):
            transport.write(data)
            data[:] = b"x" * len(data)  # copied: it may be used again
        assert transport._protocol_paused
        assert protocol.said == ["made", "pause"]
        assert transport.get_write_buffer_size() > 0
        go.set()
        await until(lambda: protocol.said[-1] == "resume")
        assert transport.get_write_buffer_size() == 0
        transport.close()
        await protocol.lost
        assert await peer.over() == 3 << 20

    go = threading.Event()
    run(main)


class Watching(ssl.SSLObject):
    """An SSL object of the application's, with methods of its own."""

    calls: list = []

    def read(self, *args):
        data = super().read(*args)
        self.calls.append("read")
        return data

    def write(self, data):
        self.calls.append("write")
        return super().write(bytes(data)[:1000])


class Subclass(ssl.SSLContext):
    sslobject_class = Watching


def test_an_ssl_object_of_another_class():
    def work(sock):
        sock.sendall(BIG[:100_000])
        return read_all(sock)

    async def main(loop):
        for kind in KINDS:
            Watching.calls.clear()
            context = client_context(Subclass)
            transport, protocol, peer = await connect(loop, work, kind, context)
            assert type(transport.get_extra_info("ssl_object")) is Watching
            transport.write(BIG[:20_000])
            transport.write(bytearray(b"!"))
            await until(lambda p=protocol: len(p.data) == 100_000)
            assert protocol.data == BIG[:100_000]
            transport.close()
            await protocol.lost
            assert await peer.over() == BIG[:20_000] + b"!"
            assert Watching.calls.count("write") >= 20
            assert Watching.calls.count("read") >= 6

    run(main)


def test_a_method_in_place_of_ssls_own():
    async def main(loop):
        own, said = ssl.SSLObject.write, []
        ssl.SSLObject.write = lambda self, data: said.append(bytes(data)) or own(self, data)
        try:
            transport, protocol, peer = await connect(loop, read_all)
            transport.write(b"hello")
            assert said == [b"hello"]
        finally:
            ssl.SSLObject.write = own
        transport.close()
        await protocol.lost
        assert await peer.over() == b"hello"

    run(main)


def test_the_servers_name():
    """The callback exchanges the context, refuses, or raises."""

    async def main(loop):
        loop.set_exception_handler(lambda *_: None)
        other, seen = server_context(Subclass), []

        def choose(sslobj, name, context):
            seen.append((type(sslobj).__name__, name, context is first))
            sslobj.context = other
            return answers.pop()

        first = server_context(sni_callback=choose)
        answers = [None, ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE]
        server = await loop.create_server(Seen, "127.0.0.1", 0, ssl=first)
        address = server.sockets[0].getsockname()
        options = {"ssl": client_context(), "server_hostname": "localhost"}
        with raising(OSError):
            await loop.create_connection(Seen, *address, **options)
        transport, protocol = await loop.create_connection(Seen, *address, **options)
        assert seen == [("SSLObject", "localhost", True)] * 2
        transport.close()
        await protocol.lost
        server.close()

    run(main)


def test_a_callback_that_uses_its_transport():
    """What the context calls while the SSL object works may write, close or abort."""

    async def main(loop):
        for what in ("write", "close", "abort"):
            transports, said = [], []

            def watch(conn, direction, *rest, what=what, transports=transports, said=said):
                if transports and direction == "write" and not said:
                    said.append(what)
                    transports[0].write(b"from inside")
                    if what != "write":
                        getattr(transports[0], what)()

            context = client_context()
            context._msg_callback = watch
            transport, protocol, peer = await connect(loop, read_all, context=context)
            transports.append(transport)
            transport.write(b"outside ")
            await asyncio.sleep(0.01)
            assert said == [what]
            transport.close()
            await protocol.lost
            received = await peer.over()
            if what != "abort":
                assert received in (b"outside from inside", b"outside "), received
            assert what != "write" or received == b"outside from inside"
            transports.clear()  # the garbage collector does not look into an SSL object

    run(main)


def s_client(port, *options):
    """OpenSSL's own client: a line of "K" asks for new keys, one of "R" for another handshake."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", certificate()]
    return subprocess.Popen(
        [*command, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_new_keys_and_renegotiation():
    class Echo(Seen):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data.upper())

    async def main(loop):
        for options, letter in (("-tls1_3", b"K"), ("-tls1_2", b"R")):
            made, context = [], server_context()
            context.options &= ~ssl.OP_NO_RENEGOTIATION
            context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
            server = await loop.create_server(
                lambda made=made: made.append(Echo()) or made[-1],
                "127.0.0.1",
                0,
                ssl=context,
            )
            client = s_client(server.sockets[0].getsockname()[1], options)
            await until(lambda made=made: made)
            for word in (b"one", b"two", b"three"):
                client.stdin.write(word + b"\n")
                client.stdin.flush()
                await until(lambda m=made, w=word: m[0].data.endswith(w + b"\n"))
                made[0].transport.write(b"and " + word)
                client.stdin.write(letter + b"\n")
                client.stdin.flush()
                await asyncio.sleep(0.05)
            client.stdin.close()
            await made[0].lost
            output = await asyncio.to_thread(client.stdout.read)
            client.wait()
            client.stdout.close()
            assert made[0].data.split() == [b"one", b"two", b"three"], made[0].data
            assert b"THREE" in output, output[-500:]
            server.close()

    run(main)


async def starting_tls(loop, work, before=b"", factory=Seen):
    """A plain transport that goes on with TLS after BEFORE."""
    here, there = socket.socketpair()

    def plain_first(sock):
        assert sock.recv(100) == b"STARTTLS"
        if before:
            sock.sendall(before)
        with server_context().wrap_socket(sock, server_side=True) as tls:
            return work(tls)

    peer = Peer(there, plain_first)
    lower, protocol = await loop.create_connection(factory, sock=here)
    lower.write(b"STARTTLS")
    await until(lambda: protocol.data == before)
    tls = await loop.start_tls(lower, protocol, client_context(), server_hostname="localhost")
    return lower, tls, protocol, peer


def test_start_tls():
    def work(sock):
        sock.sendall(b"hello")
        return read_all(sock)

    async def main(loop):
        for kind in KINDS:
            lower, tls, protocol, peer = await starting_tls(loop, work, b"go on", kind)
            assert type(tls) is Loop._TlsTransport
            assert lower.get_protocol() is tls
            await until(lambda p=protocol: p.data == b"go onhello")
            tls.write(b"thank you")
            tls.close()
            assert await protocol.lost is None
            assert protocol.said.count("made") == 1
            assert await peer.over() == b"thank you"
        with raising(ConnectionResetError, "Connection lost"):
            await loop.start_tls(lower, protocol, client_context(), server_hostname="x")
        with raising(TypeError, "sslcontext is expected"):
            await loop.start_tls(lower, protocol, None)
        with raising(TypeError, "not supported by start_tls"):
            await loop.start_tls(None, protocol, client_context())

    run(main)


def test_start_tls_as_a_server():
    async def main(loop):
        here, there = socket.socketpair()
        lower, protocol = await loop.create_connection(Seen, sock=here)
        peer = tls_peer(there, lambda s: (s.sendall(b"hi"), read_all(s))[1], server_side=False)
        tls = await loop.start_tls(lower, protocol, server_context(), server_side=True)
        await until(lambda: protocol.data == b"hi")
        tls.write(b"hello")
        tls.close()
        await protocol.lost
        assert await peer.over() == b"hello"

    run(main)


def test_tls_over_tls():
    """asyncio's own TLS runs over any transport, and so over this one."""

    def work(outer):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = server_context().wrap_bio(incoming, outgoing, server_side=True)

        def step(call, *args):
            while True:
                try:
                    result = call(*args)
                except ssl.SSLWantReadError:
                    result = None
                if outgoing.pending:
                    outer.sendall(outgoing.read())
                if result is not None or (call == inner.do_handshake and inner.version()):
                    return result
                incoming.write(outer.recv(65536))

        with contextlib.suppress(ssl.SSLWantReadError):
            inner.do_handshake()
        while True:
            incoming.write(outer.recv(65536))
            try:
                inner.do_handshake()
                break
            except ssl.SSLWantReadError:
                outer.sendall(outgoing.read())
        outer.sendall(outgoing.read())
        found = step(inner.read, 100)
        step(inner.write, found.upper())
        return found

    async def main(loop):
        outer, protocol, peer = await connect(loop, work)
        inner = await loop.start_tls(outer, protocol, client_context(), server_hostname="localhost")
        assert type(inner) is not type(outer)
        inner.write(b"hello")
        await until(lambda: protocol.data == b"HELLO")
        inner.abort()
        await protocol.lost
        assert await peer.over() == b"hello"

    run(main)


def test_streams_and_sendfile():
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main(loop):
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(
            *address, ssl=client_context(), server_hostname="localhost"
        )
        writer.transport.set_write_buffer_limits(0)
        task = loop.create_task(reader.readexactly(len(BIG)))
        writer.write(BIG)
        await writer.drain()
        assert writer.transport.get_write_buffer_size() == 0
        assert await task == BIG
        text = certificate().read_bytes()
        with open(certificate(), "rb") as file:
            assert await loop.sendfile(writer.transport, file) == len(text)
        assert await reader.readexactly(len(text)) == text
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main)


def test_contexts():
    """The protocol is called in the context in which the connection was made."""
    name = contextvars.ContextVar("name", default="none")

    class Asking(Seen):
        def data_received(self, data):
            self.said.append(name.get())

        def connection_lost(self, exc):
            self.said.append(name.get())
            super().connection_lost(exc)

    async def main(loop):
        name.set("made")
        _transport, protocol, peer = await connect(loop, lambda s: s.sendall(b"x"), Asking)
        name.set("later")
        await protocol.lost
        assert protocol.said[:2] == ["made", "made"], protocol.said
        assert protocol.said[-2] == "made", protocol.said
        await peer.over()

    run(main)


async def rounds(loop, port, count):
    context = client_context()
    for i in range(count):
        if i % 4 == 3:  # refused: the certificate is nobody's
            with contextlib.suppress(OSError):
                await asyncio.open_connection(
                    "127.0.0.1",
                    port,
                    ssl=client_context(trusting=False),
                    server_hostname="localhost",
                )
            continue
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(b"x" * 3000)
        await reader.readexactly(3000)
        if i % 4 == 1:
            writer.write(bytes(300_000))
        if i % 4 == 2:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def test_connections_leave_nothing():
    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def main(loop):
        loop.set_exception_handler(lambda *_: None)
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        port = server.sockets[0].getsockname()[1]

        # From 3.13 on the server knows its transports, and doesn't count them.
        if not hasattr(server, "_active_count"):
            type(server)._active_count = property(lambda self: len(self._clients))

        async def turn(count):
            await rounds(loop, port, count)
            await until(lambda: server._active_count == 0)
            await asyncio.sleep(0.01)
            collect()

        count = max(ROUNDS // 10, 12)
        await leaves_nothing(turn, count, 100)
        kinds = [o for o in gc.get_objects() if isinstance(o, asyncio.Transport)]
        assert not kinds, kinds
        server.close()

    run(main)


def test_a_loop_that_goes_with_its_transports():
    def make():
        loop = Loop()

        async def main():
            transport, _, peer = await connect(loop, lambda s: time.sleep(0.5))
            transport.write(BIG)
            return weakref.ref(transport), peer

        watched, _ = loop.run_until_complete(main())
        return watched, weakref.ref(loop)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        found = [make() for _ in range(3)]
        gc.collect()
    assert not any(ref() for refs in found for ref in refs), found
    assert any("unclosed transport" in str(w.message) and "SslTr" in str(w.message) for w in said)


def test_a_transport_goes_with_its_last_reference():
    def silent(sock):
        time.sleep(0.1)

    async def main(loop):
        gc.collect()
        gc.disable()
        refs = sys.getrefcount(loop)
        try:
            for kind, work in ((Seen, read_all), (Buffered, read_all), (Seen, silent)):
                context = client_context()
                transport, protocol, peer = await connect(loop, work, kind, context)
                transport.write(b"x")
                transport.close()
                if work is silent:
                    transport.abort()  # with the goodbye's time-out still to come
                await protocol.lost
                await peer.over()
                watched = weakref.ref(transport), weakref.ref(context)
                del transport, protocol.transport, context
                await asyncio.sleep(0)
                assert watched[0]() is None
                assert watched[1]() is None
            assert abs(sys.getrefcount(loop) - refs) < 3
        finally:
            gc.enable()

    run(main)

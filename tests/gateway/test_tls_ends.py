# SPDX-License-Identifier: Apache-2.0
"""How TLS connections of ``pelton.Loop`` end: in the handshake, by errors, time-outs and goodbyes.

Most of it is run on asyncio's own loop, too, which has to see the same: the same calls, exceptions
and lines in its log."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import ssl
import time
import warnings

from gwharness import raising
from test_loop import run
from tlsharness import (
    Buffered,
    Peer,
    Seen,
    alike,
    client_context,
    connect,
    read_all,
    server_context,
    tls_peer,
    until,
)


def kind_of(exc):
    return None if exc is None else type(exc).__name__


async def try_to_connect(loop, sock, factory=Seen, context=None, **options):
    """What create_connection raises, and what the protocol heard."""
    made = []

    def make():
        made.append(factory())
        return made[-1]

    error = None
    try:
        transport, _ = await loop.create_connection(
            make, sock=sock, ssl=context or client_context(), server_hostname="localhost", **options
        )
    except Exception as exc:
        error = exc
    else:
        transport.abort()
    await until(lambda: sock.fileno() == -1)
    await asyncio.sleep(0)
    return error, made[0].said


def test_a_certificate_that_nobody_trusts():
    async def main(loop):
        here, there = socket.socketpair()
        peer = tls_peer(there, read_all)
        error, said = await try_to_connect(loop, here, context=client_context(trusting=False))
        await peer.over()
        return kind_of(error), "self-signed certificate" in str(error), said

    seen, lines = alike(main)
    assert seen == ("SSLCertVerificationError", True, [])
    assert lines == []  # an OSError is for the log of debug mode


def test_no_tls_at_all():
    async def main(loop):
        found = []
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x16\x03\x01"):
            here, there = socket.socketpair()
            peer = Peer(there, lambda s, answer=answer: (s.recv(1), s.sendall(answer)))
            error, said = await try_to_connect(loop, here)
            await peer.over()
            found.append((kind_of(error), said))
        return found

    seen, lines = alike(main)
    assert seen == [
        ("SSLError", []),
        ("ConnectionResetError", []),
        ("ConnectionResetError", []),
    ]
    assert lines == []


def test_a_server_that_is_no_servers_client():
    """Its protocol never hears of a connection whose handshake failed."""

    async def main(loop):
        made = []

        def make():
            made.append(Seen())
            return made[-1]

        server = await loop.create_server(make, "127.0.0.1", 0, ssl=server_context())
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.setblocking(False)
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(client, 100):
                    pass
        await asyncio.sleep(0.01)
        server.close()
        return [protocol.said for protocol in made]

    seen, _lines = alike(main)
    assert seen == [[]]


def cut_after(count, sock, work):
    """Between SOCK and a TLS server that does WORK: of what it sends COUNT bytes go through."""
    here, there = socket.socketpair()
    peer = tls_peer(there, work)
    here.settimeout(0.3)

    def pump(plain):
        plain.settimeout(0.3)
        left = count
        with contextlib.closing(here), contextlib.suppress(OSError):
            here.sendall(plain.recv(65536))
            while left > 0:
                try:
                    data = here.recv(left)
                except TimeoutError:  # the server waits for the client's part
                    here.sendall(plain.recv(65536))
                    continue
                if not data:
                    break
                left -= len(data)
                plain.sendall(data)

    return Peer(sock, pump), peer


def test_cut_in_the_handshake():
    """At any place, it ends with the same error and nothing is left."""

    async def main(loop):
        found = []
        for count in (0, 1, 5, 100, 127, 128, 500, 700):
            here, there = socket.socketpair()
            pump, peer = cut_after(count, there, lambda s: s.recv(100))
            error, said = await try_to_connect(loop, here)
            found.append((count, kind_of(error), said))
            await pump.over()
            await peer.over()
        return found

    seen, lines = alike(main)
    assert {row[1:2] for row in seen} == {("ConnectionResetError",)}, seen
    assert lines == []


def test_cut_among_the_data():
    """Without a goodbye: what came whole is given, then the end."""

    def work(sock):
        for _ in range(5):
            sock.sendall(b"x" * 1000)
        time.sleep(0.5)

    async def main(loop):
        found = []
        # A handshake takes 2 to 3.5 kB, by the version of OpenSSL; all together is 7 or more.
        for count in (5000, 5500, 6000):
            here, there = socket.socketpair()
            pump, peer = cut_after(count, there, work)
            _transport, protocol = await loop.create_connection(
                Seen, sock=here, ssl=client_context(), server_hostname="localhost"
            )
            exc = await protocol.lost
            found.append((len(protocol.data) % 1000, len(protocol.data) > 0, kind_of(exc)))
            found.append(protocol.said)
            await pump.over()
            await peer.over()
        return found

    seen, lines = alike(main)
    assert seen == [(0, True, None), ["made", "eof", "lost NoneType"]] * 3
    assert lines == []


def test_a_handshake_that_takes_too_long():
    async def main(loop):
        here, there = socket.socketpair()
        begun = loop.time()
        error, said = await try_to_connect(loop, here, ssl_handshake_timeout=0.1)
        assert 0.1 <= loop.time() - begun < 10
        there.close()
        return kind_of(error), str(error), said

    seen, lines = alike(main)
    assert seen == (
        "ConnectionAbortedError",
        "SSL handshake is taking longer than 0.1 seconds: aborting the connection",
        [],
    )
    assert lines == []


def test_time_outs_have_to_be_numbers():
    async def main(loop):
        found = []
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            for value in (0, -1):
                here, there = socket.socketpair()
                with here, there:
                    try:
                        await loop.create_connection(
                            Seen, sock=here, ssl=True, server_hostname="x", **{name: value}
                        )
                    except ValueError as error:
                        found.append(str(error))
        return found

    seen, _ = alike(main)
    assert len(seen) == 4
    assert seen[0] == "ssl_handshake_timeout should be a positive number, got 0"


def test_cancelled_in_the_handshake():
    async def main(loop):
        found = []
        for turns in (0, 1, 2, 5):
            here, there = socket.socketpair()
            task = loop.create_task(
                loop.create_connection(Seen, sock=here, ssl=client_context(), server_hostname="x")
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with raising(asyncio.CancelledError):
                await task
            if turns == 0:
                here.close()  # it had not begun
            await until(lambda sock=here: sock.fileno() == -1)
            there.close()
            found.append(turns)
        here, there = socket.socketpair()
        here.setblocking(False)
        transport = loop._make_ssl_transport(here, Seen(), client_context(), server_hostname="x")
        transport.close()  # before its lower one is made
        await until(lambda sock=here: sock.fileno() == -1)
        there.close()
        del here, there, task, transport
        gc.collect()
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(main)


def test_start_tls_that_is_cancelled():
    async def main(loop):
        here, there = socket.socketpair()
        lower, protocol = await loop.create_connection(Seen, sock=here)
        with raising(TimeoutError):
            async with asyncio.timeout(0.05):
                await loop.start_tls(lower, protocol, client_context(), server_hostname="x")
        await until(lambda: here.fileno() == -1)
        there.close()
        return protocol.said

    seen, lines = alike(main)
    assert seen == ["made"]
    assert lines == []


def test_close_and_goodbye():
    """Who closes says goodbye, and waits for the other's."""

    async def main(loop):
        found = []
        for work in (read_all, lambda s: (s.recv(3), s.unwrap())):
            transport, protocol, peer = await connect(loop, work)
            transport.write(b"bye")
            transport.close()
            transport.write(b"nobody reads this")
            exc = await protocol.lost
            found.append((kind_of(exc), protocol.said[0]))
            await peer.over()
        return found

    seen, lines = alike(main)
    assert seen == [(None, "made")] * 2
    assert lines == []


def test_a_goodbye_that_nobody_answers():
    async def main(loop):
        transport, protocol, peer = await connect(
            loop, lambda s: time.sleep(0.4), ssl_shutdown_timeout=0.1
        )
        transport.close()
        exc = await protocol.lost
        await peer.over()
        return kind_of(exc), str(exc), protocol.said

    seen, lines = alike(main)
    assert seen == ("TimeoutError", "SSL shutdown timed out", ["made", "lost TimeoutError"])
    assert lines == []


def test_data_after_our_goodbye():
    def work(sock):
        time.sleep(0.1)
        sock.sendall(b"still here")
        time.sleep(0.1)

    async def main(loop):
        transport, protocol, peer = await connect(loop, work)
        transport.close()
        exc = await protocol.lost
        await peer.over()
        return kind_of(exc), protocol.data, protocol.said

    seen, lines = alike(main)
    assert seen[0] == "SSLError"
    assert lines == []


def test_what_waits_is_sent_when_the_peer_says_goodbye():
    size = 4 << 20

    def work(sock):
        incoming = 0
        sock.sendall(b"go")
        time.sleep(0.2)
        with contextlib.suppress(ssl.SSLError, OSError):
            while data := sock.recv(65536):
                incoming += len(data)
        return incoming

    class Writing(Seen):
        def data_received(self, data):
            self.transport.write(bytes(size))
            self.transport.close()

    async def main(loop):
        _transport, protocol, peer = await connect(loop, work, Writing)
        exc = await protocol.lost
        return kind_of(exc), await peer.over()

    seen, lines = alike(main)
    assert seen == (None, size)
    assert lines == []


class Failing(Seen):
    """Raises in the method that is named."""

    where = ""
    error: type[BaseException] = ValueError

    def _maybe(self, name):
        if name == self.where:
            raise self.error("of the application")

    def connection_made(self, transport):
        super().connection_made(transport)
        self._maybe("connection_made")

    def data_received(self, data):
        super().data_received(data)
        self._maybe("data_received")

    def eof_received(self):
        super().eof_received()
        self._maybe("eof_received")
        return self.where == "keep"

    def pause_writing(self):
        super().pause_writing()
        self._maybe("pause_writing")

    def resume_writing(self):
        super().resume_writing()
        self._maybe("resume_writing")


class FailingBuffered(Failing, Buffered):
    def get_buffer(self, hint):
        self._maybe("get_buffer")
        return super().get_buffer(hint)

    def buffer_updated(self, count):
        super().buffer_updated(count)
        self._maybe("buffer_updated")


def test_an_application_that_raises():
    def work(sock):
        sock.sendall(b"hello")
        time.sleep(0.05)
        return len(read_all(sock)) > 0

    def scenario(kind, name):
        async def main(loop):
            factory = type("Named", (kind,), {"where": name, "size": 100})
            here, there = socket.socketpair()
            peer = tls_peer(there, work)
            try:
                transport, protocol = await loop.create_connection(
                    factory, sock=here, ssl=client_context(), server_hostname="localhost"
                )
            except ValueError as error:
                await peer.over()
                return str(error)
            if name.endswith("_writing"):
                for _ in range(2):  # asyncio's gives the first one to the lower transport
                    transport.write(bytes(2 << 20))
                await until(lambda: protocol.said[-1] == "resume" or protocol.lost.done())
                transport.close()
            elif name in ("eof_received", "keep"):
                await until(lambda: protocol.data)
                transport.close()
            exc = await protocol.lost
            await peer.over()
            return kind_of(exc), sorted(set(protocol.said))

        return main

    found = {}
    for name in ("connection_made", "data_received", "eof_received", "keep"):
        found[name] = alike(scenario(Failing, name))
    for name in ("pause_writing", "resume_writing"):
        found[name] = alike(scenario(Failing, name))
    for name in ("get_buffer", "buffer_updated"):
        found[name] = alike(scenario(FailingBuffered, name))
    assert found["data_received"][1] == ["handler: Fatal error on SSL protocol: ValueError"]
    assert found["connection_made"][0] == "of the application"
    assert found["eof_received"][1] == ["handler: Error calling eof_received(): ValueError"]
    assert found["keep"][1] == [
        "log: returning true from eof_received() has no effect when using ssl"
    ]
    assert found["pause_writing"][1] == ["handler: protocol.pause_writing() failed: ValueError"]


def test_a_buffer_without_room():
    class Empty(Buffered):
        size = 0

    async def main(loop):
        said = []
        loop.set_exception_handler(lambda _, context: said.append(str(context["exception"])))
        _transport, protocol, peer = await connect(loop, lambda s: s.sendall(b"x"), Empty)
        assert isinstance(await protocol.lost, RuntimeError)
        await peer.over()
        assert said == ["get_buffer() returned an empty buffer"]

    run(main)


def test_the_program_ends_in_a_callback():
    for error in (SystemExit, KeyboardInterrupt):
        for name in ("connection_made", "data_received"):
            factory = type("Named", (Failing,), {"where": name, "error": error})

            async def main(loop, factory=factory):
                await connect(loop, lambda s: s.sendall(b"x"), factory)
                await asyncio.sleep(30)

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                with raising(error):
                    run(main)
                gc.collect()


def test_closing_inside_of_a_callback():
    def work(sock):
        with contextlib.suppress(OSError):
            for _ in range(100):
                sock.sendall(b"x" * 10_000)

    def ending(method, kind):
        class Ending(kind):
            size = 1000

            def data_received(self, data):
                self.said.append("data")
                getattr(self.transport, method)()
                if len(self.said) < 5:
                    self.transport.write(b"no more")

            def buffer_updated(self, count):
                self.data_received(b"")

        return Ending

    async def main(loop):
        for method in ("close", "abort"):
            for kind in (Seen, Buffered):
                factory = ending(method, kind)
                _transport, protocol, peer = await connect(loop, work, factory)
                exc = await protocol.lost
                await peer.over()
                assert protocol.said[:2] == ["made", "data"]
                assert protocol.said[-1].startswith("lost")
                assert method == "close" or protocol.said.count("data") == 1
                assert exc is None or isinstance(exc, OSError)

    run(main)


def test_writes_after_the_end():
    async def main(loop):
        transport, protocol, peer = await connect(loop, read_all)
        transport.abort()
        for _ in range(8):
            transport.write(b"x")
        transport.writelines([b"x"])
        await protocol.lost
        await peer.over()
        return protocol.said

    seen, lines = alike(main)
    assert seen == ["made", "lost NoneType"]
    assert lines
    assert set(lines) == {"log: SSL connection is closed"}


def test_debug_mode_says_more():
    class Lines(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    async def main(loop):
        loop.set_debug(True)
        transport, protocol, peer = await connect(loop, read_all)
        transport.close()
        await protocol.lost
        await peer.over()
        here, there = socket.socketpair()
        there.close()
        error, _ = await try_to_connect(loop, here)
        assert isinstance(error, OSError)

    said, handler = [], Lines(logging.DEBUG)
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        run(main)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    for text in ("starts SSL handshake", "SSL handshake took", "received EOF"):
        assert any(text in line for line in said), (text, said)


def test_a_record_that_does_not_decrypt():
    async def main(loop):
        def work(sock):
            assert sock.recv(2) == b"go"
            os.write(sock.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))  # past TLS
            read_all(sock)

        transport, protocol, peer = await connect(loop, work)
        transport.write(b"go")
        exc = await protocol.lost
        await peer.over()
        return kind_of(exc), getattr(exc, "reason", None), protocol.said

    seen, lines = alike(main)
    assert seen[0] == "SSLError"
    assert seen[1]  # its words are OpenSSL's, by the version
    assert seen[2] == ["made", "lost SSLError"]
    assert lines == []

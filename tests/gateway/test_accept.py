# SPDX-License-Identifier: Apache-2.0
"""Servers of ``pelton.Loop``: what is accepted in C looks and ends as asyncio's own does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import gc
import os
import resource
import socket
import tempfile
import warnings

from gwharness import collect, leaves_nothing, raising
from test_loop import Loop, run
from tlsharness import alike

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))
TIMEOUT_S = 60


class Told(asyncio.Protocol):
    """What it was told, in order, with its transport's extra information."""

    NAMES = ("peername", "sockname", "socket")

    def __init__(self, over):
        self.over = over
        self.said = []

    def connection_made(self, transport):
        self.transport = transport
        found = [transport.get_extra_info(name) for name in self.NAMES]
        assert found[2].fileno() == transport._sock_fd
        assert not os.get_blocking(found[2].fileno())
        self.said += ["made", *found[:2], type(found[2]).__name__]
        self.said += [found[2].family, found[2].type, transport._sock.gettimeout()]

    def data_received(self, data):
        self.said.append(data)
        self.transport.write(data.upper())

    def eof_received(self):
        self.said.append("eof")

    def connection_lost(self, exc):
        last = [self.transport.get_extra_info(name) for name in self.NAMES[:2]]
        self.said += ["lost", exc, *last]
        self.over.set_result(self.said)


def talk(family, address, bound=None):
    """A blocking client: what it is called, and what came back."""
    with socket.socket(family) as client:
        if bound is not None:
            client.bind(bound)
        client.connect(address)
        client.sendall(b"hello")
        answer = client.recv(100)
        name = client.getsockname()
    return name, answer


async def one_client(loop, server, family, bound=None):
    over = server.over
    address = server.sockets[0].getsockname()
    name, answer = await loop.run_in_executor(None, talk, family, address, bound)
    said = await asyncio.wait_for(over, TIMEOUT_S)
    server.close()
    await asyncio.wait_for(server.wait_closed(), TIMEOUT_S)
    assert answer == b"HELLO"
    assert said[1] == name, (said, name)
    assert said[2] == address, (said, address)
    return ["NAME" if part in (name, address) else part for part in said]


def of_inet(host, family):
    async def main(loop):
        over = loop.create_future()
        server = await loop.create_server(lambda: Told(over), host, 0)
        server.over = over
        return await one_client(loop, server, family)

    return main


def test_ipv4():
    said, lines = alike(of_inet("127.0.0.1", socket.AF_INET))
    assert said[:2] == ["made", "NAME"]
    assert said[7:10] == [b"hello", "eof", "lost"]
    assert lines == []


def test_addresses_with_all_lengths_of_numbers():
    async def main(loop):
        over = loop.create_future()
        server = await loop.create_server(lambda: Told(over), "127.5.60.255", 0)
        server.over = over
        return await one_client(loop, server, socket.AF_INET, ("127.10.9.100", 0))

    said, _ = alike(main)
    assert "lost" in said


def test_ipv6():
    if not socket.has_ipv6:
        return
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return  # a machine without
    said, lines = alike(of_inet("::1", socket.AF_INET6))
    assert "lost" in said
    assert lines == []


def of_unix(name, bound):
    async def main(loop):
        with tempfile.TemporaryDirectory() as folder:
            there = folder.encode() if isinstance(name, bytes) else folder
            path = name if name[:1] == b"\0" else os.path.join(there, name)
            over = loop.create_future()
            server = await loop.create_unix_server(lambda: Told(over), path)
            server.over = over
            mine = None if bound is None else os.path.join(folder, bound)
            said = await one_client(loop, server, socket.AF_UNIX, mine)
            if name[:1] != b"\0":
                with contextlib.suppress(OSError):  # newer versions do it themselves
                    os.unlink(path)
            return said

    return main


def test_unix_sockets():
    for name, bound in (("socket", None), ("socket", "client"), ("s\u00f6cket \udcff", None)):
        said, _ = alike(of_unix(name, bound))
        assert "lost" in said, (name, bound)
    abstract = b"\0pelton-test-" + str(os.getpid()).encode()
    said, _ = alike(of_unix(abstract, None))
    assert "lost" in said


def test_all_that_wait_are_accepted():
    async def main(loop):
        made = []

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=100)
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(30)]
        turns = 0
        while len(made) < 30:
            await asyncio.sleep(0)
            turns += 1
            assert turns < 10_000
        assert len({t.get_extra_info("peername") for t in made}) == 30
        for transport in made:
            transport.close()
        for client in clients:
            client.close()
        server.close()
        await server.wait_closed()

    run(main)


def test_each_connection_has_its_own_context():
    var = contextvars.ContextVar("var", default="nobody's")

    async def main(loop):
        seen, over = [], loop.create_future()

        class Server(asyncio.Protocol):
            def __init__(self):
                seen.append(var.get())
                var.set(f"of {len(seen)}")
                self.number = len(seen)

            def connection_made(self, transport):
                seen.append(var.get() == f"of {self.number}")

            def data_received(self, data):
                seen.append(var.get() == f"of {self.number}")

            def connection_lost(self, exc):
                if not over.done() and seen.count(True) == 4:
                    over.set_result(None)

        token = var.set("the server's")
        server = await loop.create_server(Server, "127.0.0.1", 0)
        var.reset(token)
        address = server.sockets[0].getsockname()

        def clients():
            for _ in range(2):
                with socket.create_connection(address) as client:
                    client.sendall(b"x")

        await loop.run_in_executor(None, clients)
        await asyncio.wait_for(over, TIMEOUT_S)
        server.close()
        return sorted(map(str, seen))

    seen, _ = alike(main)
    assert seen == ["True"] * 4 + ["the server's"] * 2


def test_a_factory_that_raises():
    async def main(loop):
        calls = []

        class Server(asyncio.Protocol):
            def __init__(self):
                calls.append(len(calls))
                if len(calls) == 1:
                    raise RuntimeError("the first one")

            def connection_made(self, transport):
                transport.write(b"made")
                transport.close()

        server = await loop.create_server(Server, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        def clients():
            got = []
            for _ in range(2):
                with socket.create_connection(address) as client:
                    client.settimeout(TIMEOUT_S)
                    got.append(client.recv(100))
            return got

        got = await loop.run_in_executor(None, clients)
        gc.collect()  # asyncio leaves the socket of the first to it
        server.close()
        await server.wait_closed()
        return got, calls

    with warnings_ignored():
        (got, calls), lines = alike(main)
    assert got == [b"", b"made"]
    assert calls == [0, 1]
    assert lines == []


@contextlib.contextmanager
def warnings_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def test_a_factory_that_ends_the_loop():
    for kind in (SystemExit, KeyboardInterrupt):
        loop = Loop()

        def factory(kind=kind):
            raise kind("enough")

        async def serve(loop=loop, factory=factory):
            return await loop.create_server(factory, "127.0.0.1", 0)

        server = loop.run_until_complete(serve())
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            with raising(kind):
                loop.run_until_complete(asyncio.sleep(TIMEOUT_S))
            client.settimeout(TIMEOUT_S)
            assert client.recv(1) == b""
        server.close()
        loop.close()


def test_a_factory_that_closes_the_server():
    """No connection can be its server's any more: all end."""

    async def main(loop):
        calls, said = [], []
        loop.set_exception_handler(lambda loop, context: said.append(context))

        class Server(asyncio.Protocol):
            def __init__(self):
                calls.append(loop.time())
                server.close()

        server = await loop.create_server(Server, "127.0.0.1", 0, backlog=10)
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(3)]
        for client in clients:
            client.settimeout(TIMEOUT_S)
            with contextlib.suppress(ConnectionResetError):
                assert await loop.run_in_executor(None, client.recv, 1) == b""
            client.close()
        assert len(calls) == 1
        assert not said, said
        return await asyncio.sleep(0, "goes on")

    assert run(main) == "goes on"


def test_no_descriptors_left():
    """The server says so, rests, and goes on."""

    async def main(loop):
        said, made = [], asyncio.Event()
        loop.set_exception_handler(lambda loop, context: said.append(context))

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                transport.close()
                made.set()

        server = await loop.create_server(Server, "127.0.0.1", 0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = socket.socket()
        client.setblocking(False)
        taken = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with contextlib.suppress(BlockingIOError):
                client.connect(server.sockets[0].getsockname())
            while not said:
                await asyncio.sleep(0)
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "out of system resource" in said[0]["message"], said
        assert said[0]["exception"].errno == errno.EMFILE
        await asyncio.wait_for(made.wait(), TIMEOUT_S)
        client.close()
        server.close()
        await server.wait_closed()
        assert len(said) == 1, said

    run(main)


def test_its_descriptor_is_the_transports():
    async def main(loop):
        made = loop.create_future()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                made.set_result(transport)

        server = await loop.create_server(Server, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            transport = await made
            fd = transport._sock_fd
            assert loop._transports[fd] is transport
            assert loop._transports.get(fd) is transport
            assert fd in loop._transports
            for other in (-1, fd - (1 << 32), 1 << 70, "fd", None):
                assert other not in loop._transports
                assert loop._transports.get(other) is None
            with raising(RuntimeError, "is used by transport"):
                loop.add_reader(fd, print)
            del loop._transports[fd]
            assert fd not in loop._transports
            loop._transports[fd] = transport
            assert loop._transports[fd] is transport
            transport.abort()
            while transport._sock is not None:
                await asyncio.sleep(0)
            assert loop._transports.get(fd, 5) == 5
            with raising(KeyError):
                loop._transports[fd]
            client.close()
        server.close()
        await server.wait_closed()

    run(main)


def test_transports_of_a_class_of_its_own():
    """A loop whose class makes them is asked; so is asyncio's own code in debug mode."""

    class Own(Loop):
        made = 0

        def _make_socket_transport(self, *args, **named):
            Own.made += 1
            return super()._make_socket_transport(*args, **named)

    for factory, debug in ((Own, False), (Loop, True)):
        with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
            said = runner.run(of_inet("127.0.0.1", socket.AF_INET)(runner.get_loop()))
            assert "lost" in said
    assert Own.made == 1


def test_nothing_is_left():
    async def main(loop):
        lost = asyncio.Event()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                transport.write(b"x")
                transport.close()

            def connection_lost(self, exc):
                lost.set()

        server = await loop.create_server(Server, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()

        async def turn(count):
            for _ in range(count):
                lost.clear()
                with socket.create_connection(address):
                    await lost.wait()
            collect()

        count = min(ROUNDS, 200)
        await turn(1)
        files = len(os.listdir("/proc/self/fd"))
        await leaves_nothing(turn, count, 40)
        assert len(os.listdir("/proc/self/fd")) == files
        server.close()
        await server.wait_closed()

    run(main)

# SPDX-License-Identifier: Apache-2.0
"""One case of what an asyncio event loop does, COUNT times: ``loops.py LOOP CASE COUNT [FOLDER]``.

LOOP is pelton, uvloop, rloop or asyncio. Echoes are of 1 kB over TCP to 127.0.0.1, one after the
other, with both ends on the loop; accept is connections from another process. FOLDER has cert.pem
and key.pem, for TLS.
"""

import asyncio
import socket
import ssl
import subprocess
import sys

DATA = bytes(1024)
HOST = "127.0.0.1"


def make_loop(name):
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    if name == "pelton":
        import pelton

        return pelton.Loop()
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    import rloop

    return rloop.new_event_loop()


async def call_soon(loop, count):
    over = loop.create_future()

    def step():
        nonlocal count
        count -= 1
        if count > 0:
            loop.call_soon(step)
        else:
            over.set_result(None)

    loop.call_soon(step)
    await over


def nothing():
    pass


async def call_later(loop, count):
    for _ in range(count):
        loop.call_later(100, nothing).cancel()


async def sleep(loop, count):
    for _ in range(count):
        await asyncio.sleep(0)


class EchoServer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class EchoClient(asyncio.Protocol):
    def __init__(self, count, over):
        self.left = count * len(DATA)
        self.over = over

    def connection_made(self, transport):
        self.transport = transport
        transport.write(DATA)

    def data_received(self, data):
        self.left -= len(data)
        if self.left <= 0:
            self.over.set_result(None)
        elif self.left % len(DATA) == 0:
            self.transport.write(DATA)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.buffer = memoryview(bytearray(65536))

    def get_buffer(self, hint):
        return self.buffer


class BufferedServer(Buffered):
    connection_made = EchoServer.connection_made

    def buffer_updated(self, size):
        self.transport.write(self.buffer[:size])


class BufferedClient(Buffered):
    def __init__(self, count, over):
        super().__init__()
        self.left = count * len(DATA)
        self.over = over

    connection_made = EchoClient.connection_made

    def buffer_updated(self, size):
        self.left -= size
        if self.left <= 0:
            self.over.set_result(None)
        elif self.left % len(DATA) == 0:
            self.transport.write(DATA)


async def echo(loop, count, classes, contexts=(None, None)):
    server_class, client_class = classes
    server_tls, client_tls = contexts
    over = loop.create_future()
    server = await loop.create_server(server_class, HOST, 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_connection(
        lambda: client_class(count, over), HOST, port, ssl=client_tls
    )
    await over
    transport.close()
    server.close()


async def protocol(loop, count):
    await echo(loop, count, (EchoServer, EchoClient))


async def buffered(loop, count):
    await echo(loop, count, (BufferedServer, BufferedClient))


async def tls(loop, count):
    folder = sys.argv[4]
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    await echo(loop, count, (EchoServer, EchoClient), (server, client))


async def streams(loop, count):
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(count):
        writer.write(DATA)
        await reader.readexactly(len(DATA))
    writer.close()
    server.close()


async def sock(loop, count):
    listener = socket.create_server((HOST, 0))
    listener.setblocking(False)
    client = socket.socket()
    client.setblocking(False)

    async def serve():
        peer, _ = await loop.sock_accept(listener)
        while data := await loop.sock_recv(peer, 65536):
            await loop.sock_sendall(peer, data)
        peer.close()

    task = loop.create_task(serve())
    await loop.sock_connect(client, listener.getsockname())
    for _ in range(count):
        await loop.sock_sendall(client, DATA)
        left = len(DATA)
        while left > 0:
            left -= len(await loop.sock_recv(client, 65536))
    client.close()
    await task
    listener.close()


CLIENT = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
        client.sendall(b"x")
        client.recv(1)
"""


class Once(asyncio.Protocol):
    def __init__(self, one_less):
        self.one_less = one_less

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def connection_lost(self, exc):
        self.one_less()


async def accept(loop, count):
    """Connections of another process, one after the other: a byte there and back on each."""
    over = loop.create_future()

    def one_less():
        nonlocal count
        count -= 1
        if count == 0:
            over.set_result(None)

    server = await loop.create_server(lambda: Once(one_less), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    command = [sys.executable, "-c", CLIENT, str(port), str(count)]
    with subprocess.Popen(command) as client:
        await over
        client.wait()
    server.close()


CASES = {
    "call_soon": call_soon,
    "call_later": call_later,
    "sleep": sleep,
    "protocol": protocol,
    "buffered": buffered,
    "streams": streams,
    "sock": sock,
    "accept": accept,
    "tls": tls,
}


def main():
    loop = make_loop(sys.argv[1])
    asyncio.set_event_loop(loop)
    loop.run_until_complete(CASES[sys.argv[2]](loop, int(sys.argv[3])))


if __name__ == "__main__":
    main()

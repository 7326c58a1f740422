# SPDX-License-Identifier: Apache-2.0
"""grpcio waits well in threads. In fibers its calls hold the loop, and its loading is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest
from conftest import Matrix
from slow import Gate

N = 8

APP = """
PORT = int(os.environ["PORT"])

def ask(channel, n):
    call = channel.unary_unary("/shop.Shop/Square")
    assert call(b"%d" % n, timeout=60) == b"%d" % (n * n) * 10000
    return n

def own(n):
    import grpc
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        return ask(channel, n)

def shared(n):
    import grpc
    return ask(once("channel", lambda: grpc.insecure_channel(f"127.0.0.1:{PORT}")), n)

def stream(n):
    import grpc
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        call = channel.unary_stream("/shop.Shop/Count")
        assert [int(each) for each in call(b"%d" % n, timeout=60)] == list(range(n * 100))
        return n

def future(n):
    import grpc
    with grpc.insecure_channel(f"127.0.0.1:{PORT}") as channel:
        found = channel.unary_unary("/shop.Shop/Square").future(b"%d" % n)
        assert found.result(60) == b"%d" % (n * n) * 10000
        return n
"""


class Shop(grpc.GenericRpcHandler):
    """Raw bytes: no generated code is needed for it."""

    def __init__(self) -> None:
        self.gate = Gate()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == "/shop.Shop/Square":
            return grpc.unary_unary_rpc_method_handler(self.square)
        if details.method == "/shop.Shop/Count":
            return grpc.unary_stream_rpc_method_handler(self.count)
        return None

    def square(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.gate.passed(request)
        return b"%d" % int(request) ** 2 * 10000

    def count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.gate.passed(request)
        yield from (b"%d" % number for number in range(int(request) * 100))


@pytest.fixture
def shop() -> Iterator[tuple[Shop, int]]:
    made = Shop()
    server = grpc.server(futures.ThreadPoolExecutor(2 * N))
    server.add_generic_rpc_handlers([made])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, port
    made.gate.open()
    server.stop(0).wait()


CELLS = ["own", "shared", "stream", "future"]
TOLD = r"\[warning\] .*cygrpc.* keeps what waits for its locks by thread"


@pytest.mark.parametrize("cell", CELLS)
def test_grpc(matrix: Callable[..., Matrix], shop: tuple[Shop, int], cell: str) -> None:
    service, port = shop
    served = matrix(APP, {"PORT": str(port)})
    served.server.check_fds = False  # its descriptors stay with its own threads
    if served.carrier == "fibers":
        # One call holds the loop until its answer comes; nothing is asked of calls that overlap.
        served.server.expect_log(TOLD)
        service.gate.open()
        assert [served.ask(f"/{cell}?{n}") for n in range(N)] == list(range(N))
        return
    for _ in range(2):
        service.gate.close()
        answers = served.meet(cell, N, service.gate.waiting, service.gate.open)
        assert answers == list(range(N))

# SPDX-License-Identifier: Apache-2.0
"""HTTP clients, sockets and ssl: their waits overlap, as a slow service sees them.

With names that a name server of the test knows, the look-ups overlap as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slow
from conftest import Matrix

N = 8

APP = """
import asyncio, socket, ssl

HTTP, HTTPS, CA = int(os.environ["HTTP"]), int(os.environ["HTTPS"]), os.environ["CA"]

def judged(data, n):
    assert data == b"/item/%d" % n * 30000, data[:100]
    return n

def url(n, port=HTTP, host="localhost"):
    return f"http{'s' if port == HTTPS else ''}://{host}:{port}/item/{n}"

def ask(sock, n):
    sock.sendall(b"GET /item/%d HTTP/1.0\\r\\n\\r\\n" % n)
    data = b""
    while chunk := sock.recv(10000):
        data += chunk
    return judged(data.partition(b"\\r\\n\\r\\n")[2], n)

def sockets(n):
    with socket.create_connection(("localhost", HTTP)) as sock:
        return ask(sock, n)

def sockets_with_a_timeout(n):
    with socket.create_connection(("localhost", HTTP), timeout=60) as sock:
        return ask(sock, n)

def tls(n):
    context = ssl.create_default_context(cafile=CA)
    with socket.create_connection(("localhost", HTTPS)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            return ask(sock, n)

def asyncio_run(n):
    async def ask():
        context = ssl.create_default_context(cafile=CA)
        reader, writer = await asyncio.open_connection("localhost", HTTPS, ssl=context)
        writer.write(b"GET /item/%d HTTP/1.0\\r\\n\\r\\n" % n)
        data = await reader.read()
        writer.close()
        return judged(data.partition(b"\\r\\n\\r\\n")[2], n)
    return asyncio.run(ask())

def requests_http(n):
    import requests
    return judged(requests.get(url(n)).content, n)

def requests_https(n):
    import requests
    return judged(requests.get(url(n, HTTPS), verify=CA).content, n)

def requests_session(n):
    import requests
    def make():
        session = requests.Session()
        session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=8))
        return session
    return judged(once("session", make).get(url(n, HTTPS), verify=CA).content, n)

def urllib3_own(n):
    import urllib3
    with urllib3.PoolManager(ca_certs=CA) as pool:
        return judged(pool.request("GET", url(n, HTTPS)).data, n)

def urllib3_pool(n):
    import urllib3
    pool = once("pool", lambda: urllib3.HTTPConnectionPool("localhost", HTTP, maxsize=8))
    return judged(pool.request("GET", f"/item/{n}").data, n)

def urllib3_small_pool(n):
    # Two connections: the others wait in the pool's queue.
    import urllib3
    pool = once("small", lambda: urllib3.HTTPConnectionPool(
        "localhost", HTTP, maxsize=2, block=True))
    return judged(pool.request("GET", f"/item/{n}").data, n)

def httpx_get(n):
    import httpx
    context = ssl.create_default_context(cafile=CA)
    return judged(httpx.get(url(n, HTTPS), verify=context, timeout=60).content, n)

def httpx_client(n):
    import httpx
    client = once("client", lambda: httpx.Client(timeout=60))
    return judged(client.get(url(n)).content, n)

def httpx_async(n):
    import httpx
    async def ask():
        context = ssl.create_default_context(cafile=CA)
        async with httpx.AsyncClient(verify=context, timeout=60) as client:
            return judged((await client.get(url(n, HTTPS))).content, n)
    return asyncio.run(ask())

def pycurl_easy(n):
    # Waits in C, and calls back.
    import io, pycurl
    me, data = threading.get_ident(), io.BytesIO()
    def write(chunk):
        assert threading.get_ident() == me
        data.write(chunk)
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url(n, HTTPS))
    curl.setopt(pycurl.CAINFO, CA)
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.WRITEFUNCTION, write)
    curl.perform()
    curl.close()
    return judged(data.getvalue(), n)

# By names that nothing has looked up before.

def named_http(n):
    import requests
    return judged(requests.get(url(n, host=f"n{n}.shop.test")).content, n)

def named_https(n):
    import requests
    return judged(requests.get(url(n, HTTPS, host=f"n{n}.shop.test"), verify=CA).content, n)

def named_unknown(n):
    try:
        socket.getaddrinfo(f"n{n}.nowhere.test", HTTP)
    except socket.gaierror as error:
        return n if error.errno == socket.EAI_NONAME else str(error)

def named_asyncio(n):
    async def ask():
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(f"n{n}.shop.test", HTTP, type=socket.SOCK_STREAM)
        assert found[0][4] == ("127.0.0.1", HTTP), found
        return n
    return asyncio.run(ask())
"""

# What is asked, and how many of N the service sees at once when the client lets not all through.
CELLS = {
    "sockets": None,
    "sockets_with_a_timeout": None,
    "tls": None,
    "asyncio_run": None,
    "requests_http": None,
    "requests_https": None,
    "requests_session": None,
    "urllib3_own": None,
    "urllib3_pool": None,
    "urllib3_small_pool": 2,
    "httpx_get": None,
    "httpx_client": None,
    "httpx_async": None,
    "pycurl_easy": None,
}
KEPT = {"requests_session": N, "urllib3_pool": N, "urllib3_small_pool": 2, "httpx_client": N}
SECURE = ("tls", "asyncio_run", "requests_https", "requests_session", "urllib3_own", "httpx_get")
SECURE = (*SECURE, "httpx_async", "pycurl_easy", "named_https")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slow.certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def services(certificate: Path) -> Iterator[tuple[slow.HTTPService, slow.HTTPService]]:
    secured = slow.HTTPService(slow.context(certificate))
    with slow.serving(slow.HTTPService()) as plain, slow.serving(secured) as secure:
        yield plain, secure


@pytest.fixture
def environment(
    services: tuple[slow.HTTPService, slow.HTTPService], certificate: Path
) -> dict[str, str]:
    plain, secure = services
    ports = {"HTTP": str(plain.port), "HTTPS": str(secure.port)}
    return {**ports, "CA": str(certificate), "NO_PROXY": "*"}


@pytest.mark.parametrize("cell", CELLS)
def test_http(
    matrix: Callable[..., Matrix],
    services: tuple[slow.HTTPService, slow.HTTPService],
    environment: dict[str, str],
    cell: str,
) -> None:
    gate = services[cell in SECURE].gate
    served = matrix(APP, environment)
    served.server.allow_fds("socket", KEPT.get(cell, 0))
    for _ in range(2):  # the second time nothing is new: imports, cores, connections in pools
        gate.close()
        answers = served.meet(cell, N, gate.waiting, gate.open, at_server=CELLS[cell])
        assert answers == list(range(N))


# --- With a name server -------------------------------------------------------------------------


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[slow.NameService]:
    """The server that is started next asks this service for names."""
    if not slow.may_mount():
        pytest.skip("a name server of its own needs a mount namespace, which is root's")
    with slow.serving(slow.NameService()) as service:
        monkeypatch.setenv("PELTON_TEST_SERVER", slow.resolving_by(service, tmp_path))
        yield service


@pytest.mark.parametrize("cell", ["named_http", "named_https", "named_unknown", "named_asyncio"])
def test_names_are_looked_up_beside_each_other(
    names: slow.NameService,
    matrix: Callable[..., Matrix],
    services: tuple[slow.HTTPService, slow.HTTPService],
    environment: dict[str, str],
    cell: str,
) -> None:
    for service in services:
        service.gate.open()
    served = matrix(APP, environment)
    for _ in range(2):
        names.gate.close()
        answers = served.meet(cell, N, names.gate.waiting, names.gate.open)
        assert answers == list(range(N))


@pytest.mark.parametrize("cell", ["named_http", "named_https"])
def test_requests_by_a_name(
    names: slow.NameService,
    matrix: Callable[..., Matrix],
    services: tuple[slow.HTTPService, slow.HTTPService],
    environment: dict[str, str],
    cell: str,
) -> None:
    names.gate.open()
    gate = services[cell in SECURE].gate
    served = matrix(APP, environment)
    for _ in range(2):
        gate.close()
        assert served.meet(cell, N, gate.waiting, gate.open) == list(range(N))

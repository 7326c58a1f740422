# SPDX-License-Identifier: Apache-2.0
"""bench/load.c against a server in this process: the bytes that it sends, what it counts."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "bench" / "load.c"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nHello World"
CLOSING = GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nHello World\r\n0\r\n\r\n"

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="needs a compiler")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("load") / "load"
    flags = ["-O1", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", program, SOURCE], check=True)
    return program


class Answers:
    """Answers every request with the same bytes; keeps what it was asked, by connection."""

    def __init__(self) -> None:
        self.answer = GOOD
        self.close = False
        self.asked: list[list[bytes]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.asked.append([])
            threading.Thread(target=self._serve, args=(sock, self.asked[-1]), daemon=True).start()

    def _serve(self, sock: socket.socket, asked: list[bytes]) -> None:
        data = b""
        with sock:
            while more := sock.recv(4096):
                data += more
                while b"\r\n\r\n" in data:
                    request, _, data = data.partition(b"\r\n\r\n")
                    asked.append(request)
                    sock.sendall(self.answer)
                    if self.close:
                        return


@pytest.fixture
def answers() -> Iterator[Answers]:
    server = Answers()
    yield server
    server.listener.close()


Run = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture
def run(load: Path, answers: Answers) -> Run:
    def call(*options: str, connections: int = 2, requests: int = 10) -> tuple[int, dict[str, str]]:
        argv = [load, *options, str(answers.port), str(connections), str(requests), "10"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, dict(re.findall(r"(\w+)=([\d.]+)", done.stdout))

    return call


def requests_of(answers: Answers) -> list[bytes]:
    return [request for asked in answers.asked for request in asked]


def test_keep_alive_sends_the_same_five_headers(answers: Answers, run: Run) -> None:
    status, said = run()
    assert (status, said["requests"], said["errors"]) == (0, "10", "0")
    requests = requests_of(answers)
    assert len(requests) == 10
    assert len(answers.asked) == 2
    assert len(set(requests)) == 1
    line, *headers = requests[0].split(b"\r\n")
    assert line == b"GET / HTTP/1.1"
    assert len(headers) == 5
    assert not [header for header in headers if header.startswith(b"Connection")]


def test_varied_requests_differ_but_not_in_length(answers: Answers, run: Run) -> None:
    assert run("-v", "-p", "/x", connections=1, requests=200)[0] == 0
    requests = requests_of(answers)
    assert len(set(requests)) == 200
    assert len({len(request) for request in requests}) == 1
    assert {request.split(b" ")[1] for request in requests} == {b"/x"}


def test_a_browsers_requests_differ_in_the_cookie_only(answers: Answers, run: Run) -> None:
    assert run("-b", connections=1, requests=50)[0] == 0
    requests = requests_of(answers)
    cookies = {line for r in requests for line in r.split(b"\r\n") if line.startswith(b"Cookie: ")}
    rest = {re.sub(rb"\r\nCookie: [^\r]*", b"", request) for request in requests}
    assert (len(cookies), len(rest)) == (50, 1)
    assert {request.count(b"\r\n") for request in requests} == {14}


def test_a_connection_for_each(answers: Answers, run: Run) -> None:
    assert run("-n")[0] == 0
    assert [len(asked) for asked in answers.asked] == [1] * 10
    assert all(b"Connection: close" in request for request in requests_of(answers))
    assert requests_of(answers)[0].count(b"\r\n") == 5


@pytest.mark.parametrize("answer", [GOOD, CHUNKED, CLOSING])
def test_whole_answers_are_counted(answers: Answers, run: Run, answer: bytes) -> None:
    answers.answer = answer
    answers.close = answer == CLOSING
    status, said = run("-l")
    assert (status, said["requests"], said["errors"]) == (0, "10", "0")
    assert 0 < float(said["p50"]) <= float(said["p99"]) <= float(said["max"])
    assert float(said["max"]) <= 1000 * float(said["seconds"]) + 1


@pytest.mark.parametrize(
    "answer",
    [
        GOOD.replace(b"200 OK", b"500 No"),
        GOOD.replace(b"11", b"5"),  # more than was announced
        GOOD[:-1],  # cut off by the close
        b"nonsense\r\n\r\n",
    ],
)
def test_everything_else_is_an_error(answers: Answers, run: Run, answer: bytes) -> None:
    answers.answer = answer
    answers.close = True
    status, said = run()
    assert (status, said["requests"], said["errors"]) == (1, "0", "10")


class Messages(Answers):
    """Takes WebSocket handshakes, and answers each message with the same bytes."""

    def _serve(self, sock: socket.socket, asked: list[bytes]) -> None:
        with sock, sock.makefile("rb") as file:
            while file.readline() != b"\r\n":
                pass
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            while head := file.read(2):
                size = head[1] - 128
                if size == 126:
                    size = int.from_bytes(file.read(2), "big")
                mask, data = file.read(4), file.read(size)
                assert mask == bytes(4)
                asked.append(head[:1] + data)
                sock.sendall(self.answer)


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_websocket_messages(load: Path, size: int) -> None:
    server = Messages()
    head = bytes([0x81, size]) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    good, longer = head + b"x" * size, head[:-1] + bytes([head[-1] + 1]) + b"x" * (size + 1)
    for answer, errors in ((good, "0"), (b"\x82" + good[1:], "10"), (longer, "10")):
        server.asked, server.answer = [], answer
        argv = [load, "-w", str(size), str(server.port), "2", "10", "10"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert f"errors={errors} " in done.stdout
        assert requests_of(server) == [b"\x81" + b"x" * size] * 10
    server.listener.close()

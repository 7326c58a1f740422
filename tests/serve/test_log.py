# SPDX-License-Identifier: Apache-2.0
"""Everything that is printed arrives once, whole, and in one file."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from harness import SLOW, Server, wait_until

Serve = Callable[..., Server]

PRINTS = """
import threading
words = ["zero", "one", "two", "three", "four", "five"]

def application(environ, start_response):
    for index, word in enumerate(words):
        print(index, word, sep=":")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def ask(server: Server, requests: int, connections: int) -> None:
    """Spreads keep-alive requests over connections, all at once."""
    each = requests // connections
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def one() -> None:
        sock = server.connect(timeout_s=30)
        for _ in range(each // 20):
            sock.sendall(request * 20)
            data = b""
            while data.count(b"\r\n\r\nok") < 20:
                block = sock.recv(65536)
                assert block
                data += block

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def printed(server: Server) -> Counter[str]:
    """The lines that are not the server's own; a torn one would be a kind of its own."""
    lines = server.log_path.read_text().splitlines()
    return Counter(x for x in lines if not x.startswith(("[2", "127.0.0.1 [")))


WHOLE = ["0:zero", "1:one", "2:two", "3:three", "4:four", "5:five"]


def test_sixty_thousand_lines_of_four_processes(serve: Serve) -> None:
    server = serve("--processes", "4", "--logto", "pelton.log", app=PRINTS)
    ask(server, 10_000, 20)
    assert server.stop() == 0
    assert printed(server) == Counter(dict.fromkeys(WHOLE, 10000))
    requests = re.findall(r'^127\.0\.0\.1 \[.*\] "GET / HTTP/1\.1" 200 \d+ ', server.log, re.M)
    assert len(requests) == 10_000


def test_lines_of_every_carrier(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--logto", "pelton.log", "--disable-logging", app=PRINTS)
    ask(server, 2_000, 10)
    assert server.stop() == 0
    assert printed(server) == Counter(dict.fromkeys(WHOLE, 2000))


def test_pieces_of_lines_do_not_mix(serve: Serve) -> None:
    """Each request writes its line in pieces, and others run between them."""
    app = """
import sys, time

def application(environ, start_response):
    number = environ["QUERY_STRING"]
    for piece in ("begin ", number, " middle ", number):
        sys.stdout.write(piece)
        time.sleep(0.02)
    print(" end")
    start_response("200 OK", [])
    return [b"ok"]
"""
    for args in (("--threads", "8"), ("--async", "8")):
        server = serve(*args, "--logto", "pelton.log", "--disable-logging", app=app)
        threads = [
            threading.Thread(target=server.get, args=(f"/?{n}",), kwargs={"timeout_s": 20})
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
        assert printed(server) == Counter(f"begin {n} middle {n} end" for n in range(8))


def test_lines_arrive_without_a_further_request(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, "--logto", "pelton.log", app=PRINTS)
    server.get()
    server.wait_log("^5:five$", timeout_s=1)
    server.wait_log('^127.0.0.1 .*"GET / HTTP/1.1" 200 ', timeout_s=1)


def test_stderr_and_flushed_lines_arrive_at_once(serve: Serve) -> None:
    app = """
import logging, sys, time
logging.basicConfig(level=logging.INFO, format="%(message)s")

def application(environ, start_response):
    print("plain")
    print("flushed", flush=True)
    logging.info("logged")
    print("no newline", end="", flush=True)
    time.sleep(3)
    print(" and the rest")
    start_response("200 OK", [])
    return [b"ok"]
"""
    server = serve("--logto", "pelton.log", app=app)
    sock = server.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.wait_log("plain\nflushed\nlogged\nno newline$", timeout_s=2)
    assert sock.recv(100).startswith(b"HTTP/1.1 200")
    server.wait_log("^no newline and the rest$")


def test_stderr_needs_no_flush(serve: Serve) -> None:
    app = """
import sys, time

def application(environ, start_response):
    sys.stderr.write("direct\\n")
    time.sleep(5)
    start_response("200 OK", [])
    return [b"ok"]
"""
    server = serve("--logto", "pelton.log", app=app)
    sock = server.connect(timeout_s=20)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.wait_log("^direct$", timeout_s=3)
    assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_line_that_a_request_never_ended(serve: Serve, carrier: tuple[str, ...]) -> None:
    """Its thread state has gone, or is another request's: the end brings it out all the same."""
    app = """
def application(environ, start_response):
    print("unfinished", end="")
    start_response("200 OK", [])
    return [b"ok"]
"""
    server = serve(*carrier, "--logto", "pelton.log", "--disable-logging", app=app)
    assert server.get().body == b"ok"
    assert server.stop() == 0
    assert "unfinished" in server.log_path.read_text()


def test_threads_and_children_of_the_application(serve: Serve) -> None:
    app = """
import os, subprocess, threading

def application(environ, start_response):
    print("before")
    thread = threading.Thread(target=print, args=("in a thread",))
    thread.start()
    thread.join()
    subprocess.run(["sh", "-c", "echo from a program"], check=True)
    pid = os.fork()
    if pid == 0:
        print("in a child")
        os._exit(0)
    os.waitpid(pid, 0)
    print("after")
    start_response("200 OK", [])
    return [b"ok"]
"""
    server = serve("--logto", "pelton.log", "--disable-logging", app=app)
    assert server.get().body == b"ok"
    assert server.stop() == 0
    said = [x for x in server.log_path.read_text().splitlines() if not x.startswith("[2")]
    assert sorted(said) == sorted(
        ["before", "in a thread", "from a program", "in a child", "after"]
    )


def test_print_at_import_and_at_exit(serve: Serve) -> None:
    app = (
        """
import atexit
print("at import")
atexit.register(print, "at exit")
print("a piece", end="")

class Last:
    def __del__(self, print=print):
        print("deleted")

last = Last()
"""
        + PRINTS
    )
    for more in ((), ("--master",)):
        server = serve(*more, "--logto", "pelton.log", app=app)
        server.get()
        assert server.stop() == 0
        lines = printed(server)
        assert lines["at import"] == 1
        # What was made before the fork ends in the worker and in its generation.
        ends = 2 if more else 1
        assert sum(n for line, n in lines.items() if line.endswith("at exit")) == ends
        assert lines["deleted"] == ends
        # The piece is the generation's, or the only process's.
        assert sum(n for line, n in lines.items() if line.startswith("a piece")) == 1


def test_stdout_and_stderr_stay_apart_without_logto(serve: Serve) -> None:
    app = """
import sys

def application(environ, start_response):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    start_response("200 OK", [])
    return [b"ok"]
"""
    server = serve(app=app)
    real = server.process
    assert real is not None
    server.get()
    server.wait_log("^to stdout$")
    server.wait_log("^to stderr$")


def test_standard_streams_look_like_streams(serve: Serve) -> None:
    app = """
import io, sys

def check():
    out = sys.stdout
    assert isinstance(out, io.TextIOBase) and isinstance(out.buffer, io.BufferedIOBase)
    assert out.encoding.lower() == "utf-8" and out.errors and out.fileno() == 1
    assert out.writable() and not out.readable() and not out.seekable() and not out.isatty()
    assert not out.closed and out.name == "<stdout>" and out.line_buffering
    assert out is sys.__stdout__
    assert out.write("thr\\u00e9e\\n") == 6
    out.writelines(["one ", "two\\n"])
    out.buffer.write(b"by")
    out.write("tes and text\\n")
    out.buffer.write(memoryview(b"view\\n"))
    print("\\udcff", file=sys.stderr)
    for wrong in (lambda: out.write(b"x"), lambda: out.buffer.write("x")):
        try:
            wrong()
        except TypeError:
            pass
        else:
            raise AssertionError
    for refused in (out.read, out.readline, lambda: out.seek(0), lambda: next(iter([out.read()]))):
        try:
            refused()
        except io.UnsupportedOperation:
            pass
        else:
            raise AssertionError
    out.reconfigure(encoding="latin-1", errors="replace")
    out.write("caf\\u00e9 \\u20ac\\n")
    out.reconfigure(encoding="utf-8")
    assert out.errors == "strict"
    try:
        out.write("\\udcff")
    except UnicodeEncodeError:
        pass
    else:
        raise AssertionError
    out.attribute = 1
    assert out.attribute == 1 and "stdout" in repr(out)
    mine = io.TextIOWrapper(out.buffer, encoding="utf-8", write_through=True)
    print("wrapped", file=mine)
    mine.detach()
    with out:
        pass
    try:
        out.write("closed")
    except ValueError:
        pass
    else:
        raise AssertionError

def application(environ, start_response):
    check()
    start_response("200 OK", [])
    return [b"right"]
"""
    server = serve("--logto", "pelton.log", "--disable-logging", app=app)
    assert server.get().body == b"right"
    assert server.stop() == 0
    said = [x for x in server.log_path.read_bytes().splitlines() if not x.startswith(b"[2")]
    assert said == [
        "thr\u00e9e".encode(),
        b"one two",
        b"bytes and text",
        b"view",
        b"\\udcff",
        b"caf\xe9 ?",
        b"wrapped",
    ]


def test_request_log_is_escaped(serve: Serve) -> None:
    server = serve("--logto", "pelton.log", app=PRINTS)
    server.raw(
        b'GET /a%0a"\\x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n', allow_reset=True
    )
    server.wait_log(r'^127\.0\.0\.1 \[[^]]*\] "[^"]*')
    assert server.stop() == 0
    line = next(x for x in server.log.splitlines() if x.startswith("127.0.0.1"))
    assert re.fullmatch(r'127\.0\.0\.1 \[[^]]*\] "[ -~]*" \d{3} \d+ \S+ms.*', line)


def test_disable_logging(serve: Serve) -> None:
    server = serve("--disable-logging", app=PRINTS)
    server.get()
    server.wait_log("5:five")
    assert server.stop() == 0
    assert "GET /" not in server.log


def test_log_file_is_appended_to(serve: Serve) -> None:
    server = serve("--logto", "pelton.log", app=PRINTS, spawn_only=True)
    server.stop()
    server.expected_status = None
    server.log_path.write_text("old line\n")
    server.spawn()
    server.wait_log("serving webapp.py")
    assert server.log_path.read_text().startswith("old line\n")
    assert server.stop() == 0


@pytest.mark.parametrize("args", [("--threads", "1"), ("--processes", "2")])
def test_one_write_a_turn(serve: Serve, args: tuple[str, ...]) -> None:
    """A batch of requests costs few writes to the log, however much is printed."""
    try:
        subprocess.run(["strace", "-V"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("strace is not there")
    server = serve(*args, "--logto", "pelton.log", app=PRINTS)
    wait_until(lambda: "serving" in server.log, 10 * SLOW)
    worker = max(server.pids())
    with subprocess.Popen(
        [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=write",
            "-o",
            server.folder / "trace",
            "-p",
            str(worker),
        ]
    ) as trace:
        wait_until((server.folder / "trace").exists, 5 * SLOW)
        ask(server, 20, 1)
        trace.terminate()
    writes = [x for x in (server.folder / "trace").read_text().splitlines() if "0:zero" in x]
    assert len(writes) <= 2

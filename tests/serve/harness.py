# SPDX-License-Identifier: Apache-2.0
"""Starts the real server for a test, and judges it when the test is over.

A :class:`Server` lives for one test: ``Server(folder, args).start()`` returns when the server has
said in its log where it listens, and takes connections. ``finish()`` stops it and returns what was
wrong with it, one text for each problem: a log line that nobody expected, an expected one that
never came, a descriptor that stayed open, an exit status, a process that stayed, a sanitizer's
report. conftest.py turns these into failures; tests/tools/test_harness.py checks this file itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Everything is slower under a sanitizer; a test multiplies its own waits with this.
SLOW = 4.0 if os.environ.get("PELTON_TEST_SANITIZER") else 1.0
START_TIMEOUT_S = 20.0 * SLOW
STOP_TIMEOUT_S = 10.0 * SLOW
SETTLE_TIMEOUT_S = 3.0 * SLOW
POLL_S = 0.01
# --log-blocking of fibers in tests: on a busy machine any request may take longer than the default,
# a tenth of a second. What holds a loop for this long is at fault.
LOG_BLOCKING_MS = round(10_000 * SLOW)

# "[2026-01-31 10:00:00 +0000] [4711] [warning] text": see src/base/log.h.
HEAD = re.compile(r"^\[[^\]]*\] \[\d+\] \[(\w+)\] ")
BAD_TEXT = re.compile(
    r"^pelton: (warning|error): "
    r"|^Traceback \(most recent call last\)|^Exception ignored|^Fatal Python error"
    r"|\b\w*Warning: |Assertion .* failed|^Segmentation fault|\bBUG\b"
    r"|runtime error: |\w+Sanitizer"
)
# What names the application, and what makes it listen, so that the harness does neither itself.
NAMES_APP = re.compile(r"(--wsgi-file|--file|--module|--wsgi|-w)\b|webapp(\.py)?(:|$)")
IS_ASGI = re.compile(r"^\s*async def app\(", re.MULTILINE)
LISTEN_OPTIONS = ("--http-socket", "--http11-socket", "--http", "--bind", "-b", "--socket")
FIBER_OPTIONS = ("--async", "--asyncio")

CARRIERS = {
    "inline": ("--threads", "1"),
    "threads": ("--threads", "4"),
    "fibers": ("--async", "8"),
}
# Those that serve ASGI: fibers are the default there.
ASGI_CARRIERS = {"fibers": (), "inline": ("--threads", "1")}


def server_command() -> list[str]:
    """The ``pelton`` command of the interpreter that runs the tests."""
    given = os.environ.get("PELTON_TEST_SERVER")
    if given:
        return shlex.split(given)
    return [str(Path(sys.executable).parent / "pelton")]


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on just now.

    Below the ports that the kernel gives to outgoing connections, and from a range of its own for
    each of pytest-xdist's processes: nobody else takes it before the server does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
    first = 10_000 + (worker % 10) * 2_000
    for _ in range(100):
        port = random.randrange(first, first + 2_000)
        with contextlib.suppress(OSError), socket.socket(family) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            return port
    raise AssertionError(f"no free port on {host}")


def build(folder: Path, name: str, source: str) -> bytes:
    """A C library, built here."""
    (folder / f"{name}.c").write_text(source)
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is needed, as for Pelton itself"
    subprocess.run(
        [compiler, "-O0", "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.c"],
        cwd=folder,
        check=True,
    )
    return (folder / f"{name}.so").read_bytes()


def wait_until(true: Callable[[], object], timeout_s: float, what: str = "") -> None:
    """Returns as soon as ``true()`` is; raises TimeoutError after ``timeout_s`` seconds."""
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(what or f"not true after {timeout_s} s")
        time.sleep(POLL_S)


# --- Responses --------------------------------------------------------------------------------


@dataclass
class Response:
    """One response as it came over the wire. Header names are as sent; ``[]`` ignores case."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str, default: str | None = None) -> str | None:
        values = self.all(name)
        return values[0] if values else default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))


def _fields(block: bytes) -> list[tuple[str, str]]:
    fields = []
    for line in block.decode("latin-1").split("\r\n"):
        if line:
            name, colon, value = line.partition(":")
            good = colon and name and name == name.strip() and not re.search(r"[\r\n]", line)
            assert good, f"bad header line {line!r}"
            fields.append((name, value.strip(" \t")))
    return fields


def _chunked(data: bytes) -> tuple[bytes, list[tuple[str, str]], bytes]:
    pieces, at = [], 0
    while True:
        end = data.find(b"\r\n", at)
        assert end >= 0, "chunked body is cut short"
        length = int(data[at:end].split(b";")[0], 16)
        at = end + 2
        if length == 0:
            break
        assert data[at + length : at + length + 2] == b"\r\n", "chunk doesn't end with CRLF"
        pieces.append(data[at : at + length])
        at += length + 2
    data = data[at:]
    body = b"".join(pieces)
    if data.startswith(b"\r\n"):
        return body, [], data[2:]
    block, over, data = data.partition(b"\r\n\r\n")
    assert over, "trailers are cut short"
    return body, _fields(block), data


def parse_responses(data: bytes, methods: Iterable[str] = ()) -> list[Response]:
    """All responses in ``data``, interim (1xx) ones included, parsed strictly.

    ``methods`` are the requests' methods in order (GET where it ends): a HEAD has no body. A last
    body with neither length nor chunks goes to the end. Anything cut short is an AssertionError.
    """
    found: list[Response] = []
    asked = iter(methods)
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"response head is cut short: {head[:200]!r}"
        start, _, block = head.partition(b"\r\n")
        match = re.fullmatch(rb"(HTTP/1\.[01]) ([1-5]\d\d) ([^\r\n]*)", start)
        assert match, f"bad status line {start!r}"
        answer = Response(match[1].decode(), int(match[2]), match[3].decode(), _fields(block))
        found.append(answer)
        if answer.status < 200:
            continue
        if next(asked, "GET") == "HEAD" or answer.status in (204, 304):
            continue
        if (answer.get("transfer-encoding") or "").lower() == "chunked":
            answer.body, answer.trailers, data = _chunked(data)
        elif "content-length" in answer:
            length = int(answer["content-length"])
            assert len(data) >= length, f"body is cut short: {len(data)} of {length} bytes"
            answer.body, data = data[:length], data[length:]
        else:
            answer.body, data = data, b""
    return found


# --- Processes and descriptors ----------------------------------------------------------------


def become_subreaper() -> None:
    """Orphans of a server become children of this process, so that none can hide."""
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and session of a process; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[1]), int(fields[3])


def processes() -> Iterator[tuple[int, str, int, int]]:
    """(pid, state, parent, session) of every process."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat:
                yield (int(name), *stat)


def descriptors(pid: int) -> Counter[str] | None:
    """How many descriptors of each kind a process has; None when it has gone."""
    kinds: Counter[str] = Counter()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if "/libffi.so" in target:
                    continue  # from 3.5 on it keeps itself open for its trampolines, after ctypes
                # "socket:[123]" -> "socket"; "anon_inode:[eventpoll]" and paths stay.
                kinds[re.sub(r":\[\d+\]$", "", target)] += 1
    except OSError:
        return None
    return kinds


def log_problems(text: str, expected: Iterable[tuple[str, bool]]) -> list[str]:
    """What is wrong with a log, given (regex, required) of the lines that a test expects.

    A traceback is one block with the line before it, the lines below it and its chained ones; an
    expectation that matches any of it covers all of it.
    """
    wanted = [(re.compile(regex), required) for regex, required in expected]
    seen: set[int] = set()
    problems = []
    for block, bad in _blocks(text.splitlines()):
        joined = "\n".join(block)
        hits = {i for i, (regex, _) in enumerate(wanted) if regex.search(joined)}
        seen |= hits
        if bad and not hits:
            problems.append("unexpected in the log:\n" + textwrap.indent(joined, "    "))
    for i, (regex, required) in enumerate(wanted):
        if required and i not in seen:
            problems.append(f"expected in the log, but not found: {regex.pattern}")
    return problems


def _blocks(lines: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Cuts a log into lines and tracebacks, each with whether it is an alert."""
    block: list[str] = []
    state = "line"
    bad = False
    for line in lines:
        head = HEAD.match(line)
        plain = line[head.end() :] if head else line
        alert = bool(head and head[1] in ("warning", "error")) or bool(BAD_TEXT.search(plain))
        if state == "stack":
            block.append(line)
            if plain and not plain.startswith((" ", "\t")):
                state = "ended"  # this was the exception's own line
            continue
        chained = not plain or "above exception was the direct cause" in plain
        chained = chained or plain.startswith("During handling of the above exception")
        if state == "ended" and chained:
            block.append(line)
            continue
        if plain.startswith("Traceback (most recent call last)"):
            # The line before it says what failed, when it is an alert itself.
            if state == "line" and not bad and block:
                yield block, bad
                block = []
            block, bad, state = [*block, line], True, "stack"
            continue
        if block:
            yield block, bad
        block, bad, state = [line], alert, "line"
    if block:
        yield block, bad


# --- The server -------------------------------------------------------------------------------


class Server:
    """One server for one test. ``folder`` is its working directory and holds all its files."""

    def __init__(
        self,
        folder: Path,
        args: Iterable[str] = (),
        *,
        app: str | None = None,
        files: dict[str, str | bytes] | None = None,
        env: dict[str, str | None] | None = None,
        listen: bool = True,
        host: str = "127.0.0.1",
        ready: str | None = None,
        pass_fds: Iterable[int] = (),
        fibers: bool | None = None,
        prefix: Iterable[str] = (),
    ) -> None:
        """Prepares, starts nothing.

        ``app`` is the text of webapp.py (dedented), served by ``--wsgi-file`` unless ``args`` name
        an application. Without a listening option among ``args`` a free TCP port is chosen;
        ``listen=False`` chooses none. ``ready`` is the regex of the line that ends the start (by
        default: one that names the address). ``env`` is added; None removes a variable.
        ``prefix`` is a command that executes the server's, which follows it.

        A server in fibers gets ``--log-blocking`` with LOG_BLOCKING_MS unless ``args`` say it. The
        arguments and an ``async def app`` tell fibers; ``fibers=True`` says it, and ``False``
        leaves the server's own default.
        """
        self._prefix = tuple(prefix)
        self.folder = folder
        self.args = [str(arg) for arg in args]
        self.host, self.port = host, 0
        self.expected: list[tuple[str, bool]] = []
        self.expected_status: int | None = 0
        self.allowed_fds: Counter[str] = Counter()
        self.check_fds = True
        self.process: subprocess.Popen[bytes] | None = None
        self.status: int | None = None
        self.address: tuple[str, int] | str | None = None
        self._env = env or {}
        self._ready = ready
        self._pass_fds = tuple(pass_fds)
        self._sockets: list[socket.socket] = []
        self._baseline: dict[int, Counter[str]] = {}
        self._session = 0
        for name, content in (files or {}).items():
            self.write(name, content)
        if app is not None:
            self.write("webapp.py", textwrap.dedent(app))
            if not any(NAMES_APP.match(arg) for arg in self.args):
                self.args += ["--wsgi-file", "webapp.py"]
        names = {arg.split("=")[0] for arg in self.args}
        if fibers is None:
            asgi = app is not None and IS_ASGI.search(app) and "--threads" not in names
            fibers = bool(asgi) or not names.isdisjoint(FIBER_OPTIONS)
        if fibers and "--log-blocking" not in names:
            self.args = ["--log-blocking", str(LOG_BLOCKING_MS), *self.args]
        if listen and names.isdisjoint(LISTEN_OPTIONS):
            self.port = free_port(host)
            shown = f"[{host}]" if ":" in host else host
            self.args = ["--http-socket", f"{shown}:{self.port}", *self.args]
            self.address = (host, self.port)
            self._ready = ready or rf":{self.port}\b"

    # ---- files and log

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the server's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    @property
    def output_path(self) -> Path:
        """Where the server's stdout and stderr go."""
        return self.folder / "server.out"

    @property
    def log_path(self) -> Path:
        """The file after ``--logto``, or the server's output."""
        for at, arg in enumerate(self.args):
            if arg == "--logto":
                return self.folder / self.args[at + 1]
            if arg.startswith("--logto="):
                return self.folder / arg.partition("=")[2]
        return self.output_path

    @property
    def log(self) -> str:
        """All that the server has said by now: its output, and its ``--logto`` file."""
        paths = dict.fromkeys([self.output_path, self.log_path])
        return "".join(
            path.read_bytes().decode("utf-8", "backslashreplace") for path in paths if path.exists()
        )

    def wait_log(self, regex: str, timeout_s: float = 5.0) -> re.Match[str]:
        """Waits until the log has a place that matches; returns the first match."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(regex, self.log, re.MULTILINE)
            found.extend([match] if match else [])
            return bool(found)

        try:
            wait_until(look, timeout_s * SLOW)
        except TimeoutError:
            raise AssertionError(f"not in the log: {regex}\n--- log:\n{self.log}") from None
        return found[0]

    def expect_log(self, regex: str, *, required: bool = True) -> None:
        """The test means this alert to be there (and, unless ``required`` is off, it must be)."""
        self.expected.append((regex, required))

    def allow_fds(self, kind: str, count: int = 1) -> None:
        """Descriptors of this kind ("socket", "pipe", a path) that may stay open."""
        self.allowed_fds[kind] += count

    # ---- start and stop

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process, "the server was not started"
        return self.process.pid

    def environment(self) -> dict[str, str]:
        env = dict(os.environ)
        env.pop("PYTHONPATH", None)
        preload = env.pop("PELTON_TEST_PRELOAD", "")
        if preload:
            env["LD_PRELOAD"] = preload
            # The interpreter keeps much until it ends: see tools/sanitizers/env.sh.
            base = "abort_on_error=0:exitcode=99:detect_leaks=0:detect_stack_use_after_return=0"
            env["ASAN_OPTIONS"] = f"{base}:log_path={self.folder}/sanitizer"
            env["UBSAN_OPTIONS"] = f"print_stacktrace=1:log_path={self.folder}/sanitizer"
        for name, value in self._env.items():
            if value is None:
                env.pop(name, None)
            elif preload and name == "ASAN_OPTIONS":
                env[name] += f":{value}"
            else:
                env[name] = value
        return env

    def spawn(self) -> Server:
        """Starts the process and doesn't wait for anything."""
        with self.output_path.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._prefix, *server_command(), *self.args],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=self._pass_fds,
            )
        self._session = self.process.pid
        return self

    def start(self) -> Server:
        """Starts; returns when the log says where it listens and a connection is taken."""
        self.spawn()
        end = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self.process.poll() is not None:
                self.status = self.process.returncode
                raise AssertionError(f"ended at start with {self.status}\n--- log:\n{self.log}")
            if time.monotonic() > end:
                raise AssertionError(f"not ready after {START_TIMEOUT_S} s\n--- log:\n{self.log}")
            time.sleep(POLL_S)
        time.sleep(POLL_S)  # the probing connection is closed at the server's end as well
        self.rebase()
        return self

    def _is_ready(self) -> bool:
        if self._ready and not re.search(self._ready, self.log, re.MULTILINE):
            return False
        if self.address is not None:
            try:
                self._open(self.address, 1.0).close()
            except OSError:
                return False
        return True

    def rebase(self) -> None:
        """Takes the descriptors that are open now as those that may be open at the end."""
        self._baseline = {
            pid: kinds for pid in self.pids() if (kinds := descriptors(pid)) is not None
        }

    def pids(self) -> list[int]:
        """The server's living processes, the first one first."""
        return sorted(
            pid
            for pid, state, _, session in processes()
            if session == self._session and state not in "ZX"
        )

    def workers(self) -> list[int]:
        """All of its processes but the first."""
        return [pid for pid in self.pids() if pid != self.pid]

    def kill(self, number: int = signal.SIGTERM) -> None:
        """Sends a signal to the first process."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for the end; returns the exit status (minus the signal's number)."""
        try:
            self.status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {timeout_s} s\n--- log:\n{self.log}") from None
        return self.status

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Signals, and waits for the end."""
        if self.process.poll() is None:
            self.kill(number)
        return self.wait(timeout_s)

    # ---- clients

    @staticmethod
    def _open(address: tuple[str, int] | str, timeout_s: float) -> socket.socket:
        if isinstance(address, tuple):
            return socket.create_connection(address, timeout_s)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout_s)
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        return sock

    def connect(self, timeout_s: float = 5.0) -> socket.socket:
        """A connection; closed at the test's end if it isn't before."""
        assert self.address is not None, "set .address first: the harness chose none"
        sock = self._open(self.address, timeout_s * SLOW)
        self._sockets.append(sock)
        return sock

    def raw(
        self,
        *parts: bytes,
        timeout_s: float = 5.0,
        gap_s: float = 0.0,
        half_close: bool = False,
        allow_reset: bool = False,
    ) -> bytes:
        """Sends the parts, ``gap_s`` apart, and returns all that comes until the server closes.

        Raises TimeoutError when it doesn't close within ``timeout_s``, and ConnectionResetError
        when it resets, unless ``allow_reset``: then what came before is returned.
        """
        with contextlib.closing(self.connect(timeout_s)) as sock:
            received = b""
            try:
                for at, part in enumerate(parts):
                    if at and gap_s:
                        time.sleep(gap_s)
                    sock.sendall(part)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
                received = read_to_end(sock, timeout_s * SLOW)
            except (ConnectionResetError, BrokenPipeError) as error:
                if not allow_reset:
                    raise
                received = getattr(error, "received", received)
            return received

    def request(
        self,
        target: str = "/",
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
    ) -> Response:
        """One request on a connection of its own; the final response."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        return parse_responses(self.raw(head + body, timeout_s=timeout_s), [method])[-1]

    def get(self, target: str = "/", **more: object) -> Response:
        return self.request(target, **more)  # type: ignore[arg-type]

    # ---- the verdict

    def finish(self) -> list[str]:
        """Stops the server if it runs; returns all that was wrong, one text each."""
        problems: list[str] = []
        for sock in self._sockets:
            sock.close()
        if self.process is None:
            return problems
        if self.process.poll() is None:
            if self.check_fds:
                problems += self._leaked_descriptors()
            try:
                self.stop()
            except AssertionError:
                problems.append(f"did not stop within {STOP_TIMEOUT_S} s of SIGTERM")
                self.expected_status = None
                self._kill_session()
        self.status = self.process.wait()
        if self.expected_status is not None and self.status != self.expected_status:
            problems.append(f"exit status {self.status}, expected {self.expected_status}")
        problems += self._left_over()
        problems += log_problems(self.log, self.expected)
        for path in sorted(self.folder.glob("sanitizer.*")):
            problems.append(f"{path.name}:\n{path.read_text(errors='replace')}")
        return problems

    def _leaked_descriptors(self) -> list[str]:
        """Waits a little until every process is back at its baseline; says what is not."""
        leaks: list[str] = []

        def settled() -> bool:
            leaks.clear()
            for pid, before in self._baseline.items():
                now = descriptors(pid)
                more = (now - before - self.allowed_fds) if now is not None else None
                if more:
                    leaks.append(f"descriptors of process {pid} that stayed open: {dict(more)}")
            return not leaks

        with contextlib.suppress(TimeoutError):
            wait_until(settled, SETTLE_TIMEOUT_S)
        return leaks

    def _members(self) -> list[int]:
        """Processes of the server's session, and orphans that came to this process from it."""
        found = []
        for pid, state, parent, session in processes():
            if pid != self._session and (session == self._session or self._adopted(pid, parent)):
                if state in "ZX":
                    with contextlib.suppress(OSError):
                        os.waitpid(pid, os.WNOHANG)
                else:
                    found.append(pid)
        return found

    def _adopted(self, pid: int, parent: int) -> bool:
        """Whether a child of this process has this server's folder as its working directory."""
        if parent != os.getpid():
            return False
        try:
            return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self.folder.resolve())
        except OSError:
            return False

    def _left_over(self) -> list[str]:
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self._members(), SETTLE_TIMEOUT_S)
        left = []
        for pid in self._members():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                left.append(f"process {pid} was left over: {command}")
        self._kill_session()
        return left

    def _kill_session(self) -> None:
        for pid in [self._session, *self._members()]:
            # The first process is only signalled while it is our unreaped child.
            if pid == self._session and self.process.poll() is not None:
                continue
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self._members(), SETTLE_TIMEOUT_S)


def read_to_end(sock: socket.socket, timeout_s: float) -> bytes:
    """All bytes until the other end closes. A reset carries what came before as ``.received``."""
    end = time.monotonic() + timeout_s
    received = bytearray()
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"not closed after {timeout_s} s; came: {bytes(received)!r}")
        sock.settimeout(left)
        try:
            data = sock.recv(65536)
        except TimeoutError:
            continue
        except ConnectionResetError as error:
            error.received = bytes(received)  # type: ignore[attr-defined]
            raise
        if not data:
            return bytes(received)
        received += data


def said(server: Server, word: str) -> str:
    """Waits until a line of GET /said starts with the word; that line."""
    found: list[str] = []

    def look() -> bool:
        lines = server.get("/said").body.decode().split("\n")
        found[:] = [line for line in lines if line.startswith(word)]
        return bool(found)

    wait_until(look, 5 * SLOW, f"{word} was not said\n{server.log}")
    return found[0]

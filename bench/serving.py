# SPDX-License-Identifier: Apache-2.0
"""A server under measurement: started in a folder of its own, asked, weighed, ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from machine import take_precedence
from servers import PEERS, ROOT, Row

START_TIMEOUT_S = 30
CALLGRIND_START_TIMEOUT_S = 120
DUMP_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
CALLGRIND = (
    "valgrind",
    "-q",
    "--tool=callgrind",
    "--trace-children=yes",
    "--callgrind-out-file={folder}/callgrind.%p",
)


class BenchError(Exception):
    """A measurement that could not be taken; the text says why."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def process_clock(pid: int) -> int:
    """The id of a process's CPU clock (the kernel's ABI: CPUCLOCK_SCHED of the whole process)."""
    return (~pid << 3) | 2


def status_kb(text: str, *names: str) -> int:
    """The sum of some lines of /proc/PID/status or /proc/meminfo, which count in kB."""
    total = 0
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in names:
            total += int(value.split()[0])
    return total


class Server:
    """One server's processes: a session of their own, in a folder of their own."""

    def __init__(self, row: Row, prefix: tuple[str, ...] = ()) -> None:
        self.row = row
        self.start_timeout_s = CALLGRIND_START_TIMEOUT_S if prefix else START_TIMEOUT_S
        self.folder = Path(tempfile.mkdtemp(prefix="pelton-bench-"))
        self.port = free_port()
        for path in (ROOT / row.folder).iterdir():
            if path.is_file():
                shutil.copy(path, self.folder)
        argv = [arg.replace("{port}", str(self.port)) for arg in row.argv]
        prefix = tuple(arg.replace("{folder}", str(self.folder)) for arg in prefix)
        env = dict(os.environ, PYTHONHASHSEED="0", PYTHONPATH=str(self.folder))
        # uWSGI embeds the interpreter, and is told by this where its environment is.
        env["VIRTUAL_ENV"] = str(PEERS.parent)
        with (self.folder / "server.out").open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, *argv],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        if nice:
            take_precedence(self.process.pid, nice)

    def said(self) -> str:
        """The end of its output."""
        text = (self.folder / "server.out").read_text(errors="replace")
        return " / ".join(line.strip() for line in text.splitlines()[-3:])

    def wait_ready(self) -> None:
        """Until it answers one request."""
        end = time.monotonic() + self.start_timeout_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise BenchError(f"ended at start ({self.process.returncode}): {self.said()}")
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 5) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if sock.recv(12).endswith(b"200"):
                    return
            time.sleep(0.1)
        raise BenchError(f"no answer after {self.start_timeout_s} s: {self.said()}")

    def pids(self) -> list[int]:
        """All processes of its session."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{name}/stat").read_text()
                fields = text.rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] not in "ZX":
                    found.append(int(name))
        return found

    def cpu_ns(self) -> int:
        """CPU time, user and kernel, of every process; threads that have ended are in it."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += time.clock_gettime_ns(process_clock(pid))
        return total

    def _statuses(self) -> Iterator[str]:
        for pid in self.pids():
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{pid}/status").read_text()

    def memory_kb(self) -> tuple[int, int]:
        """RSS, and page tables, of all its processes."""
        texts = list(self._statuses())
        return (
            sum(status_kb(text, "VmRSS") for text in texts),
            sum(status_kb(text, "VmPTE") for text in texts),
        )

    def threads(self) -> int:
        return sum(status_kb(text, "Threads") for text in self._statuses())

    def instructions(self) -> int:
        """Instructions since the last call, from callgrind's dumps; the counters start again."""
        total = 0
        for pid in self.pids():
            before = set(self.folder.glob(f"callgrind.{pid}.*"))
            subprocess.run(
                ["callgrind_control", "-d", str(pid)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=DUMP_TIMEOUT_S,
                check=False,
            )
            total += self._dumped(pid, before)
        return total

    def _dumped(self, pid: int, before: set[Path]) -> int:
        end = time.monotonic() + DUMP_TIMEOUT_S
        while time.monotonic() < end:
            for path in set(self.folder.glob(f"callgrind.{pid}.*")) - before:
                match = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
                if match:
                    return int(match[1])
            time.sleep(0.1)
        raise BenchError(f"callgrind wrote no dump for process {pid}")

    def stop(self) -> None:
        """Ends all of it: some servers want a second word, some leave workers behind."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_TIMEOUT_S)
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running(row: Row, prefix: tuple[str, ...] = ()) -> Iterator[Server]:
    server = Server(row, prefix)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()

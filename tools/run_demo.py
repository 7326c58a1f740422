# SPDX-License-Identifier: Apache-2.0
"""Serves both example programs one after the other, drives each with ab, counts its log lines.

Called by `make demo` with the virtual environment's ``pelton`` first in PATH. The command lines are
those of the README, word for word. Ends with 1, and says why, when a request failed, a line is
missing or torn, or a server didn't stop as it should.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PORT = 9090
REQUESTS = 10_000
CLIENTS = 100
WORDS = ("zero", "one", "two", "three", "four", "five")
WHOLE = {f"{index}:{word}".encode() for index, word in enumerate(WORDS)}
PIECE = re.compile(rb"[0-5]:(zero|one|two|three|four|five)")
EXPECTED = REQUESTS * len(WORDS)

START_TIMEOUT_S = 30
AB_TIMEOUT_S = 300
LINES_TIMEOUT_S = 60  # after ab's end; the second program's lines come five seconds later
STOP_TIMEOUT_S = 15

PROGRAMS = {
    "blocking": (
        "pelton --http-socket :9090 --processes 1 --threads 1 --logto pelton.log"
        " --wsgi-file webapp.py"
    ),
    "delayed": (
        "pelton --asyncio 2 --http-socket :9090 --greenlet --processes 1 --threads 1"
        " --logto pelton.log --wsgi-file webapp.py"
    ),
}


class DemoError(Exception):
    """Something is missing; the text says what."""


@dataclass
class Result:
    """What one program's run showed."""

    name: str
    rps: float = 0.0
    failed: int = 0
    lines: int = 0
    last_line_s: float = 0.0
    problems: list[str] = field(default_factory=list)


def check_port() -> None:
    """Refuses a port that another program listens on: its answers would be measured."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("0.0.0.0", PORT))
        except OSError as error:
            raise DemoError(
                f"port {PORT} is in use ({error.strerror}): stop what listens there, and run"
                " `make demo` again"
            ) from None


def wait_ready(server: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        if server.poll() is not None:
            raise DemoError(f"the server ended at start ({server.returncode}):\n{tail(folder)}")
        try:
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise DemoError(
                    f"no connection after {START_TIMEOUT_S} s:\n{tail(folder)}"
                ) from None
            time.sleep(0.02)


def tail(folder: Path) -> str:
    """The last lines of what the server said."""
    text = ""
    for name in ("pelton.log", "server.out"):
        path = folder / name
        if path.exists():
            text += path.read_text(errors="replace")
    return "\n".join(text.splitlines()[-20:])


def drive(result: Result) -> None:
    """ab -n 10000 -c 100."""
    url = f"http://127.0.0.1:{PORT}/"
    argv = ["ab", "-q", "-n", str(REQUESTS), "-c", str(CLIENTS), url]
    print(f"   ab -n {REQUESTS} -c {CLIENTS} {url}", flush=True)
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=AB_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DemoError(f"ab had no end after {AB_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise DemoError(f"ab ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def figure(label: str) -> float:
        match = re.search(rf"^{label}:\s+([\d.]+)", done.stdout, re.MULTILINE)
        return float(match[1]) if match else 0.0

    result.rps = figure("Requests per second")
    result.failed = int(figure("Failed requests") + figure("Non-2xx responses"))
    if figure("Complete requests") != REQUESTS:
        result.problems.append(f"ab completed {figure('Complete requests'):.0f} requests only")
    if figure("Document Length") != len("Hello World"):
        result.problems.append("the answer is not `Hello World`")
    if result.failed:
        result.problems.append(f"{result.failed} requests failed")


def count_lines(log: Path) -> tuple[dict[bytes, int], list[bytes]]:
    """How often each whole line is there; and lines that hold a piece of one (torn)."""
    whole = dict.fromkeys(WHOLE, 0)
    torn = []
    data = log.read_bytes() if log.exists() else b""
    *lines, last = data.split(b"\n")
    for line in lines:
        if line in whole:
            whole[line] += 1
        elif PIECE.search(line):
            torn.append(line)
    if PIECE.search(last):
        torn.append(last)  # no line end
    return whole, torn


def wait_lines(result: Result, log: Path) -> None:
    """Waits until all lines are in the log."""
    started = time.monotonic()
    while time.monotonic() - started < LINES_TIMEOUT_S:
        result.lines = sum(count_lines(log)[0].values())
        if result.lines >= EXPECTED:
            break
        time.sleep(0.2)
    result.last_line_s = time.monotonic() - started


def stop(server: subprocess.Popen[bytes], result: Result) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        result.problems.append(f"the server didn't stop within {STOP_TIMEOUT_S} s")
        return
    if status != 0:
        result.problems.append(f"the server ended with {status}")


def judge_lines(result: Result, log: Path) -> None:
    """After the server's end: each line as often as it was printed, none torn."""
    whole, torn = count_lines(log)
    result.lines = sum(whole.values())
    for line, number in sorted(whole.items()):
        if number != REQUESTS:
            result.problems.append(f"`{line.decode()}` is there {number} times, not {REQUESTS}")
    if torn:
        result.problems.append(f"{len(torn)} torn lines, the first: {torn[0][:100]!r}")


def run(name: str, command: str, folder: Path) -> Result:
    result = Result(name)
    for path in (EXAMPLES / name).iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    check_port()
    print(f"== {name}\n   {command}", flush=True)
    log = folder / "pelton.log"
    with (folder / "server.out").open("wb") as output:
        server = subprocess.Popen(
            command.split(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_ready(server, folder)
        drive(result)
        wait_lines(result, log)
        stop(server, result)
        judge_lines(result, log)
    except DemoError as error:
        result.problems.append(str(error))
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    return result


def table(results: list[Result]) -> None:
    print()
    print(
        f"{'program':10} {'requests/s':>10} {'failed':>7} {'log lines':>18} {'last line after':>16}"
    )
    for result in results:
        lines = f"{result.lines:,} of {EXPECTED:,}"
        print(
            f"{result.name:10} {result.rps:10,.0f} {result.failed:7} {lines:>18}"
            f" {result.last_line_s:14.1f} s"
        )
    if results[0].rps:
        ratio = results[1].rps / results[0].rps
        print(f"ratio of requests per second, {results[1].name} to {results[0].name}: {ratio:.2f}")


def main() -> int:
    results = []
    for name, command in PROGRAMS.items():
        with tempfile.TemporaryDirectory(prefix="pelton-demo-") as folder:
            try:
                results.append(run(name, command, Path(folder)))
            except (DemoError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
    table(results)
    problems = [f"{result.name}: {text}" for result in results for text in result.problems]
    for text in problems:
        print(f"error: {text}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Runs modules of the standard library's test suite in plain Python and in a core of each carrier,
and compares (see `make test-stdlib`).

A server is started for each module and carrier; one request runs the module, while another client
asks for /ping all the time. A test that hangs or takes the server down is named, and the rest goes
on in a new server. What fails is run once more by itself in a fresh server: when it passes then,
the machine was too busy for it, which is said, and is no failure. The exit status is 1 when a test
fails in a carrier that passes in plain Python.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "serve"))
from harness import Server, parse_responses  # noqa: E402

MODULES = (
    "test_time test_thread test_threading_local test_select test_selectors test_queue"
    " test_threading test_socket test_ssl test_subprocess"
).split()
CARRIERS = {"threads": ("--threads", "64"), "fibers": ("--async", "64")}
# A test that takes longer than this hangs; in plain Python none takes a quarter of it.
HANG_S = 60.0
RUNNER = HERE / "runner.py"


def exceptions() -> list[str]:
    """The patterns of the tests that are not run in a carrier."""
    lines = (HERE / "exceptions.txt").read_text().splitlines()
    patterns = []
    for line in lines:
        if line and not line.startswith("#"):
            versions, _, pattern = line.split(None, 1)[0].rpartition(":")
            bound = tuple(map(int, versions[:-1].split("."))) if versions else ()
            mine = sys.version_info[:2]
            if not bound or (mine >= bound if versions.endswith("+") else mine <= bound):
                patterns.append(pattern)
    return patterns


def listed(test: str) -> bool:
    return any(fnmatch.fnmatchcase(test, pattern) for pattern in exceptions())


class Run:
    """One module's tests in one place, however many processes it takes.

    The places are the carriers and, in plain Python, "plain" (its main thread) and "thread" (one
    that threading does not know, like those that serve requests).
    """

    def __init__(self, folder: Path, place: str, module: str) -> None:
        self.folder, self.place, self.module = folder, place, module
        folder.mkdir(parents=True)
        self.out = folder / "out.jsonl"
        self.leave_out = exceptions() if place in CARRIERS else []
        self.results: dict[str, tuple[str, str]] = {}  # test id -> (what, text)
        self.notes: list[str] = []
        self.tries = 0
        self.longest = 0.0  # of the pings, in seconds

    def go(self, only: Iterable[str] = ()) -> Run:
        """Until each test has an end; one that hangs or kills its process ends by that."""
        only = sorted(only)
        for test in only:
            self.results.pop(test, None)
        while True:
            self.tries += 1
            self.out.write_text("")
            # The subtraction, not a pattern, leaves out what was run: ids have brackets.
            left = [test for test in only if test not in self.results]
            ended = self.process(left, [] if only else list(self.results))
            running = self.read()
            if ended is None:
                return self
            if not running:
                self.results[f"{self.module} (after its tests)"] = ("failed", ended)
                return self
            self.results[running] = ("failed", ended)
            if only and all(test in self.results for test in only):
                return self

    def read(self) -> str | None:
        """Takes the lines over; returns the test that has begun and not ended."""
        running = None
        for line in self.out.read_text().splitlines():
            entry = json.loads(line)
            if entry["what"] == "start":
                running = entry["test"]
            elif entry["what"] == "stop":
                running = None
            else:
                self.results[entry["test"]] = (entry["what"], entry["text"])
        return running

    def process(self, only: list[str], done: list[str]) -> str | None:
        """One process's worth. None, or why it ended before its time."""
        plan = self.folder / f"plan{self.tries}.json"
        leave_out = self.leave_out + [test.replace("[", "[[]") for test in done]
        content = {"module": self.module, "leave_out": leave_out, "only": only}
        plan.write_text(json.dumps({**content, "out": str(self.out)}))
        return self.served(plan) if self.place in CARRIERS else self.plain(plan)

    def silent(self) -> bool:
        """Whether nothing has begun or ended for HANG_S."""
        return time.time() - self.out.stat().st_mtime > HANG_S

    def plain(self, plan: Path) -> str | None:
        with (self.folder / "plain.out").open("ab") as output:
            command = [sys.executable, RUNNER, plan, self.place]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
            while True:
                try:
                    status = process.wait(0.2)
                    return None if status == 0 else f"the process ended with {status}"
                except subprocess.TimeoutExpired:
                    if self.silent():
                        process.kill()
                        process.wait()
                        return f"no end after {HANG_S:.0f} s"

    def served(self, plan: Path) -> str | None:
        folder = self.folder / f"server{self.tries}"
        folder.mkdir()
        # Lines about requests would come into the descriptors that test_subprocess exchanges.
        args = [*CARRIERS[self.place], "--disable-logging", "--wsgi-file", str(RUNNER)]
        server = Server(folder, args)
        server.check_fds = False  # what the suite keeps is its own
        server.start()
        answer: list[bytes] = []
        asker = threading.Thread(target=ask, args=(server, plan, answer), daemon=True)
        asker.start()
        why = None
        while asker.is_alive() and why is None:
            asker.join(0.1)
            if server.process.poll() is not None:
                why = f"the server ended with {server.process.returncode}: {tail(server.log)}"
            elif self.silent():
                why = f"no end after {HANG_S:.0f} s"
                stacks(server)
            else:
                self.longest = max(self.longest, self.ping(server))
        if why is None:
            why = check_answer(answer, self.out)
        self.end(server, why)
        return why

    def ping(self, server: Server) -> float:
        start = time.monotonic()
        try:
            body = server.get("/ping", timeout_s=HANG_S).body
            if body != b"pong":
                self.notes.append(f"/ping: another answer: {body!r}")
        except (OSError, AssertionError) as error:
            if server.process.poll() is None:
                self.notes.append(f"/ping: {error!r}")
        return time.monotonic() - start

    def end(self, server: Server, why: str | None) -> None:
        """Stops it, and takes over what the harness finds wrong with its end."""
        if why is not None:
            if server.process.poll() is None:
                server.process.kill()
            server.expected_status = None
            server.finish()
            return
        # Warnings in the log are the suite's own (unraisable exceptions, resources).
        for problem in server.finish():
            if not problem.startswith("unexpected in the log"):
                self.notes.append(problem)
                if problem.startswith("exit status") or "did not stop" in problem:
                    self.results[f"{self.module} (the server's end)"] = ("failed", problem)


def ask(server: Server, plan: Path, answer: list[bytes]) -> None:
    head = f"GET /run?plan={plan} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    try:
        answer.append(server.raw(head.encode(), timeout_s=3600))
    except OSError:
        answer.append(b"")


def check_answer(answer: list[bytes], out: Path) -> str | None:
    """The request's own answer must be what its lines add up to."""
    try:
        response = parse_responses(answer[0])[-1]
        counts = json.loads(response.body)
    except (AssertionError, IndexError, ValueError) as error:
        return f"no answer: {error!r}: {answer[0][:1000]!r}"
    lines = [json.loads(line)["what"] for line in out.read_text().splitlines()]
    ends = [what for what in lines if what not in ("start", "stop")]
    same = response.status == 200 and counts == {what: ends.count(what) for what in set(ends)}
    return None if same else f"another answer than the lines: {response.status} {counts}"


def stacks(server: Server) -> None:
    """Leaves the stacks of a server that hangs beside its log, where py-spy or gdb are there."""
    for name, command in (
        ("py-spy.txt", ["py-spy", "dump", "--pid"]),
        ("gdb.txt", ["gdb", "-batch", "-ex", "thread apply all bt 40", "-p"]),
    ):
        try:
            done = subprocess.run(
                [*command, str(server.pid)], capture_output=True, timeout=60, check=False
            )
            (server.folder / name).write_bytes(done.stdout + done.stderr)
        except (OSError, subprocess.TimeoutExpired):
            pass


def tail(text: str) -> str:
    return text[-2000:]


def compare(folder: Path, module: str, carriers: list[str]) -> int:
    """One module everywhere; prints a line for each place. Returns how many tests fail for real."""
    plain = Run(folder / "plain" / module, "plain", module).go()
    passed = {test for test, (what, _) in plain.results.items() if what == "passed"}
    machine = failed(plain)
    say(f"{module:22} plain    {len(passed):4} passed, {len(machine)} fail on this machine")
    failures = check_list(folder, module, passed)
    for carrier in carriers:
        run = Run(folder / carrier / module, carrier, module).go()
        bad = failed(run) - machine
        first = dict(run.results)
        again = bad & set(plain.results)
        if again:
            run.go(again)
        still = failed(run) - machine
        # What was skipped, or never came, where plain Python runs it.
        seen = {test for test, (what, _) in run.results.items() if what in ("passed", "failed")}
        missing = {test for test in passed - seen if not listed(test)}
        failures += len(still | missing)
        good = sum(what == "passed" for what, _ in run.results.values())
        summary = f"{good:4} passed, {len(still | missing)} fail, {sum(map(listed, passed))} listed"
        say(f"{module:22} {carrier:8} {summary}; /ping took {run.longest:.2f} s at most")
        for test in sorted(still):
            say(f"  FAILS {test}\n" + indent(run.results[test][1]))
        for test in sorted(missing):
            say(f"  NOT RUN {test}: {run.results.get(test)}")
        for test in sorted(bad - still):
            say(f"  passes alone only: {test}\n" + indent(first[test][1]))
        for note in run.notes:
            say("  note: " + note)
    return failures


def check_list(folder: Path, module: str, passed: set[str]) -> int:
    """What is listed must fail in a thread of plain Python too. Returns how many do not."""
    wrong = {test for test in passed if listed(test)}
    # Some fail by chance only, when two threads meet in one way.
    for attempt in range(10):
        if wrong:
            run = Run(folder / "thread" / f"{module}.{attempt}", "thread", module).go(wrong)
            wrong -= failed(run)
    for test in sorted(wrong):
        say(f"  LISTED WITHOUT REASON {test}")
    return len(wrong)


def failed(run: Run) -> set[str]:
    return {test for test, (what, _) in run.results.items() if what == "failed"}


def indent(text: str) -> str:
    return "\n".join("      " + line for line in text.strip().splitlines()[-8:])


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="for logs; must not exist")
    parser.add_argument("--carriers", default=" ".join(CARRIERS))
    parser.add_argument("--modules", default=" ".join(MODULES))
    args = parser.parse_args()
    folder = args.folder.resolve()
    failures = sum(
        compare(folder, module, args.carriers.split()) for module in args.modules.split()
    )
    say(f"{failures} tests fail in a carrier and not in plain Python")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

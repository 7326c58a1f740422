# SPDX-License-Identifier: Apache-2.0
"""Runs tests of the standard library's own suite: as a program, or inside a request.

    python runner.py PLAN plain|thread     in plain Python: in its main thread, or in a bare one
    pelton --wsgi-file runner.py ...       GET /run?plan=PLAN does the same in a core

PLAN is a JSON file: ``module`` ("test_socket"), ``leave_out`` (patterns of test ids), ``only``
(test ids; empty is all), ``out`` (a file). Each test's beginning and end is a line of ``out`` at
once, so that what hangs or crashes has a name. drive.py writes plans and compares.
"""

from __future__ import annotations

import _thread
import fnmatch
import gc
import importlib
import json
import os
import sys
import threading  # noqa: F401
import time
import traceback
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

# Until 3.12 the thread that imports threading first is the main thread to it: hence its import.
# What the suite may use here; not "network" (hosts elsewhere), "walltime" or "largefile".
RESOURCES = ["cpu", "subprocess", "decimal"]


class Lines(unittest.TestResult):
    """Writes what happens to a file, a JSON object a line, and counts it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.out = open(path, "a", buffering=1)  # noqa: SIM115
        self.counts: Counter[str] = Counter()
        self.bad = False

    def close(self) -> None:
        self.out.close()

    def say(self, test: object, what: str, text: str = "") -> None:
        name = test.id() if isinstance(test, unittest.TestCase) else str(test)
        line = {"test": name, "what": what, "text": text[-4000:], "at": time.monotonic()}
        self.out.write(json.dumps(line) + "\n")

    def end(self, test: object, what: str, text: str = "") -> None:
        self.counts[what] += 1
        self.say(test, what, text)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.bad = False
        self.say(test, "start")

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self.say(test, "stop")

    def addSuccess(self, test: unittest.TestCase) -> None:
        if not self.bad:
            self.end(test, "passed")

    def addFailure(self, test, error) -> None:
        self.bad = True
        self.end(test, "failed", "".join(traceback.format_exception(*error)))

    def addError(self, test, error) -> None:
        # A class's or a module's set-up comes here as well, under a name such as "setUpClass (x)".
        self.addFailure(test, error)

    def addSubTest(self, test, subtest, error) -> None:
        if error is not None and not self.bad:
            self.addFailure(test, error)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.end(test, "skipped", reason)

    def addExpectedFailure(self, test, error) -> None:
        self.end(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.addFailure(test, (AssertionError, AssertionError("unexpected success"), None))


def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def run(plan_path: str) -> dict[str, int]:
    """What became of the plan's tests, counted."""
    with open(plan_path) as file:
        plan = json.load(file)
    from test import support  # the package is large, and a server's start needs nothing of it
    from test.support import os_helper

    support.use_resources = RESOURCES
    result = Lines(plan["out"])
    home = os.getcwd()
    try:
        with os_helper.temp_cwd(f"stdlib-{os.getpid()}"):
            module = importlib.import_module("test." + plan["module"])
            tests = flat(unittest.defaultTestLoader.loadTestsFromModule(module))
            chosen = unittest.TestSuite(
                test
                for test in tests
                if not any(fnmatch.fnmatchcase(test.id(), p) for p in plan["leave_out"])
                and (not plan["only"] or test.id() in plan["only"])
            )
            chosen.run(result)
    except unittest.SkipTest as skip:
        result.end("test." + plan["module"], "skipped", str(skip))
    finally:
        os.chdir(home)
        result.close()
        gc.collect()
    return dict(result.counts)


def application(environ: dict, start_response: Callable) -> list[bytes]:
    if environ["PATH_INFO"] == "/ping":
        body = b"pong"
    else:
        plan = parse_qs(environ["QUERY_STRING"])["plan"][0]
        body = json.dumps(run(plan)).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def run_in_thread(plan: str) -> dict[str, int]:
    """In a thread that threading has not made: so request's code looks to it on any such server."""
    results: list[dict[str, int]] = []
    done = _thread.allocate_lock()
    done.acquire()

    def body() -> None:
        try:
            results.append(run(plan))
        finally:
            done.release()

    _thread.start_new_thread(body, ())
    done.acquire()
    return results[0]


if __name__ == "__main__":
    print(json.dumps((run if sys.argv[2] == "plain" else run_in_thread)(sys.argv[1])))

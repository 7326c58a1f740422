# SPDX-License-Identifier: Apache-2.0
"""Runs one module of CPython's test.test_asyncio and writes the outcome of each test, as JSON.

    one.py standard|pelton MODULE FILE

With ``pelton``, every name under which asyncio makes a loop means ``pelton.Loop``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import unittest
from asyncio import unix_events
from pathlib import Path


def put_pelton_in_place() -> None:
    import pelton

    class Loop(pelton.Loop):
        """Takes the selector that the tests of SelectorEventLoop bring, and has no use for it."""

        def __init__(self, selector=None):
            if selector is not None:
                selector.close()
            super().__init__()

    for module in (asyncio, unix_events):
        module.SelectorEventLoop = Loop
        if hasattr(module, "EventLoop"):
            module.EventLoop = Loop
    unix_events._UnixDefaultEventLoopPolicy._loop_factory = Loop


class Outcomes(unittest.TextTestResult):
    """Remembers how each test ended; one with a failed subtest has failed."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ended: dict[str, str] = {}

    def _end(self, test, outcome):
        name = getattr(test, "test_case", test).id().removeprefix("test.test_asyncio.")
        if self.ended.get(name) != "failed":
            self.ended[name] = outcome

    def addSuccess(self, test):
        super().addSuccess(test)
        self._end(test, "passed")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._end(test, "passed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._end(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._end(test, "skipped")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._end(test, "failed")

    def addError(self, test, err):
        super().addError(test, err)
        self._end(test, "failed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._end(test, "failed")


def main() -> None:
    which, module, out = sys.argv[1:]
    # A shell's background job begins with it ignored, and the tests of runners then wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if which == "pelton":
        put_pelton_in_place()
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.test_asyncio.{module}")
    result = unittest.TextTestRunner(resultclass=Outcomes, verbosity=0).run(suite)
    Path(out).write_text(json.dumps(result.ended))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Sums up what `tools/test` left in a folder: Meson's test logs and pytest's JUnit files.

A cmocka program counts with its cases; one that died without a summary counts as one failure.
The last line is ``N passed, N failed, N skipped``; the exit status is 1 when anything failed or
when nothing was run at all.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

CMOCKA = re.compile(r"^\[\s*(PASSED|FAILED|SKIPPED)\s*\] (\d+) test", re.MULTILINE)


def count_meson(path: Path) -> list[tuple[str, int, int, int]]:
    """One row for each test program of a Meson log (a JSON object a line)."""
    rows = []
    for line in path.read_text().splitlines():
        test = json.loads(line)
        text = test.get("stdout", "") + "\n" + test.get("stderr", "")
        seen = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
        for word, number in CMOCKA.findall(text):
            seen[word] += int(number)
        passed, failed, skipped = seen["PASSED"], seen["FAILED"], seen["SKIPPED"]
        if test["result"] == "SKIP":
            skipped = max(skipped, 1)
        elif test["result"] not in ("OK", "EXPECTEDFAIL"):
            failed = max(failed, 1)
        elif passed + failed + skipped == 0:
            passed = 1  # a program with no cases of its own, such as a simulation
        rows.append((test["name"].split()[-1], passed, failed, skipped))
    return rows


def count_junit(path: Path) -> tuple[str, int, int, int]:
    """One row for a pytest run. An error in a fixture's end is a failure of its test."""
    suite = next(ElementTree.parse(path).getroot().iter("testsuite"))
    failed, skipped, total = set(), set(), set()
    for case in suite.iter("testcase"):
        name = (case.get("classname"), case.get("name"))
        total.add(name)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
        elif case.find("skipped") is not None:
            skipped.add(name)
    skipped -= failed
    return path.stem, len(total - failed - skipped), len(failed), len(skipped)


def main(folder: str) -> int:
    rows = []
    for path in sorted(Path(folder).glob("testlog*.json")):
        rows += count_meson(path)
    rows += [count_junit(path) for path in sorted(Path(folder).glob("pytest-*.xml"))]
    for path in sorted(Path(folder).glob("*.count")):
        name, *numbers = path.read_text().split()
        rows.append((name, *map(int, numbers)))
    print()
    for name, passed, failed, skipped in rows:
        print(f"{name:32} {passed:6} passed {failed:4} failed {skipped:4} skipped")
    passed, failed, skipped = (sum(row[i] for row in rows) for i in (1, 2, 3))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

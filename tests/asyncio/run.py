# SPDX-License-Identifier: Apache-2.0
"""make test-asyncio: CPython's own tests of asyncio on both loops, pelton's and its own.

Every module of test.test_asyncio, but those for Windows, is run with both on this machine. A test
that passes with the standard library's has to pass with Pelton's, or to stand in exceptions.txt
with its reason; one that stands there and passes is said, too, and is a failure of that file.

    run.py [--modules test_events,test_tasks] [--jobs 2] [--log FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMIT_S = 900
NOT_FOR_US = ("windows", "proactor")


def modules() -> list[str]:
    import test.test_asyncio

    folder = Path(test.test_asyncio.__file__).parent
    names = sorted(path.stem for path in folder.glob("test_*.py"))
    return [name for name in names if not any(word in name for word in NOT_FOR_US)]


def exceptions() -> dict[str, str]:
    """The names of the tests that may fail on this interpreter, and why."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = {}
    for line in (HERE / "exceptions.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        versions, name, reason = line.split(None, 2)
        if versions == "all" or version in versions.split(","):
            found[name] = reason
    return found


def run(which: str, module: str, log: Path) -> dict[str, str]:
    out = log / f"{which}-{module}.json"
    out.unlink(missing_ok=True)
    with open(log / f"{which}-{module}.log", "wb") as text:
        try:
            status = subprocess.run(
                [sys.executable, "-P", str(HERE / "one.py"), which, module, str(out)],
                stdin=subprocess.DEVNULL,
                stdout=text,
                stderr=text,
                cwd=log,
                timeout=LIMIT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = f"no end after {LIMIT_S} seconds"
    if out.exists() and status == 0:
        return json.loads(out.read_text())
    return {f"{module}: {status}": "failed"}


def compare(standard: dict[str, str], pelton: dict[str, str], allowed: dict[str, str]) -> list[str]:
    """What is wrong, a line each."""
    wrong = []
    for name, outcome in sorted({**dict.fromkeys(standard, "not run"), **pelton}.items()):
        expected = standard.get(name, "not run")
        if outcome == "passed" and name in allowed:
            wrong.append(f"{name} passes: exceptions.txt says that it doesn't")
        elif outcome not in (expected, "passed") and name not in allowed:
            wrong.append(f"{name} {outcome}; with the standard library's loop: {expected}")
    return wrong


def text(outcomes: dict[str, str]) -> str:
    counts = Counter(outcomes.values())
    return ", ".join(f"{counts[word]} {word}" for word in ("passed", "failed", "skipped"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--modules", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    chosen = options.modules.split(",") if options.modules else modules()
    log = options.log or Path(tempfile.mkdtemp(prefix="test-asyncio-"))
    log.mkdir(parents=True, exist_ok=True)
    log = log.resolve()
    jobs = [(which, module) for module in chosen for which in ("standard", "pelton")]
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda job: run(*job, log), jobs))
    both: dict[str, dict[str, str]] = {"standard": {}, "pelton": {}}
    for (which, _), outcomes in zip(jobs, results, strict=True):
        both[which].update(outcomes)
    allowed = {n: why for n, why in exceptions().items() if n.split(".")[0] in chosen}
    wrong = compare(both["standard"], both["pelton"], allowed)
    for name in sorted(allowed):
        print(f"exception: {name}: {allowed[name]}")
    for line in wrong:
        print(f"WRONG: {line}")
    print(f"the standard library's loop: {text(both['standard'])}")
    print(f"pelton.Loop: {text(both['pelton'])}, {len(wrong)} wrong (logs: {log})")
    return 1 if wrong or not both["pelton"] else 0


if __name__ == "__main__":
    sys.exit(main())

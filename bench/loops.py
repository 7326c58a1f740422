# SPDX-License-Identifier: Apache-2.0
"""What asyncio event loops cost, in user instructions an operation, by callgrind.

bench/apps/loops.py does one case so many times; a smaller count is taken off a larger one, so that
the start and the connections cancel out. Both ends of an echo are in the figure.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measure import Book
from servers import PEERS, PELTON, ROOT
from serving import BenchError

PROGRAM = ROOT / "bench" / "apps" / "loops.py"
TIMEOUT_S = 300
SMALL = ("call_soon", "call_later", "sleep")
CASES = (*SMALL, "protocol", "buffered", "streams", "sock", "accept", "tls")
SUMMARY = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Loop:
    """A row: its name, what bench/apps/loops.py calls it, and whose Python has it."""

    name: str
    argument: str
    python: Path

    def missing(self) -> str:
        """Why it can't be measured here; empty when it can."""
        if not self.python.exists():
            return f"{self.python} is not there"
        done = subprocess.run(
            [self.python, "-I", "-c", f"import {self.argument}"],
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stderr.strip().rpartition("\n")[2]
        return f"{self.argument} did not install ({said})" if done.returncode else ""


LOOPS = (
    Loop("pelton.Loop", "pelton", PELTON / "python"),
    Loop("uvloop", "uvloop", PEERS / "python"),
    Loop("rloop", "rloop", PEERS / "python"),
    Loop("asyncio", "asyncio", PEERS / "python"),
)
OWN = LOOPS[0].name


def certificate(folder: Path) -> None:
    done = subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-keyout key.pem -out cert.pem".split(),
        cwd=folder,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise BenchError("openssl made no certificate")


def count(loop: Loop, case: str, times: int, folder: Path) -> int:
    """Instructions of the whole process."""
    out = folder / "callgrind.out"
    out.unlink(missing_ok=True)
    argv = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
    argv += [str(loop.python), "-I", str(PROGRAM), loop.argument, case, str(times), str(folder)]
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"no end after {TIMEOUT_S} s") from None
    found = SUMMARY.search(out.read_text()) if out.exists() else None
    if done.returncode or not found or "Traceback" in done.stderr:
        said = done.stderr.strip().rpartition("\n")[2]
        raise BenchError(f"status {done.returncode} ({said})")
    return int(found[1])


def loop_case(loop: Loop, case: str, counts: tuple[int, int], book: Book) -> None:
    """One figure."""
    fewer, more = counts
    with tempfile.TemporaryDirectory(prefix="pelton-bench-") as name:
        folder = Path(name)
        try:
            if case == "tls":
                certificate(folder)
            difference = count(loop, case, more, folder) - count(loop, case, fewer, folder)
        except BenchError as error:
            book.fail(loop.name, f"{case}: {error}")
            return
    book.add(loop.name, **{f"loop_{case}": difference / (more - fewer)})


def against_best(case: str) -> Callable[[Book], float | None]:
    """Pelton's figure in terms of the best other loop's."""

    def take(book: Book) -> float | None:
        own = book.figure(OWN, f"loop_{case}")
        others = [book.figure(loop.name, f"loop_{case}") for loop in LOOPS[1:]]
        found = [value for value in others if value is not None]
        return own / min(found) if own is not None and found else None

    return take

# SPDX-License-Identifier: Apache-2.0
"""Runs each simulation program of a folder: HISTORIES in chunks, two chunks at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 20_000  # histories a process; short enough for progress to be seen
JOBS = 2
CHUNK_TIMEOUT_S = 1800


def run_chunk(program: Path, seed: int, histories: int) -> tuple[int, str]:
    """The program's exit status and all that it printed."""
    argv = [str(program), "--seed", str(seed), "--histories", str(histories)]
    try:
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CHUNK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"{' '.join(argv)}: no end after {CHUNK_TIMEOUT_S} s\n"
    return done.returncode, done.stdout.decode(errors="replace")


def run_program(program: Path, histories: int, seed: int) -> bool:
    """True when every history of the program held."""
    started = time.monotonic()
    chunks = [(seed + at, min(CHUNK, histories - at)) for at in range(0, histories, CHUNK)]
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = [(chunk, pool.submit(run_chunk, program, *chunk)) for chunk in chunks]
        for (first, count), job in jobs:
            status, text = job.result()
            if status != 0:
                for _, later in jobs:
                    later.cancel()
                print(text, end="")
                print(f"{program.name}: failed within --seed {first} --histories {count}")
                return False
    took = time.monotonic() - started
    print(f"{program.name}: {histories} histories from seed {seed} held ({took:.0f} s)")
    return True


def main(folder: str, histories: str, seed: str) -> int:
    programs = [
        path
        for path in sorted(Path(folder).glob("sim_*"))
        if path.is_file() and os.access(path, os.X_OK)
    ]
    if not programs:
        print(f"no simulation program in {folder}")
        return 1
    held = [run_program(program, int(histories), int(seed)) for program in programs]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))

# SPDX-License-Identifier: Apache-2.0
"""How much of the machine went to others while something was measured."""

from __future__ import annotations

import os
from pathlib import Path

IDLE = slice(3, 5)  # idle and iowait, of /proc/stat's first line
COUNTED = 8  # guests are counted in user time already


def ticks(text: str) -> tuple[int, int]:
    """All ticks of all processors since boot, and those in which they had something to do."""
    values = [int(value) for value in text.splitlines()[0].split()[1 : 1 + COUNTED]]
    return sum(values), sum(values) - sum(values[IDLE])


def own_ticks() -> float:
    """Of this process and of what it started and has seen end."""
    times = os.times()
    seconds = times.user + times.system + times.children_user + times.children_system
    return seconds * os.sysconf("SC_CLK_TCK")


def take_precedence(pid: int, nice: int) -> None:
    """NICE for a process and what it will start; for its session, too, where sessions have groups.

    With the kernel's autogroups a process's own niceness counts within its session only.
    """
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        group.write_text(str(nice))


class Others:
    """From here to share(): the part of the processors' time that others took, 0 to 1.

    A server counts when it has ended, and a worker of it when its parent has waited for it.
    """

    def __init__(self) -> None:
        self.start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return (*ticks(Path("/proc/stat").read_text()), own_ticks())

    def share(self) -> float:
        total, busy, own = (b - a for a, b in zip(self.start, self._now(), strict=True))
        return max(0.0, busy - own) / total if total else 0.0

# SPDX-License-Identifier: Apache-2.0
"""bench/: what is read of other programs' output, how ratios and verdicts are made of it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import loads  # noqa: E402
import loops  # noqa: E402
import machine  # noqa: E402
import patching  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402
import serving  # noqa: E402
import verdicts  # noqa: E402
from measure import Book  # noqa: E402


def test_load_prints_requests_per_second_and_latencies() -> None:
    text = "requests=3000 errors=0 seconds=0.977 rps=3069"
    assert loads.read_load(text + "\n") == {"rps": 3069.0}
    text += " p50=129.87 p99=623.25 max=655.27\n"
    assert loads.read_load(text) == {
        "rps": 3069.0,
        "p50_ms": 129.87,
        "p99_ms": 623.25,
        "max_ms": 655.27,
    }


@pytest.mark.parametrize("text", ["", "requests=9 errors=1 seconds=0.1 rps=90\n", "usage: load"])
def test_a_load_with_errors_is_no_measurement(text: str) -> None:
    with pytest.raises(serving.BenchError):
        loads.read_load(text)


AB = "Complete requests:      10\nFailed requests:        {}\nRequests per second:    {} [#/sec]\n"


def test_ab_is_read_and_failures_end_it() -> None:
    assert loads.read_ab(AB.format(0, "812.5")) == 812.5
    with pytest.raises(serving.BenchError, match="3 failed"):
        loads.read_ab(AB.format(3, "812.5"))
    with pytest.raises(serving.BenchError):
        loads.read_ab(AB.format(0, "812.5") + "Non-2xx responses:      10\n")
    with pytest.raises(serving.BenchError):
        loads.read_ab("apr_socket_recv: Connection refused")


def test_a_ratio_is_of_the_same_rounds() -> None:
    book = Book()
    # A machine that becomes three times slower meanwhile, and one round that was disturbed.
    for slow, disturbed in ((1, 1), (2, 1), (3, 10)):
        book.add("one", cpu_us=30.0 * slow * disturbed)
        book.add("other", cpu_us=10.0 * slow)
    book.add("one", rps=1.0)
    assert book.ratio("one", "other", "cpu_us") == 3.0
    assert book.figure("one", "cpu_us") == 60.0
    assert book.ratio("one", "nobody", "cpu_us") is None
    assert book.ratio("one", "other", "rps") is None
    book.add("one", cpu_us=30.0)
    assert book.ratio("one", "other", "cpu_us") == 45.0 / 20.0  # the medians'


@pytest.mark.parametrize(
    ("sense", "value", "word"),
    [
        (verdicts.AT_MOST, 7000.0, "met"),
        (verdicts.AT_MOST, 7000.1, "NOT MET"),
        (verdicts.AT_LEAST, 7000.0, "met"),
        (verdicts.AT_LEAST, 6999.0, "NOT MET"),
    ],
)
def test_a_verdict(sense: str, value: float, word: str) -> None:
    book = Book()
    book.add("row", name=value)
    target = verdicts.Target("text", "part", verdicts.figure("row", "name"), sense, 7000)
    assert target.verdict(book) == (word, value)
    assert target.verdict(Book()) == ("not taken", None)


def test_the_delayed_programs_cpu_is_without_call_laters() -> None:
    book = Book()
    for slow in (1, 2):
        book.add("pelton, blocking", whole_cpu_us=20.0 * slow)
        book.add("pelton, delayed", whole_cpu_us=24.0 * slow)
    assert verdicts.delayed_cpu(book) is None
    book.add("call_later, pelton.Loop", call_later_us=3.0)
    assert verdicts.delayed_cpu(book) == pytest.approx(1.2 - 3.0 / 30.0)


def test_targets_name_rows_and_parts_that_exist() -> None:
    """A row that was given another name would be "not taken" for ever."""
    asked = set()

    class Asked(Book):
        def figure(self, row: str, name: str) -> float | None:
            asked.add(row)
            return super().figure(row, name)

        def ratio(self, over: str, under: str, name: str) -> float | None:
            asked.update((over, under))
            return super().ratio(over, under, name)

    for target in verdicts.TARGETS:
        assert target.verdict(Asked())[0] == "not taken"
    names = {row.name for row in servers.ROWS} | {"patching", "call_later, pelton.Loop"}
    names |= {servers.memory_row(carrier, 1).name for carrier in ("fibers", "threads")}
    names |= {loop.name for loop in loops.LOOPS}
    assert asked <= names
    assert len({row.name for row in servers.ROWS}) == len(servers.ROWS)
    taken = {part for parts, _, _ in report.TABLES for part in parts}
    assert {target.part for target in verdicts.TARGETS} <= taken


def test_the_report_says_what_was_left_out() -> None:
    book = Book()
    book.add("pelton inline", keep_alive_instructions=6141.0)
    book.fail("granian", "ended at start")
    facts = report.Facts({"instructions"}, ["bjoern: did not install"], {"instructions": 0.25}, 9)
    text = report.report(book, facts)
    assert "6,141" in text
    assert "granian: ended at start" in text
    assert "bjoern: did not install" in text
    assert "instructions 25%" in text
    assert "met        hello world, keep-alive: user instructions" in text
    assert "sleeping" not in text


def test_every_server_runs_one_process_without_an_access_log() -> None:
    for row in servers.ROWS:
        words = " ".join(row.argv)
        if "waiting" in row.takes or row.takes == servers.HELLO:
            if "uwsgi" in row.name or row.own:
                assert "--processes 1" in words
                assert "--disable-logging" in words or row.name == "pelton inline, log"
            assert "access-log" not in words
        assert "0.0.0.0" not in words


def test_kernel_counters_are_summed() -> None:
    text = "VmRSS:\t   12 kB\nVmPTE:\t 3 kB\nThreads:\t7\nVmRSSX:\t 100 kB\n"
    assert serving.status_kb(text, "VmRSS", "VmPTE") == 15
    assert serving.status_kb(text, "Threads") == 7
    assert machine.ticks("cpu  10 20 30 400 50 6 7 8 90 91\ncpu0 1\n") == (531, 81)


def test_the_process_clock_has_user_and_kernel_time() -> None:
    clock = serving.process_clock(os.getpid())
    own, right = time.clock_gettime_ns(clock), time.process_time_ns()
    for _ in range(20_000):
        os.stat("/")
    own, right = time.clock_gettime_ns(clock) - own, time.process_time_ns() - right
    assert 0.9 * right < own < 1.1 * right
    with pytest.raises(OSError, match="Invalid"):
        time.clock_gettime_ns(serving.process_clock(2**22 + 1))


def test_patching_lines() -> None:
    text = (
        "install_us=638.1 cpu_us=640.0 slots=16 images=14\n"
        "scan_us=2100.5 cpu_us=2000.0 slots=340 images=294\n"
    )
    assert patching.read(text) == {
        "install": {"us": 638.1, "cpu_us": 640.0, "slots": 16.0},
        "scan": {"us": 2100.5, "cpu_us": 2000.0, "slots": 340.0},
    }


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a compiler")
def test_the_libraries_are_of_the_size_that_is_said(tmp_path: Path) -> None:
    made = patching.make_libraries(tmp_path, 32)
    assert len({path.stat().st_ino for path in made}) == 32
    drivers = [path for path in made if "driver" in path.name]
    assert len(drivers) == 32 // patching.DRIVERS_IN
    assert sum("now" in path.name for path in made) == 16
    text = subprocess.run(
        ["readelf", "-rW", made[0]], capture_output=True, text=True, check=True
    ).stdout
    assert 850 < sum(" R_X86_64_" in line for line in text.splitlines()) < 950
    assert {"nanosleep", "recv", "sem_post"} <= set(text.replace("@", " ").split())

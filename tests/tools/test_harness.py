# SPDX-License-Identifier: Apache-2.0
"""The harness of tests/serve, tried on a server that does one thing wrong at a time."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("harness", HERE.parent / "serve" / "harness.py")
harness = importlib.util.module_from_spec(spec)
sys.modules["harness"] = harness
spec.loader.exec_module(harness)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], harness.Server]:
    monkeypatch.setenv("PELTON_TEST_SERVER", f"{sys.executable} {HERE / 'fake_server.py'}")
    monkeypatch.setattr(harness, "SETTLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(harness, "STOP_TIMEOUT_S", 2.0)
    harness.become_subreaper()

    def start(fault: str) -> harness.Server:
        return harness.Server(tmp_path, env={"FAKE": fault, "LD_PRELOAD": None}).start()

    return start


def test_a_server_without_fault(fake: Callable[[str], harness.Server]) -> None:
    server = fake("")
    answer = server.get("/")
    assert (answer.status, answer.body) == (200, b"Hello World")
    assert answer["content-length"] == "11"
    assert server.pids() == [server.pid]
    assert server.workers() == []
    assert server.finish() == []
    assert server.status == 0


def test_ready_means_the_line_in_the_log_too(fake: Callable[[str], harness.Server]) -> None:
    server = fake("late")
    assert f":{server.port}" in server.log
    assert server.finish() == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("leak", "stayed open: {'pipe': 2}"),
        ("alert", "something is odd"),
        ("traceback", "ValueError: no"),
        ("exit", "exit status 3, expected 0"),
        ("child", "was left over: sleep 60"),
        ("daemon", "was left over: sleep 60"),
        ("report", "heap-use-after-free"),
    ],
)
def test_each_fault_is_found(fake: Callable[[str], harness.Server], fault: str, said: str) -> None:
    server = fake(fault)
    assert server.get("/").status == 200
    if fault == "leak":
        assert server.get("/").status == 200  # two pipes: four descriptors less two
        server.allow_fds("pipe", 2)
    problems = server.finish()
    assert len(problems) == 1
    assert said in problems[0]
    assert server.pids() == []


def test_a_server_that_does_not_stop(
    fake: Callable[[str], harness.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fake("deaf")
    monkeypatch.setattr(server, "stop", lambda: type(server).stop(server, timeout_s=0.5))
    assert server.finish() == ["did not stop within 2.0 s of SIGTERM"]


@pytest.mark.parametrize(
    ("args", "more", "said"),
    [
        (["--async", "4"], {}, [str(harness.LOG_BLOCKING_MS)]),
        (["--asyncio=4"], {}, [str(harness.LOG_BLOCKING_MS)]),
        (["--async", "4", "--log-blocking", "50"], {}, ["50"]),
        (["--async", "4"], {"fibers": False}, []),
        (["app:app"], {"fibers": True}, [str(harness.LOG_BLOCKING_MS)]),
        (["--threads", "4"], {}, []),
    ],
)
def test_fibers_may_hold_the_loop_for_as_long_as_the_test_says(
    tmp_path: Path, args: list[str], more: dict[str, bool], said: list[str]
) -> None:
    server = harness.Server(tmp_path, args, listen=False, **more)
    found = [server.args[i + 1] for i, arg in enumerate(server.args) if arg == "--log-blocking"]
    assert found == said


def test_no_report_of_a_held_loop_is_tolerated(fake: Callable[[str], harness.Server]) -> None:
    server = fake("held")
    server.get("/")
    problems = server.finish()
    assert len(problems) == 1
    assert "has kept the loop waiting" in problems[0]


def test_an_alert_that_the_test_expects(fake: Callable[[str], harness.Server]) -> None:
    server = fake("alert")
    server.expect_log("something is odd")
    server.get("/")
    assert server.finish() == []


def test_an_expected_alert_that_never_came(fake: Callable[[str], harness.Server]) -> None:
    server = fake("")
    server.expect_log("something is odd")
    assert server.finish() == ["expected in the log, but not found: something is odd"]


LOG = """\
[2026-01-31 10:00:00 +0000] [7] [info] serving app on :80, error pages on
127.0.0.1 "GET /Traceback/error HTTP/1.1" 200
[2026-01-31 10:00:00 +0000] [7] [error] the application raised an exception
Traceback (most recent call last):
  File "a.py", line 1, in f
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
ValueError: no
0:zero
"""


def test_a_chained_traceback_is_one_alert_with_the_line_before_it() -> None:
    problems = harness.log_problems(LOG, [])
    assert len(problems) == 1
    assert "the application raised" in problems[0]
    assert "ValueError: no" in problems[0]
    assert "0:zero" not in problems[0]
    assert harness.log_problems(LOG, [("KeyError", True)]) == []


def test_responses_are_parsed_strictly() -> None:
    wire = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        b"HTTP/1.0 404 Not Found\r\nA: 1\r\nA: 2\r\n\r\nto the end"
    )
    found = harness.parse_responses(wire, ["GET", "HEAD", "GET"])
    assert [answer.status for answer in found] == [100, 200, 200, 404]
    assert found[1].body == b"abc"
    assert found[1].trailers == [("X-Sum", "1")]
    assert found[3].all("a") == ["1", "2"]
    assert found[3].body == b"to the end"
    with pytest.raises(AssertionError):
        harness.parse_responses(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")

# SPDX-License-Identifier: Apache-2.0
"""The process tree: manager, generation, workers; who starts whom again, and when nobody does."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import SLOW, Server, server_command, wait_until

APP = """
import os
print("loaded in", os.getpid(), flush=True)

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {os.getppid()} {environ['wsgi.multiprocess']}".encode()]
"""

Serve = Callable[..., Server]


def settle(server: Server, workers: int) -> None:
    """Until every worker has said that it is ready, and the tree as a whole serves."""
    wait_until(lambda: server.log.count("is ready: pid") >= workers, 10 * SLOW)
    server.wait_log("serving webapp.py at")


def ready_pids(server: Server) -> list[int]:
    return [int(pid) for pid in re.findall(r"worker \d+ is ready: pid (\d+)", server.log)]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_tree(serve: Serve) -> None:
    server = serve("--processes", "3", app=APP)
    settle(server, 3)
    workers = ready_pids(server)
    generation = parent(workers[0])
    assert [parent(pid) for pid in workers] == [generation] * 3
    assert parent(generation) == server.pid
    assert sorted(server.pids()) == sorted([server.pid, generation, *workers])
    pid, above, multiprocess = server.get().body.decode().split()
    assert int(pid) in workers
    assert int(above) == generation
    assert multiprocess == "True"


def test_one_process_without_a_master(serve: Serve) -> None:
    server = serve(app=APP)
    assert server.pids() == [server.pid]
    assert server.get().body.decode().endswith("False")


def test_a_master_for_one_process(serve: Serve) -> None:
    server = serve("--master", app=APP)
    settle(server, 1)
    assert len(server.pids()) == 3


def test_the_application_is_loaded_once(serve: Serve) -> None:
    server = serve("--processes", "3", app=APP)
    settle(server, 3)
    assert re.findall(r"loaded in (\d+)$", server.log, re.MULTILINE) == [
        str(parent(ready_pids(server)[0]))
    ]


def test_memory_that_was_loaded_once_stays_shared(serve: Serve) -> None:
    """The collector of a worker leaves alone what lived before the fork (gc.freeze)."""
    app = """
    import gc

    def application(environ, start_response):
        start_response("200 OK", [])
        return [str(gc.get_freeze_count()).encode()]
    """
    # 3.12 has some hundreds from its own start on.
    own = subprocess.run(
        [sys.executable, "-c", "import gc; print(gc.get_freeze_count())"],
        check=True,
        capture_output=True,
    )
    lazy = int(serve("--processes", "2", "--lazy-apps", app=app).get().body)
    assert lazy <= int(own.stdout)
    assert int(serve("--processes", "2", app=app).get().body) > lazy + 1000


def test_lazy_apps_are_loaded_in_each_worker(serve: Serve) -> None:
    server = serve("--processes", "3", "--lazy-apps", app=APP)
    settle(server, 3)
    loaded = re.findall(r"loaded in (\d+)$", server.log, re.MULTILINE)
    assert sorted(map(int, loaded)) == sorted(ready_pids(server))


def test_hooks_around_fork_run(serve: Serve) -> None:
    app = """
import os, random
calls = []
os.register_at_fork(before=lambda: calls.append("before"),
                    after_in_child=lambda: calls.append("child"),
                    after_in_parent=lambda: calls.append("parent"))

def application(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(calls[-2:]).encode()]
"""
    server = serve("--processes", "2", app=app)
    settle(server, 2)
    assert server.get().body == b"before child"


def test_workers_do_not_share_randomness(serve: Serve) -> None:
    app = "import random\n" + APP.replace(
        'return [f"{os.getpid()}', 'return [f"{random.random()} {os.getpid()}'
    )
    server = serve("--processes", "2", app=app)
    settle(server, 2)
    numbers = {server.get().body.split()[0] for _ in range(20)}
    assert len(numbers) == 20


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["once", "lazy"])
def test_a_killed_worker_is_replaced(serve: Serve, lazy: tuple[str, ...]) -> None:
    server = serve("--processes", "2", *lazy, app=APP)
    server.expect_log(r"worker \d \(pid \d+\) was killed by SIGKILL after \d+ requests; the next")
    settle(server, 2)
    victim, other = ready_pids(server)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(ready_pids(server)) == 3, 10 * SLOW)
    assert server.get().status == 200
    assert Path(f"/proc/{other}").exists()
    # It was the last one with its number, and the new one has the same.
    numbers = re.findall(r"worker (\d+) is ready: pid (\d+)", server.log)
    assert {pid: n for n, pid in numbers}[str(victim)] == numbers[2][0]


def test_requests_go_on_while_a_worker_is_replaced(serve: Serve) -> None:
    server = serve("--processes", "2", app=APP)
    server.expect_log("was killed by SIGKILL")
    settle(server, 2)
    os.kill(ready_pids(server)[0], signal.SIGKILL)
    for _ in range(50):
        assert server.get().status == 200


def test_a_killed_generation_is_replaced(serve: Serve) -> None:
    server = serve("--processes", "2", app=APP)
    server.expect_log(r"generation 1 \(pid \d+\) was killed by SIGKILL")
    settle(server, 2)
    old = ready_pids(server)
    os.kill(parent(old[0]), signal.SIGKILL)
    wait_until(lambda: len(ready_pids(server)) == 4, 10 * SLOW)
    # Its workers lost their parent, and leave by themselves.
    wait_until(lambda: not set(old) & set(server.pids()), 5 * SLOW)
    assert server.get().status == 200


def test_nothing_outlives_a_killed_manager(serve: Serve) -> None:
    server = serve("--processes", "2", app=APP)
    settle(server, 2)
    server.expected_status = -signal.SIGKILL
    rest = [pid for pid in server.pids() if pid != server.pid]
    server.kill(signal.SIGKILL)
    server.wait()
    wait_until(lambda: not set(rest) & set(server.pids()), 10 * SLOW)


DIES = """
import os

def application(environ, start_response):
    if environ["PATH_INFO"] == "/die":
        os._exit(7)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def test_a_worker_that_ends_is_replaced_with_back_off(serve: Serve) -> None:
    server = serve("--master", "--respawn-delay", "0.1", "--respawn-delay-max", "0.2", app=DIES)
    for delay in (100, 200):
        server.expect_log(
            rf"ended with status 7 after \d+ requests; the next one starts in {delay}"
        )
    for count in range(1, 4):
        wait_until(lambda: server.log.count("is ready: pid") == count, 10 * SLOW)  # noqa: B023
        server.raw(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n", allow_reset=True)
    wait_until(lambda: server.log.count("is ready: pid") == 4, 10 * SLOW)
    assert server.log.count("starts in 200 ms") == 2
    assert server.get().status == 200


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["once", "lazy"])
def test_a_broken_application_is_not_tried_again(serve: Serve, lazy: tuple[str, ...]) -> None:
    app = "print('loading', flush=True)\n1 / 0\n"
    server = serve("--processes", "2", *lazy, app=app, spawn_only=True)
    server.expect_log("ZeroDivisionError")
    server.expected_status = 3
    assert server.wait(10 * SLOW) == 3
    assert server.log.count("loading") <= (2 if lazy else 1)


def test_an_application_that_breaks_later_leaves_the_others(serve: Serve) -> None:
    app = """
import os
if os.path.exists("broken"):
    raise ValueError("broken by now")

def application(environ, start_response):
    start_response("200 OK", [])
    return [b"fine"]
"""
    server = serve("--processes", "2", "--lazy-apps", app=app)
    server.expect_log("was killed by SIGKILL")
    server.expect_log("broken by now")
    server.expect_log(r"ended with status 3 and is not started again; 1 of 2 are left")
    settle(server, 2)
    server.write("broken", b"")
    os.kill(ready_pids(server)[0], signal.SIGKILL)
    server.wait_log("is not started again")
    time.sleep(0.5 * SLOW)
    assert server.log.count("Traceback") == 1
    for _ in range(5):
        assert server.get().body == b"fine"


def test_threads_of_the_import_go_on_in_the_generation(serve: Serve) -> None:
    app = """
import os, threading, time

def tick():
    while True:
        time.sleep(0.05)
        with open("ticks", "a") as file:
            file.write(f"{os.getpid()}\\n")

threading.Thread(target=tick, daemon=True).start()
""" + APP.replace("import os\n", "")
    server = serve("--processes", "2", app=app)
    settle(server, 2)
    time.sleep(0.4 * SLOW)
    ticks = set((server.folder / "ticks").read_text().split())
    assert ticks == {str(parent(ready_pids(server)[0]))}


def test_unix_sockets_are_removed_by_their_maker_only(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    server = serve("--processes", "2", "--bind", path, app=APP, ready="unix:")
    server.address = str(path)
    server.expect_log("was killed by SIGKILL")
    settle(server, 2)
    os.kill(ready_pids(server)[0], signal.SIGTERM)
    os.kill(ready_pids(server)[1], signal.SIGKILL)
    wait_until(lambda: len(ready_pids(server)) == 4, 10 * SLOW)
    server.expect_log(r"ended with status 0 after \d+ requests")
    assert path.exists()
    assert server.get().status == 200
    assert server.stop() == 0
    assert not path.exists()


def test_pid_1_reaps_everybodys_children(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container orphans come to the first process, which must not leave them as zombies."""
    inside = "unshare --pid --fork --mount-proc"
    if subprocess.run(f"{inside} true", shell=True, check=False, capture_output=True).returncode:
        pytest.skip("no PID namespace can be made here")
    monkeypatch.setenv("PELTON_TEST_SERVER", shlex.join([*inside.split(), *server_command()]))
    app = """
import os, subprocess

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/orphan":
        # The shell ends first, and what it started comes to PID 1.
        subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)
        return [b""]
    states = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{pid}/stat") as file:
            states.append(file.read().rpartition(")")[2].split()[0])
    return ["".join(states).encode()]
"""
    server = serve("--processes", "2", app=app)
    server.wait_log(r"manager is pid 1$")
    assert server.get("/orphan").status == 200
    time.sleep(0.6 * SLOW)
    assert b"Z" not in server.get("/").body
    first = next(pid for pid in server.pids() if pid != server.pid and parent(pid) == server.pid)
    os.kill(first, signal.SIGTERM)
    assert server.wait() == 0


AFFINITY_APP = """
import os, threading

def application(environ, start_response):
    found = []
    thread = threading.Thread(target=lambda: found.append(sorted(os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {sorted(os.sched_getaffinity(0))} {found[0]}".encode()]
"""


@pytest.mark.parametrize("master", [["--processes", "2"], ["--processes", "2", "--lazy-apps"], []])
def test_workers_are_bound_to_processors_in_turns(serve: Serve, master: list[str]) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    server = serve(*master, "--threads", "4", "--cpu-affinity", "1", app=AFFINITY_APP)
    workers = 2 if master else 1
    if master:
        settle(server, workers)
    said = dict(re.findall(r"worker (\d) runs on processor (\d+)\n", server.log))
    assert said == {str(i + 1): str(allowed[i % len(allowed)]) for i in range(workers)}
    _, own, of_a_thread = server.get().body.decode().replace(", ", ",").split()
    assert own == of_a_thread
    assert own in {f"[{processor}]" for processor in said.values()}


def test_more_processors_than_there_are(serve: Serve) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    server = serve("--cpu-affinity", "1000", app=AFFINITY_APP)
    assert str(allowed) in server.get().body.decode()

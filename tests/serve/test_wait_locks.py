# SPDX-License-Identifier: Apache-2.0
"""Locks, threads, processes, signals and locks of files, waited for in requests.

Each test sends N requests at once, and none of them can be answered before all of them are inside
the application: a wait that kept the others out would end as a time-out. Overlap is judged by how
many were inside at once, never by how long it took.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import CARRIERS, Server

Serve = Callable[..., Server]
N = 4

# /name?number calls name(number); what it returns is the answer, as JSON. all_in() comes back when
# N requests are inside; `most` is how many were at once in what `counted` guards.
HEAD = """
import contextlib, fcntl, json, os, queue, signal, sqlite3, subprocess, sys, threading, time

N = 4
present = inside = most = 0

def all_in():
    global present
    present += 1
    while present % N:
        time.sleep(0.002)

@contextlib.contextmanager
def counted():
    global inside, most
    inside += 1
    most = max(most, inside)
    yield
    inside -= 1

def application(environ, start_response):
    name, query = environ["PATH_INFO"][1:], environ["QUERY_STRING"]
    answer = json.dumps(globals()[name](int(query or 0))).encode()
    start_response("200 OK", [("Content-Type", "application/json"),
                              ("Content-Length", str(len(answer)))])
    return [answer]

def figures(_):
    global present, inside, most
    answer = [inside, most]
    inside = most = 0
    return answer
"""


@pytest.fixture(params=["threads", "fibers"])
def carrier(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The carriers in which cores wait. What a busy machine's disk or fork takes isn't judged."""
    return (*CARRIERS[request.param], "--log-blocking", "0")


def together(server: Server, name: str, count: int = N) -> list[object]:
    """The answers to COUNT requests that are sent at once, by number."""
    with ThreadPoolExecutor(count) as pool:
        responses = list(pool.map(lambda n: server.get(f"/{name}?{n}", timeout_s=20), range(count)))
    assert [response.status for response in responses] == [200] * count
    return [json.loads(response.body) for response in responses]


def figures(server: Server) -> list[int]:
    """How many are inside now, and how many were at most."""
    return json.loads(server.get("/figures").body)


# --- threading and queue ----------------------------------------------------------------------

PRIMITIVES = """
lock, rlock = threading.Lock(), threading.RLock()
condition, event, barrier = threading.Condition(), threading.Event(), threading.Barrier(N)
two = threading.BoundedSemaphore(2)
jobs, answers = queue.Queue(), queue.Queue(1)
told = 0

def by_lock(_):
    all_in()
    for _ in range(5):
        with lock, counted():
            time.sleep(0.002)
    return True

def by_rlock(_):
    all_in()
    for _ in range(5):
        with rlock, rlock, counted():
            with rlock:
                time.sleep(0.002)
            time.sleep(0.001)
    try:
        rlock.release()
    except RuntimeError:
        return True

def by_semaphore(_):
    all_in()
    for _ in range(3):
        with two, counted():
            time.sleep(0.005)
    return True

def by_condition(number):
    global told
    with condition:
        told += 1
        if told % N == 0:
            condition.notify_all()
        elif not condition.wait_for(lambda: told % N == 0, timeout=15):
            return False
    return True

def by_event(number):
    global present
    present += 1
    if present % N == 0:
        event.set()
    return event.wait(15)

def by_barrier(_):
    return sorted(barrier.wait(15) for _ in range(3)) is not None

def by_queue(number):
    # All but the last to come wait for it.
    global present
    present += 1
    if present % N:
        job = jobs.get(timeout=15)
        answers.put(job * 2)
        return job
    for job in range(N - 1):
        jobs.put(job)
    return sorted(answers.get(timeout=15) for _ in range(N - 1))

def in_time(number):
    all_in()
    mine = threading.Lock()
    mine.acquire()
    start = time.monotonic()
    late = mine.acquire(timeout=0.05)
    late = late or threading.Event().wait(0.05)
    condition = threading.Condition()
    with condition:
        late = late or condition.wait(0.05)
    try:
        queue.Queue().get(timeout=0.05)
    except queue.Empty:
        pass
    return [late, time.monotonic() - start >= 0.2]
"""


@pytest.mark.parametrize(
    ("name", "most"),
    [("by_lock", 1), ("by_rlock", 1), ("by_semaphore", 2)],
)
def test_locks_exclude(serve: Serve, carrier: tuple[str, ...], name: str, most: int) -> None:
    server = serve(*carrier, app=HEAD + PRIMITIVES)
    for _ in range(3):
        assert together(server, name) == [True] * N
        assert figures(server) == [0, most]


@pytest.mark.parametrize("name", ["by_condition", "by_event", "by_barrier"])
def test_requests_wait_for_each_other(serve: Serve, carrier: tuple[str, ...], name: str) -> None:
    server = serve(*carrier, app=HEAD + PRIMITIVES)
    for _ in range(3):
        assert together(server, name) == [True] * N


def test_a_queue_hands_over(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + PRIMITIVES)
    for _ in range(3):
        answers = together(server, "by_queue")
        assert sorted(a for a in answers if isinstance(a, int)) == [0, 1, 2]
        assert [a for a in answers if isinstance(a, list)] == [[0, 2, 4]]


def test_locks_time_out(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + PRIMITIVES)
    assert together(server, "in_time") == [[False, True]] * N


# --- Threads, processes, signals --------------------------------------------------------------

THREADS = """
from concurrent.futures import ThreadPoolExecutor, as_completed

def wait_for_all():
    global present
    while present % N:
        time.sleep(0.002)

def join(number):
    global present
    found = []
    def work():
        wait_for_all()
        found.append(number)
    thread = threading.Thread(target=work)
    present += 1
    thread.start()
    thread.join()
    return [found, thread.is_alive()]

def futures(number):
    global present
    with ThreadPoolExecutor(2) as pool:
        present += 1
        first = pool.submit(wait_for_all)
        more = [pool.submit(lambda x: x * x, x) for x in range(5)]
        return [first.result(), sorted(f.result() for f in as_completed(more))]
"""


def test_threads_are_joined(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + THREADS)
    for _ in range(3):
        assert together(server, "join") == [[[n], False] for n in range(N)]


def test_futures(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + THREADS)
    for _ in range(3):
        assert together(server, "futures") == [[None, [0, 1, 4, 9, 16]]] * N


PROCESSES = """
# Ends when all requests wait for theirs.
CHILD = "while [ ! -e go ]; do sleep 0.01; done; exit $0"

def go():
    global present
    present += 1
    if present == N:
        open("go", "w").close()

def start(number):
    return os.posix_spawn("/bin/sh", ["sh", "-c", CHILD, str(number)], os.environ)

def run(number):
    go()
    return subprocess.run(["/bin/sh", "-c", CHILD, str(number)]).returncode

def waitpid(number):
    pid = start(number)
    go()
    if number % 2:
        done, status = os.waitpid(pid, 0)
        return done == pid and os.waitstatus_to_exitcode(status)
    result = os.waitid(os.P_PID, pid, os.WEXITED)
    return result.si_pid == pid and result.si_status

def forked(number):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.01)
        os._exit(number + 20)
    all_in()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


@pytest.mark.parametrize("name", ["run", "waitpid"])
def test_children_are_waited_for(serve: Serve, carrier: tuple[str, ...], name: str) -> None:
    server = serve(*carrier, app=HEAD + PROCESSES)
    assert together(server, name) == list(range(N))


def test_forked_children(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + PROCESSES)
    for _ in range(3):
        assert together(server, "forked") == [20 + n for n in range(N)]


POOL = """
import multiprocessing

context = multiprocessing.get_context("fork")

def square(x):
    return x * x

def pool(number):
    all_in()
    with context.Pool(2) as pool:
        return pool.map(square, range(number, number + 5))

def shared_lock(number):
    # Held by a child until all requests wait for it: nobody in this process posts it.
    global present
    mine, held = context.Lock(), context.Event()
    def hold():
        with mine:
            held.set()
            time.sleep(0.1)
    child = context.Process(target=hold)
    child.start()
    held.wait()
    present += 1
    with mine:
        together = present
    child.join()
    return [child.exitcode, together]
"""


def test_multiprocessing_pools(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + POOL)
    assert together(server, "pool") == [[x * x for x in range(n, n + 5)] for n in range(N)]


def test_locks_of_processes(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + POOL)
    answers = together(server, "shared_lock")
    assert [status for status, _ in answers] == [0] * N
    assert max(count for _, count in answers) == N


SIGNALS = """
# Every thread of the worker comes from this one, and has its mask.
WANTED = [signal.SIGRTMIN + n for n in range(N)]
signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)
handled = []
known = threading.Event()

def handler(signo, frame):
    handled.append([signo, threading.current_thread() is threading.main_thread()])
    known.set()

signal.signal(signal.SIGUSR2, handler)

def taken(number):
    global present
    present += 1
    if present % N == 0:
        for signo in WANTED:
            os.kill(os.getpid(), signo)
    if number == 0:
        return signal.sigwait([WANTED[0]]) - signal.SIGRTMIN
    if number == 1:
        return signal.sigwaitinfo([WANTED[1]]).si_signo - signal.SIGRTMIN
    return signal.sigtimedwait([WANTED[number]], 15).si_signo - signal.SIGRTMIN

def in_vain(number):
    all_in()
    return signal.sigtimedwait([WANTED[number]], 0.05)

def at_home(number):
    all_in()
    if number == 0:
        os.kill(os.getpid(), signal.SIGUSR2)
    return known.wait(15) and handled
"""


def test_signals_are_taken_in_requests(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + SIGNALS)
    assert together(server, "in_vain") == [None] * N
    assert together(server, "taken") == list(range(N))


def test_handlers_run_at_home(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + SIGNALS)
    answers = together(server, "at_home")
    assert all(home for answer in answers for _, home in answer)
    assert answers[0]


# --- sqlite3, files ----------------------------------------------------------------------------

SQLITE = """
def create():
    with sqlite3.connect("shop.db", isolation_level=None) as db:
        db.execute("create table stock (pieces integer)")
        db.execute("insert into stock values (0)")

create()
shared = sqlite3.connect("shop.db", check_same_thread=False, isolation_level=None)

def probe():
    with counted():
        time.sleep(0.005)
        return 1

shared.create_function("probe", 0, probe)

def busy(number):
    # The owner of the database's lock is parked while the others' busy handlers sleep.
    db = sqlite3.connect("shop.db", timeout=15, isolation_level=None)
    all_in()
    for _ in range(3):
        db.execute("begin immediate")
        with counted():
            pieces, = db.execute("select pieces from stock").fetchone()
            time.sleep(0.01)
            db.execute("update stock set pieces = ?", (pieces + 1,))
        db.execute("commit")
    db.close()
    return True

def exclusive(number):
    all_in()
    return [shared.execute("select probe() + ?", (number,)).fetchone()[0] for _ in range(5)]

def shared_rows(number):
    all_in()
    for _ in range(20):
        shared.execute("update stock set pieces = pieces + 1")
    return True

def pieces(_):
    return shared.execute("select pieces from stock").fetchone()[0]
"""


def test_sqlite_waits_for_a_busy_database(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + SQLITE)
    assert together(server, "busy") == [True] * N
    assert figures(server) == [0, 1]
    assert json.loads(server.get("/pieces").body) == 3 * N


def test_a_shared_sqlite_connection(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + SQLITE)
    assert together(server, "shared_rows") == [True] * N
    assert json.loads(server.get("/pieces").body) == 20 * N


def test_a_shared_sqlite_connection_is_exclusive(serve: Serve) -> None:
    # sqlite's mutex is recursive and every fiber is the same thread to it. In threads CPython
    # itself hangs here, with any server: it takes that mutex with the GIL held.
    server = serve(*CARRIERS["fibers"], "--log-blocking", "0", app=HEAD + SQLITE)
    assert together(server, "exclusive") == [[1 + n] * 5 for n in range(N)]
    assert figures(server) == [0, 1]


FILES = """
def flock(number):
    all_in()
    with open("file", "a") as file:
        for _ in range(3):
            fcntl.flock(file, fcntl.LOCK_EX)
            with counted():
                time.sleep(0.005)
            fcntl.flock(file, fcntl.LOCK_UN)
    return True
"""


def test_flock_between_requests(serve: Serve, carrier: tuple[str, ...]) -> None:
    server = serve(*carrier, app=HEAD + FILES)
    assert together(server, "flock") == [True] * N
    assert figures(server) == [0, 1]


# --- A C library with locks of its own ----------------------------------------------------------

LIBRARY = """
#include <pthread.h>

static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int waiting;

/* Calls back into Python, which waits, with a lock held. */
int locked(int kind, int (*call)(int), int number)
{
    int result;
    if (kind == 0) {
        pthread_mutex_lock(&plain);
        result = call(number);
        pthread_mutex_unlock(&plain);
    } else if (kind == 1) {
        pthread_mutex_lock(&recursive);
        pthread_mutex_lock(&recursive);
        result = call(number);
        pthread_mutex_unlock(&recursive);
        pthread_mutex_unlock(&recursive);
    } else {
        pthread_rwlock_wrlock(&rwlock);
        result = call(number);
        pthread_rwlock_unlock(&rwlock);
    }
    return result;
}

/* Waits in C until COUNT have come, and then calls back. */
int meet(int count, int (*call)(int), int number)
{
    pthread_mutex_lock(&m);
    int mine = waiting++ / count;
    if (waiting % count == 0)
        pthread_cond_broadcast(&c);
    while (waiting / count == mine)
        pthread_cond_wait(&c, &m);
    pthread_mutex_unlock(&m);
    return call(number);
}
"""

DRIVER = """
import ctypes

library = ctypes.CDLL("./locks.so")
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
local = threading.local()

def callback(number):
    local.number = number
    me = threading.get_ident()
    @Callback
    def call(argument):
        with counted():
            time.sleep(0.003)
            return argument if local.number == number and threading.get_ident() == me else -1
    return call

def locked(number):
    call = callback(number)
    all_in()
    return [library.locked(kind, call, number) for kind in [0] * 3]

def recursive(number):
    call = callback(number)
    all_in()
    return [library.locked(kind, call, number) for kind in [1] * 3]

def written(number):
    call = callback(number)
    all_in()
    return [library.locked(kind, call, number) for kind in [2] * 3]

def meet(number):
    call = callback(number)
    return [library.meet(N, call, number) for _ in range(3)]
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A C library, built here."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "locks.c").write_text("#define _GNU_SOURCE\n" + LIBRARY)
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is needed, as for Pelton itself"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-pthread", "-o", "locks.so", "locks.c"],
        cwd=folder,
        check=True,
    )
    return (folder / "locks.so").read_bytes()


@pytest.mark.parametrize(
    ("name", "most"), [("locked", 1), ("recursive", 1), ("written", 1), ("meet", N)]
)
def test_a_library_calls_back_with_its_locks(
    serve: Serve, carrier: tuple[str, ...], library: bytes, name: str, most: int
) -> None:
    server = serve(*carrier, app=HEAD + DRIVER, files={"locks.so": library})
    for _ in range(2):
        assert together(server, name) == [[n] * 3 for n in range(N)]
        inside, seen = figures(server)
        assert inside == 0
        assert seen == 1 if most == 1 else seen > 1


KNOWN = """
import ctypes

def load(_):
    # Known by its file's name.
    return bool(ctypes.CDLL("./cygrpc.so"))
"""


def test_a_library_that_fibers_cannot_wait_in_is_named(
    serve: Serve, carrier: tuple[str, ...], library: bytes
) -> None:
    server = serve(*carrier, app=HEAD + KNOWN, files={"cygrpc.so": library})
    if "--async" in carrier:
        server.expect_log(r"\[warning\] .*cygrpc\.so keeps what waits for its locks by thread")
    assert together(server, "load") == [True] * N
    assert server.log.count("keeps what waits") == ("--async" in carrier)

# SPDX-License-Identifier: Apache-2.0
"""What waits without a server: sleeps, locks, queues, children, signals, callbacks, libraries.

The application counts who is inside, and /give lets all of them go on. Each cell's requests must be
inside together before that, with the application answering beside them.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

import pytest
from conftest import Matrix
from harness import SLOW

N = 8

APP = """
import concurrent.futures, logging, multiprocessing, queue, selectors, signal, socket, subprocess

N = 8
inside = 0

@contextlib.contextmanager
def being_inside():
    global inside
    with guard:
        inside += 1
    try:
        yield
    finally:
        with guard:
            inside -= 1

def waiting(_):
    return inside

"""

# --- The cells: each name's app begins all over, as what it waits with is used once -------------

SLEEP = """
def cell(n):
    with being_inside():
        start = time.monotonic()
        time.sleep(1.5)
        assert time.monotonic() - start >= 1.5
    return n

def give(_):
    pass
"""

LOCKS = """
# A chain: who has its lock lets the next one go on.
locks = [threading.Lock() for _ in range(N)]
for each in locks:
    each.acquire()

def cell(n):
    with being_inside():
        locks[n].acquire()
        if n + 1 < N:
            locks[n + 1].release()
    return n

def give(_):
    locks[0].release()
"""

RLOCK = """
mine, owners = threading.RLock(), []
free = threading.Event()

def cell(n):
    with being_inside():
        free.wait()
        with mine, mine:
            owners.append(n)
            time.sleep(0.01)
            with mine:
                assert owners.pop() == n and not owners
    return n

def give(_):
    free.set()
"""

EVENT = """
event = threading.Event()

def cell(n):
    with being_inside():
        return n if event.wait(60) else None

def give(_):
    event.set()
"""

SEMAPHORE = """
count = threading.Semaphore(0)

def cell(n):
    with being_inside():
        count.acquire()
    return n

def give(_):
    count.release(N)
"""

CONDITION = """
condition, told = threading.Condition(), set()

def cell(n):
    with being_inside(), condition:
        return n if condition.wait_for(lambda: n in told, timeout=60) else None

def give(_):
    for n in range(N):
        with condition:
            told.add(n)
            condition.notify_all()
"""

BARRIER = """
barrier = threading.Barrier(N + 1)

def cell(n):
    with being_inside():
        places = [barrier.wait(60) for _ in range(5)]
        assert all(0 <= place <= N for place in places)
    return n

def give(_):
    for _ in range(5):
        barrier.wait(60)
"""

QUEUE = """
queues = [queue.Queue(1) for _ in range(N + 1)]

def cell(n):
    with being_inside():
        for turn in range(20):
            queues[n + 1].put(queues[n].get(timeout=60))
    return n

def give(_):
    # Each queue has room for one: whoever puts waits as well.
    def feed():
        for turn in range(20):
            queues[0].put(turn)
    threading.Thread(target=feed).start()
    assert [queues[N].get(timeout=60) for _ in range(20)] == list(range(20))
"""

SIMPLE_QUEUE = """
first, last = queue.SimpleQueue(), queue.SimpleQueue()

def cell(n):
    with being_inside():
        last.put(first.get(timeout=60) ** 2)
    return n

def give(_):
    for n in range(N):
        first.put(n)
    assert sorted(last.get(timeout=60) for _ in range(N)) == [n * n for n in range(N)]
"""

# Children wait to open it for reading. It is opened for writing until all have been there.
GIVE_BY_FIFO = """
def give(_):
    def let_in():
        while inside:
            try:
                os.close(os.open("gate", os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                pass
            time.sleep(0.02)
    threading.Thread(target=let_in).start()
"""

SUBPROCESS = (
    """
CHILD = "import sys; data = sys.stdin.read(); print(data * 2, end=''); " \\
        "print('x' * 200000, file=sys.stderr); " \\
        "f = open('gate'); f.read()"
os.mkfifo("gate")

def cell(n):
    with being_inside():
        done = subprocess.run([sys.executable, "-S", "-c", CHILD], input=f"{n}", text=True,
                              capture_output=True, check=True)
    assert done.stderr == "x" * 200000 + "\\\\n"
    assert done.stdout == f"{n}{n}"
    return n
"""
    + GIVE_BY_FIFO
)

PIPES = """
pairs = [os.pipe() for _ in range(N)]

def cell(n):
    with being_inside():
        child = subprocess.Popen(["cat"], stdin=pairs[n][0], stdout=subprocess.PIPE)
        found = child.communicate(timeout=60)[0]
        assert child.returncode == 0
    return int(found)

def give(_):
    for n, (read, write) in enumerate(pairs):
        os.write(write, b"%d" % n)
        os.close(write)
        os.close(read)
"""

ASYNCIO = """
import asyncio
pairs = [socket.socketpair() for _ in range(N)]

def cell(n):
    async def work():
        reader, writer = await asyncio.open_connection(sock=pairs[n][0])
        async with asyncio.timeout(60):
            line = await reader.readline()
        results = await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(10)))
        assert results == list(range(10))
        assert await asyncio.to_thread(lambda: n) == n
        writer.close()
        return int(line)
    with being_inside():
        return asyncio.run(work())

def give(_):
    for n, (_, there) in enumerate(pairs):
        there.sendall(b"%d\\\\n" % n)
        there.close()
"""

CALLBACK = """
import contextvars, ctypes, decimal

library = ctypes.CDLL("./calls.so")
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
here, local = contextvars.ContextVar("here"), threading.local()
pairs = [os.pipe() for _ in range(N)]

def cell(n):
    me = threading.get_ident()
    here.set(n)
    local.n = n
    decimal.getcontext().prec = 10 + n
    thread, calls = threading.current_thread(), []

    @Callback
    def call(number):
        calls.append(number)
        assert (threading.get_ident(), here.get(), local.n) == (me, n, n)
        assert threading.current_thread() is thread and decimal.getcontext().prec == 10 + n
        time.sleep(0.002)  # waits in the callback as well
        return number + n

    with being_inside():
        found = library.wait_and_call(pairs[n][0], call, 100)
    assert calls == [100, 101, 102], calls
    return found - 102

def give(_):
    for read, write in pairs:
        os.write(write, b"x")
"""

LIBRARY = """
#include <poll.h>
#include <time.h>
#include <unistd.h>

/* Waits as a driver does, and calls back after each of its waits. */
int wait_and_call(int fd, int (*call)(int), int number)
{
    struct pollfd one = {fd, POLLIN, 0};
    struct timespec span = {0, 3000000};
    char byte;
    if (poll(&one, 1, 60000) != 1)
        return -1;
    call(number);
    if (read(fd, &byte, 1) != 1)
        return -2;
    nanosleep(&span, 0);
    call(number + 1);
    usleep(3000);
    return call(number + 2);
}
"""

HANDLER = """
came = threading.Event()
seen = []

def handler(signo, frame):
    seen.append(threading.current_thread() is threading.main_thread())
    came.set()

signal.signal(signal.SIGUSR2, handler)

def cell(n):
    # Some wait for what the handler does, others wait beside it and must not notice.
    with being_inside():
        start = time.monotonic()
        if n % 2:
            time.sleep(1.0)
            assert time.monotonic() - start >= 1.0
        came.wait(60)
    return n if seen and all(seen) else seen

def give(_):
    os.kill(os.getpid(), signal.SIGUSR2)
"""

SIGWAIT = """
WANTED = [signal.SIGRTMIN + n for n in range(N)]
signal.pthread_sigmask(signal.SIG_BLOCK, WANTED)  # every thread comes from this one

def cell(n):
    with being_inside():
        if n % 2:
            return signal.sigwait([WANTED[n]]) - signal.SIGRTMIN
        return signal.sigtimedwait([WANTED[n]], 60).si_signo - signal.SIGRTMIN

def give(_):
    for signo in WANTED:
        os.kill(os.getpid(), signo)
"""

FUTURES = """
jobs, opened = concurrent.futures.ThreadPoolExecutor(N), threading.Event()

def cell(n):
    slow = jobs.submit(opened.wait, 60)
    done, pending = concurrent.futures.wait([slow], timeout=0.01)
    assert not done and pending == {slow}
    with being_inside():
        assert slow.result(60) is True
        quick = [jobs.submit(pow, n, 2) for _ in range(5)]
        assert [f.result() for f in concurrent.futures.as_completed(quick)] == [n * n] * 5
        assert list(jobs.map(abs, range(-n, 0))) == list(range(n, 0, -1))
    return n

def give(_):
    opened.set()
"""

PROCESS_FUTURES = (
    """
import work

os.mkfifo("gate")

def cell(n):
    context = multiprocessing.get_context(METHOD)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool, being_inside():
        return pool.submit(work.wait, n).result(60)
"""
    + GIVE_BY_FIFO
)

# What a spawned process can import; it knows no module that a server has made from a file.
WORK = """
def wait(n):
    with open("gate") as gate:
        gate.read()
    return n
"""

MULTIPROCESSING = """
context = multiprocessing.get_context("fork")
go = context.Event()

def work(n, answers):
    go.wait(60)
    answers.put(n)

def cell(n):
    answers = context.Queue()
    child = context.Process(target=work, args=(n, answers))
    child.start()
    with being_inside():
        found = answers.get(timeout=60)
        child.join()
    assert child.exitcode == 0
    answers.close()
    answers.join_thread()
    return found

def give(_):
    go.set()
"""

LOGGING = """
import logging.handlers

# A pipe that nobody reads fills up: one request waits in write(), the others for its lock.
os.mkfifo("log")
kept["reader"] = open(os.open("log", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
log = logging.getLogger("shop")
log.addHandler(logging.FileHandler("log", "w"))
log.propagate = False

def cell(n):
    with being_inside():
        log.error("%d", n, extra={})
        log.error(f"{n}" * 100000)
    return n

def give(_):
    reader = kept["reader"]
    os.set_blocking(reader.fileno(), True)
    def read():
        data = b""
        while data.count(b"\\\\n") < 2 * N:
            data += reader.read(65536)
        kept["lines"] = sorted(data.split())
        done.set()
    done = threading.Event()
    threading.Thread(target=read).start()
    assert done.wait(60)
    assert kept["lines"] == sorted(b"%d" % n * size for n in range(N) for size in (1, 100000))
"""

QUEUE_LOGGING = """
import logging.handlers

# The usual way out of slow handlers: requests hand records over, a listener's thread waits.
seen, opened = [], threading.Event()

class Slow(logging.Handler):
    def emit(self, record):
        opened.wait(60)
        seen.append(int(record.getMessage()))

records = queue.Queue(1)
class Waits(logging.handlers.QueueHandler):
    def enqueue(self, record):
        self.queue.put(record)  # waits while there is no room

log = logging.getLogger("shop")
log.addHandler(Waits(records))
log.propagate = False
listener = logging.handlers.QueueListener(records, Slow())
listener.start()
log.error("100")
while not records.empty():
    time.sleep(0.01)
log.error("101")  # now there is no room

def cell(n):
    with being_inside():
        log.error(f"{n}")
    return n

def give(_):
    opened.set()
    while len(seen) < N + 2:
        time.sleep(0.01)
    assert sorted(seen) == [*range(N), 100, 101]
"""

SELECTORS = """
pairs = [socket.socketpair() for _ in range(N)]
KINDS = [selectors.DefaultSelector, selectors.PollSelector, selectors.SelectSelector]

def cell(n):
    idle, other = socket.socketpair()
    with KINDS[n % 3]() as selector, idle, other, contextlib.ExitStack() as stack:
        selector.register(idle, selectors.EVENT_READ, "idle")
        assert selector.select(0.01) == []
        selector.register(pairs[n][0], selectors.EVENT_READ, "mine")
        stack.enter_context(being_inside())
        assert [key.data for key, _ in selector.select(60)] == ["mine"]
        return int(pairs[n][0].recv(10))

def give(_):
    for n, (_, there) in enumerate(pairs):
        there.sendall(b"%d" % n)
"""

SQLITE_BUSY = """
import sqlite3
holder = sqlite3.connect("shop.db", check_same_thread=False, isolation_level=None)
holder.execute("create table stock (pieces integer)")
holder.execute("insert into stock values (0)")
holder.execute("begin exclusive")

def cell(n):
    db = sqlite3.connect("shop.db", timeout=60, isolation_level=None)
    with being_inside(), contextlib.closing(db):
        db.execute("begin immediate")
        [pieces] = db.execute("select pieces from stock").fetchone()
        time.sleep(0.01)
        db.execute("update stock set pieces = ?", (pieces + 1,))
        db.execute("commit")
    return n

def give(_):
    holder.execute("commit")
    while inside:
        time.sleep(0.01)
    assert holder.execute("select pieces from stock").fetchone() == (N,)
"""

SQLITE_SHARED = """
import sqlite3
shared = sqlite3.connect("shop.db", check_same_thread=False, isolation_level=None)
shared.execute("create table stock (pieces integer)")
shared.execute("insert into stock values (0)")
opened, mine = threading.Event(), threading.Lock()

def cell(n):
    # Its own mutex lets one statement after the other through, but from 3.12 on CPython mixes the
    # results of the same statement up, in plain threads as well: so a lock is needed.
    with being_inside():
        opened.wait(60)
        for _ in range(50):
            with mine:
                shared.execute("update stock set pieces = pieces + 1")
        with mine:
            [found] = shared.execute(
                "with recursive c(x) as (select 0 union all select x + 1 from c where x < 100000)"
                " select sum(x) + ? from c", (n,)).fetchone()
    return found - 5000050000

def give(_):
    opened.set()
    while inside:
        time.sleep(0.01)
    assert shared.execute("select pieces from stock").fetchone() == (50 * N,)
"""

# --- Extension modules whose first import is in eight requests at once --------------------------

NUMPY = """
opened = threading.Event()

def cell(n):
    import numpy
    with being_inside():
        opened.wait(60)
    numpy.random.seed(n)
    # Small enough for OpenBLAS to use no threads of its own, which wait for each other by spinning.
    a = numpy.random.rand(24, 24)
    for _ in range(5):
        time.sleep(0.001)
        assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(24), atol=1e-6)
    with numpy.errstate(divide="raise"):
        time.sleep(0.002)  # the others' error state is their own
        try:
            numpy.ones(3) / numpy.zeros(3)
        except FloatingPointError:
            return int(numpy.fft.ifft(numpy.fft.fft([n, n])).real.sum() / 2 + 0.5)

def give(_):
    opened.set()
"""

LXML = """
pairs = [socket.socketpair() for _ in range(N)]

def cell(n):
    # The parser, in C, calls back for each piece of text, and that waits.
    from lxml import etree
    with being_inside(), pairs[n][0].makefile("rb", buffering=0) as stream:
        tree = etree.parse(stream)
    pairs[n][0].close()
    assert len(tree.getroot()) == 2000
    try:
        etree.fromstring("<wrong>")
    except etree.XMLSyntaxError as error:
        time.sleep(0.002)
        assert "wrong" in str(error) and len(error.error_log) == 1
    style = etree.XSLT(etree.XML(
        '<x:stylesheet version="1.0" xmlns:x="http://www.w3.org/1999/XSL/Transform">'
        '<x:template match="/"><n><x:value-of select="/all/item[2000]"/></n></x:template>'
        "</x:stylesheet>"))
    return int(style(tree).getroot().text)

def give(_):
    def write(n):
        there = pairs[n][1]
        there.sendall(b"<all>")
        for at in range(20):
            there.sendall(b"<item>%d</item>" % n * 100)
            time.sleep(0.002)
        there.sendall(b"</all>")
        there.close()
    for n in range(N):
        threading.Thread(target=write, args=(n,)).start()
"""

CRYPTOGRAPHY = """
opened = threading.Event()

def cell(n):
    from cryptography.exceptions import InvalidSignature
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    with being_inside():
        opened.wait(60)
    for turn in range(5):
        signature = key.sign(b"%d" % n, ec.ECDSA(hashes.SHA256()))
        time.sleep(0.001)
        key.public_key().verify(signature, b"%d" % n, ec.ECDSA(hashes.SHA256()))
        try:
            key.public_key().verify(signature, b"other", ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            time.sleep(0.001)  # OpenSSL's queue of errors is each core's own
    box = Fernet(Fernet.generate_key())
    return int(box.decrypt(box.encrypt(b"%d" % n)))

def give(_):
    opened.set()
"""

CELLS = {
    "sleep": SLEEP,
    "lock": LOCKS,
    "rlock": RLOCK,
    "event": EVENT,
    "semaphore": SEMAPHORE,
    "condition": CONDITION,
    "barrier": BARRIER,
    "queue": QUEUE,
    "simple_queue": SIMPLE_QUEUE,
    "subprocess": SUBPROCESS,
    "subprocess_pipes": PIPES,
    "asyncio_run": ASYNCIO,
    "wait_then_callback": CALLBACK,
    "signal_handler": HANDLER,
    "sigwait": SIGWAIT,
    "futures": FUTURES,
    "futures_of_forked": "METHOD = 'fork'\n" + PROCESS_FUTURES,
    "futures_of_spawned": "METHOD = 'spawn'\n" + PROCESS_FUTURES,
    "multiprocessing": MULTIPROCESSING,
    "logging": LOGGING,
    "queue_logging": QUEUE_LOGGING,
    "selectors": SELECTORS,
    "sqlite_busy": SQLITE_BUSY,
    "sqlite_shared": SQLITE_SHARED,
    "numpy": NUMPY,
    "lxml": LXML,
    "cryptography": CRYPTOGRAPHY,
}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A C library, built here."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "calls.c").write_text(LIBRARY)
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "a C compiler is needed, as for Pelton itself"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", "calls.so", "calls.c"], cwd=folder, check=True
    )
    return (folder / "calls.so").read_bytes()


@pytest.mark.parametrize("cell", CELLS)
def test_cell(matrix: Callable[..., Matrix], library: bytes, cell: str) -> None:
    text = APP + CELLS[cell].replace("\\\\", "\\")
    served = matrix(text, {}, files={"calls.so": library, "work.py": WORK})
    if cell == "futures_of_spawned":
        served.server.allow_fds("pipe")  # multiprocessing's resource tracker
    start = time.monotonic()
    answers = served.meet("cell", N, lambda: served.ask("/waiting"), lambda: served.ask("/give"))
    assert answers == list(range(N))
    if cell == "sleep":
        # All of them in about the time of one: one after the other they'd take eight times that.
        assert time.monotonic() - start < 1.5 * N / 2 * SLOW

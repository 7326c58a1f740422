# SPDX-License-Identifier: Apache-2.0
"""What ASGI requests make and keep for the next one: to an application each is the first.

A request has a task of its own, of which asyncio and everybody else knows; its receive, its send
and its context are nobody else's, whatever was kept of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable

from harness import Server, parse_responses

Serve = Callable[..., Server]

HEAD = """
import asyncio, contextvars, gc, threading, time, weakref

async def answer(send, value):
    head = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": str(value).encode()})

async def app(scope, receive, send):
    await globals()[scope["path"].split("/")[1] or "hello"](scope, receive, send)

async def hello(scope, receive, send):
    await answer(send, "hello")

kept = []

async def seen(scope, receive, send):
    await answer(send, kept)
"""


def ask(server: Server, path: str, times: int = 1) -> list[str]:
    """One connection's answers, pipelined: the next request is begun in the turn of the last."""
    request = f"GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answers = parse_responses(server.raw(request * (times - 1) + last))
    assert [a.status for a in answers] == [200] * times
    return [a.body.decode() for a in answers]


def test_the_task_is_listed(serve: Serve, kind: tuple[str, ...]) -> None:
    """In its first step, while it waits and until it ends; then no more."""
    app = (
        HEAD
        + """
def names():
    return sorted(task.get_name() for task in asyncio.all_tasks())

async def first_step(scope, receive, send):
    task = asyncio.current_task()
    asked = {name for name in names()}
    await answer(send, [task in asyncio.all_tasks(), "pelton-request" in asked])

async def waits(scope, receive, send):
    task = asyncio.current_task()
    await asyncio.sleep(0)
    one = task in asyncio.all_tasks()
    await asyncio.sleep(0.01)
    await answer(send, [one, task in asyncio.all_tasks()])

async def left(scope, receive, send):
    me = asyncio.current_task()
    await asyncio.sleep(0.01)
    others = asyncio.all_tasks() - {me}
    await answer(send, [t.get_name() for t in others if t.get_name() != "pelton-lifespan"])

async def blocks(scope, receive, send):
    # Another thread looks while this one is in its first step.
    found = []
    loop = asyncio.get_running_loop()
    look = threading.Thread(target=lambda: found.append(asyncio.all_tasks(loop)))
    look.start()
    look.join()
    await answer(send, asyncio.current_task() in found[0])
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "first_step", 3) == ["[True, True]"] * 3
    assert ask(server, "waits", 3) == ["[True, True]"] * 3
    assert ask(server, "hello", 3) == ["hello"] * 3
    assert ask(server, "blocks", 2) == ["True"] * 2
    assert ask(server, "left") == ["[]"]


def test_the_list_of_tasks_is_a_set_still(serve: Serve, kind: tuple[str, ...]) -> None:
    """The private WeakSet, which libraries look into and monitors iterate, does what it did."""
    app = (
        HEAD
        + """
tasks = getattr(asyncio.tasks, "_all_tasks", None)
if tasks is None:
    tasks = asyncio.tasks._scheduled_tasks

async def works(scope, receive, send):
    await asyncio.sleep(0)  # 3.12's eager tasks are listed when they wait
    me = asyncio.current_task()
    assert isinstance(tasks, weakref.WeakSet)
    assert me in tasks and me in set(tasks) and len(tasks) == len(list(tasks))
    for other in (tasks.copy(), tasks | set(), tasks & {me}, tasks - set(), tasks ^ set()):
        assert type(other) is weakref.WeakSet and me in other
    tasks.discard(me)
    assert me not in tasks and me not in asyncio.all_tasks()
    asyncio.tasks._register_task(me)
    assert me in tasks and me in asyncio.all_tasks()
    await answer(send, "works")

async def dies_meanwhile(scope, receive, send):
    async def sleeps():
        await asyncio.sleep(0)
    some = [asyncio.create_task(sleeps()) for _ in range(5)]
    await asyncio.wait(some)
    walk = iter(tasks)
    next(walk)
    before = len(tasks)
    some.clear()
    gc.collect()
    during = len(tasks)
    left = sum(1 for _ in walk)  # the set has not changed under it
    assert during <= before - 4 and left <= during, (before, during, left)
    walk = iter(tasks)
    next(walk)
    more = asyncio.create_task(sleeps())
    await more
    walk.close()
    assert len(tasks) == len(list(tasks)) and more in tasks
    await answer(send, "fine")

async def in_a_thread(scope, receive, send):
    async def main():
        task = asyncio.create_task(asyncio.sleep(0))
        found = asyncio.all_tasks()
        await task
        return len(found)
    await answer(send, await asyncio.to_thread(asyncio.run, main()))
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "works", 2) == ["works"] * 2
    assert ask(server, "dies_meanwhile", 2) == ["fine"] * 2
    assert ask(server, "in_a_thread", 2) == ["2"] * 2


def test_each_request_has_its_own_task(serve: Serve, kind: tuple[str, ...]) -> None:
    """Whoever keeps a task has it as it was; a weak reference to it dies with it."""
    app = (
        HEAD
        + """
async def keeps(scope, receive, send):
    task = asyncio.current_task()
    task.number = len(kept)
    task.set_name(f"number {len(kept)}")
    kept.append(task)
    await answer(send, hasattr(task, "number"))

async def compares(scope, receive, send):
    task = asyncio.current_task()
    same = any(task is other for other in kept)
    await answer(send, [same, hasattr(task, "number"), task.get_name(),
                        [(t.done(), t.result(), t.number, t.get_name()) for t in kept]])

weak = weakref.WeakKeyDictionary()
dead = []

async def weakly(scope, receive, send):
    task = asyncio.current_task()
    before = weak.get(task)
    weak[task] = scope["path"]
    dead.append(weakref.ref(task, lambda ref: kept.append("died")))
    await answer(send, before)

async def alive(scope, receive, send):
    gc.collect()
    await answer(send, [len(weak), sum(ref() is not None for ref in dead)])

async def plain(scope, receive, send):
    # What a task is given that nobody else has.
    task = asyncio.current_task()
    before = [vars(task) if hasattr(task, "__dict__") else {}, task.get_name(), task.cancelling()]
    task.mark = 1
    task.set_name("mine")
    await answer(send, before)
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "keeps", 3) == ["True"] * 3
    expected = [(True, None, number, f"number {number}") for number in range(3)]
    for _ in range(2):
        assert ask(server, "compares") == [repr([False, False, "pelton-request", expected])]
    assert ask(server, "weakly", 5) == ["None"] * 5
    assert ask(server, "alive") == ["[0, 0]"]
    assert ask(server, "seen")[0].count("died") == 5
    assert ask(server, "plain", 3) == [repr([{}, "pelton-request", 0])] * 3


def test_a_task_class_of_somebody_elses(serve: Serve, kind: tuple[str, ...]) -> None:
    """What stands as asyncio.Task when the server starts is the class of requests' tasks."""
    app = (
        HEAD
        + """
class Counted(asyncio.Task):
    def __init__(self, *args, **named):
        self.inits = getattr(self, "inits", 0) + 1
        super().__init__(*args, **named)
    def __del__(self):
        kept.append(self.inits)
        super().__del__()

asyncio.Task = Counted

async def counted(scope, receive, send):
    task = asyncio.current_task()
    await answer(send, [type(task).__name__, task.inits])
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "counted", 3) == ["['Counted', 1]"] * 3
    assert ask(server, "seen")[0].startswith("[1, 1, 1")


def test_nothing_of_a_request_outlives_it(serve: Serve, kind: tuple[str, ...]) -> None:
    """What an application puts into its context, or returns, or raises, goes with the request."""
    app = (
        HEAD
        + """
variable = contextvars.ContextVar("variable", default=None)

class Thing:
    def __init__(self, where):
        self.where = where
    def __del__(self):
        kept.append(self.where)

async def context(scope, receive, send):
    before = variable.get()
    variable.set(Thing("context"))
    await answer(send, before)

async def returns(scope, receive, send):
    await answer(send, "returns")
    return Thing("result")

async def app(scope, receive, send):
    return await globals()[scope["path"].split("/")[1] or "hello"](scope, receive, send)

async def attribute(scope, receive, send):
    asyncio.current_task().thing = Thing("attribute")
    await answer(send, "attribute")

async def headers(scope, receive, send):
    scope["thing"] = scope["extensions"]["thing"] = Thing("scope")
    await answer(send, "headers")
"""
    )
    server = serve(*kind, app=app)
    expected: list[str] = []
    for path, said in (
        ("context", "context"),
        ("returns", "result"),
        ("attribute", "attribute"),
        ("headers", "scope"),
    ):
        ask(server, path)
        expected.append(said)
        assert ask(server, "seen") == [repr(expected)]


def test_fails_and_is_cancelled_in_its_first_step(serve: Serve, kind: tuple[str, ...]) -> None:
    """The next request has none of it."""
    app = (
        HEAD
        + """
async def fails(scope, receive, send):
    kept.append(asyncio.current_task())
    raise ValueError("on purpose")

async def cancels(scope, receive, send):
    task = asyncio.current_task()
    task.cancel("why")
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        text = str(error)
    count = task.cancelling()
    await answer(send, [text, count])

async def cancelled(scope, receive, send):
    asyncio.current_task().cancel()  # seen at no await of it
    await answer(send, "cancelled")

async def facts(scope, receive, send):
    task = asyncio.current_task()
    await asyncio.sleep(0)
    await answer(send, [task.cancelling(), task.cancelled(), len(kept), kept[0].done(),
                        repr(kept[0].exception()), kept[0] is task])
"""
    )
    server = serve(*kind, app=app)
    server.expect_log("ValueError: on purpose")
    server.expect_log("GET /cancelled: the application failed")
    assert server.get("/fails").status == 500
    for _ in range(2):
        assert ask(server, "cancels") == ["['why', 1]"]
        assert ask(server, "cancelled") == ["cancelled"]
        assert ask(server, "facts") == [
            repr([0, False, 1, True, "ValueError('on purpose')", False])
        ]


def test_receive_and_send_that_are_kept(serve: Serve, kind: tuple[str, ...]) -> None:
    """They stay those of the request that they were made for; so does a weak reference."""
    app = (
        HEAD
        + """
async def keeps(scope, receive, send):
    kept.append((receive, send))
    await answer(send, "kept")

async def uses(scope, receive, send):
    found = []
    for old_receive, old_send in kept:
        assert old_receive is not receive and old_send is not send
        found.append((await old_receive())["type"])
        try:
            await old_send({"type": "http.response.start", "status": 200})
        except RuntimeError as error:
            found.append(str(error).count("already completed"))
    kept.clear()
    await answer(send, found)

weak = []

async def weakly(scope, receive, send):
    again = [ref() is not None for ref in weak]
    weak.append(weakref.ref(send))
    weak.append(weakref.ref(receive))
    await answer(send, any(again))

later = []

async def unawaited(scope, receive, send):
    later.append(receive())  # keeps the channel, not the method
    await answer(send, len(later))

async def awaits(scope, receive, send):
    message = await later.pop()
    await answer(send, message["type"])
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "keeps", 2) == ["kept"] * 2
    assert ask(server, "uses") == ["['http.disconnect', 1, 'http.disconnect', 1]"]
    assert ask(server, "weakly", 4) == ["False"] * 4
    assert ask(server, "unawaited") == ["1"]
    assert ask(server, "hello", 2) == ["hello"] * 2
    assert ask(server, "awaits") == ["http.disconnect"]


CALLED = {
    "a coroutine function": "",
    "a function": """
coroutine_function = app
def app(scope, receive, send):
    shared.set((shared.get() or 0) + 1)
    return coroutine_function(scope, receive, send)
""",
    "an object": """
class App:
    async def __call__(self, scope, receive, send):
        shared.set((shared.get() or 0) + 1)
        await globals()[scope["path"].strip("/")](scope, receive, send)
app = App()
""",
}


def test_context_variables_stay_in_their_request(serve: Serve, kind: tuple[str, ...]) -> None:
    """However the application is called; what was set when it was loaded is there."""
    head = (
        HEAD
        + """
shared = contextvars.ContextVar("shared", default=None)
loaded = contextvars.ContextVar("loaded")
loaded.set("loaded")

async def sets(scope, receive, send):
    found = [shared.get(), loaded.get()]
    shared.set(100)
    loaded.set("changed")
    await answer(send, found)
"""
    )
    for how, more in CALLED.items():
        options = () if how == "a coroutine function" else ("--interface", "asgi")
        server = serve(*kind, *options, app=head + more)
        first = None if how == "a coroutine function" else 1
        assert ask(server, "sets", 3) == [repr([first, "loaded"])] * 3
        server.stop()


def test_calls_keep_their_order(serve: Serve, kind: tuple[str, ...]) -> None:
    """What a first step schedules comes after it, and after what was scheduled before."""
    app = (
        HEAD
        + """
async def schedules(scope, receive, send):
    loop = asyncio.get_running_loop()
    order = []
    loop.call_soon(order.append, 1)
    loop.call_soon(order.append, 2)
    inside = list(order)
    other = asyncio.create_task(appends(order))
    await asyncio.sleep(0)
    after = list(order)
    await other
    await answer(send, [inside, after, order])

async def appends(order):
    order.append(3)

async def collects(scope, receive, send):
    # A finaliser that runs in the making of a later request's task schedules on its own account.
    class Cycle:
        def __init__(self):
            self.me = self
        def __del__(self):
            loop.call_soon(kept.append, 1)
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.set_threshold(1)
    Cycle()
    await answer(send, "collects")

async def calms(scope, receive, send):
    gc.set_threshold(700, 10, 10)
    gc.collect()
    await asyncio.sleep(0.01)
    await answer(send, len(kept))
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "schedules", 3) == ["[[], [1, 2, 3], [1, 2, 3]]"] * 3
    assert ask(server, "collects", 20) == ["collects"] * 20
    assert ask(server, "calms") == ["20"]


def test_a_replaced_call_soon_is_called(serve: Serve, kind: tuple[str, ...]) -> None:
    """As instruments do: an attribute of the loop object hides the method until it is deleted."""
    app = (
        HEAD
        + """
async def counts(scope, receive, send):
    loop = asyncio.get_running_loop()
    original, calls = loop.call_soon, []
    def call_soon(callback, *args, context=None):
        calls.append(callback)
        return original(callback, *args, context=context)
    loop.call_soon = call_soon
    loop.get_debug = lambda: calls.append("debug") or False
    try:
        await asyncio.create_task(asyncio.sleep(0))
    finally:
        del loop.call_soon, loop.get_debug
    count = len(calls)
    await asyncio.create_task(asyncio.sleep(0))
    await answer(send, [count > 2, "debug" in calls, len(calls) == count,
                        loop.call_soon == original, loop.get_debug()])
"""
    )
    server = serve(*kind, app=app)
    assert ask(server, "counts", 2) == ["[True, True, True, True, False]"] * 2


def test_headers_that_come_again(serve: Serve, kind: tuple[str, ...]) -> None:
    """The same objects, other objects with the same addresses, and lists that change in between."""
    app = (
        HEAD
        + """
CONSTANT = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
CHANGING = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
OTHER = (b"content-type", b"text/html")
CLOSES = [(b"connection", b"close"), (b"content-length", b"2")]
MUTABLE = [[b"content-type", b"text/1"]]
BAD = [(b"content-type", b"a\\r\\nb: c")]
NO_NUMBER = [(b"content-length", b"two")]
COOKIE = [(b"set-cookie", b"a=1"), (b"content-length", b"2")]

async def sends(send, headers, status=200, body=b"ok"):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

async def constant(scope, receive, send):
    await sends(send, CONSTANT, int(scope["query_string"] or 200))

async def literal(scope, receive, send):
    await sends(send, [(b"content-type", b"text/plain"), (b"content-length", b"2")])

async def changing(scope, receive, send):
    await sends(send, CHANGING)
    CHANGING[0], CHANGING[1:] = OTHER, CHANGING[1:] * 2  # twice the same length is one

async def fresh(scope, receive, send):
    n = scope["query_string"]
    await sends(send, [(b"content-type", b"text/" + n), (b"content-length", b"%d" % len(n))],
                body=n)

async def closes(scope, receive, send):
    await sends(send, CLOSES)

async def mutable(scope, receive, send):
    await sends(send, MUTABLE)
    MUTABLE[0][1] += b"1"

async def cookie(scope, receive, send):
    await sends(send, COOKIE)

async def bad(scope, receive, send):
    found = []
    for headers in (BAD, BAD, NO_NUMBER, NO_NUMBER):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        except ValueError as error:
            found.append(str(error))
    await answer(send, found)

async def too_long(scope, receive, send):
    try:
        await sends(send, CONSTANT, body=b"long")
    except RuntimeError as error:
        kept.append(str(error))
        raise

async def twice(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": CONSTANT})
    try:
        await send({"type": "http.response.start", "status": 200, "headers": CONSTANT})
    except RuntimeError:
        await send({"type": "http.response.body", "body": b"ok"})
"""
    )
    server = serve(*kind, app=app)
    for _ in range(4):
        for path in ("constant", "literal", "cookie", "twice"):
            got = server.get("/" + path)
            assert (got.status, got["content-length"], got.body) == (200, "2", b"ok"), path
        assert server.get("/constant?404").status == 404
        got = server.request("/constant", "HEAD")
        assert (got["content-length"], got.body) == ("2", b"")
    types = [server.get("/mutable")["content-type"] for _ in range(8)]
    assert types == ["text/" + "1" * n for n in range(1, 9)]
    types = [server.get("/changing")["content-type"] for _ in range(6)]
    assert types == ["text/plain"] + ["text/html"] * 5
    for n in range(200):
        got = server.get(f"/fresh?{n}")
        assert (got["content-type"], got.body) == (f"text/{n}", str(n).encode())
    for _ in range(4):
        assert server.get("/closes")["connection"] == "close"
        assert server.get("/cookie")["set-cookie"] == "a=1"
    for _ in range(3):
        text = ask(server, "bad")[0]
        assert (text.count("cannot be sent"), text.count("is no number")) == (2, 2)
    server.expect_log("longer than Content-Length")
    for _ in range(3):
        server.raw(b"GET /too_long HTTP/1.1\r\nHost: h\r\n\r\n")
    assert "longer than Content-Length" in ask(server, "seen")[0]

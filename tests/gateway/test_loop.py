# SPDX-License-Identifier: Apache-2.0
"""``pelton.Loop`` without a server: order, timers, descriptors, threads, errors, and what is left.

The loop's C half is in ``_gwtest``, as the gateway is; it stands in for ``pelton._pelton``.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import socket
import sys
import threading
import time
import tracemalloc
import weakref
from pathlib import Path

from gwharness import _gwtest, collect, raising

sys.modules["pelton._pelton"] = _gwtest
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pelton._loop import Loop  # noqa: E402

ROUNDS = int(os.environ.get("PELTON_LEAK_ROUNDS", "300"))


def run(main):
    """A coroutine function that takes the loop."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main(runner.get_loop()))


def test_the_order_of_callbacks():
    async def main(loop):
        said = []
        loop.call_soon(said.append, 1)
        loop.call_soon(lambda: (said.append(2), loop.call_soon(said.append, 4)))
        loop.call_soon(said.append, 3)
        loop.call_later(0, said.append, 5)
        for _ in range(3):
            await asyncio.sleep(0)
        assert said[:3] == [1, 2, 3]
        assert sorted(said) == [1, 2, 3, 4, 5]

    run(main)


def test_timers():
    async def main(loop):
        said = []
        at = loop.time() + 0.02
        handles = [loop.call_at(at + i / 100, said.append, i) for i in (2, 0, 3, 1)]
        same = [loop.call_at(at + 0.05, said.append, f"same {i}") for i in range(20)]
        handles[2].cancel()
        assert handles[2].cancelled()
        assert not handles[0].cancelled()
        assert handles[1].when() == at
        over = loop.create_future()
        loop.call_later(0.1, over.set_result, None)
        await over
        assert said == [0, 1, 2, *(f"same {i}" for i in range(20))]
        assert all(loop.time() >= h.when() for h in same)
        never = [loop.call_later(at, said.append, "never") for at in (float("nan"), float("inf"))]
        loop.call_later(-5, said.append, "at once")
        await asyncio.sleep(0.01)
        assert said[-1] == "at once"
        assert "never" not in said
        for handle in never:
            handle.cancel()

    run(main)


def test_a_timer_is_never_early():
    async def main(loop):
        early = []

        def due(when):
            early.append(loop.time() < when)

        for _ in range(200):
            when = loop.time() + 0.0003
            loop.call_at(when, due, when)
            await asyncio.sleep(0.0001)
        await asyncio.sleep(0.01)
        assert early == [False] * 200
        # In turns without a sleep, which come every few microseconds.
        for _ in range(200):
            when = loop.time() + 0.0001
            loop.call_at(when, due, when)
            while loop.time() < when + 0.00005:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert early == [False] * 400

    run(main)


def test_arguments_and_contexts():
    variable = contextvars.ContextVar("variable", default=0)

    async def main(loop):
        said = []

        def say(*args):
            said.append((variable.get(), *args))

        context = contextvars.copy_context()
        context.run(variable.set, 7)
        for count in range(5):
            loop.call_soon(say, *range(count), context=context)
        handle = loop.call_later(0, say, context=context)
        assert handle.get_context() is context
        loop.call_soon(say)
        await asyncio.sleep(0.01)
        assert [a for a in said if len(a) > 1] == [(7, *range(n)) for n in range(1, 5)]
        assert (0,) in said
        loop.call_later(delay=0, callback=say, context=context)
        loop.call_at(callback=say, when=0)
        loop.call_soon(callback=say)
        said.clear()
        await asyncio.sleep(0.01)
        assert sorted(said) == [(0,), (0,), (7,)]
        for twice in ({"delay": 1}, {"callback": say}, {"when": 1}):
            with raising(TypeError, "unexpected keyword"):
                loop.call_later(1, say, **twice)
        with raising(TypeError):
            loop.call_soon()
        with raising(TypeError):
            loop.call_later(1)
        with raising(TypeError, "delay must not be None"):
            loop.call_later(None, say)
        with raising(TypeError):
            loop.call_soon(say, context="no context")
        with raising(TypeError):
            loop.call_soon(say, other=1)

    run(main)


def test_descriptors():
    async def main(loop):
        here, there = socket.socketpair()
        with here, there:
            said = []
            loop.add_reader(there, lambda: said.append(there.recv(1)))
            loop.add_writer(here, lambda: (here.send(b"ab"), loop.remove_writer(here)))
            while said != [b"a", b"b"]:
                await asyncio.sleep(0)
            loop.add_reader(there, said.append, "replaced")
            here.send(b"c")
            while said[-1] != "replaced":
                await asyncio.sleep(0)
            assert loop.remove_reader(there)
            assert not loop.remove_reader(there)
            assert not loop.remove_writer(there)
            count = len(said)
            await asyncio.sleep(0.01)
            assert len(said) == count
        with raising(ValueError):
            loop.add_reader("no file", print)

    run(main)


def test_a_descriptor_whose_number_is_another_file():
    async def main(loop):
        said = []
        first, first_peer = socket.socketpair()
        number = first.fileno()
        loop.add_reader(number, said.append, "first")
        loop.add_writer(number, said.append, "writable")
        first.close()
        first_peer.close()
        second, peer = socket.socketpair()
        if second.fileno() != number:
            os.dup2(second.fileno(), number)
        loop.add_reader(number, lambda: said.append(os.read(number, 9)))
        peer.send(b"second")
        await asyncio.sleep(0.02)
        assert b"second" in said
        assert "first" not in said
        loop.remove_reader(number)
        loop.remove_writer(number)
        if second.fileno() != number:
            os.close(number)
        second.close()
        peer.close()

    run(main)


def test_a_callback_that_is_replaced_is_cancelled():
    async def main(loop):
        here, there = socket.socketpair()
        with here, there:
            before = loop._add_reader(there, print)
            after = loop._add_reader(there, print)
            assert before.cancelled()
            assert not after.cancelled()
            assert loop.remove_reader(there)
            assert after.cancelled()

    run(main)


def test_cancelled_in_the_turn_in_which_it_is_due():
    async def main(loop):
        said = []
        later = []
        loop.call_soon(lambda: [handle.cancel() for handle in later])
        later += [loop.call_soon(said.append, 1), loop.call_later(0, said.append, 2)]
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert not said

    run(main)


def test_a_turn_ends():
    """What a callback schedules comes in the next one."""

    async def main(loop):
        said = []

        def again():
            said.append(loop.time())
            loop.call_soon(again)

        loop.call_soon(again)
        for count in range(1, 5):
            await asyncio.sleep(0)
            assert len(said) == count

    run(main)


def test_exit_leaves_what_comes_after_it():
    loop = Loop()
    said = []
    loop.call_soon(sys.exit, 3)
    loop.call_soon(said.append, "after")
    with raising(SystemExit, "3"):
        loop.run_forever()
    assert not said
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert said == ["after"]

    def handler(loop, context):
        sys.exit(4)

    loop.set_exception_handler(handler)
    loop.call_soon(int, "no number")
    with raising(SystemExit, "4"):
        loop.run_forever()
    loop.close()


def test_handles_of_others():
    async def main(loop):
        said = []
        other = Loop()
        handle = other.call_soon(said.append, "wrong")
        loop._add_callback(handle)  # it is another loop's
        loop._add_callback(asyncio.Handle(said.append, ("asyncio's",), loop))
        mine = loop.call_soon(said.append, "once")
        loop._add_callback(mine)
        gone = loop.call_soon(said.append, "never")
        gone.cancel()
        loop._add_callback(gone)
        await asyncio.sleep(0.01)
        assert sorted(said) == ["asyncio's", "once"]
        other.close()

    run(main)


def test_two_threads_cannot_run_it():
    loop = Loop()
    refused = []

    def other():
        time.sleep(0.05)  # the loop sleeps by then
        try:
            loop._run_once()
        except RuntimeError as exc:
            refused.append(str(exc))
        loop.call_soon_threadsafe(loop.stop)

    threading.Thread(target=other).start()
    loop.call_later(60, loop.stop)
    loop.run_forever()
    assert refused == ["This event loop is already running"]
    loop.close()


def test_threads_wake_it():
    async def main(loop):
        over = loop.create_future()

        def work():
            time.sleep(0.05)
            loop.call_soon_threadsafe(over.set_result, threading.get_ident())

        threading.Thread(target=work).start()
        assert await asyncio.wait_for(over, 20) != threading.get_ident()
        assert await loop.run_in_executor(None, lambda: 42) == 42

    run(main)


def test_errors_go_to_the_handler():
    async def main(loop):
        said = []
        loop.set_exception_handler(lambda _, context: said.append(context))

        def fails(text):
            raise LookupError(text)

        handle = loop.call_soon(fails, "text")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(said) == 1
        assert isinstance(said[0]["exception"], LookupError)
        assert said[0]["handle"] is handle
        assert "fails" in said[0]["message"]

    run(main)
    loop = Loop()
    loop.call_soon(sys.exit, 5)
    with raising(SystemExit, "5"):
        loop.run_forever()
    loop.call_soon(loop.stop)
    loop.run_forever()  # it goes on after that
    loop.close()


def test_signals():
    async def main(loop):
        over = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, over.set_result, "signalled")
        loop.call_later(0.02, os.kill, os.getpid(), signal.SIGUSR1)
        assert await asyncio.wait_for(over, 20) == "signalled"
        assert loop.remove_signal_handler(signal.SIGUSR1)

    run(main)


def test_its_end():
    loop = Loop()
    dropped = [loop.call_soon(print, "never"), loop.call_later(9, print, "never")]
    loop.close()
    loop.close()
    assert loop.is_closed()
    assert not loop.is_running()
    for call in (loop.call_soon, loop.call_soon_threadsafe):
        with raising(RuntimeError, "closed"):
            call(print)
    with raising(RuntimeError, "closed"):
        loop.call_later(1, print)
    for handle in dropped:
        handle.cancel()
        assert handle.cancelled()

    async def main(loop):
        with raising(RuntimeError, "running"):
            loop.close()
        with raising(RuntimeError, "already running"):
            loop.run_until_complete(loop.create_future())

    run(main)


def test_debug_mode():
    async def main(loop):
        loop.set_debug(True)
        handle = loop.call_later(5, print, "x")
        text = repr(handle)
        assert text.startswith("<TimerHandle when="), text
        assert "created at" in text, text
        handle.cancel()
        assert "cancelled" in repr(handle)
        with raising(TypeError):
            loop.call_soon(main)
        refused = []

        def work():
            try:
                loop.call_soon(print, "wrong")
            except RuntimeError as exc:
                refused.append(str(exc))

        await loop.run_in_executor(None, work)
        assert "Non-thread-safe" in refused[0]

    run(main)


def test_a_fork_leaves_the_loop_alone():
    async def main(loop):
        here, there = socket.socketpair()
        said = []
        loop.add_reader(there, lambda: said.append(there.recv(1)))
        pid = os.fork()
        if pid == 0:
            loop._thread_id = None
            loop.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        here.send(b"x")
        while not said:
            await asyncio.sleep(0)
        loop.remove_reader(there)
        here.close()
        there.close()

    run(main)


# --- What is left -----------------------------------------------------------------------------


class Marked:
    """An argument that can be watched."""


def once(loop, marked):
    """Everything that makes a handle, and every way for one to go."""
    here, there = socket.socketpair()
    for handle in (
        loop.call_soon(lambda *_: None, marked),
        loop.call_later(0.0001, lambda *_: None, marked, marked, marked),
        loop.call_later(9, lambda *_: None, marked),
        loop.call_soon_threadsafe(lambda *_: None, marked, context=contextvars.copy_context()),
    ):
        if hasattr(handle, "when") and handle.when() > loop.time() + 1:
            handle.cancel()
    loop.call_later(9, lambda *_: None, marked)  # stays until the loop goes
    loop.add_reader(there, lambda *_: loop.remove_reader(there), marked)
    loop.add_writer(here, lambda *_: loop.remove_writer(here), marked)
    loop.call_soon(int, "bad", 99, marked)
    here.send(b"x")

    async def task():
        await asyncio.sleep(0)
        await asyncio.sleep(0.0002)
        return marked

    loop.run_until_complete(task())
    for end in (here, there):
        loop.remove_reader(end)
        loop.remove_writer(end)
        end.close()


def fresh(rounds):
    """Loops that are made, used and closed, and one in a cycle that nobody closes."""
    for i in range(rounds):
        loop = Loop()
        loop.set_exception_handler(lambda *_: None)
        once(loop, Marked())
        if i % 2:
            loop.set_debug(True)
            once(loop, Marked())
        loop.close()
    collect()


def test_loops_leave_nothing():
    fresh(20)
    tracemalloc.start()
    fresh(20)  # the interpreter's own tables grow by doubling
    objects, begun = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
    grown = []
    for _ in range(3):
        fresh(30)
        now = tracemalloc.get_traced_memory()[0]
        grown.append(now - begun)
        begun = now
    tracemalloc.stop()
    assert abs(len(gc.get_objects()) - objects) < 20, (len(gc.get_objects()), objects)
    assert min(grown) < 30 * 300, grown  # a lost loop has some thousand bytes
    assert not [o for o in gc.get_objects() if isinstance(o, Marked)]


def test_a_loop_in_use_leaves_nothing():
    loop = Loop()
    loop.set_exception_handler(lambda *_: None)
    marked = Marked()

    def turn(rounds):
        for _ in range(rounds):
            loop.call_soon(lambda *_: None, marked)
            loop.call_later(9, print, marked, marked, marked).cancel()
            loop.call_later(0, lambda *_: None, marked)
            loop.call_soon(int, "bad", 99, marked)
            loop.run_until_complete(asyncio.sleep(0.0001))
        collect()

    turn(ROUNDS)
    refs, none = sys.getrefcount(marked), sys.getrefcount(None)
    loops = sys.getrefcount(loop)
    tracemalloc.start()
    turn(ROUNDS)
    grown = []
    for _ in range(3):
        begun = tracemalloc.get_traced_memory()[0]
        turn(ROUNDS)
        grown.append(tracemalloc.get_traced_memory()[0] - begun)
    tracemalloc.stop()
    assert sys.getrefcount(marked) == refs
    assert abs(sys.getrefcount(loop) - loops) < 3
    assert sys.version_info >= (3, 12) or abs(sys.getrefcount(None) - none) < 50
    assert min(grown) < ROUNDS * 4, grown
    loop.close()


def test_cycles_are_collected():
    here, there = socket.socketpair()

    def make():
        loop = Loop()
        loop.call_later(9, lambda: loop)
        loop.call_soon(lambda: loop)
        loop.add_reader(there, lambda: loop)
        return weakref.ref(loop)

    watched = make()
    gc.collect()
    here.close()
    there.close()
    assert watched() is None

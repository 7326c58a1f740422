# SPDX-License-Identifier: Apache-2.0
"""``run``, ``install``, ``await_``, ``spawn`` and ``to_core``: between asyncio and the server."""

import asyncio
import concurrent.futures
import contextvars
import inspect

from pelton import _home
from pelton._loop import Loop

__all__ = ["LoopPolicy", "await_", "install", "run", "spawn", "to_core"]


def run(main, *, debug=None):
    """``asyncio.run`` on a ``pelton.Loop``."""
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("pelton.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=Loop) as runner:
        return runner.run(main)


class LoopPolicy(asyncio.DefaultEventLoopPolicy):
    """asyncio's own policy, whose new loops are ``pelton.Loop``."""

    _loop_factory = Loop

    def new_event_loop(self):
        """Make a loop."""
        return Loop()


def install():
    """Make ``pelton.Loop`` what ``asyncio.run`` and ``asyncio.new_event_loop`` use."""
    asyncio.set_event_loop_policy(LoopPolicy())


async def _awaited(awaitable):
    return await awaitable


def _wait_for(future):
    """Until ``future`` is done, in a core: a wait for a lock, as its own is, could not be cut."""
    try:
        from uwsgi import _wait, _waiter, _wake
    except ImportError:
        return
    waiter = _waiter()
    if waiter is None:
        return
    future.add_done_callback(lambda _: _wake(waiter))
    while not future.done():
        _wait(waiter)


def await_(awaitable):
    """Wait for a coroutine, or another awaitable, in code that is not asynchronous.

    In a request of a server with an event loop of its own (``--asyncio``) it runs on that loop, as
    a task in a copy of the request's context, and the request's core waits: other requests go on.
    When the wait ends early, the task is cancelled. Everywhere else it runs on a loop of its own,
    as ``pelton.run`` has it. Returns the result.
    """
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"an awaitable is needed, not {type(awaitable).__name__}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        if inspect.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError("pelton.await_() would stop this event loop: use await")
    coroutine = awaitable if inspect.iscoroutine(awaitable) else _awaited(awaitable)
    loop = _home.running()
    if loop is None:
        return run(coroutine)
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        _wait_for(future)
        return future.result()
    finally:
        future.cancel()  # no effect on one that is over


class _Spawned:
    """What a core calls, once: with True it runs, with False there was no core for it."""

    def __init__(self, future, function, args, kwargs):
        self.future = future
        self.context = contextvars.copy_context()
        self.call = function, args, kwargs

    def __call__(self, admitted):
        future, self.future = self.future, None
        function, args, kwargs = self.call
        self.call = None
        if not future.set_running_or_notify_cancel():
            return
        if not admitted:
            future.set_exception(RuntimeError("no core was free for it in time"))
            return
        try:
            result = self.context.run(function, *args, **kwargs)
        except BaseException as exc:
            future.set_exception(exc)
        else:
            future.set_result(result)
        finally:
            del future


def spawn(function, /, *args, **kwargs):
    """Call ``function(*args, **kwargs)`` in a core of its own, beside the requests.

    It runs in a copy of the caller's context, may wait as a request may, counts as one, and is over
    before the server's stop is. Returns a ``concurrent.futures.Future``. In the server only.
    """
    try:
        from uwsgi import _spawn
    except ImportError:
        raise RuntimeError("pelton.spawn() works in the server only") from None
    future = concurrent.futures.Future()
    _spawn(_Spawned(future, function, args, kwargs))
    return future


async def to_core(function, /, *args, **kwargs):
    """Call blocking code from a coroutine: ``function(*args, **kwargs)`` in a core of its own.

    As ``asyncio.to_thread``, which it is where there is no server, or one with a single core.
    """
    try:
        from uwsgi import _single, _spawn
    except ImportError:
        return await asyncio.to_thread(function, *args, **kwargs)
    if _single():
        return await asyncio.to_thread(function, *args, **kwargs)
    future = concurrent.futures.Future()
    _spawn(_Spawned(future, function, args, kwargs))
    return await asyncio.wrap_future(future)

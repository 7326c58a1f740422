# SPDX-License-Identifier: Apache-2.0
"""The event loop of a worker under ``--asyncio``; the server makes it, C (aio_home.c) runs it.

Its callbacks and tasks run on the worker's home core, one after the other. Requests, which run
beside it, have it as their current loop, but not as their running one.
"""

import asyncio
import logging
import sys
import threading
from asyncio import base_events, events

from pelton import _tasks
from pelton._loop import Loop
from pelton._pelton import _format_exception

__all__ = ["HandedOverTask", "HomeLoop", "running"]

_running = None


def running():
    """The server's loop, while the server runs it; else None."""
    return _running


class _Formatter(logging.Formatter):
    """Tracebacks as in the server's log: no client's text passes for a line of the log."""

    def formatException(self, ei):
        return _format_exception(ei[1]).rstrip("\n")


def _format_last_resort():
    """Where the application has not set ``logging`` up, asyncio's lines go to the server's log."""
    handler = logging.lastResort
    if handler is not None and handler.formatter is None:
        handler.setFormatter(_Formatter())


class HandedOverTask(asyncio.Future):
    """What ``create_task`` gives to a request: a future for the task that is made on home.

    It ends as the task ends, and ``cancel()`` cancels the task.
    """

    def __init__(self, loop, coro, arguments):
        super().__init__(loop=loop)
        self._coro = coro
        self._arguments = arguments
        self._task = None
        loop.call_soon(self._make)  # in a copy of the request's context, which the task gets

    def _make(self):
        if self.done():
            self._coro.close()
            return
        try:
            self._task = self.get_loop()._create_here(self._coro, self._arguments)
        except BaseException as exc:
            self._coro.close()
            self.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            self._task.add_done_callback(self._over)

    def _over(self, task):
        if self.done():
            return
        if task.cancelled():
            super().cancel()
        elif task.exception() is not None:
            self.set_exception(task.exception())
        else:
            self.set_result(task.result())

    def cancel(self, msg=None):
        """Cancel the task; True unless it is over already."""
        if self.done():
            return False
        if self._task is None:
            return super().cancel(msg)
        self.get_loop().call_soon(self._task.cancel, msg)
        return True

    def get_coro(self):
        """The coroutine, as ``asyncio.Task`` has it."""
        return self._coro

    def get_name(self):
        """The task's name; while it is not made, the one that was given."""
        if self._task is not None:
            return self._task.get_name()
        return str(self._arguments.get("name") or "Task")

    def set_name(self, value):
        """Name the task."""
        self._arguments["name"] = value
        if self._task is not None:
            self._task.set_name(value)


class HomeLoop(Loop):
    """``pelton.Loop`` on the worker's own loop, for which C schedules and waits."""

    # asyncio's C code asks for these with every task and future: descriptors that hand out bound
    # methods made once, without a look into the instance's namespace.
    call_soon = Loop._bound_call_soon
    get_debug = Loop._bound_get_debug

    def __init__(self):
        self._ending = False
        self._hooks_before = None
        _format_last_resort()
        super().__init__()

    def _attach(self):
        pass  # the worker does it, when there is one

    def run_forever(self):
        """As any other loop while the application is loaded; later the server runs it."""
        self._check_closed()
        self._check_running()  # before asyncio's own code, whose clean-up 3.13 does in any case
        alone = self._open_alone()
        try:
            super().run_forever()
        finally:
            if alone:
                self._close_alone()

    def stop(self):
        """Refused, since the server runs the loop."""
        if self._hooks_before is not None and not self._ending:
            raise RuntimeError("the server runs this event loop, and stops it at its own end")
        super().stop()

    def create_task(self, coro, **arguments):
        """Make a task; a request gets a future for it, since tasks are made on home only."""
        if self._on_home():
            return super().create_task(coro, **arguments)
        self._check_closed()
        return HandedOverTask(self, coro, arguments)

    def _create_here(self, coro, arguments):
        return super().create_task(coro, **arguments)

    # C calls these, on home.

    def _begin(self):
        """The loop is running from here on."""
        self._check_closed()
        self._set_coroutine_origin_tracking(self._debug)
        self._hooks_before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )
        self._thread_id = threading.get_ident()
        events._set_running_loop(self)
        _tasks.take_over(self)
        global _running
        _running = self

    def _end_running(self):
        """The server ends: from here on the loop runs by ``run_until_complete``."""
        global _running
        _running = None
        if not self._ending and self._hooks_before is not None:
            _tasks.give_back()
            events._set_running_loop(None)
            self._thread_id = None
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*self._hooks_before)
        self._ending = True

    def _finish(self, timeout_s):
        """Tasks are cancelled, and may clean up for a while."""
        self._end_running()
        if not self.is_closed():
            self.run_until_complete(self._wind_up(timeout_s))

    async def _wind_up(self, timeout_s):
        tasks = asyncio.all_tasks(self) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        over, left = await asyncio.wait(tasks, timeout=timeout_s) if tasks else ((), ())
        for task in over:
            if not task.cancelled() and task.exception() is not None:
                self.call_exception_handler(
                    {
                        "message": "unhandled exception while the server ended",
                        "exception": task.exception(),
                        "task": task,
                    }
                )
        for task in left:
            base_events.logger.warning("it went on when the server ended, and is lost: %r", task)
        try:
            async with asyncio.timeout(timeout_s):
                await self.shutdown_asyncgens()
        except TimeoutError:
            base_events.logger.warning("asynchronous generators did not end with the server")

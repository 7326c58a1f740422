# SPDX-License-Identifier: Apache-2.0
"""What of ASGI is spoken too seldom to be in C: the lifespan protocol.

C (asgi_lifespan.c) calls it on the home loop: ``startup`` in each worker before it is ready,
``shutdown`` when no request runs any more.
"""

import asyncio
import logging

__all__ = ["Lifespan", "LifespanFailed", "as_coroutine"]

logger = logging.getLogger("pelton")


async def as_coroutine(awaitable):
    """Await what an application returned that is no coroutine itself."""
    return await awaitable


class LifespanFailed(Exception):
    """The application said so, with ``lifespan.startup.failed`` or ``lifespan.shutdown.failed``."""


class Lifespan:
    """One application's lifespan, on one loop."""

    def __init__(self, loop, app, version, required):
        self._loop = loop
        self._app = app
        self._version = version
        self._required = required
        self._state = {}
        self._messages = asyncio.Queue()
        self._answers = {name: loop.create_future() for name in ("startup", "shutdown")}
        self._task = None
        self._received = False  # the application has seen the start-up

    async def _receive(self):
        message = await self._messages.get()
        self._received = True
        return message

    async def _send(self, message):
        kind = message["type"]
        parts = kind.split(".")
        if len(parts) != 3 or parts[0] != "lifespan" or parts[1] not in self._answers:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent in the lifespan scope.")
        answer = self._answers[parts[1]]
        early = parts[1] == "shutdown" and not self._answers["startup"].done()
        if parts[2] not in ("complete", "failed") or answer.done() or early:
            raise RuntimeError(f"Unexpected ASGI message '{kind}' sent in the lifespan scope.")
        if parts[2] == "complete":
            answer.set_result(None)
        else:
            answer.set_exception(LifespanFailed(message.get("message", "") or kind))

    async def _main(self):
        scope = {
            "type": "lifespan",
            "asgi": {"version": f"{self._version}.0", "spec_version": "2.0"},
            "state": self._state,
        }
        if self._version == 2:
            await self._app(scope)(self._receive, self._send)
        else:
            await self._app(scope, self._receive, self._send)

    async def _ask(self, name):
        """Sends a message; waits for its answer or the application's end, whichever is first."""
        self._messages.put_nowait({"type": f"lifespan.{name}"})
        answer = self._answers[name]
        await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
        return answer

    async def _startup(self):
        self._task = self._loop.create_task(self._main(), name="pelton-lifespan")
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        answer = await self._ask("startup")
        if answer.done():
            answer.result()
            return True
        error = None if self._task.cancelled() else self._task.exception()
        if self._required:
            raise error or LifespanFailed("the application returned before it was complete")
        if error is not None and self._received:
            logger.warning(
                "the application failed at its start-up, and has no lifespan: "
                "'--lifespan on' takes that for an error, '--lifespan off' spares it",
                exc_info=error,
            )
        return False

    def startup(self):
        """Run the loop until the application has started up.

        The state for its requests, or None if it does not speak the protocol. An exception: it
        failed.
        """
        try:
            return self._state if self._loop.run_until_complete(self._startup()) else None
        except BaseException:
            self._loop.run_until_complete(self._loop._wind_up(1.0))
            raise

    async def _shutdown(self, timeout_s):
        if self._task.done():
            self._task.result()
            return
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask("shutdown")
                if answer.done():
                    answer.result()
                await self._task
        except TimeoutError:
            if self._task.done():
                raise
            logger.warning("the application's shutdown took longer than %.1f s", timeout_s)

    def shutdown(self, timeout_s):
        """Tell the application that the server ends; wait until it has ended, too."""
        self._loop._end_running()
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._shutdown(timeout_s))

# SPDX-License-Identifier: Apache-2.0
"""The server's cores as ``threading`` knows them: each is a thread with the name ``pelton-core-N``.

src/gateway/host.c makes one before a core's first request, on the core, and ends it with the core.
"""

import threading

__all__ = ["Core"]

# For all of them: it is never cleared, and the larger part of what a Thread takes.
_STARTED = threading.Event()
_STARTED.set()


class Core(threading._DummyThread):
    """A thread that ``threading`` hasn't started; the calling one."""

    def __init__(self, number):
        threading.Thread.__init__(self, name=f"pelton-core-{number}", daemon=True)
        self._started = _STARTED
        self._set_ident()
        self._set_native_id()
        for name in ("_handle", "_os_thread_handle"):  # of 3.13, and from 3.14 on
            if hasattr(self, name):
                setattr(self, name, threading._make_thread_handle(self._ident))
        threading._active[self._ident] = self

    def _end(self):
        """Another thread may have the ident next."""
        if threading._active.get(self._ident) is self:
            del threading._active[self._ident]

    if not hasattr(threading.Thread, "_after_fork"):

        def _reset_internal_locks(self, is_alive):
            """In a child who forked is the main thread; CPython does this itself from 3.13 on."""
            super()._reset_internal_locks(is_alive)
            if is_alive:
                self.__class__ = threading._MainThread
                self._name = "MainThread"
                self._daemonic = False
                self._set_tstate_lock()

# SPDX-License-Identifier: Apache-2.0
"""asyncio's list of all tasks, with its hot half in C (src/gateway/aio_task.c).

asyncio has the tasks in a ``WeakSet`` that its own C code calls ``add()`` of. Nothing public puts
another in its place, and a task costs more there than all the rest of its making: while a worker
serves, that set is of a class of ours. It stays the same object, and does what it did.
"""

import weakref
from asyncio import tasks

__all__ = ["give_back", "take_over"]


def _find():
    # 3.11's name; then that of 3.12 and later.
    return getattr(tasks, "_all_tasks", getattr(tasks, "_scheduled_tasks", None))


def _make_class(add, look):
    class TaskSet(weakref.WeakSet):
        """A WeakSet of tasks; what is derived from it is a WeakSet."""

        def __new__(cls, *args):
            return weakref.WeakSet(*args)

        data = property(look)

    TaskSet.add = add
    return TaskSet


def take_over(loop):
    """LOOP lists the tasks from here on; nothing happens where asyncio has no plain WeakSet."""
    found = _find()
    if type(found) is weakref.WeakSet:
        found.__class__ = _make_class(*loop._list_tasks_by(found))


def give_back():
    """A WeakSet again."""
    found = _find()
    if type(found).__name__ == "TaskSet" and isinstance(found, weakref.WeakSet):
        found.__class__ = weakref.WeakSet

/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks whose first step is made by whoever makes them, and asyncio's list of all tasks.
 *
 * From 3.12 on a task can do that itself (eager_start). 3.11's schedules its first step by call_soon: here that
 * call is taken down instead of queued (pn__task_start), and made as soon as the task is there.
 *
 * A task of 3.11 that ended in its first step, and that nobody else has or ever had a weak reference to, is
 * emptied as the collector does it (tp_clear), and initialised again for the next request (make_task).
 *
 * asyncio lists tasks in a WeakSet, which is Python code: 2,900 instructions for each that comes and goes.
 * pelton._tasks gives that set a class whose add() is list_task here, with a weak reference whose callback is
 * C too. And a task of 3.11 that is in its first step stands aside (aio->unlisted): whoever looks into the set asks
 * for its `data`, and finds the task there (look); one that ends in that step was never in it. As
 * with 3.12's eager tasks, nobody can tell but by asking. */
#include "gateway/aio_loop.h"

#include "gateway/pycompat.h"

/* --- The list of all tasks --------------------------------------------------------------------- */

static int list_task(struct pn__aio *aio, PyObject *task)
{
    struct pn__aio_tasks *t = &aio->tasks;
    if (pn_unlikely(PyList_GET_SIZE(t->pending) > 0)) { /* somebody iterated when they died */
        PyObject *r = PyObject_CallMethod(t->set, "_commit_removals", NULL);
        Py_XDECREF(r);
        if (!r)
            return -1;
    }
    PyObject *ref = PyWeakref_NewRef(task, t->removed);
    int rc = ref ? PySet_Add(t->data, ref) : -1;
    Py_XDECREF(ref);
    return rc;
}

static int list_unlisted(struct pn__aio *aio)
{
    PyObject *task = aio->unlisted;
    if (pn_likely(!task))
        return 0;
    aio->unlisted = NULL;
    return list_task(aio, task);
}

/* The set's add(): any thread, any loop's task. */
static PyObject *add(PyObject *self, PyObject *task)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct pn__task_start *start = aio->start;
    if (start && start->callback && !start->task)
        start->task = task; /* no Python code has run since it scheduled its step: it is this one */
    else if (list_task(aio, task) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The getter of the set's `data`. */
static PyObject *look(PyObject *self, PyObject *set PN_UNUSED)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    return list_unlisted(aio) < 0 ? NULL : Py_NewRef(aio->tasks.data);
}

/* The callback of a listed task's weak reference. */
static PyObject *removed(PyObject *self, PyObject *ref)
{
    struct pn__aio_tasks *t = &((struct pn__aio *)self)->tasks;
    int rc = 0;
    if (pn_likely(t->data != NULL))
        rc = PySet_GET_SIZE(t->iterating) > 0 ? PyList_Append(t->pending, ref)
                                              : PySet_Discard(t->data, ref);
    if (pn_unlikely(rc < 0))
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef add_method = {"add", add, METH_O, "Lists a task."};
static PyMethodDef look_method = {"data", look, METH_O, NULL};
static PyMethodDef removed_method = {"removed", removed, METH_O, NULL};

/* An attribute of SET that is of the exact type TYPE: new, or NULL with an exception. */
static PyObject *part(PyObject *set, const char *name, PyTypeObject *type)
{
    PyObject *o = PyObject_GetAttrString(set, name);
    if (o && Py_IS_TYPE(o, type))
        return o;
    if (o)
        PyErr_Format(PyExc_TypeError, "a WeakSet's %s is no %s", name, type->tp_name);
    Py_XDECREF(o);
    return NULL;
}

PyObject *pn__tasks_list_by(PyObject *self, PyObject *set)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct pn__aio_tasks *t = &aio->tasks;
    pn__tasks_clear(aio);
    PyObject *parts[] = {
        part(set, "data", &PySet_Type),
        part(set, "_pending_removals", &PyList_Type),
        part(set, "_iterating", &PySet_Type),
        PyCFunction_New(&removed_method, self),
    };
    if (parts[0] && parts[1] && parts[2] && parts[3]) {
        t->set = Py_NewRef(set);
        t->data = parts[0];
        t->pending = parts[1];
        t->iterating = parts[2];
        t->removed = parts[3];
        return Py_BuildValue("(NN)", PyCFunction_New(&add_method, self),
                             PyCFunction_New(&look_method, self));
    }
    for (size_t i = 0; i < PN_ARRAY_LEN(parts); i++)
        Py_XDECREF(parts[i]);
    return NULL;
}

int pn__tasks_traverse(struct pn__aio *aio, visitproc visit, void *arg)
{
    Py_VISIT(aio->tasks.set);
    Py_VISIT(aio->tasks.removed);
    return 0;
}

void pn__tasks_clear(struct pn__aio *aio)
{
    struct pn__aio_tasks old = aio->tasks;
    aio->tasks = (struct pn__aio_tasks){0};
    Py_XDECREF(old.set);
    Py_XDECREF(old.data);
    Py_XDECREF(old.pending);
    Py_XDECREF(old.iterating);
    Py_XDECREF(old.removed);
    Py_CLEAR(aio->spare_task);
}

/* --- The first step ---------------------------------------------------------------------------- */

void pn__task_scheduled(struct pn__aio *aio, PyObject *callback, PyObject *context)
{
    struct pn__task_start *start = aio->start;
    PN_ASSERT(pn__task_starts(aio));
    start->callback = Py_NewRef(callback);
    start->context = Py_NewRef(context);
}

/* As pn__handle_run of what was scheduled. */
static int first_step(struct pn__aio *aio, const struct pn__task_start *start)
{
    PyObject *result = NULL;
    if (pn_unlikely(list_unlisted(aio) < 0)) /* a callback runs the loop, in another's first step */
        PyErr_WriteUnraisable(NULL);
    aio->unlisted = start->task;
    if (pn_likely(PyContext_Enter(start->context) == 0)) {
        result = PyObject_Call(start->callback, aio->no_args, NULL);
        if (pn_unlikely(PyContext_Exit(start->context) < 0))
            Py_CLEAR(result);
    }
    if (pn_likely(result != NULL)) {
        Py_DECREF(result);
        return 0;
    }
    return pn__handle_failed(aio, start->callback, start->context);
}

/* A new task, or one that was as good as dead: nothing but the object itself is left of it. */
static PyObject *make_task(struct pn__aio *aio, PyObject *type, PyObject *args, PyObject *named)
{
    PyObject *task = aio->spare_task;
    if (pn_unlikely(!task))
        return PyObject_Call(type, args, named);
    aio->spare_task = NULL;
    PyObject_GC_Track(task);
    if (pn_likely(Py_TYPE(task)->tp_init(task, args, named) == 0))
        return task;
    Py_DECREF(task);
    return NULL;
}

void pn_aio_home_drop_task(struct pn_aio_home *home, struct _object *type, struct _object *task)
{
    struct pn__aio *aio = (struct pn__aio *)pn_aio_home_loop(home);
    /* 3.11's own Task is no heap type: what somebody has put in its place may have a __del__. */
    if (PN_PYCOMPAT_EAGER_TASKS || Py_REFCNT(task) != 1 || pn_pycompat_has_weakrefs(task) ||
        !Py_IS_TYPE(task, (PyTypeObject *)type) ||
        PyType_HasFeature((PyTypeObject *)type, Py_TPFLAGS_HEAPTYPE)) {
        Py_DECREF(task);
        return;
    }
    PyObject_GC_UnTrack(task); /* nobody finds it any more */
    (void)Py_TYPE(task)->tp_clear(task);
    /* That may have run code: another request's task may rest by now. */
    if (pn_unlikely(aio->spare_task || aio->closed || pn_pycompat_has_dict(task)))
        Py_DECREF(task);
    else
        aio->spare_task = task;
}

int pn_aio_home_start_task(struct pn_aio_home *home, struct _object *type, struct _object *args,
                           struct _object *named, struct _object **task)
{
    struct pn__aio *aio = (struct pn__aio *)pn_aio_home_loop(home);
    if (PN_PYCOMPAT_EAGER_TASKS) {
        *task = PyObject_Call(type, args, named);
        return 0;
    }
    struct pn__task_start start = {NULL, NULL, NULL};
    int rc = 0;
    int gc = pn_pycompat_hold_gc(); /* a finaliser's call_soon would be taken for the task's */
    aio->start = &start;
    *task = make_task(aio, type, args, named);
    aio->start = NULL;
    pn_pycompat_release_gc(gc);
    if (pn_likely(*task && start.callback))
        rc = first_step(aio, &start);
    Py_XDECREF(start.callback);
    Py_XDECREF(start.context);
    return rc;
}

void pn_aio_home_task_started(struct pn_aio_home *home, struct _object *task, bool over)
{
    struct pn__aio *aio = (struct pn__aio *)pn_aio_home_loop(home);
    if (aio->unlisted != task)
        return;
    if (pn_likely(over))
        aio->unlisted = NULL;
    else if (pn_unlikely(list_unlisted(aio) < 0))
        PyErr_WriteUnraisable(task);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What receive() and send() return: an object that does its work when it is first stepped, and needs no
 * event loop when the work can be done at once. To Python it is a coroutine (collections.abc.Coroutine), so
 * that it can be awaited, and made a task of.
 *
 *   NEW --step: work is done--------------------------------------------> OVER
 *    |                                                                     ^
 *    +--it must wait: a future, yielded as a coroutine's await does--> WAITING --woken: the work again--+
 *
 * A wake says only that there may be something new; more than one awaitable may wait. */
#include "gateway/asgi.h"

enum { NEW = 0, RUNNING = 1, WAITING = 2, OVER = 3 };

/* --- Making and ending ------------------------------------------------------------------------- */

PyObject *pn__asgi_awaitable(struct pn__channel *c, PyObject *message)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn__awaitable *a = asgi->free_awaitables;
    if (pn_likely(a)) {
        asgi->free_awaitables = (struct pn__awaitable *)a->channel;
        asgi->free_awaitable_count--;
        PyObject_Init(&a->ob_base, asgi->awaitable_type);
    } else {
        a = PyObject_GC_New(struct pn__awaitable, asgi->awaitable_type);
        if (!a)
            return NULL;
    }
    a->channel = (struct pn__channel *)Py_NewRef(&c->ob_base);
    pn_list_init(&a->node);
    a->message = Py_XNewRef(message);
    a->future = a->iterator = a->body = NULL;
    a->sent = a->size = 0;
    a->offset = 0;
    a->fd = -1;
    a->last = false;
    a->state = NEW;
    PyObject_GC_Track(a);
    return &a->ob_base;
}

/* Nothing waits for it any more. */
static void stop_waiting(struct pn__awaitable *a)
{
    pn_list_remove(&a->node);
    Py_CLEAR(a->iterator);
    Py_CLEAR(a->future);
}

/* Its work is done; it waits for nothing. */
static inline void done(struct pn__awaitable *a)
{
    if (a->message && a->state != NEW)
        a->channel->sending = false;
    a->state = OVER;
    if (pn_unlikely(a->fd >= 0))
        (void)close(a->fd);
    a->fd = -1;
    Py_CLEAR(a->body);
    Py_CLEAR(a->message);
}

static void over(struct pn__awaitable *a)
{
    /* Cancelled in the middle: what follows would stand where the rest of this should. */
    if (a->state == WAITING && a->sent > 0 && a->sent < a->size)
        a->channel->torn = true;
    stop_waiting(a);
    done(a);
}

static int awaitable_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pn__awaitable *a = (struct pn__awaitable *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(a->channel);
    Py_VISIT(a->message);
    Py_VISIT(a->future);
    Py_VISIT(a->iterator);
    return 0;
}

static int awaitable_clear(PyObject *self)
{
    over((struct pn__awaitable *)self);
    return 0;
}

static void awaitable_dealloc(PyObject *self)
{
    struct pn__awaitable *a = (struct pn__awaitable *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (pn_unlikely(a->state != OVER))
        over(a);
    struct pn__channel *c = a->channel;
    struct pn__asgi *asgi = c->gw ? c->gw->asgi : NULL;
    if (pn_likely(asgi && asgi->free_awaitable_count < PN__ASGI_FREE_MAX && !c->gw->stopped)) {
        a->channel = (struct pn__channel *)asgi->free_awaitables;
        asgi->free_awaitables = a;
        asgi->free_awaitable_count++;
    } else {
        PyObject_GC_Del(self);
    }
    Py_DECREF(type);
    Py_DECREF(&c->ob_base);
}

void pn__asgi_await_fini(struct pn__asgi *asgi)
{
    while (asgi->free_awaitables) {
        struct pn__awaitable *a = asgi->free_awaitables;
        asgi->free_awaitables = (struct pn__awaitable *)a->channel;
        PyObject_GC_Del(a);
    }
    asgi->free_awaitable_count = 0;
    Py_CLEAR(asgi->awaitable_type);
}

/* --- Waiting ----------------------------------------------------------------------------------- */

/* One that was cancelled stays so; its task is on its way to throw(). */
static void resolve(struct pn__asgi *asgi, PyObject *future)
{
    PyObject *args[2] = {future, Py_None};
    PyObject *done = PyObject_VectorcallMethod(asgi->words[PN__A_DONE], args,
                                               1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    PyObject *set = NULL;
    if (done == Py_False)
        set = PyObject_VectorcallMethod(asgi->words[PN__A_SET_RESULT], args, 2, NULL);
    if (PyErr_Occurred()) /* the loop has been closed */
        PyErr_WriteUnraisable(future);
    Py_XDECREF(done);
    Py_XDECREF(set);
}

void pn__asgi_wake_all(struct pn__channel *c)
{
    struct pn_list todo, *node;
    pn_list_init(&todo);
    pn_list_splice_back(&todo, &c->waiters);
    while ((node = pn_list_pop_front(&todo))) {
        struct pn__awaitable *a = pn_list_entry(node, struct pn__awaitable, node);
        PyObject *future = Py_XNewRef(a->future);
        if (!future)
            continue; /* it is being made, and will look again */
        resolve(c->gw->asgi, future);
        Py_DECREF(future);
    }
}

/* Makes the future that A waits on; 0, or -1 with an exception. */
static int make_future(struct pn__awaitable *a)
{
    struct pn__asgi *asgi = a->channel->gw->asgi;
    PyObject *args[1] = {pn_aio_home_loop(asgi->config.home)};
    a->future = PyObject_Vectorcall(asgi->future_type, args, 0, asgi->future_names);
    a->iterator = a->future ? PyObject_GetIter(a->future) : NULL;
    return a->iterator ? 0 : -1;
}

/* --- Steps ------------------------------------------------------------------------------------- */

static enum pn__asgi_step work(struct pn__awaitable *a, PyObject **result)
{
    struct pn__channel *c = a->channel;
    const struct pn_core *core = pn_core_self();
    if (pn_unlikely(!c->gw || !core || pn_core_number(core) != 0)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "receive() and send() work in the server's event loop only");
        return PN__ASGI_FAIL;
    }
    if (!a->message)
        return c->ws_stage ? pn__asgi_ws_receive(c, result) : pn__asgi_http_receive(c, result);
    /* An open WebSocket's messages are whole ones: more than one task may wait to send. */
    if (a->state == NEW && c->ws_stage != PN__ASGI_WS_OPEN) {
        if (pn_unlikely(c->sending)) {
            PyErr_SetString(PyExc_RuntimeError, "send() is under way already");
            return PN__ASGI_FAIL;
        }
        c->sending = true;
    }
    a->state = RUNNING;
    *result = Py_None;
    enum pn__asgi_step step = c->ws_stage ? pn__asgi_ws_send(c, a) : pn__asgi_http_send(c, a);
    if (pn_likely(step == PN__ASGI_DONE))
        Py_INCREF(Py_None);
    return step;
}

/* Works until it is done, or has a future to yield. */
static PySendResult go_on(struct pn__awaitable *a, PyObject **result)
{
    for (;;) {
        *result = NULL;
        enum pn__asgi_step step = work(a, result);
        if (pn_likely(step == PN__ASGI_DONE)) {
            done(a);
            return PYGEN_RETURN;
        }
        if (step == PN__ASGI_FAIL)
            break;
        a->state = WAITING;
        pn_list_push_back(&a->channel->waiters, &a->node);
        if (make_future(a) < 0)
            break;
        if (pn_unlikely(!pn_list_linked(&a->node))) { /* woken while it was being made */
            stop_waiting(a);
            continue;
        }
        PySendResult r = PyIter_Send(a->iterator, Py_None, result);
        if (pn_likely(r == PYGEN_NEXT))
            return r;
        Py_CLEAR(*result);
        if (r == PYGEN_ERROR)
            break;
        stop_waiting(a);
    }
    *result = NULL;
    over(a);
    return PYGEN_ERROR;
}

static PySendResult awaitable_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct pn__awaitable *a = (struct pn__awaitable *)self;
    *result = NULL;
    switch (a->state) {
    case NEW:
        if (pn_unlikely(value != Py_None)) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        return go_on(a, result);
    case WAITING: {
        PySendResult r = PyIter_Send(a->iterator, value, result);
        if (r == PYGEN_NEXT)
            return r;
        Py_CLEAR(*result);
        if (r == PYGEN_ERROR) {
            over(a);
            return r;
        }
        stop_waiting(a);
        return go_on(a, result);
    }
    case RUNNING:
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return PYGEN_ERROR;
    default:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
}

/* As a generator returns: StopIteration with the value, or nothing set for None. */
static PyObject *returned(PySendResult r, PyObject *result)
{
    if (r == PYGEN_NEXT)
        return result;
    if (r == PYGEN_RETURN) {
        if (result != Py_None)
            PyErr_SetObject(PyExc_StopIteration, result);
        Py_DECREF(result);
    }
    return NULL;
}

static PyObject *awaitable_next(PyObject *self)
{
    PyObject *result;
    PySendResult r = awaitable_am_send(self, Py_None, &result);
    return returned(r, result);
}

static PyObject *awaitable_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    PySendResult r = awaitable_am_send(self, value, &result);
    PyObject *yielded = returned(r, result);
    if (!yielded && r == PYGEN_RETURN && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopIteration);
    return yielded;
}

/* throw(value), or the older throw(type, value, traceback): raises it. */
static PyObject *raise(PyObject *const *args, Py_ssize_t n)
{
    PyObject *exc = n > 1 && args[1] != Py_None ? args[1] : args[0];
    if (PyExceptionInstance_Check(exc))
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    else if (PyExceptionClass_Check(exc))
        PyErr_SetNone(exc);
    else if (n > 1 && PyExceptionClass_Check(args[0]))
        PyErr_SetObject(args[0], exc);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    return NULL;
}

static PyObject *awaitable_throw(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    struct pn__awaitable *a = (struct pn__awaitable *)self;
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes an exception");
        return NULL;
    }
    if (a->state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    if (a->state == OVER) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return NULL;
    }
    over(a);
    return raise(args, n);
}

static PyObject *awaitable_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__awaitable *a = (struct pn__awaitable *)self;
    if (a->state == RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    over(a);
    Py_RETURN_NONE;
}

/* --- The type ---------------------------------------------------------------------------------- */

static PyMethodDef awaitable_methods[] = {
    {"send", awaitable_send, METH_O, "As a coroutine's."},
    {"throw", (PyCFunction)(void (*)(void))awaitable_throw, METH_FASTCALL, "As a coroutine's."},
    {"close", awaitable_close, METH_NOARGS, "As a coroutine's."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_tp_dealloc, awaitable_dealloc},
    {Py_tp_traverse, awaitable_traverse},
    {Py_tp_clear, awaitable_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, awaitable_next},
    {Py_tp_methods, awaitable_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaitable_am_send},
    {0, NULL},
};

static PyType_Spec awaitable_spec = {
    .name = "pelton.Awaitable",
    .basicsize = sizeof(struct pn__awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = awaitable_slots,
};

int pn__asgi_await_init(struct pn__asgi *asgi)
{
    asgi->awaitable_type = (PyTypeObject *)PyType_FromSpec(&awaitable_spec);
    return asgi->awaitable_type ? 0 : -1;
}

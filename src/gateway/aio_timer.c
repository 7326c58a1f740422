/* SPDX-License-Identifier: Apache-2.0 */
/* call_later and call_at: a handle with a pn_timer inside. A due timer's handle moves to the ready queue. */
#include <math.h>

#include "gateway/aio_loop.h"

#include "base/clock.h"

/* Rounded up, so that loop.time() is never before when() in the callback. */
static int64_t deadline_of(double when)
{
    double ns = ceil(when * 1e9);
    if (!(ns < (double)INT64_MAX)) /* a NaN comes here too: it never comes */
        return PN_NEVER_NS;
    return ns < (double)-INT64_MAX ? -INT64_MAX : (int64_t)ns;
}

static int arm(struct pn__aio *aio, struct pn__timer_handle *t)
{
    if (pn_timer_set(aio->loop, &t->timer, t->deadline_ns) < 0)
        return -1;
    pn_list_push_back(&aio->armed, &t->node);
    aio->armed_count++;
    return 0;
}

bool pn__timer_disarm(struct pn__timer_handle *t)
{
    struct pn__aio *aio = t->base.aio;
    if (!pn_timer_is_set(&t->timer))
        return false;
    pn_timer_cancel(aio->loop, &t->timer);
    pn_list_remove(&t->node);
    aio->armed_count--;
    return true;
}

void pn__aio_arm_waiting(struct pn__aio *aio)
{
    struct pn__handle *h;
    while ((h = pn__handles_pop(&aio->unarmed))) {
        /* A cancelled one has references to drop, which is done where Python code may run; and without
         * memory for the heap it is better early than never. */
        if (h->cancelled || arm(aio, pn__handle_timer(h)) < 0)
            pn__handles_push(&aio->ready, h);
    }
}

/* ARGS are the callback's. */
static PyObject *schedule(struct pn__aio *aio, double when, int64_t deadline_ns, PyObject *callback,
                          PyObject *const *args, Py_ssize_t n, PyObject *context)
{
    struct pn__handle *h = pn__handle_new(aio, true, callback, args, n, context);
    if (!h)
        return NULL;
    struct pn__timer_handle *t = pn__handle_timer(h);
    t->when = when;
    t->deadline_ns = deadline_ns;
    /* Making it may have run code (a collection) that closed the loop. */
    if (pn_unlikely(pn__aio_check_closed(aio) < 0)) {
        Py_DECREF(h);
        return NULL;
    }
    if (pn_likely(pn__aio_may_touch(aio))) {
        if (pn_unlikely(arm(aio, t) < 0)) {
            Py_DECREF(h);
            return PyErr_NoMemory();
        }
        return Py_NewRef((PyObject *)h); /* one reference is the timer's */
    }
    Py_INCREF(h);
    pn__handles_push(&aio->unarmed, h);
    pn__aio_wake(aio);
    return (PyObject *)h;
}

/* What call_later and call_at have in common: NUMBER is the delay or the time. */
struct call {
    double number;
    PyObject *callback; /* borrowed */
    PyObject *context;
    PyObject *const *args;
    Py_ssize_t n;
};

/* NUMBER is the name of the first argument. */
static int parse(struct pn__aio *aio, const char *name, const char *number, PyObject *const *args,
                 Py_ssize_t n, PyObject *kw, struct call *call)
{
    PyObject *value = n > 0 ? args[0] : NULL;
    call->callback = n > 1 ? args[1] : NULL;
    call->args = args + 2;
    call->n = n > 2 ? n - 2 : 0;
    if (pn_unlikely(kw != NULL)) {
        const struct pn__argument named[] = {
            {number, &value}, {"callback", &call->callback}, {"context", &call->context}};
        if (pn__aio_keywords(name, args + n, kw, named, PN_ARRAY_LEN(named)) < 0)
            return -1;
    }
    if (pn_unlikely(!value || !call->callback)) {
        PyErr_Format(PyExc_TypeError, "%s() needs a number and a callback", name);
        return -1;
    }
    if (pn_unlikely(value == Py_None)) {
        PyErr_Format(PyExc_TypeError, "%s must not be None", number);
        return -1;
    }
    call->number = PyFloat_AsDouble(value);
    if (pn_unlikely(call->number == -1.0 && PyErr_Occurred()))
        return -1;
    if (pn_unlikely(pn__aio_check_closed(aio) < 0))
        return -1;
    return pn_unlikely(aio->debug) ? pn__aio_check_debug(aio, call->callback, name, false) : 0;
}

PyObject *pn__aio_call_later(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kw)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct call call = {0};
    if (parse(aio, "call_later", "delay", args, n, kw, &call) < 0)
        return NULL;
    double when = (double)pn_clock_mono_ns() / 1e9 + call.number;
    return schedule(aio, when, deadline_of(when), call.callback, call.args, call.n, call.context);
}

PyObject *pn__aio_call_at(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kw)
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct call call = {0};
    if (parse(aio, "call_at", "when", args, n, kw, &call) < 0)
        return NULL;
    return schedule(aio, call.number, deadline_of(call.number), call.callback, call.args, call.n,
                    call.context);
}

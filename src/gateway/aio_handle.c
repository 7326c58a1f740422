/* SPDX-License-Identifier: Apache-2.0 */
/* Handles: one object for one scheduled call, its arguments inside it. To Python they look like
 * asyncio.Handle and asyncio.TimerHandle, private attributes included, since asyncio's own code reads those.
 *
 * A handle belongs to the caller who got it and to the queue, timer or descriptor it waits for. Dead ones
 * are kept by their loop for reuse: each holds a reference to the loop while it lives, so the loop
 * dies last. What is rare (repr, errors, debug mode) is done in Python, by methods of pelton.Loop. */
#include "gateway/aio_loop.h"

#include <stddef.h>
#include <structmember.h>

#include "gateway/pycompat.h"

/* --- Making and ending ------------------------------------------------------------------------- */

static struct pn__handle *take(struct pn__aio *aio, bool is_timer)
{
    struct pn__handle **kept = is_timer ? &aio->kept_timers : &aio->kept_handles;
    PyTypeObject *type = is_timer ? aio->timer_type : aio->handle_type;
    struct pn__handle *h = *kept;
    if (!h)
        return is_timer ? &PyObject_GC_New(struct pn__timer_handle, type)->base
                        : PyObject_GC_New(struct pn__handle, type);
    *kept = h->next;
    if (is_timer)
        aio->kept_timer_count--;
    else
        aio->kept_handle_count--;
    PyObject_Init(&h->ob_base, type);
    return h;
}

/* H is dead and has no fields any more. */
static void keep_or_free(struct pn__aio *aio, struct pn__handle *h)
{
    struct pn__handle **kept = h->is_timer ? &aio->kept_timers : &aio->kept_handles;
    unsigned *count = h->is_timer ? &aio->kept_timer_count : &aio->kept_handle_count;
    if (*count >= PN__AIO_HANDLES_KEEP) {
        PyObject_GC_Del(h);
        return;
    }
    h->next = *kept;
    *kept = h;
    ++*count;
}

static void free_list(struct pn__handle *h)
{
    while (h) {
        struct pn__handle *next = h->next;
        PyObject_GC_Del(h);
        h = next;
    }
}

void pn__handles_free_kept(struct pn__aio *aio)
{
    free_list(aio->kept_handles);
    free_list(aio->kept_timers);
    aio->kept_handles = aio->kept_timers = NULL;
    aio->kept_handle_count = aio->kept_timer_count = 0;
}

/* New. */
static PyObject *context_for(PyObject *context)
{
    if (!context || context == Py_None)
        return PyContext_CopyCurrent();
    if (PyContext_CheckExact(context))
        return Py_NewRef(context);
    PyErr_Format(PyExc_TypeError, "context must be a contextvars.Context, not %.100s",
                 Py_TYPE(context)->tp_name);
    return NULL;
}

static int set_args(struct pn__handle *h, PyObject *const *args, Py_ssize_t count)
{
    h->more_args = h->args[0] = h->args[1] = NULL;
    h->arg_count = 0;
    if (count > PN__AIO_INLINE_ARGS) {
        h->more_args = PyTuple_New(count);
        if (!h->more_args)
            return -1;
        for (Py_ssize_t i = 0; i < count; i++)
            PyTuple_SET_ITEM(h->more_args, i, Py_NewRef(args[i]));
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        h->args[i] = Py_NewRef(args[i]);
    h->arg_count = (uint8_t)count;
    return 0;
}

static void fire(struct pn_timer *timer)
{
    struct pn__timer_handle *t = pn_container_of(timer, struct pn__timer_handle, timer);
    struct pn__aio *aio = t->base.aio;
    pn_list_remove(&t->node);
    aio->armed_count--;
    pn__handles_push(&aio->ready, &t->base); /* the timer's reference becomes the queue's */
}

struct pn__handle *pn__handle_new(struct pn__aio *aio, bool is_timer, PyObject *callback,
                                  PyObject *const *args, Py_ssize_t count, PyObject *context)
{
    PyObject *ctx = context_for(context);
    if (!ctx)
        return NULL;
    struct pn__handle *h = take(aio, is_timer);
    if (!h) {
        Py_DECREF(ctx);
        return NULL;
    }
    h->aio = (struct pn__aio *)Py_NewRef((PyObject *)aio);
    h->next = NULL;
    h->callback = Py_NewRef(callback);
    h->context = ctx;
    h->source = h->repr = h->weakrefs = NULL;
    h->native = NULL;
    h->is_timer = is_timer;
    h->cancelled = h->queued = false;
    if (is_timer) {
        struct pn__timer_handle *t = pn__handle_timer(h);
        pn_list_init(&t->node);
        pn_timer_init(&t->timer, fire);
    }
    int rc = set_args(h, args, count);
    PyObject_GC_Track(h);
    if (rc == 0 && pn_unlikely(aio->debug)) {
        h->source = PyObject_CallMethod((PyObject *)aio, "_handle_source", NULL);
        rc = h->source ? 0 : -1;
    }
    if (rc == 0)
        return h;
    Py_DECREF(h);
    return NULL;
}

static int handle_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pn__handle *h = (struct pn__handle *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(h->aio);
    Py_VISIT(h->callback);
    for (int i = 0; i < PN__AIO_INLINE_ARGS; i++)
        Py_VISIT(h->args[i]);
    Py_VISIT(h->more_args);
    Py_VISIT(h->context);
    Py_VISIT(h->source);
    return 0;
}

/* What a cancelled handle lets go. All fields are settled before the first reference is dropped: that can
 * run code. */
static void drop_call(struct pn__handle *h)
{
    PyObject *callback = h->callback;
    PyObject *first = h->args[0];
    PyObject *second = h->args[1];
    PyObject *more = h->more_args;
    h->callback = h->args[0] = h->args[1] = h->more_args = NULL;
    h->arg_count = 0;
    Py_XDECREF(callback);
    Py_XDECREF(first);
    Py_XDECREF(second);
    Py_XDECREF(more);
}

/* aio stays: the loop's own clear breaks that cycle. */
static int handle_clear(PyObject *self)
{
    struct pn__handle *h = (struct pn__handle *)self;
    drop_call(h);
    Py_CLEAR(h->source);
    return 0;
}

static void handle_dealloc(PyObject *self)
{
    struct pn__handle *h = (struct pn__handle *)self;
    struct pn__aio *aio = h->aio;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PN_ASSERT(!h->queued);
    if (pn_unlikely(h->weakrefs != NULL))
        PyObject_ClearWeakRefs(self);
    drop_call(h);
    Py_CLEAR(h->context);
    Py_CLEAR(h->source);
    Py_CLEAR(h->repr);
    keep_or_free(aio, h);
    Py_DECREF(type);
    Py_DECREF((PyObject *)aio);
}

/* --- Running and cancelling -------------------------------------------------------------------- */

/* The exception that is set goes to the loop's exception handler: 0, or -1 with one that ends the loop. */
PN_COLD static int failed(struct pn__handle *h)
{
    if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
        return -1;
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *r = PyObject_CallMethod((PyObject *)h->aio, "_handle_failed", "OO", h, exc);
    Py_DECREF(exc);
    if (r) {
        Py_DECREF(r);
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_SystemExit) || PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
        return -1;
    PyErr_WriteUnraisable((PyObject *)h->aio);
    return 0;
}

PN_COLD int pn__handle_failed(struct pn__aio *aio, PyObject *callback, PyObject *context)
{
    PyObject *exc = pn_pycompat_take_exception();
    struct pn__handle *h = pn__handle_new(aio, false, callback, NULL, 0, context);
    if (!h)
        PyErr_WriteUnraisable(callback);
    pn_pycompat_restore_exception(exc);
    int rc = h ? failed(h) : -1;
    Py_XDECREF(h);
    return rc;
}

/* The callback may cancel its own handle: references of our own hold what is called. */
static PyObject *call(struct pn__handle *h)
{
    PyObject *callback = Py_NewRef(h->callback);
    PyObject *result;
    if (h->native) {
        result = h->native(PyCFunction_GET_SELF(callback)) < 0 ? NULL : Py_NewRef(Py_None);
    } else if (pn_unlikely(h->more_args != NULL)) {
        PyObject *args = Py_NewRef(h->more_args);
        result = PyObject_Call(callback, args, NULL);
        Py_DECREF(args);
    } else {
        size_t n = h->arg_count;
        PyObject *stack[1 + PN__AIO_INLINE_ARGS] = {NULL, h->args[0], h->args[1]};
        Py_XINCREF(stack[1]);
        Py_XINCREF(stack[2]);
        result = PyObject_Vectorcall(callback, stack + 1, n | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_XDECREF(stack[1]);
        Py_XDECREF(stack[2]);
    }
    Py_DECREF(callback);
    return result;
}

int pn__handle_run(struct pn__handle *h)
{
    if (pn_unlikely(!h->callback))
        return 0;
    PyObject *context = h->context;
    PyObject *result = NULL;
    if (pn_likely(PyContext_Enter(context) == 0)) {
        result = call(h);
        if (pn_unlikely(PyContext_Exit(context) < 0))
            Py_CLEAR(result);
    }
    if (pn_unlikely(!result))
        return failed(h);
    Py_DECREF(result);
    return 0;
}

int pn__handle_cancel(struct pn__handle *h)
{
    if (h->cancelled)
        return 0;
    h->cancelled = true;
    if (pn_unlikely(h->aio->debug)) {
        /* For "Executing <Handle ...> took ..." and its like. */
        h->repr = PyObject_Repr((PyObject *)h);
        if (!h->repr)
            return -1;
    }
    if (h->is_timer && pn__aio_may_touch(h->aio) && pn__timer_disarm(pn__handle_timer(h)))
        Py_DECREF(h); /* the timer's: the caller has one of its own */
    drop_call(h);
    return 0;
}

/* --- What Python sees -------------------------------------------------------------------------- */

static PyObject *handle_cancel(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (pn__handle_cancel((struct pn__handle *)self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *handle_cancelled(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct pn__handle *)self)->cancelled);
}

static PyObject *handle_run(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (pn__handle_run((struct pn__handle *)self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *handle_get_context(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return Py_NewRef(((struct pn__handle *)self)->context);
}

static PyObject *timer_when(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyFloat_FromDouble(((struct pn__timer_handle *)self)->when);
}

static PyObject *handle_repr(PyObject *self)
{
    struct pn__handle *h = (struct pn__handle *)self;
    if (h->repr)
        return Py_NewRef(h->repr);
    return PyObject_CallMethod((PyObject *)h->aio, "_handle_repr", "O", self);
}

static PyObject *get_callback(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *callback = ((struct pn__handle *)self)->callback;
    return Py_NewRef(callback ? callback : Py_None);
}

static PyObject *get_args(PyObject *self, void *Py_UNUSED(closure))
{
    struct pn__handle *h = (struct pn__handle *)self;
    if (!h->callback)
        Py_RETURN_NONE;
    if (h->more_args)
        return Py_NewRef(h->more_args);
    return PyTuple_Pack(h->arg_count, h->args[0], h->args[1]);
}

static PyObject *get_cancelled(PyObject *self, void *Py_UNUSED(closure))
{
    return handle_cancelled(self, NULL);
}

static PyObject *get_scheduled(PyObject *self, void *Py_UNUSED(closure))
{
    struct pn__timer_handle *t = (struct pn__timer_handle *)self;
    return PyBool_FromLong(pn_timer_is_set(&t->timer));
}

static PyObject *get_when(PyObject *self, void *Py_UNUSED(closure))
{
    return timer_when(self, NULL);
}

static PyMethodDef handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, "Keep the callback from being called."},
    {"cancelled", handle_cancelled, METH_NOARGS, "Whether cancel() was called."},
    {"get_context", handle_get_context, METH_NOARGS, "The context that the callback runs in."},
    {"_run", handle_run, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, "Keep the callback from being called."},
    {"cancelled", handle_cancelled, METH_NOARGS, "Whether cancel() was called."},
    {"get_context", handle_get_context, METH_NOARGS, "The context that the callback runs in."},
    {"when", timer_when, METH_NOARGS, "The time for which it is scheduled, by the loop's clock."},
    {"_run", handle_run, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct pn__handle, weakrefs), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(struct pn__handle, aio), READONLY, NULL},
    {"_context", T_OBJECT, offsetof(struct pn__handle, context), READONLY, NULL},
    {"_source_traceback", T_OBJECT, offsetof(struct pn__handle, source), READONLY, NULL},
    {"_repr", T_OBJECT, offsetof(struct pn__handle, repr), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef handle_getset[] = {
    {"_callback", get_callback, NULL, NULL, NULL},
    {"_args", get_args, NULL, NULL, NULL},
    {"_cancelled", get_cancelled, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef timer_getset[] = {
    {"_callback", get_callback, NULL, NULL, NULL},
    {"_args", get_args, NULL, NULL, NULL},
    {"_cancelled", get_cancelled, NULL, NULL, NULL},
    {"_scheduled", get_scheduled, NULL, NULL, NULL},
    {"_when", get_when, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define TYPE_FLAGS                                                                 \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | \
     Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Slot handle_slots[] = {
    {Py_tp_dealloc, handle_dealloc}, {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},     {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods}, {Py_tp_members, members},
    {Py_tp_getset, handle_getset},   {0, NULL},
};

static PyType_Slot timer_slots[] = {
    {Py_tp_dealloc, handle_dealloc}, {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},     {Py_tp_repr, handle_repr},
    {Py_tp_methods, timer_methods},  {Py_tp_members, members},
    {Py_tp_getset, timer_getset},    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "pelton._pelton.Handle",
    .basicsize = sizeof(struct pn__handle),
    .flags = TYPE_FLAGS,
    .slots = handle_slots,
};

static PyType_Spec timer_spec = {
    .name = "pelton._pelton.TimerHandle",
    .basicsize = sizeof(struct pn__timer_handle),
    .flags = TYPE_FLAGS,
    .slots = timer_slots,
};

int pn__handle_types(PyObject *module, PyTypeObject **handle, PyTypeObject **timer)
{
    *handle = (PyTypeObject *)PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    *timer = (PyTypeObject *)PyType_FromModuleAndSpec(module, &timer_spec, NULL);
    if (*handle && *timer)
        return 0;
    Py_CLEAR(*handle);
    Py_CLEAR(*timer);
    return -1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* wsgi.input: a request's body as a binary stream (PEP 3333, with wsgi.input_terminated).
 *
 * Bytes are pulled from the exchange as they are asked for; where none are here the core waits. read(n)
 * gives n bytes, fewer only at the end. A body that was cut short, timed out or broke its framing
 * raises ClientDisconnected (a ConnectionError, thus an OSError) and never looks like an end. The
 * object belongs to its request's core: another thread that reads is told so. */
#include <errno.h>

#include "gateway/internal.h"

struct input {
    PyObject_HEAD struct pn__request *r; /* NULL: no body, or the request is over */
    bool over; /* the request is over: reading is an error, unlike for an empty body */
};

enum { FIRST_BLOCK = 64 * 1024, LINE_FIRST_BLOCK = 256 };

/* A bytes object that grows. */
struct block {
    PyObject *bytes; /* owned; NULL before the first byte */
    size_t used;
    size_t capacity;
};

/* Room for N more bytes, at least; 0 or -ENOMEM (no exception: the caller owns the loop). */
static int block_reserve(struct block *b, size_t n, size_t first)
{
    if (b->capacity - b->used >= n)
        return 0;
    if (n > (size_t)PY_SSIZE_T_MAX / 2 - b->used)
        return -ENOMEM;
    size_t capacity = pn_max_size(b->used + n, pn_max_size(b->capacity * 2, first));
    if (!b->bytes)
        b->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
    else
        (void)_PyBytes_Resize(&b->bytes, (Py_ssize_t)capacity); /* NULL after a failure */
    if (!b->bytes) {
        PyErr_Clear();
        b->used = b->capacity = 0;
        return -ENOMEM;
    }
    b->capacity = capacity;
    return 0;
}

static void block_add(struct block *b, const char *p, size_t n)
{
    memcpy(PyBytes_AS_STRING(b->bytes) + b->used, p, n);
    b->used += n;
}

/* Steals the block: new, or NULL with an exception. */
static PyObject *block_finish(struct block *b)
{
    if (!b->bytes)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (b->used < b->capacity)
        (void)_PyBytes_Resize(&b->bytes, (Py_ssize_t)b->used);
    return b->bytes;
}

/* The request to read of; NULL with *EMPTY set for a bodiless one, or with an exception. */
static struct pn__request *reader(PyObject *self, bool *empty)
{
    struct input *in = (struct input *)self;
    *empty = false;
    if (pn_likely(in->r && in->r->core == pn_core_self()))
        return in->r;
    if (in->r) {
        PyErr_SetString(PyExc_RuntimeError,
                        "wsgi.input can only be read by the thread that runs its request");
    } else if (in->over) {
        PyErr_SetString(PyExc_ValueError, "wsgi.input was read after the end of its request");
    } else {
        *empty = true;
    }
    return NULL;
}

/* Owner. What is here; waits until something is. */
static enum pn_body next_view(struct pn__request *r, struct pn_str *view)
{
    enum pn_body have;
    while ((have = pn_exchange_body_peek(r->x, view)) == PN_BODY_AGAIN)
        if (pn__request_wait(r, PN_NOTIFY_BODY) < 0)
            return PN_BODY_ERROR;
    return have;
}

/* Owner. Up to SIZE bytes, and no further than the first newline when LINE; 0, or negative errno. */
static int fill(struct pn__request *r, struct block *b, size_t size, bool line)
{
    while (b->used < size) {
        struct pn_str view;
        enum pn_body have = next_view(r, &view);
        if (have == PN_BODY_END)
            return 0;
        if (have != PN_BODY_DATA) {
            if (r->x->state == PN_EXCHANGE_CANCELLED)
                r->gone = true;
            return -EPIPE;
        }
        size_t n = pn_min_size(view.n, size - b->used);
        const char *end = line ? memchr(view.p, '\n', n) : NULL;
        if (end)
            n = (size_t)(end - view.p) + 1;
        /* A wish for much must not allocate much before it has come. */
        size_t first = line ? LINE_FIRST_BLOCK : pn_min_size(size, FIRST_BLOCK);
        if (block_reserve(b, n, first) < 0)
            return -ENOMEM;
        block_add(b, view.p, n);
        pn_exchange_body_consume(r->x, n);
        if (end)
            return 0;
    }
    return 0;
}

/* SIZE < 0: all there is. New, or NULL with an exception. */
static PyObject *take(PyObject *self, Py_ssize_t size, bool line)
{
    bool empty;
    struct pn__request *r = reader(self, &empty);
    if (!r)
        return empty ? PyBytes_FromStringAndSize(NULL, 0) : NULL;
    if (size == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
    struct block b = {NULL, 0, 0};
    size_t limit = size < 0 ? (size_t)PY_SSIZE_T_MAX : (size_t)size;
    struct pn_core *core = r->core;
    pn_core_leave_app(core);
    int rc = fill(r, &b, limit, line);
    pn_core_enter_app(core);
    if (pn_likely(rc == 0))
        return block_finish(&b);
    Py_XDECREF(b.bytes);
    if (PyErr_Occurred())
        return NULL; /* a signal handler's, out of the wait */
    if (rc == -ENOMEM)
        return PyErr_NoMemory();
    pn__raise_gone(r);
    return NULL;
}

/* One optional size: None and negative mean no limit. 0, or -1 with an exception. */
static int size_argument(PyObject *const *args, Py_ssize_t n, Py_ssize_t *size)
{
    *size = -1;
    if (n > 1) {
        PyErr_SetString(PyExc_TypeError, "at most one argument, the size");
        return -1;
    }
    if (n == 0 || args[0] == Py_None)
        return 0;
    *size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    return *size == -1 && PyErr_Occurred() ? -1 : 0;
}

static PyObject *input_read(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Py_ssize_t size;
    return size_argument(args, n, &size) < 0 ? NULL : take(self, size, false);
}

static PyObject *input_readline(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Py_ssize_t size;
    return size_argument(args, n, &size) < 0 ? NULL : take(self, size, true);
}

static PyObject *input_readlines(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Py_ssize_t hint;
    Py_ssize_t total = 0;
    if (size_argument(args, n, &hint) < 0)
        return NULL;
    PyObject *lines = PyList_New(0);
    if (!lines)
        return NULL;
    for (;;) {
        PyObject *line = take(self, -1, true);
        Py_ssize_t size = line ? PyBytes_GET_SIZE(line) : 0;
        if (size == 0) {
            if (line) {
                Py_DECREF(line);
                return lines;
            }
            break;
        }
        int rc = PyList_Append(lines, line);
        Py_DECREF(line);
        if (rc < 0)
            break;
        total += size;
        if (hint > 0 && total >= hint)
            return lines;
    }
    Py_DECREF(lines);
    return NULL;
}

static PyObject *input_next(PyObject *self)
{
    PyObject *line = take(self, -1, true);
    if (line && PyBytes_GET_SIZE(line) == 0)
        Py_CLEAR(line); /* the end of an iteration is NULL without an exception */
    return line;
}

static PyObject *input_readable(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_TRUE;
}

static void input_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef input_methods[] = {
    {"read", (PyCFunction)(void (*)(void))input_read, METH_FASTCALL,
     "read(size=-1): SIZE bytes, fewer at the end only"},
    {"readline", (PyCFunction)(void (*)(void))input_readline, METH_FASTCALL,
     "readline(size=-1): a line with its newline"},
    {"readlines", (PyCFunction)(void (*)(void))input_readlines, METH_FASTCALL,
     "readlines(hint=-1): a list of lines, until HINT bytes have come"},
    {"readable", input_readable, METH_NOARGS, "True, as io's streams say it"},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot input_slots[] = {
    {Py_tp_dealloc, input_free},
    {Py_tp_methods, input_methods},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, input_next},
    {Py_tp_doc, (void *)"wsgi.input: the body of one request"},
    {0, NULL},
};
static PyType_Spec input_spec = {
    .name = "pelton.Input",
    .basicsize = sizeof(struct input),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = input_slots,
};

int pn__input_init(struct pn_gateway *gw)
{
    gw->types.input = (PyTypeObject *)PyType_FromSpec(&input_spec);
    if (!gw->types.input)
        return -1;
    gw->no_input = pn__input_new(gw, NULL);
    return gw->no_input ? 0 : -1;
}

PyObject *pn__input_new(struct pn_gateway *gw, struct pn__request *r)
{
    struct input *in;
    if (gw->free_input_count)
        in = (struct input *)gw->free_input[--gw->free_input_count];
    else
        in = PyObject_New(struct input, gw->types.input);
    if (!in)
        return NULL;
    in->r = r;
    in->over = false;
    return (PyObject *)in;
}

void pn__input_release(struct pn_gateway *gw, PyObject *o)
{
    struct input *in = (struct input *)o;
    in->r = NULL;
    in->over = true;
    if (Py_REFCNT(o) == 1 && gw->free_input_count < PN__FREE_OBJECTS_MAX && !gw->stopped)
        gw->free_input[gw->free_input_count++] = o;
    else
        Py_DECREF(o);
}

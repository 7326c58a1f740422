/* SPDX-License-Identifier: Apache-2.0 */
/* The transport's type: how one is made, what holds it and what it holds, and its attributes; the private ones are those
 * of asyncio's own class, since sslproto, sendfile and other people's code read them. */
#include "gateway/aio_tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <structmember.h>
#include <sys/socket.h>

#include "gateway/pycompat.h"

/* --- Making ------------------------------------------------------------------------------------ */

int pn__transport_use_protocol(struct pn__transport *t, PyObject *protocol)
{
    if (t->aio) {
        int buffered = PyObject_IsInstance(protocol, t->aio->buffered_protocol);
        if (buffered < 0)
            return -1;
        t->buffered = buffered > 0;
        t->received = Py_IS_TYPE(protocol, t->aio->tls_type) ? pn__tls_received : NULL;
    }
    t->connected = true;
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    return 0;
}

/* A socket.socket counts the files made of it, and closes its descriptor with the last one: so it stays open, and
 * the number ours, when somebody else closes the object. 0, or -1 with an exception. */
static int keep_open(struct pn__transport *t)
{
    PyObject *count = PyObject_GetAttrString(t->sock, "_io_refs");
    if (!count) { /* it only looks like one */
        PyErr_Clear();
        return 0;
    }
    PyObject *one = PyLong_FromLong(1);
    PyObject *more = one ? PyNumber_Add(count, one) : NULL;
    int rc = more ? PyObject_SetAttrString(t->sock, "_io_refs", more) : -1;
    Py_XDECREF(more);
    Py_XDECREF(one);
    Py_DECREF(count);
    t->has_io_ref = rc == 0;
    return rc;
}

/* The protocol hears of it before the waiter does, and before anything is read. */
static int schedule(struct pn__transport *t, PyObject *waiter)
{
    struct pn__aio *aio = t->aio;
    PyObject *self = (PyObject *)t;
    PyObject *made = PyObject_GetAttr(t->protocol, aio->words[PN__L_CONNECTION_MADE]);
    int rc = made ? pn__aio_soon(aio, made, &self, 1, NULL) : -1;
    Py_XDECREF(made);
    PyObject *start = rc == 0 ? PyObject_GetAttr(self, aio->words[PN__L_START]) : NULL;
    rc = start ? pn__aio_soon(aio, start, &waiter, 1, NULL) : -1;
    Py_XDECREF(start);
    return rc;
}

static int set_up(struct pn__transport *t, PyObject *const *args, bool alone)
{
    if (pn__transport_use_protocol(t, args[1]) < 0 || (!alone && keep_open(t) < 0))
        return -1;
    /* Small writes leave at once. Sockets of other kinds have no such option. */
    (void)setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (args[4] != Py_None) {
        if (pn_pycompat_tell_server(args[4], t->aio->words[PN__L_ATTACH], (PyObject *)t) < 0)
            return -1;
        t->server = Py_NewRef(args[4]);
    }
    /* So that add_reader() and its kin refuse the descriptor. */
    if (pn__aio_set_transport(t->aio, t->fd, (PyObject *)t) < 0)
        return -1;
    return schedule(t, args[2]);
}

static int flush(PyObject *self)
{
    return pn__transport_flush((struct pn__transport *)self);
}

PyObject *pn__transport_make(PyObject *loop, PyObject *const *args, bool alone)
{
    struct pn__aio *aio = (struct pn__aio *)loop;
    int fd = PyObject_AsFileDescriptor(args[0]);
    if (fd < 0 || pn__aio_check_closed(aio) < 0)
        return NULL;
    PyTypeObject *type = aio->transport_type;
    struct pn__transport *t = (struct pn__transport *)type->tp_alloc(type, 0); /* zeroed */
    if (!t)
        return NULL;
    pn_list_init(&t->gathered.node);
    t->gathered.owner = (PyObject *)t;
    t->gathered.flush = flush;
    t->aio = (struct pn__aio *)Py_NewRef(loop);
    t->fd = fd;
    t->sock = Py_NewRef(args[0]);
    t->extra = Py_NewRef(args[3]);
    t->high_water = PN__OUT_HIGH_WATER;
    t->low_water = PN__OUT_HIGH_WATER / 4;
    if (set_up(t, args, alone) == 0)
        return (PyObject *)t;
    /* The socket stays the caller's. */
    PyObject *exc = pn_pycompat_take_exception();
    if (t->has_io_ref) {
        t->has_io_ref = false;
        PyObject *r = PyObject_CallMethod(t->sock, "_decref_socketios", NULL);
        if (!r)
            PyErr_WriteUnraisable(t->sock);
        Py_XDECREF(r);
    }
    Py_CLEAR(t->sock);
    pn__transport_drop_socket(t); /* its server and its watches */
    Py_DECREF(t);
    pn_pycompat_restore_exception(exc);
    return NULL;
}

PyObject *pn__transport_new(PyObject *loop, PyObject *const *args, Py_ssize_t n)
{
    if (n == 5)
        return pn__transport_make(loop, args, false);
    PyErr_SetString(PyExc_TypeError, "sock, protocol, waiter, extra and server are needed");
    return NULL;
}

/* After connection_made(): reads, and wakes who waits for the connection, also when it cannot be read from. */
static PyObject *start(PyObject *self, PyObject *waiter)
{
    struct pn__transport *t = (struct pn__transport *)self;
    int reads = t->aio ? pn__transport_start_reading(t) : 0;
    PyObject *exc = reads < 0 ? pn_pycompat_take_exception() : NULL;
    int woken = waiter == Py_None ? 0 : pn__aio_settle_future(waiter, NULL);
    if (woken < 0 && exc)
        PyErr_WriteUnraisable(waiter);
    if (exc)
        pn_pycompat_restore_exception(exc);
    if (reads < 0 || woken < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- Life -------------------------------------------------------------------------------------- */

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pn__transport *t = (struct pn__transport *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(t->extra);
    Py_VISIT(t->protocol);
    Py_VISIT(t->server);
    Py_VISIT(t->sock);
    Py_VISIT(t->empty_waiter);
    Py_VISIT((PyObject *)t->aio);
    Py_VISIT(t->dict);
    return 0;
}

/* What is left can be called, and finds itself closed. */
static int clear(PyObject *self)
{
    struct pn__transport *t = (struct pn__transport *)self;
    struct pn__aio *aio = t->aio;
    pn_list_remove(&t->gathered.node);
    pn__out_clear(&t->out);
    if (aio)
        pn__aio_unset_transport(aio, t->fd, self);
    t->aio = NULL;
    t->closing = true;
    t->writing = false;
    if (t->conn_lost == 0)
        t->conn_lost = 1;
    Py_CLEAR(t->extra);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->server);
    Py_CLEAR(t->sock);
    Py_CLEAR(t->empty_waiter);
    Py_CLEAR(t->dict);
    Py_XDECREF((PyObject *)aio);
    return 0;
}

static void finalize(PyObject *self)
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (!t->sock)
        return;
    PyObject *exc = pn_pycompat_take_exception();
    if (PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0)
        PyErr_WriteUnraisable(self);
    pn__transport_drop_socket(t);
    pn_pycompat_restore_exception(exc);
}

static void dealloc(PyObject *self)
{
    struct pn__transport *t = (struct pn__transport *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (t->weakrefs)
        PyObject_ClearWeakRefs(self);
    (void)clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* --- Methods ----------------------------------------------------------------------------------- */

#define SELF struct pn__transport *t = (struct pn__transport *)self

static PyObject *none_unless(int rc)
{
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *m_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return none_unless(pn__transport_close((struct pn__transport *)self));
}

static PyObject *m_abort(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    /* What write() has taken in this callback already counts as sent. */
    if (pn__transport_flush(t) < 0)
        return NULL;
    return none_unless(pn__transport_force_close(t, NULL));
}

static PyObject *m_force_close(PyObject *self, PyObject *exc)
{
    SELF;
    return none_unless(pn__transport_force_close(t, exc == Py_None ? NULL : exc));
}

static PyObject *m_lost(PyObject *self, PyObject *exc)
{
    SELF;
    return none_unless(pn__transport_lost(t, exc == Py_None ? NULL : exc));
}

/* For loop._transports. */
static PyObject *m_enter_table(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return none_unless(t->sock ? pn__aio_set_transport(t->aio, t->fd, self) : 0);
}

static PyObject *m_leave_table(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    if (t->aio)
        pn__aio_unset_transport(t->aio, t->fd, self);
    Py_RETURN_NONE;
}

static PyObject *m_is_closing(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct pn__transport *)self)->closing);
}

static PyObject *m_is_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return PyBool_FromLong(!t->closing && !t->paused);
}

static PyObject *m_set_protocol(PyObject *self, PyObject *protocol)
{
    return none_unless(pn__transport_use_protocol((struct pn__transport *)self, protocol));
}

static PyObject *m_get_protocol(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return Py_NewRef(t->protocol ? t->protocol : Py_None);
}

static PyObject *m_can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    Py_RETURN_TRUE;
}

static PyObject *m_get_extra_info(PyObject *self, PyObject *args, PyObject *kw)
{
    static char *names[] = {(char *)"name", (char *)"default", NULL};
    SELF;
    PyObject *name;
    PyObject *otherwise = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "O|O:get_extra_info", names, &name, &otherwise))
        return NULL;
    if (!t->extra || !PyDict_Check(t->extra))
        return Py_NewRef(otherwise);
    PyObject *value = PyDict_GetItemWithError(t->extra, name); /* borrowed */
    if (!value && PyErr_Occurred())
        return NULL;
    return Py_NewRef(value ? value : otherwise);
}

static PyObject *m_get_size(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromSize_t(((struct pn__transport *)self)->out.bytes);
}

static PyObject *m_get_limits(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return Py_BuildValue("(nn)", (Py_ssize_t)t->low_water, (Py_ssize_t)t->high_water);
}

/* NUMBER is an int, or a float with such a value. */
static int to_limit(PyObject *number, Py_ssize_t *out)
{
    PyObject *i = PyNumber_Long(number);
    *out = i ? PyNumber_AsSsize_t(i, NULL) : -1; /* what is too large is as much as there can be */
    Py_XDECREF(i);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

int pn__transport_parse_limits(PyObject *args, PyObject *kw, const char *format, size_t *high_out,
                               size_t *low_out)
{
    static char *names[] = {(char *)"high", (char *)"low", NULL};
    PyObject *high_arg = Py_None;
    PyObject *low_arg = Py_None;
    Py_ssize_t high = (Py_ssize_t)*high_out;
    Py_ssize_t low = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kw, format, names, &high_arg, &low_arg))
        return -1;
    if ((high_arg != Py_None && to_limit(high_arg, &high) < 0) ||
        (low_arg != Py_None && to_limit(low_arg, &low) < 0))
        return -1;
    if (high_arg == Py_None && low_arg != Py_None)
        high = low > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX : low * 4;
    if (low_arg == Py_None)
        low = high / 4;
    if (high < low || low < 0 || high < 0) {
        PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0", high, low);
        return -1;
    }
    *high_out = (size_t)high;
    *low_out = (size_t)low;
    return 0;
}

static int set_limits(struct pn__transport *t, PyObject *args, PyObject *kw)
{
    size_t high = PN__OUT_HIGH_WATER;
    if (pn__transport_parse_limits(args, kw, "|OO:set_write_buffer_limits", &high, &t->low_water) <
        0)
        return -1;
    t->high_water = high;
    return 0;
}

static PyObject *m_set_limits(PyObject *self, PyObject *args, PyObject *kw)
{
    SELF;
    /* What was gathered may go at once, and is not what the marks are for. */
    if (set_limits(t, args, kw) < 0 || pn__transport_flush(t) < 0)
        return NULL;
    return none_unless(t->aio ? pn__transport_maybe_pause(t) : 0);
}

static PyObject *m_set_limits_only(PyObject *self, PyObject *args, PyObject *kw)
{
    return none_unless(set_limits((struct pn__transport *)self, args, kw));
}

static PyObject *m_maybe_pause(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return none_unless(t->aio ? pn__transport_maybe_pause(t) : 0);
}

static PyObject *m_maybe_resume(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return none_unless(t->aio ? pn__transport_maybe_resume(t) : 0);
}

static PyObject *m_make_empty_waiter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    if (t->empty_waiter) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (!t->aio) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is closed");
        return NULL;
    }
    if (pn__transport_flush(t) < 0)
        return NULL;
    PyObject *waiter = PyObject_CallMethod((PyObject *)t->aio, "create_future", NULL);
    if (!waiter)
        return NULL;
    Py_XSETREF(t->empty_waiter, Py_NewRef(waiter));
    if (t->out.count == 0 && pn__transport_wake_empty(t, NULL) < 0)
        Py_CLEAR(waiter);
    return waiter;
}

static PyObject *m_reset_empty_waiter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    Py_CLEAR(t->empty_waiter);
    Py_RETURN_NONE;
}

/* --- Attributes -------------------------------------------------------------------------------- */

static PyObject *get_buffer(PyObject *self, void *Py_UNUSED(closure))
{
    SELF;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < t->out.count; i++) {
        const struct pn__piece *p = &t->out.pieces[t->out.first + i];
        PyObject *bytes = PyBytes_FromStringAndSize(p->data, (Py_ssize_t)p->size);
        if (!bytes || PyList_Append(list, bytes) < 0)
            Py_CLEAR(list);
        Py_XDECREF(bytes);
    }
    return list;
}

#define FASTCALL(fn) (PyCFunction)(void (*)(void))(fn)
#define KEYWORDS     (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef methods[] = {
    {"write", pn__transport_write, METH_O, "Send data, now or as soon as the socket takes it."},
    {"writelines", pn__transport_writelines, METH_O, "Send each of the data of an iterable."},
    {"write_eof", pn__transport_write_eof, METH_NOARGS, "Send what is left, then end the output."},
    {"can_write_eof", m_can_write_eof, METH_NOARGS, "True."},
    {"close", m_close, METH_NOARGS, "Send what is left, then close."},
    {"abort", m_abort, METH_NOARGS, "Close now; what is not sent is dropped."},
    {"_enter_table", m_enter_table, METH_NOARGS, NULL},
    {"_leave_table", m_leave_table, METH_NOARGS, NULL},
    {"is_closing", m_is_closing, METH_NOARGS, "Whether it is closed, or about to be."},
    {"is_reading", m_is_reading, METH_NOARGS, "Whether it reads."},
    {"pause_reading", pn__transport_pause_reading, METH_NOARGS, "Read no more for now."},
    {"resume_reading", pn__transport_resume_reading, METH_NOARGS, "Read again."},
    {"set_protocol", m_set_protocol, METH_O, "Exchange the protocol."},
    {"get_protocol", m_get_protocol, METH_NOARGS, "The protocol."},
    {"get_extra_info", FASTCALL(m_get_extra_info), KEYWORDS,
     "get_extra_info($self, name, default=None)\n--\n\nWhat is known of the socket."},
    {"get_write_buffer_size", m_get_size, METH_NOARGS, "How many bytes wait to be sent."},
    {"get_write_buffer_limits", m_get_limits, METH_NOARGS, "(low, high)"},
    {"set_write_buffer_limits", FASTCALL(m_set_limits), KEYWORDS,
     "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
     "When the protocol's pause_writing() and resume_writing() are called, in bytes."},
    {"_set_write_buffer_limits", FASTCALL(m_set_limits_only), KEYWORDS, NULL},
    {"_maybe_pause_protocol", m_maybe_pause, METH_NOARGS, NULL},
    {"_maybe_resume_protocol", m_maybe_resume, METH_NOARGS, NULL},
    {"_force_close", m_force_close, METH_O, NULL},
    {"_call_connection_lost", m_lost, METH_O, NULL},
    {"_read_ready", pn__transport_read_ready, METH_NOARGS, NULL},
    {"_write_ready", pn__transport_write_ready, METH_NOARGS, NULL},
    {"_start", start, METH_O, NULL},
    {"_make_empty_waiter", m_make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", m_reset_empty_waiter, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#define OFFSET(field) offsetof(struct pn__transport, field)

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, OFFSET(weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, OFFSET(dict), READONLY, NULL},
    {"_extra", T_OBJECT, OFFSET(extra), READONLY, NULL},
    {"_protocol", T_OBJECT, OFFSET(protocol), READONLY, NULL},
    {"_server", T_OBJECT, OFFSET(server), READONLY, NULL},
    {"_sock", T_OBJECT, OFFSET(sock), READONLY, NULL},
    {"_empty_waiter", T_OBJECT, OFFSET(empty_waiter), READONLY, NULL},
    {"_loop", T_OBJECT, OFFSET(aio), READONLY, NULL},
    {"_sock_fd", T_INT, OFFSET(fd), READONLY, NULL},
    {"_conn_lost", T_UINT, OFFSET(conn_lost), READONLY, NULL},
    {"_closing", T_BOOL, OFFSET(closing), READONLY, NULL},
    {"_paused", T_BOOL, OFFSET(paused), READONLY, NULL},
    {"_eof", T_BOOL, OFFSET(eof), READONLY, NULL},
    {"_protocol_connected", T_BOOL, OFFSET(connected), READONLY, NULL},
    {"_protocol_paused", T_BOOL, OFFSET(protocol_paused), READONLY, NULL},
    {"_high_water", T_PYSSIZET, OFFSET(high_water), READONLY, NULL},
    {"_low_water", T_PYSSIZET, OFFSET(low_water), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_buffer", get_buffer, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},   {Py_tp_finalize, finalize},
    {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_methods, methods},   {Py_tp_members, members},
    {Py_tp_getset, getset},     {0, NULL},
};

static PyType_Spec spec = {
    .name = "pelton._pelton.Transport",
    .basicsize = sizeof(struct pn__transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyObject *pn__transport_type_on(PyType_Spec *of, PyObject *base, size_t offset)
{
    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize > (Py_ssize_t)offset) {
        PyErr_Format(PyExc_TypeError, "%R is no base for a transport", base);
        return NULL;
    }
    return PyType_FromSpecWithBases(of, base);
}

PyObject *pn__transport_make_type(PyObject *Py_UNUSED(unused), PyObject *base)
{
    return pn__transport_type_on(&spec, base, offsetof(struct pn__transport, aio));
}

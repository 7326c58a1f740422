/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS transport's type: how one is made, what it holds, its methods and attributes. The private attributes are
 * those of asyncio's two classes for TLS, as far as other people's code is known to look at them. */
#include "gateway/aio_tls.h"

#include <stddef.h>
#include <structmember.h>

#include "gateway/pycompat.h"

/* --- Making ------------------------------------------------------------------------------------ */

static int use_protocol(struct pn__tls *t, PyObject *protocol)
{
    int buffered = PyObject_IsInstance(protocol, t->aio->buffered_protocol);
    if (buffered < 0)
        return -1;
    t->buffered = buffered > 0;
    Py_XSETREF(t->protocol, Py_NewRef(protocol));
    return 0;
}

/* Attributes of what was given, and of the class. */
static int look_up(struct pn__tls *t)
{
    PyObject *self = (PyObject *)t;
    t->feed = PyObject_GetAttrString(t->incoming, "write");
    t->drain = PyObject_GetAttrString(t->outgoing, "read");
    t->again = PyObject_GetAttrString(self, "_again");
    t->ssl_error = PyObject_GetAttrString(self, "_ssl_error");
    t->extra = Py_BuildValue("{sO}", "sslcontext", t->sslcontext);
    return t->feed && t->drain && t->again && t->ssl_error && t->extra ? 0 : -1;
}

/* In the child of a fork the lower transport keeps the parent's output to itself. */
static int flush(PyObject *self)
{
    struct pn__tls *t = (struct pn__tls *)self;
    return pn__tls_send(t, false) == 0 ? 0 : pn__tls_failed(t, "Fatal error on SSL protocol");
}

PyObject *pn__tls_new(PyObject *loop, PyObject *const *args, Py_ssize_t n)
{
    struct pn__aio *aio = (struct pn__aio *)loop;
    if (n != 12) {
        PyErr_SetString(PyExc_TypeError, "_new_tls() takes twelve arguments");
        return NULL;
    }
    if (pn__aio_check_closed(aio) < 0)
        return NULL;
    struct pn__tls *t = (struct pn__tls *)aio->tls_type->tp_alloc(aio->tls_type, 0); /* zeroed */
    if (!t)
        return NULL;
    pn_list_init(&t->gathered.node);
    t->gathered.owner = (PyObject *)t;
    t->gathered.flush = flush;
    t->aio = (struct pn__aio *)Py_NewRef(loop);
    t->waiter = args[1] == Py_None ? NULL : Py_NewRef(args[1]);
    t->sslcontext = Py_NewRef(args[2]);
    t->sslobj = Py_NewRef(args[3]);
    t->incoming = Py_NewRef(args[4]);
    t->outgoing = Py_NewRef(args[5]);
    t->read = Py_NewRef(args[6]);
    t->write = Py_NewRef(args[7]);
    t->direct = args[8] == Py_True;
    t->app_state = args[9] == Py_True ? PN__TLS_APP_INIT : PN__TLS_APP_MADE;
    t->handshake_timeout_s = Py_NewRef(args[10]);
    t->shutdown_timeout_s = Py_NewRef(args[11]);
    t->out_high = PN__TLS_OUT_HIGH_WATER;
    t->out_low = PN__TLS_OUT_HIGH_WATER / 4;
    t->in_high = PN__TLS_IN_HIGH_WATER;
    t->in_low = PN__TLS_IN_HIGH_WATER / 4;
    if (use_protocol(t, args[0]) == 0 && look_up(t) == 0)
        return (PyObject *)t;
    t->closed = true; /* nobody is to be warned */
    Py_DECREF(t);
    return NULL;
}

/* --- Life -------------------------------------------------------------------------------------- */

#define OFFSET(field) offsetof(struct pn__tls, field)

/* Every owned reference but those to C objects of ours. */
static const size_t fields[] = {
    OFFSET(extra),
    OFFSET(protocol),
    OFFSET(sslobj),
    OFFSET(sslcontext),
    OFFSET(waiter),
    OFFSET(dict),
    OFFSET(incoming),
    OFFSET(outgoing),
    OFFSET(feed),
    OFFSET(drain),
    OFFSET(read),
    OFFSET(write),
    OFFSET(again),
    OFFSET(ssl_error),
    OFFSET(handshake_timeout_s),
    OFFSET(shutdown_timeout_s),
};

static PyObject **field(struct pn__tls *t, size_t i)
{
    return (PyObject **)((char *)t + fields[i]);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pn__tls *t = (struct pn__tls *)self;
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < PN_ARRAY_LEN(fields); i++)
        Py_VISIT(*field(t, i));
    Py_VISIT((PyObject *)t->aio);
    Py_VISIT((PyObject *)t->lower);
    Py_VISIT((PyObject *)t->handshake_timer);
    Py_VISIT((PyObject *)t->shutdown_timer);
    return 0;
}

/* What a method of one that was cleared needs is what is never cleared: it finds itself closed and without a
 * protocol, and its loop, SSL object and BIOs stay until it is freed. */
static int clear(PyObject *self)
{
    struct pn__tls *t = (struct pn__tls *)self;
    pn_list_remove(&t->gathered.node);
    pn__out_clear(&t->out);
    t->state = PN__TLS_UNWRAPPED;
    t->closed = true;
    if (t->conn_lost == 0)
        t->conn_lost = 1;
    Py_CLEAR(t->lower);
    Py_CLEAR(t->protocol);
    Py_CLEAR(t->waiter);
    Py_CLEAR(t->extra);
    Py_CLEAR(t->sslcontext);
    Py_CLEAR(t->dict);
    Py_CLEAR(t->handshake_timer);
    Py_CLEAR(t->shutdown_timer);
    return 0;
}

static void finalize(PyObject *self)
{
    struct pn__tls *t = (struct pn__tls *)self;
    if (t->closed)
        return;
    PyObject *exc = pn_pycompat_take_exception();
    t->closed = true;
    if (PyErr_ResourceWarning(self, 1, "unclosed transport %R", self) < 0)
        PyErr_WriteUnraisable(self);
    pn_pycompat_restore_exception(exc);
}

static void dealloc(PyObject *self)
{
    struct pn__tls *t = (struct pn__tls *)self;
    struct pn__aio *aio = t->aio;
    PyTypeObject *type = Py_TYPE(self);
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (t->weakrefs)
        PyObject_ClearWeakRefs(self);
    (void)clear(self);
    for (size_t i = 0; i < PN_ARRAY_LEN(fields); i++)
        Py_CLEAR(*field(t, i));
    type->tp_free(self);
    Py_DECREF(type);
    Py_XDECREF((PyObject *)aio);
}

void pn__tls_let_go(struct pn__tls *t)
{
    if (!t->let_go || t->lower || t->state != PN__TLS_UNWRAPPED || t->busy)
        return;
    Py_CLEAR(t->extra);
    Py_CLEAR(t->sslcontext);
    Py_CLEAR(t->sslobj);
    Py_CLEAR(t->read);
    Py_CLEAR(t->write);
}

/* --- The transport's methods ------------------------------------------------------------------- */

#define SELF struct pn__tls *t = (struct pn__tls *)self

static PyObject *none_unless(int rc)
{
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *m_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    if (t->closed) {
        t->let_go = true;
        pn__tls_let_go(t);
        Py_RETURN_NONE;
    }
    t->closed = true;
    return none_unless(pn__tls_start_shutdown(t));
}

static PyObject *m_force_close(PyObject *self, PyObject *exc)
{
    SELF;
    t->closed = true;
    return none_unless(pn__tls_abort(t, exc == Py_None ? NULL : exc));
}

static PyObject *m_abort(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return m_force_close(self, Py_None);
}

static PyObject *m_is_closing(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((struct pn__tls *)self)->closed);
}

static PyObject *m_is_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(!((struct pn__tls *)self)->app_reading_paused);
}

static PyObject *m_pause_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    ((struct pn__tls *)self)->app_reading_paused = true;
    Py_RETURN_NONE;
}

/* In a turn of its own, since the protocol that is called may be the caller. */
static PyObject *m_resume_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    if (!t->app_reading_paused)
        Py_RETURN_NONE;
    t->app_reading_paused = false;
    PyObject *callback = PyObject_GetAttrString(self, "_go_on");
    int rc = callback ? pn__aio_soon(t->aio, callback, NULL, 0, NULL) : -1;
    Py_XDECREF(callback);
    return none_unless(rc);
}

static PyObject *m_go_on(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    switch ((enum pn__tls_state)t->state) {
    case PN__TLS_WRAPPED:
        return none_unless(pn__tls_read(t));
    case PN__TLS_FLUSHING:
        return none_unless(pn__tls_flush(t));
    case PN__TLS_SHUTDOWN:
        return none_unless(pn__tls_step_shutdown(t));
    case PN__TLS_UNWRAPPED:
    case PN__TLS_HANDSHAKE:
        break;
    }
    Py_RETURN_NONE;
}

static PyObject *m_do_read(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return none_unless(pn__tls_read((struct pn__tls *)self));
}

static PyObject *m_set_protocol(PyObject *self, PyObject *protocol)
{
    return none_unless(use_protocol((struct pn__tls *)self, protocol));
}

static PyObject *m_get_protocol(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *protocol = ((struct pn__tls *)self)->protocol;
    return Py_NewRef(protocol ? protocol : Py_None);
}

static PyObject *m_get_extra_info(PyObject *self, PyObject *args, PyObject *kw)
{
    static char *names[] = {(char *)"name", (char *)"default", NULL};
    SELF;
    PyObject *name;
    PyObject *otherwise = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kw, "O|O:get_extra_info", names, &name, &otherwise))
        return NULL;
    PyObject *value =
        t->extra && PyDict_Check(t->extra) ? PyDict_GetItemWithError(t->extra, name) : NULL;
    if (value)
        return Py_NewRef(value);
    if (PyErr_Occurred())
        return NULL;
    if (t->lower)
        return PyObject_CallMethod((PyObject *)t->lower, "get_extra_info", "OO", name, otherwise);
    return Py_NewRef(otherwise);
}

static PyObject *m_can_write_eof(PyObject *self, PyObject *Py_UNUSED(unused))
{
    (void)self;
    Py_RETURN_FALSE;
}

static PyObject *m_write_eof(PyObject *self, PyObject *Py_UNUSED(unused))
{
    (void)self;
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static PyObject *m_out_size(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Py_ssize_t size = pn__tls_out_size((struct pn__tls *)self);
    return size < 0 ? NULL : PyLong_FromSsize_t(size);
}

static PyObject *m_out_limits(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return Py_BuildValue("(nn)", (Py_ssize_t)t->out_low, (Py_ssize_t)t->out_high);
}

static PyObject *m_set_out_limits(PyObject *self, PyObject *args, PyObject *kw)
{
    SELF;
    size_t high = PN__TLS_OUT_HIGH_WATER;
    if (pn__transport_parse_limits(args, kw, "|OO:set_write_buffer_limits", &high, &t->out_low) < 0)
        return NULL;
    t->out_high = high;
    /* What was gathered may go at once, and is not what the marks are for. */
    if (pn_list_linked(&t->gathered.node) && flush(self) < 0)
        return NULL;
    return none_unless(pn__tls_control_writing(t));
}

static PyObject *m_in_size(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyLong_FromSize_t(((struct pn__tls *)self)->in_pending);
}

static PyObject *m_in_limits(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    return Py_BuildValue("(nn)", (Py_ssize_t)t->in_low, (Py_ssize_t)t->in_high);
}

static PyObject *m_set_in_limits(PyObject *self, PyObject *args, PyObject *kw)
{
    SELF;
    size_t high = PN__TLS_IN_HIGH_WATER;
    if (pn__transport_parse_limits(args, kw, "|OO:set_read_buffer_limits", &high, &t->in_low) < 0)
        return NULL;
    t->in_high = high;
    return none_unless(pn__tls_control_reading(t));
}

/* asyncio's own tests call it. */
static PyObject *m_append_backlog(PyObject *self, PyObject *data)
{
    SELF;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int rc = pn__out_add(&t->out, data, view.buf, (size_t)view.len, 0);
    PyBuffer_Release(&view);
    return none_unless(rc);
}

/* --- What the lower transport calls ------------------------------------------------------------ */

static PyObject *m_lost(PyObject *self, PyObject *exc)
{
    return none_unless(pn__tls_lost((struct pn__tls *)self, exc == Py_None ? NULL : exc));
}

static PyObject *m_pause_writing(PyObject *self, PyObject *Py_UNUSED(unused))
{
    ((struct pn__tls *)self)->ssl_writing_paused = true;
    Py_RETURN_NONE;
}

static PyObject *m_resume_writing(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    t->ssl_writing_paused = false;
    int rc = t->state == PN__TLS_WRAPPED ? pn__tls_send(t, false) : pn__tls_hand_on(t);
    if (rc < 0)
        rc = pn__tls_failed(t, "Fatal error on SSL protocol");
    return none_unless(rc);
}

/* --- The type ---------------------------------------------------------------------------------- */

static PyObject *get_self(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self);
}

#define FASTCALL(fn) (PyCFunction)(void (*)(void))(fn)
#define KEYWORDS     (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef methods[] = {
    {"write", pn__tls_write, METH_O, "Encrypt data and send it."},
    {"writelines", pn__tls_writelines, METH_O, "Send each of the data of an iterable."},
    {"write_eof", m_write_eof, METH_NOARGS, "TLS has no half-closed connections here."},
    {"can_write_eof", m_can_write_eof, METH_NOARGS, "False."},
    {"close", m_close, METH_NOARGS, "Send what is left, say goodbye, then close."},
    {"abort", m_abort, METH_NOARGS, "Close now; what is not sent is dropped."},
    {"is_closing", m_is_closing, METH_NOARGS, "Whether it is closed, or about to be."},
    {"is_reading", m_is_reading, METH_NOARGS, "Whether the protocol is given data."},
    {"pause_reading", m_pause_reading, METH_NOARGS, "Give no more data for now."},
    {"resume_reading", m_resume_reading, METH_NOARGS, "Give data again."},
    {"set_protocol", m_set_protocol, METH_O, "Exchange the protocol."},
    {"get_protocol", m_get_protocol, METH_NOARGS, "The protocol."},
    {"get_extra_info", FASTCALL(m_get_extra_info), KEYWORDS,
     "get_extra_info($self, name, default=None)\n--\n\nWhat is known of TLS and the socket."},
    {"get_write_buffer_size", m_out_size, METH_NOARGS, "How many bytes wait to be sent."},
    {"get_write_buffer_limits", m_out_limits, METH_NOARGS, "(low, high)"},
    {"set_write_buffer_limits", FASTCALL(m_set_out_limits), KEYWORDS,
     "set_write_buffer_limits($self, high=None, low=None)\n--\n\n"
     "When the protocol's pause_writing() and resume_writing() are called, in bytes."},
    {"get_read_buffer_size", m_in_size, METH_NOARGS, "How many encrypted bytes wait."},
    {"get_read_buffer_limits", m_in_limits, METH_NOARGS, "(low, high)"},
    {"set_read_buffer_limits", FASTCALL(m_set_in_limits), KEYWORDS,
     "set_read_buffer_limits($self, high=None, low=None)\n--\n\n"
     "When the socket is read no more, and again, in encrypted bytes."},
    {"connection_made", pn__tls_connection_made, METH_O, NULL},
    {"connection_lost", m_lost, METH_O, NULL},
    {"eof_received", pn__tls_eof_received, METH_NOARGS, NULL},
    {"pause_writing", m_pause_writing, METH_NOARGS, NULL},
    {"resume_writing", m_resume_writing, METH_NOARGS, NULL},
    {"_force_close", m_force_close, METH_O, NULL},
    {"_check_handshake_timeout", pn__tls_check_handshake_timeout, METH_NOARGS, NULL},
    {"_check_shutdown_timeout", pn__tls_check_shutdown_timeout, METH_NOARGS, NULL},
    {"_do_read", m_do_read, METH_NOARGS, NULL},
    {"_go_on", m_go_on, METH_NOARGS, NULL},
    {"_test__append_write_backlog", m_append_backlog, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, OFFSET(weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, OFFSET(dict), READONLY, NULL},
    {"_extra", T_OBJECT, OFFSET(extra), READONLY, NULL},
    {"_app_protocol", T_OBJECT, OFFSET(protocol), READONLY, NULL},
    {"_sslobj", T_OBJECT, OFFSET(sslobj), READONLY, NULL},
    {"_sslcontext", T_OBJECT, OFFSET(sslcontext), READONLY, NULL},
    {"_waiter", T_OBJECT, OFFSET(waiter), READONLY, NULL},
    {"_loop", T_OBJECT, OFFSET(aio), READONLY, NULL},
    {"_transport", T_OBJECT, OFFSET(lower), READONLY, NULL},
    {"_incoming", T_OBJECT, OFFSET(incoming), READONLY, NULL},
    {"_outgoing", T_OBJECT, OFFSET(outgoing), READONLY, NULL},
    {"_conn_lost", T_UINT, OFFSET(conn_lost), READONLY, NULL},
    {"_closed", T_BOOL, OFFSET(closed), READONLY, NULL},
    {"_protocol_paused", T_BOOL, OFFSET(app_writing_paused), READONLY, NULL},
    {"_app_reading_paused", T_BOOL, OFFSET(app_reading_paused), READONLY, NULL},
    {"_ssl_reading_paused", T_BOOL, OFFSET(ssl_reading_paused), READONLY, NULL},
    {"_ssl_writing_paused", T_BOOL, OFFSET(ssl_writing_paused), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_ssl_protocol", get_self, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, dealloc},   {Py_tp_finalize, finalize},
    {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_methods, methods},   {Py_tp_members, members},
    {Py_tp_getset, getset},     {0, NULL},
};

static PyType_Spec spec = {
    .name = "pelton._pelton.SslTransport",
    .basicsize = sizeof(struct pn__tls),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

PyObject *pn__tls_make_type(PyObject *Py_UNUSED(unused), PyObject *base)
{
    return pn__transport_type_on(&spec, base, offsetof(struct pn__tls, aio));
}

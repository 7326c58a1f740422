/* SPDX-License-Identifier: Apache-2.0 */
/* Records of a TLS transport, in and out, and flow control between the application and the lower transport. */
#include "gateway/aio_tls.h"

#include <limits.h>
#include <string.h>

#include "gateway/aio_window.h"

enum { AGAIN = -2 }; /* the SSL object has nothing, or cannot now; no exception is set */

static const char protocol_error[] = "Fatal error on SSL protocol";

/* --- Calls of the SSL object ------------------------------------------------------------------- */

static ssize_t refused(struct pn__tls *t)
{
    return pn__tls_again(t) ? AGAIN : -1;
}

/* Takes the number RESULT, which is MAX at most. */
static ssize_t number(PyObject *result, size_t max)
{
    Py_ssize_t n = PyLong_AsSsize_t(result);
    Py_DECREF(result);
    if (pn_likely(n >= 0 && (size_t)n <= max))
        return n;
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "the SSL object answers with a wrong size");
    return -1;
}

/* For an SSL object of another class. */
static ssize_t read_copy(struct pn__tls *t, char *buf, size_t room)
{
    PyObject *data = PyObject_CallFunction(t->read, "n", (Py_ssize_t)room);
    if (!data)
        return refused(t);
    Py_buffer view;
    ssize_t n = -1;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) == 0) {
        if ((size_t)view.len <= room) {
            memcpy(buf, view.buf, (size_t)view.len);
            n = view.len;
        } else {
            PyErr_SetString(PyExc_ValueError, "the SSL object read more than it was asked to");
        }
        PyBuffer_Release(&view);
    }
    Py_DECREF(data);
    return n;
}

/* Bytes that came, 0 after close_notify, AGAIN, or -1. ROOM is not 0. */
static ssize_t ssl_read(struct pn__tls *t, char *buf, size_t room)
{
    struct pn__aio *aio = t->aio;
    size_t size = pn_min_size(room, INT_MAX);
    ssize_t n;
    t->busy = true;
    t->drained = false;
    if (pn_likely(t->direct)) {
        pn__window_open(aio->window, buf, size, true);
        PyObject *r = PyObject_Call(t->read, aio->window_args, NULL);
        pn__window_shut(aio->window);
        n = pn_likely(r != NULL) ? number(r, size) : refused(t);
    } else {
        n = read_copy(t, buf, size);
    }
    t->busy = false;
    return n;
}

/* How much of SIZE bytes at DATA, which lie in OWNER, was encrypted: AGAIN, or -1. */
static ssize_t ssl_write(struct pn__tls *t, PyObject *owner, const char *data, size_t size)
{
    PyObject *window = t->aio->window;
    PyObject *r;
    bool whole = PyBytes_CheckExact(owner) && (size_t)PyBytes_GET_SIZE(owner) == size;
    t->busy = true;
    t->drained = false;
    if (pn_likely(whole)) {
        r = PyObject_CallOneArg(t->write, owner);
    } else if (t->direct) {
        pn__window_open(window, data, size, false);
        r = PyObject_CallOneArg(t->write, window);
        pn__window_shut(window);
    } else {
        size = pn_min_size(size, PN__TLS_RECORD_MAX);
        r = PyObject_CallFunction(t->write, "y#", data, (Py_ssize_t)size);
    }
    t->busy = false;
    return pn_likely(r != NULL) ? number(r, size) : refused(t);
}

/* A BIO's pending; -1 with an exception. */
static Py_ssize_t pending(struct pn__tls *t, PyObject *bio)
{
    PyObject *n = PyObject_GetAttr(bio, t->aio->words[PN__L_PENDING]);
    Py_ssize_t size = n ? PyLong_AsSsize_t(n) : -1;
    Py_XDECREF(n);
    return size;
}

int pn__tls_look(struct pn__tls *t)
{
    Py_ssize_t n = pending(t, t->incoming);
    if (pn_unlikely(n < 0))
        return -1;
    t->in_pending = (size_t)n;
    return 0;
}

/* --- In ---------------------------------------------------------------------------------------- */

enum filled {
    FILLED_ALL = 0, /* all that is there for now */
    FILLED_FULL,    /* the room is used, and there may be more */
    FILLED_END,     /* close_notify came */
    FILLED_FAILED,
};

/* What the SSL object holds of a record that it has decrypted. */
static int look_inside(struct pn__tls *t)
{
    PyObject *n = PyObject_CallMethodNoArgs(t->sslobj, t->aio->words[PN__L_PENDING]);
    Py_ssize_t size = n ? PyLong_AsSsize_t(n) : -1;
    Py_XDECREF(n);
    if (size < 0)
        return -1;
    t->in_hidden = (size_t)size;
    return 0;
}

/* Reads into BUF what there is; *GOT bytes came. Only what nobody knows is asked: a record is read as a whole if there
 * is room, and the SSL object takes one at a time from the BIO. */
static enum filled fill(struct pn__tls *t, char *buf, size_t room, size_t *got)
{
    *got = 0;
    for (;;) {
        size_t had = t->in_pending;
        ssize_t n = ssl_read(t, buf + *got, room - *got);
        if (n == -1 || pn__tls_look(t) < 0)
            return FILLED_FAILED;
        if (n == AGAIN) { /* the beginning of a record, or one that is none of the application's */
            t->in_hidden = pn_min_size(t->in_hidden + had, PN__TLS_RECORD_ROOM);
            return FILLED_ALL;
        }
        t->in_hidden = 0;
        if (n == 0)
            return FILLED_END;
        *got += (size_t)n;
        if (pn_unlikely(*got == room)) {
            if (look_inside(t) < 0)
                return FILLED_FAILED;
            return t->in_pending + t->in_hidden > 0 ? FILLED_FULL : FILLED_ALL;
        }
        if (t->in_pending == 0)
            return FILLED_ALL;
    }
}

/* 0, or -1 with an exception that the protocol or Python raised. */
static int give_data(struct pn__tls *t, enum filled *filled)
{
    size_t got;
    size_t room = t->in_pending + t->in_hidden; /* nothing grows by being decrypted */
    PyObject *data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (pn_unlikely(!data))
        return -1;
    *filled = fill(t, PyBytes_AS_STRING(data), room, &got);
    if (*filled == FILLED_FAILED || got == 0) {
        Py_DECREF(data);
        return *filled == FILLED_FAILED ? -1 : 0;
    }
    if (got < room && _PyBytes_Resize(&data, (Py_ssize_t)got) < 0)
        return -1;
    PyObject *args[2] = {t->protocol, data};
    Py_INCREF(args[0]); /* it may be exchanged meanwhile */
    PyObject *r = PyObject_VectorcallMethod(t->aio->words[PN__L_DATA_RECEIVED], args,
                                            2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[0]);
    Py_DECREF(data);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int tell_updated(struct pn__tls *t, PyObject *protocol, size_t n)
{
    PyObject *args[2] = {protocol, PyLong_FromSize_t(n)};
    if (!args[1])
        return -1;
    PyObject *r = PyObject_VectorcallMethod(t->aio->words[PN__L_BUFFER_UPDATED], args,
                                            2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[1]);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* The next part in a turn to come, as asyncio has it. */
static int read_soon(struct pn__tls *t)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)t, "_do_read");
    int rc = callback ? pn__aio_soon(t->aio, callback, NULL, 0, NULL) : -1;
    Py_XDECREF(callback);
    return rc;
}

static int give_buffer(struct pn__tls *t, enum filled *filled)
{
    Py_buffer room;
    size_t got = 0;
    PyObject *protocol = Py_NewRef(t->protocol);
    int rc = pn__transport_get_room(t->aio, protocol, (Py_ssize_t)t->in_pending, &room);
    if (rc == 0) {
        *filled = t->busy ? FILLED_ALL : fill(t, room.buf, (size_t)room.len, &got);
        PyBuffer_Release(&room);
        rc = *filled == FILLED_FAILED ? -1 : 0;
    }
    if (rc == 0 && got > 0)
        rc = tell_updated(t, protocol, got);
    Py_DECREF(protocol);
    return rc;
}

static bool reads(const struct pn__tls *t)
{
    return (t->state == PN__TLS_WRAPPED || t->state == PN__TLS_FLUSHING) && !t->busy && t->protocol;
}

/* A buffer that is full goes on in a turn to come; at the end of the connection there may be none. */
static int give(struct pn__tls *t)
{
    enum filled filled = FILLED_FULL;
    int rc = 0;
    while (rc == 0 && filled == FILLED_FULL && t->in_pending + t->in_hidden > 0 && reads(t) &&
           !t->app_reading_paused) {
        rc = t->buffered ? give_buffer(t, &filled) : give_data(t, &filled);
        if (rc == 0 && t->buffered && filled == FILLED_FULL && t->state == PN__TLS_WRAPPED)
            return read_soon(t);
    }
    if (rc == 0 && filled == FILLED_END) {
        rc = pn__tls_say_eof(t);
        if (rc == 0)
            rc = pn__tls_start_shutdown(t);
    }
    return rc;
}

int pn__tls_read(struct pn__tls *t)
{
    if (!reads(t))
        return 0;
    int rc = give(t);
    /* What was read may have an answer of its own, such as new keys. */
    if (rc == 0 && (t->out.count > 0 || !t->drained))
        rc = pn__tls_send(t, false);
    if (rc == 0)
        rc = pn__tls_control_reading(t);
    return pn_likely(rc == 0) ? 0 : pn__tls_failed(t, protocol_error);
}

int pn__tls_received(PyObject *self, const char *data, size_t size)
{
    struct pn__tls *t = (struct pn__tls *)self;
    PyObject *window = t->aio->window;
    pn__window_open(window, data, size, false);
    PyObject *r = PyObject_CallOneArg(t->feed, window);
    pn__window_shut(window);
    if (pn_unlikely(!r))
        return -1;
    Py_DECREF(r);
    t->in_pending += size;
    switch ((enum pn__tls_state)t->state) {
    case PN__TLS_WRAPPED:
        return pn__tls_read(t);
    case PN__TLS_HANDSHAKE:
        return pn__tls_step_handshake(t);
    case PN__TLS_FLUSHING:
        return pn__tls_flush(t);
    case PN__TLS_SHUTDOWN:
        return pn__tls_step_shutdown(t);
    case PN__TLS_UNWRAPPED:
        break;
    }
    return 0;
}

int pn__tls_control_reading(struct pn__tls *t)
{
    PyObject *r;
    if (pn_likely(!t->ssl_reading_paused)) {
        if (pn_likely(t->in_pending == 0 || t->in_pending < t->in_high) || !t->lower)
            return 0;
        t->ssl_reading_paused = true;
        r = pn__transport_pause_reading((PyObject *)t->lower, NULL);
    } else {
        if (t->in_pending > t->in_low || !t->lower)
            return 0;
        t->ssl_reading_paused = false;
        r = pn__transport_resume_reading((PyObject *)t->lower, NULL);
    }
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* --- Out --------------------------------------------------------------------------------------- */

Py_ssize_t pn__tls_out_size(struct pn__tls *t)
{
    Py_ssize_t n = pending(t, t->outgoing);
    return n < 0 ? -1 : n + (Py_ssize_t)t->out.bytes;
}

/* Calls the protocol's METHOD; what it raises goes to the loop's exception handler. */
static int tell(struct pn__tls *t, enum pn__aio_word method, const char *message)
{
    PyObject *protocol = t->protocol;
    if (!protocol)
        return 0;
    Py_INCREF(protocol);
    PyObject *r = PyObject_CallMethodNoArgs(protocol, t->aio->words[method]);
    Py_DECREF(protocol);
    Py_XDECREF(r);
    return r ? 0 : pn__aio_report((PyObject *)t, message);
}

int pn__tls_control_writing(struct pn__tls *t)
{
    size_t size = t->out.bytes;
    if (pn_unlikely(!t->drained)) {
        Py_ssize_t n = pn__tls_out_size(t);
        if (n < 0)
            return -1;
        size = (size_t)n;
    }
    if (pn_unlikely(size > 0 && size >= t->out_high && !t->app_writing_paused)) {
        t->app_writing_paused = true;
        return tell(t, PN__L_PAUSE_WRITING, "protocol.pause_writing() failed");
    }
    if (pn_unlikely(size <= t->out_low && t->app_writing_paused)) {
        t->app_writing_paused = false;
        return tell(t, PN__L_RESUME_WRITING, "protocol.resume_writing() failed");
    }
    return 0;
}

int pn__tls_hand_on(struct pn__tls *t)
{
    if (pn_likely(!t->ssl_writing_paused && t->lower)) {
        PyObject *data = PyObject_CallNoArgs(t->drain);
        if (pn_unlikely(!data))
            return -1;
        t->drained = true;
        t->sealed = 0;
        PyObject *r = Py_None;
        if (pn_likely(PyBytes_GET_SIZE(data) > 0)) {
            r = pn__transport_write((PyObject *)t->lower, data);
            Py_XDECREF(r);
        }
        Py_DECREF(data);
        if (pn_unlikely(!r))
            return -1;
    }
    return pn__tls_control_writing(t);
}

static bool lower_lost(const struct pn__tls *t)
{
    return t->lower && t->lower->conn_lost > 0;
}

/* 0, AGAIN, or -1: the first piece, or a part of it, is encrypted. */
static int seal(struct pn__tls *t)
{
    if (t->out.count > 1 && pn__out_join(&t->out, PN__TLS_RECORD_MAX) < 0)
        return -1;
    const struct pn__piece *p = &t->out.pieces[t->out.first];
    PyObject *owner = Py_NewRef(p->owner);
    size_t size = pn_min_size(p->size, PN__TLS_SEAL_MAX);
    ssize_t n = ssl_write(t, owner, p->data, size);
    Py_DECREF(owner);
    if (n < 0)
        return (int)n;
    if ((size_t)n <= t->out.bytes) /* always, unless it was all dropped meanwhile */
        pn__out_consume(&t->out, (size_t)n);
    t->sealed += (size_t)n;
    return 0;
}

int pn__tls_send(struct pn__tls *t, bool all)
{
    pn_list_remove(&t->gathered.node);
    if (t->busy)
        return 0;
    while (t->out.count > 0 && (all || !t->ssl_writing_paused) && !lower_lost(t)) {
        int rc = seal(t);
        if (rc == AGAIN)
            break;
        if (rc < 0 || (t->sealed >= PN__TLS_SEAL_MAX && pn__tls_hand_on(t) < 0))
            return -1;
    }
    return pn__tls_hand_on(t);
}

/* --- write() and its kin ----------------------------------------------------------------------- */

PN_COLD static int write_closed(struct pn__tls *t)
{
    if (t->conn_lost >= PN__LOST_WRITES_SAID) {
        PyObject *r = PyObject_CallMethod((PyObject *)t, "_warn_closed", NULL);
        Py_XDECREF(r);
        if (!r)
            return -1;
    }
    t->conn_lost++;
    return 0;
}

static bool takes_writes(const struct pn__tls *t)
{
    return t->state == PN__TLS_WRAPPED || t->state == PN__TLS_HANDSHAKE;
}

/* Whether this callback has not written yet, or is none of the loop's. */
static bool first_in_callback(struct pn__tls *t)
{
    const struct pn__aio *aio = t->aio;
    if (t->wrote_in == aio->callback_number && aio->in_callback)
        return false;
    t->wrote_in = aio->callback_number;
    return true;
}

/* Something waits in out: now, or when the callback is over. */
static int settle(struct pn__tls *t)
{
    struct pn__aio *aio = t->aio;
    if (t->state != PN__TLS_WRAPPED || t->busy) /* when the handshake is over; when that call is */
        return 0;
    if (!aio->in_callback || t->ssl_writing_paused || t->out.bytes > PN__OUT_GATHER_MAX)
        return pn__tls_send(t, false);
    if (!pn_list_linked(&t->gathered.node))
        pn_list_push_back(&aio->gathering, &t->gathered.node);
    return 0;
}

static int write_bytes(struct pn__tls *t, PyObject *data, const char *bytes, size_t size)
{
    ssize_t sent = 0;
    if (pn_likely(t->state == PN__TLS_WRAPPED && t->out.count == 0 && !t->busy &&
                  !t->ssl_writing_paused && first_in_callback(t))) {
        sent = ssl_write(t, data, bytes, pn_min_size(size, PN__TLS_SEAL_MAX));
        if (pn_likely(sent == (ssize_t)size))
            return pn__tls_hand_on(t);
        if (sent == -1)
            return -1;
        sent = sent == AGAIN ? 0 : sent;
        t->sealed += (size_t)sent;
        if (pn__out_add(&t->out, data, bytes, size, (size_t)sent) < 0)
            return -1;
        return pn__tls_send(t, false);
    }
    return pn__out_add(&t->out, data, bytes, size, 0) < 0 ? -1 : settle(t);
}

static PyObject *wrote(struct pn__tls *t, int rc)
{
    if (pn_unlikely(rc < 0) && pn__tls_failed(t, protocol_error) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__tls_write(PyObject *self, PyObject *data)
{
    struct pn__tls *t = (struct pn__tls *)self;
    if (pn_likely(PyBytes_CheckExact(data))) {
        size_t size = (size_t)PyBytes_GET_SIZE(data);
        if (pn_unlikely(size == 0))
            Py_RETURN_NONE;
        if (pn_likely(takes_writes(t)))
            return wrote(t, write_bytes(t, data, PyBytes_AS_STRING(data), size));
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))
        return PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %.200s",
                            Py_TYPE(data)->tp_name);
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *r = Py_None;
    if (!takes_writes(t))
        r = view.len > 0 && write_closed(t) < 0 ? NULL : Py_None;
    else if (view.len > 0)
        r = wrote(t, write_bytes(t, data, view.buf, (size_t)view.len));
    PyBuffer_Release(&view);
    return Py_XNewRef(r);
}

PyObject *pn__tls_writelines(PyObject *self, PyObject *list)
{
    struct pn__tls *t = (struct pn__tls *)self;
    PyObject *lines = PySequence_Fast(list, "writelines() needs an iterable");
    if (!lines)
        return NULL;
    int rc = 0;
    PyObject *r = NULL;
    if (!takes_writes(t)) {
        r = write_closed(t) < 0 ? NULL : Py_NewRef(Py_None);
    } else if (pn__out_add_lines(&t->out, lines) == 0) {
        if (t->out.count > 0)
            rc = t->state == PN__TLS_WRAPPED && first_in_callback(t) ? pn__tls_send(t, false)
                                                                     : settle(t);
        r = wrote(t, rc);
    }
    Py_DECREF(lines);
    return r;
}

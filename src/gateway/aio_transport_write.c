/* SPDX-License-Identifier: Apache-2.0 */
/* A transport's output: at once where that is possible, gathered or queued where it is not. See aio_transport.h. */
#include "gateway/aio_transport.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

static const char write_failed[] = "Fatal write error on socket transport";

/* --- Water marks ------------------------------------------------------------------------------- */

static int tell(struct pn__transport *t, enum pn__aio_word word, const char *message)
{
    PyObject *protocol = t->protocol;
    if (!protocol)
        return 0;
    Py_INCREF(protocol);
    PyObject *r = PyObject_CallMethodNoArgs(protocol, t->aio->words[word]);
    Py_DECREF(protocol);
    Py_XDECREF(r);
    return r ? 0 : pn__transport_report(t, message);
}

int pn__transport_maybe_pause(struct pn__transport *t)
{
    if (pn_likely(t->out.bytes <= t->high_water || t->protocol_paused))
        return 0;
    t->protocol_paused = true;
    return tell(t, PN__L_PAUSE_WRITING, "protocol.pause_writing() failed");
}

int pn__transport_maybe_resume(struct pn__transport *t)
{
    if (pn_likely(!t->protocol_paused || t->out.bytes > t->low_water))
        return 0;
    t->protocol_paused = false;
    return tell(t, PN__L_RESUME_WRITING, "protocol.resume_writing() failed");
}

/* --- To the socket ----------------------------------------------------------------------------- */

/* How many bytes went, 0 when there was no room, -1 with an exception. */
static ssize_t send_queue(struct pn__transport *t)
{
    struct iovec iov[PN__OUT_IOV_MAX];
    size_t n = pn_min_size(t->out.count, PN__OUT_IOV_MAX);
    for (size_t i = 0; i < n; i++) {
        const struct pn__piece *p = &t->out.pieces[t->out.first + i];
        iov[i] = (struct iovec){(void *)(uintptr_t)p->data, p->size};
    }
    const struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent = sendmsg(t->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (pn_likely(sent >= 0))
        return sent;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* 1: all has gone; 0: the socket takes no more now; -1 with an exception. */
static int drain(struct pn__transport *t)
{
    for (int i = 0; i < PN__OUT_CALLS_MAX && t->out.count > 0; i++) {
        size_t pieces = pn_min_size(t->out.count, PN__OUT_IOV_MAX);
        ssize_t sent = send_queue(t);
        if (sent < 0)
            return -1;
        pn__out_consume(&t->out, (size_t)sent);
        if (sent == 0 || pieces < PN__OUT_IOV_MAX)
            break;
    }
    return t->out.count == 0;
}

static int write_ready(PyObject *self);

static int start_writing(struct pn__transport *t)
{
    if (t->writing)
        return 0;
    PyObject *callback = PyObject_GetAttr((PyObject *)t, t->aio->words[PN__L_WRITE_READY]);
    if (!callback)
        return -1;
    bool ours = pn__transport_is_method(callback, pn__transport_write_ready);
    int rc = pn__aio_watch(t->aio, t->fd, EPOLLOUT, callback, ours ? write_ready : NULL);
    Py_DECREF(callback);
    if (rc == 0)
        t->writing = true;
    return rc;
}

int pn__transport_stop_writing(struct pn__transport *t)
{
    if (!t->writing)
        return 0;
    t->writing = false;
    return t->aio && pn__aio_unwatch(t->aio, t->fd, EPOLLOUT) < 0 ? -1 : 0;
}

/* The output went wrong: the exception that is set ends the connection, and sendfile. */
static int broken(struct pn__transport *t)
{
    PyObject *waiter = Py_XNewRef(t->empty_waiter);
    PyObject *type, *exc, *tb;
    PyErr_Fetch(&type, &exc, &tb);
    pn__out_clear(&t->out);
    int rc = pn__transport_stop_writing(t);
    if (rc == 0 && waiter) {
        PyErr_NormalizeException(&type, &exc, &tb);
        rc = pn__transport_wake_empty(t, exc);
    }
    Py_XDECREF(waiter);
    if (rc < 0) {
        Py_XDECREF(type);
        Py_XDECREF(exc);
        Py_XDECREF(tb);
        return -1;
    }
    PyErr_Restore(type, exc, tb);
    return pn__transport_failed(t, write_failed);
}

/* The queue is empty, or just has been. */
static int on_empty(struct pn__transport *t)
{
    if (t->conn_lost > 0 || !t->aio || t->out.count > 0)
        return 0;
    if (pn__transport_stop_writing(t) < 0)
        return -1;
    if (t->empty_waiter && pn__transport_wake_empty(t, NULL) < 0)
        return -1;
    if (t->closing)
        return pn__transport_lost(t, NULL);
    if (t->eof && shutdown(t->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* The caller has a reference to SELF. */
static int write_ready(PyObject *self)
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (t->conn_lost > 0 || !t->aio || t->out.count == 0)
        return 0;
    if (drain(t) < 0)
        return broken(t);
    if (pn__transport_maybe_resume(t) < 0)
        return -1;
    return on_empty(t);
}

PyObject *pn__transport_write_ready(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (write_ready(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- Gathering --------------------------------------------------------------------------------- */

/* What waits is tried now. 0, also when the connection was lost by it, or -1. */
static int send_now(struct pn__transport *t)
{
    int rc = drain(t);
    if (rc < 0)
        return broken(t);
    if (rc == 0 && start_writing(t) < 0)
        return broken(t);
    /* It may have been paused by what was gathered. */
    return rc == 0 ? pn__transport_maybe_pause(t) : pn__transport_maybe_resume(t);
}

int pn__transport_flush(struct pn__transport *t)
{
    pn_list_remove(&t->gathered.node);
    /* A loop that is closed here belongs to the parent, whose output this is. */
    if (t->out.count == 0 || t->writing || t->conn_lost > 0 || !t->aio || t->aio->closed)
        return 0;
    return send_now(t);
}

/* Something was queued: it goes at the callback's end, or now, or when the socket has room. */
static int settle(struct pn__transport *t)
{
    struct pn__aio *aio = t->aio;
    if (!t->writing) {
        if (!aio->in_callback || t->out.bytes > PN__OUT_GATHER_MAX)
            return pn__transport_flush(t);
        if (!pn_list_linked(&t->gathered.node))
            pn_list_push_back(&aio->gathering, &t->gathered.node);
        return 0;
    }
    return pn__transport_maybe_pause(t);
}

/* --- write() and its kin ----------------------------------------------------------------------- */

/* Refuses. 0: go on; 1: there is nothing to do; -1. NAME is the method's. */
PN_COLD static int check_rare(struct pn__transport *t, const char *name)
{
    if (t->eof) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", name);
        return -1;
    }
    if (t->empty_waiter) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", name);
        return -1;
    }
    return 0;
}

/* The connection went: silence, for a while. */
PN_COLD static int write_lost(struct pn__transport *t)
{
    if (t->conn_lost >= PN__LOST_WRITES_SAID) {
        PyObject *r = PyObject_CallMethod((PyObject *)t, "_warn_lost", NULL);
        Py_XDECREF(r);
        if (!r)
            return -1;
    }
    t->conn_lost++;
    return 0;
}

/* Whether this callback has written already, or it is none of the loop's. */
static bool first_in_callback(struct pn__transport *t)
{
    const struct pn__aio *aio = t->aio;
    if (t->wrote_in == aio->callback_number && aio->in_callback)
        return false;
    t->wrote_in = aio->callback_number;
    return true;
}

static int write_bytes(struct pn__transport *t, PyObject *data, const char *bytes, size_t size)
{
    size_t sent = 0;
    if (t->out.count == 0 && first_in_callback(t)) {
        ssize_t n = send(t->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (pn_likely(n == (ssize_t)size))
            return 0;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            PyErr_SetFromErrno(PyExc_OSError);
            return pn__transport_failed(t, write_failed);
        }
        sent = n > 0 ? (size_t)n : 0;
        if (start_writing(t) < 0)
            return pn__transport_failed(t, write_failed);
    }
    if (pn__out_add(&t->out, data, bytes, size, sent) < 0)
        return -1;
    return settle(t);
}

static int write_buffer(struct pn__transport *t, PyObject *data)
{
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not '%.200s'",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
    if (check_rare(t, "write") < 0)
        return -1;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int rc = 0;
    if (view.len > 0)
        rc = t->conn_lost > 0 ? write_lost(t) : write_bytes(t, data, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return rc;
}

PyObject *pn__transport_write(PyObject *self, PyObject *data)
{
    struct pn__transport *t = (struct pn__transport *)self;
    int rc;
    if (pn_likely(PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0 && !t->eof &&
                  !t->empty_waiter && t->conn_lost == 0))
        rc = write_bytes(t, data, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    else
        rc = write_buffer(t, data);
    if (pn_unlikely(rc < 0))
        return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__transport_writelines(PyObject *self, PyObject *list)
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (check_rare(t, "writelines") < 0)
        return NULL;
    PyObject *lines = PySequence_Fast(list, "writelines() needs an iterable");
    if (!lines)
        return NULL;
    int rc = 0;
    if (t->conn_lost > 0) {
        if (PySequence_Fast_GET_SIZE(lines) > 0)
            rc = write_lost(t);
    } else {
        bool waited = t->out.count > 0;
        rc = pn__out_add_lines(&t->out, lines);
        if (rc == 0 && t->conn_lost == 0 && t->out.count > 0)
            rc = !waited && first_in_callback(t) ? send_now(t) : settle(t);
    }
    Py_DECREF(lines);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__transport_write_eof(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (t->closing || t->eof)
        Py_RETURN_NONE;
    if (pn__transport_flush(t) < 0)
        return NULL;
    t->eof = true;
    if (t->conn_lost == 0 && t->out.count == 0 && shutdown(t->fd, SHUT_WR) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

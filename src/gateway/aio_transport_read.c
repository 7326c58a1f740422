/* SPDX-License-Identifier: Apache-2.0 */
/* A transport's input: one receive each time that the loop finds the socket readable, as asyncio has it. What it brings goes
 * to the protocol in the context in which reading began. */
#include "gateway/aio_transport.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { ALIKE_MIN = 256 }; /* smaller ones are copied as fast */

static int read_ready(PyObject *self);

int pn__transport_start_reading(struct pn__transport *t)
{
    if (t->closing || t->paused)
        return 0;
    PyObject *callback = PyObject_GetAttr((PyObject *)t, t->aio->words[PN__L_READ_READY]);
    if (!callback)
        return -1;
    bool ours = pn__transport_is_method(callback, pn__transport_read_ready);
    int rc = pn__aio_watch(t->aio, t->fd, EPOLLIN, callback, ours ? read_ready : NULL);
    Py_DECREF(callback);
    return rc;
}

int pn__transport_stop_reading(struct pn__transport *t)
{
    return t->aio && pn__aio_unwatch(t->aio, t->fd, EPOLLIN) < 0 ? -1 : 0;
}

/* -1 with an exception; -2: nothing is there. */
static ssize_t receive_failed(void)
{
    if (errno == EAGAIN || errno == EINTR)
        return -2;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static ssize_t receive(const struct pn__transport *t, char *buf, size_t size)
{
    ssize_t n = recv(t->fd, buf, size, MSG_DONTWAIT);
    return pn_likely(n >= 0) ? n : receive_failed();
}

/* The peer will send no more. */
static int on_eof(struct pn__transport *t)
{
    if (pn_unlikely(t->aio->debug) && pn__transport_say(t, "%r received EOF") < 0)
        return -1;
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *keep = PyObject_CallMethodNoArgs(protocol, t->aio->words[PN__L_EOF_RECEIVED]);
    int open = keep ? PyObject_IsTrue(keep) : -1;
    Py_XDECREF(keep);
    Py_DECREF(protocol);
    if (open < 0)
        return pn__transport_failed(t, "Fatal error: protocol.eof_received() call failed.");
    /* Open: it may go on writing; there is nothing to read any more. */
    return open ? pn__transport_stop_reading(t) : pn__transport_close(t);
}

/* N bytes were received: the first of them into BYTES, SIZE long, the others into MORE. Steals BYTES. */
PN_COLD static PyObject *other_size(PyObject *bytes, size_t size, const char *more, size_t n)
{
    if (n < size) {
        if (n == 0 || _PyBytes_Resize(&bytes, (Py_ssize_t)n) == 0)
            return bytes;
        return NULL;
    }
    PyObject *all = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (all) {
        memcpy(PyBytes_AS_STRING(all), PyBytes_AS_STRING(bytes), size);
        memcpy(PyBytes_AS_STRING(all) + size, more, n - size);
    }
    Py_DECREF(bytes);
    return all;
}

/* Messages of one size come one after the other: this one goes to where it stays. *N is as receive()
 * has it; NULL with an exception, or when nothing is there. */
static PyObject *receive_alike(struct pn__transport *t, char *scratch, ssize_t *n)
{
    size_t size = t->alike;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    *n = -1;
    if (pn_unlikely(!bytes))
        return NULL;
    struct iovec iov[2] = {{PyBytes_AS_STRING(bytes), size}, {scratch, PN__AIO_SCRATCH}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    *n = recvmsg(t->fd, &m, MSG_DONTWAIT);
    if (pn_likely(*n == (ssize_t)size))
        return bytes;
    t->alike = 0;
    t->last_size = *n > 0 ? (size_t)*n : 0;
    if (*n >= 0)
        return other_size(bytes, size, scratch, (size_t)*n);
    *n = receive_failed();
    Py_DECREF(bytes);
    return NULL;
}

static PyObject *receive_any(struct pn__transport *t, char *scratch, ssize_t *n)
{
    *n = receive(t, scratch, PN__AIO_SCRATCH);
    if (pn_unlikely(*n <= 0))
        return NULL;
    size_t size = (size_t)*n;
    if (size >= ALIKE_MIN && size == t->last_size)
        t->alike = size;
    t->last_size = size;
    return PyBytes_FromStringAndSize(scratch, *n);
}

static int read_data(struct pn__transport *t)
{
    struct pn__aio *aio = t->aio;
    char *scratch = pn__aio_scratch(aio);
    ssize_t n = -1;
    PyObject *data = NULL;
    if (pn_likely(scratch != NULL))
        data = t->alike ? receive_alike(t, scratch, &n) : receive_any(t, scratch, &n);
    if (pn_unlikely(n == 0)) {
        Py_XDECREF(data);
        return on_eof(t);
    }
    if (pn_unlikely(!data))
        return n == -2 ? 0 : pn__transport_failed(t, "Fatal read error on socket transport");
    PyObject *args[2] = {t->protocol, data};
    Py_INCREF(args[0]); /* it may be exchanged meanwhile */
    PyObject *r = PyObject_VectorcallMethod(aio->words[PN__L_DATA_RECEIVED], args,
                                            2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[0]);
    Py_DECREF(data);
    if (pn_likely(r != NULL)) {
        Py_DECREF(r);
        return 0;
    }
    return pn__transport_failed(t, "Fatal error: protocol.data_received() call failed.");
}

int pn__transport_get_room(struct pn__aio *aio, PyObject *protocol, Py_ssize_t hint,
                           Py_buffer *room)
{
    PyObject *args[2] = {protocol, PyLong_FromSsize_t(hint)};
    PyObject *buf = args[1] ? PyObject_VectorcallMethod(aio->words[PN__L_GET_BUFFER], args,
                                                        2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                            : NULL;
    Py_XDECREF(args[1]);
    int rc = buf ? PyObject_GetBuffer(buf, room, PyBUF_WRITABLE) : -1;
    Py_XDECREF(buf);
    if (rc < 0)
        return -1;
    if (room->len > 0)
        return 0;
    PyBuffer_Release(room);
    PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    return -1;
}

static int tell_updated(struct pn__transport *t, PyObject *protocol, ssize_t n)
{
    PyObject *number = PyLong_FromSsize_t(n);
    PyObject *args[2] = {protocol, number};
    PyObject *r = number ? PyObject_VectorcallMethod(t->aio->words[PN__L_BUFFER_UPDATED], args,
                                                     2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                         : NULL;
    Py_XDECREF(number);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int read_buffer(struct pn__transport *t)
{
    Py_buffer room;
    PyObject *protocol = Py_NewRef(t->protocol);
    int rc = 0;
    if (pn_unlikely(pn__transport_get_room(t->aio, protocol, -1, &room) < 0)) {
        rc = pn__transport_failed(t, "Fatal error: protocol.get_buffer() call failed.");
    } else if (pn_unlikely(t->conn_lost > 0)) { /* get_buffer() did that */
        PyBuffer_Release(&room);
    } else {
        ssize_t n = receive(t, room.buf, (size_t)room.len);
        PyBuffer_Release(&room);
        if (pn_likely(n > 0)) {
            if (pn_unlikely(tell_updated(t, protocol, n) < 0))
                rc = pn__transport_failed(t, "Fatal error: protocol.buffer_updated() call failed.");
        } else if (n == 0) {
            rc = on_eof(t);
        } else if (n == -1) {
            rc = pn__transport_failed(t, "Fatal read error on socket transport");
        }
    }
    Py_DECREF(protocol);
    return rc;
}

/* To a protocol in C, which copies what it keeps. */
static int read_native(struct pn__transport *t)
{
    char *scratch = pn__aio_scratch(t->aio);
    ssize_t n = scratch ? receive(t, scratch, PN__AIO_SCRATCH) : -1;
    if (pn_unlikely(n <= 0)) {
        if (n == 0)
            return on_eof(t);
        return n == -2 ? 0 : pn__transport_failed(t, "Fatal read error on socket transport");
    }
    PyObject *protocol = Py_NewRef(t->protocol);
    int rc = t->received(protocol, scratch, (size_t)n);
    Py_DECREF(protocol);
    if (pn_likely(rc == 0))
        return 0;
    return pn__transport_failed(t, "Fatal error: protocol.buffer_updated() call failed.");
}

/* The caller has a reference to SELF. */
static int read_ready(PyObject *self)
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (pn_unlikely(t->conn_lost > 0 || !t->aio))
        return 0;
    struct pn__aio *aio = (struct pn__aio *)Py_NewRef((PyObject *)t->aio);
    int rc = t->received ? read_native(t) : t->buffered ? read_buffer(t) : read_data(t);
    Py_DECREF((PyObject *)aio);
    return rc;
}

PyObject *pn__transport_read_ready(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (read_ready(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__transport_pause_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (t->closing || t->paused)
        Py_RETURN_NONE;
    t->paused = true;
    if (pn__transport_stop_reading(t) < 0)
        return NULL;
    if (pn_unlikely(t->aio->debug) && pn__transport_say(t, "%r pauses reading") < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__transport_resume_reading(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__transport *t = (struct pn__transport *)self;
    if (t->closing || !t->paused)
        Py_RETURN_NONE;
    t->paused = false;
    if (pn__transport_start_reading(t) < 0)
        return NULL;
    if (pn_unlikely(t->aio->debug) && pn__transport_say(t, "%r resumes reading") < 0)
        return NULL;
    Py_RETURN_NONE;
}

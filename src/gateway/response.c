/* SPDX-License-Identifier: Apache-2.0 */
/* From what the application returned to the exchange: the head, blocks, files, the end, close().
 *
 * Two ways. A list or tuple with one block (nearly all answers) is whole: the frame gives everything
 * of the application's back first, and then sends head and body in one go (pn__response_whole).
 * Everything else is iterated, and each block has been given to the kernel, or waits in the bounded
 * output queue, before the next is asked for. A write that finds the queue full makes the core wait.
 *
 * "Inside" and "owner" in comments say who may call: see internal.h. */
#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/internal.h"
#include "http/http_status.h"
#include "http/ws_conn.h"

enum { FILE_READ_SIZE = 64 * 1024 };

/* --- Owner --- */

static int lost(struct pn__request *r, int rc)
{
    if (r->x->state == PN_EXCHANGE_CANCELLED)
        r->gone = true;
    return rc;
}

/* An async exception of the server's may be on its way; what cut the wait is told otherwise. */
static int cut(struct pn__request *r)
{
    struct pn__state *state = pn_core_state(r->core);
    r->cut = true;
    pn_pycompat_raise_in(state ? state->ts : pn_pycompat_current(), NULL);
    return -ECANCELED;
}

/* There is nobody else who could run the loop: the thread blocks on the socket itself, and the caller
 * tries again, which moves the bytes. */
static int wait_inline(struct pn__request *r, unsigned why)
{
    bool reads = why == PN_NOTIFY_BODY;
    bool keeps = r->ws && reads; /* the client may be silent, but must be there */
    int fd = pn_exchange_wait_fd(r->x);
    int64_t span_ns = reads ? r->gw->body_timeout_ns : r->gw->write_timeout_ns;
    int64_t deadline_ns = keeps ? pn_ws_due_ns(r->ws)
                                : pn_deadline_ns(pn_clock_mono_ns(), span_ns > 0 ? span_ns : -1);
    int signalled = 0;
    if (fd < 0) {
        r->gone = true;
        return -EPIPE;
    }
    pn_core_enter_app(r->core);
    PyThreadState *ts = PyEval_SaveThread();
    int rc = pn_core_wait_fd(r->core, fd, reads ? EPOLLIN : EPOLLOUT, deadline_ns);
    PyEval_RestoreThread(ts);
    if (rc == PN_WAIT_INTERRUPTED)
        signalled = PyErr_CheckSignals(); /* the application's handlers: Python code */
    pn_core_leave_app(r->core);
    if (signalled < 0)
        return -EINTR;
    if (rc == PN_WAIT_TIMEOUT && keeps)
        return 0;
    if (rc == PN_WAIT_TIMEOUT)
        pn_exchange_cancel(r->x, PN_CANCEL_TIMEOUT);
    if (r->x->state == PN_EXCHANGE_CANCELLED || rc < 0) {
        r->gone = true;
        return rc == PN_WAIT_TIMEOUT ? -ETIMEDOUT : -EPIPE;
    }
    if (rc == PN_WAIT_CUT)
        return cut(r);
    return reads ? 0 : lost(r, pn_exchange_flush(r->x));
}

int pn__request_wait(struct pn__request *r, unsigned why)
{
    if (r->x->state == PN_EXCHANGE_CANCELLED) {
        r->gone = true;
        return -EPIPE;
    }
    if (r->gw->carrier == PN_CARRIER_INLINE)
        return wait_inline(r, why);
    uint32_t number = pn_core_wait_begin(r->core);
    r->wait_number = number;
    r->waiting = true; /* notify needs the loop, which we have: no wake can be lost */
    pn_core_enter_app(r->core);
    PyThreadState *ts = PyEval_SaveThread();
    int rc = pn_core_park(r->core, number, PN_NEVER_NS);
    PyEval_RestoreThread(ts);
    pn_core_leave_app(r->core);
    r->waiting = false;
    if (r->x->state == PN_EXCHANGE_CANCELLED) {
        r->gone = true;
        return -EPIPE;
    }
    return rc == PN_WAIT_CUT ? cut(r) : 0;
}

int pn__response_head(struct pn__request *r, int64_t length, unsigned flags)
{
    struct pn__answer *a = &r->answer;
    if (a->flags & PN_HEAD_HAS_LENGTH)
        length = a->length;
    int rc =
        pn_exchange_head(r->x, a->status, a->reason, a->fields, a->count, length, a->flags | flags);
    if (pn_unlikely(rc < 0))
        return lost(r, rc);
    r->head_sent = true;
    return 0;
}

/* The length to announce for a body of N bytes that is whole. */
static int64_t whole_length(const struct pn__request *r, size_t n)
{
    /* What a HEAD or 304 would have had with content is not known from having none. */
    if (!pn_http_status_has_body((int)r->answer.status) || (r->x->is_head && n == 0))
        return -1;
    return (int64_t)n;
}

/* How much of N bytes fits under the application's own Content-Length. */
static size_t allowed(struct pn__request *r, size_t n)
{
    if (!(r->answer.flags & PN_HEAD_HAS_LENGTH))
        return n;
    uint64_t left = (uint64_t)(r->answer.length - r->sent_size);
    if (n <= left)
        return n;
    r->truncated = true;
    return (size_t)left;
}

static int send_all(struct pn__request *r, const char *p, size_t n)
{
    while (n) {
        ssize_t taken = pn_exchange_write(r->x, p, n);
        if (pn_unlikely(taken < 0))
            return lost(r, (int)taken);
        r->sent_size += taken;
        p += taken;
        n -= (size_t)taken;
        if (pn_likely(n == 0))
            break;
        int rc = pn__request_wait(r, PN_NOTIFY_DRAINED);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A block of an answer that is under way; flushed, as PEP 3333 wants it. */
static int push(struct pn__request *r, const char *p, size_t n)
{
    int rc = 0;
    if (r->disconnected)
        return 0;
    if (!r->head_sent)
        rc = pn__response_head(r, -1, 0);
    if (rc == 0)
        rc = send_all(r, p, allowed(r, n));
    if (rc == 0)
        rc = lost(r, pn_exchange_flush(r->x));
    return rc;
}

static void log_length(struct pn__request *r, const char *what)
{
    char target[256];
    size_t n = pn_log_escape(target, sizeof target, pn_exchange_text(r->x, r->x->target));
    pn_log_error(r->gw->log, "%.*s: the application's answer is %s its Content-Length of %lld",
                 (int)n, target, what, (long long)r->answer.length);
}

/* Fewer bytes came than the application announced, where that matters. */
static bool is_short(const struct pn__request *r)
{
    return (r->answer.flags & PN_HEAD_HAS_LENGTH) && r->sent_size < r->answer.length &&
           !r->x->is_head && pn_http_status_has_body((int)r->answer.status);
}

/* The answer is whole; 0 or negative errno. */
static int end(struct pn__request *r)
{
    int rc = 0;
    if (r->disconnected)
        return 0;
    if (!r->head_sent)
        rc = pn__response_head(r, whole_length(r, 0), PN_HEAD_NO_MORE);
    if (rc < 0)
        return rc;
    if (pn_unlikely(r->truncated && !r->x->is_head))
        log_length(r, "longer than");
    else if (pn_unlikely(is_short(r)))
        log_length(r, "shorter than"); /* now: an exchange that is over has no text */
    rc = pn_exchange_end(r->x, NULL, 0);
    return rc == -EMSGSIZE ? 0 : lost(r, rc); /* the wire has cut the connection */
}

static void raise_refused(struct pn__request *r);

void pn__response_whole(struct pn__request *r, PyObject *body)
{
    const char *p = body ? PyBytes_AS_STRING(body) : NULL;
    size_t n = body ? (size_t)PyBytes_GET_SIZE(body) : 0;
    int rc = 0;
    if (!r->disconnected) {
        rc = pn__response_head(r, whole_length(r, n), PN_HEAD_NO_MORE);
        if (pn_likely(rc == 0))
            rc = send_all(r, p, allowed(r, n));
        if (pn_likely(rc == 0))
            rc = end(r);
    }
    if (pn_likely(rc == 0) || r->gone)
        return;
    pn_core_enter_app(r->core);
    if (!PyErr_Occurred()) {
        if (r->cut)
            pn__raise_gone(r);
        else
            raise_refused(r);
    }
    pn__response_fail(r);
    pn_core_leave_app(r->core);
}

/* --- Inside --- */

void pn__raise_disconnected(struct pn_gateway *gw, enum pn_cancel cancel)
{
    const char *why = "the client closed the connection";
    switch (cancel) {
    case PN_CANCEL_TIMEOUT:
        why = "the client was too slow";
        break;
    case PN_CANCEL_PROTOCOL:
        why = "the client broke the framing of its request";
        break;
    case PN_CANCEL_TOO_LARGE:
        why = "the request's body is larger than allowed";
        break;
    case PN_CANCEL_SHUTDOWN:
        why = "the server closed the connection";
        break;
    case PN_CANCEL_HANDLER:
    case PN_CANCEL_CLIENT_GONE:
    case PN_CANCEL_NONE:
        break;
    }
    PyErr_SetString(gw->client_disconnected, why);
}

void pn__raise_gone(struct pn__request *r)
{
    if (r->cut)
        PyErr_SetString(r->gw->request_cut, "the server stops");
    else /* an enum that is written once: good enough without the loop */
        pn__raise_disconnected(r->gw, r->x->cancel);
}

/* The wire would not send the head: which field is to blame is looked for here only. */
static void raise_refused(struct pn__request *r)
{
    struct pn__answer *a = &r->answer;
    size_t i = pn__answer_bad_field(a);
    if (i < a->count) {
        PyErr_Format(PyExc_ValueError, "the response header %R: %R cannot be sent", a->held[2 * i],
                     a->held[2 * i + 1]);
        return;
    }
    PyErr_Format(PyExc_ValueError, "a response with status %R cannot be sent", a->status_text);
}

/* The result of an owner's function as an exception: -1. */
static int raise_sending(struct pn__request *r)
{
    if (PyErr_Occurred())
        return -1;
    if (r->gone || r->cut)
        pn__raise_gone(r);
    else
        raise_refused(r);
    return -1;
}

static int check_writer(struct pn__request *r)
{
    if (pn_unlikely(r->core != pn_core_self())) {
        PyErr_SetString(PyExc_RuntimeError,
                        "write can only be called by the thread that runs its request");
        return -1;
    }
    if (pn_unlikely(!r->answer.status && !r->ws)) {
        PyErr_SetString(PyExc_AssertionError, "a body was given before start_response was called");
        return -1;
    }
    return 0;
}

/* 0 or negative errno; an exception may be set. */
static int push_inside(struct pn__request *r, const char *p, size_t n)
{
    struct pn_core *core = r->core;
    pn_core_leave_app(core);
    int rc = push(r, p, n);
    pn_core_enter_app(core);
    return rc;
}

int pn__response_write(struct pn__request *r, const char *p, size_t n)
{
    if (check_writer(r) < 0)
        return -1;
    if (n == 0)
        return 0;
    return push_inside(r, p, n) < 0 ? raise_sending(r) : 0;
}

int pn__response_single(PyObject *result, PyObject **body)
{
    PyObject **items;
    Py_ssize_t n;
    if (pn_likely(PyList_CheckExact(result))) {
        n = PyList_GET_SIZE(result);
        items = ((PyListObject *)result)->ob_item;
    } else if (PyTuple_CheckExact(result)) {
        n = PyTuple_GET_SIZE(result);
        items = ((PyTupleObject *)result)->ob_item;
    } else {
        return 0;
    }
    if (n > 1 || (n == 1 && !PyBytes_CheckExact(items[0])))
        return 0;
    *body = n ? items[0] : NULL;
    return 1;
}

/* Nothing more of the iterable can be wanted. After uwsgi.disconnect() the application goes on. */
static bool enough(const struct pn__request *r)
{
    return r->truncated || (r->head_sent && r->x->is_head && !r->disconnected);
}

/* 1: the client has gone, 0: the iterable is through, -1 with an exception. */
static int send_blocks(struct pn__request *r, PyObject *iterator)
{
    PyObject *block;
    while ((block = PyIter_Next(iterator))) {
        int rc = 0;
        if (pn_unlikely(pn_core_self() != r->core))
            pn__leave_child();
        if (pn_unlikely(!PyBytes_Check(block))) {
            PyErr_Format(PyExc_TypeError, "the application's iterable gave %.100s, not bytes",
                         Py_TYPE(block)->tp_name);
            rc = -1;
        } else if (PyBytes_GET_SIZE(block)) {
            rc = check_writer(r);
            if (rc == 0)
                rc = push_inside(r, PyBytes_AS_STRING(block), (size_t)PyBytes_GET_SIZE(block));
        }
        Py_DECREF(block);
        if (rc < 0) {
            if ((r->gone || r->cut) && !PyErr_Occurred())
                return 1;
            return PyErr_Occurred() ? -1 : raise_sending(r);
        }
        if (enough(r))
            return 0;
    }
    if (pn_unlikely(pn_core_self() != r->core))
        pn__leave_child();
    return PyErr_Occurred() ? -1 : 0;
}

/* Owner. A file that the transport cannot send by itself. */
static int copy_file(struct pn__request *r, int fd, off_t offset, size_t n)
{
    char *buffer = pn_try_malloc(FILE_READ_SIZE);
    int rc = buffer ? 0 : -ENOMEM;
    while (rc == 0 && n) {
        ssize_t got = pread(fd, buffer, pn_min_size(n, FILE_READ_SIZE), offset);
        if (got <= 0) {
            rc = got < 0 ? -errno : -ENODATA;
            break;
        }
        rc = send_all(r, buffer, (size_t)got);
        offset += got;
        n -= (size_t)got;
    }
    free(buffer);
    return rc;
}

/* Owner. */
static int push_file(struct pn__request *r, int fd, off_t offset, int64_t size)
{
    int rc = 0;
    if (r->disconnected)
        return 0;
    if (!r->head_sent)
        rc = pn__response_head(r, whole_length(r, (size_t)size), 0);
    size_t n = allowed(r, (size_t)size);
    r->truncated = false; /* a range of a file is what a Content-Length below its size means */
    if (rc < 0 || r->x->is_head)
        return rc;
    while (n) {
        ssize_t taken = pn_exchange_send_file(r->x, fd, &offset, n);
        if (taken == -ENOTSUP || taken == -EINVAL || taken == -ENOSYS)
            return copy_file(r, fd, offset, n);
        if (taken < 0)
            return lost(r, (int)taken);
        r->sent_size += taken;
        n -= (size_t)taken;
        if (n && (rc = pn__request_wait(r, PN_NOTIFY_DRAINED)) < 0)
            return rc;
    }
    return 0;
}

/* 1: the client has gone, or the file ended early and the answer with it; 0: sent; -1 with an
 * exception. */
static int send_file(struct pn__request *r, int fd, off_t offset, int64_t size)
{
    if (check_writer(r) < 0)
        return -1;
    pn_core_leave_app(r->core);
    int rc = push_file(r, fd, offset, size);
    pn_core_enter_app(r->core);
    if (rc == 0)
        return 0;
    if (r->gone || r->cut)
        return 1;
    if (rc == -ENODATA || rc == -EIO || rc == -EBADF) {
        errno = -rc;
        if (!PyErr_Occurred())
            PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return raise_sending(r);
}

/* 0, or -1 with an exception. */
static int finish_body(struct pn__request *r)
{
    if (check_writer(r) < 0)
        return -1;
    pn_core_leave_app(r->core);
    int rc = end(r);
    pn_core_enter_app(r->core);
    if (rc < 0 && !r->gone)
        return raise_sending(r);
    return 0;
}

int pn__response_stream(struct pn__request *r, PyObject *result)
{
    int fd;
    off_t offset;
    int64_t size;
    int rc;
    if (Py_TYPE(result) == r->gw->types.file_wrapper &&
        pn__file_wrapper_range(r->gw, result, &fd, &offset, &size)) {
        rc = send_file(r, fd, offset, size);
    } else {
        PyObject *iterator = PyObject_GetIter(result);
        if (!iterator)
            return -1;
        rc = send_blocks(r, iterator);
        Py_DECREF(iterator);
    }
    return rc == 0 ? finish_body(r) : rc < 0 ? -1 : 0;
}

void pn__response_close(struct pn__request *r, PyObject *result)
{
    PyObject *close = NULL;
    if (PyList_CheckExact(result) || PyTuple_CheckExact(result))
        return;
    int found = pn_pycompat_get_optional_attr(result, r->gw->words[PN__W_CLOSE], &close);
    if (found > 0) {
        PyObject *done = PyObject_CallNoArgs(close);
        Py_DECREF(close);
        Py_XDECREF(done);
        found = done ? 0 : -1;
    }
    if (pn_unlikely(pn_core_self() != r->core))
        pn__leave_child();
    if (found < 0)
        pn__log_exception(r->gw, r, "close() of the application's iterable failed");
}

void pn__response_fail(struct pn__request *r)
{
    struct pn_gateway *gw = r->gw;
    bool raised = PyErr_ExceptionMatches(gw->request_cut);
    bool cut = pn_core_is_cut(r->core);
    /* A wait that was cut fails as a call does: that is no failure of the application's. */
    bool quiet = raised || (cut && PyErr_ExceptionMatches(PyExc_OSError)) ||
                 (r->gone && pn__is_disconnection(gw));
    r->cut |= raised || cut;
    if (quiet)
        PyErr_Clear();
    else
        pn__log_exception(gw, r, "the application failed");
    r->ws_failed = r->ws && !quiet;
    if (r->ws)
        return;
    pn_core_leave_app(r->core);
    struct pn_exchange *x = r->x;
    if (x->state == PN_EXCHANGE_RECEIVED)
        pn_exchange_answer_status(x, r->cut ? 503 : 500, r->cut);
    else if (x->state == PN_EXCHANGE_STARTED)
        pn_exchange_cancel(x, r->cut ? PN_CANCEL_SHUTDOWN : PN_CANCEL_HANDLER);
    pn_core_enter_app(r->core);
}

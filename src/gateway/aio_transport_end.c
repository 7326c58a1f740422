/* SPDX-License-Identifier: Apache-2.0 */
/* How a transport ends: closed, aborted, or by an error. connection_lost() is called exactly once, by the loop, when no
 * output is left; then the socket is closed and all references but those to what get_extra_info() tells go. */
#include "gateway/aio_transport.h"

#include "gateway/pycompat.h"

bool pn__transport_ends_the_loop(void)
{
    return PyErr_ExceptionMatches(PyExc_SystemExit) ||
           PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

int pn__transport_say(struct pn__transport *t, const char *text)
{
    PyObject *r = PyObject_CallMethod((PyObject *)t, "_debug_say", "s", text);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

/* The base class's METHOD(message, exc), which tells the loop's exception handler or the debug log. */
static int tell(PyObject *transport, const char *method, const char *message, PyObject *exc)
{
    PyObject *r = PyObject_CallMethod(transport, method, "sO", message, exc);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

PN_COLD int pn__aio_report(PyObject *transport, const char *message)
{
    if (pn__transport_ends_the_loop())
        return -1;
    PyObject *exc = pn_pycompat_take_exception();
    int rc = tell(transport, "_report", message, exc);
    Py_DECREF(exc);
    return rc;
}

PN_COLD int pn__transport_report(struct pn__transport *t, const char *message)
{
    if (t->aio || pn__transport_ends_the_loop())
        return pn__aio_report((PyObject *)t, message);
    PyErr_Clear();
    return 0;
}

PN_COLD int pn__transport_failed(struct pn__transport *t, const char *message)
{
    if (pn__transport_ends_the_loop())
        return -1;
    PyObject *exc = pn_pycompat_take_exception();
    int rc = 0;
    if (t->aio && (t->aio->debug || !PyErr_GivenExceptionMatches(exc, PyExc_OSError)))
        rc = tell((PyObject *)t, "_say_fatal", message, exc);
    if (rc == 0)
        rc = pn__transport_force_close(t, exc);
    Py_DECREF(exc);
    return rc;
}

/* connection_lost(EXC) in a turn to come. */
static int lose_soon(struct pn__transport *t, PyObject *exc)
{
    PyObject *arg = exc ? exc : Py_None;
    t->conn_lost++;
    PyObject *callback = PyObject_GetAttr((PyObject *)t, t->aio->words[PN__L_CALL_CONNECTION_LOST]);
    if (!callback)
        return -1;
    int rc = pn__aio_soon(t->aio, callback, &arg, 1, NULL);
    Py_DECREF(callback);
    return rc;
}

int pn__transport_force_close(struct pn__transport *t, PyObject *exc)
{
    if (t->conn_lost > 0 || !t->aio)
        return 0;
    pn_list_remove(&t->gathered.node);
    pn__out_clear(&t->out);
    if (pn__transport_stop_writing(t) < 0)
        return -1;
    if (!t->closing) {
        t->closing = true;
        if (pn__transport_stop_reading(t) < 0)
            return -1;
    }
    return lose_soon(t, exc);
}

int pn__transport_close(struct pn__transport *t)
{
    if (t->closing || !t->aio)
        return 0;
    t->closing = true;
    if (pn__transport_stop_reading(t) < 0 || pn__transport_flush(t) < 0)
        return -1;
    if (t->conn_lost > 0 || t->out.count > 0 || !t->aio)
        return 0;
    if (pn__transport_stop_writing(t) < 0)
        return -1;
    return lose_soon(t, NULL);
}

int pn__aio_settle_future(PyObject *future, PyObject *exc)
{
    Py_INCREF(future);
    PyObject *over = PyObject_CallMethod(future, "done", NULL);
    int done = over ? PyObject_IsTrue(over) : -1;
    PyObject *r = NULL;
    Py_XDECREF(over);
    if (done == 0)
        r = exc ? PyObject_CallMethod(future, "set_exception", "O", exc)
                : PyObject_CallMethod(future, "set_result", "O", Py_None);
    Py_DECREF(future);
    Py_XDECREF(r);
    return done > 0 || r ? 0 : -1;
}

int pn__transport_wake_empty(struct pn__transport *t, PyObject *exc)
{
    return pn__aio_settle_future(t->empty_waiter, exc);
}

/* Runs F(self), which may raise, beside the exception that may be set: the first one stays. */
static int in_any_case(struct pn__transport *t, int (*f)(struct pn__transport *), int rc)
{
    PyObject *type, *exc, *tb;
    PyErr_Fetch(&type, &exc, &tb);
    int own = f(t);
    if (!type)
        return own < 0 ? own : rc;
    if (own < 0)
        PyErr_WriteUnraisable((PyObject *)t);
    PyErr_Restore(type, exc, tb);
    return rc;
}

static int close_socket(struct pn__transport *t)
{
    PyObject *sock = t->sock;
    t->sock = NULL;
    if (t->aio)
        pn__aio_unset_transport(t->aio, t->fd, (PyObject *)t);
    if (!sock)
        return 0;
    PN_ASSERT(t->aio); /* goes after the socket, or with it */
    PyObject *r = PyObject_CallMethodNoArgs(sock, t->aio->words[PN__L_CLOSE]);
    if (t->has_io_ref) {
        t->has_io_ref = false;
        PyObject *type, *exc, *tb;
        PyErr_Fetch(&type, &exc, &tb);
        PyObject *d = PyObject_CallMethod(sock, "_decref_socketios", NULL);
        if (!d)
            PyErr_WriteUnraisable(sock);
        Py_XDECREF(d);
        PyErr_Restore(type, exc, tb);
    }
    Py_DECREF(sock);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int leave_server(struct pn__transport *t)
{
    PyObject *server = t->server;
    t->server = NULL;
    if (!server)
        return 0;
    int rc = pn_pycompat_tell_server(server, t->aio->words[PN__L_DETACH], (PyObject *)t);
    Py_DECREF(server);
    return rc;
}

static int say_closed_by_peer(struct pn__transport *t)
{
    if (!t->empty_waiter)
        return 0;
    PyObject *exc =
        PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
    int rc = exc ? pn__transport_wake_empty(t, exc) : -1;
    Py_XDECREF(exc);
    return rc;
}

int pn__transport_lost(struct pn__transport *t, PyObject *exc)
{
    if (!t->aio)
        return 0;
    struct pn__aio *aio = t->aio;
    PyObject *protocol = t->protocol;
    PyObject *arg = exc ? exc : Py_None;
    int rc = 0;
    /* What is left of it: nothing is to find a transport whose connection_lost() runs as an open one. */
    t->closing = true;
    if (t->conn_lost == 0)
        t->conn_lost = 1;
    if (protocol && t->connected) {
        Py_INCREF(protocol);
        PyObject *r = PyObject_CallMethodOneArg(protocol, aio->words[PN__L_CONNECTION_LOST], arg);
        Py_DECREF(protocol);
        Py_XDECREF(r);
        rc = r ? 0 : -1;
    }
    pn_list_remove(&t->gathered.node);
    rc = in_any_case(t, pn__transport_stop_writing, rc);
    rc = in_any_case(t, close_socket, rc);
    if (t->aio != aio) /* connection_lost() called this again */
        return rc;
    rc = in_any_case(t, leave_server, rc);
    protocol = t->protocol;
    t->protocol = NULL;
    t->aio = NULL;
    Py_XDECREF(protocol);
    rc = in_any_case(t, say_closed_by_peer, rc);
    Py_DECREF((PyObject *)aio);
    return rc;
}

void pn__transport_drop_socket(struct pn__transport *t)
{
    struct pn__aio *aio = t->aio;
    pn_list_remove(&t->gathered.node);
    if (aio && (pn__transport_stop_writing(t) < 0 || pn__transport_stop_reading(t) < 0))
        PyErr_WriteUnraisable((PyObject *)t);
    if (close_socket(t) < 0)
        PyErr_WriteUnraisable((PyObject *)t);
    if (leave_server(t) < 0)
        PyErr_WriteUnraisable((PyObject *)t);
}

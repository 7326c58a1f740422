/* SPDX-License-Identifier: Apache-2.0 */
/* The states of a TLS transport: handshake, shutdown, the lower transport's end, and what goes wrong in each. */
#include "gateway/aio_tls.h"

#include "base/clock.h"
#include "gateway/pycompat.h"

#define SELF struct pn__tls *t = (struct pn__tls *)self

static const char *const state_text[] = {
    [PN__TLS_UNWRAPPED] = "UNWRAPPED", [PN__TLS_HANDSHAKE] = "DO_HANDSHAKE",
    [PN__TLS_WRAPPED] = "WRAPPED",     [PN__TLS_FLUSHING] = "FLUSHING",
    [PN__TLS_SHUTDOWN] = "SHUTDOWN",
};

/* Only one state on, or to UNWRAPPED. */
static int set_state(struct pn__tls *t, enum pn__tls_state to)
{
    if (to == PN__TLS_UNWRAPPED || (int)to == t->state + 1) {
        t->state = (uint8_t)to;
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "cannot switch state from %s to %s", state_text[t->state],
                 state_text[to]);
    return -1;
}

/* --- Errors ------------------------------------------------------------------------------------ */

bool pn__tls_again(struct pn__tls *t)
{
    if (!PyErr_ExceptionMatches(t->again))
        return false;
    PyErr_Clear();
    return true;
}

/* EXC ends the connection. */
PN_COLD static int fatal(struct pn__tls *t, PyObject *exc, const char *message)
{
    if (t->lower && pn__transport_force_close(t->lower, exc) < 0)
        return -1;
    PyObject *r = PyObject_CallMethod((PyObject *)t, "_say_fatal", "sO", message, exc);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

PN_COLD int pn__tls_failed(struct pn__tls *t, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *exc = pn_pycompat_take_exception();
    int rc = fatal(t, exc, message);
    Py_DECREF(exc);
    return rc;
}

static int say(struct pn__tls *t, const char *text)
{
    PyObject *r = PyObject_CallMethod((PyObject *)t, "_debug_say", "s", text);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int wake_waiter(struct pn__tls *t, PyObject *exc)
{
    PyObject *waiter = t->waiter;
    if (!waiter)
        return 0;
    t->waiter = NULL;
    int rc = pn__aio_settle_future(waiter, exc);
    Py_DECREF(waiter);
    return rc;
}

/* --- Timers ------------------------------------------------------------------------------------ */

static int start_timer(struct pn__tls *t, struct pn__handle **timer, PyObject *timeout_s,
                       const char *method)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)t, method);
    PyObject *args[2] = {timeout_s, callback};
    PyObject *handle = callback ? pn__aio_call_later((PyObject *)t->aio, args, 2, NULL) : NULL;
    Py_XDECREF(callback);
    if (!handle)
        return -1;
    Py_XSETREF(*timer, (struct pn__handle *)handle);
    return 0;
}

static void stop_timer(struct pn__handle **timer)
{
    struct pn__handle *handle = *timer;
    *timer = NULL;
    if (!handle)
        return;
    if (pn__handle_cancel(handle) < 0) /* debug mode: its repr */
        PyErr_WriteUnraisable(NULL);
    Py_DECREF(handle);
}

/* --- Handshake --------------------------------------------------------------------------------- */

/* Takes EXC. */
PN_COLD static int handshake_failed(struct pn__tls *t, PyObject *exc)
{
    t->state = PN__TLS_UNWRAPPED;
    PyObject *message = PyObject_CallMethod((PyObject *)t, "_handshake_text", "O", exc);
    const char *text = message ? PyUnicode_AsUTF8(message) : NULL;
    int rc = text ? fatal(t, exc, text) : -1;
    Py_XDECREF(message);
    if (rc == 0)
        rc = wake_waiter(t, exc);
    Py_DECREF(exc);
    return rc;
}

/* WRAPPED, and what get_extra_info() tells from then on. */
static int wrapped(struct pn__tls *t)
{
    if (set_state(t, PN__TLS_WRAPPED) < 0 || pn__tls_look(t) < 0)
        return -1;
    double ms = 0;
    if (pn_unlikely(t->aio->debug && t->handshake_at_ns))
        ms = (double)(pn_clock_mono_ns() - t->handshake_at_ns) / 1e6;
    PyObject *r = PyObject_CallMethod((PyObject *)t, "_wrapped", "d", ms);
    Py_XDECREF(r);
    return r ? 0 : -1;
}

static int handshake_done(struct pn__tls *t)
{
    stop_timer(&t->handshake_timer);
    if (wrapped(t) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        return handshake_failed(t, pn_pycompat_take_exception());
    }
    if (t->app_state == PN__TLS_APP_INIT && t->protocol) {
        t->app_state = PN__TLS_APP_MADE;
        PyObject *protocol = Py_NewRef(t->protocol);
        PyObject *r = PyObject_CallMethodOneArg(protocol, t->aio->words[PN__L_CONNECTION_MADE],
                                                (PyObject *)t);
        Py_DECREF(protocol);
        if (!r)
            return -1;
        Py_DECREF(r);
    }
    return wake_waiter(t, NULL) < 0 ? -1 : pn__tls_read(t);
}

int pn__tls_step_handshake(struct pn__tls *t)
{
    if (t->busy)
        return 0;
    t->busy = true;
    t->drained = false;
    PyObject *r = PyObject_CallMethod(t->sslobj, "do_handshake", NULL);
    t->busy = false;
    if (r) {
        Py_DECREF(r);
        return handshake_done(t);
    }
    if (pn__tls_again(t))
        return pn__tls_look(t) < 0 ? -1 : pn__tls_hand_on(t);
    if (!PyErr_ExceptionMatches(t->ssl_error))
        return -1;
    stop_timer(&t->handshake_timer);
    return handshake_failed(t, pn_pycompat_take_exception());
}

static int start_handshake(struct pn__tls *t)
{
    if (pn_unlikely(t->aio->debug)) {
        if (say(t, "%r starts SSL handshake") < 0)
            return -1;
        t->handshake_at_ns = pn_clock_mono_ns();
    }
    if (set_state(t, PN__TLS_HANDSHAKE) < 0 ||
        start_timer(t, &t->handshake_timer, t->handshake_timeout_s, "_check_handshake_timeout") < 0)
        return -1;
    return pn__tls_step_handshake(t);
}

/* start_tls() on a transport that nobody hears of any more. */
static int was_lost(struct pn__tls *t)
{
    t->app_state = PN__TLS_APP_LOST; /* it was told when that happened */
    PyObject *exc = PyObject_CallFunction(PyExc_ConnectionResetError, "s", "Connection lost");
    int rc = exc ? pn__tls_lost(t, exc) : -1;
    Py_XDECREF(exc);
    return rc;
}

PyObject *pn__tls_connection_made(PyObject *self, PyObject *lower)
{
    SELF;
    if (!Py_IS_TYPE(lower, t->aio->transport_type) || t->lower) {
        PyErr_SetString(PyExc_RuntimeError, "this protocol has a transport, or needs another one");
        return NULL;
    }
    if (t->conn_lost > 0) /* before it began */
        Py_RETURN_NONE;
    t->lower = (struct pn__transport *)Py_NewRef(lower);
    int rc;
    if (!t->lower->aio)
        rc = was_lost(t);
    else
        rc = t->closed ? pn__transport_force_close(t->lower, NULL) : start_handshake(t);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *pn__tls_check_handshake_timeout(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    if (t->state != PN__TLS_HANDSHAKE)
        Py_RETURN_NONE;
    PyErr_Format(PyExc_ConnectionAbortedError,
                 "SSL handshake is taking longer than %S seconds: aborting the connection",
                 t->handshake_timeout_s);
    if (pn__tls_failed(t, "Fatal error on transport") < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- Shutdown ---------------------------------------------------------------------------------- */

int pn__tls_say_eof(struct pn__tls *t)
{
    if (t->app_state != PN__TLS_APP_MADE || !t->protocol)
        return 0;
    t->app_state = PN__TLS_APP_EOF;
    PyObject *protocol = Py_NewRef(t->protocol);
    PyObject *keep = PyObject_CallMethodNoArgs(protocol, t->aio->words[PN__L_EOF_RECEIVED]);
    Py_DECREF(protocol);
    int open = keep ? PyObject_IsTrue(keep) : -1;
    Py_XDECREF(keep);
    if (open > 0) {
        PyObject *r = PyObject_CallMethod((PyObject *)t, "_warn_keep_open", NULL);
        Py_XDECREF(r);
        open = r ? 0 : -1;
    }
    if (open == 0)
        return 0;
    if (pn__transport_ends_the_loop())
        return -1;
    PyObject *exc = pn_pycompat_take_exception();
    int rc = fatal(t, exc, "Error calling eof_received()");
    Py_DECREF(exc);
    return rc;
}

static int shutdown_done(struct pn__tls *t)
{
    if (pn__tls_hand_on(t) < 0 || pn__tls_say_eof(t) < 0)
        return -1;
    stop_timer(&t->shutdown_timer);
    if (!t->lower)
        return 0;
    PyObject *callback = PyObject_GetAttr((PyObject *)t->lower, t->aio->words[PN__L_CLOSE]);
    int rc = callback ? pn__aio_soon(t->aio, callback, NULL, 0, NULL) : -1;
    Py_XDECREF(callback);
    return rc;
}

int pn__tls_step_shutdown(struct pn__tls *t)
{
    if (t->busy)
        return 0;
    if (t->eof_received)
        return shutdown_done(t);
    t->busy = true;
    t->drained = false;
    PyObject *r = PyObject_CallMethod(t->sslobj, "unwrap", NULL);
    t->busy = false;
    if (r) {
        Py_DECREF(r);
        return shutdown_done(t);
    }
    if (pn__tls_again(t))
        return pn__tls_look(t) < 0 ? -1 : pn__tls_hand_on(t);
    if (!PyErr_ExceptionMatches(t->ssl_error))
        return -1;
    stop_timer(&t->shutdown_timer);
    return pn__tls_failed(t, "Fatal error on transport");
}

int pn__tls_flush(struct pn__tls *t)
{
    if (pn__tls_read(t) < 0)
        return -1;
    if (t->state != PN__TLS_FLUSHING) /* an application that was called ended it */
        return 0;
    if (t->out.count > 0 && pn__tls_send(t, true) < 0)
        return pn__tls_failed(t, "Fatal error on SSL protocol");
    if (t->state != PN__TLS_FLUSHING)
        return 0;
    return set_state(t, PN__TLS_SHUTDOWN) < 0 ? -1 : pn__tls_step_shutdown(t);
}

int pn__tls_start_shutdown(struct pn__tls *t)
{
    if (t->state != PN__TLS_HANDSHAKE && t->state != PN__TLS_WRAPPED)
        return 0;
    t->closed = true;
    if (t->state == PN__TLS_HANDSHAKE)
        return pn__tls_abort(t, NULL);
    if (set_state(t, PN__TLS_FLUSHING) < 0 ||
        start_timer(t, &t->shutdown_timer, t->shutdown_timeout_s, "_check_shutdown_timeout") < 0)
        return -1;
    return pn__tls_flush(t);
}

PyObject *pn__tls_check_shutdown_timeout(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    if ((t->state != PN__TLS_FLUSHING && t->state != PN__TLS_SHUTDOWN) || !t->lower)
        Py_RETURN_NONE;
    PyObject *exc = PyObject_CallFunction(PyExc_TimeoutError, "s", "SSL shutdown timed out");
    int rc = exc ? pn__transport_force_close(t->lower, exc) : -1;
    Py_XDECREF(exc);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

int pn__tls_abort(struct pn__tls *t, PyObject *exc)
{
    /* What write() has taken in this callback already counts as sent. */
    if (pn_list_linked(&t->gathered.node) && pn__tls_send(t, false) < 0 &&
        pn__tls_failed(t, "Fatal error on SSL protocol") < 0)
        return -1;
    t->state = PN__TLS_UNWRAPPED;
    if (!t->lower)
        return 0;
    return pn__transport_flush(t->lower) < 0 ? -1 : pn__transport_force_close(t->lower, exc);
}

/* --- The lower transport's end ----------------------------------------------------------------- */

static int on_eof(struct pn__tls *t, bool *keep_open)
{
    switch ((enum pn__tls_state)t->state) {
    case PN__TLS_HANDSHAKE: {
        PyObject *exc = PyObject_CallNoArgs(PyExc_ConnectionResetError);
        if (!exc)
            return -1;
        stop_timer(&t->handshake_timer);
        return handshake_failed(t, exc);
    }
    case PN__TLS_WRAPPED:
        if (set_state(t, PN__TLS_FLUSHING) < 0)
            return -1;
        *keep_open = t->app_reading_paused; /* until it reads again */
        return *keep_open ? 0 : pn__tls_flush(t);
    case PN__TLS_FLUSHING:
        if (pn__tls_send(t, true) < 0 || set_state(t, PN__TLS_SHUTDOWN) < 0)
            return -1;
        return pn__tls_step_shutdown(t);
    case PN__TLS_SHUTDOWN:
        return pn__tls_step_shutdown(t);
    case PN__TLS_UNWRAPPED:
        break;
    }
    return 0;
}

PyObject *pn__tls_eof_received(PyObject *self, PyObject *Py_UNUSED(unused))
{
    SELF;
    bool keep_open = false;
    t->eof_received = true;
    if (pn_unlikely(t->aio->debug) && say(t, "%r received EOF") < 0)
        return NULL;
    if (pn_likely(on_eof(t, &keep_open) == 0))
        return PyBool_FromLong(keep_open);
    if (!PyErr_ExceptionMatches(PyExc_Exception) || !t->lower)
        return NULL;
    PyObject *exc = pn_pycompat_take_exception();
    int rc = pn__transport_close(t->lower);
    if (rc == 0)
        pn_pycompat_restore_exception(exc);
    else
        Py_DECREF(exc);
    return NULL;
}

/* The application's connection_lost(), in a turn to come. */
static int lose_soon(struct pn__tls *t, PyObject *exc)
{
    bool knows = t->app_state == PN__TLS_APP_MADE || t->app_state == PN__TLS_APP_EOF;
    if (t->state == PN__TLS_HANDSHAKE || !knows || !t->protocol)
        return 0;
    t->app_state = PN__TLS_APP_LOST;
    PyObject *arg = exc ? exc : Py_None;
    PyObject *callback = PyObject_GetAttr(t->protocol, t->aio->words[PN__L_CONNECTION_LOST]);
    int rc = callback ? pn__aio_soon(t->aio, callback, &arg, 1, NULL) : -1;
    Py_XDECREF(callback);
    return rc;
}

int pn__tls_lost(struct pn__tls *t, PyObject *exc)
{
    pn_list_remove(&t->gathered.node);
    pn__out_clear(&t->out);
    t->conn_lost++;
    t->closed = true;
    int rc = lose_soon(t, exc);
    PyObject *error = rc < 0 ? pn_pycompat_take_exception() : NULL;
    struct pn__transport *lower = t->lower;
    PyObject *protocol = t->protocol;
    t->state = PN__TLS_UNWRAPPED;
    t->lower = NULL;
    t->protocol = NULL;
    stop_timer(&t->shutdown_timer);
    stop_timer(&t->handshake_timer);
    PyObject *left = PyObject_CallNoArgs(t->drain);
    Py_XDECREF(left);
    rc = !left || wake_waiter(t, exc) < 0 ? -1 : 0;
    pn__tls_let_go(t);
    Py_XDECREF(protocol);
    Py_XDECREF(lower);
    if (!error)
        return rc;
    if (rc < 0)
        PyErr_WriteUnraisable((PyObject *)t);
    pn_pycompat_restore_exception(error);
    return -1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The lifespan protocol. It is spoken twice in a worker's life, so its words are Python
 * (pelton/_asgi.py); here is when they are spoken, and what follows from the outcome. */
#include <errno.h>

#include "gateway/asgi.h"

/* The exception that is set: what the application said, or its traceback. */
static void say_failed(struct pn_gateway *gw, const char *what)
{
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *text = NULL;
    if (strcmp(Py_TYPE(exc)->tp_name, "LifespanFailed") == 0)
        text = PyObject_Str(exc);
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8) {
        pn_log_error(gw->log, "%s: %s", what, utf8);
        Py_DECREF(exc);
    } else {
        PyErr_Clear();
        pn_pycompat_restore_exception(exc);
        pn__log_exception_of(gw, NULL, what);
    }
    Py_XDECREF(text);
    PyErr_Clear();
}

/* 0, -1 or -EINTR; the exception that is set is said. */
static int startup_failed(struct pn_gateway *gw)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear();
        pn_log_info(gw->log, "interrupted while the application was starting up");
        return -EINTR;
    }
    say_failed(gw, "the application's start-up failed");
    return -1;
}

int pn_gateway_lifespan_startup(struct pn_gateway *gw)
{
    struct pn__asgi *asgi = gw->asgi;
    if (!asgi->config.lifespan)
        return 0;
    PyObject *module = PyImport_ImportModule("pelton._asgi");
    PyObject *made =
        module ? PyObject_CallMethod(module, "Lifespan", "OOIi",
                                     pn_aio_home_loop(asgi->config.home), gw->app,
                                     asgi->config.version, (int)asgi->config.lifespan_required)
               : NULL;
    Py_XDECREF(module);
    PyObject *state = made ? PyObject_CallMethod(made, "startup", NULL) : NULL;
    if (!state) {
        int rc = startup_failed(gw);
        Py_XDECREF(made);
        return rc;
    }
    if (state == Py_None) {
        pn_log_debug(gw->log, "the application has no lifespan");
        Py_DECREF(state);
        Py_DECREF(made);
        return 0;
    }
    asgi->state = state;
    asgi->lifespan = made;
    return 0;
}

void pn_gateway_lifespan_shutdown(struct pn_gateway *gw, int64_t timeout_ns)
{
    struct pn__asgi *asgi = gw->asgi;
    if (!asgi || !asgi->lifespan)
        return;
    PyObject *done = PyObject_CallMethod(asgi->lifespan, "shutdown", "d", (double)timeout_ns / 1e9);
    if (!done)
        say_failed(gw, "the application's shutdown failed");
    Py_XDECREF(done);
    Py_CLEAR(asgi->lifespan);
}

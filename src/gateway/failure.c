/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong in the application: its traceback in the log, in one piece; and the end of a forked
 * child that came back into the server. */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "gateway/internal.h"

enum { CAUSES_MAX = 32, TARGET_MAX = 512, ONE_LINE_MAX = 7 * 1024 };

/* "GET /path" of a request, safe for a log. Inside; takes the loop for a moment. */
static size_t describe(const struct pn_exchange *x, char *out, size_t size)
{
    size_t n;
    struct pn_core *core = pn_core_self();
    pn_core_leave_app(core);
    struct pn_str method = pn_exchange_text(x, x->method);
    n = pn_log_escape(out, 32, method);
    out[n++] = ' ';
    n += pn_log_escape(out + n, size - n, pn_exchange_text(x, x->target));
    pn_core_enter_app(core);
    return n;
}

/* EXC or what it says of its causes. Each is looked at once: a loop of contexts ends at DEPTH. */
static bool tells_of(PyObject *exc, PyObject *class, unsigned depth)
{
    if (!exc || depth == CAUSES_MAX)
        return false;
    if (PyObject_TypeCheck(exc, (PyTypeObject *)class))
        return true;
    PyObject *cause = PyException_GetCause(exc);
    PyObject *context = NULL;
    /* "during handling of": only what is itself named for it, as frameworks have it; else a mistake in an
     * application's handler would be lost. */
    if (!cause && strstr(Py_TYPE(exc)->tp_name, "Disconnect"))
        context = PyException_GetContext(exc);
    bool found = tells_of(cause ? cause : context, class, depth + 1);
    Py_XDECREF(cause);
    Py_XDECREF(context);
    return found;
}

bool pn__is_disconnection(struct pn_gateway *gw)
{
    PyObject *exc = pn_pycompat_take_exception();
    bool found = tells_of(exc, gw->client_disconnected, 0);
    if (exc && !found && PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_BaseExceptionGroup)) {
        /* A group of nothing else, as a task group makes it. */
        PyObject *pair = PyObject_CallMethod(exc, "split", "O", gw->client_disconnected);
        found = pair && PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2 &&
                PyTuple_GET_ITEM(pair, 1) == Py_None;
        Py_XDECREF(pair);
        PyErr_Clear();
    }
    pn_pycompat_restore_exception(exc);
    return found;
}

/* Steals EXC. TARGET may be empty. */
static void log_exception(struct pn_gateway *gw, PyObject *exc, struct pn_str target,
                          const char *what)
{
    PyObject *bytes = pn_gateway_format_exception(exc);
    const char *text = bytes ? PyBytes_AS_STRING(bytes) : NULL;
    const char *colon = target.n ? ": " : "";
    size_t n = bytes ? (size_t)PyBytes_GET_SIZE(bytes) : 0;
    int target_len = (int)target.n;
    if (!text) {
        pn_log_error(gw->log, "%.*s%s%s: %s (no memory for its traceback)", target_len, target.p,
                     colon, what, Py_TYPE(exc)->tp_name);
    } else {
        if (n && text[n - 1] == '\n')
            n--;
        if (n < ONE_LINE_MAX) {
            pn_log_error(gw->log, "%.*s%s%s\n%.*s", target_len, target.p, colon, what, (int)n,
                         text);
        } else {
            pn_log_error(gw->log, "%.*s%s%s", target_len, target.p, colon, what);
            pn_log_raw(gw->log, text, (size_t)PyBytes_GET_SIZE(bytes));
            pn_log_flush(gw->log);
        }
    }
    Py_XDECREF(bytes);
    Py_DECREF(exc);
    PyErr_Clear();
}

void pn__log_exception(struct pn_gateway *gw, struct pn__request *r, const char *what)
{
    pn__log_exception_of(gw, r && r->core == pn_core_self() ? r->x : NULL, what);
}

void pn__log_exception_of(struct pn_gateway *gw, const struct pn_exchange *x, const char *what)
{
    char target[TARGET_MAX + 64];
    PyObject *exc = pn_pycompat_take_exception();
    if (!exc)
        return;
    size_t n = x ? describe(x, target, TARGET_MAX) : 0;
    log_exception(gw, exc, (struct pn_str){target, n}, what);
}

void pn__log_exception_at(struct pn_gateway *gw, struct pn_str name, const char *what)
{
    char target[TARGET_MAX];
    PyObject *exc = pn_pycompat_take_exception();
    if (!exc)
        return;
    size_t n = pn_log_escape(target, sizeof target, name);
    log_exception(gw, exc, (struct pn_str){target, n}, what);
}

static void flush_stream(const char *name)
{
    PyObject *stream = PySys_GetObject(name); /* borrowed */
    PyObject *done =
        stream && stream != Py_None ? PyObject_CallMethod(stream, "flush", NULL) : NULL;
    Py_XDECREF(done);
    PyErr_Clear();
}

/* What sys.exit meant: its number, 0 for None, 1 for anything else. */
static int exit_code(void)
{
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *code = exc ? PyObject_GetAttrString(exc, "code") : NULL;
    int status = 1;
    if (code == Py_None)
        status = 0;
    else if (code && PyLong_Check(code))
        status = (int)(PyLong_AsLong(code) & 0xff);
    Py_XDECREF(code);
    Py_XDECREF(exc);
    PyErr_Clear();
    return status;
}

void pn__leave_child(void)
{
    int status = EX_SOFTWARE;
    if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
        status = exit_code();
    } else if (PyErr_Occurred()) {
        PyErr_PrintEx(0);
        status = 1;
    } else {
        PySys_WriteStderr("pelton: a forked child (pid %d) returned from the application: it ends "
                          "here, the server is its parent\n",
                          (int)getpid());
    }
    flush_stream("stdout");
    flush_stream("stderr");
    _exit(status);
}

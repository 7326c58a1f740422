/* SPDX-License-Identifier: Apache-2.0 */
/* The module `uwsgi`, which programs written for uWSGI import when they find themselves in a server.
 * It stands in sys.modules from pn_gateway_create to pn_gateway_stop and is nowhere on the path.
 *
 * It holds what works. Other names of uWSGI's raise AttributeError with a sentence, so that hasattr
 * and "try" tell the truth. Every function works, or raises, outside of a request and in threads of
 * the application's own. Programs may set attributes: post_fork_hook and atexit are called. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "gateway/internal.h"

struct module_state {
    struct pn_gateway *gw;
};

static struct pn_gateway *gateway_of(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    return state->gw;
}

/* The request that the caller runs; NULL with RuntimeError. */
static struct pn__request *need_request(const char *what)
{
    struct pn__request *r = pn__request_current();
    if (!r)
        PyErr_Format(PyExc_RuntimeError, "uwsgi.%s: there is no request here", what);
    return r;
}

/* --- Waiting --- */

/* SECONDS from now as a deadline; 0, or -1 with an exception. */
static int deadline_of(PyObject *seconds, int64_t *deadline_ns)
{
    double s = PyFloat_AsDouble(seconds);
    if (s == -1.0 && PyErr_Occurred())
        return -1;
    if (!(s >= 0)) {
        PyErr_SetString(PyExc_ValueError, "a time to wait cannot be negative");
        return -1;
    }
    int64_t span_ns = s < 1e9 ? (int64_t)(s * 1e9) : INT64_C(1000000000) * PN_NS_PER_SEC;
    *deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), span_ns);
    return 0;
}

/* Detached. A thread that is no core sleeps by itself. */
static int sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    if (core)
        return pn_core_sleep_until(core, deadline_ns);
    struct timespec t = pn_ns_timespec(deadline_ns);
    int rc = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    return rc == EINTR ? PN_WAIT_INTERRUPTED : PN_WAIT_TIMEOUT;
}

static PyObject *uwsgi_async_sleep(PyObject *module, PyObject *seconds)
{
    int64_t deadline_ns;
    struct pn_core *core = pn_core_self();
    int rc;
    (void)module;
    if (deadline_of(seconds, &deadline_ns) < 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS rc = sleep_until(core, deadline_ns);
        Py_END_ALLOW_THREADS if (rc == PN_WAIT_INTERRUPTED && PyErr_CheckSignals() < 0) return NULL;
    } while (rc == PN_WAIT_INTERRUPTED);
    return PyBytes_FromStringAndSize(NULL, 0); /* so that it can be yielded, as in uWSGI */
}

/* Detached. Wakes may be stale: what counts is what the fd itself says. */
static int wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = (short)(events & EPOLLIN ? POLLIN : POLLOUT)};
    for (;;) {
        int rc = poll(&p, 1, 0);
        if (rc > 0)
            return p.revents & POLLNVAL ? -EBADF : PN_WAIT_READY;
        if (rc < 0 && errno != EINTR)
            return -errno;
        int64_t now_ns = pn_clock_mono_ns();
        if (now_ns >= deadline_ns)
            return PN_WAIT_TIMEOUT;
        if (core) {
            rc = pn_core_wait_fd(core, fd, events, deadline_ns);
            if (rc < 0 || rc == PN_WAIT_CUT || rc == PN_WAIT_INTERRUPTED)
                return rc;
        } else {
            int64_t left_ms = (deadline_ns - now_ns) / PN_NS_PER_MS + 1;
            rc = poll(&p, 1, deadline_ns == PN_NEVER_NS || left_ms > 60000 ? 60000 : (int)left_ms);
            if (rc < 0 && errno == EINTR)
                return PN_WAIT_INTERRUPTED;
        }
    }
}

static PyObject *wait_fd_call(PyObject *args, uint32_t events)
{
    int fd;
    PyObject *timeout = NULL; /* borrowed */
    int64_t deadline_ns = PN_NEVER_NS;
    struct pn_core *core = pn_core_self();
    struct pn__request *r = pn__request_current();
    int rc;
    if (!PyArg_ParseTuple(args, "i|O", &fd, &timeout))
        return NULL;
    /* 0 is uWSGI's word for "no time-out". */
    int limited = timeout && timeout != Py_None ? PyObject_IsTrue(timeout) : 0;
    if (limited < 0 || (limited && deadline_of(timeout, &deadline_ns) < 0))
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS rc = wait_fd(core, fd, events, deadline_ns);
        Py_END_ALLOW_THREADS if (rc == PN_WAIT_INTERRUPTED && PyErr_CheckSignals() < 0) return NULL;
    } while (rc == PN_WAIT_INTERRUPTED);
    if (r)
        r->ready_fd = rc == PN_WAIT_READY ? fd : -1;
    if (rc < 0) {
        errno = -rc;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyBytes_FromStringAndSize(NULL, 0);
}

static PyObject *uwsgi_wait_fd_read(PyObject *module, PyObject *args)
{
    (void)module;
    return wait_fd_call(args, EPOLLIN);
}

static PyObject *uwsgi_wait_fd_write(PyObject *module, PyObject *args)
{
    (void)module;
    return wait_fd_call(args, EPOLLOUT);
}

static PyObject *uwsgi_ready_fd(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    struct pn__request *r = need_request("ready_fd");
    return r ? PyLong_FromLong(r->ready_fd) : NULL;
}

static PyObject *uwsgi_suspend(PyObject *module, PyObject *unused)
{
    struct pn_core *core = pn_core_self();
    (void)module;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS if (core && pn_core_request(core)) pn_core_yield(core);
    Py_END_ALLOW_THREADS Py_RETURN_TRUE;
}

/* --- The current request --- */

static PyObject *uwsgi_connection_fd(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    struct pn__request *r = need_request("connection_fd");
    if (!r)
        return NULL;
    pn_core_leave_app(r->core);
    int fd = pn_exchange_wait_fd(r->x);
    pn_core_enter_app(r->core);
    return PyLong_FromLong(fd);
}

/* The client gets the answer as far as it has come; the application goes on. */
static PyObject *uwsgi_disconnect(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    struct pn__request *r = need_request("disconnect");
    if (!r)
        return NULL;
    pn_core_leave_app(r->core);
    int rc = 0;
    if (!r->head_sent && r->answer.status)
        rc = pn__response_head(r, -1, PN_HEAD_CLOSE);
    if (r->head_sent && rc == 0)
        rc = pn_exchange_end(r->x, NULL, 0);
    if (!r->head_sent || rc < 0)
        pn_exchange_cancel(r->x, PN_CANCEL_HANDLER);
    r->disconnected = true;
    pn_core_enter_app(r->core);
    Py_RETURN_NONE;
}

static PyObject *uwsgi_is_connected(PyObject *module, PyObject *arg)
{
    int fd = PyObject_AsFileDescriptor(arg);
    int error = 0;
    socklen_t len = sizeof error;
    char byte;
    (void)module;
    if (fd < 0)
        return NULL;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error)
        Py_RETURN_FALSE;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        Py_RETURN_FALSE;
    Py_RETURN_TRUE;
}

static PyObject *uwsgi_cl(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    struct pn__request *r = need_request("cl");
    if (!r)
        return NULL;
    int64_t length = r->x->content_length; /* written once, with the head */
    return PyLong_FromLongLong(length > 0 ? length : 0);
}

static PyObject *uwsgi_request_id(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    struct pn__request *r = need_request("request_id");
    return r ? PyLong_FromUnsignedLongLong(r->id) : NULL;
}

/* --- The server --- */

static PyObject *uwsgi_total_requests(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(pn_gateway_requests(gateway_of(module)));
}

static PyObject *uwsgi_worker_id(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(gateway_of(module)->worker_id);
}

static PyObject *uwsgi_masterpid(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(gateway_of(module)->master_pid);
}

static PyObject *uwsgi_mem(PyObject *module, PyObject *unused)
{
    unsigned long long size = 0, resident = 0;
    unsigned long long page = (unsigned long long)sysconf(_SC_PAGESIZE);
    (void)module;
    (void)unused;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return PyErr_SetFromErrno(PyExc_OSError);
    int got = fscanf(f, "%llu %llu", &size, &resident);
    fclose(f);
    if (got != 2)
        return PyErr_Format(PyExc_OSError, "/proc/self/statm could not be understood");
    return Py_BuildValue("(KK)", resident * page, size * page);
}

static PyObject *uwsgi_micros(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromLongLong(pn_clock_real_ns() / PN_NS_PER_US);
}

static PyObject *uwsgi_ready(PyObject *module, PyObject *unused)
{
    (void)unused;
    if (gateway_of(module)->cores)
        Py_RETURN_TRUE;
    Py_RETURN_NONE;
}

static PyObject *uwsgi_log(PyObject *module, PyObject *text)
{
    PyObject *bytes = NULL;
    if (PyUnicode_Check(text))
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    else if (PyBytes_Check(text))
        bytes = Py_NewRef(text);
    else
        PyErr_Format(PyExc_TypeError, "uwsgi.log takes str, not %.100s", Py_TYPE(text)->tp_name);
    if (!bytes)
        return NULL;
    Py_ssize_t n = PyBytes_GET_SIZE(bytes);
    const char *p = PyBytes_AS_STRING(bytes);
    if (n && p[n - 1] == '\n')
        n--;
    pn_log_info(gateway_of(module)->log, "%.*s", n > INT32_MAX ? INT32_MAX : (int)n, p);
    Py_DECREF(bytes);
    Py_RETURN_TRUE;
}

static PyObject *uwsgi_getattr(PyObject *module, PyObject *name)
{
    (void)module;
    return PyErr_Format(PyExc_AttributeError,
                        "module 'uwsgi' has no attribute %R: Pelton has not built it (yet)", name);
}

/* For pelton/_run.py. */
static PyObject *uwsgi_spawn(PyObject *module, PyObject *callable)
{
    return pn__spawn(gateway_of(module), callable);
}

static PyObject *uwsgi_waiter(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return pn__waiter_new();
}

static PyObject *uwsgi_wait(PyObject *module, PyObject *waiter)
{
    (void)module;
    return pn__waiter_wait(waiter);
}

static PyObject *uwsgi_wake(PyObject *module, PyObject *waiter)
{
    (void)module;
    return pn__waiter_wake(waiter);
}

static PyObject *uwsgi_single(PyObject *module, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(gateway_of(module)->carrier == PN_CARRIER_INLINE);
}

static PyMethodDef methods[] = {
    {"async_sleep", uwsgi_async_sleep, METH_O,
     "async_sleep(seconds): other requests run meanwhile"},
    {"wait_fd_read", uwsgi_wait_fd_read, METH_VARARGS, "wait_fd_read(fd[, timeout])"},
    {"wait_fd_write", uwsgi_wait_fd_write, METH_VARARGS, "wait_fd_write(fd[, timeout])"},
    {"ready_fd", uwsgi_ready_fd, METH_NOARGS, "the fd of the last wait, -1 when it timed out"},
    {"suspend", uwsgi_suspend, METH_NOARGS, "lets other requests run once"},
    {"green_schedule", uwsgi_suspend, METH_NOARGS, "the same as suspend()"},
    {"connection_fd", uwsgi_connection_fd, METH_NOARGS, "the socket of the request's connection"},
    {"disconnect", uwsgi_disconnect, METH_NOARGS, "ends the answer; the application goes on"},
    {"is_connected", uwsgi_is_connected, METH_O, "is_connected(fd): the peer is still there"},
    {"cl", uwsgi_cl, METH_NOARGS, "Content-Length of the request, 0 without one"},
    {"request_id", uwsgi_request_id, METH_NOARGS, "the request's number in this worker"},
    {"total_requests", uwsgi_total_requests, METH_NOARGS, "requests that this worker has begun"},
    {"worker_id", uwsgi_worker_id, METH_NOARGS, "the worker's number, from 1; 0 before it starts"},
    {"masterpid", uwsgi_masterpid, METH_NOARGS, "the manager's process id, 0 without one"},
    {"mem", uwsgi_mem, METH_NOARGS, "(rss, vsz) of this process in bytes"},
    {"micros", uwsgi_micros, METH_NOARGS, "microseconds since 1970"},
    {"ready", uwsgi_ready, METH_NOARGS, "True when the worker serves, else None"},
    {"log", uwsgi_log, METH_O, "log(text): one line in the server's log"},
    {"websocket_handshake", pn__uwsgi_ws_handshake, METH_VARARGS,
     "websocket_handshake([key[, origin[, proto]]]): the request becomes a WebSocket"},
    {"websocket_recv", pn__uwsgi_ws_recv, METH_NOARGS,
     "waits for the next message: bytes; OSError when the WebSocket is closed"},
    {"websocket_recv_nb", pn__uwsgi_ws_recv_nb, METH_NOARGS, "the same without waiting, or b''"},
    {"websocket_send", pn__uwsgi_ws_send, METH_O, "websocket_send(text)"},
    {"websocket_send_binary", pn__uwsgi_ws_send_binary, METH_O, "websocket_send_binary(bytes)"},
    {"_spawn", uwsgi_spawn, METH_O, NULL},
    {"_single", uwsgi_single, METH_NOARGS, NULL},
    {"_waiter", uwsgi_waiter, METH_NOARGS, NULL},
    {"_wait", uwsgi_wait, METH_O, NULL},
    {"_wake", uwsgi_wake, METH_O, NULL},
    {"__getattr__", uwsgi_getattr, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "uwsgi",
    .m_doc = "What Pelton has of uWSGI's Python API.",
    .m_size = sizeof(struct module_state),
    .m_methods = methods,
};

/* --- Making --- */

/* Steals VALUE. */
static int set(PyObject *module, const char *name, PyObject *value)
{
    if (!value)
        return -1;
    int rc = PyObject_SetAttrString(module, name, value);
    Py_DECREF(value);
    return rc;
}

/* Keys are str and values bytes, as libraries that look into it expect; an option given twice has a
 * list. */
static int add_option(PyObject *opt, const struct pn_gateway_option *o)
{
    PyObject *value = o->value ? PyBytes_FromString(o->value) : Py_NewRef(Py_True);
    PyObject *old = PyDict_GetItemString(opt, o->name); /* borrowed */
    int rc = -1;
    if (value && old && PyList_Check(old))
        rc = PyList_Append(old, value);
    else if (value && old) {
        PyObject *both = Py_BuildValue("[OO]", old, value);
        rc = both ? PyDict_SetItemString(opt, o->name, both) : -1;
        Py_XDECREF(both);
    } else if (value) {
        rc = PyDict_SetItemString(opt, o->name, value);
    }
    Py_XDECREF(value);
    return rc;
}

static PyObject *make_options(const struct pn_gateway_config *config)
{
    /* True of every Pelton; agents refuse to start where they are missing. */
    static const struct pn_gateway_option always[] = {{"enable-threads", NULL},
                                                      {"py-call-uwsgi-fork-hooks", NULL}};
    PyObject *opt = PyDict_New();
    for (size_t i = 0; opt && i < config->option_count; i++)
        if (add_option(opt, &config->options[i]) < 0)
            Py_CLEAR(opt);
    for (size_t i = 0; opt && i < PN_ARRAY_LEN(always); i++)
        if (!PyDict_GetItemString(opt, always[i].name) && add_option(opt, &always[i]) < 0)
            Py_CLEAR(opt);
    return opt;
}

int pn__uwsgi_init(struct pn_gateway *gw, const struct pn_gateway_config *config)
{
    char host[256] = "";
    PyObject *m = PyModule_Create(&definition);
    if (!m)
        return -1;
    ((struct module_state *)PyModule_GetState(m))->gw = gw;
    gw->uwsgi = m;
    (void)gethostname(host, sizeof host - 1);
    /* The level of the API that this is; libraries compare it. */
    if (set(m, "version", PyBytes_FromString("2.0.0-pelton-" PELTON_VERSION)) < 0 ||
        set(m, "version_info", Py_BuildValue("(iiiis)", 2, 0, 0, 0, "pelton-" PELTON_VERSION)) <
            0 ||
        set(m, "hostname", PyBytes_FromString(host)) < 0 ||
        set(m, "numproc", PyLong_FromUnsignedLong(config->processes)) < 0 ||
        set(m, "cores", PyLong_FromUnsignedLong(config->cores)) < 0 ||
        set(m, "has_threads", PyLong_FromLong(1)) < 0 ||
        set(m, "started_on", PyLong_FromLongLong((long long)time(NULL))) < 0 ||
        set(m, "unbit", Py_NewRef(Py_False)) < 0 || set(m, "opt", make_options(config)) < 0)
        return -1;
    return PyDict_SetItemString(PyImport_GetModuleDict(), "uwsgi", m);
}

/* Calls a function that the program has put into the module. */
static void call_hook(struct pn_gateway *gw, const char *name)
{
    PyObject *hook = PyDict_GetItemString(PyModule_GetDict(gw->uwsgi), name); /* borrowed */
    if (!hook)
        return;
    Py_INCREF(hook);
    PyObject *done = PyObject_CallNoArgs(hook);
    Py_DECREF(hook);
    Py_XDECREF(done);
    if (!done)
        pn__log_exception(gw, NULL, name);
}

void pn__uwsgi_started(struct pn_gateway *gw)
{
    call_hook(gw, "post_fork_hook");
}

void pn__uwsgi_fini(struct pn_gateway *gw)
{
    if (!gw->uwsgi)
        return;
    if (gw->cores)
        call_hook(gw, "atexit");
    PyObject *modules = PyImport_GetModuleDict();
    if (PyDict_GetItemString(modules, "uwsgi") == gw->uwsgi)
        (void)PyDict_DelItemString(modules, "uwsgi");
    PyErr_Clear();
    /* Who keeps the module gets no gateway that is gone: its functions are taken out. */
    PyDict_Clear(PyModule_GetDict(gw->uwsgi));
    Py_CLEAR(gw->uwsgi);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway over a wire in memory: a test-only extension that is never installed.
 *
 *   server = _gwtest.Server(app, carrier=0, ...)
 *   events = server.request(method=b"GET", target=b"/", headers=[...], body=[b"..", None, b".."])
 *
 * events lists what the gateway did to the exchange, in order. In a body None is a wait, and an int
 * breaks the body off with that enum pn_cancel. Every operation aborts the process when the gateway
 * does not own the loop. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"
#include "gateway/aio.h"
#include "gateway/gateway.h"
#include "http/h1_names.h"
#include "http/http_token.h"
#include "stub_cores.h"

enum { HEADERS_MAX = 64 };

/* The gateway is at work: code that runs now, and not inside, breaks the contract. */
static bool serving;

struct stub_wire {
    struct pn_exchange x;
    PyObject *events; /* list */
    PyObject *body;   /* list */
    Py_ssize_t body_at;
    size_t body_used;
    PyObject *decoded; /* the body as bytes that peek may move: a private copy */
    int wait_fd;
    Py_ssize_t take; /* bytes that one write takes; < 0: all */
    Py_ssize_t gone_after;
    Py_ssize_t written;
    bool body_waited;
    bool full; /* until progress */
    bool no_sendfile;
    int64_t length;
    struct pn_header headers[HEADERS_MAX];
    bool released;
};

static struct stub_wire *wire_of(struct pn_exchange *x)
{
    return pn_container_of(x, struct stub_wire, x);
}

/* Appends the tuple that FORMAT makes (Py_BuildValue). The collector is held off: that it never runs
 * while the loop is owned is the gateway's promise, and must not be broken by its test. */
static void record(struct stub_wire *w, const char *format, ...)
{
    va_list args;
    int gc = PyGC_Disable();
    va_start(args, format);
    PyObject *event = Py_VaBuildValue(format, args);
    va_end(args);
    PN_BUG_ON(!event || PyList_Append(w->events, event) < 0);
    Py_DECREF(event);
    if (gc)
        PyGC_Enable();
}

static bool over(const struct stub_wire *w)
{
    return w->x.state >= PN_EXCHANGE_ENDED;
}

static void cancelled(struct stub_wire *w, enum pn_cancel why)
{
    w->x.state = PN_EXCHANGE_CANCELLED;
    w->x.cancel = why;
}

/* --- The wire's operations --- */

static enum pn_body body_peek(struct pn_exchange *x, struct pn_str *view)
{
    struct stub_wire *w = wire_of(x);
    stub_must_own(__func__);
    if (w->x.state == PN_EXCHANGE_CANCELLED)
        return PN_BODY_ERROR;
    for (;;) {
        if (w->body_at >= PyList_GET_SIZE(w->body))
            return PN_BODY_END;
        PyObject *item = PyList_GET_ITEM(w->body, w->body_at);
        if (item == Py_None) {
            /* The inline carrier has waited on the fd before it looks again. */
            if (w->body_waited) {
                w->body_waited = false;
                w->body_at++;
                continue;
            }
            w->body_waited = true;
            return PN_BODY_AGAIN;
        }
        if (PyLong_Check(item)) {
            cancelled(w, (enum pn_cancel)PyLong_AsLong(item));
            return PN_BODY_ERROR;
        }
        size_t n = (size_t)PyBytes_GET_SIZE(item);
        if (w->body_used == n) {
            w->body_at++;
            w->body_used = 0;
            continue;
        }
        /* At another address each time: a view that is kept too long shows. */
        Py_XSETREF(w->decoded, PyBytes_FromStringAndSize(PyBytes_AS_STRING(item) + w->body_used,
                                                         (Py_ssize_t)(n - w->body_used)));
        *view = (struct pn_str){PyBytes_AS_STRING(w->decoded), n - w->body_used};
        return PN_BODY_DATA;
    }
}

static void body_consume(struct pn_exchange *x, size_t n)
{
    struct stub_wire *w = wire_of(x);
    stub_must_own(__func__);
    PN_BUG_ON((Py_ssize_t)n > PyBytes_GET_SIZE(w->decoded));
    w->body_used += n;
    w->x.received_body_size += n;
}

static PyObject *bytes_of(struct pn_str s)
{
    return PyBytes_FromStringAndSize(s.p, (Py_ssize_t)s.n);
}

static int head(struct pn_exchange *x, unsigned status, struct pn_str reason,
                const struct pn_field *fields, size_t count, int64_t length, unsigned flags)
{
    struct stub_wire *w = wire_of(x);
    stub_must_own(__func__);
    if (w->x.state != PN_EXCHANGE_RECEIVED)
        return w->x.state == PN_EXCHANGE_STARTED ? -EINVAL : -EPIPE;
    if (!pn_http_is_field_value(reason))
        return -EINVAL;
    int gc = PyGC_Disable();
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < count; i++) {
        if (!pn_http_is_token(fields[i].name) || !pn_http_is_field_value(fields[i].value)) {
            Py_DECREF(list);
            if (gc)
                PyGC_Enable();
            return -EINVAL;
        }
        PyObject *pair = Py_BuildValue("(NN)", bytes_of(fields[i].name), bytes_of(fields[i].value));
        PN_BUG_ON(PyList_Append(list, pair) < 0);
        Py_DECREF(pair);
    }
    record(w, "(sINNLI)", "head", status, bytes_of(reason), list, (long long)length, flags);
    if (gc)
        PyGC_Enable();
    w->x.state = PN_EXCHANGE_STARTED;
    w->x.status = (uint16_t)status;
    w->length = length;
    return 0;
}

/* How many of N bytes the peer takes now, or negative errno. */
static ssize_t room(struct stub_wire *w, size_t n)
{
    stub_must_own(__func__);
    if (w->x.state != PN_EXCHANGE_STARTED)
        return over(w) ? -EPIPE : -EINVAL;
    if (w->gone_after >= 0 && w->written >= w->gone_after) {
        cancelled(w, PN_CANCEL_CLIENT_GONE);
        return -EPIPE;
    }
    if (w->length >= 0 && w->written + (Py_ssize_t)n > w->length)
        return -EMSGSIZE;
    if (w->full)
        return 0;
    size_t taken = w->take >= 0 ? pn_min_size(n, (size_t)w->take) : n;
    w->full = taken < n;
    w->written += (Py_ssize_t)taken;
    return (ssize_t)taken;
}

static ssize_t write_bytes(struct pn_exchange *x, const void *data, size_t n)
{
    struct stub_wire *w = wire_of(x);
    if (w->x.is_head && w->x.state == PN_EXCHANGE_STARTED)
        return (ssize_t)n;
    ssize_t taken = room(w, n);
    if (taken > 0)
        record(w, "(sN)", "write", PyBytes_FromStringAndSize(data, taken));
    return taken;
}

static ssize_t send_file(struct pn_exchange *x, int fd, off_t *offset, size_t n)
{
    struct stub_wire *w = wire_of(x);
    char buffer[4096];
    if (w->no_sendfile)
        return -ENOTSUP;
    ssize_t taken = room(w, pn_min_size(n, sizeof buffer));
    if (taken <= 0)
        return taken;
    ssize_t got = pread(fd, buffer, (size_t)taken, *offset);
    if (got <= 0)
        return got < 0 ? -errno : -ENODATA;
    *offset += got;
    record(w, "(sN)", "file", PyBytes_FromStringAndSize(buffer, got));
    return got;
}

static int flush(struct pn_exchange *x)
{
    struct stub_wire *w = wire_of(x);
    stub_must_own(__func__);
    if (over(w))
        return -EPIPE;
    w->full = false; /* the inline carrier has waited for the socket */
    record(w, "(s)", "flush");
    return 0;
}

static int end(struct pn_exchange *x, const struct pn_field *trailers, size_t n)
{
    struct stub_wire *w = wire_of(x);
    (void)trailers;
    (void)n;
    stub_must_own(__func__);
    if (w->x.state != PN_EXCHANGE_STARTED)
        return over(w) ? -EPIPE : -EINVAL;
    bool whole = w->length < 0 || w->x.is_head || w->written == w->length;
    record(w, "(s)", whole ? "end" : "short");
    w->x.state = PN_EXCHANGE_ENDED;
    return whole ? 0 : -EMSGSIZE;
}

static void cancel(struct pn_exchange *x, enum pn_cancel why)
{
    struct stub_wire *w = wire_of(x);
    stub_must_own(__func__);
    if (over(w))
        return;
    cancelled(w, why);
    record(w, "(si)", "cancel", (int)why);
}

static int wait_fd(struct pn_exchange *x)
{
    stub_must_own(__func__);
    return wire_of(x)->wait_fd;
}

static int keep(struct pn_exchange *x)
{
    struct stub_wire *w = wire_of(x);
    stub_must_own(__func__);
    PyGILState_STATE gil = PyGILState_Ensure(); /* a core that is about to wait is detached */
    record(w, "(s)", "keep");
    PyGILState_Release(gil);
    return 0;
}

static void release(struct pn_exchange *x)
{
    stub_must_own(__func__);
    wire_of(x)->released = true;
}

static const struct pn_wire_ops ops = {
    .name = "memory",
    .body_peek = body_peek,
    .body_consume = body_consume,
    .head = head,
    .write = write_bytes,
    .send_file = send_file,
    .flush = flush,
    .end = end,
    .cancel = cancel,
    .wait_fd = wait_fd,
    .keep = keep,
    .release = release,
};

/* Called for a parked core, owning the loop, detached like any runner that has just slept. */
void stub_wire_progress(struct stub_wire *w)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    unsigned why = PN_NOTIFY_DRAINED;
    if (w->body_at < PyList_GET_SIZE(w->body) && PyList_GET_ITEM(w->body, w->body_at) == Py_None) {
        w->body_at++;
        w->body_waited = false;
        why = PN_NOTIFY_BODY;
    }
    w->full = false;
    if (w->gone_after >= 0 && w->written >= w->gone_after) {
        cancelled(w, PN_CANCEL_CLIENT_GONE);
        why = PN_NOTIFY_CANCELLED;
    }
    w->x.notify(&w->x, why);
    PyGILState_Release(gil);
}

/* --- The server object --- */

struct server {
    PyObject_HEAD struct pn_gateway *gw;
    struct pn_cores *cores;
    struct pn_peer peer;
    int always_ready;
    int never_ready;
};

static bool trusts(void *ctx, const struct sockaddr *address, socklen_t len)
{
    /* 10.0.0.0/8 */
    (void)ctx;
    return len >= 8 && address->sa_family == AF_INET && ((const unsigned char *)address)[4] == 10;
}

static int server_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"app",     (char *)"carrier",     (char *)"processes",
                            (char *)"timeout", (char *)"server_name", NULL};
    struct server *s = (struct server *)self;
    PyObject *app;
    int carrier = 0;
    unsigned processes = 1;
    double timeout = 5;
    const char *name = "testserver";
    char err[256];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|iIds", names, &app, &carrier, &processes,
                                     &timeout, &name))
        return -1;
    const struct pn_gateway_server servers[] = {{NULL, name, 8000, NULL},
                                                {(const void *)s, "second", 8001, NULL}};
    const struct pn_gateway_option options[] = {
        {"http-socket", ":9090"}, {"master", NULL}, {"env", "A=1"}, {"env", "B=2"}, {"env", "C=3"}};
    const struct pn_gateway_config config = {
        .carrier = (enum pn_carrier)carrier,
        .cores = 4,
        .processes = processes,
        .body_timeout_ns = (int64_t)(timeout * 1e9),
        .write_timeout_ns = (int64_t)(timeout * 1e9),
        .servers = servers,
        .server_count = 2,
        .options = options,
        .option_count = PN_ARRAY_LEN(options),
        .is_trusted = trusts,
    };
    s->gw = pn_gateway_create(&config, err, sizeof err);
    if (!s->gw) {
        PyErr_SetString(PyExc_RuntimeError, err);
        return -1;
    }
    s->always_ready = eventfd(1, EFD_CLOEXEC);
    s->never_ready = epoll_create1(EPOLL_CLOEXEC); /* of nothing: neither way */
    s->cores = stub_cores_create((enum pn_carrier)carrier, pn_gateway_host(s->gw));
    if (pn_gateway_set_app(s->gw, Py_NewRef(app)) < 0 ||
        pn_gateway_start(s->gw, s->cores, 1, 0) < 0) {
        PyErr_SetString(PyExc_TypeError, "the application cannot be called");
        return -1;
    }
    return 0;
}

static PyObject *server_close(PyObject *self, PyObject *unused)
{
    struct server *s = (struct server *)self;
    (void)unused;
    if (!s->gw)
        Py_RETURN_NONE;
    struct pn_handler *h = pn_gateway_handler(s->gw);
    h->peer_gone(h, &s->peer);
    pn_gateway_stop(s->gw);
    stub_cores_destroy(s->cores);
    pn_gateway_destroy(s->gw);
    s->gw = NULL;
    close(s->always_ready);
    close(s->never_ready);
    Py_RETURN_NONE;
}

static void server_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject *kind, *value, *traceback;
    PyErr_Fetch(&kind, &value, &traceback);
    Py_XDECREF(server_close(self, NULL));
    PyErr_Restore(kind, value, traceback);
    PyObject_Free(self);
    Py_DECREF(type);
}

struct text {
    char bytes[16384];
    size_t n;
};

static struct pn_span add_text(struct text *t, const char *p, size_t n)
{
    PN_BUG_ON(n > sizeof t->bytes - t->n);
    memcpy(t->bytes + t->n, p, n);
    t->n += n;
    return (struct pn_span){(uint32_t)(t->n - n), (uint32_t)n};
}

static unsigned id_of(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!pn_http_is(p[i], PN_HTTP_C_PLAIN))
            return PN_HEADER_UNUSUAL;
    return pn_header_id_of(p, n);
}

static int fill_headers(struct stub_wire *w, struct text *text, PyObject *headers)
{
    Py_ssize_t n = PyList_Size(headers);
    if (n < 0 || n > HEADERS_MAX)
        return -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        char *name, *value;
        Py_ssize_t name_len, value_len;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(headers, i), "y#y#", &name, &name_len, &value,
                              &value_len))
            return -1;
        struct pn_span a = add_text(text, name, (size_t)name_len);
        struct pn_span b = add_text(text, value, (size_t)value_len);
        w->headers[i] = (struct pn_header){a.off, b.off, b.len, (uint16_t)a.len,
                                           (uint16_t)id_of(name, (size_t)name_len)};
    }
    w->x.headers = w->headers;
    w->x.header_count = (uint16_t)n;
    return 0;
}

static void fill_target(struct stub_wire *w, struct text *text, const char *p, size_t n)
{
    const char *q = memchr(p, '?', n);
    size_t path = q ? (size_t)(q - p) : n;
    w->x.target = add_text(text, p, n);
    w->x.path = (struct pn_span){w->x.target.off, (uint32_t)path};
    w->x.query =
        (struct pn_span){w->x.target.off + (uint32_t)path + 1, q ? (uint32_t)(n - path - 1) : 0};
}

static void set_peer(struct server *s, const char *address, int port, int trusted, int second)
{
    struct pn_handler *h = pn_gateway_handler(s->gw);
    if (strcmp(s->peer.address, address) == 0 && s->peer.port == port &&
        (s->peer.listener != NULL) == (second != 0)) {
        s->peer.trusted = trusted != 0;
        return;
    }
    h->peer_gone(h, &s->peer);
    s->peer = (struct pn_peer){.port = (uint16_t)port, .trusted = trusted != 0};
    s->peer.address_len =
        (uint16_t)snprintf(s->peer.address, sizeof s->peer.address, "%s", address);
    s->peer.listener = second ? (const void *)s : NULL;
}

static PyObject *server_request(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"method",
                            (char *)"target",
                            (char *)"headers",
                            (char *)"body",
                            (char *)"version",
                            (char *)"peer",
                            (char *)"port",
                            (char *)"trusted",
                            (char *)"https",
                            (char *)"take",
                            (char *)"gone_after",
                            (char *)"stalled",
                            (char *)"no_sendfile",
                            (char *)"second",
                            (char *)"drop",
                            (char *)"before",
                            NULL};
    struct server *s = (struct server *)self;
    struct stub_wire w = {.take = -1, .gone_after = -1, .length = -1};
    struct text text = {.n = 0};
    const char *method = "GET", *target = "/", *peer = "127.0.0.1";
    Py_ssize_t method_len = 3, target_len = 1;
    PyObject *headers = NULL, *body = NULL, *before = NULL, *made = NULL;
    int version = 1, port = 4000, trusted = 0, https = 0, stalled = 0, no_sendfile = 0, second = 0;
    int drop = -1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|y#y#OOisippnnpppiO", names, &method,
                                     &method_len, &target, &target_len, &headers, &body, &version,
                                     &peer, &port, &trusted, &https, &w.take, &w.gone_after,
                                     &stalled, &no_sendfile, &second, &drop, &before))
        return NULL;
    w.body = body && body != Py_None ? body : (made = PyList_New(0));
    w.events = PyList_New(0);
    w.wait_fd = stalled ? s->never_ready : s->always_ready;
    w.no_sendfile = no_sendfile != 0;
    w.x.method = add_text(&text, method, (size_t)method_len);
    fill_target(&w, &text, target, (size_t)target_len);
    if (headers && fill_headers(&w, &text, headers) < 0)
        goto fail;
    set_peer(s, peer, port, trusted, second);
    w.x.magic = PN_EXCHANGE_MAGIC;
    w.x.pins = 1;
    w.x.ops = &ops;
    w.x.peer = &s->peer;
    w.x.head_base = text.bytes;
    w.x.version_major = version >= 2 ? 2 : 1;
    w.x.version_minor = version == 1 ? 1 : 0;
    w.x.is_head = method_len == 4 && memcmp(method, "HEAD", 4) == 0;
    w.x.scheme_https = https != 0;
    w.x.has_body = body && body != Py_None;
    const struct pn_header *cl = pn_exchange_find(&w.x, PN_HEADER_CONTENT_LENGTH);
    uint64_t length = 0;
    w.x.content_length = cl && pn_str_to_u64(pn_header_value(&w.x, cl), INT64_MAX, &length) == 0
                             ? (int64_t)length
                             : -1;
    stub_cores_set_wire(s->cores, &w);
    struct pn_handler *h = pn_gateway_handler(s->gw);
    if (before) {
        /* It leaves garbage behind, so that the next container that is made would collect it. */
        PyGC_Disable();
        Py_XDECREF(PyObject_CallNoArgs(before));
        PyGC_Enable();
    }
    serving = true;
    h->start(h, &w.x);
    serving = false;
    if (drop == 2) { /* the client goes while it is queued */
        cancelled(&w, PN_CANCEL_CLIENT_GONE);
        w.x.notify(&w.x, PN_NOTIFY_CANCELLED);
    } else {
        stub_cores_run_queued(s->cores, drop == 1);
    }
    memset(text.bytes, '#', sizeof text.bytes);
    PN_BUG_ON(w.x.pins != 1 || w.x.notify || w.x.handler);
    pn_exchange_unpin(&w.x);
    PN_BUG_ON(!w.released || !over(&w));
    Py_XDECREF(w.decoded);
    Py_XDECREF(made);
    return w.events;
fail:
    Py_XDECREF(made);
    Py_XDECREF(w.events);
    return NULL;
}

static PyObject *server_admission(PyObject *self, PyObject *args)
{
    int full, queue;
    if (!PyArg_ParseTuple(args, "pp", &full, &queue))
        return NULL;
    stub_cores_admission(((struct server *)self)->cores, full != 0, queue != 0);
    Py_RETURN_NONE;
}

static PyObject *server_counts(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct stub_counts c = stub_cores_take_counts(((struct server *)self)->cores);
    return Py_BuildValue("(II)", c.entered, c.waits);
}

/* Raises in this very core, as the watchdog would, and cuts its next wait. */
static PyObject *server_cut(PyObject *self, PyObject *unused)
{
    struct server *s = (struct server *)self;
    const struct pn_core_host *host = pn_gateway_host(s->gw);
    (void)unused;
    stub_cut();
    Py_BEGIN_ALLOW_THREADS host->raise(host->ctx, pn_core_state(stub_core(s->cores)));
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *server_stall(PyObject *self, PyObject *unused)
{
    struct server *s = (struct server *)self;
    const struct pn_core_host *host = pn_gateway_host(s->gw);
    (void)unused;
    Py_BEGIN_ALLOW_THREADS host->stalled(host->ctx, pn_core_state(stub_core(s->cores)),
                                         stub_core(s->cores), 50000000);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *server_exceptions(PyObject *self, PyObject *unused)
{
    struct server *s = (struct server *)self;
    (void)unused;
    return Py_BuildValue("(OO)", pn_gateway_client_disconnected(s->gw),
                         pn_gateway_request_cut(s->gw));
}

static PyMethodDef server_methods[] = {
    {"request", (PyCFunction)(void (*)(void))server_request, METH_VARARGS | METH_KEYWORDS, NULL},
    {"admission", server_admission, METH_VARARGS, NULL},
    {"counts", server_counts, METH_NOARGS, NULL},
    {"cut", server_cut, METH_NOARGS, NULL},
    {"stall", server_stall, METH_NOARGS, NULL},
    {"exceptions", server_exceptions, METH_NOARGS, NULL},
    {"close", server_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot server_slots[] = {
    {Py_tp_init, server_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, server_free},
    {Py_tp_methods, server_methods},
    {0, NULL},
};
static PyType_Spec server_spec = {
    .name = "_gwtest.Server",
    .basicsize = sizeof(struct server),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = server_slots,
};

static PyObject *inside(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(stub_is_inside());
}

static PyObject *owning(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(serving && !stub_is_inside());
}

static PyMethodDef methods[] = {
    {"owning", owning, METH_NOARGS, "True while no Python code may run"},
    {"inside", inside, METH_NOARGS, "True while Python code may run"},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_gwtest",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__gwtest(void);
PyMODINIT_FUNC PyInit__gwtest(void)
{
    PyObject *m = PyModule_Create(&definition);
    PyObject *type = m ? PyType_FromSpec(&server_spec) : NULL;
    if (!type || PyModule_AddObject(m, "Server", type) < 0 || pn_aio_add_types(m) < 0)
        Py_CLEAR(m);
    return m;
}

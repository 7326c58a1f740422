/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's own life: made before the application is imported, started in each worker, stopped
 * when the cores have come home. */
#include <errno.h>
#include <stdio.h>

#include "gateway/internal.h"

/* RequestCut.__init__, so it tells when what the watchdog has raised comes out: not before a handler or a clean-up
 * runs. No method: it is called without the instance, whose arguments are BaseException.__new__'s business. */
static PyObject *cut_seen(PyObject *module, PyObject *args, PyObject *kwargs)
{
    struct pn_core *core = pn_core_self();
    (void)module;
    (void)args;
    (void)kwargs;
    if (core)
        pn_core_cut_seen(core);
    Py_RETURN_NONE;
}

static PyMethodDef cut_seen_def = {"__init__", (PyCFunction)(void (*)(void))cut_seen,
                                   METH_VARARGS | METH_KEYWORDS, NULL};

/* Not an Exception: "except Exception" must not keep a server from stopping. */
static PyObject *make_request_cut(void)
{
    PyObject *init = PyCFunction_New(&cut_seen_def, NULL);
    PyObject *dict = init ? Py_BuildValue("{sO}", "__init__", init) : NULL;
    PyObject *exc = dict
                        ? PyErr_NewExceptionWithDoc(
                              "pelton.RequestCut",
                              "The server ends this request, because it stops or its time is over.",
                              PyExc_BaseException, dict)
                        : NULL;
    Py_XDECREF(dict);
    Py_XDECREF(init);
    return exc;
}

static int make_exceptions(struct pn_gateway *gw)
{
    gw->client_disconnected = PyErr_NewExceptionWithDoc(
        "pelton.ClientDisconnected",
        "The client of this request has gone, was too slow, or sent a body that is not whole.",
        PyExc_ConnectionError, NULL);
    gw->request_cut = make_request_cut();
    return gw->client_disconnected && gw->request_cut ? 0 : -1;
}

static void say(char *err, size_t err_size, const char *what)
{
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *text = exc ? PyObject_Str(exc) : NULL;
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    snprintf(err, err_size, "%s: %s", what, utf8 ? utf8 : "unknown error");
    Py_XDECREF(text);
    Py_XDECREF(exc);
    PyErr_Clear();
}

struct pn_gateway *pn_gateway_create(const struct pn_gateway_config *config, char *err,
                                     size_t err_size)
{
    PN_BUG_ON(config->server_count == 0);
    if (pn_pycompat_selftest(config->carrier, err, err_size) < 0)
        return NULL;
    struct pn_gateway *gw = pn_xcalloc(1, sizeof *gw);
    gw->magic = PN__GATEWAY_MAGIC;
    gw->handler = (struct pn_handler){.start = pn__wsgi_start, .peer_gone = pn__peer_gone};
    gw->carrier = config->carrier;
    gw->cores_count = config->cores;
    gw->processes = config->processes;
    gw->body_timeout_ns = config->body_timeout_ns;
    gw->write_timeout_ns = config->write_timeout_ns;
    gw->is_trusted = config->is_trusted;
    gw->trust_ctx = config->trust_ctx;
    gw->log = config->log;
    pn_pool_init(&gw->requests, sizeof(struct pn__request), PN__REQUESTS_KEEP);
    pn_bytes_init(&gw->errors_line);
    pn__host_init(gw);
    if (make_exceptions(gw) < 0 || pn__names_init(gw) < 0 || pn__start_response_init(gw) < 0 ||
        pn__input_init(gw) < 0 || pn__errors_init(gw) < 0 || pn__file_wrapper_init(gw) < 0 ||
        pn__environ_init(gw, config) < 0 || pn__uwsgi_init(gw, config) < 0) {
        say(err, err_size, "the gateway could not be made");
        pn_gateway_destroy(gw);
        return NULL;
    }
    return gw;
}

int pn_gateway_set_app(struct pn_gateway *gw, struct _object *app)
{
    PN_CHECK_MAGIC(gw, PN__GATEWAY_MAGIC);
    Py_XSETREF(gw->app, app);
    Py_XSETREF(gw->base_context, PyContext_CopyCurrent());
    if (!gw->base_context) {
        PyErr_Clear();
        return -ENOMEM;
    }
    return PyCallable_Check(app) ? 0 : -EINVAL;
}

void pn_gateway_set_aio_home(struct pn_gateway *gw, struct pn_aio_home *home)
{
    gw->aio_home = home;
}

const struct pn_core_host *pn_gateway_host(struct pn_gateway *gw)
{
    return &gw->host;
}

int pn_gateway_start(struct pn_gateway *gw, struct pn_cores *cores, unsigned worker_id,
                     pid_t master_pid)
{
    PN_CHECK_MAGIC(gw, PN__GATEWAY_MAGIC);
    PN_BUG_ON(!gw->app || pn_cores_carrier(cores) != gw->carrier);
    gw->cores = cores;
    gw->home_tid = gettid();
    gw->worker_id = worker_id;
    gw->master_pid = master_pid;
    gw->home_state.ts = PyThreadState_Get();
    /* Here and not in create: thread states of others do not outlive a fork. It must not share this
     * thread's ident, by which exceptions find their state. */
    gw->watch_state = pn_pycompat_state_new((uintptr_t)&gw->watch_state, NULL, 0);
    if (gw->watch_state)
        pn__host_start(gw);
    int rc = gw->watch_state ? pn__home_signals_start(gw) : -ENOMEM;
    if (rc < 0) {
        gw->cores = NULL; /* it will be gone before stop comes */
        return rc;
    }
    pn__uwsgi_started(gw);
    return 0;
}

void pn_gateway_set_websockets(struct pn_gateway *gw, struct pn_ws_server *websockets)
{
    gw->websockets = websockets;
}

struct pn_handler *pn_gateway_handler(struct pn_gateway *gw)
{
    return &gw->handler;
}

uint64_t pn_gateway_requests(const struct pn_gateway *gw)
{
    return __atomic_load_n(&gw->requests_total, __ATOMIC_RELAXED);
}

struct _object *pn_gateway_client_disconnected(struct pn_gateway *gw)
{
    return gw->client_disconnected;
}

struct _object *pn_gateway_request_cut(struct pn_gateway *gw)
{
    return gw->request_cut;
}

void pn_gateway_stop(struct pn_gateway *gw)
{
    PN_CHECK_MAGIC(gw, PN__GATEWAY_MAGIC);
    if (gw->stopped)
        return;
    gw->stopped = true;
    pn__spawn_stop(gw);
    pn__home_signals_stop(gw);
    pn__uwsgi_fini(gw);
    if (gw->asgi)
        pn__asgi_stop(gw);
    pn__errors_finish(gw, &gw->errors_line);
    pn__peers_free_dropped(gw);
    while (gw->free_start_response_count)
        Py_DECREF(gw->free_start_response[--gw->free_start_response_count]);
    while (gw->free_input_count)
        Py_DECREF(gw->free_input[--gw->free_input_count]);
    Py_CLEAR(gw->app);
    Py_CLEAR(gw->base_context);
}

void pn_gateway_destroy(struct pn_gateway *gw)
{
    if (!gw)
        return;
    pn_gateway_stop(gw);
    if (gw->asgi)
        pn__asgi_destroy(gw);
    pn__host_fini(gw);
    pn__environ_fini(gw);
    pn__names_fini(gw);
    Py_CLEAR(gw->no_input);
    Py_CLEAR(gw->errors);
    Py_CLEAR(gw->client_disconnected);
    Py_CLEAR(gw->request_cut);
    Py_CLEAR(gw->core_type);
    Py_CLEAR(gw->types.start_response);
    Py_CLEAR(gw->types.writer);
    Py_CLEAR(gw->types.input);
    Py_CLEAR(gw->types.errors);
    Py_CLEAR(gw->types.file_wrapper);
    pn_pool_drain(&gw->requests);
    gw->magic = 0;
    free(gw);
}

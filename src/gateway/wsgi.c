/* SPDX-License-Identifier: Apache-2.0 */
/* One WSGI request on a core, from the exchange to its end.
 *
 *   owner    admit; environ, context, start_response (no Python code runs)
 *   inside   the application is called; unless its answer is whole: iterate, send, close()
 *            environ, context and result are dropped: their finalisers are Python code
 *   owner    a whole answer is sent; strs and bytes are dropped; the core is done
 *
 * So a request that never waits gives the loop away once. r lives in the gateway's pool, the Python
 * objects on this frame. */
#include <errno.h>

#include "gateway/internal.h"

struct pn__request *pn__request_current(void)
{
    struct pn_core *core = pn_core_self();
    return core ? pn_core_request(core) : NULL;
}

/* Owner. What is left when the exchange needs nothing more. */
static void release(struct pn__request *r)
{
    struct pn_exchange *x = r->x;
    if (pn_likely(x->handler == r)) { /* else it is a WebSocket's by now */
        x->notify = NULL;
        x->handler = NULL;
    }
    pn_exchange_unpin(x);
    pn_pool_put(&r->gw->requests, r);
}

/* Owner; never from inside a call of ours. */
static void notified(struct pn_exchange *x, unsigned why)
{
    struct pn__request *r = x->handler;
    if (r->waiting) {
        pn_core_unpark(r->core, r->wait_number);
    } else if (r->queued && (why & PN_NOTIFY_CANCELLED)) {
        pn_cores_withdraw(r->gw->cores, &r->job);
        release(r);
    }
}

static void overtaken(void *arg)
{
    struct pn__request *r = arg;
    /* Without memory the shared buffer stays taken until the request is over: no harm. */
    (void)pn_exchange_keep(r->x);
}

/* Owner. */
static void finish(struct pn__request *r)
{
    struct pn_gateway *gw = r->gw;
    struct pn_core *core = r->core;
    if (pn_unlikely(r->ws))
        pn__uwsgi_ws_end(r);
    else if (pn_unlikely(r->x->state < PN_EXCHANGE_ENDED))
        pn_exchange_cancel(r->x, r->cut ? PN_CANCEL_SHUTDOWN : PN_CANCEL_HANDLER);
    pn_core_on_overtaken(core, NULL, NULL);
    pn_core_set_request(core, NULL);
    pn__answer_clear(&r->answer);
    if (pn_unlikely(pn_bytes_len(&r->errors_line)))
        pn__errors_finish(gw, &r->errors_line);
    release(r);
    pn_cores_done(gw->cores);
}

/* Inside. The slow way of an answer; RESULT is borrowed, NULL with an exception. */
static void deliver(struct pn__request *r, PyObject *result)
{
    if (!result || pn__response_stream(r, result) < 0)
        pn__response_fail(r);
    if (result)
        pn__response_close(r, result);
}

/* Inside on entry, owner on return. Steals ENV and CONTEXT. */
static void serve(struct pn__request *r, PyObject *env, PyObject *context)
{
    struct pn_gateway *gw = r->gw;
    struct pn_core *core = r->core;
    PyObject *args[3] = {NULL, env, r->start_response}; /* [0] is the callee's to use */
    PyObject *body = NULL;
    bool whole = false;
    PyObject *result = NULL;
    struct pn__state *state = pn_core_state(core);
    if (pn_unlikely(state && !state->begun))
        pn__host_begin(gw, core, state);
    bool ready = !gw->aio_home || pn_aio_home_prepare_request(gw->aio_home, core) == 0;
    bool entered = PyContext_Enter(context) == 0;
    if (pn_likely(ready && entered))
        result = PyObject_Vectorcall(gw->app, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (pn_unlikely(pn_core_self() != core))
        pn__leave_child();
    if (pn_likely(result && r->answer.status && !r->head_sent &&
                  pn__response_single(result, &body))) {
        Py_XINCREF(body);
        whole = true;
    } else {
        deliver(r, result);
    }
    Py_XDECREF(result);
    r->environ = NULL;
    Py_DECREF(env);
    if (pn_unlikely(PyContext_Exit(context) < 0))
        pn__log_exception(gw, r, "the application left another context behind");
    Py_DECREF(context);
    pn__start_response_release(gw, r->start_response);
    if (r->input)
        pn__input_release(gw, r->input);
    pn_core_leave_app(core);
    if (pn_likely(whole)) {
        pn__response_whole(r, body);
        Py_XDECREF(body); /* exact bytes */
    }
}

/* Owner, counted as under way. */
static void run(struct pn__request *r)
{
    struct pn_gateway *gw = r->gw;
    struct pn_core *core = pn_core_self();
    PyObject *context = NULL;
    r->core = core;
    r->id = gw->requests_total + 1;
    __atomic_store_n(&gw->requests_total, r->id, __ATOMIC_RELAXED);
    pn_core_set_request(core, r);
    int gc = pn_pycompat_hold_gc();
    PyObject *env = pn__environ_build(r);
    r->environ = env;
    if (pn_likely(env))
        context = PyContext_Copy(gw->base_context);
    if (pn_likely(context))
        r->start_response = pn__start_response_new(r);
    pn_pycompat_release_gc(gc);
    if (pn_unlikely(!r->start_response)) {
        PyErr_Clear();
        Py_XDECREF(env);
        Py_XDECREF(context);
        if (r->input)
            pn__input_release(gw, r->input);
        pn_log_error(gw->log, "a request was refused: no memory for its environ");
        pn_exchange_answer_status(r->x, 503, false);
        finish(r);
        return;
    }
    pn_core_on_overtaken(core, overtaken, r);
    pn_core_enter_app(core);
    serve(r, env, context);
    finish(r);
}

static void job_run(struct pn_job *job)
{
    struct pn__request *r = pn_container_of(job, struct pn__request, job);
    r->queued = false;
    run(r);
}

static void job_dropped(struct pn_job *job)
{
    struct pn__request *r = pn_container_of(job, struct pn__request, job);
    r->queued = false;
    pn_exchange_answer_status(r->x, 503, false);
    release(r);
}

static void init_request(struct pn__request *r, struct pn_gateway *gw, struct pn_exchange *x)
{
    pn_list_init(&r->job.node);
    r->job.run = job_run;
    r->job.dropped = job_dropped;
    r->gw = gw;
    r->x = x;
    r->core = NULL;
    r->wait_number = 0;
    r->queued = false;
    r->waiting = false;
    r->head_sent = false;
    r->gone = false;
    r->cut = false;
    r->disconnected = false;
    r->truncated = false;
    r->ws_failed = false;
    r->ws = NULL;
    r->sent_size = 0;
    r->ready_fd = -1;
    r->environ = NULL;
    r->start_response = NULL;
    r->input = NULL;
    pn_bytes_init(&r->errors_line);
    pn__answer_init(&r->answer);
}

void pn__wsgi_start(struct pn_handler *h, struct pn_exchange *x)
{
    struct pn_gateway *gw = pn_container_of(h, struct pn_gateway, handler);
    struct pn__request *r = pn_pool_get(&gw->requests);
    if (pn_unlikely(!r)) {
        pn_exchange_answer_status(x, 503, false);
        return;
    }
    init_request(r, gw, x);
    pn_exchange_pin(x);
    x->handler = r;
    x->notify = notified;
    switch (pn_cores_admit(gw->cores, &r->job)) {
    case PN_ADMIT_RUN:
        run(r);
        break;
    case PN_ADMIT_QUEUED:
        r->queued = true;
        break;
    case PN_ADMIT_FULL:
        pn_exchange_answer_status(x, 503, false);
        release(r);
        break;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* struct pn_core_host for Python: each core has a thread state of its own. Home (core 0) keeps the
 * one that the interpreter's main thread has. */
#include <errno.h>

#include "gateway/internal.h"

/* What a waiting request goes on with, in bytes, where it is not a whole object. */
enum {
    REQUEST_FETCHED = offsetof(struct pn__request, answer.inline_fields) + 128,
    HELD_FETCHED = 64,
    START_RESPONSE_FETCHED = 64,
    ENVIRON_FETCHED = 768,
};

/* NULL is home's. */
static struct pn__state *state_of(struct pn_gateway *gw, void *state)
{
    return state ? state : &gw->home_state;
}

static int state_new(void *ctx, struct pn_core *core, void **out)
{
    struct pn_gateway *gw = ctx;
    if (pn_core_number(core) == 0) {
        gw->home_state.ts = PyThreadState_Get();
        *out = &gw->home_state;
        return 0;
    }
    struct pn__state *s = pn_try_malloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    void *stack = NULL;
    size_t stack_size = 0;
    bool own = pn_core_stack(core, &stack, &stack_size);
    *s = (struct pn__state){.gw = gw};
    s->ts = pn_pycompat_state_new(pn_core_ident(core), own ? stack : NULL, own ? stack_size : 0);
    if (!s->ts) {
        free(s);
        return -ENOMEM;
    }
    *out = s;
    return 0;
}

/* threading does not know it any more. */
static void forget_thread(struct pn__state *s)
{
    PyObject *result = s->thread ? PyObject_CallMethod(s->thread, "_end", NULL) : NULL;
    if (s->thread && !result)
        PyErr_WriteUnraisable(s->thread);
    Py_XDECREF(result);
    Py_CLEAR(s->thread);
}

static void state_end(void *ctx, void *state)
{
    struct pn_gateway *gw = ctx;
    struct pn__state *s = state_of(gw, state);
    if (s == &gw->home_state) {
        PyEval_SaveThread(); /* the interpreter's own; main attaches it again */
        return;
    }
    Py_CLEAR(s->aio_policy);
    Py_CLEAR(s->aio_locals);
    forget_thread(s);
    pn_pycompat_state_end(s->ts);
    free(s);
}

static void attach(void *ctx, void *state)
{
    pn_pycompat_attach(state_of(ctx, state)->ts);
}

static void detach(void *ctx, void *state)
{
    struct pn__state *s = state_of(ctx, state);
    PyThreadState *ts = PyEval_SaveThread();
    PN_BUG_ON(ts != s->ts);
}

static bool attached(void *ctx, void *state)
{
    PyThreadState *ts = pn_pycompat_current();
    return ts && ts == state_of(ctx, state)->ts;
}

static void resumed(void *ctx, void *state)
{
    pn_pycompat_state_resumed(state_of(ctx, state)->ts);
}

/* Pointers are followed into what the step before has asked for. */
static void fetch(void *ctx, const void *state, const void *request, unsigned step)
{
    const struct pn__state *s = state_of(ctx, (void *)state);
    const struct pn__request *r = request;
    switch (step) {
    case 1:
        pn_prefetch(s, sizeof *s);
        pn_prefetch(r, REQUEST_FETCHED);
        if (r)
            pn_prefetch(r->answer.inline_held, HELD_FETCHED);
        break;
    case 2:
        pn_prefetch(s->ts, sizeof *s->ts);
        if (r) {
            pn_prefetch(r->x, PN_EXCHANGE_FETCHED);
            pn_prefetch(r->environ, sizeof(PyDictObject));
            pn_prefetch(r->start_response, START_RESPONSE_FETCHED);
        }
        break;
    default:
        pn_pycompat_fetch_frames(s->ts);
        if (r) {
            pn_exchange_fetch(r->x);
            if (r->environ)
                pn_prefetch(((PyDictObject *)r->environ)->ma_keys, ENVIRON_FETCHED);
        }
    }
}

/* A visitor: takes the GIL with a state that is nobody's. The calling thread may be a core, whose own
 * state PyGILState must find again afterwards. */
static void visit_end(struct pn_gateway *gw)
{
    struct pn_core *core = pn_core_self();
    PyEval_SaveThread();
    if (core)
        pn_pycompat_state_resumed(state_of(gw, pn_core_state(core))->ts);
}

static void raise_in(void *ctx, void *state)
{
    struct pn_gateway *gw = ctx;
    struct pn__state *s = state_of(gw, state);
    pthread_mutex_lock(&gw->watch_lock);
    PyEval_RestoreThread(gw->watch_state);
    pn_pycompat_raise_in(s->ts, gw->request_cut);
    visit_end(gw);
    pthread_mutex_unlock(&gw->watch_lock);
}

/* On the core itself, attached: what was not raised yet hits nobody. */
static void unraise(void *ctx, void *state)
{
    pn_pycompat_raise_in(state_of(ctx, state)->ts, NULL);
}

/* Calls sys' function NAME. HOOK is borrowed; NULL is an exception that is set. */
static int set_hook(const char *name, PyObject *hook)
{
    PyObject *set = PySys_GetObject(name); /* borrowed */
    if (!hook || !set)
        return -1;
    PyObject *result = hook == Py_None ? Py_NewRef(hook) : PyObject_CallOneArg(set, hook);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

void pn__host_begin(struct pn_gateway *gw, struct pn_core *core, struct pn__state *s)
{
    s->begun = true;
    s->thread =
        gw->core_type ? PyObject_CallFunction(gw->core_type, "I", pn_core_number(core)) : NULL;
    if (gw->core_type && !s->thread)
        pn__log_exception(gw, NULL, "a core as threading knows it");
    PyObject *threading = PyImport_ImportModule("threading");
    if (!threading) {
        pn__log_exception(gw, NULL, "import of threading");
        return;
    }
    /* Asked for before any is set: a trace function would see the question for the other one. */
    PyObject *trace = PyObject_CallMethod(threading, "gettrace", NULL);
    PyObject *profile = trace ? PyObject_CallMethod(threading, "getprofile", NULL) : NULL;
    if (!profile || set_hook("settrace", trace) < 0 || set_hook("setprofile", profile) < 0)
        pn__log_exception(gw, NULL, "the functions that threading has for new threads");
    Py_XDECREF(trace);
    Py_XDECREF(profile);
    Py_DECREF(threading);
    pn_core_trim_stack(core);
}

void pn__host_start(struct pn_gateway *gw)
{
    if (gw->carrier == PN_CARRIER_INLINE)
        return;
    PyObject *module = PyImport_ImportModule("pelton._threads");
    gw->core_type = module ? PyObject_GetAttrString(module, "Core") : NULL;
    Py_XDECREF(module);
    if (!gw->core_type)
        pn__log_exception(gw, NULL, "import of pelton._threads");
}

void pn__host_init(struct pn_gateway *gw)
{
    gw->host = (struct pn_core_host){
        .ctx = gw,
        .state_new = state_new,
        .state_end = state_end,
        .attach = attach,
        .detach = detach,
        .attached = attached,
        .resumed = resumed,
        .fetch = fetch,
        .raise = raise_in,
        .unraise = unraise,
        .stalled = pn__host_stalled,
    };
    gw->home_state.is_home = true;
    gw->home_state.begun = true;
    gw->home_state.gw = gw;
    gw->home_state.ts = PyThreadState_Get();
    pthread_mutex_init(&gw->watch_lock, NULL);
}

void pn__host_fini(struct pn_gateway *gw)
{
    if (gw->watch_state) {
        PyThreadState *own = PyEval_SaveThread();
        PyEval_RestoreThread(gw->watch_state);
        pn_pycompat_state_end(gw->watch_state);
        pn_pycompat_state_resumed(own);
        PyEval_RestoreThread(own);
        gw->watch_state = NULL;
    }
    pthread_mutex_destroy(&gw->watch_lock);
}

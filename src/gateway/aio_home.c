/* SPDX-License-Identifier: Apache-2.0 */
/* The home loop of a worker: a pelton.Loop on the worker's own pn_loop, whose callbacks run on home.
 *
 *   made ----------bind--> bound --begin--> running ---------end---------> closed
 *    |  run_until_complete  (callbacks: by pn_home_work)  (by _run_once, on home alone)
 *    +--> on an epoll set of its own, for as long as that takes, while the application is loaded
 *
 * Every core has it as its current loop: whether the core's last request has changed that is seen in
 * the dict of the event loop policy's thread-local, which each core remembers. */
#include "gateway/aio_loop.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "gateway/internal.h"

enum {
    /* asyncio's share of a turn. */
    CALLBACKS_MAX = 64,
    /* Steps of the loop in which a wake that is on its way arrives. */
    LAST_STEPS_MAX = 256,
};

struct pn_aio_home {
    struct pn_aio_home_config config;
    struct pn__aio *aio;    /* owned */
    struct pn_cores *cores; /* borrowed; NULL: not bound */
    PyObject *events;       /* asyncio.events' namespace; owned, like all that follow */
    PyObject *policy_key;   /* "_event_loop_policy" in there */
    PyObject *loop_key;     /* "_loop", in a policy's thread-local */
    PyObject *set_event_loop;
    void (*wind_up)(void *ctx);
    void *wind_up_ctx;
    bool exit_said;
};

/* --- Making ------------------------------------------------------------------------------------ */

/* A new object of pelton._home.HomeLoop; NULL with an exception. */
static struct pn__aio *make_loop(void)
{
    PyObject *module = PyImport_ImportModule("pelton._home");
    PyObject *extension = module ? PyImport_ImportModule("pelton._pelton") : NULL;
    PyObject *core_type = extension ? PyObject_GetAttrString(extension, "LoopCore") : NULL;
    PyObject *loop = core_type ? PyObject_CallMethod(module, "HomeLoop", NULL) : NULL;
    if (loop && !PyObject_TypeCheck(loop, (PyTypeObject *)core_type)) {
        PyErr_SetString(PyExc_TypeError, "pelton._home.HomeLoop is no LoopCore");
        Py_CLEAR(loop);
    }
    Py_XDECREF(core_type);
    Py_XDECREF(extension);
    Py_XDECREF(module);
    return (struct pn__aio *)loop;
}

static int find_asyncio(struct pn_aio_home *home)
{
    PyObject *events = PyImport_ImportModule("asyncio.events");
    if (!events)
        return -1;
    home->events = Py_NewRef(PyModule_GetDict(events)); /* borrowed */
    home->set_event_loop = PyObject_GetAttrString(events, "set_event_loop");
    home->policy_key = PyUnicode_InternFromString("_event_loop_policy");
    home->loop_key = PyUnicode_InternFromString("_loop");
    Py_DECREF(events);
    return home->set_event_loop && home->policy_key && home->loop_key ? 0 : -1;
}

/* The calling thread's, or core's, current loop. */
static int make_current(const struct pn_aio_home *home)
{
    PyObject *done = PyObject_CallOneArg(home->set_event_loop, (PyObject *)home->aio);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

struct pn_aio_home *pn_aio_home_create(const struct pn_aio_home_config *config)
{
    struct pn_aio_home *home = pn_xcalloc(1, sizeof *home);
    home->config = *config;
    if (find_asyncio(home) == 0)
        home->aio = make_loop();
    if (home->aio) {
        home->aio->home = home;
        if (make_current(home) == 0)
            return home;
    }
    PyObject *exc = pn_pycompat_take_exception();
    pn_aio_home_destroy(home);
    pn_pycompat_restore_exception(exc);
    return NULL;
}

void pn_aio_home_destroy(struct pn_aio_home *home)
{
    if (!home)
        return;
    if (home->aio) {
        home->aio->home = home->aio->aside = NULL;
        home->aio->closed = true;
    }
    Py_CLEAR(home->aio);
    Py_CLEAR(home->events);
    Py_CLEAR(home->set_event_loop);
    Py_CLEAR(home->policy_key);
    Py_CLEAR(home->loop_key);
    free(home);
}

/* --- Before it is bound: run_until_complete at the application's import ------------------------ */

PyObject *pn__aio_open_alone(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (!aio->home || aio->loop)
        Py_RETURN_FALSE;
    if (pn__aio_open(aio) < 0)
        return NULL;
    aio->aside = aio->home;
    aio->home = NULL;
    pn__aio_fds_watch(aio);
    Py_RETURN_TRUE;
}

/* What is still scheduled, or watched, waits for the worker's loop. */
PyObject *pn__aio_close_alone(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    struct pn_loop *loop = aio->loop;
    if (!aio->aside || !loop)
        Py_RETURN_NONE;
    struct pn_list *node;
    while ((node = pn_list_pop_front(&aio->armed))) {
        struct pn__timer_handle *t = pn_list_entry(node, struct pn__timer_handle, node);
        pn_timer_cancel(loop, &t->timer);
        pn__handles_push(&aio->unarmed, &t->base); /* the timer's reference */
    }
    aio->armed_count = 0;
    pn__aio_fds_unwatch(aio);
    aio->loop = NULL;
    aio->owns_loop = false;
    aio->home = aio->aside;
    aio->aside = NULL;
    pn_loop_destroy(loop);
    atomic_store(&aio->wake_sent, false); /* a wake on its way has gone with the loop */
    Py_RETURN_NONE;
}

/* --- Running ----------------------------------------------------------------------------------- */

/* No GIL: also the watchdog asks. */
static bool work_pending(void *ctx)
{
    const struct pn_aio_home *home = ctx;
    return pn__aio_has_ready(home->aio);
}

/* Inside. SystemExit or KeyboardInterrupt is set. */
PN_COLD static void take_exit(struct pn_aio_home *home)
{
    PyObject *exc = pn_pycompat_take_exception();
    PyObject *text = PyObject_Str(exc);
    const char *utf8 = text ? PyUnicode_AsUTF8(text) : NULL;
    pn_log_warning(home->config.log, "asyncio: a callback raised %s(%s): the server stops",
                   Py_TYPE(exc)->tp_name, utf8 ? utf8 : "");
    Py_XDECREF(text);
    Py_DECREF(exc);
    PyErr_Clear();
}

static void work_step(void *ctx)
{
    struct pn_aio_home *home = ctx;
    struct pn_core *core = pn_core_self();
    struct pn_list todo;
    pn_list_init(&todo);
    pn__aio_arm_waiting(home->aio);
    pn__aio_calls_take(home->aio, &todo);
    pn_core_enter_app(core);
    int rc = pn__aio_calls_run(&todo);
    if (pn_likely(rc == 0 && pn_core_self() == core))
        rc = pn__aio_run_batch(home->aio, CALLBACKS_MAX);
    if (pn_unlikely(pn_core_self() != core))
        pn__leave_child();
    if (pn_unlikely(rc < 0))
        take_exit(home);
    pn_core_leave_app(core);
    pn__aio_calls_put_back(home->aio, &todo);
    if (pn_likely(rc == 0 || home->exit_said))
        return;
    home->exit_said = true;
    if (home->config.exit_wanted)
        home->config.exit_wanted(home->config.ctx);
}

void pn_aio_home_call(struct pn_aio_home *home, struct pn_aio_call *call)
{
    struct pn__aio *aio = home->aio;
    if (pn_list_linked(&call->node))
        return;
    pn_list_push_back(&aio->calls, &call->node);
    __atomic_store_n(&aio->calls_due, true, __ATOMIC_RELAXED);
}

bool pn_aio_home_serving(const struct pn_aio_home *home)
{
    return home->cores != NULL;
}

struct _object *pn_aio_home_loop(struct pn_aio_home *home)
{
    return (PyObject *)home->aio;
}

int pn_aio_home_bind(struct pn_aio_home *home, struct pn_cores *cores)
{
    struct pn__aio *aio = home->aio;
    if (pn__aio_check_closed(aio) < 0 || make_current(home) < 0)
        return -1;
    const struct pn_home_work work = {work_pending, work_step, home, 1};
    home->cores = cores;
    aio->loop = pn_cores_loop(cores);
    pn__aio_fds_watch(aio);
    pn_cores_set_home_work(cores, &work);
    return 0;
}

int pn_aio_home_begin(struct pn_aio_home *home)
{
    PyObject *done = PyObject_CallMethod((PyObject *)home->aio, "_begin", NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* --- A request's current loop ------------------------------------------------------------------ */

/* Remembers where a change of this core's current loop would be seen. Where asyncio looks different inside,
 * nothing is remembered, and the loop is set before each request. */
static int remember(struct pn_aio_home *home, struct pn__state *state, PyObject *policy)
{
    PyObject *local = policy ? PyObject_GetAttrString(policy, "_local") : NULL;
    PyObject *dict = local ? PyObject_GetAttrString(local, "__dict__") : NULL;
    Py_XDECREF(local);
    PyErr_Clear();
    Py_CLEAR(state->aio_policy);
    Py_CLEAR(state->aio_locals);
    if (dict && PyDict_CheckExact(dict) &&
        PyDict_GetItemWithError(dict, home->loop_key) == (PyObject *)home->aio) {
        state->aio_policy = Py_NewRef(policy);
        state->aio_locals = Py_NewRef(dict);
    }
    Py_XDECREF(dict);
    return PyErr_Occurred() ? -1 : 0;
}

PN_COLD static int prepare_slowly(struct pn_aio_home *home, struct pn__state *state)
{
    if (PyErr_Occurred() || make_current(home) < 0)
        return -1;
    PyObject *policy = PyDict_GetItemWithError(home->events, home->policy_key); /* borrowed */
    if (!policy && PyErr_Occurred())
        return -1;
    Py_XINCREF(policy);
    int rc = state ? remember(home, state, policy) : 0;
    Py_XDECREF(policy);
    return rc;
}

int pn_aio_home_prepare_request(struct pn_aio_home *home, struct pn_core *core)
{
    struct pn__state *state = pn_core_state(core);
    if (pn_likely(state && state->aio_policy)) {
        PyObject *policy = PyDict_GetItemWithError(home->events, home->policy_key);
        if (pn_likely(policy == state->aio_policy &&
                      PyDict_GetItemWithError(state->aio_locals, home->loop_key) ==
                          (PyObject *)home->aio))
            return 0;
    }
    return prepare_slowly(home, state);
}

/* --- The end ----------------------------------------------------------------------------------- */

static size_t count_timers(const struct pn__aio *aio)
{
    size_t n = 0;
    for (const struct pn__handle *h = aio->unarmed.first; h; h = h->next)
        n += !h->cancelled;
    const struct pn_list *node;
    pn_list_for_each(node, &aio->armed) n +=
        !pn_list_entry(node, struct pn__timer_handle, node)->base.cancelled;
    return n;
}

size_t pn_aio_home_scheduled(const struct pn_aio_home *home)
{
    size_t n = count_timers(home->aio);
    for (const struct pn__handle *h = home->aio->ready.first; h; h = h->next)
        n += !h->cancelled;
    return n;
}

void pn_aio_home_say_dropped(struct pn_aio_home *home)
{
    size_t n = pn_aio_home_scheduled(home);
    if (n > 0)
        pn_log_warning(home->config.log,
                       "asyncio: %zu scheduled call%s not due yet and %s dropped "
                       "(--asyncio-drain SECONDS waits for them)",
                       n, n == 1 ? " is" : "s are", n == 1 ? "is" : "are");
}

/* A wake of another thread may be on its way to an object that will be gone. */
static void collect_wake(struct pn__aio *aio)
{
    for (int i = 0; i < LAST_STEPS_MAX && atomic_load(&aio->wake_sent); i++)
        (void)pn_loop_step(aio->loop);
}

void pn_aio_home_on_end(struct pn_aio_home *home, void (*wind_up)(void *ctx), void *ctx)
{
    home->wind_up = wind_up;
    home->wind_up_ctx = ctx;
}

void pn_aio_home_end(struct pn_aio_home *home, int64_t timeout_ns)
{
    struct pn__aio *aio = home->aio;
    struct pn_loop *loop = aio->loop;
    if (!home->cores || !loop)
        return;
    pn_cores_set_home_work(home->cores, NULL);
    home->cores = NULL;
    /* From here on it runs itself, like any other loop, on home's thread. */
    aio->home = NULL;
    pn__aio_attach_loop(aio, loop);
    pn_loop_resume(loop);
    if (home->wind_up)
        home->wind_up(home->wind_up_ctx);
    pn__aio_drop_timers(aio);
    PyObject *done = PyObject_CallMethod((PyObject *)aio, "_finish", "d", (double)timeout_ns / 1e9);
    if (!done)
        PyErr_WriteUnraisable((PyObject *)aio);
    Py_XDECREF(done);
    if (aio->loop)
        collect_wake(aio);
    done = PyObject_CallMethod((PyObject *)aio, "close", NULL);
    if (!done)
        PyErr_WriteUnraisable((PyObject *)aio);
    Py_XDECREF(done);
    aio->closed = true;
    pn__aio_release(aio);
    pn_loop_set_phase(loop, PN_PHASE_HOME, NULL);
    pn_loop_stop(loop);
}

void pn_aio_home_after_fork_child(struct pn_aio_home *home)
{
    struct pn__aio *aio = home->aio;
    /* Nothing is freed: there is no thread state, and a batch may be in the middle of its work. */
    aio->closed = true;
    aio->running = false;
    aio->loop = NULL;
    aio->ready = (struct pn__handles){NULL, NULL, 0};
}

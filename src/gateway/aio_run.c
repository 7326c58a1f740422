/* SPDX-License-Identifier: Apache-2.0 */
/* Running the callbacks, and the turn of a loop that runs itself.
 *
 * asyncio's own run_forever stays: it calls _run_once until the loop is stopped. Here _run_once does turns
 * of the pn_loop as long as there is work, up to a bound, and comes back after each sleep, so that
 * Python sees to its signals. In a turn the callbacks run in the HOME phase, all that are ready
 * then and no later ones, after the events and timers of the turn: asyncio's order.
 *
 * The sleep gives the GIL away. In a request's core it waits as any other call of a core does, by
 * pn_core_wait_fd on the epoll set, so the worker's other requests go on. */
#include "gateway/aio_transport.h"

#include "base/clock.h"
#include "gateway/pycompat.h"

/* --- Callbacks --------------------------------------------------------------------------------- */

/* One call in debug mode: -1 as pn__handle_run. */
PN_COLD static int run_watched(struct pn__aio *aio, struct pn__handle *h)
{
    Py_XSETREF(aio->current_handle, Py_NewRef((PyObject *)h));
    int64_t began_ns = pn_clock_mono_ns();
    int rc = pn__handle_run(h);
    double took = (double)(pn_clock_mono_ns() - began_ns) / 1e9;
    if (rc == 0) {
        PyObject *r = PyObject_CallMethod((PyObject *)aio, "_handle_ran", "Od", h, took);
        if (!r)
            PyErr_WriteUnraisable((PyObject *)aio);
        Py_XDECREF(r);
    }
    Py_CLEAR(aio->current_handle);
    return rc;
}

void pn__aio_calls_take(struct pn__aio *aio, struct pn_list *todo)
{
    pn_list_splice_back(todo, &aio->calls);
    __atomic_store_n(&aio->calls_due, false, __ATOMIC_RELAXED);
}

void pn__aio_calls_put_back(struct pn__aio *aio, struct pn_list *todo)
{
    if (pn_likely(pn_list_empty(todo)))
        return;
    pn_list_splice_back(&aio->calls, todo);
    __atomic_store_n(&aio->calls_due, true, __ATOMIC_RELAXED);
}

int pn__aio_calls_run(struct pn_list *todo)
{
    struct pn_list *node;
    while ((node = pn_list_pop_front(todo))) {
        struct pn_aio_call *call = pn_list_entry(node, struct pn_aio_call, node);
        if (pn_unlikely(call->run(call) < 0))
            return -1;
    }
    return 0;
}

int pn__aio_flush_gathered(struct pn__aio *aio, PyObject *context)
{
    struct pn_list *node;
    PyObject *type, *exc, *tb;
    int rc = 0;
    PyErr_Fetch(&type, &exc, &tb); /* the callback's */
    bool entered = PyContext_Enter(context) == 0;
    if (!entered) /* somebody else's who is in it: better in another one than late */
        PyErr_Clear();
    while ((node = pn_list_pop_front(&aio->gathering))) {
        struct pn__gathered *g = pn_list_entry(node, struct pn__gathered, node);
        PyObject *owner = Py_NewRef(g->owner);
        if (pn_unlikely(g->flush(owner) < 0)) {
            if (!type && pn__transport_ends_the_loop()) {
                PyErr_Fetch(&type, &exc, &tb);
                rc = -1;
            } else {
                PyErr_WriteUnraisable(owner);
            }
        }
        Py_DECREF(owner);
    }
    if (entered && PyContext_Exit(context) < 0)
        PyErr_WriteUnraisable(context);
    if (type)
        PyErr_Restore(type, exc, tb);
    return rc;
}

int pn__aio_run_batch(struct pn__aio *aio, size_t max)
{
    int rc = 0;
    bool nested = aio->in_callback;
    aio->in_callback = true;
    for (size_t n = pn_min_size(aio->ready.count, max); n > 0 && rc == 0; n--) {
        struct pn__handle *h = pn__handles_pop(&aio->ready);
        if (!h) /* a callback ran the loop, and so the rest of the batch */
            break;
        aio->callback_number++;
        if (pn_likely(!h->cancelled))
            rc = pn_likely(!aio->debug) ? pn__handle_run(h) : run_watched(aio, h);
        if (pn_unlikely(!pn_list_empty(&aio->gathering)) &&
            pn__aio_flush_gathered(aio, h->context) < 0)
            rc = -1;
        Py_DECREF(h);
    }
    aio->in_callback = nested;
    return rc;
}

/* --- A loop of its own ------------------------------------------------------------------------- */

static bool phase_pending(void *ctx)
{
    const struct pn__aio *aio = ctx;
    return pn__aio_has_ready(aio) || aio->stopping || aio->slept;
}

static void phase_step(void *ctx)
{
    struct pn__aio *aio = ctx;
    struct pn_list todo;
    pn_list_init(&todo);
    pn__aio_arm_waiting(aio);
    pn__aio_calls_take(aio, &todo);
    if (pn__aio_calls_run(&todo) < 0 || pn__aio_run_batch(aio, SIZE_MAX) < 0)
        aio->failed = true;
    pn__aio_calls_put_back(aio, &todo);
    aio->woke = aio->slept;
    aio->slept = false;
    aio->batch_done = true;
}

/* Detached. Waits in the core until the epoll set has something, or the deadline has passed; what the loop does
 * next must not block then. */
static void wait_in_core(struct pn__aio *aio, struct pn_core *core)
{
    struct pn_poller *poller = pn_loop_poller(aio->loop);
    int fd = poller->fd(poller);
    pn_core_wait_fd(core, fd, EPOLLIN, pn_loop_next_deadline_ns(aio->loop));
    /* Whatever ended the wait (a stale wake, a cut), the poller comes back at once now. */
    poller->wake(poller);
}

static void before_sleep(void *ctx)
{
    struct pn__aio *aio = ctx;
    aio->slept = true;
    aio->detached = PyEval_SaveThread();
    struct pn_core *core = pn_core_self();
    if (!core)
        return;
    struct pn_cores *cores = pn_core_cores(core);
    if (core != pn_cores_home(cores) && pn_cores_carrier(cores) != PN_CARRIER_INLINE)
        wait_in_core(aio, core);
}

static void after_sleep(void *ctx)
{
    struct pn__aio *aio = ctx;
    PyEval_RestoreThread(aio->detached);
    aio->detached = NULL;
}

void pn__aio_attach_loop(struct pn__aio *aio, struct pn_loop *loop)
{
    const struct pn_sleep_hooks hooks = {before_sleep, after_sleep, aio};
    const struct pn_phase_handler handler = {phase_pending, phase_step, aio, 1};
    aio->loop = loop;
    if (aio->owns_loop)
        pn_loop_set_sleep_hooks(loop, &hooks);
    pn_loop_set_phase(loop, PN_PHASE_HOME, &handler);
}

/* Until callbacks have run, or a sleep is over. */
static void turn(struct pn__aio *aio)
{
    aio->batch_done = false;
    while (!aio->batch_done && pn_loop_step(aio->loop) == PN_STEP_AGAIN)
        ;
}

/* A callback closed the loop; its exception, if there is one, outlives that. */
PN_COLD static void release_now(struct pn__aio *aio)
{
    PyObject *exc = pn_pycompat_take_exception();
    pn__aio_release(aio);
    pn_pycompat_restore_exception(exc);
}

PyObject *pn__aio_run_once(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pn__aio *aio = (struct pn__aio *)self;
    if (pn__aio_check_closed(aio) < 0)
        return NULL;
    if (!aio->loop || aio->home) {
        PyErr_SetString(PyExc_RuntimeError, "the server runs this event loop");
        return NULL;
    }
    if (aio->detached) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
        return NULL;
    }
    aio->depth++;
    for (int turns = 0; turns < PN__AIO_TURNS_MAX; turns++) {
        turn(aio);
        if (aio->failed || aio->stopping || aio->woke || aio->closed)
            break;
    }
    aio->depth--;
    bool failed = aio->failed;
    aio->failed = false;
    if (pn_unlikely(aio->release_wanted))
        release_now(aio);
    if (pn_unlikely(failed))
        return NULL;
    Py_RETURN_NONE;
}

/* --- Waking ------------------------------------------------------------------------------------ */

void pn__aio_wake(struct pn__aio *aio)
{
    /* One message in flight is enough: whoever delivers it looks at the queues afterwards. */
    if (aio->loop && !atomic_exchange(&aio->wake_sent, true))
        pn_message_send(aio->loop, &aio->wake);
}

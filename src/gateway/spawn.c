/* SPDX-License-Identifier: Apache-2.0 */
/* pelton.spawn(): a callable in a core of its own, as a request has one but without an exchange.
 *
 *   asked --message--> admitted --> run on a core, counted as under way --> over
 *                        +--queued--^   +--dropped: no room, queue time-out, shutdown--> refused
 *
 * Whoever asks may be any core or thread. The callable is pelton/_run.py's: called with True it runs, with False it was
 * refused; it keeps what is raised. The server's stop waits for it, and cuts it, as it does requests. */
#include <stdlib.h>

#include "gateway/internal.h"

#include "base/mem.h"

struct spawned {
    struct pn_job job;
    struct pn_message message;
    struct pn_gateway *gw; /* borrowed: it outlives the loop's messages */
    PyObject *callable;    /* owned */
};

/* Owner on entry and return. Frees S. */
static void call(struct spawned *s, bool admitted)
{
    struct pn_gateway *gw = s->gw;
    struct pn_core *core = pn_core_self();
    PyObject *callable = s->callable;
    free(s);
    pn_core_enter_app(core);
    PyObject *result = NULL;
    struct pn__state *state = pn_core_state(core);
    if (pn_unlikely(state && !state->begun))
        pn__host_begin(gw, core, state);
    if (!gw->aio_home || pn_aio_home_prepare_request(gw->aio_home, core) == 0)
        result = PyObject_CallOneArg(callable, admitted ? Py_True : Py_False);
    if (pn_unlikely(pn_core_self() != core))
        pn__leave_child();
    if (!result) /* memory, or a cut that came after it was over */
        PyErr_WriteUnraisable(callable);
    Py_XDECREF(result);
    Py_DECREF(callable);
    pn_core_leave_app(core);
}

static void job_run(struct pn_job *job)
{
    struct spawned *s = pn_container_of(job, struct spawned, job);
    struct pn_gateway *gw = s->gw;
    call(s, true);
    pn_cores_done(gw->cores);
}

static void job_dropped(struct pn_job *job)
{
    call(pn_container_of(job, struct spawned, job), false);
}

/* No core runs any more, and home has the loop to itself, attached. */
static bool is_over(const struct pn_gateway *gw)
{
    return gw->stopped || !pn_core_self() || (gw->aio_home && !pn_aio_home_serving(gw->aio_home));
}

PN_COLD static void refuse_at_end(struct spawned *s)
{
    PyObject *result = PyObject_CallOneArg(s->callable, Py_False);
    if (!result)
        PyErr_WriteUnraisable(s->callable);
    Py_XDECREF(result);
    Py_DECREF(s->callable);
    free(s);
}

static void deliver(struct pn_message *message)
{
    struct spawned *s = pn_container_of(message, struct spawned, message);
    if (pn_unlikely(is_over(s->gw))) {
        refuse_at_end(s);
        return;
    }
    switch (pn_cores_admit(s->gw->cores, &s->job)) {
    case PN_ADMIT_RUN:
        job_run(&s->job);
        break;
    case PN_ADMIT_QUEUED:
        break;
    case PN_ADMIT_FULL:
        job_dropped(&s->job);
        break;
    }
}

/* From here on nothing is spawned: the GIL, which both hold, comes between. */
void pn__spawn_stop(struct pn_gateway *gw)
{
    struct pn_loop *loop = gw->cores ? pn_cores_loop(gw->cores) : NULL;
    PN_ASSERT(gw->stopped);
    if (loop)
        pn_loop_deliver(loop);
}

PyObject *pn__spawn(struct pn_gateway *gw, PyObject *callable)
{
    if (!gw->cores || gw->stopped) {
        PyErr_SetString(PyExc_RuntimeError, "the server doesn't run");
        return NULL;
    }
    struct spawned *s = pn_try_malloc(sizeof *s);
    if (!s)
        return PyErr_NoMemory();
    *s = (struct spawned){.job = {.run = job_run, .dropped = job_dropped},
                          .message = {.deliver = deliver},
                          .gw = gw,
                          .callable = Py_NewRef(callable)};
    pn_list_init(&s->job.node);
    pn_message_send(pn_cores_loop(gw->cores), &s->message);
    Py_RETURN_NONE;
}

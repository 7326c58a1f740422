/* SPDX-License-Identifier: Apache-2.0 */
/* For the tests of the carriers: a host whose "GIL" is a lock that asserts the rules of
 * docs/lifecycle.md at every attach and detach, and a little server whose requests are functions.
 * One server a test; requests are started by tasks of the loop, as a wire would. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cores/cores_impl.h"
#include "test_base.h"

#define MS PN_NS_PER_MS

/* Asserts that fail outside the main thread must not longjmp: they end the process. */
#define MUST(cond)                                                               \
    do {                                                                         \
        if (!(cond)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                             \
        }                                                                        \
    } while (0)

/* A failed assertion of cmocka's ends the process where it is: cmocka would jump off the stack that has the
 * server on it, whose threads go on, and the next test would fall for that and not for its own reason. */
#define RUN_TESTS(tests) \
    (setenv("CMOCKA_TEST_ABORT", "1", 1), cmocka_run_group_tests(tests, NULL, NULL))

/* --- The fake interpreter ----------------------------------------------------------------------- */

struct fake_state {
    struct pn_core *core; /* NULL: home's, before the cores exist */
    atomic_int raised;
    atomic_int stalled;
    int unraised;
    int resumed;
    unsigned fetched; /* bits by step, since it resumed last */
};

struct fake_python {
    pthread_mutex_t mutex;
    pthread_cond_t freed;
    struct fake_state *holder; /* who has the GIL */
    bool taken;
    struct pn_cores *cores;
    struct fake_state home;
    atomic_int states; /* made and not ended */
    atomic_int made;
    atomic_int fail_states; /* the next so many state_new fail */
    atomic_int stalls;
    atomic_int raises;
    atomic_bool slow_raise;
};

static void gil_take(struct fake_python *py, struct fake_state *st)
{
    pthread_mutex_lock(&py->mutex);
    while (py->taken)
        pthread_cond_wait(&py->freed, &py->mutex);
    py->taken = true;
    py->holder = st;
    pthread_mutex_unlock(&py->mutex);
}

static void gil_drop(struct fake_python *py, struct fake_state *st)
{
    pthread_mutex_lock(&py->mutex);
    MUST(py->taken && py->holder == st);
    py->taken = false;
    py->holder = NULL;
    pthread_cond_signal(&py->freed);
    pthread_mutex_unlock(&py->mutex);
}

static bool fake_attached(void *ctx, void *state)
{
    struct fake_python *py = ctx;
    pthread_mutex_lock(&py->mutex);
    bool held = py->taken && py->holder == state;
    pthread_mutex_unlock(&py->mutex);
    return held;
}

/* Rule 1: whoever waits for the GIL has not got the baton. */
static void check_may_block(struct pn_core *core)
{
    if (core && pn_cores_carrier(pn_core_cores(core)) == PN_CARRIER_THREADS)
        MUST(!pn_core_owns_loop(core));
}

static void fake_attach(void *ctx, void *state)
{
    struct fake_python *py = ctx;
    struct fake_state *st = state;
    struct pn_core *core = pn_core_self();
    MUST(core && pn_core_state(core) == state);
    MUST(!fake_attached(ctx, state));
    check_may_block(core);
    gil_take(py, st);
}

static void fake_detach(void *ctx, void *state)
{
    MUST(pn_core_self() && pn_core_state(pn_core_self()) == state);
    gil_drop(ctx, state);
}

static int fake_state_new(void *ctx, struct pn_core *core, void **state)
{
    struct fake_python *py = ctx;
    MUST(pn_core_self() == core);
    if (atomic_load(&py->fail_states) > 0) {
        atomic_fetch_sub(&py->fail_states, 1);
        return -ENOMEM;
    }
    struct fake_state *st = calloc(1, sizeof(*st));
    st->core = core;
    *state = st;
    atomic_fetch_add(&py->states, 1);
    atomic_fetch_add(&py->made, 1);
    return 0;
}

static void fake_state_end(void *ctx, void *state)
{
    struct fake_python *py = ctx;
    struct fake_state *st = state;
    MUST(pn_core_self() == st->core);
    MUST(!atomic_load(&st->raised)); /* it would come out in what the host does here */
    gil_drop(py, st);
    free(st);
    atomic_fetch_sub(&py->states, 1);
}

static void fake_resumed(void *ctx, void *state)
{
    struct fake_state *st = state;
    MUST(pn_core_state(pn_core_self()) == state);
    MUST(!fake_attached(ctx, state));
    st->resumed++;
}

/* Of one that waits, and a step at a time. */
static void fake_fetch(void *ctx, const void *state, const void *request, unsigned step)
{
    struct fake_state *st = (struct fake_state *)state;
    struct pn_core *self = pn_core_self();
    (void)ctx;
    MUST(pn_core_owns_loop(self) && st->core != self);
    MUST(request == pn_core_request(st->core));
    MUST(step >= 1 && step <= 3);
    st->fetched |= 1u << step;
}

static void fake_raise(void *ctx, void *state)
{
    struct fake_python *py = ctx;
    struct fake_state *st = state;
    MUST(pn_core_self() == NULL);
    struct fake_state dog = {0};
    gil_take(py, &dog);
    atomic_fetch_add(&st->raised, 1);
    atomic_fetch_add(&py->raises, 1);
    gil_drop(py, &dog);
}

static void fake_unraise(void *ctx, void *state)
{
    struct fake_state *st = state;
    MUST(fake_attached(ctx, state));
    atomic_store(&st->raised, 0);
    st->unraised++;
}

static void fake_stalled(void *ctx, void *state, struct pn_core *core, int64_t for_ns)
{
    struct fake_python *py = ctx;
    struct fake_state *st = state;
    (void)core;
    MUST(for_ns > 0);
    atomic_fetch_add(&st->stalled, 1);
    atomic_fetch_add(&py->stalls, 1);
}

/* --- The server ---------------------------------------------------------------------------------- */

struct server {
    struct fake_python py;
    struct pn_core_host host;
    struct pn_loop *loop;
    struct pn_cores *cores;
    atomic_int seen; /* requests that came to admission */
    atomic_int finished;
    atomic_int dropped;
    atomic_bool stopped; /* pn_cores_stop was called */
    int refused;
    int expected; /* stop the loop when so many are finished, dropped or refused */
    int inside_peak;
    atomic_int inside;
};

struct request {
    struct pn_job job;
    struct pn_task task;
    struct server *s;
    void (*app)(struct request *r);
    int fd[2];
    int index;
    int64_t span_ns;
    int result;
    int64_t took_ns;
    bool done;
    _Atomic(struct pn_core *) core;
    _Atomic uint32_t number;
    struct request *peer;
    struct request *then; /* starts in the same frame, as the next of a pipeline does */
    atomic_int flag;
};

static void check_all_over(struct server *s)
{
    if (atomic_load(&s->finished) + atomic_load(&s->dropped) + s->refused == s->expected)
        pn_loop_stop(s->loop);
}

static void request_start(struct pn_task *task);

/* Owning the loop, counted as under way, attached. */
static void run_request(struct request *r)
{
    struct server *s = r->s;
    struct pn_core *core = pn_core_self();
    MUST(core && pn_core_owns_loop(core) && pn_core_is_runner(core));
    MUST(pn_core_attached(core));
    MUST(pn_core_request(core) == NULL);
    pn_core_set_request(core, r);
    int inside = atomic_fetch_add(&s->inside, 1) + 1;
    if (inside > s->inside_peak)
        s->inside_peak = inside;
    atomic_store(&r->core, core);
    pn_core_enter_app(core);
    MUST(!pn_core_owns_loop(core));
    int64_t t0 = pn_clock_mono_ns();
    r->app(r);
    r->took_ns = pn_clock_mono_ns() - t0;
    MUST(pn_core_self() == core);
    MUST(pn_core_attached(core));
    pn_core_leave_app(core);
    MUST(pn_core_owns_loop(core));
    MUST(pn_core_request(core) == r);
    r->done = true;
    atomic_fetch_sub(&s->inside, 1);
    pn_cores_done(s->cores);
    atomic_fetch_add(&s->finished, 1);
    check_all_over(s);
    if (r->then)
        request_start(&r->then->task);
}

static void job_run(struct pn_job *job)
{
    run_request(pn_container_of(job, struct request, job));
}

static void job_dropped(struct pn_job *job)
{
    struct request *r = pn_container_of(job, struct request, job);
    atomic_fetch_add(&r->s->dropped, 1);
    check_all_over(r->s);
}

static void request_start(struct pn_task *task)
{
    struct request *r = pn_container_of(task, struct request, task);
    atomic_fetch_add(&r->s->seen, 1);
    switch (pn_cores_admit(r->s->cores, &r->job)) {
    case PN_ADMIT_RUN:
        run_request(r);
        break;
    case PN_ADMIT_QUEUED:
        break;
    case PN_ADMIT_FULL:
        r->s->refused++;
        check_all_over(r->s);
        break;
    }
}

static void request_init(struct request *r, struct server *s, void (*app)(struct request *))
{
    *r = (struct request){.s = s, .app = app, .fd = {-1, -1}};
    r->job.run = job_run;
    r->job.dropped = job_dropped;
    pn_task_init(&r->task, request_start);
}

static PN_UNUSED void request_post(struct request *r)
{
    pn_task_post(r->s->loop, &r->task);
}

static const struct pn_cores_config test_config = {
    .count = 8,
    .stack_size = 256 << 10,
    .queue_max = 1000,
    .lease_ns = 10 * MS,
};

static void server_make(struct server *s, enum pn_carrier carrier,
                        const struct pn_cores_config *config)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->py.mutex, NULL);
    pthread_cond_init(&s->py.freed, NULL);
    s->host = (struct pn_core_host){
        .ctx = &s->py,
        .state_new = fake_state_new,
        .state_end = fake_state_end,
        .attach = fake_attach,
        .detach = fake_detach,
        .attached = fake_attached,
        .resumed = fake_resumed,
        .fetch = fake_fetch,
        .raise = fake_raise,
        .unraise = fake_unraise,
        .stalled = fake_stalled,
    };
    struct pn_cores_config c = config ? *config : test_config;
    c.carrier = carrier;
    c.host = &s->host;
    c.home_state = &s->py.home;
    gil_take(&s->py, &s->py.home);
    s->loop = pn_loop_create(pn_poller_epoll_create());
    s->cores = pn_cores_create(s->loop, &c);
    MUST(s->cores);
    s->py.cores = s->cores;
    s->py.home.core = pn_cores_home(s->cores);
    s->expected = -1;
}

static PN_UNUSED int server_run(struct server *s, int expected)
{
    s->expected = expected;
    int rc = pn_cores_run(s->cores);
    MUST(pn_core_self() == pn_cores_home(s->cores));
    MUST(pn_core_owns_loop(pn_core_self()));
    MUST(fake_attached(&s->py, &s->py.home));
    pn_loop_resume(s->loop);
    return rc;
}

/* For a second run, which no real server needs. */
static PN_UNUSED void server_again(struct server *s)
{
    s->cores->stopping = false;
    atomic_store(&s->seen, 0);
    atomic_store(&s->finished, 0);
}

static void server_free(struct server *s)
{
    pn_cores_destroy(s->cores);
    MUST(pn_core_self() == NULL);
    MUST(atomic_load(&s->py.states) == 0);
    gil_drop(&s->py, &s->py.home);
    pn_loop_destroy(s->loop);
    pthread_mutex_destroy(&s->py.mutex);
    pthread_cond_destroy(&s->py.freed);
}

static PN_UNUSED struct pn_cores_stats server_stats(struct server *s)
{
    struct pn_cores_stats st;
    pn_cores_stats(s->cores, &st);
    return st;
}

/* --- What applications do -------------------------------------------------------------------------- */

/* As CPython does around a call that may wait. */
#define DETACHED(core, call)                                        \
    do {                                                            \
        struct pn_core *core_ = (core);                             \
        fake_detach(core_->cores->host->ctx, pn_core_state(core_)); \
        call;                                                       \
        fake_attach(core_->cores->host->ctx, pn_core_state(core_)); \
    } while (0)

static PN_UNUSED int app_sleep(int64_t span_ns)
{
    struct pn_core *core = pn_core_self();
    int rc;
    errno = 4242;
    DETACHED(core, rc = pn_core_sleep_until(core, pn_clock_mono_ns() + span_ns));
    MUST(pn_core_self() == core);
    return rc;
}

static PN_UNUSED int app_wait_fd(int fd, uint32_t events, int64_t span_ns)
{
    struct pn_core *core = pn_core_self();
    int rc;
    int64_t deadline = span_ns < 0 ? PN_NEVER_NS : pn_clock_mono_ns() + span_ns;
    fake_detach(core->cores->host->ctx, pn_core_state(core));
    errno = 4242;
    rc = pn_core_wait_fd(core, fd, events, deadline);
    MUST(errno == 4242);
    fake_attach(core->cores->host->ctx, pn_core_state(core));
    MUST(pn_core_self() == core);
    return rc;
}

/* Sleeps until COND is true: a minute is for ever. */
#define APP_UNTIL(cond)                                    \
    do {                                                   \
        int64_t end_ns_ = pn_clock_mono_ns() + 60000 * MS; \
        while (!(cond)) {                                  \
            MUST(pn_clock_mono_ns() < end_ns_);            \
            app_sleep(2 * MS);                             \
        }                                                  \
    } while (0)

/* Computes with the GIL, which is given away now and then, as the interpreter does. */
static PN_UNUSED void app_compute(int64_t span_ns)
{
    struct pn_core *core = pn_core_self();
    int64_t end = pn_clock_mono_ns() + span_ns;
    while (pn_clock_mono_ns() < end) {
        int64_t slice = pn_clock_mono_ns() + MS;
        while (pn_clock_mono_ns() < slice)
            ;
        DETACHED(core, usleep(100));
    }
}

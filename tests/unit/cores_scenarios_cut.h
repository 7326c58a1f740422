/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios of cutting one request, and of stalls that are reported, for the carriers' tests. */
#pragma once

#include "cores_scenarios.h"

struct cutter {
    struct pn_timer timer;
    struct request *r;
    int64_t cut_ns;
};

/* Only when it waits: one that computes for long after the cut is left alone, and cut again a second later. */
static void cut_now(struct pn_timer *timer)
{
    struct cutter *c = pn_container_of(timer, struct cutter, timer);
    struct pn_core *core = atomic_load(&c->r->core);
    if (core && (atomic_load(&core->blocking) || core->parked)) {
        c->cut_ns = pn_clock_mono_ns();
        pn_core_cut(core);
    } else {
        MUST(pn_timer_set(c->r->s->loop, timer, pn_clock_mono_ns() + MS) == 0);
    }
}

static void cut_in(struct cutter *c, struct request *r, int64_t span_ns)
{
    *c = (struct cutter){.r = r};
    pn_timer_init(&c->timer, cut_now);
    MUST(pn_timer_set(r->s->loop, &c->timer, pn_clock_mono_ns() + span_ns) == 0);
}

/* A cut is repeated each second: so often at most where the machine stands still. */
static void check_raises(const struct fake_python *py, int64_t cut_ns)
{
    int raises = atomic_load(&py->raises);
    assert_true(raises >= 1 && raises <= 1 + (pn_clock_mono_ns() - cut_ns) / (900 * MS));
}

/* Parks, so that a thread always gives the baton away, and each core gets its turn. */
static PN_UNUSED void app_calm(struct request *r)
{
    struct pn_core *core = pn_core_self();
    struct fake_state *state = pn_core_state(core);
    for (int i = 0; i < 20; i++) {
        uint32_t number = pn_core_wait_begin(core);
        int rc;
        DETACHED(core, rc = pn_core_park(core, number, pn_clock_mono_ns() + 3 * MS));
        MUST(rc == PN_WAIT_TIMEOUT);
        MUST(!pn_core_is_cut(core));
        MUST(!atomic_load(&state->raised));
    }
    r->result = 1;
}

/* One of several is cut; the core's next requests don't notice. */
static PN_UNUSED void scenario_cut(enum pn_carrier carrier, unsigned cores)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = cores;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, 9, app_calm);
    all[0].app = app_until_cut;
    struct cutter cutter;
    cut_in(&cutter, &all[0], 20 * MS);
    assert_int_equal(server_run(&s, 9), 0);
    all_done(all, 9);
    check_raises(&s.py, cutter.cut_ns);
    free(all);
    server_free(&s);
}

/* One request, which is cut while it waits. */
static PN_UNUSED void cut_one(enum pn_carrier carrier, void (*app)(struct request *r))
{
    struct server s;
    server_make(&s, carrier, NULL);
    struct request *all = requests_make(&s, 1, app);
    struct cutter cutter;
    cut_in(&cutter, &all[0], 20 * MS);
    assert_int_equal(server_run(&s, 1), 0);
    assert_int_equal(all[0].result, 1);
    check_raises(&s.py, cutter.cut_ns);
    free(all);
    server_free(&s);
}

/* A second cut comes while the first one's clean-up waits: that is left alone. */
static PN_UNUSED void app_cut_twice(struct request *r)
{
    struct pn_core *core = pn_core_self();
    int64_t start_ns = pn_clock_mono_ns();
    MUST(app_sleep(3600 * PN_NS_PER_SEC) == PN_WAIT_CUT);
    pn_core_cut(core);
    int rc = app_sleep(50 * MS);
    MUST(rc == PN_WAIT_TIMEOUT || pn_clock_mono_ns() - start_ns > 900 * MS);
    r->result = 1;
}

static PN_UNUSED void scenario_cut_twice(enum pn_carrier carrier)
{
    cut_one(carrier, app_cut_twice);
}

/* The exception comes out while it computes, and its clean-up waits at once: that is left alone. */
static PN_UNUSED void app_cut_seen(struct request *r)
{
    struct pn_core *core = pn_core_self();
    struct fake_state *state = pn_core_state(core);
    pn_core_cut(core);
    DETACHED(core, while (!atomic_load(&state->raised)) sched_yield());
    pn_core_cut_seen(core);
    int64_t start_ns = pn_clock_mono_ns();
    int rc = app_sleep(50 * MS);
    MUST(rc == PN_WAIT_TIMEOUT || pn_clock_mono_ns() - start_ns > 900 * MS);
    r->result = 1;
}

static PN_UNUSED void scenario_cut_seen(enum pn_carrier carrier)
{
    struct server s;
    server_make(&s, carrier, NULL);
    struct request *all = requests_make(&s, 1, app_cut_seen);
    assert_int_equal(server_run(&s, 1), 0);
    assert_int_equal(all[0].result, 1);
    free(all);
    server_free(&s);
}

/* Raises in the core, which goes on without a look at it. */
static PN_UNUSED void cut_late(struct pn_core *core)
{
    struct fake_state *state = pn_core_state(core);
    pn_core_cut(core);
    DETACHED(core, while (!atomic_load(&state->raised)) sched_yield());
}

static PN_UNUSED void app_cut_late(struct request *r)
{
    cut_late(pn_core_self());
    r->result = 1;
}

/* The exception is still to come when the request is over: it hits neither the next one of the same connection, which is
 * there at once, nor what runs on home when the server has ended. */
static PN_UNUSED void scenario_cut_late(enum pn_carrier carrier)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.lease_ns = LONG_LEASE_NS; /* the same core goes on */
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, 1, app_cut_late);
    struct request next;
    request_init(&next, &s, app_calm);
    all[0].then = &next;
    assert_int_equal(server_run(&s, 2), 0);
    all_done(all, 1);
    assert_true(next.done);
    assert_ptr_equal(atomic_load(&all[0].core), atomic_load(&next.core));
    free(all);
    server_free(&s);
}

static PN_UNUSED void step_cut_late(void *ctx)
{
    struct home_test *h = ctx;
    struct pn_core *core = pn_core_self();
    pn_core_enter_app(core);
    cut_late(core);
    atomic_store(&h->due, 0);
    pn_core_leave_app(core);
    pn_loop_stop(h->s->loop);
}

static PN_UNUSED void scenario_home_cut_late(enum pn_carrier carrier)
{
    struct server s;
    struct home_test h = {.s = &s, .due = 1};
    server_make(&s, carrier, NULL);
    const struct pn_home_work work = {home_pending_test, step_cut_late, &h, 4};
    pn_cores_set_home_work(s.cores, &work);
    assert_int_equal(server_run(&s, -1), 0);
    assert_int_equal(atomic_load(&s.py.home.raised), 0);
    assert_int_equal(s.py.home.unraised, 1);
    server_free(&s);
}

/* What the call says of the first cut stands for the exception; the second one's comes out all the same. */
static PN_UNUSED void app_fails_when_cut(struct request *r)
{
    struct pn_core *core = pn_core_self();
    struct fake_state *state = pn_core_state(core);
    DETACHED(core, pn_core_cut_failed(core)); /* nothing was cut */
    MUST(state->unraised == 0);
    MUST(app_sleep(3600 * PN_NS_PER_SEC) == PN_WAIT_CUT);
    MUST(atomic_load(&state->raised));
    errno = ETIMEDOUT;
    DETACHED(core, pn_core_cut_failed(core));
    MUST(errno == ETIMEDOUT && state->unraised == 1 && !atomic_load(&state->raised));
    MUST(app_sleep(3600 * PN_NS_PER_SEC) == PN_WAIT_CUT);
    DETACHED(core, pn_core_cut_failed(core));
    MUST(state->unraised == 1 && atomic_load(&state->raised));
    r->result = 1;
}

static PN_UNUSED void scenario_cut_fails_the_call(enum pn_carrier carrier)
{
    cut_one(carrier, app_fails_when_cut);
}

/* --- stalls ------------------------------------------------------------------------------------------------- */

static PN_UNUSED void spin_until(int64_t end_ns)
{
    while (pn_clock_mono_ns() < end_ns)
        ;
}

/* Computes until it was reported, and a little longer: a stay is reported once a second. */
static PN_UNUSED void app_stalls(struct request *r)
{
    const struct fake_state *state = pn_core_state(pn_core_self());
    int before = atomic_load(&state->stalled);
    int64_t start_ns = pn_clock_mono_ns();
    while (atomic_load(&state->stalled) == before)
        MUST(pn_clock_mono_ns() < start_ns + 60000 * MS);
    r->span_ns = pn_clock_mono_ns();
    spin_until(r->span_ns + 50 * MS);
    MUST(atomic_load(&state->stalled) == before + 1 || pn_clock_mono_ns() > start_ns + 900 * MS);
}

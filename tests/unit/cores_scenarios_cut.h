/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios of cutting one request, for the carriers' tests. */
#pragma once

#include "cores_scenarios.h"

struct cutter {
    struct pn_timer timer;
    struct request *r;
};

static void cut_now(struct pn_timer *timer)
{
    struct cutter *c = pn_container_of(timer, struct cutter, timer);
    pn_core_cut(atomic_load(&c->r->core));
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
    struct cutter cutter = {.r = &all[0]};
    pn_timer_init(&cutter.timer, cut_now);
    MUST(pn_timer_set(s.loop, &cutter.timer, pn_clock_mono_ns() + 20 * MS) == 0);
    assert_int_equal(server_run(&s, 9), 0);
    all_done(all, 9);
    assert_int_equal(atomic_load(&s.py.raises), 1);
    assert_true(all[0].took_ns < 500 * MS);
    free(all);
    server_free(&s);
}

/* A second cut comes while the first one's clean-up waits: that is left alone. */
static PN_UNUSED void app_cut_twice(struct request *r)
{
    struct pn_core *core = pn_core_self();
    MUST(app_sleep(3600 * PN_NS_PER_SEC) == PN_WAIT_CUT);
    pn_core_cut(core);
    MUST(app_sleep(50 * MS) == PN_WAIT_TIMEOUT);
    r->result = 1;
}

static PN_UNUSED void scenario_cut_twice(enum pn_carrier carrier)
{
    struct server s;
    server_make(&s, carrier, NULL);
    struct request *all = requests_make(&s, 1, app_cut_twice);
    struct cutter cutter = {.r = &all[0]};
    pn_timer_init(&cutter.timer, cut_now);
    MUST(pn_timer_set(s.loop, &cutter.timer, pn_clock_mono_ns() + 20 * MS) == 0);
    assert_int_equal(server_run(&s, 1), 0);
    assert_int_equal(all[0].result, 1);
    assert_int_equal(atomic_load(&s.py.raises), 1);
    free(all);
    server_free(&s);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Time-out classes: exact on virtual time, cheap to restart, safe without memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "loop/loop.h"
#include "support/sim_poller.h"

enum { OBJECTS = 100, SPAN_NS = 1000 };

struct object {
    struct pn_timeout timeout;
    int64_t expired_ns; /* 0: not */
    int64_t due_ns;     /* the model; 0: does not run */
};

static struct sim_poller *sim;
static struct pn_loop *loop;
static struct pn_timeout_class class;
static struct object objects[OBJECTS];

static void on_expired(struct pn_timeout *t)
{
    struct object *o = pn_container_of(t, struct object, timeout);
    assert_false(pn_list_linked(&t->node));
    assert_int_equal(o->expired_ns, 0);
    o->expired_ns = sim_now_ns(sim);
    assert_int_equal(o->due_ns, o->expired_ns);
    o->due_ns = 0;
}

static int set_up(void **state)
{
    (void)state;
    sim = sim_poller_create();
    loop = pn_loop_create(sim_poller_base(sim));
    pn_timeout_class_init(&class, loop, SPAN_NS, on_expired);
    for (int i = 0; i < OBJECTS; i++) {
        objects[i] = (struct object){0};
        pn_timeout_init(&objects[i].timeout);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < OBJECTS; i++)
        pn_timeout_stop(&objects[i].timeout);
    pn_timeout_class_fini(&class);
    pn_loop_destroy(loop);
    return 0;
}

static void start(struct object *o)
{
    pn_timeout_start(&class, &o->timeout);
    o->due_ns = pn_loop_now_ns(loop) + SPAN_NS;
    o->expired_ns = 0;
}

static void run_until(int64_t at_ns)
{
    struct pn_timer stop;
    pn_timer_init(&stop, NULL);
    while (pn_loop_next_deadline_ns(loop) <= at_ns)
        pn_loop_step(loop);
    if (sim_now_ns(sim) < at_ns)
        sim_advance(sim, at_ns - sim_now_ns(sim));
    pn_loop_update_now(loop);
}

static void each_expires_exactly_at_its_time(void **state)
{
    (void)state;
    int64_t t0 = sim_now_ns(sim);
    start(&objects[0]);
    run_until(t0 + 400);
    start(&objects[1]);
    run_until(t0 + 600);
    start(&objects[0]); /* restarted: last now */
    run_until(t0 + 5000);
    assert_int_equal(objects[1].expired_ns, t0 + 1400);
    assert_int_equal(objects[0].expired_ns, t0 + 1600);
}

static void random_restarts_against_a_model(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        uint64_t r = sim_poller_random(sim);
        struct object *o = &objects[(r >> 8) % OBJECTS];
        if (r % 8 < 6) {
            start(o);
        } else if (r % 8 == 6) {
            pn_timeout_stop(&o->timeout);
            o->due_ns = 0;
        }
        run_until(sim_now_ns(sim) + (int64_t)((r >> 24) % 40));
        for (int i = 0; i < OBJECTS; i++)
            assert_true(objects[i].due_ns == 0 || objects[i].due_ns > sim_now_ns(sim));
    }
    run_until(sim_now_ns(sim) + SPAN_NS);
    for (int i = 0; i < OBJECTS; i++)
        assert_int_equal(objects[i].due_ns, 0);
}

static void restarting_costs_no_timer(void **state)
{
    (void)state;
    int64_t t0 = sim_now_ns(sim);
    start(&objects[0]);
    for (int i = 1; i <= 100; i++) {
        run_until(t0 + i * 5);
        start(&objects[0]);
    }
    struct pn_loop_stats s;
    pn_loop_stats(loop, &s);
    assert_int_equal(s.timers_fired, 0);
    run_until(t0 + 10000);
    pn_loop_stats(loop, &s);
    assert_int_equal(s.timers_fired, 2); /* once too early, then it moved */
    assert_int_equal(objects[0].expired_ns, t0 + 500 + SPAN_NS);
}

static void a_span_of_zero_never_expires(void **state)
{
    (void)state;
    struct pn_timeout_class never;
    pn_timeout_class_init(&never, loop, 0, on_expired);
    pn_timeout_start(&never, &objects[0].timeout);
    for (int i = 0; i < 10; i++)
        pn_loop_step(loop);
    assert_true(sim_idle(sim));
    pn_timeout_class_fini(&never);
    pn_timeout_class_init(&never, loop, PN_NEVER_NS, on_expired);
    pn_timeout_start(&never, &objects[0].timeout);
    pn_loop_step(loop);
    assert_true(sim_idle(sim));
    pn_timeout_stop(&objects[0].timeout);
    pn_timeout_class_fini(&never);
}

static void no_memory_is_needed_after_the_start(void **state)
{
    (void)state;
    struct pn_timer others[200];
    int set = 0;
    for (; set < 200; set++) {
        pn_timer_init(&others[set], NULL);
        pn_mem_fail_at(1, true);
        int rc = pn_timer_set(loop, &others[set], PN_NEVER_NS - 1);
        pn_mem_fail_at(0, false);
        if (rc < 0)
            break;
    }
    pn_mem_fail_at(1, true);
    int64_t t0 = sim_now_ns(sim);
    start(&objects[0]);
    run_until(t0 + 2000);
    assert_int_equal(objects[0].expired_ns, t0 + SPAN_NS);
    start(&objects[0]);
    run_until(t0 + 4000);
    assert_int_equal(objects[0].expired_ns, t0 + 2000 + SPAN_NS);
    pn_mem_fail_at(0, false);
    for (int i = 0; i < set; i++)
        pn_timer_cancel(loop, &others[i]);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_expires_exactly_at_its_time),    TEST(random_restarts_against_a_model),
        TEST(restarting_costs_no_timer),           TEST(a_span_of_zero_never_expires),
        TEST(no_memory_is_needed_after_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

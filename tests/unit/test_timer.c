/* SPDX-License-Identifier: Apache-2.0 */
/* Timers against a sorted list, the order of equals, and those that stand in the line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "loop/loop.h"
#include "support/sim_poller.h"

enum { TIMERS = 300, ROUNDS = 30000 };

struct probe {
    struct pn_timer timer;
    bool set; /* the model */
    int64_t deadline_ns;
    uint64_t order;
};

static struct sim_poller *sim;
static struct pn_loop *loop;
static struct probe probes[TIMERS];
static struct probe *last_fired;
static unsigned fired;

static void on_fire(struct pn_timer *t)
{
    last_fired = pn_container_of(t, struct probe, timer);
    assert_false(pn_timer_is_set(t));
    fired++;
}

static int set_up(void **state)
{
    (void)state;
    sim = sim_poller_create();
    loop = pn_loop_create(sim_poller_base(sim));
    for (int i = 0; i < TIMERS; i++) {
        probes[i] = (struct probe){0};
        pn_timer_init(&probes[i].timer, on_fire);
    }
    last_fired = NULL;
    fired = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < TIMERS; i++)
        pn_timer_cancel(loop, &probes[i].timer);
    pn_loop_destroy(loop);
    return 0;
}

static struct probe *model_first(void)
{
    struct probe *first = NULL;
    for (int i = 0; i < TIMERS; i++) {
        struct probe *p = &probes[i];
        if (!p->set)
            continue;
        if (!first || p->deadline_ns < first->deadline_ns ||
            (p->deadline_ns == first->deadline_ns && p->order < first->order))
            first = p;
    }
    return first;
}

static void timers_against_a_sorted_model(void **state)
{
    (void)state;
    uint64_t order = 0;
    unsigned model_fired = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t r = sim_poller_random(sim);
        struct probe *p = &probes[(r >> 8) % TIMERS];
        if (r % 4 < 2) {
            /* Few different times: many equals. */
            p->deadline_ns = sim_now_ns(sim) + (int64_t)((r >> 24) % 64);
            p->set = true;
            p->order = ++order;
            assert_int_equal(pn_timer_set(loop, &p->timer, p->deadline_ns), 0);
        } else if (r % 4 == 2) {
            p->set = false;
            pn_timer_cancel(loop, &p->timer);
        } else if (model_first()) {
            struct probe *first = model_first();
            last_fired = NULL;
            for (int i = 0; i < 5 && !last_fired; i++)
                pn_loop_step(loop);
            assert_ptr_equal(last_fired, first);
            assert_true(sim_now_ns(sim) >= first->deadline_ns);
            first->set = false;
            model_fired++;
        }
        assert_int_equal(fired, model_fired);
        assert_int_equal(pn_timer_is_set(&p->timer), p->set);
        struct probe *first = model_first();
        assert_int_equal(pn_loop_next_deadline_ns(loop), first ? first->deadline_ns : PN_NEVER_NS);
        assert_ptr_equal(pn_loop_next_timer(loop), first ? &first->timer : NULL);
    }
    assert_true(model_fired > ROUNDS / 10);
}

static void equals_fire_in_the_order_of_setting(void **state)
{
    (void)state;
    int64_t at = sim_now_ns(sim) + 5;
    for (int i = 0; i < 10; i++)
        assert_int_equal(pn_timer_set(loop, &probes[i].timer, at), 0);
    assert_int_equal(pn_timer_set(loop, &probes[0].timer, at), 0); /* now the last */
    for (int i = 1; i <= 10; i++) {
        last_fired = NULL;
        while (!last_fired)
            pn_loop_step(loop);
        assert_ptr_equal(last_fired, &probes[i % 10]);
    }
}

/* How many stand in the line, which is sorted. */
static int line_length(void)
{
    struct pn_timer *before = NULL, *timer;
    int n = 0;
    for (; (timer = pn_loop_timer_after(loop, before)); before = timer, n++)
        assert_true(!before || before->deadline_ns <= timer->deadline_ns);
    return n;
}

static void waits_of_one_length_stand_in_the_line(void **state)
{
    (void)state;
    int64_t now = sim_now_ns(sim);
    assert_null(pn_loop_timer_after(loop, NULL));
    assert_int_equal(pn_timer_set(loop, &probes[0].timer, PN_NEVER_NS), 0);
    assert_int_equal(line_length(), 0);
    assert_null(pn_loop_timer_after(loop, &probes[0].timer));
    for (int i = 1; i <= 3; i++) /* long ones: not for long */
        assert_int_equal(pn_timer_set(loop, &probes[i].timer, now + 1000), 0);
    for (int i = 10; i < 20; i++)
        assert_int_equal(pn_timer_set(loop, &probes[i].timer, now + 100 + i), 0);
    assert_int_equal(line_length(), 10);
    assert_ptr_equal(pn_loop_timer_after(loop, NULL), &probes[10].timer);
    assert_ptr_equal(pn_loop_timer_after(loop, &probes[18].timer), &probes[19].timer);
    pn_timer_cancel(loop, &probes[12].timer);
    assert_int_equal(pn_timer_set(loop, &probes[10].timer, now + 200), 0); /* now the last */
    assert_int_equal(line_length(), 9);
    assert_ptr_equal(pn_loop_timer_after(loop, &probes[11].timer), &probes[13].timer);
    assert_ptr_equal(pn_loop_timer_after(loop, &probes[19].timer), &probes[10].timer);
    assert_null(pn_loop_timer_after(loop, &probes[10].timer));
    /* Due before more of them than go to the heap for one. */
    assert_int_equal(pn_timer_set(loop, &probes[30].timer, now + 1), 0);
    assert_int_equal(line_length(), 5);
    assert_ptr_equal(pn_loop_next_timer(loop), &probes[30].timer);
}

static void never_and_the_past(void **state)
{
    (void)state;
    assert_int_equal(pn_loop_next_deadline_ns(loop), PN_NEVER_NS);
    assert_int_equal(pn_timer_set(loop, &probes[0].timer, PN_NEVER_NS), 0);
    for (int i = 0; i < 5; i++)
        pn_loop_step(loop);
    assert_true(sim_idle(sim));
    assert_int_equal(fired, 0);
    assert_int_equal(pn_timer_set(loop, &probes[1].timer, -5), 0);
    assert_true(pn_loop_has_work(loop));
    for (int i = 0; i < 5; i++)
        pn_loop_step(loop);
    assert_int_equal(fired, 1);
    pn_timer_cancel(loop, &probes[1].timer); /* harmless */
}

static void set_again(struct pn_timer *t)
{
    fired++;
    assert_int_equal(pn_timer_set(loop, t, 0), 0);
}

/* A timer that always sets itself to the past must not stop the rest. */
static void one_that_sets_itself_again_starves_nobody(void **state)
{
    (void)state;
    probes[0].timer.fire = set_again;
    int fd = sim_fd_open(sim);
    sim_fd_raise(sim, fd, EPOLLIN);
    assert_int_equal(pn_timer_set(loop, &probes[0].timer, 0), 0);
    struct pn_loop_stats s;
    do {
        pn_loop_step(loop);
        pn_loop_stats(loop, &s);
    } while (s.turns < 4 && fired < 10000);
    assert_int_equal(s.turns, 4);
}

static void no_memory_changes_nothing(void **state)
{
    (void)state;
    pn_mem_fail_at(1, true);
    assert_int_equal(pn_timer_set(loop, &probes[0].timer, 5), -ENOMEM);
    assert_false(pn_timer_is_set(&probes[0].timer));
    pn_mem_fail_at(0, false);
    int set = 0;
    for (; set < TIMERS; set++) {
        pn_mem_fail_at(set ? 1 : 0, true);
        int rc = pn_timer_set(loop, &probes[set].timer, 1000 - set);
        pn_mem_fail_at(0, false);
        if (rc == -ENOMEM)
            break;
    }
    assert_true(set >= 16 && set < TIMERS);
    assert_int_equal(pn_timer_set(loop, &probes[0].timer, 1), 0); /* moving needs none */
    assert_int_equal(pn_loop_next_deadline_ns(loop), 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(timers_against_a_sorted_model),
        TEST(equals_fire_in_the_order_of_setting),
        TEST(waits_of_one_length_stand_in_the_line),
        TEST(never_and_the_past),
        TEST(one_that_sets_itself_again_starves_nobody),
        TEST(no_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

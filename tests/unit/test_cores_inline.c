/* SPDX-License-Identifier: Apache-2.0 */
/* The inline carrier: one core that runs the loop and the requests, and really blocks. */
#include "cores_scenarios_cut.h"

#define INLINE PN_CARRIER_INLINE

static void test_hello(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, INLINE, NULL);
    struct request *all = requests_make(&s, 300, app_hello);
    assert_int_equal(server_run(&s, 300), 0);
    all_done(all, 300);
    assert_int_equal(server_stats(&s).carriers, 0);
    assert_int_equal(server_stats(&s).waits, 0);
    assert_int_equal(pn_core_number(pn_core_self()), 0);
    assert_int_equal(pn_core_ident(pn_core_self()), (uintptr_t)pthread_self());
    free(all);
    server_free(&s);
}

static void test_odd_waits(void **state)
{
    (void)state;
    scenario_odd_waits(INLINE);
}

static void test_wakes(void **state)
{
    (void)state;
    scenario_wakes(INLINE, 3, SCALE(100));
}

static void test_streaming(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, INLINE, NULL);
    struct request *all = requests_make(&s, 4, app_streams);
    all[0].app = app_yields;
    assert_int_equal(server_run(&s, 4), 0);
    all_done(all, 4);
    assert_int_equal(all[1].result, 20); /* nobody overtakes */
    free(all);
    server_free(&s);
}

static void app_one_ms(struct request *r)
{
    (void)r;
    app_sleep(MS);
}

static void stop_when_home_is_done(struct pn_timer *timer)
{
    struct stopper *st = pn_container_of(timer, struct stopper, timer);
    if (atomic_load(&home_of_requests->due) == 0)
        stop_now(timer);
    else
        MUST(pn_timer_set(st->s->loop, timer, pn_clock_mono_ns() + MS) == 0);
}

static void test_home(void **state)
{
    (void)state;
    struct server s;
    struct home_test h = {.s = &s, .due = 25, .wait_ns = MS};
    server_make(&s, INLINE, NULL);
    const struct pn_home_work work = {home_pending_test, home_step_test, &h, 4};
    pn_cores_set_home_work(s.cores, &work);
    struct request *all = requests_make(&s, 10, app_one_ms);
    struct stopper st;
    stop_in(&st, &s, 10, 20 * MS, -1, -1);
    st.timer.fire = stop_when_home_is_done;
    home_of_requests = &h;
    assert_int_equal(server_run(&s, -1), 0);
    all_done(all, 10);
    assert_int_equal(h.steps, 25);
    free(all);
    server_free(&s);
}

static void test_fork(void **state)
{
    (void)state;
    scenario_fork(INLINE);
}

static void app_blocks_in_poll(struct request *r)
{
    struct pn_core *core = pn_core_self();
    struct pollfd p = {.fd = -1};
    DETACHED(core, MUST(pn_core_block_begin(core, -1, 0)));
    poll(&p, 0, 80);
    DETACHED(core, pn_core_block_end(core));
    r->result = 1;
}

static void app_sleeps_long(struct request *r)
{
    (void)r;
    app_sleep(100 * MS);
}

/* Whether there were reports of three requests that wait. */
static bool waiting_is_reported(struct server *s)
{
    int before = atomic_load(&s->py.stalls);
    struct request *all = requests_make(s, 3, app_sleeps_long);
    all[1].app = app_blocks_in_poll;
    assert_int_equal(server_run(s, 3), 0);
    free(all);
    server_again(s);
    return atomic_load(&s->py.stalls) != before;
}

/* Computing for long is a stall, an ordinary wait is not; one report a stay. */
static void test_stalls(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.log_blocking_ns = 20 * MS;
    server_make(&s, INLINE, &c);
    /* A machine that takes its processor away beside a wait makes it one that computes. */
    int tries = 0;
    while (waiting_is_reported(&s))
        assert_true(++tries < 5);
    struct request *all = requests_make(&s, 2, app_stalls);
    assert_int_equal(server_run(&s, 2), 0);
    all_done(all, 2);
    free(all);
    server_free(&s);
}

static void *cut_from_outside(void *arg)
{
    struct request *r = arg;
    struct pn_core *core;
    while (!(core = atomic_load(&r->core)))
        usleep(1000);
    while (!atomic_load(&core->blocking))
        usleep(1000);
    pn_core_cut(core);
    return NULL;
}

/* A request time-out from a watching thread; the next request is not hit. */
static void test_cut(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct server s;
        int fd[2];
        pthread_t t;
        MUST(pipe(fd) == 0);
        server_make(&s, INLINE, NULL);
        struct request *all = requests_make(&s, 2, app_until_cut);
        all[0].index = kind;
        all[0].fd[0] = fd[0];
        all[1].app = app_calm;
        int64_t start_ns = pn_clock_mono_ns();
        pthread_create(&t, NULL, cut_from_outside, &all[0]);
        assert_int_equal(server_run(&s, 2), 0);
        pthread_join(t, NULL);
        all_done(all, 2);
        check_raises(&s.py, start_ns);
        assert_int_equal(s.py.home.unraised, 1);
        close(fd[0]);
        close(fd[1]);
        free(all);
        server_free(&s);
    }
}

static void test_a_cut_that_comes_late(void **state)
{
    (void)state;
    scenario_cut_late(INLINE);
    scenario_home_cut_late(INLINE);
}

static void test_stop(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, INLINE, NULL);
    struct request *all = requests_make(&s, 5, app_one_ms);
    struct stopper st;
    stop_in(&st, &s, 5, 50 * MS, 0, 0);
    assert_int_equal(server_run(&s, -1), 0);
    all_done(all, 5);
    assert_int_equal(pn_cores_admit(s.cores, &all[0].job), PN_ADMIT_FULL);
    free(all);
    server_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),  cmocka_unit_test(test_odd_waits),
        cmocka_unit_test(test_wakes),  cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_home),   cmocka_unit_test(test_fork),
        cmocka_unit_test(test_stalls), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_stop),   cmocka_unit_test(test_a_cut_that_comes_late),
    };
    return RUN_TESTS(tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The fiber carrier: the common scenarios, and what only fibers have. */
#include <sys/mman.h>

#include "cores_scenarios_cut.h"

#define FIBERS PN_CARRIER_FIBERS

static void test_hello(void **state)
{
    (void)state;
    scenario_hello(FIBERS);
}

static void test_pipes(void **state)
{
    (void)state;
    scenario_pipes(FIBERS, SCALE(2000));
}

static void test_sleepers(void **state)
{
    (void)state;
    scenario_sleepers(FIBERS, SCALE(4000));
}

static void test_odd_waits(void **state)
{
    (void)state;
    scenario_odd_waits(FIBERS);
}

static void test_wakes(void **state)
{
    (void)state;
    scenario_wakes(FIBERS, 50, SCALE(400));
}

static void test_queue(void **state)
{
    (void)state;
    scenario_queue(FIBERS);
    scenario_queue_timeout(FIBERS);
    scenario_withdraw(FIBERS);
}

static void test_stop(void **state)
{
    (void)state;
    scenario_stop_parked(FIBERS, 100);
    scenario_stop_graceful(FIBERS);
    scenario_give_up(FIBERS);
}

static void test_cut(void **state)
{
    (void)state;
    scenario_cut(FIBERS, 3);
    scenario_cut(FIBERS, 1);
    scenario_cut_twice(FIBERS);
    scenario_cut_seen(FIBERS);
    scenario_cut_fails_the_call(FIBERS);
    scenario_cut_late(FIBERS);
    scenario_home_cut_late(FIBERS);
}

static void test_yield_and_streaming(void **state)
{
    (void)state;
    scenario_yield(FIBERS);
    scenario_streaming(FIBERS);
}

static void test_home(void **state)
{
    (void)state;
    scenario_home(FIBERS);
    scenario_home_waits(FIBERS);
}

static void test_fork(void **state)
{
    (void)state;
    scenario_fork(FIBERS);
}

static void test_stress(void **state)
{
    (void)state;
    scenario_stress(FIBERS, SCALE(400), 50);
    scenario_stress(FIBERS, SCALE(200), 3);
}

/* --- only fibers ------------------------------------------------------------------------------------ */

static void app_identity(struct request *r)
{
    struct pn_core *core = pn_core_self();
    void *base;
    size_t size;
    char *here = __builtin_frame_address(0); /* a local may stand on ASan's fake stack */
    MUST(pn_core_ident(core) != (uintptr_t)pthread_self());
    MUST(pn_core_stack(core, &base, &size));
    MUST(here > (char *)base && here < (char *)base + size);
    MUST(!pn_core_stack(pn_cores_home(r->s->cores), &base, &size));
    MUST(pn_core_ident(pn_cores_home(r->s->cores)) == (uintptr_t)pthread_self());
    unsigned mxcsr = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mxcsr | 0x6000); /* round to zero: its own affair */
    app_sleep((r->index % 5) * MS);
    MUST(__builtin_ia32_stmxcsr() == (mxcsr | 0x6000));
    __builtin_ia32_ldmxcsr(mxcsr);
    MUST(((struct fake_state *)pn_core_state(core))->resumed > 0);
}

static void test_identity(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, FIBERS, NULL);
    struct request *all = requests_make(&s, 20, app_identity);
    assert_int_equal(server_run(&s, 20), 0);
    all_done(all, 20);
    /* A wait in each, and no more fibers than could run at once. */
    assert_true(server_stats(&s).carriers <= 9);
    free(all);
    server_free(&s);
}

__attribute__((noinline)) static void go_deep(void)
{
    volatile char deep[128 << 10];
    for (size_t i = 0; i < sizeof(deep); i += 1024)
        deep[i] = 1;
}

/* Pages of the core's stack that have memory. */
static unsigned stack_pages(const struct pn_core *core)
{
    unsigned char has[64] = {0};
    void *base;
    size_t size;
    unsigned count = 0;
    MUST(pn_core_stack(core, &base, &size) && size <= sizeof(has) * 4096);
    MUST(mincore(base, size, has) == 0);
    for (size_t i = 0; i < size / 4096; i++)
        count += has[i] & 1;
    return count;
}

static void app_trims(struct request *r)
{
    struct pn_core *core = pn_core_self();
    unsigned before = stack_pages(core);
    go_deep();
    MUST(stack_pages(core) >= before + 20);
    pn_core_trim_stack(core);
    r->result = (int)(stack_pages(core) - before);
}

static void test_stack_is_trimmed(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, FIBERS, NULL);
    struct request *all = requests_make(&s, 1, app_trims);
    assert_int_equal(server_run(&s, 1), 0);
    all_done(all, 1);
    assert_true(all[0].result >= 0 && all[0].result <= 2);
    free(all);
    server_free(&s);
}

enum { FETCHED_COUNT = 8 };

static void app_is_fetched(struct request *r)
{
    struct fake_state *st = pn_core_state(pn_core_self());
    int64_t until_ns = (int64_t)r->span_ns + r->index;
    st->fetched = 0;
    r->flag = pn_clock_mono_ns() < r->span_ns;
    DETACHED(st->core, MUST(pn_core_sleep_until(st->core, until_ns) == PN_WAIT_TIMEOUT));
    r->result = (int)st->fetched;
}

/* Whose turn comes later has more asked for. True: all slept before the first woke. */
static bool sleepers_are_fetched(void)
{
    struct server s;
    bool in_time = true;
    server_make(&s, FIBERS, NULL);
    struct request *all = requests_make(&s, FETCHED_COUNT, app_is_fetched);
    int64_t until_ns = pn_clock_mono_ns() + 100 * MS;
    for (int i = 0; i < FETCHED_COUNT; i++)
        all[i].span_ns = until_ns;
    assert_int_equal(server_run(&s, FETCHED_COUNT), 0);
    for (int i = 0; i < FETCHED_COUNT; i++)
        in_time = in_time && all[i].flag;
    for (int i = 0; i < FETCHED_COUNT && in_time; i++)
        assert_int_equal(all[i].result, i == 0 ? 0 : i == 1 ? 8 : i == 2 ? 8 + 4 : 8 + 4 + 2);
    free(all);
    server_free(&s);
    return in_time;
}

static void test_sleepers_are_fetched(void **state)
{
    (void)state;
    while (!sleepers_are_fetched())
        ;
}

/* Two that wake each other in turns must not starve the loop's events. */
static void app_ping(struct request *r)
{
    struct pn_core *core = pn_core_self();
    for (; !atomic_load(&r->flag) && !r->peer->done; r->result++) {
        uint32_t number = pn_core_wait_begin(core);
        atomic_store(&r->number, number);
        struct pn_core *other = atomic_load(&r->peer->core);
        if (other)
            pn_core_unpark(other, atomic_load(&r->peer->number));
        DETACHED(core, pn_core_park(core, number, PN_NEVER_NS));
    }
    if (!r->peer->done)
        pn_core_unpark(atomic_load(&r->peer->core), atomic_load(&r->peer->number));
}

static void app_stops_ping(struct request *r)
{
    /* A slow machine gets as long as it needs; only a loop that stands still never comes here. */
    do
        app_sleep(20 * MS);
    while (r->peer->result < 600 || r->peer->peer->result < 600);
    atomic_store(&r->peer->flag, 1);
    atomic_store(&r->peer->peer->flag, 1);
}

static void test_ping_pong(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, FIBERS, NULL);
    struct request *all = requests_make(&s, 3, app_ping);
    all[0].peer = &all[1];
    all[1].peer = &all[0];
    all[2].peer = &all[0];
    all[2].app = app_stops_ping;
    assert_int_equal(server_run(&s, 3), 0);
    all_done(all, 3);
    assert_true(server_stats(&s).switches > 1000);
    free(all);
    server_free(&s);
}

/* More wakes than one round resumes, and every deadline due as well: a core that is resumed already is
 * not resumed again. */
static void app_parks_briefly(struct request *r)
{
    struct pn_core *core = pn_core_self();
    APP_UNTIL(atomic_load(&r->peer->flag));
    uint32_t number = pn_core_wait_begin(core);
    int rc;
    atomic_store(&r->number, number);
    DETACHED(core, rc = pn_core_park(core, number, r->peer->span_ns));
    MUST(rc == PN_WAIT_READY || rc == PN_WAIT_TIMEOUT);
    r->result++;
}

static void app_wakes_late(struct request *r)
{
    APP_UNTIL(atomic_load(&r->s->seen) == r->s->expected);
    r->span_ns = pn_clock_mono_ns() + 100 * MS;
    atomic_store(&r->flag, 1);
    app_sleep(r->span_ns - 10 * MS - pn_clock_mono_ns());
    while (pn_clock_mono_ns() < r->span_ns + MS)
        ; /* nobody else runs: the deadlines pass */
    for (int i = 1; i <= 200; i++) {
        pn_core_unpark(atomic_load(&r[i].core), atomic_load(&r[i].number));
        MUST(!r[i].core->parked);
    }
}

static void test_resumed_once(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 201;
    server_make(&s, FIBERS, &c);
    struct request *all = requests_make(&s, 201, app_parks_briefly);
    for (int i = 0; i <= 200; i++)
        all[i].peer = &all[0];
    all[0].app = app_wakes_late;
    assert_int_equal(server_run(&s, 201), 0);
    for (int i = 1; i <= 200; i++)
        assert_int_equal(all[i].result, 1);
    free(all);
    server_free(&s);
}

/* Each stay is one, also those of one core that follow each other: within the second in which one stay is reported
 * once. Waiting is none, unless the machine takes the processor away beside it. */
static void app_stalls_and_waits(struct request *r)
{
    const struct fake_state *state = pn_core_state(pn_core_self());
    int64_t first_ns, second_ns;
    int tries = 0, before;
    do {
        MUST(tries++ < 20);
        app_stalls(r);
        first_ns = r->span_ns;
        app_sleep(20 * MS);
        app_stalls(r);
        second_ns = r->span_ns;
    } while (second_ns - first_ns > 900 * MS);
    do {
        MUST(tries++ < 25);
        before = atomic_load(&state->stalled);
        app_sleep(200 * MS);
    } while (atomic_load(&state->stalled) != before);
}

static void test_stall_is_reported(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.log_blocking_ns = 30 * MS;
    server_make(&s, FIBERS, &c);
    struct request *all = requests_make(&s, 10, app_sleeper);
    all[0].app = app_stalls_and_waits;
    assert_int_equal(server_run(&s, 10), 0);
    all_done(all, 10);
    free(all);
    server_free(&s);
}

/* Computes: the loop doesn't turn before the exception has come. */
static void app_computes_until_raised(struct request *r)
{
    struct fake_state *state = pn_core_state(pn_core_self());
    while (!atomic_load(&state->raised))
        DETACHED(pn_core_self(), sched_yield());
    r->result = 1;
}

static void *cut_all_from_outside(void *arg)
{
    struct request *r = arg;
    while (!atomic_load(&r->core))
        usleep(1000);
    usleep(20000);
    pn_cores_cut_all(r->s->cores);
    return NULL;
}

/* As a signal handler does that finds the loop held. Only what is under way then is hit. */
static void test_cut_all(void **state)
{
    (void)state;
    struct server s;
    pthread_t t;
    server_make(&s, FIBERS, NULL);
    struct request *all = requests_make(&s, 5, app_calm);
    all[0].app = app_computes_until_raised;
    pthread_create(&t, NULL, cut_all_from_outside, &all[0]);
    int64_t start_ns = pn_clock_mono_ns();
    assert_int_equal(server_run(&s, 5), 0);
    pthread_join(t, NULL);
    all_done(all, 5);
    assert_int_equal(all[0].result, 1);
    check_raises(&s.py, start_ns);
    free(all);
    server_free(&s);
}

/* It keeps the loop until the watchdog would not wait for who computes any longer. */
static void app_cuts_and_computes(struct request *r)
{
    struct pn_core *core;
    APP_UNTIL((core = atomic_load(&r->peer->core)) && core->parked);
    pn_core_cut(core);
    int64_t end_ns = pn_clock_mono_ns() + 100 * MS;
    DETACHED(pn_core_self(), while (pn_clock_mono_ns() < end_ns) sched_yield());
    r->result = 1;
}

/* The first cut reaches it: a second is due after a second, so that one of a few tries does without on any machine. */
static void test_cut_while_others_compute(void **state)
{
    int raises = 2;
    (void)state;
    for (int i = 0; i < 5 && raises > 1; i++) {
        struct server s;
        server_make(&s, FIBERS, NULL);
        struct request *all = requests_make(&s, 2, app_until_cut);
        all[1].app = app_cuts_and_computes;
        all[1].peer = &all[0];
        assert_int_equal(server_run(&s, 2), 0);
        all_done(all, 2);
        raises = atomic_load(&s.py.raises);
        free(all);
        server_free(&s);
    }
    assert_int_equal(raises, 1);
}

/* When all have come nobody has left. */
static void app_sleeps_with_all(struct request *r)
{
    APP_UNTIL(atomic_load(&r->s->seen) == r->s->expected);
    app_sleeper(r);
}

/* Keeps the loop running until the idle ones have left. */
static void app_sees_them_leave(struct request *r)
{
    APP_UNTIL(atomic_load(&r->s->finished) == r->s->expected - 1);
    APP_UNTIL(r->s->cores->carriers <= PN_CORE_IDLE_KEEP + 2);
}

struct trim_look {
    struct pn_timer before, after; /* due together, so that the loop does not sleep between them */
    struct server *s;
    struct pn_cores *cores;
    unsigned idle_before, idle_after;
    bool owned;
    atomic_bool over;
};

static void set_look(struct trim_look *look)
{
    int64_t when = pn_deadline_ns(pn_loop_now_ns(look->s->loop), 20 * MS);
    MUST(pn_timer_set(look->s->loop, &look->before, when) == 0);
    MUST(pn_timer_set(look->s->loop, &look->after, when + 1) == 0);
}

static void trim_now(struct pn_timer *timer)
{
    struct trim_look *look = pn_container_of(timer, struct trim_look, before);
    if (atomic_load(&look->s->finished) < look->s->expected - 1) {
        set_look(look); /* they still sleep */
        return;
    }
    look->idle_before = look->cores->idle_low = look->cores->idle_count;
    look->cores->trim_due = true;
}

static void look_who_owns(struct pn_timer *timer)
{
    struct trim_look *look = pn_container_of(timer, struct trim_look, after);
    look->idle_after = look->cores->idle_count;
    look->owned = pn_core_owns_loop(pn_core_self());
    atomic_store(&look->over, true);
}

static struct trim_look *the_look;

static void app_until_looked(struct request *r)
{
    (void)r;
    APP_UNTIL(atomic_load(&the_look->over));
}

/* A fiber that has parked before tells idle ones to end, from its base: it still owns the loop then. */
static void test_trimmer_owns_the_loop(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 100;
    server_make(&s, FIBERS, &c);
    struct request *all = requests_make(&s, 51, app_sleeps_with_all);
    all[50].app = app_until_looked;
    struct trim_look look = {.s = &s, .cores = s.cores};
    the_look = &look;
    pn_timer_init(&look.before, trim_now);
    pn_timer_init(&look.after, look_who_owns);
    set_look(&look);
    assert_int_equal(server_run(&s, 51), 0);
    assert_true(look.idle_after < look.idle_before);
    assert_true(look.owned);
    free(all);
    server_free(&s);
}

static void test_idle_fibers_leave(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 300;
    server_make(&s, FIBERS, &c);
    s.cores->trim_span_ns = 20 * MS;
    struct request *all = requests_make(&s, 201, app_sleeps_with_all);
    all[200].app = app_sees_them_leave;
    assert_int_equal(server_run(&s, 201), 0);
    assert_int_equal(atomic_load(&s.py.made), 202);
    /* Their structs and stacks serve again. */
    struct request *more = requests_make(&s, 100, app_sleeper);
    server_again(&s);
    assert_int_equal(server_run(&s, 100), 0);
    all_done(more, 100);
    free(more);
    free(all);
    server_free(&s);
}

/* No state for a new core: the wait blocks for real, N is lowered, and nothing is lost. */
static void test_no_more_states(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 20;
    server_make(&s, FIBERS, &c);
    struct request *all = requests_make(&s, 30, app_odd_waits);
    s.cores->complained = true; /* no line in the tests' output */
    s.cores->all_max = 4;       /* home, and three fibers */
    assert_int_equal(server_run(&s, 30), 0);
    all_done(all, 30);
    assert_true(s.cores->limit <= 3);
    free(all);
    server_free(&s);
}

static void test_state_fails_once(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, FIBERS, NULL);
    s.cores->complained = true;
    struct request *all = requests_make(&s, 1, app_hello);
    atomic_store(&s.py.fail_states, 1);
    s.expected = 1;
    assert_int_equal(pn_cores_run(s.cores), -EAGAIN);
    assert_int_equal(server_run(&s, 1), 0);
    free(all);
    struct request *more = requests_make(&s, 5, app_sleeper);
    atomic_store(&s.py.fail_states, 1); /* the first that waits cannot hand over */
    server_again(&s);
    assert_int_equal(server_run(&s, 5), 0);
    all_done(more, 5);
    free(more);
    server_free(&s);
}

static void test_many_switches(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, FIBERS, NULL);
    struct request *all = requests_make(&s, 8, app_yields);
    assert_int_equal(server_run(&s, 8), 0);
    struct pn_cores_stats st = server_stats(&s);
    assert_true(st.switches >= 8 * 20);
    assert_true(st.waiting == 0);
    free(all);
    server_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_pipes),
        cmocka_unit_test(test_sleepers),
        cmocka_unit_test(test_odd_waits),
        cmocka_unit_test(test_wakes),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_yield_and_streaming),
        cmocka_unit_test(test_home),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_stress),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_stack_is_trimmed),
        cmocka_unit_test(test_sleepers_are_fetched),
        cmocka_unit_test(test_ping_pong),
        cmocka_unit_test(test_resumed_once),
        cmocka_unit_test(test_stall_is_reported),
        cmocka_unit_test(test_cut_all),
        cmocka_unit_test(test_cut_while_others_compute),
        cmocka_unit_test(test_idle_fibers_leave),
        cmocka_unit_test(test_trimmer_owns_the_loop),
        cmocka_unit_test(test_no_more_states),
        cmocka_unit_test(test_state_fails_once),
        cmocka_unit_test(test_many_switches),
    };
    return RUN_TESTS(tests);
}

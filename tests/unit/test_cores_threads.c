/* SPDX-License-Identifier: Apache-2.0 */
/* The thread carrier: the common scenarios, and the baton's life: lease, loans, joint polls, threads
 * that come and go. */
#include "cores_scenarios_cut.h"

#define THREADS PN_CARRIER_THREADS

static void test_hello(void **state)
{
    (void)state;
    scenario_hello(THREADS);
}

static void test_pipes(void **state)
{
    (void)state;
    scenario_pipes(THREADS, SCALE(400));
}

static void test_sleepers(void **state)
{
    (void)state;
    scenario_sleepers(THREADS, SCALE(400));
}

static void test_odd_waits(void **state)
{
    (void)state;
    scenario_odd_waits(THREADS);
}

static void test_wakes(void **state)
{
    (void)state;
    scenario_wakes(THREADS, 20, SCALE(100));
}

static void test_queue(void **state)
{
    (void)state;
    scenario_queue(THREADS);
    scenario_queue_timeout(THREADS);
    scenario_withdraw(THREADS);
}

static void test_stop(void **state)
{
    (void)state;
    scenario_stop_parked(THREADS, 100);
    scenario_stop_graceful(THREADS);
    scenario_give_up(THREADS);
}

static void test_cut(void **state)
{
    (void)state;
    scenario_cut(THREADS, 3);
    scenario_cut(THREADS, 1);
    scenario_cut_twice(THREADS);
    scenario_cut_seen(THREADS);
    scenario_cut_fails_the_call(THREADS);
    scenario_cut_late(THREADS);
    scenario_home_cut_late(THREADS);
}

static void test_yield_and_streaming(void **state)
{
    (void)state;
    scenario_yield(THREADS);
    scenario_streaming(THREADS);
}

static void test_home(void **state)
{
    (void)state;
    scenario_home(THREADS);
    scenario_home_waits(THREADS);
}

static void test_fork(void **state)
{
    (void)state;
    scenario_fork(THREADS);
}

static void test_stress(void **state)
{
    (void)state;
    scenario_stress(THREADS, SCALE(400), 50);
    scenario_stress(THREADS, SCALE(200), 3);
}

/* --- the lease ------------------------------------------------------------------------------------------ */

struct later {
    struct pn_timer timer;
    struct request *r;
};

static void post_later(struct pn_timer *timer)
{
    struct later *l = pn_container_of(timer, struct later, timer);
    request_post(l->r);
}

static void app_computes(struct request *r)
{
    (void)r;
    app_compute(200 * MS);
}

/* Computes until the four others have run, or for a minute. */
static void app_computes_beside(struct request *r)
{
    int64_t end_ns = pn_clock_mono_ns() + 60000 * MS;
    while (atomic_load(&r->flag) < 4) {
        MUST(pn_clock_mono_ns() < end_ns);
        app_compute(2 * MS);
    }
}

/* On a thread that the watchdog has made, which has all signals blocked itself. */
static void app_quick(struct request *r)
{
    sigset_t blocked;
    MUST(pthread_sigmask(SIG_SETMASK, NULL, &blocked) == 0);
    MUST(!sigismember(&blocked, SIGURG) && !sigismember(&blocked, SIGTERM));
    atomic_fetch_add(&r->peer->flag, 1);
}

static void test_lease(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 1, app_computes_beside);
    struct request quick[4];
    struct later later[4];
    for (int i = 0; i < 4; i++) {
        request_init(&quick[i], &s, app_quick);
        quick[i].peer = &all[0];
        later[i].r = &quick[i];
        pn_timer_init(&later[i].timer, post_later);
        pn_timer_set(s.loop, &later[i].timer, pn_clock_mono_ns() + (10 + i * 20) * MS);
    }
    assert_int_equal(server_run(&s, 5), 0);
    for (int i = 0; i < 4; i++)
        assert_true(quick[i].done);
    assert_true(server_stats(&s).steals >= 1);
    free(all);
    server_free(&s);
}

/* Computes until it is robbed; another core seems to be on its way all the time. */
static void app_computes_until_robbed(struct request *r)
{
    struct pn_cores *cores = r->s->cores;
    int64_t end_ns = pn_clock_mono_ns() + 60000 * MS;
    pn__lock_take(&cores->lock);
    cores->coming++;
    pn__lock_drop(&cores->lock);
    while (atomic_load(&cores->steals) == 0) {
        MUST(pn_clock_mono_ns() < end_ns);
        app_compute(2 * MS);
    }
    pn__lock_take(&cores->lock);
    cores->coming--;
    r->result = (int)cores->carriers;
    pn__lock_drop(&cores->lock);
}

/* One that is merely late will take over: no thread is made in its stead. */
static void test_robbed_for_one_that_comes(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 2, app_computes_until_robbed);
    all[1].app = app_hello;
    assert_int_equal(server_run(&s, 2), 0);
    assert_int_equal(all[0].result, 1);
    all_done(all, 2);
    free(all);
    server_free(&s);
}

/* With nothing else to do nobody is robbed. */
static void test_lone_computer(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 1, app_computes);
    assert_int_equal(server_run(&s, 1), 0);
    assert_int_equal(server_stats(&s).steals, 0);
    assert_int_equal(server_stats(&s).carriers, 1);
    free(all);
    server_free(&s);
}

/* --- waits beside the loop --------------------------------------------------------------------------------- */

static void app_lone_waits(struct request *r)
{
    for (int i = 0; i < 5; i++)
        MUST(app_sleep(5 * MS) == PN_WAIT_TIMEOUT);
    MUST(app_wait_fd(r->fd[0], EPOLLIN, 5 * MS) == PN_WAIT_TIMEOUT);
    MUST(write(r->fd[1], "x", 1) == 1);
    MUST(app_wait_fd(r->fd[0], EPOLLIN, -1) == PN_WAIT_READY);
    struct pn_core *core = pn_core_self();
    bool offered;
    DETACHED(core, offered = pn_core_block_begin(core, r->fd[0], EPOLLIN));
    MUST(!offered);
    MUST(pn__baton_is(&core->cores->baton, core->number, PN__BATON_INSIDE));
}

/* One request alone never gives the loop away: the first thread is the only one. */
static void test_lone_waits(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 1, app_lone_waits);
    MUST(pipe(all[0].fd) == 0);
    assert_int_equal(server_run(&s, 1), 0);
    struct pn_cores_stats st = server_stats(&s);
    assert_int_equal(st.waits, 0);
    assert_int_equal(st.carriers, 1);
    assert_int_equal(st.switches, 2); /* to the thread, and back to home */
    close(all[0].fd[0]);
    close(all[0].fd[1]);
    free(all);
    server_free(&s);
}

static void app_blocks(struct request *r)
{
    struct pn_core *core = pn_core_self();
    struct pollfd p = {.fd = r->fd[0], .events = POLLIN};
    fake_detach(&r->s->py, pn_core_state(core));
    MUST(pn_core_block_begin(core, r->fd[0], EPOLLIN));
    /* The last of them lets all go. */
    if (atomic_fetch_add(&r->peer->flag, 1) == 7)
        MUST(write(r->fd[1], "x", 1) == 1);
    MUST(poll(&p, 1, 60000) == 1);
    pn_core_block_end(core);
    fake_attach(&r->s->py, pn_core_state(core));
}

/* The very same call blocks, and the loop goes on in another thread meanwhile. */
static void test_really_blocking(void **state)
{
    (void)state;
    struct server s;
    int fd[2];
    MUST(pipe(fd) == 0);
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 8, app_blocks);
    for (int i = 0; i < 8; i++) {
        all[i].fd[0] = fd[0];
        all[i].fd[1] = fd[1];
        all[i].peer = &all[0];
    }
    assert_int_equal(server_run(&s, 8), 0);
    all_done(all, 8);
    close(fd[0]);
    close(fd[1]);
    free(all);
    server_free(&s);
}

static void app_interrupted(struct request *r)
{
    r->result = app_wait_fd(r->fd[0], EPOLLIN, 60000 * MS);
    atomic_store(&r->flag, 1);
}

static void on_signal(int signo)
{
    (void)signo;
}

static void *send_signal(void *arg)
{
    struct request *r = arg;
    struct pn_core *core;
    while (!(core = atomic_load(&r->core)))
        usleep(1000);
    /* Until it has an effect: it may not wait yet. */
    while (!atomic_load(&r->flag)) {
        pthread_kill(core->os_thread, SIGUSR2);
        usleep(5000);
    }
    return NULL;
}

static void test_signal_interrupts(void **state)
{
    (void)state;
    struct server s;
    int fd[2];
    pthread_t t;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR2, &sa, NULL);
    MUST(pipe(fd) == 0);
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 1, app_interrupted);
    all[0].fd[0] = fd[0];
    pthread_create(&t, NULL, send_signal, &all[0]);
    assert_int_equal(server_run(&s, 1), 0);
    pthread_join(t, NULL);
    assert_int_equal(all[0].result, PN_WAIT_INTERRUPTED);
    close(fd[0]);
    close(fd[1]);
    free(all);
    server_free(&s);
}

static void *poke_late(void *arg)
{
    struct pn_core *core = arg;
    usleep(50000);
    pthread_kill(core->os_thread, SIGUSR2);
    atomic_store(&core->poking, false);
    return NULL;
}

/* As the watchdog found it waiting, and ends that wait while it has ended already. */
static void app_is_poked(struct request *r)
{
    struct pn_core *core = pn_core_self();
    pthread_t t;
    atomic_store(&core->poking, true);
    atomic_store(&core->cut_wait, true);
    pthread_create(&t, NULL, poke_late, core);
    MUST(app_sleep(3600 * PN_NS_PER_SEC) == PN_WAIT_CUT);
    r->result = app_sleep(300 * MS);
    pthread_join(t, NULL);
}

/* The signal that ends a wait must not end the clean-up's. */
static void test_a_poke_under_way_is_waited_out(void **state)
{
    (void)state;
    struct server s;
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR2, &sa, NULL);
    server_make(&s, THREADS, NULL);
    struct request *all = requests_make(&s, 1, app_is_poked);
    assert_int_equal(server_run(&s, 1), 0);
    assert_int_equal(all[0].result, PN_WAIT_TIMEOUT);
    free(all);
    server_free(&s);
}

/* --- threads that come and go -------------------------------------------------------------------------------- */

static unsigned carriers_now(struct pn_cores *cores)
{
    pn__lock_take(&cores->lock);
    unsigned n = cores->carriers;
    pn__lock_drop(&cores->lock);
    return n;
}

/* Stays until those who were there for the others have left. */
static void app_sees_them_leave(struct request *r)
{
    APP_UNTIL(atomic_load(&r->s->finished) == 50);
    APP_UNTIL(carriers_now(r->s->cores) <= PN_CORE_IDLE_KEEP + 2);
}

static void test_idle_threads_leave(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 60;
    server_make(&s, THREADS, &c);
    s.cores->idle_span_ns = 20 * MS;
    struct request *all = requests_make(&s, 51, app_joint_sleeper);
    all[50].app = app_sees_them_leave;
    assert_int_equal(server_run(&s, 51), 0);
    assert_true(atomic_load(&s.py.made) > 25);
    struct request *more = requests_make(&s, 50, app_sleeper);
    server_again(&s);
    assert_int_equal(server_run(&s, 50), 0);
    all_done(more, 50);
    free(more);
    free(all);
    server_free(&s);
}

/* pthread_create fails from some point on: N is lowered, and nothing is lost. */
static void test_no_more_threads(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 20;
    server_make(&s, THREADS, &c);
    s.cores->complained = false;
    s.cores->config.stack_size = (size_t)1 << 46; /* one thread exists; no other can */
    struct request *all = requests_make(&s, 30, app_odd_waits);
    s.cores->complained = true; /* no line in the tests' output */
    assert_int_equal(server_run(&s, 30), 0);
    all_done(all, 30);
    assert_int_equal(server_stats(&s).carriers, 1);
    assert_int_equal(s.cores->limit, 1);
    free(all);
    server_free(&s);
}

static void test_no_first_thread(void **state)
{
    (void)state;
    struct pn_cores_config c = test_config;
    c.carrier = THREADS;
    c.stack_size = (size_t)1 << 46;
    struct pn_loop *loop = pn_loop_create(pn_poller_epoll_create());
    assert_null(pn_cores_create(loop, &c));
    assert_true(errno == EAGAIN || errno == ENOMEM);
    assert_null(pn_core_self());
    pn_loop_destroy(loop);
}

/* The host has no states for new threads for a while. */
static void test_states_fail(void **state)
{
    (void)state;
    struct server s;
    server_make(&s, THREADS, NULL);
    s.cores->complained = true;
    struct request *all = requests_make(&s, 20, app_sleeper);
    atomic_store(&s.py.fail_states, 3);
    assert_int_equal(server_run(&s, 20), 0);
    all_done(all, 20);
    free(all);
    server_free(&s);
}

/* Without a host, where nothing but the baton serialises: loans are really fought for. */
struct bare {
    struct pn_cores *cores;
    struct pn_loop *loop;
    struct pn_task task[64];
    int64_t counter;
    int left;
};
static struct bare *bare_server;

static void bare_request(struct pn_task *task)
{
    struct bare *b = bare_server;
    struct pn_core *core = pn_core_self();
    struct pn_job job = {0};
    MUST(pn_cores_admit(b->cores, &job) == PN_ADMIT_RUN);
    unsigned seed = (unsigned)(task - b->task);
    for (int i = 0; i < 50; i++) {
        pn_core_enter_app(core);
        pn_core_sleep_until(core, pn_clock_mono_ns() + (rand_r(&seed) % 300) * PN_NS_PER_US);
        pn_core_leave_app(core);
        b->counter++;
    }
    pn_cores_done(b->cores);
    if (--b->left == 0)
        pn_loop_stop(b->loop);
}

static void test_without_host(void **state)
{
    (void)state;
    struct pn_cores_config c = test_config;
    struct bare b = {.left = 64};
    bare_server = &b;
    c.carrier = THREADS;
    c.count = 64;
    c.lease_ns = MS;
    b.loop = pn_loop_create(pn_poller_epoll_create());
    b.cores = pn_cores_create(b.loop, &c);
    for (int i = 0; i < 64; i++) {
        pn_task_init(&b.task[i], bare_request);
        pn_task_post(b.loop, &b.task[i]);
    }
    assert_int_equal(pn_cores_run(b.cores), 0);
    assert_int_equal(b.counter, 64 * 50);
    pn_cores_destroy(b.cores);
    pn_loop_destroy(b.loop);
}

/* --- sleepers and the baton ------------------------------------------------------------------------------ */

static bool has_baton(void)
{
    const struct pn_core *core = pn_core_self();
    return pn__baton_is(&core->cores->baton, core->number, PN__BATON_INSIDE);
}

static void app_wakes_with_baton(struct request *r)
{
    MUST(has_baton());
    for (int i = 0; i < 3; i++) {
        int64_t t0 = pn_clock_mono_ns();
        MUST(app_sleep((5 + (r->index + i) % 7) * MS) == PN_WAIT_TIMEOUT);
        MUST(pn_clock_mono_ns() - t0 >= 5 * MS);
        r->result += has_baton();
    }
}

/* Nobody wakes to queue: whose time is over goes on where the loop was, however late the others let it. */
static void test_sleepers_wake_with_the_baton(void **state)
{
    (void)state;
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 40;
    c.lease_ns = 60 * PN_NS_PER_SEC; /* nobody is robbed on a busy machine */
    server_make(&s, THREADS, &c);
    struct request *all = requests_make(&s, 40, app_wakes_with_baton);
    assert_int_equal(server_run(&s, 40), 0);
    for (int i = 0; i < 40; i++)
        assert_int_equal(all[i].result, 3);
    assert_int_equal(server_stats(&s).rechecks_needed, 0);
    free(all);
    server_free(&s);
}

static void app_computes_a_little(struct request *r)
{
    (void)r;
    app_compute(4 * MS);
}

static void app_sleeps_beside_them(struct request *r)
{
    MUST(app_sleep(10 * MS) == PN_WAIT_TIMEOUT);
    r->result = atomic_load(&r->s->finished);
}

/* No stay is longer than the lease, and no timer is due before the turn has come through. */
static void test_a_long_turn_lets_sleepers_go_on(void **state)
{
    (void)state;
    struct server s;
    struct request sleeper;
    server_make(&s, THREADS, NULL);
    request_init(&sleeper, &s, app_sleeps_beside_them);
    request_post(&sleeper);
    struct request *all = requests_make(&s, 200, app_computes_a_little);
    assert_int_equal(server_run(&s, 201), 0);
    assert_true(sleeper.result < 100);
    free(all);
    server_free(&s);
}

static void app_sleeps_twice(struct request *r)
{
    if (r->index != 0)
        pn_core_cut(atomic_load(&r->peer->core));
    /* Once more where the cut was late, on a busy machine. */
    while (r->index == 0 && app_sleep(50 * MS) != PN_WAIT_CUT)
        ;
    MUST(app_sleep(100 * MS) == PN_WAIT_TIMEOUT);
    MUST(app_sleep(MS) == PN_WAIT_TIMEOUT);
}

/* The timer of a sleep that was cut comes later, while its core sleeps again. */
static void test_stale_timers(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        struct server s;
        struct pn_cores_config c = test_config;
        c.lease_ns = 60 * PN_NS_PER_SEC;
        server_make(&s, THREADS, &c);
        struct request *all = requests_make(&s, 2, app_sleeps_twice);
        all[1].peer = &all[0];
        assert_int_equal(server_run(&s, 2), 0);
        all_done(all, 2);
        free(all);
        server_free(&s);
    }
}

/* Home became due just before a sleeper was given the baton. */
static void app_sleeps_while_home_is_due(struct request *r)
{
    struct pn_core *core = pn_core_self();
    pn_core_leave_app(core);
    atomic_store(&home_of_requests->due, 1);
    r->s->cores->home_due = true;
    pn_core_enter_app(core);
    APP_UNTIL(atomic_load(&home_of_requests->due) == 0);
}

static void test_home_is_due_beside_a_sleeper(void **state)
{
    (void)state;
    struct server s;
    struct home_test h = {.s = &s};
    server_make(&s, THREADS, NULL);
    const struct pn_home_work work = {home_pending_test, home_step_test, &h, 4};
    pn_cores_set_home_work(s.cores, &work);
    home_of_requests = &h;
    struct request *r = requests_make(&s, 1, app_sleeps_while_home_is_due);
    assert_int_equal(server_run(&s, 1), 0);
    assert_int_equal(h.steps, 1);
    free(r);
    server_free(&s);
}

/* --- A successor that is taken back -------------------------------------------------------------------- */

/* The watchdog has found a successor for a core that computes. That core waits before it is robbed, and calls
 * nobody, since somebody is coming; and then the successor is taken back. */
struct taken_back {
    struct pn_cores *cores;
    struct pn_core *next; /* NULL: none could be made after all */
};

static void *takes_back(void *arg)
{
    const struct taken_back *t = arg;
    while (pn__baton_state_of(pn__baton_load(&t->cores->baton)) != PN__BATON_FREE)
        sched_yield();
    if (t->next) {
        pn__threads_push_back(t->next);
    } else {
        pn__lock_take(&t->cores->lock);
        t->cores->coming--;
        pn__lock_drop(&t->cores->lock);
    }
    return NULL;
}

static void app_waits_for_its_peer(struct request *r)
{
    struct taken_back t = {.cores = r->s->cores};
    pthread_t thread;
    if (r->index != 0)
        return;
    if (t.cores->config.lease_ns > PN_NS_PER_SEC) {
        MUST(pn__threads_find(t.cores, &t.next) && t.next);
    } else {
        pn__lock_take(&t.cores->lock);
        t.cores->coming++;
        pn__lock_drop(&t.cores->lock);
    }
    MUST(pthread_create(&thread, NULL, takes_back, &t) == 0);
    APP_UNTIL(atomic_load(&r->s->finished) == 1);
    pthread_join(thread, NULL);
}

static void taken_back(int64_t lease_ns)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.lease_ns = lease_ns;
    server_make(&s, THREADS, &c);
    struct request *all = requests_make(&s, 2, app_waits_for_its_peer);
    assert_int_equal(server_run(&s, 2), 0);
    free(all);
    server_free(&s);
}

static void test_a_successor_is_taken_back(void **state)
{
    (void)state;
    taken_back(60 * PN_NS_PER_SEC);
}

/* Nobody is idle and nobody could be made: the watchdog tries again. */
static void test_no_successor_after_all(void **state)
{
    (void)state;
    taken_back(10 * MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sleepers_wake_with_the_baton),
        cmocka_unit_test(test_a_long_turn_lets_sleepers_go_on),
        cmocka_unit_test(test_stale_timers),
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
        cmocka_unit_test(test_lease),
        cmocka_unit_test(test_robbed_for_one_that_comes),
        cmocka_unit_test(test_lone_computer),
        cmocka_unit_test(test_lone_waits),
        cmocka_unit_test(test_really_blocking),
        cmocka_unit_test(test_signal_interrupts),
        cmocka_unit_test(test_a_poke_under_way_is_waited_out),
        cmocka_unit_test(test_home_is_due_beside_a_sleeper),
        cmocka_unit_test(test_a_successor_is_taken_back),
        cmocka_unit_test(test_no_successor_after_all),
        cmocka_unit_test(test_idle_threads_leave),
        cmocka_unit_test(test_no_more_threads),
        cmocka_unit_test(test_no_first_thread),
        cmocka_unit_test(test_states_fail),
        cmocka_unit_test(test_without_host),
    };
    return RUN_TESTS(tests);
}

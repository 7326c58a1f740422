/* SPDX-License-Identifier: Apache-2.0 */
/* What every carrier that can wait in more than one request must do alike: threads and fibers run the
 * same scenarios. */
#pragma once

#include "cores_test.h"

/* Smaller under sanitizers, which take ten times as long. */
#define SCALE(n) ((PN_TSAN || PN_ASAN) ? (n) / 4 : (n))

/* Nobody is robbed, also where the machine takes its processor away for long. */
#define LONG_LEASE_NS (3600 * PN_NS_PER_SEC)

static struct request *requests_make(struct server *s, int n, void (*app)(struct request *))
{
    struct request *all = calloc((size_t)n, sizeof(*all));
    for (int i = 0; i < n; i++) {
        request_init(&all[i], s, app);
        all[i].index = i;
        request_post(&all[i]);
    }
    return all;
}

static void all_done(const struct request *all, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(all[i].done);
}

/* --- hello: nothing waits ------------------------------------------------------------------------ */

static PN_UNUSED void app_hello(struct request *r)
{
    r->result = 1;
}

static PN_UNUSED void scenario_hello(enum pn_carrier carrier)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.lease_ns = LONG_LEASE_NS;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, 300, app_hello);
    assert_int_equal(server_run(&s, 300), 0);
    all_done(all, 300);
    struct pn_cores_stats st = server_stats(&s);
    assert_int_equal(st.waits, 0);
    assert_int_equal(st.under_way, 0);
    assert_int_equal(s.inside_peak, 1);
    assert_int_equal(st.carriers, 1);
    free(all);
    server_free(&s);
}

/* --- pipes: a thread answers in random order -------------------------------------------------------- */

static PN_UNUSED void app_pipe(struct request *r)
{
    char c = 0;
    do {
        r->result = app_wait_fd(r->fd[0], EPOLLIN, -1);
        MUST(r->result == PN_WAIT_READY);
    } while (read(r->fd[0], &c, 1) < 0 && errno == EAGAIN);
    MUST(c == 'x');
}

struct writer {
    struct request *all;
    int n;
};

static void *write_all(void *arg)
{
    struct writer *w = arg;
    unsigned seed = 7;
    int left = w->n;
    usleep(20000);
    while (left > 0) {
        int i = rand_r(&seed) % w->n;
        if (w->all[i].fd[1] < 0)
            continue;
        MUST(write(w->all[i].fd[1], "x", 1) == 1);
        w->all[i].fd[1] = -w->all[i].fd[1];
        left--;
    }
    return NULL;
}

static PN_UNUSED void scenario_pipes(enum pn_carrier carrier, int n)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = (unsigned)n;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, n, app_pipe);
    for (int i = 0; i < n; i++)
        MUST(pipe2(all[i].fd, O_NONBLOCK) == 0);
    struct writer w = {all, n};
    pthread_t t;
    pthread_create(&t, NULL, write_all, &w);
    assert_int_equal(server_run(&s, n), 0);
    pthread_join(t, NULL);
    all_done(all, n);
    for (int i = 0; i < n; i++) {
        close(all[i].fd[0]);
        close(-all[i].fd[1]);
    }
    assert_true(server_stats(&s).carriers <= (unsigned)n + 1);
    free(all);
    server_free(&s);
}

/* --- sleepers ------------------------------------------------------------------------------------------ */

static PN_UNUSED void app_sleeper(struct request *r)
{
    int64_t t0 = pn_clock_mono_ns();
    int64_t span = (20 + r->index % 30) * MS;
    MUST(app_sleep(span) == PN_WAIT_TIMEOUT);
    MUST(pn_clock_mono_ns() - t0 >= span);
}

/* Nobody leaves before half of them were in at once, however slow the machine is. */
static PN_UNUSED void app_joint_sleeper(struct request *r)
{
    struct server *s = r->s;
    do
        app_sleeper(r);
    while (atomic_load(&s->inside) <= s->expected / 2 && atomic_load(&s->finished) == 0);
}

static PN_UNUSED void scenario_sleepers(enum pn_carrier carrier, int n)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = (unsigned)n;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, n, app_joint_sleeper);
    assert_int_equal(server_run(&s, n), 0);
    all_done(all, n);
    assert_true(s.inside_peak > n / 2);
    struct pn_cores_stats st = server_stats(&s);
    assert_true(st.carriers <= (unsigned)n + 1);
    assert_true(st.waits >= (unsigned)n - 1);
    free(all);
    server_free(&s);
}

/* --- odd waits ----------------------------------------------------------------------------------------- */

static PN_UNUSED void app_odd_waits(struct request *r)
{
    struct pn_core *core = pn_core_self();
    int fd[2];
    MUST(pipe(fd) == 0);
    int64_t t0 = pn_clock_mono_ns();
    MUST(app_wait_fd(fd[0], EPOLLIN, 30 * MS) == PN_WAIT_TIMEOUT);
    MUST(pn_clock_mono_ns() - t0 >= 30 * MS);
    MUST(app_wait_fd(fd[0], EPOLLIN, 0) == PN_WAIT_TIMEOUT);
    MUST(app_wait_fd(fd[1], EPOLLOUT, -1) == PN_WAIT_READY);
    close(fd[1]);
    MUST(app_wait_fd(fd[0], EPOLLIN, -1) == PN_WAIT_READY); /* HUP counts */
    close(fd[0]);
    MUST(app_wait_fd(fd[0], EPOLLIN, -1) == -EBADF);
    MUST(app_wait_fd(-1, EPOLLIN, -1) == -EBADF);
    int file = open("/proc/self/exe", O_RDONLY);
    MUST(app_wait_fd(file, EPOLLIN, -1) == PN_WAIT_READY);
    close(file);
    uint32_t number = pn_core_wait_begin(core);
    int rc;
    DETACHED(core, rc = pn_core_park(core, number, pn_clock_mono_ns() + 10 * MS));
    MUST(rc == PN_WAIT_TIMEOUT);
    number = pn_core_wait_begin(core);
    pn_core_unpark(core, number - 1);
    DETACHED(core, rc = pn_core_park(core, number, pn_clock_mono_ns() + 10 * MS));
    MUST(rc == PN_WAIT_TIMEOUT);
    number = pn_core_wait_begin(core);
    pn_core_unpark(core, number);
    DETACHED(core, rc = pn_core_park(core, number, PN_NEVER_NS));
    MUST(rc == PN_WAIT_READY);
    pn_core_unpark(core, number); /* over */
    MUST(app_sleep(-1) == PN_WAIT_TIMEOUT);
    r->result = 1;
}

static PN_UNUSED void scenario_odd_waits(enum pn_carrier carrier)
{
    struct server s;
    server_make(&s, carrier, NULL);
    struct request *all = requests_make(&s, 1, app_odd_waits);
    assert_int_equal(server_run(&s, 1), 0);
    all_done(all, 1);
    free(all);
    server_free(&s);
}

/* --- wakes from another thread, and stale ones --------------------------------------------------------- */

static PN_UNUSED void app_park(struct request *r)
{
    struct pn_core *core = pn_core_self();
    for (int i = 0; i < r->index; i++) {
        uint32_t number = pn_core_wait_begin(core);
        atomic_store(&r->number, number);
        atomic_store(&r->flag, 1); /* the reason to wait */
        int rc;
        do {
            DETACHED(core, rc = pn_core_park(core, number, PN_NEVER_NS));
            MUST(rc == PN_WAIT_READY);
            /* A wake only comes for this number, after the flag. */
            MUST(atomic_load(&r->flag) == 0);
        } while (atomic_load(&r->flag));
        if (i % 7 == 0)
            app_sleep(MS / 10);
    }
    atomic_store(&r->flag, 2);
}

static void *wake_all(void *arg)
{
    struct writer *w = arg;
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < w->n; i++) {
            struct request *r = &w->all[i];
            int flag = atomic_load(&r->flag);
            more = more || flag != 2;
            struct pn_core *core = atomic_load(&r->core);
            if (!core)
                continue;
            uint32_t number = atomic_load(&r->number);
            pn_core_unpark(core, number - 1); /* stale */
            if (flag != 1)
                continue;
            atomic_store(&r->flag, 0);
            pn_core_unpark(core, number);
            pn_core_unpark(core, number); /* once is enough */
        }
    }
    return NULL;
}

static PN_UNUSED void scenario_wakes(enum pn_carrier carrier, int n, int times)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = (unsigned)n;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, n, app_park);
    for (int i = 0; i < n; i++)
        all[i].index = times;
    struct writer w = {all, n};
    pthread_t t;
    pthread_create(&t, NULL, wake_all, &w);
    assert_int_equal(server_run(&s, n), 0);
    pthread_join(t, NULL);
    all_done(all, n);
    free(all);
    server_free(&s);
}

/* --- the queue ----------------------------------------------------------------------------------------- */

static atomic_int order;

static PN_UNUSED void app_ordered(struct request *r)
{
    r->result = atomic_fetch_add(&order, 1);
    APP_UNTIL(atomic_load(&r->s->seen) == r->s->expected);
}

static PN_UNUSED void scenario_queue(enum pn_carrier carrier)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 2;
    c.queue_max = 5;
    c.lease_ns = LONG_LEASE_NS;
    server_make(&s, carrier, &c);
    atomic_store(&order, 0);
    struct request *all = requests_make(&s, 10, app_ordered);
    assert_int_equal(server_run(&s, 10), 0);
    assert_int_equal(s.refused, 3);
    assert_int_equal(s.inside_peak, 2);
    struct pn_cores_stats st = server_stats(&s);
    assert_int_equal(st.queued, 5);
    assert_int_equal(st.queue_length, 0);
    assert_true(st.carriers <= 3);
    for (int i = 0; i < 7; i++)
        assert_int_equal(all[i].result, i);
    free(all);
    server_free(&s);
}

/* Stays until all the others have waited too long. */
static PN_UNUSED void app_outlasts(struct request *r)
{
    APP_UNTIL(atomic_load(&r->s->dropped) == r->s->expected - 1);
}

static PN_UNUSED void scenario_queue_timeout(enum pn_carrier carrier)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 1;
    c.queue_timeout_ns = 20 * MS;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, 100, app_outlasts);
    assert_int_equal(server_run(&s, 100), 0);
    assert_int_equal(atomic_load(&s.finished), 1);
    assert_int_equal(atomic_load(&s.dropped), 99);
    free(all);
    server_free(&s);
}

static void withdraw_now(struct pn_task *task)
{
    struct request *r = pn_container_of(task, struct request, task);
    pn_cores_withdraw(r->s->cores, &r->peer->job);
    pn_cores_withdraw(r->s->cores, &r->peer->job);
    r->s->refused++;
    atomic_store(&r->flag, 1);
}

static PN_UNUSED void app_until_flag(struct request *r)
{
    APP_UNTIL(atomic_load(&r->peer->flag));
}

static PN_UNUSED void scenario_withdraw(enum pn_carrier carrier)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 1;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, 3, app_until_flag);
    struct request helper;
    request_init(&helper, &s, NULL);
    helper.peer = &all[1];
    for (int i = 0; i < 3; i++)
        all[i].peer = &helper;
    pn_task_init(&helper.task, withdraw_now);
    request_post(&helper);
    assert_int_equal(server_run(&s, 3), 0);
    assert_true(all[0].done && !all[1].done && all[2].done);
    free(all);
    server_free(&s);
}

/* --- cuts and the end ------------------------------------------------------------------------------------ */

struct stopper {
    struct pn_timer timer;
    struct server *s;
    int seen; /* not before so many requests came */
    int64_t grace_ns, hard_ns;
};

static void stop_now(struct pn_timer *timer)
{
    struct stopper *st = pn_container_of(timer, struct stopper, timer);
    if (atomic_load(&st->s->seen) < st->seen) {
        MUST(pn_timer_set(st->s->loop, timer, pn_clock_mono_ns() + MS) == 0);
        return;
    }
    pn_cores_stop(st->s->cores, st->grace_ns, st->hard_ns);
    pn_loop_stop(st->s->loop);
    atomic_store(&st->s->stopped, true);
}

/* SPAN_NS from now, but not before SEEN requests have come. */
static void stop_in(struct stopper *st, struct server *s, int seen, int64_t span_ns,
                    int64_t grace_ns, int64_t hard_ns)
{
    *st = (struct stopper){.s = s, .seen = seen, .grace_ns = grace_ns, .hard_ns = hard_ns};
    pn_timer_init(&st->timer, stop_now);
    MUST(pn_timer_set(s->loop, &st->timer, pn_clock_mono_ns() + span_ns) == 0);
}

/* The exception has been raised before, or comes while it computes. */
static PN_UNUSED void app_until_cut(struct request *r)
{
    struct pn_core *core = pn_core_self();
    struct fake_state *state = pn_core_state(core);
    int rc = 0;
    switch (r->index % 4) {
    case 0:
        rc = app_sleep(3600 * PN_NS_PER_SEC);
        break;
    case 1:
        rc = app_wait_fd(r->fd[0], EPOLLIN, -1);
        break;
    case 2: {
        uint32_t number = pn_core_wait_begin(core);
        DETACHED(core, rc = pn_core_park(core, number, PN_NEVER_NS));
        break;
    }
    case 3:
        while (!atomic_load(&state->raised))
            app_sleep(MS);
        rc = PN_WAIT_CUT;
        break;
    }
    MUST(rc == PN_WAIT_CUT);
    MUST(atomic_load(&state->raised) > 0);
    MUST(pn_core_is_cut(core));
    if (r->index % 4 == 3)
        return;
    /* Its "finally" may wait: nothing of this cut is left for it. A second later the next cut comes. */
    rc = app_sleep(2 * MS);
    MUST(rc == PN_WAIT_TIMEOUT || (rc == PN_WAIT_CUT && atomic_load(&state->raised) > 1));
}

static PN_UNUSED void scenario_stop_parked(enum pn_carrier carrier, int n)
{
    struct server s;
    struct pn_cores_config c = test_config;
    int fd[2];
    MUST(pipe(fd) == 0);
    c.count = (unsigned)n;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, n, app_until_cut);
    for (int i = 0; i < n; i++)
        all[i].fd[0] = fd[0];
    struct stopper st;
    stop_in(&st, &s, n, 50 * MS, 30 * MS, 60 * PN_NS_PER_SEC);
    assert_int_equal(server_run(&s, -1), 0);
    all_done(all, n);
    close(fd[0]);
    close(fd[1]);
    free(all);
    server_free(&s);
}

static PN_UNUSED void app_until_stopped(struct request *r)
{
    APP_UNTIL(atomic_load(&r->s->stopped));
    app_sleep(20 * MS);
}

/* Queued requests are dropped at the end, those under way finish in the grace time. */
static PN_UNUSED void scenario_stop_graceful(enum pn_carrier carrier)
{
    struct server s;
    struct pn_cores_config c = test_config;
    c.count = 2;
    server_make(&s, carrier, &c);
    struct request *all = requests_make(&s, 200, app_until_stopped);
    struct stopper st;
    stop_in(&st, &s, 200, 10 * MS, 60 * PN_NS_PER_SEC, PN_NS_PER_SEC);
    assert_int_equal(server_run(&s, -1), 0);
    assert_int_equal(atomic_load(&s.finished), 2);
    assert_int_equal(atomic_load(&s.dropped), 198);
    assert_int_equal(atomic_load(&s.py.raises), 0);
    assert_int_equal(pn_cores_admit(s.cores, &all[5].job), PN_ADMIT_FULL);
    free(all);
    server_free(&s);
}

static PN_UNUSED void app_stubborn(struct request *r)
{
    (void)r;
    for (;;)
        app_sleep(3600 * PN_NS_PER_SEC);
}

/* The watchdog goes on behind a server that gave up: it may be slower than the hard deadline was. */
static bool raised_at_last(struct server *s, int times)
{
    for (int i = 0; i < 60000 && atomic_load(&s->py.raises) < times; i++) {
        gil_drop(&s->py, &s->py.home);
        usleep(1000);
        gil_take(&s->py, &s->py.home);
    }
    return atomic_load(&s->py.raises) >= times;
}

/* In a child, since a server that gave up can't be freed. */
static PN_UNUSED void scenario_give_up(enum pn_carrier carrier)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct server s;
        server_make(&s, carrier, NULL);
        struct request *all = requests_make(&s, 3, app_stubborn);
        (void)all;
        struct stopper st;
        stop_in(&st, &s, 3, 20 * MS, 20 * MS, 100 * MS);
        int rc = server_run(&s, -1);
        bool raised = raised_at_last(&s, 3);
        pn_cores_destroy(s.cores); /* leaves all as it is */
        _exit(rc == -ETIMEDOUT && raised ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* --- yield, streaming -------------------------------------------------------------------------------------- */

static PN_UNUSED void app_yields(struct request *r)
{
    struct pn_core *core = pn_core_self();
    for (int i = 0; i < 20; i++) {
        errno = 4242;
        DETACHED(core, pn_core_yield(core));
        MUST(pn_core_self() == core);
    }
    r->result = atomic_fetch_add(&order, 1);
}

static PN_UNUSED void scenario_yield(enum pn_carrier carrier)
{
    struct server s;
    server_make(&s, carrier, NULL);
    atomic_store(&order, 0);
    struct request *all = requests_make(&s, 8, app_yields);
    assert_int_equal(server_run(&s, 8), 0);
    all_done(all, 8);
    free(all);
    server_free(&s);
}

static void count_call(void *arg)
{
    struct request *r = arg;
    MUST(pn_core_owns_loop(pn_core_self()));
    r->result += 1000;
}

/* Writes, waits, writes ...: owns the loop in between, mostly on loan. */
static PN_UNUSED void app_streams(struct request *r)
{
    struct pn_core *core = pn_core_self();
    pn_core_on_overtaken(core, count_call, r);
    for (int i = 0; i < 20; i++) {
        app_sleep((r->index % 3) * MS);
        pn_core_leave_app(core);
        MUST(pn_core_owns_loop(core));
        MUST(pn_core_cores(core)->under_way > 0);
        r->result++;
        pn_core_enter_app(core);
        MUST(!pn_core_owns_loop(core));
    }
}

static PN_UNUSED void scenario_streaming(enum pn_carrier carrier)
{
    struct server s;
    server_make(&s, carrier, NULL);
    struct request *all = requests_make(&s, 40, app_streams);
    assert_int_equal(server_run(&s, 40), 0);
    int overtaken = 0;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(all[i].result % 1000, 20);
        assert_true(all[i].result / 1000 <= 1); /* said once at most */
        overtaken += all[i].result / 1000;
    }
    assert_true(overtaken > 0);
    free(all);
    server_free(&s);
}

/* --- home -------------------------------------------------------------------------------------------------- */

struct home_test {
    struct server *s;
    atomic_int due; /* the watchdog reads it too */
    int steps;
    int waits;
    int64_t wait_ns;
    int outlasts; /* wait on until so many requests have ended */
    bool in_step;
};

static bool home_pending_test(void *ctx)
{
    struct home_test *h = ctx;
    return atomic_load(&h->due) > 0;
}

static void home_step_test(void *ctx)
{
    struct home_test *h = ctx;
    struct pn_core *core = pn_core_self();
    MUST(core == pn_cores_home(h->s->cores));
    MUST(pn_core_owns_loop(core) && !h->in_step);
    MUST(pn_core_attached(core));
    atomic_fetch_sub(&h->due, 1);
    h->steps++;
    h->in_step = true;
    pn_core_enter_app(core);
    if (h->steps % 10 == 0) {
        APP_UNTIL(atomic_load(&h->s->finished) >= h->outlasts);
        MUST(app_sleep(h->wait_ns) == PN_WAIT_TIMEOUT);
        h->waits++;
    }
    pn_core_leave_app(core);
    MUST(pn_core_self() == core && pn_core_owns_loop(core));
    h->in_step = false;
}

static struct home_test *home_of_requests;

/* Schedules on home from inside, as call_soon does. */
static PN_UNUSED void app_schedules(struct request *r)
{
    struct pn_core *core = pn_core_self();
    for (int i = 0; i < 5; i++) {
        pn_core_leave_app(core);
        atomic_fetch_add(&home_of_requests->due, 2);
        pn_core_enter_app(core);
        app_sleep(((r->index + i) % 4) * MS / 2);
    }
    /* One of them stays until home has done all of it. */
    for (bool over = r->index > 0; !over;) {
        pn_core_leave_app(core);
        over = home_of_requests->steps == r->s->expected * 10;
        pn_core_enter_app(core);
        app_sleep(MS);
    }
}

static PN_UNUSED void scenario_home(enum pn_carrier carrier)
{
    struct server s;
    struct home_test h = {.s = &s, .wait_ns = 5 * MS};
    server_make(&s, carrier, NULL);
    const struct pn_home_work work = {home_pending_test, home_step_test, &h, 4};
    pn_cores_set_home_work(s.cores, &work);
    home_of_requests = &h;
    struct request *all = requests_make(&s, 60, app_schedules);
    assert_int_equal(server_run(&s, 60), 0);
    all_done(all, 60);
    assert_int_equal(h.steps, 600);
    assert_int_equal(h.waits, 60);
    assert_int_equal(atomic_load(&h.due), 0);
    free(all);
    server_free(&s);
}

/* A callback on home that waits must not delay requests: this one ends after all of them. */
static PN_UNUSED void scenario_home_waits(enum pn_carrier carrier)
{
    struct server s;
    struct home_test h = {.s = &s, .steps = 9, .due = 1, .wait_ns = 50 * MS, .outlasts = 100};
    struct pn_cores_config c = test_config;
    c.count = 128;
    server_make(&s, carrier, &c);
    const struct pn_home_work work = {home_pending_test, home_step_test, &h, 4};
    pn_cores_set_home_work(s.cores, &work);
    struct request *all = requests_make(&s, 100, app_sleeper);
    assert_int_equal(server_run(&s, 100), 0);
    all_done(all, 100);
    assert_int_equal(h.waits, 1); /* run waits for home as well */
    free(all);
    server_free(&s);
}

/* --- forks -------------------------------------------------------------------------------------------------- */

static PN_UNUSED void app_forks(struct request *r)
{
    struct pn_core *core = pn_core_self();
    if (r->index % 2)
        app_sleep(MS);
    pid_t pid = fork();
    if (pid == 0) {
        bool inside = pn_cores_after_fork_child(r->s->cores);
        if (!inside || pn_core_self() != NULL || pn_core_owns_loop(core))
            _exit(1);
        pn_loop_after_fork_child(r->s->loop);
        pn_core_leave_app(core); /* must not come back */
        _exit(2);
    }
    int status;
    MUST(waitpid(pid, &status, 0) == pid);
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == PN__EXIT_FORKED);
    r->result = 1;
}

static PN_UNUSED void scenario_fork(enum pn_carrier carrier)
{
    struct server s;
    server_make(&s, carrier, NULL);
    struct request *all = requests_make(&s, 6, app_forks);
    assert_int_equal(server_run(&s, 6), 0);
    all_done(all, 6);
    free(all);
    server_free(&s);
}

/* --- everything at once ------------------------------------------------------------------------------------- */

static void stress_op(struct request *r, unsigned *seed)
{
    struct pn_core *core = pn_core_self();
    struct request *peer = r->peer;
    char c;
    switch (rand_r(seed) % 8) {
    case 0:
        app_sleep((rand_r(seed) % 2000) * PN_NS_PER_US);
        break;
    case 1:
        MUST(write(peer->fd[1], "y", 1) == 1 || errno == EAGAIN);
        break;
    case 2:
        app_wait_fd(r->fd[0], EPOLLIN, (rand_r(seed) % 3) * MS);
        while (read(r->fd[0], &c, 1) == 1)
            ;
        break;
    case 3:
        DETACHED(core, pn_core_yield(core));
        break;
    case 4: {
        uint32_t number = pn_core_wait_begin(core);
        atomic_store(&r->number, number);
        DETACHED(core, pn_core_park(core, number,
                                    pn_clock_mono_ns() + (rand_r(seed) % 3000) * PN_NS_PER_US));
        break;
    }
    case 5: {
        struct pn_core *other = atomic_load(&peer->core);
        if (other)
            pn_core_unpark(other, atomic_load(&peer->number) - rand_r(seed) % 2);
        break;
    }
    case 6:
        pn_core_leave_app(core);
        MUST(pn_core_owns_loop(core));
        r->s->py.home.resumed++; /* anything that the loop's owner owns */
        pn_core_enter_app(core);
        break;
    case 7: {
        struct pollfd p = {.fd = r->fd[0], .events = POLLIN};
        fake_detach(&r->s->py, pn_core_state(core));
        if (pn_core_block_begin(core, r->fd[0], EPOLLIN)) {
            poll(&p, 1, 1);
            pn_core_block_end(core);
        }
        fake_attach(&r->s->py, pn_core_state(core));
        break;
    }
    }
}

static PN_UNUSED void app_stress(struct request *r)
{
    unsigned seed = (unsigned)r->index * 77u + 5u;
    for (int i = 0; i < 40; i++)
        stress_op(r, &seed);
    r->result = 1;
}

static PN_UNUSED void scenario_stress(enum pn_carrier carrier, int n, unsigned cores)
{
    struct server s;
    struct home_test h = {.s = &s, .wait_ns = MS};
    struct pn_cores_config c = test_config;
    c.count = cores;
    c.lease_ns = 2 * MS;
    server_make(&s, carrier, &c);
    const struct pn_home_work work = {home_pending_test, home_step_test, &h, 4};
    pn_cores_set_home_work(s.cores, &work);
    atomic_store(&h.due, 50);
    struct request *all = requests_make(&s, n, app_stress);
    for (int i = 0; i < n; i++) {
        MUST(pipe2(all[i].fd, O_NONBLOCK) == 0);
        all[i].peer = &all[(i * 7 + 3) % n];
    }
    assert_int_equal(server_run(&s, n), 0);
    all_done(all, n);
    for (int i = 0; i < n; i++) {
        close(all[i].fd[0]);
        close(all[i].fd[1]);
    }
    struct pn_cores_stats st = server_stats(&s);
    assert_int_equal(st.under_way, 0);
    assert_int_equal(st.waiting, 0);
    assert_true(st.carriers <= cores + 1);
    free(all);
    server_free(&s);
}

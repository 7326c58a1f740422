/* SPDX-License-Identifier: Apache-2.0 */
/* Redirected calls, in cores of both carriers that wait: a library loaded at run time calls libc as
 * it always did, and the visitors of this small server wait beside each other. */
#include "wait/wait.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "test_base.h"

/* --- The probe library (wait_probe.c) ----------------------------------------------------------- */

static struct {
    void *handle;
    int (*nanosleep)(long ms);
    int (*nanosleep_by_table)(long ms);
    int (*clock_nanosleep)(clockid_t clock, int flags, const struct timespec *t);
    int (*usleep)(unsigned us);
    unsigned (*sleep)(unsigned s);
    int (*sem_wait)(sem_t *sem);
    int (*sem_timedwait)(sem_t *sem, const struct timespec *deadline);
    int (*sem_clockwait)(sem_t *sem, clockid_t clock, const struct timespec *deadline);
    int (*sem_post)(sem_t *sem);
    pthread_t (*self)(void);
    int (*getattr)(pthread_t t, pthread_attr_t *attr);
    int (*kill)(pthread_t t, int signo);
    int (*cpuclock)(pthread_t t, clockid_t *clock);
} probe;

static void *symbol(const char *name)
{
    void *p = dlsym(probe.handle, name);
    assert_non_null(p);
    return p;
}

static void load_probe(const char *path)
{
    /* Lazy binding is what the loader is asked for; the eager build says -z now itself. */
    probe.handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (!probe.handle)
        fail_msg("%s", dlerror());
    *(void **)&probe.nanosleep = symbol("probe_nanosleep");
    *(void **)&probe.nanosleep_by_table = symbol("probe_nanosleep_by_table");
    *(void **)&probe.clock_nanosleep = symbol("probe_clock_nanosleep");
    *(void **)&probe.usleep = symbol("probe_usleep");
    *(void **)&probe.sleep = symbol("probe_sleep");
    *(void **)&probe.sem_wait = symbol("probe_sem_wait");
    *(void **)&probe.sem_timedwait = symbol("probe_sem_timedwait");
    *(void **)&probe.sem_clockwait = symbol("probe_sem_clockwait");
    *(void **)&probe.sem_post = symbol("probe_sem_post");
    *(void **)&probe.self = symbol("probe_self");
    *(void **)&probe.getattr = symbol("probe_getattr");
    *(void **)&probe.kill = symbol("probe_kill");
    *(void **)&probe.cpuclock = symbol("probe_cpuclock");
}

/* cmocka's own assertions jump off the stack, which must not happen on a core. */
#define REQUIRE(cond)                                                                      \
    do {                                                                                   \
        if (!(cond)) {                                                                     \
            fprintf(stderr, "%s:%d: not true on a core: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* --- A server without sockets ------------------------------------------------------------------- */

enum { VISITORS_MAX = 64 };

struct world;
struct visitor {
    struct pn_task task;
    struct pn_job job;
    struct world *world;
    int number;
};

struct world {
    struct pn_loop *loop;
    struct pn_cores *cores;
    void (*app)(struct visitor *v);
    struct visitor visitors[VISITORS_MAX];
    int count;
    int done;
    sem_t sem;
    atomic_int acquired;
    atomic_int present; /* have their ident noted */
    pthread_t idents[VISITORS_MAX];
    struct pn_wait_stats wait_stats;
};

static void run_visitor(struct pn_job *job)
{
    struct visitor *v = pn_container_of(job, struct visitor, job);
    struct world *w = v->world;
    struct pn_core *core = pn_core_self();
    pn_core_enter_app(core);
    w->app(v);
    pn_core_leave_app(core);
    pn_cores_done(w->cores);
    if (++w->done == w->count)
        pn_loop_stop(w->loop);
}

static void drop_visitor(struct pn_job *job)
{
    (void)job;
    REQUIRE(!"a visitor was dropped");
}

static void admit_visitor(struct pn_task *task)
{
    struct visitor *v = pn_container_of(task, struct visitor, task);
    enum pn_admit r = pn_cores_admit(v->world->cores, &v->job);
    REQUIRE(r != PN_ADMIT_FULL);
    if (r == PN_ADMIT_RUN)
        run_visitor(&v->job);
}

/* Serves COUNT visitors with APP; returns how long it took. */
static int64_t serve(enum pn_carrier carrier, int count, void (*app)(struct visitor *v),
                     struct world *w)
{
    struct pn_cores_config config = {.carrier = carrier,
                                     .count = VISITORS_MAX,
                                     .stack_size = 256 * 1024,
                                     .queue_max = VISITORS_MAX,
                                     .lease_ns = 10 * PN_NS_PER_SEC};
    w->app = app;
    w->count = count;
    w->done = 0;
    w->loop = pn_loop_create(pn_poller_epoll_create());
    w->cores = pn_cores_create(w->loop, &config);
    assert_non_null(w->cores);
    struct pn_wait_config wait = {.cores = w->cores};
    assert_int_equal(pn_wait_install(&wait), 0);
    assert_int_equal(pn_wait_install(&wait), -EALREADY);
    for (int i = 0; i < count; i++) {
        struct visitor *v = &w->visitors[i];
        *v = (struct visitor){.world = w, .number = i};
        pn_task_init(&v->task, admit_visitor);
        pn_list_init(&v->job.node);
        v->job.run = run_visitor;
        v->job.dropped = drop_visitor;
        pn_task_post(w->loop, &v->task);
    }
    int64_t start_ns = pn_clock_mono_ns();
    assert_int_equal(pn_cores_run(w->cores), 0);
    int64_t took_ns = pn_clock_mono_ns() - start_ns;
    assert_int_equal(w->done, count);
    pn_wait_stats(&w->wait_stats);
    pn_wait_uninstall();
    pn_cores_destroy(w->cores);
    pn_loop_destroy(w->loop);
    return took_ns;
}

static const enum pn_carrier carriers[] = {PN_CARRIER_THREADS, PN_CARRIER_FIBERS};

/* Each visitor waits 50 ms: together they take about that, one after the other 2 s. */
static void assert_together(void (*app)(struct visitor *v))
{
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        int64_t took_ns = serve(carriers[i], 40, app, &w);
        assert_true(took_ns >= 45 * PN_NS_PER_MS);
        assert_true(took_ns < 1000 * PN_NS_PER_MS);
        assert_true(w.wait_stats.calls_waited >= 40);
        assert_true(w.wait_stats.slots > 0);
    }
}

/* --- Sleeping ------------------------------------------------------------------------------------- */

static void app_nanosleep(struct visitor *v)
{
    (void)v;
    errno = 1234;
    REQUIRE(probe.nanosleep(50) == 0);
    REQUIRE(errno == 1234);
}

static void app_table(struct visitor *v)
{
    (void)v;
    REQUIRE(probe.nanosleep_by_table(50) == 0);
}

static void app_usleep(struct visitor *v)
{
    (void)v;
    REQUIRE(probe.usleep(50000) == 0);
}

static void app_clocks(struct visitor *v)
{
    static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME};
    clockid_t clock = clocks[v->number % 3];
    struct timespec t = {.tv_nsec = 50 * PN_NS_PER_MS};
    if (v->number % 2) {
        REQUIRE(probe.clock_nanosleep(clock, 0, &t) == 0);
        return;
    }
    clock_gettime(clock, &t);
    t = pn_ns_timespec(pn_timespec_ns(&t) + 50 * PN_NS_PER_MS);
    REQUIRE(probe.clock_nanosleep(clock, TIMER_ABSTIME, &t) == 0);
    struct timespec now;
    clock_gettime(clock, &now);
    REQUIRE(pn_timespec_ns(&now) >= pn_timespec_ns(&t));
}

static void sleeps_go_side_by_side(void **state)
{
    (void)state;
    assert_together(app_nanosleep);
    assert_together(app_usleep);
    assert_together(app_clocks);
}

static void pointers_in_data_are_redirected(void **state)
{
    (void)state;
    assert_together(app_table);
}

static void app_refusals(struct visitor *v)
{
    struct timespec bad = {.tv_nsec = 1000000000}, past = {0};
    (void)v;
    REQUIRE(probe.clock_nanosleep(CLOCK_MONOTONIC, 0, &bad) == EINVAL);
    REQUIRE(probe.clock_nanosleep(-77, 0, &past) == clock_nanosleep(-77, 0, &past, NULL));
    REQUIRE(probe.clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past) == 0);
    REQUIRE(probe.nanosleep(0) == 0);
    REQUIRE(probe.usleep(0) == 0);
    REQUIRE(probe.sleep(0) == 0);
}

static void what_libc_refuses_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        serve(carriers[i], 3, app_refusals, &w);
    }
}

/* --- Semaphores ------------------------------------------------------------------------------------- */

static void app_sem_pass_on(struct visitor *v)
{
    errno = 77;
    REQUIRE(probe.sem_wait(&v->world->sem) == 0);
    REQUIRE(errno == 77);
    REQUIRE(atomic_fetch_add(&v->world->acquired, 1) == 0);
    REQUIRE(probe.nanosleep(2) == 0);
    atomic_fetch_sub(&v->world->acquired, 1);
    REQUIRE(probe.sem_post(&v->world->sem) == 0);
}

static void a_lock_held_over_a_wait_excludes(void **state)
{
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        sem_init(&w.sem, 0, 1);
        int64_t took_ns = serve(carriers[i], 30, app_sem_pass_on, &w);
        /* 30 times 2 ms, woken each time: re-checks alone (20 ms at first) would take ten times it. */
        assert_true(took_ns >= 58 * PN_NS_PER_MS);
        assert_true(took_ns < 600 * PN_NS_PER_MS);
        sem_destroy(&w.sem);
    }
}

static void *post_from_outside(void *arg)
{
    struct world *w = arg;
    for (int i = 0; i < 40; i++) {
        usleep(500);
        /* The probe's import is redirected in this thread as well: it wakes. */
        probe.sem_post(&w->sem);
    }
    return NULL;
}

static void app_sem_take(struct visitor *v)
{
    REQUIRE(probe.sem_wait(&v->world->sem) == 0);
}

static void other_threads_wake_cores(void **state)
{
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        pthread_t poster;
        sem_init(&w.sem, 0, 0);
        assert_int_equal(pthread_create(&poster, NULL, post_from_outside, &w), 0);
        int64_t took_ns = serve(carriers[i], 40, app_sem_take, &w);
        pthread_join(poster, NULL);
        assert_true(took_ns < 800 * PN_NS_PER_MS);
        sem_destroy(&w.sem);
    }
}

static void app_sem_time_out(struct visitor *v)
{
    struct timespec t;
    int r;
    if (v->number % 2) {
        clock_gettime(CLOCK_REALTIME, &t);
        t = pn_ns_timespec(pn_timespec_ns(&t) + 50 * PN_NS_PER_MS);
        r = probe.sem_timedwait(&v->world->sem, &t);
    } else {
        clock_gettime(CLOCK_MONOTONIC, &t);
        t = pn_ns_timespec(pn_timespec_ns(&t) + 50 * PN_NS_PER_MS);
        r = probe.sem_clockwait(&v->world->sem, CLOCK_MONOTONIC, &t);
    }
    REQUIRE(r == -1);
    REQUIRE(errno == ETIMEDOUT);
    t.tv_nsec = -1;
    REQUIRE(probe.sem_timedwait(&v->world->sem, &t) == -1);
    REQUIRE(errno == EINVAL);
}

static void semaphores_time_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        sem_init(&w.sem, 0, 0);
        int64_t took_ns = serve(carriers[i], 40, app_sem_time_out, &w);
        assert_true(took_ns >= 45 * PN_NS_PER_MS);
        assert_true(took_ns < 1000 * PN_NS_PER_MS);
        sem_destroy(&w.sem);
    }
}

/* Many short stays with posts from cores and from a real thread at once: nobody is forgotten. */
static void app_sem_storm(struct visitor *v)
{
    for (int i = 0; i < 50; i++) {
        REQUIRE(probe.sem_wait(&v->world->sem) == 0);
        if ((i + v->number) % 7 == 0)
            REQUIRE(probe.usleep(10) == 0);
        REQUIRE(probe.sem_post(&v->world->sem) == 0);
    }
}

static atomic_bool storm_over;

static void *storm_outside(void *arg)
{
    struct world *w = arg;
    while (!atomic_load(&storm_over)) {
        probe.sem_wait(&w->sem);
        probe.sem_post(&w->sem);
    }
    return NULL;
}

static void a_storm_of_waits_loses_no_wake(void **state)
{
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        pthread_t outside;
        sem_init(&w.sem, 0, 2);
        atomic_store(&storm_over, false);
        assert_int_equal(pthread_create(&outside, NULL, storm_outside, &w), 0);
        serve(carriers[i], 40, app_sem_storm, &w);
        atomic_store(&storm_over, true);
        pthread_join(outside, NULL);
        int value;
        sem_getvalue(&w.sem, &value);
        assert_int_equal(value, 2);
        sem_destroy(&w.sem);
    }
}

/* --- Identity ----------------------------------------------------------------------------------------- */

static void app_identity(struct visitor *v)
{
    pthread_t me = probe.self();
    char here;
    pthread_attr_t attr;
    void *base;
    size_t size;
    clockid_t clock;
    struct timespec t;
    v->world->idents[v->number] = me;
    /* A core whose request is over takes the next one: nobody leaves before all are here. */
    atomic_fetch_add(&v->world->present, 1);
    do
        REQUIRE(probe.nanosleep(5) == 0);
    while (atomic_load(&v->world->present) < v->world->count);
    REQUIRE(pthread_equal(me, probe.self()));
    REQUIRE(probe.kill(me, 0) == 0);
    REQUIRE(probe.cpuclock(me, &clock) == 0);
    REQUIRE(clock_gettime(clock, &t) == 0);
    REQUIRE(probe.getattr(me, &attr) == 0);
    REQUIRE(pthread_attr_getstack(&attr, &base, &size) == 0);
    pthread_attr_destroy(&attr);
    REQUIRE(&here >= (char *)base && &here < (char *)base + size);
}

static void each_core_is_somebody_else(void **state)
{
    (void)state;
    for (size_t c = 0; c < PN_ARRAY_LEN(carriers); c++) {
        struct world w = {0};
        serve(carriers[c], 20, app_identity, &w);
        for (int i = 0; i < 20; i++)
            for (int k = 0; k < i; k++)
                assert_false(pthread_equal(w.idents[i], w.idents[k]));
    }
}

/* --- Forks, exceptions to the rule, the way back ------------------------------------------------------ */

static void app_fork(struct visitor *v)
{
    struct world *w = v->world;
    if (v->number != 0) {
        REQUIRE(probe.nanosleep(20) == 0);
        return;
    }
    pthread_t me = probe.self();
    pid_t child = fork();
    if (child == 0) {
        pn_wait_after_fork_child();
        pn_cores_after_fork_child(w->cores);
        /* No core any more: it really sleeps, and really waits. */
        bool right = pn_core_self() == NULL && pthread_equal(me, probe.self()) &&
                     probe.nanosleep(10) == 0 && probe.sem_post(&w->sem) == 0 &&
                     probe.sem_wait(&w->sem) == 0;
        _exit(right ? 0 : 1);
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    REQUIRE(status == 0);
}

static void the_child_of_a_fork_really_waits(void **state)
{
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(carriers); i++) {
        struct world w = {0};
        sem_init(&w.sem, 0, 0);
        serve(carriers[i], 3, app_fork, &w);
        sem_destroy(&w.sem);
    }
}

static void a_library_can_be_left_alone(void **state)
{
    const char *names[] = {"wait_probe"};
    struct pn_wait_config config = {.leave_alone = names, .leave_alone_count = 1};
    struct pn_wait_stats with, without;
    (void)state;
    assert_int_equal(pn_wait_install(&config), 0);
    pn_wait_stats(&without);
    pn_wait_uninstall();
    config.leave_alone_count = 0;
    assert_int_equal(pn_wait_install(&config), 0);
    pn_wait_stats(&with);
    pn_wait_uninstall();
    assert_true(with.slots >= without.slots + 7);
}

static void later_libraries_are_found_by_a_scan(void **state)
{
    struct pn_wait_config config = {0};
    struct pn_wait_stats before, after;
    const char *lazy = getenv("PROBE_LAZY");
    (void)state;
    assert_non_null(lazy);
    assert_int_equal(pn_wait_scan(), 0); /* not installed: nothing */
    assert_int_equal(pn_wait_install(&config), 0);
    pn_wait_stats(&before);
    assert_int_equal(pn_wait_scan(), 0);
    pn_wait_stats(&after);
    assert_true(after.scans == before.scans);
    void *copy = dlopen(lazy, RTLD_LAZY);
    assert_non_null(copy);
    assert_true(pn_wait_scan() >= 7);
    assert_int_equal(pn_wait_scan(), 0);
    dlclose(copy);
    pn_wait_scan();
    pn_wait_stats(&after);
    assert_int_equal(after.slots, before.slots);
    pn_wait_uninstall();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sleeps_go_side_by_side),
        cmocka_unit_test(pointers_in_data_are_redirected),
        cmocka_unit_test(what_libc_refuses_is_refused),
        cmocka_unit_test(a_lock_held_over_a_wait_excludes),
        cmocka_unit_test(other_threads_wake_cores),
        cmocka_unit_test(semaphores_time_out),
        cmocka_unit_test(a_storm_of_waits_loses_no_wake),
        cmocka_unit_test(each_core_is_somebody_else),
        cmocka_unit_test(the_child_of_a_fork_really_waits),
        cmocka_unit_test(a_library_can_be_left_alone),
        cmocka_unit_test(later_libraries_are_found_by_a_scan),
    };
    if (argc != 3) {
        print_error("usage: test_wait EAGER_LIBRARY LAZY_LIBRARY\n");
        return 2;
    }
    setenv("PROBE_LAZY", argv[2], 1);
    load_probe(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

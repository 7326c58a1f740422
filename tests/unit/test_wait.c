/* SPDX-License-Identifier: Apache-2.0 */
/* Redirected calls, in cores of both carriers that wait: a library loaded at run time calls libc as
 * it always did, and the visitors of this small server wait beside each other. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/wait_fixture.h"
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

/* --- What the visitors share ---------------------------------------------------------------------- */

struct shared {
    sem_t sem;
    struct gauge inside;  /* of the semaphore */
    struct gauge present; /* in the application */
    pthread_t idents[VISITORS_MAX];
};

static sem_t *sem_of(struct visitor *v)
{
    struct shared *s = v->world->arg;
    return &s->sem;
}

/* 40 visitors are in APP at once. */
static void serve_together(void (*app)(struct visitor *v))
{
    for (size_t i = 0; i < WAIT_CARRIERS; i++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        sem_init(&s.sem, 0, 0);
        wait_serve(&w, wait_carriers[i], 40, app);
        assert_int_equal(s.present.most_ever, 40);
        assert_true(w.calls_waited >= 40);
        assert_true(w.wait_stats.slots > 0);
        sem_destroy(&s.sem);
    }
}

static void present(struct visitor *v, void (*one)(struct visitor *v))
{
    struct shared *s = v->world->arg;
    wait_together(v, &s->present, one);
}

/* --- Sleeping ------------------------------------------------------------------------------------- */

static void one_nanosleep(struct visitor *v)
{
    int64_t start_ns = pn_clock_mono_ns();
    (void)v;
    errno = 1234;
    REQUIRE(probe.nanosleep(50) == 0);
    REQUIRE(errno == 1234);
    REQUIRE(pn_clock_mono_ns() - start_ns >= 50 * PN_NS_PER_MS);
}

static void app_nanosleep(struct visitor *v)
{
    present(v, one_nanosleep);
}

static void one_by_table(struct visitor *v)
{
    (void)v;
    REQUIRE(probe.nanosleep_by_table(50) == 0);
}

static void app_table(struct visitor *v)
{
    present(v, one_by_table);
}

static void one_usleep(struct visitor *v)
{
    int64_t start_ns = pn_clock_mono_ns();
    (void)v;
    REQUIRE(probe.usleep(50000) == 0);
    REQUIRE(pn_clock_mono_ns() - start_ns >= 50 * PN_NS_PER_MS);
}

static void app_usleep(struct visitor *v)
{
    present(v, one_usleep);
}

static void one_of_the_clocks(struct visitor *v)
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

static void app_clocks(struct visitor *v)
{
    present(v, one_of_the_clocks);
}

static void sleeps_go_side_by_side(void **state)
{
    (void)state;
    serve_together(app_nanosleep);
    serve_together(app_usleep);
    serve_together(app_clocks);
}

static void pointers_in_data_are_redirected(void **state)
{
    (void)state;
    serve_together(app_table);
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
    for (size_t i = 0; i < WAIT_CARRIERS; i++) {
        struct world w = {0};
        wait_serve(&w, wait_carriers[i], 3, app_refusals);
    }
}

/* --- Semaphores ------------------------------------------------------------------------------------- */

static void app_sem_pass_on(struct visitor *v)
{
    struct shared *s = v->world->arg;
    errno = 77;
    REQUIRE(probe.sem_wait(&s->sem) == 0);
    REQUIRE(errno == 77);
    REQUIRE(gauge_enter(&s->inside) == 1);
    REQUIRE(probe.nanosleep(2) == 0);
    gauge_leave(&s->inside);
    REQUIRE(probe.sem_post(&s->sem) == 0);
}

static void a_lock_held_over_a_wait_excludes(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAIT_CARRIERS; i++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        sem_init(&s.sem, 0, 1);
        wait_serve(&w, wait_carriers[i], 30, app_sem_pass_on);
        /* All but the first waited, and each was woken. */
        assert_true(w.calls_waited >= 29);
        assert_int_equal(w.cores_stats.rechecks_needed, 0);
        sem_destroy(&s.sem);
    }
}

static void *post_from_outside(void *arg)
{
    struct shared *s = arg;
    while (s->present.most_ever < 40)
        usleep(500);
    for (int i = 0; i < 40; i++) {
        usleep(500);
        /* The probe's import is redirected in this thread as well: it wakes. */
        probe.sem_post(&s->sem);
    }
    return NULL;
}

static void app_sem_take(struct visitor *v)
{
    struct shared *s = v->world->arg;
    gauge_enter(&s->present);
    REQUIRE(probe.sem_wait(&s->sem) == 0);
}

static void other_threads_wake_cores(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAIT_CARRIERS; i++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        pthread_t poster;
        sem_init(&s.sem, 0, 0);
        assert_int_equal(pthread_create(&poster, NULL, post_from_outside, &s), 0);
        wait_serve(&w, wait_carriers[i], 40, app_sem_take);
        pthread_join(poster, NULL);
        /* On a busy machine a look may come between a post and its wake; all 40 would need theirs. */
        assert_true(w.cores_stats.rechecks_needed < 20);
        sem_destroy(&s.sem);
    }
}

static void one_time_out(struct visitor *v)
{
    clockid_t clock = v->number % 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    struct timespec now, t = wait_in_ms(clock, 50);
    int r = v->number % 2 ? probe.sem_timedwait(sem_of(v), &t)
                          : probe.sem_clockwait(sem_of(v), CLOCK_MONOTONIC, &t);
    REQUIRE(r == -1);
    REQUIRE(errno == ETIMEDOUT);
    clock_gettime(clock, &now);
    REQUIRE(pn_timespec_ns(&now) >= pn_timespec_ns(&t));
    t.tv_nsec = -1;
    REQUIRE(probe.sem_timedwait(sem_of(v), &t) == -1);
    REQUIRE(errno == EINVAL);
}

static void app_sem_time_out(struct visitor *v)
{
    present(v, one_time_out);
}

static void semaphores_time_out(void **state)
{
    (void)state;
    serve_together(app_sem_time_out);
}

/* Many short stays with posts from cores and from a real thread at once: nobody is forgotten. */
static void app_sem_storm(struct visitor *v)
{
    for (int i = 0; i < 50; i++) {
        REQUIRE(probe.sem_wait(sem_of(v)) == 0);
        if ((i + v->number) % 7 == 0)
            REQUIRE(probe.usleep(10) == 0);
        REQUIRE(probe.sem_post(sem_of(v)) == 0);
    }
}

static atomic_bool storm_over;

static void *storm_outside(void *arg)
{
    struct shared *s = arg;
    while (!atomic_load(&storm_over)) {
        probe.sem_wait(&s->sem);
        probe.sem_post(&s->sem);
    }
    return NULL;
}

static void a_storm_of_waits_loses_no_wake(void **state)
{
    (void)state;
    for (size_t i = 0; i < WAIT_CARRIERS; i++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        pthread_t outside;
        sem_init(&s.sem, 0, 2);
        atomic_store(&storm_over, false);
        assert_int_equal(pthread_create(&outside, NULL, storm_outside, &s), 0);
        wait_serve(&w, wait_carriers[i], 40, app_sem_storm);
        atomic_store(&storm_over, true);
        pthread_join(outside, NULL);
        int value;
        sem_getvalue(&s.sem, &value);
        assert_int_equal(value, 2);
        sem_destroy(&s.sem);
    }
}

/* --- Identity ----------------------------------------------------------------------------------------- */

static void one_moment(struct visitor *v)
{
    (void)v;
    REQUIRE(probe.nanosleep(5) == 0);
}

static void app_identity(struct visitor *v)
{
    struct shared *s = v->world->arg;
    pthread_t me = probe.self();
    char here;
    pthread_attr_t attr;
    void *base;
    size_t size;
    clockid_t clock;
    struct timespec t;
    s->idents[v->number] = me;
    /* A core whose request is over takes the next one: nobody leaves before all are here. */
    wait_together(v, &s->present, one_moment);
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
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 20, app_identity);
        for (int i = 0; i < 20; i++)
            for (int k = 0; k < i; k++)
                assert_false(pthread_equal(s.idents[i], s.idents[k]));
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
                     probe.nanosleep(10) == 0 && probe.sem_post(sem_of(v)) == 0 &&
                     probe.sem_wait(sem_of(v)) == 0;
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
    for (size_t i = 0; i < WAIT_CARRIERS; i++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        sem_init(&s.sem, 0, 0);
        wait_serve(&w, wait_carriers[i], 3, app_fork);
        sem_destroy(&s.sem);
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

/* The linker mostly gives it the place that it had, where only the counters tell that it's another one. */
static void a_library_that_comes_back_is_counted_once(void **state)
{
    struct pn_wait_config config = {0};
    struct pn_wait_stats once, stats;
    const char *lazy = getenv("PROBE_LAZY");
    int slots = 0;
    (void)state;
    assert_int_equal(pn_wait_install(&config), 0);
    for (int i = 0; i < 3; i++) {
        void *copy = dlopen(lazy, RTLD_LAZY);
        assert_non_null(copy);
        int changed = pn_wait_scan();
        pn_wait_stats(&stats);
        if (i == 0) {
            slots = changed;
            once = stats;
        }
        assert_int_equal(changed, slots);
        assert_int_equal(stats.slots, once.slots);
        assert_int_equal(stats.images, once.images);
        dlclose(copy);
    }
    pn_wait_uninstall();
}

static void *scan_on_and_on(void *arg)
{
    atomic_bool *stop = arg;
    while (!atomic_load(stop))
        pn_wait_scan();
    return NULL;
}

/* The linker lists a library before it has bound it: what is written by then is lost, and it faults where a
 * page is closed to it. */
static void scans_beside_loads_miss_none(void **state)
{
    enum { ROUNDS = 500 };
    struct pn_wait_config config = {0};
    struct pn_wait_stats before, after;
    atomic_bool stop = false;
    pthread_t scanner;
    (void)state;
    assert_int_equal(pn_wait_install(&config), 0);
    pn_wait_stats(&before);
    assert_int_equal(pthread_create(&scanner, NULL, scan_on_and_on, &stop), 0);
    int missed = 0;
    for (int i = 0; i < ROUNDS; i++) {
        void *copy = dlopen(getenv("PROBE_LAZY"), i % 2 ? RTLD_LAZY : RTLD_NOW);
        assert_non_null(copy);
        pn_wait_scan();
        pn_wait_stats(&after);
        missed += after.slots < before.slots + 7;
        dlclose(copy);
    }
    atomic_store(&stop, true);
    pthread_join(scanner, NULL);
    pn_wait_uninstall();
    assert_int_equal(missed, 0);
}

static sem_t constructor_entered, constructor_may_go;

static void in_constructor(void)
{
    sem_post(&constructor_entered);
    sem_wait(&constructor_may_go);
}

static void *load_lazy(void *arg)
{
    (void)arg;
    return dlopen(getenv("PROBE_LAZY"), RTLD_LAZY);
}

static void *scan_once(void *arg)
{
    (void)arg;
    pn_wait_scan();
    return NULL;
}

static unsigned slots_now(void)
{
    struct pn_wait_stats stats;
    pn_wait_stats(&stats);
    return stats.slots;
}

/* A turn's end doesn't wait for a library's constructor, which may wait for the turn. */
static void a_load_under_way_is_left_for_later(void **state)
{
    struct pn_wait_config config = {0};
    pthread_t loader, scanner;
    char address[32];
    void *copy;
    (void)state;
    sem_init(&constructor_entered, 0, 0);
    sem_init(&constructor_may_go, 0, 0);
    assert_int_equal(pn_wait_install(&config), 0);
    unsigned before = slots_now();
    snprintf(address, sizeof address, "%p", (void *)in_constructor);
    setenv("WAIT_PROBE_CONSTRUCTED", address, 1);
    assert_int_equal(pthread_create(&loader, NULL, load_lazy, NULL), 0);
    sem_wait(&constructor_entered);
    unsetenv("WAIT_PROBE_CONSTRUCTED");
    assert_int_equal(pthread_create(&scanner, NULL, scan_once, NULL), 0);
    pn_wait_scan_later();
    for (int i = 0; i < 30; i++) {
        usleep(1000);
        pn_wait_scan_later();
        assert_int_equal(slots_now(), before);
    }
    sem_post(&constructor_may_go);
    pthread_join(loader, &copy);
    pthread_join(scanner, NULL);
    assert_non_null(copy);
    assert_true(slots_now() >= before + 7);

    /* Without anybody who scans at once a thread does it soon. */
    dlclose(copy);
    pn_wait_scan();
    assert_int_equal(slots_now(), before);
    copy = load_lazy(NULL);
    assert_non_null(copy);
    while (slots_now() == before) {
        pn_wait_scan_later();
        usleep(1000);
    }
    assert_true(slots_now() >= before + 7);
    dlclose(copy);
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
        cmocka_unit_test(a_library_that_comes_back_is_counted_once),
        cmocka_unit_test(scans_beside_loads_miss_none),
        cmocka_unit_test(a_load_under_way_is_left_for_later),
    };
    if (argc != 3) {
        print_error("usage: test_wait EAGER_LIBRARY LAZY_LIBRARY\n");
        return 2;
    }
    setenv("PROBE_LAZY", argv[2], 1);
    load_probe(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

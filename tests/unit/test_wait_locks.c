/* SPDX-License-Identifier: Apache-2.0 */
/* Mutexes, condition variables and rwlocks among cores of both carriers, and between cores and foreign
 * threads: who gets in, what is returned, who is woken. */
#include <errno.h>
#include <string.h>

#include "lock_probe.h"
#include "support/wait_fixture.h"
#include "test_base.h"

static const struct lock_probe *probe;

/* --- Mutexes exclude ----------------------------------------------------------------------------- */

struct shared {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    pthread_rwlock_t rwlock;
    struct gauge inside;  /* of the lock */
    struct gauge present; /* in the application */
    int depth;            /* recursive: locked so often */
    int items;
    int woken;
    atomic_int step;
    atomic_bool over;
    clockid_t clock;
    long outside_rounds;
};

static void critical(struct shared *s)
{
    REQUIRE(gauge_enter(&s->inside) == 1);
    REQUIRE(probe->usleep(300) == 0);
    gauge_leave(&s->inside);
}

static void app_exclude(struct visitor *v)
{
    struct shared *s = v->world->arg;
    gauge_enter(&s->present);
    while (s->present.most_ever < v->world->count)
        REQUIRE(probe->usleep(100) == 0);
    for (int round = 0; round < 3; round++) {
        errno = 4711;
        for (int i = 0; i < s->depth; i++)
            REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        REQUIRE(errno == 4711);
        critical(s);
        for (int i = 0; i < s->depth; i++)
            REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
    }
    gauge_leave(&s->present);
}

static void *exclude_outside(void *arg)
{
    struct shared *s = arg;
    while (!atomic_load(&s->over)) {
        REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        critical(s);
        REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
        s->outside_rounds++;
        sched_yield();
    }
    return NULL;
}

static void serve_excluding(const pthread_mutexattr_t *attr, int depth)
{
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.depth = depth};
        struct world w = {.arg = &s};
        pthread_t outside;
        assert_int_equal(pthread_mutex_init(&s.mutex, attr), 0);
        assert_int_equal(pthread_create(&outside, NULL, exclude_outside, &s), 0);
        wait_serve(&w, wait_carriers[c], 20, app_exclude);
        atomic_store(&s.over, true);
        pthread_join(outside, NULL);
        assert_int_equal(s.inside.most_ever, 1);
        assert_true(w.calls_waited > 20);
        assert_int_equal(pthread_mutex_destroy(&s.mutex), 0);
    }
}

static void mutexes_of_each_kind_exclude(void **state)
{
    static const struct {
        int type, robust, shared, protocol, depth;
    } kinds[] = {
        {PTHREAD_MUTEX_NORMAL, 0, 0, PTHREAD_PRIO_NONE, 1},
        {PTHREAD_MUTEX_ADAPTIVE_NP, 0, 0, PTHREAD_PRIO_NONE, 1},
        {PTHREAD_MUTEX_RECURSIVE, 0, 0, PTHREAD_PRIO_NONE, 3},
        {PTHREAD_MUTEX_ERRORCHECK, 0, 0, PTHREAD_PRIO_NONE, 1},
        {PTHREAD_MUTEX_NORMAL, 1, 0, PTHREAD_PRIO_NONE, 1},
        {PTHREAD_MUTEX_NORMAL, 0, 1, PTHREAD_PRIO_NONE, 1},
        {PTHREAD_MUTEX_RECURSIVE, 0, 1, PTHREAD_PRIO_NONE, 2},
        {PTHREAD_MUTEX_NORMAL, 0, 0, PTHREAD_PRIO_INHERIT, 1},
        {PTHREAD_MUTEX_RECURSIVE, 0, 0, PTHREAD_PRIO_INHERIT, 2},
    };
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(kinds); i++) {
        pthread_mutexattr_t attr;
        pthread_mutexattr_init(&attr);
        pthread_mutexattr_settype(&attr, kinds[i].type);
        pthread_mutexattr_setrobust(&attr,
                                    kinds[i].robust ? PTHREAD_MUTEX_ROBUST : PTHREAD_MUTEX_STALLED);
        pthread_mutexattr_setpshared(&attr, kinds[i].shared ? PTHREAD_PROCESS_SHARED
                                                            : PTHREAD_PROCESS_PRIVATE);
        pthread_mutexattr_setprotocol(&attr, kinds[i].protocol);
        serve_excluding(&attr, kinds[i].depth);
        pthread_mutexattr_destroy(&attr);
    }
}

/* --- What they say -------------------------------------------------------------------------------- */

/* Visitor 0 holds the mutex until all others have had their answers. */
static void hold_until(struct shared *s, int others)
{
    while (atomic_load(&s->step) < others)
        REQUIRE(probe->usleep(200) == 0);
}

static void app_checked(struct visitor *v)
{
    struct shared *s = v->world->arg;
    pthread_mutex_t *m = &s->mutex;
    if (v->number == 0) {
        REQUIRE(probe->pthread_mutex_unlock(m) == EPERM);
        REQUIRE(probe->pthread_mutex_lock(m) == 0);
        hold_until(s, 3);
        REQUIRE(probe->pthread_mutex_lock(m) == EDEADLK);
        struct timespec t = wait_in_ms(CLOCK_REALTIME, 20);
        REQUIRE(probe->pthread_mutex_timedlock(m, &t) == EDEADLK);
        REQUIRE(probe->pthread_mutex_trylock(m) == EBUSY);
        REQUIRE(probe->pthread_mutex_unlock(m) == 0);
        REQUIRE(probe->pthread_mutex_unlock(m) == EPERM);
        return;
    }
    REQUIRE(probe->pthread_mutex_unlock(m) == EPERM);
    REQUIRE(probe->pthread_mutex_trylock(m) == EBUSY);
    struct timespec t = wait_in_ms(CLOCK_REALTIME, 10);
    REQUIRE(probe->pthread_mutex_timedlock(m, &t) == ETIMEDOUT);
    atomic_fetch_add(&s->step, 1);
    REQUIRE(probe->pthread_mutex_lock(m) == 0);
    REQUIRE(probe->pthread_mutex_unlock(m) == 0);
}

static void *checked_outside(void *arg)
{
    struct shared *s = arg;
    while (atomic_load(&s->step) == 0)
        usleep(100);
    REQUIRE(probe->pthread_mutex_trylock(&s->mutex) == EBUSY);
    REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == EPERM);
    atomic_fetch_add(&s->step, 1);
    return NULL;
}

static void error_checking_mutexes_know_their_owner(void **state)
{
    pthread_mutexattr_t attr;
    (void)state;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {0};
        struct world w = {.arg = &s};
        pthread_t outside;
        pthread_mutex_init(&s.mutex, &attr);
        pthread_create(&outside, NULL, checked_outside, &s);
        wait_serve(&w, wait_carriers[c], 3, app_checked);
        pthread_join(outside, NULL);
        pthread_mutex_destroy(&s.mutex);
    }
    pthread_mutexattr_destroy(&attr);
}

static void app_recursive(struct visitor *v)
{
    struct shared *s = v->world->arg;
    pthread_mutex_t *m = &s->mutex;
    if (v->number == 0) {
        for (int i = 0; i < 3; i++)
            REQUIRE(probe->pthread_mutex_lock(m) == 0);
        REQUIRE(probe->pthread_mutex_trylock(m) == 0);
        for (int level = 4; level > 0; level--) {
            atomic_store(&s->step, level);
            while (atomic_load(&s->step) == level) /* until 1 has tried */
                REQUIRE(probe->usleep(200) == 0);
            REQUIRE(probe->pthread_mutex_unlock(m) == 0);
        }
        REQUIRE(probe->pthread_mutex_unlock(m) == EPERM);
        return;
    }
    for (int level = 4; level > 0; level--) {
        while (atomic_load(&s->step) != level)
            REQUIRE(probe->usleep(200) == 0);
        REQUIRE(probe->pthread_mutex_trylock(m) == EBUSY);
        REQUIRE(probe->pthread_mutex_unlock(m) == EPERM);
        if (level > 1)
            atomic_store(&s->step, -1);
    }
    atomic_store(&s->step, -1);
    struct timespec t = wait_in_ms(CLOCK_MONOTONIC, 5000);
    REQUIRE(probe->pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &t) == 0);
    REQUIRE(probe->pthread_mutex_unlock(m) == 0);
}

static void recursive_mutexes_count(void **state)
{
    static const pthread_mutex_t lazily = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.mutex = lazily};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 2, app_recursive);
    }
}

static void one_mutex_time_out(struct visitor *v)
{
    struct shared *s = v->world->arg;
    int64_t start_ns = pn_clock_mono_ns();
    gauge_enter(&s->present);
    if (v->number % 2) {
        struct timespec t = wait_in_ms(CLOCK_REALTIME, 30);
        REQUIRE(probe->pthread_mutex_timedlock(&s->mutex, &t) == ETIMEDOUT);
    } else {
        struct timespec t = wait_in_ms(CLOCK_MONOTONIC, 30);
        REQUIRE(probe->pthread_mutex_clocklock(&s->mutex, CLOCK_MONOTONIC, &t) == ETIMEDOUT);
    }
    REQUIRE(pn_clock_mono_ns() - start_ns >= 29 * PN_NS_PER_MS);
    gauge_leave(&s->present);
}

static void app_time_out(struct visitor *v)
{
    struct shared *s = v->world->arg;
    pthread_mutex_t *m = &s->mutex;
    struct timespec bad = {.tv_nsec = 1000000000}, past = {.tv_sec = -1};
    if (v->number == 0) {
        REQUIRE(probe->pthread_mutex_lock(m) == 0);
        hold_until(s, 9);
        REQUIRE(probe->pthread_mutex_unlock(m) == 0);
        REQUIRE(probe->pthread_mutex_timedlock(m, &bad) == 0); /* free: nobody looks at the time */
        REQUIRE(probe->pthread_mutex_unlock(m) == 0);
        return;
    }
    REQUIRE(probe->pthread_mutex_timedlock(m, &bad) == EINVAL);
    REQUIRE(probe->pthread_mutex_timedlock(m, &past) == ETIMEDOUT);
    REQUIRE(probe->pthread_mutex_clocklock(m, CLOCK_PROCESS_CPUTIME_ID, &past) == EINVAL);
    wait_until_met(v, &s->present, 9, one_mutex_time_out);
    atomic_fetch_add(&s->step, 1);
}

static void mutexes_time_out(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.mutex = PTHREAD_MUTEX_INITIALIZER};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 10, app_time_out);
        assert_int_equal(s.present.most_ever, 9);
    }
}

/* --- Condition variables ---------------------------------------------------------------------------- */

enum { ITEMS = 200 };

/* Even visitors put items, odd ones take them, and so does a thread outside. */
static void put_items(struct shared *s, int count)
{
    for (int i = 0; i < count; i++) {
        REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        s->items++;
        REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
        REQUIRE(probe->pthread_cond_signal(&s->cond) == 0);
        if (i % 16 == 0)
            REQUIRE(probe->usleep(100) == 0);
    }
}

static void take_items(struct shared *s, int count)
{
    for (int i = 0; i < count; i++) {
        REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        while (s->items == 0) {
            errno = 815;
            REQUIRE(probe->pthread_cond_wait(&s->cond, &s->mutex) == 0);
            REQUIRE(errno == 815);
        }
        REQUIRE(gauge_enter(&s->inside) == 1);
        s->items--;
        gauge_leave(&s->inside);
        REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
    }
}

static void app_items(struct visitor *v)
{
    struct shared *s = v->world->arg;
    if (v->number % 2)
        take_items(s, ITEMS);
    else
        put_items(s, ITEMS);
}

static void *put_outside(void *arg)
{
    put_items(arg, ITEMS);
    return NULL;
}

static void *take_outside(void *arg)
{
    take_items(arg, ITEMS);
    return NULL;
}

static void signals_reach_cores_and_threads(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        struct world w = {.arg = &s};
        pthread_t put, take;
        pthread_create(&put, NULL, put_outside, &s);
        pthread_create(&take, NULL, take_outside, &s);
        int64_t start_ns = pn_clock_mono_ns();
        wait_serve(&w, wait_carriers[c], 10, app_items);
        pthread_join(put, NULL);
        pthread_join(take, NULL);
        assert_int_equal(s.items, 0);
        /* Spurious ends alone, one a second, would take minutes. */
        assert_true(pn_clock_mono_ns() - start_ns < 30 * PN_NS_PER_SEC);
    }
}

static void app_broadcast(struct visitor *v)
{
    struct shared *s = v->world->arg;
    REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
    if (v->number == 9) {
        while (s->present.most_ever < 9) {
            REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
            REQUIRE(probe->usleep(200) == 0);
            REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        }
        s->items = 1;
        REQUIRE(probe->pthread_cond_broadcast(&s->cond) == 0);
    } else {
        gauge_enter(&s->present);
        while (!s->items)
            REQUIRE(probe->pthread_cond_wait(&s->cond, &s->mutex) == 0);
        s->woken++;
        /* The mutex is ours again, the others wait for it. */
        REQUIRE(probe->pthread_mutex_trylock(&s->mutex) == EBUSY);
    }
    REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
}

static void a_broadcast_wakes_all(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 10, app_broadcast);
        assert_int_equal(s.woken, 9);
    }
}

/* The wait lets the others have the mutex: all of them come to be in it. */
static void one_cond_time_out(struct visitor *v)
{
    struct shared *s = v->world->arg;
    struct timespec bad = {.tv_nsec = -1}, t = wait_in_ms(s->clock, 30);
    int64_t start_ns = pn_clock_mono_ns();
    int r;
    REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
    REQUIRE(probe->pthread_cond_timedwait(&s->cond, &s->mutex, &bad) == EINVAL);
    gauge_enter(&s->present);
    if (v->number % 2) {
        do
            r = probe->pthread_cond_timedwait(&s->cond, &s->mutex, &t);
        while (r == 0);
    } else {
        t = wait_in_ms(CLOCK_MONOTONIC, 30);
        do
            r = probe->pthread_cond_clockwait(&s->cond, &s->mutex, CLOCK_MONOTONIC, &t);
        while (r == 0);
    }
    REQUIRE(r == ETIMEDOUT);
    REQUIRE(pn_clock_mono_ns() - start_ns >= 29 * PN_NS_PER_MS);
    gauge_leave(&s->present);
    REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
}

static void app_cond_time_out(struct visitor *v)
{
    struct shared *s = v->world->arg;
    wait_until_met(v, &s->present, 10, one_cond_time_out);
}

static void condition_variables_time_out_by_their_clock(void **state)
{
    static const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        pthread_condattr_t attr;
        struct shared s = {.mutex = PTHREAD_MUTEX_INITIALIZER, .clock = clocks[i / 2]};
        struct world w = {.arg = &s};
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, s.clock);
        pthread_cond_init(&s.cond, &attr);
        pthread_condattr_destroy(&attr);
        wait_serve(&w, wait_carriers[i % 2], 10, app_cond_time_out);
        assert_int_equal(s.present.most_ever, 10);
        pthread_cond_destroy(&s.cond);
    }
}

static void app_cond_stranger(struct visitor *v)
{
    struct shared *s = v->world->arg;
    if (v->number == 0) {
        REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        hold_until(s, 1);
        REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
        return;
    }
    REQUIRE(probe->pthread_cond_wait(&s->cond, &s->mutex) == EPERM);
    atomic_fetch_add(&s->step, 1);
}

static void who_waits_must_hold_the_mutex(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP,
                           .cond = PTHREAD_COND_INITIALIZER};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 2, app_cond_stranger);
    }
}

/* --- rwlocks ----------------------------------------------------------------------------------------- */

static void one_moment(struct visitor *v)
{
    (void)v;
    REQUIRE(probe->usleep(200) == 0);
}

static void app_rwlock(struct visitor *v)
{
    struct shared *s = v->world->arg;
    for (int i = 0; i < 5; i++) {
        if (v->number % 4 == 0) {
            REQUIRE(probe->pthread_rwlock_wrlock(&s->rwlock) == 0);
            REQUIRE(gauge_enter(&s->inside) == 1);
            REQUIRE(s->present.inside == 0);
            REQUIRE(probe->usleep(200) == 0);
            REQUIRE(probe->pthread_rwlock_wrlock(&s->rwlock) == EDEADLK);
            REQUIRE(s->present.inside == 0);
            gauge_leave(&s->inside);
        } else {
            REQUIRE(probe->pthread_rwlock_rdlock(&s->rwlock) == 0);
            gauge_enter(&s->present);
            REQUIRE(s->inside.inside == 0);
            wait_until_met(v, &s->present, 5, one_moment); /* the first five stay for each other */
            REQUIRE(s->inside.inside == 0);
            gauge_leave(&s->present);
        }
        REQUIRE(probe->pthread_rwlock_unlock(&s->rwlock) == 0);
    }
}

static void *rwlock_outside(void *arg)
{
    struct shared *s = arg;
    while (!atomic_load(&s->over)) {
        REQUIRE(probe->pthread_rwlock_wrlock(&s->rwlock) == 0);
        REQUIRE(gauge_enter(&s->inside) == 1);
        usleep(100);
        gauge_leave(&s->inside);
        REQUIRE(probe->pthread_rwlock_unlock(&s->rwlock) == 0);
        usleep(300);
    }
    return NULL;
}

static void readers_share_and_writers_exclude(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.rwlock = PTHREAD_RWLOCK_INITIALIZER};
        struct world w = {.arg = &s};
        pthread_t outside;
        pthread_create(&outside, NULL, rwlock_outside, &s);
        wait_serve(&w, wait_carriers[c], 16, app_rwlock);
        atomic_store(&s.over, true);
        pthread_join(outside, NULL);
        assert_true(s.present.most_ever >= 5);
        assert_int_equal(s.inside.most_ever, 1);
    }
}

static void app_rwlock_time_out(struct visitor *v)
{
    struct shared *s = v->world->arg;
    struct timespec bad = {.tv_nsec = -1}, t;
    if (v->number == 0) {
        REQUIRE(probe->pthread_rwlock_timedwrlock(&s->rwlock, &bad) == EINVAL);
        REQUIRE(probe->pthread_rwlock_trywrlock(&s->rwlock) == 0);
        hold_until(s, 9);
        REQUIRE(probe->pthread_rwlock_rdlock(&s->rwlock) == EDEADLK);
        REQUIRE(probe->pthread_rwlock_unlock(&s->rwlock) == 0);
        return;
    }
    REQUIRE(probe->pthread_rwlock_tryrdlock(&s->rwlock) == EBUSY);
    t = wait_in_ms(CLOCK_REALTIME, 20);
    REQUIRE(probe->pthread_rwlock_timedrdlock(&s->rwlock, &t) == ETIMEDOUT);
    t = wait_in_ms(CLOCK_REALTIME, 1);
    REQUIRE(probe->pthread_rwlock_timedwrlock(&s->rwlock, &t) == ETIMEDOUT);
    t = wait_in_ms(CLOCK_MONOTONIC, 1);
    REQUIRE(probe->pthread_rwlock_clockwrlock(&s->rwlock, CLOCK_MONOTONIC, &t) == ETIMEDOUT);
    REQUIRE(probe->pthread_rwlock_clockrdlock(&s->rwlock, CLOCK_MONOTONIC, &t) == ETIMEDOUT);
    REQUIRE(probe->pthread_rwlock_clockrdlock(&s->rwlock, CLOCK_TAI, &t) == EINVAL);
    atomic_fetch_add(&s->step, 1);
}

static void rwlocks_time_out(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct shared s = {.rwlock = PTHREAD_RWLOCK_INITIALIZER};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 10, app_rwlock_time_out);
    }
}

/* --- C11 -------------------------------------------------------------------------------------------- */

struct c11 {
    mtx_t mutex;
    cnd_t cond;
    int items;
    struct gauge inside;
};

static void app_c11(struct visitor *v)
{
    struct c11 *s = v->world->arg;
    struct timespec t = wait_in_ms(CLOCK_REALTIME, 20);
    REQUIRE(probe->mtx_lock(&s->mutex) == thrd_success);
    REQUIRE(gauge_enter(&s->inside) == 1);
    REQUIRE(probe->mtx_lock(&s->mutex) == thrd_success); /* recursive */
    REQUIRE(probe->mtx_unlock(&s->mutex) == thrd_success);
    struct timespec span = {.tv_nsec = PN_NS_PER_MS};
    REQUIRE(probe->thrd_sleep(&span, NULL) == 0);
    gauge_leave(&s->inside);
    if (v->number % 2 == 0) {
        s->items++;
        REQUIRE(probe->cnd_signal(&s->cond) == thrd_success);
    } else {
        while (s->items == 0)
            REQUIRE(probe->cnd_wait(&s->cond, &s->mutex) == thrd_success);
        s->items--;
    }
    if (v->number == 3) {
        int r;
        do
            r = probe->cnd_timedwait(&s->cond, &s->mutex, &t);
        while (r == thrd_success);
        REQUIRE(r == thrd_timedout);
    }
    REQUIRE(probe->cnd_broadcast(&s->cond) == thrd_success);
    REQUIRE(probe->mtx_unlock(&s->mutex) == thrd_success);
    REQUIRE(thrd_equal(probe->thrd_current(), probe->thrd_current()));
    span.tv_nsec = -1;
    REQUIRE(probe->thrd_sleep(&span, NULL) == thrd_sleep(&span, NULL));
}

static void c11_names_do_the_same(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct c11 s = {0};
        struct world w = {.arg = &s};
        mtx_init(&s.mutex, mtx_recursive | mtx_timed);
        cnd_init(&s.cond);
        wait_serve(&w, wait_carriers[c], 20, app_c11);
        assert_int_equal(s.items, 0);
        assert_int_equal(s.inside.most_ever, 1);
        mtx_destroy(&s.mutex);
        cnd_destroy(&s.cond);
    }
}

/* --- Nobody waits for a second look ------------------------------------------------------------------- */

static void app_handed_over(struct visitor *v)
{
    struct shared *s = v->world->arg;
    for (int i = 0; i < 20; i++) {
        REQUIRE(probe->pthread_mutex_lock(&s->mutex) == 0);
        REQUIRE(probe->usleep(50) == 0);
        REQUIRE(probe->pthread_mutex_unlock(&s->mutex) == 0);
    }
}

static void every_unlock_wakes(void **state)
{
    struct shared s = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct world w = {.arg = &s};
    (void)state;
    wait_serve(&w, PN_CARRIER_FIBERS, 20, app_handed_over);
    assert_int_equal(w.cores_stats.rechecks_needed, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutexes_of_each_kind_exclude),
        cmocka_unit_test(error_checking_mutexes_know_their_owner),
        cmocka_unit_test(recursive_mutexes_count),
        cmocka_unit_test(mutexes_time_out),
        cmocka_unit_test(signals_reach_cores_and_threads),
        cmocka_unit_test(a_broadcast_wakes_all),
        cmocka_unit_test(condition_variables_time_out_by_their_clock),
        cmocka_unit_test(who_waits_must_hold_the_mutex),
        cmocka_unit_test(readers_share_and_writers_exclude),
        cmocka_unit_test(rwlocks_time_out),
        cmocka_unit_test(c11_names_do_the_same),
        cmocka_unit_test(every_unlock_wakes),
    };
    probe = wait_probe(argc, argv, "lock_probe");
    if (!probe)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Joins, barriers, once, yields and raw futexes in cores of both carriers. */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>

#include "lock_probe.h"
#include "support/wait_fixture.h"
#include "test_base.h"

static const struct lock_probe *probe;

/* --- Joins ------------------------------------------------------------------------------------------ */

struct joins {
    struct gauge present;
    pthread_t ident; /* of a core */
    atomic_int ready;
};

/* Ends when all visitors wait for their threads: so nobody's join may keep the others. */
static void *end_together(void *arg)
{
    const struct joins *s = arg;
    while (s->present.most_ever < 10)
        usleep(100);
    return (void *)0x4711;
}

static int end_together_c11(void *arg)
{
    (void)end_together(arg);
    return 12;
}

static void app_join(struct visitor *v)
{
    struct joins *s = v->world->arg;
    pthread_t thread;
    void *result = NULL;
    struct timespec t;
    errno = 99;
    /* To TSan what thrd_create made is no thread, and nobody may join it. */
    if (v->number == 9 && !PN_TSAN) {
        thrd_t c11;
        int value = 0;
        REQUIRE(thrd_create(&c11, end_together_c11, s) == thrd_success);
        gauge_enter(&s->present);
        REQUIRE(probe->thrd_join(c11, &value) == thrd_success);
        REQUIRE(value == 12);
        return;
    }
    REQUIRE(pthread_create(&thread, NULL, end_together, s) == 0);
    t = wait_in_ms(CLOCK_MONOTONIC, 3);
    REQUIRE(probe->pthread_clockjoin_np(thread, &result, CLOCK_MONOTONIC, &t) == ETIMEDOUT);
    t = wait_in_ms(CLOCK_REALTIME, 3);
    REQUIRE(probe->pthread_timedjoin_np(thread, &result, &t) == ETIMEDOUT);
    gauge_enter(&s->present);
    errno = 99; /* pthread_create of later glibcs may have changed it */
    REQUIRE(probe->pthread_join(thread, &result) == 0);
    REQUIRE(errno == 99);
    REQUIRE(result == (void *)0x4711);
    /* TSan forgets a thread that anybody tries to join, refused or not: it stops at the true join. */
    if (!PN_TSAN)
        REQUIRE(probe->pthread_join(probe->pthread_self(), NULL) == EDEADLK);
}

static void joins_keep_nobody(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct joins s = {0};
        struct world w = {.arg = &s};
        wait_serve(&w, wait_carriers[c], 10, app_join);
        assert_int_equal(s.present.most_ever, 10);
    }
}

/* --- Barriers --------------------------------------------------------------------------------------- */

struct barrier {
    pthread_barrier_t barrier;
    atomic_int serials;
    atomic_int rounds;
};

static void arrive(struct barrier *s)
{
    for (int i = 0; i < 5; i++) {
        int r = probe->pthread_barrier_wait(&s->barrier);
        REQUIRE(r == 0 || r == PTHREAD_BARRIER_SERIAL_THREAD);
        if (r != 0)
            atomic_fetch_add(&s->serials, 1);
        atomic_fetch_add(&s->rounds, 1);
    }
}

static void app_barrier(struct visitor *v)
{
    arrive(v->world->arg);
}

static void *barrier_outside(void *arg)
{
    arrive(arg);
    return NULL;
}

static void barriers_count_cores_and_threads(void **state)
{
    (void)state;
    for (size_t c = 0; c < WAIT_CARRIERS; c++) {
        struct barrier s = {0};
        struct world w = {.arg = &s};
        pthread_t outside;
        assert_int_equal(pthread_barrier_init(&s.barrier, NULL, 9), 0);
        assert_int_equal(pthread_create(&outside, NULL, barrier_outside, &s), 0);
        wait_serve(&w, wait_carriers[c], 8, app_barrier);
        pthread_join(outside, NULL);
        assert_int_equal(s.rounds, 45);
        assert_int_equal(s.serials, 5);
        pthread_barrier_destroy(&s.barrier);
    }
}

/* --- Once ------------------------------------------------------------------------------------------- */

static pthread_once_t once_control;
static once_flag once_c11;
static atomic_int once_runs;
static struct gauge once_present;

static void initialise(void)
{
    /* The others come meanwhile. */
    while (atomic_load(&once_present.most_ever) < 8)
        REQUIRE(probe->usleep(200) == 0);
    REQUIRE(probe->usleep(1000) == 0);
    atomic_fetch_add(&once_runs, 1);
}

static void app_once(struct visitor *v)
{
    gauge_enter(&once_present);
    if (v->world->arg)
        probe->call_once(&once_c11, initialise);
    else
        REQUIRE(probe->pthread_once(&once_control, initialise) == 0);
    REQUIRE(atomic_load(&once_runs) == 1);
    gauge_leave(&once_present);
}

static void an_initialiser_may_wait(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct world w = {.arg = i / 2 ? &w : NULL};
        once_control = (pthread_once_t)PTHREAD_ONCE_INIT;
        once_c11 = (once_flag)ONCE_FLAG_INIT;
        atomic_store(&once_runs, 0);
        once_present = (struct gauge){0};
        wait_serve(&w, wait_carriers[i % 2], 8, app_once);
        assert_int_equal(once_runs, 1);
    }
}

/* --- Yields ----------------------------------------------------------------------------------------- */

struct spin {
    atomic_int step;
};

/* Each waits for the one before, by spinning as careless code does. */
static void app_spin(struct visitor *v)
{
    struct spin *s = v->world->arg;
    struct timespec zero = {0}, now = wait_in_ms(CLOCK_MONOTONIC, 0);
    while (atomic_load(&s->step) != 5 - v->number) {
        if (v->number % 3 == 0)
            REQUIRE(probe->sched_yield() == 0);
        else if (v->number % 3 == 1)
            REQUIRE(probe->clock_nanosleep(CLOCK_MONOTONIC, 0, &zero, NULL) == 0);
        else
            REQUIRE(probe->clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &now, NULL) == 0);
    }
    atomic_fetch_add(&s->step, 1);
}

static void yielding_lets_the_other_fibers_run(void **state)
{
    struct spin s = {0};
    struct world w = {.arg = &s};
    (void)state;
    wait_serve(&w, PN_CARRIER_FIBERS, 6, app_spin);
    assert_int_equal(s.step, 6);
}

/* --- Futexes ---------------------------------------------------------------------------------------- */

struct futex {
    uint32_t word;
    struct gauge present;
    atomic_int woken;
    int flags;
    int outside;
};

static long futex(uint32_t *word, int op, uint32_t value, const void *time, uint32_t bits)
{
    return probe->syscall(SYS_futex, word, op, value, time, NULL, bits);
}

static void wait_for_change(struct futex *s, uint32_t bits)
{
    gauge_enter(&s->present);
    while (__atomic_load_n(&s->word, __ATOMIC_SEQ_CST) == 0) {
        long r = futex(&s->word, FUTEX_WAIT_BITSET | s->flags, 0, NULL, bits);
        REQUIRE(r == 0 || errno == EAGAIN || errno == EINTR);
    }
    atomic_fetch_add(&s->woken, 1);
}

static void *futex_outside(void *arg)
{
    wait_for_change(arg, FUTEX_BITSET_MATCH_ANY);
    return NULL;
}

static void app_futex(struct visitor *v)
{
    struct futex *s = v->world->arg;
    if (v->number < 8) {
        wait_for_change(s, 1u << v->number);
        return;
    }
    struct timespec t = {.tv_nsec = 20 * PN_NS_PER_MS}, bad = {.tv_nsec = -1};
    int64_t start_ns = pn_clock_mono_ns();
    REQUIRE(futex(&s->word, FUTEX_WAIT | s->flags, 1, &t, 0) == -1 && errno == EAGAIN);
    REQUIRE(futex(&s->word, FUTEX_WAIT | s->flags, 0, &bad, 0) == -1 && errno == EINVAL);
    REQUIRE(futex(&s->word, FUTEX_WAIT | s->flags, 0, &t, 0) == -1 && errno == ETIMEDOUT);
    REQUIRE(pn_clock_mono_ns() - start_ns >= 20 * PN_NS_PER_MS);
    t = wait_in_ms(CLOCK_REALTIME, 5);
    REQUIRE(futex(&s->word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME | s->flags, 0, &t,
                  FUTEX_BITSET_MATCH_ANY) == -1 &&
            errno == ETIMEDOUT);
    while (s->present.most_ever < 9)
        REQUIRE(probe->usleep(200) == 0);
    REQUIRE(probe->usleep(2000) == 0);
    if (!(s->flags & FUTEX_PRIVATE_FLAG)) {
        /* As another process would: nobody here is told. */
        __atomic_store_n(&s->word, 1, __ATOMIC_SEQ_CST);
        REQUIRE(syscall(SYS_futex, &s->word, FUTEX_WAKE, 100, NULL, NULL, 0) >= 1);
        return;
    }
    /* Spuriously: only those who have the bit. */
    REQUIRE(futex(&s->word, FUTEX_WAKE_BITSET | s->flags, 1, NULL, 1u << 30) <= 1);
    __atomic_store_n(&s->word, 1, __ATOMIC_SEQ_CST);
    long woken = 0;
    while (s->woken < 9) {
        woken += futex(&s->word, FUTEX_WAKE | s->flags, 100, NULL, 0);
        REQUIRE(probe->usleep(200) == 0);
    }
    REQUIRE(woken >= 8);
}

static void futexes_wait_and_wake(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct futex s = {.flags = i / 2 ? 0 : FUTEX_PRIVATE_FLAG};
        struct world w = {.arg = &s};
        pthread_t outside;
        pthread_create(&outside, NULL, futex_outside, &s);
        wait_serve(&w, wait_carriers[i % 2], 9, app_futex);
        pthread_join(outside, NULL);
        assert_int_equal(s.woken, 9);
        if (s.flags)
            assert_int_equal(w.cores_stats.rechecks_needed, 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_keep_nobody),
        cmocka_unit_test(barriers_count_cores_and_threads),
        cmocka_unit_test(an_initialiser_may_wait),
        cmocka_unit_test(yielding_lets_the_other_fibers_run),
        cmocka_unit_test(futexes_wait_and_wake),
    };
    probe = wait_probe(argc, argv, "lock_probe");
    if (!probe)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX semaphores in a core: what threading.Lock, and with it queue.Queue and most of Python's
 * locks, are made of (CPython 3.11 to 3.13).
 *
 * A thread that finds the semaphore taken offers the loop and blocks in the same call. A fiber stands
 * in a queue of its semaphore and parks; sem_post, redirected in every thread, posts first and then
 * wakes the oldest fiber in the queue. The woken one takes the semaphore by sem_trywait like everybody: a post
 * is never given away, so mixed waiters (threads that are no cores) keep their fairness to each other.
 *
 * No wake is lost: a waiter enters the queue, then tries; a poster posts, then looks at the queue (both
 * sequentially consistent). What nobody in this process posts (process-shared semaphores, calls that
 * nothing redirects) is found by looking again: soon at first, then once a second; and is counted.
 * Waits for locks are never cut, since `with lock:` ignores what acquire returns: a cut only makes
 * the fiber look again. */
#include <errno.h>
#include <stdatomic.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "base/list.h"
#include "wait/gate.h"

struct waiter {
    struct pn_list node; /* in its bucket while not woken */
    sem_t *sem;
    struct pn_core *core;
    uint32_t number;
};

enum {
    BUCKETS = 256,
    LOCK_SPINS = 2000, /* a poster that finds a bucket locked this long lets the re-check do it:
                          it may be a signal handler on top of the holder */
};

/* Process-wide: a post may come from any thread. */
static struct bucket {
    _Alignas(64) atomic_flag busy;
    bool made;
    struct pn_list waiters;
} buckets[BUCKETS];
static _Atomic unsigned waiter_count;

static struct bucket *bucket_of(const sem_t *sem)
{
    return &buckets[((uintptr_t)sem >> 4) % BUCKETS];
}

static bool bucket_lock(struct bucket *b, unsigned spins)
{
    for (unsigned i = 0; atomic_flag_test_and_set_explicit(&b->busy, memory_order_acquire); i++) {
        if (spins && i == spins)
            return false;
        __builtin_ia32_pause();
    }
    if (!b->made) {
        pn_list_init(&b->waiters);
        b->made = true;
    }
    return true;
}

static void bucket_unlock(struct bucket *b)
{
    atomic_flag_clear_explicit(&b->busy, memory_order_release);
}

static void enqueue(struct waiter *w)
{
    struct bucket *b = bucket_of(w->sem);
    w->number = pn_core_wait_begin(w->core);
    (void)bucket_lock(b, 0);
    pn_list_push_back(&b->waiters, &w->node);
    bucket_unlock(b);
    atomic_fetch_add(&waiter_count, 1);
}

/* True when nobody had woken it. */
static bool dequeue(struct waiter *w)
{
    struct bucket *b = bucket_of(w->sem);
    (void)bucket_lock(b, 0);
    bool waiting = pn_list_linked(&w->node);
    pn_list_remove(&w->node);
    bucket_unlock(b);
    atomic_fetch_sub(&waiter_count, 1);
    return waiting;
}

static void wake_one(sem_t *sem)
{
    struct bucket *b = bucket_of(sem);
    struct pn_list *pos;
    struct pn_core *core = NULL;
    uint32_t number = 0;
    if (!bucket_lock(b, LOCK_SPINS))
        return;
    pn_list_for_each(pos, &b->waiters)
    {
        struct waiter *w = pn_list_entry(pos, struct waiter, node);
        if (w->sem != sem)
            continue;
        core = w->core;
        number = w->number;
        pn_list_remove(&w->node);
        break;
    }
    bucket_unlock(b);
    if (core)
        pn_core_unpark(core, number);
}

/* 0, or ETIMEDOUT. The first looks are close together for semaphores that others share, then once a second. */
static int wait_fiber(struct pn_core *core, sem_t *sem, int64_t deadline_ns)
{
    struct waiter w = {.sem = sem, .core = core};
    int64_t look_ns = 20 * PN_NS_PER_MS;
    const int64_t look_max_ns = (int64_t)PN_CORE_RECHECK_MS * PN_NS_PER_MS;
    pn_list_init(&w.node);
    for (;;) {
        enqueue(&w);
        if (sem_trywait(sem) == 0) {
            if (!dequeue(&w))
                wake_one(sem); /* a wake was spent on us that another one may need */
            return 0;
        }
        int64_t now_ns = pn_clock_mono_ns();
        int64_t until_ns = pn_deadline_ns(now_ns, look_ns);
        if (deadline_ns < until_ns)
            until_ns = deadline_ns;
        (void)pn_core_park(core, w.number, until_ns);
        bool unwoken = dequeue(&w);
        if (sem_trywait(sem) == 0) {
            if (unwoken)
                pn_core_count_recheck(core);
            return 0;
        }
        if (pn_clock_mono_ns() >= deadline_ns)
            return ETIMEDOUT;
        look_ns = look_ns * 2 < look_max_ns ? look_ns * 2 : look_max_ns;
    }
}

/* The deadline of CLOCK as one of CLOCK_MONOTONIC. */
static int64_t to_monotonic_ns(clockid_t clock, const struct timespec *t)
{
    struct timespec now;
    if (t->tv_sec > PN_NEVER_NS / PN_NS_PER_SEC - 1)
        return PN_NEVER_NS;
    if (clock == CLOCK_MONOTONIC || clock_gettime(clock, &now) != 0)
        return pn_timespec_ns(t);
    int64_t left_ns = pn_timespec_ns(t) - pn_timespec_ns(&now);
    return pn_deadline_ns(pn_clock_mono_ns(), left_ns > 0 ? left_ns : 0);
}

static bool is_valid(const struct timespec *t)
{
    return t->tv_nsec >= 0 && t->tv_nsec < PN_NS_PER_SEC;
}

/* Which of the three libc calls a thread repeats. */
enum sem_call {
    SEM_WAIT = 0,
    SEM_TIMEDWAIT = 1,
    SEM_CLOCKWAIT = 2,
};

static int libc_call(enum sem_call call, sem_t *sem, clockid_t clock,
                     const struct timespec *deadline)
{
    switch (call) {
    case SEM_WAIT:
        return sem_wait(sem);
    case SEM_TIMEDWAIT:
        return sem_timedwait(sem, deadline);
    case SEM_CLOCKWAIT:
        return sem_clockwait(sem, clock, deadline);
    }
    return -1;
}

static int wait_thread(struct pn_core *core, enum sem_call call, sem_t *sem, clockid_t clock,
                       const struct timespec *deadline)
{
    int r;
    do {
        if (!pn_core_block_begin(core, -1, 0))
            return 0;
        r = libc_call(call, sem, clock, deadline);
        int saved = errno;
        pn_core_block_end(core);
        errno = saved;
        /* The signal that cuts a core doesn't end its waits for locks. */
    } while (r < 0 && errno == EINTR && pn_core_is_cut(core));
    return r;
}

static int wait_any(enum sem_call call, sem_t *sem, clockid_t clock,
                    const struct timespec *deadline)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (deadline && !is_valid(deadline)))
        return libc_call(call, sem, clock, deadline);
    int saved = errno;
    if (sem_trywait(sem) == 0)
        return 0;
    if (errno != EAGAIN) /* EINVAL: not a semaphore */
        return -1;
    errno = saved;
    pn__wait_count();
    if (!pn__core_is_fiber(core))
        return wait_thread(core, call, sem, clock, deadline);
    int r = wait_fiber(core, sem, deadline ? to_monotonic_ns(clock, deadline) : PN_NEVER_NS);
    errno = r ? r : saved;
    return r ? -1 : 0;
}

int pn__call_sem_wait(sem_t *sem)
{
    return wait_any(SEM_WAIT, sem, CLOCK_REALTIME, NULL);
}

int pn__call_sem_timedwait(sem_t *sem, const struct timespec *deadline)
{
    return wait_any(SEM_TIMEDWAIT, sem, CLOCK_REALTIME, deadline);
}

int pn__call_sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *deadline)
{
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME)
        return sem_clockwait(sem, clock, deadline);
    return wait_any(SEM_CLOCKWAIT, sem, clock, deadline);
}

int pn__call_sem_post(sem_t *sem)
{
    /* Once posted, the semaphore may be freed by its new owner: only its address is used after. */
    int r = sem_post(sem);
    if (pn_unlikely(atomic_load(&waiter_count) != 0)) {
        int saved = errno;
        wake_one(sem);
        errno = saved;
    }
    return r;
}

void pn__sem_after_fork_child(void)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        atomic_flag_clear(&buckets[i].busy);
        buckets[i].made = false;
    }
    atomic_store(&waiter_count, 0);
}

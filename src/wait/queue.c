/* SPDX-License-Identifier: Apache-2.0 */
/* The hash of waiters, and the one loop by which fibers wait for locks. */
#include "wait/queue.h"

#include <errno.h>
#include <sched.h>

#include "base/bounds.h"
#include "base/clock.h"

enum {
    BUCKETS = 256,
    LOCK_SPINS = 2000, /* a waker that finds a bucket locked this long lets the re-check do it:
                          it may be a signal handler on top of the holder */
};

/* Process-wide: a wake may come from any thread. */
static struct bucket {
    _Alignas(64) atomic_flag busy;
    bool made;
    struct pn_list waiters;
} buckets[BUCKETS];
_Atomic unsigned pn__queue_count;
static _Atomic unsigned
    wakers; /* threads that are between taking a waiter off and telling its core */

static struct bucket *bucket_of(const void *key)
{
    uintptr_t a = (uintptr_t)key;
    return &buckets[(a >> 3 ^ a >> 11) % BUCKETS];
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

void pn__queue_enter(struct pn__waiter *w, struct pn_core *core, const void *key, uint32_t bits)
{
    struct bucket *b = bucket_of(key);
    *w = (struct pn__waiter){.key = key, .core = core, .bits = bits};
    w->number = pn_core_wait_begin(core);
    (void)bucket_lock(b, 0);
    pn_list_push_back(&b->waiters, &w->node);
    bucket_unlock(b);
    atomic_fetch_add(&pn__queue_count, 1);
}

bool pn__queue_leave(struct pn__waiter *w)
{
    struct bucket *b = bucket_of(w->key);
    (void)bucket_lock(b, 0);
    bool waiting = pn_list_linked(&w->node);
    pn_list_remove(&w->node);
    bucket_unlock(b);
    atomic_fetch_sub(&pn__queue_count, 1);
    return waiting;
}

/* Takes the oldest off; its core and number, since the waiter may be gone once the bucket is unlocked. */
static bool take_one(struct bucket *b, const void *key, uint32_t bits, struct pn__waiter *taken)
{
    struct pn_list *pos;
    bool found = false;
    if (!bucket_lock(b, LOCK_SPINS))
        return false;
    pn_list_for_each(pos, &b->waiters)
    {
        struct pn__waiter *w = pn_list_entry(pos, struct pn__waiter, node);
        if (w->key != key || !(w->bits & bits))
            continue;
        *taken = *w;
        pn_list_remove(&w->node);
        found = true;
        break;
    }
    bucket_unlock(b);
    return found;
}

unsigned pn__queue_wake(const void *key, unsigned count, uint32_t bits)
{
    int saved = errno;
    struct pn__waiter taken;
    unsigned woken = 0;
    atomic_fetch_add(&wakers, 1);
    while (woken < count && take_one(bucket_of(key), key, bits, &taken)) {
        pn_core_unpark(taken.core, taken.number);
        woken++;
    }
    atomic_fetch_sub(&wakers, 1);
    errno = saved;
    return woken;
}

void pn__queue_settle(void)
{
    /* Microseconds: a wake never waits. */
    while (atomic_load(&wakers) > 0)
        sched_yield();
}

int64_t pn__until_ns(struct pn__until until)
{
    struct timespec now;
    if (!until.at || until.at->tv_sec > PN_NEVER_NS / PN_NS_PER_SEC - 1)
        return PN_NEVER_NS;
    if (until.at->tv_sec < 0)
        return 0;
    if (until.clock == CLOCK_MONOTONIC || clock_gettime(until.clock, &now) != 0)
        return pn_timespec_ns(until.at);
    int64_t left_ns = pn_timespec_ns(until.at) - pn_timespec_ns(&now);
    return left_ns > 0 ? pn_deadline_ns(pn_clock_mono_ns(), left_ns) : 0;
}

/* One stay in the queue. EBUSY: go on. */
static int stay(struct pn__waiter *w, int (*try)(void *arg), void *arg, int64_t until_ns)
{
    int r = try(arg);
    if (r != EBUSY) {
        if (!pn__queue_leave(w))
            pn__wake(w->key, 1); /* a wake was spent on us that another one may need */
        return r;
    }
    (void)pn_core_park(w->core, w->number, until_ns);
    bool unwoken = pn__queue_leave(w);
    r = try(arg);
    if (r != EBUSY && unwoken)
        pn_core_count_recheck(w->core);
    return r;
}

int pn__park_until(struct pn_core *core, const void *key, int (*try)(void *arg), void *arg,
                   struct pn__until until, enum pn__looks looks)
{
    const int64_t look_max_ns =
        (looks == PN__LOOKS_SHARED ? PN_CORE_REPOLL_MAX_MS : PN_CORE_RECHECK_MS) * PN_NS_PER_MS;
    int64_t look_ns = looks == PN__LOOKS_SHARED ? PN_NS_PER_MS : look_max_ns;
    struct pn__waiter w;
    int saved = errno;
    int r;
    for (;;) {
        pn__queue_enter(&w, core, key, PN__WAKE_ANY);
        /* Reckoned anew each time: the real clock may be set meanwhile. */
        int64_t deadline_ns = pn__until_ns(until);
        int64_t until_ns = pn_deadline_ns(pn_clock_mono_ns(), look_ns);
        r = stay(&w, try, arg, deadline_ns < until_ns ? deadline_ns : until_ns);
        if (r == EBUSY && pn_clock_mono_ns() >= pn__until_ns(until))
            r = ETIMEDOUT;
        if (r != EBUSY)
            break;
        look_ns = look_ns * 2 < look_max_ns ? look_ns * 2 : look_max_ns;
    }
    errno = saved;
    return r;
}

void pn__queue_after_fork_child(void)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        atomic_flag_clear(&buckets[i].busy);
        buckets[i].made = false;
    }
    atomic_store(&pn__queue_count, 0);
    atomic_store(&wakers, 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* pthread rwlocks (POSIX.1-2017; clock* of glibc 2.30) in a core.
 *
 * All fibers read and write with the OS thread's identity, which glibc looks at only to say EDEADLK to
 * the writer that asks again. Fibers try, so that they never hear it in error; the fiber that really is
 * the writer is kept in an unused word of the lock for as long as __cur_writer is this thread. Any unlock wakes
 * all fibers in the queue: who may go on depends on what they want, and they find out by trying. */
#include <errno.h>

#include "wait/layout.h"
#include "wait/locks.h"

enum how {
    READ = 0,
    WRITE = 1,
};

struct request {
    pthread_rwlock_t *lock;
    enum how how;
};

static bool written_here(const pthread_rwlock_t *l)
{
    return pn__layout.rwlock_writer &&
           __atomic_load_n(&l->__data.__cur_writer, __ATOMIC_RELAXED) == pn__thread_id();
}

static int try_lock(pthread_rwlock_t *l, enum how how)
{
    if (how == READ)
        return pthread_rwlock_tryrdlock(l);
    int r = pthread_rwlock_trywrlock(l);
    struct pn_core *fiber;
    if (r == 0 && pn__layout.rwlock_writer && (fiber = pn__fiber_self()))
        l->__data.__pad2 = (uintptr_t)fiber;
    return r;
}

static int try_parked(void *arg)
{
    const struct request *q = arg;
    return try_lock(q->lock, q->how);
}

static int libc_lock(const struct request *q, struct pn__until until, bool by_clock)
{
    pthread_rwlock_t *l = q->lock;
    if (!until.at)
        return q->how == READ ? pthread_rwlock_rdlock(l) : pthread_rwlock_wrlock(l);
    if (q->how == READ)
        return by_clock ? pthread_rwlock_clockrdlock(l, until.clock, until.at)
                        : pthread_rwlock_timedrdlock(l, until.at);
    return by_clock ? pthread_rwlock_clockwrlock(l, until.clock, until.at)
                    : pthread_rwlock_timedwrlock(l, until.at);
}

static int lock_busy(struct request *q, struct pn__until until, bool by_clock)
{
    struct pn_core *core = pn__wait_gate();
    struct pn_core *fiber = pn__fiber_self();
    bool mine = fiber && written_here(q->lock);
    if (mine && q->lock->__data.__pad2 == (uintptr_t)fiber)
        return EDEADLK;
    if (!core) {
        bool parked = false;
        int r = EBUSY;
        if (mine)
            r = pn__park_attached(fiber, q->lock, try_parked, q, until, &parked);
        return parked ? r : libc_lock(q, until, by_clock);
    }
    pn__wait_count();
    if (fiber)
        return pn__park_until(core, q->lock, try_parked, q, until,
                              q->lock->__data.__shared ? PN__LOOKS_SHARED : PN__LOOKS_PRIVATE);
    if (!pn_core_block_begin(core, -1, 0))
        return try_lock(q->lock, q->how);
    int r = libc_lock(q, until, by_clock);
    pn_core_block_end(core);
    return r;
}

static int lock_any(pthread_rwlock_t *l, enum how how, struct pn__until until, bool by_clock)
{
    struct request q = {l, how};
    /* glibc refuses a bad time or clock even where the lock is free. */
    if (!pn_core_self() || !pn__until_is_valid(until))
        return libc_lock(&q, until, by_clock);
    int r = try_lock(l, how);
    return pn_likely(r != EBUSY) ? r : lock_busy(&q, until, by_clock);
}

int pn__call_pthread_rwlock_rdlock(pthread_rwlock_t *l)
{
    return lock_any(l, READ, PN__FOREVER, false);
}

int pn__call_pthread_rwlock_wrlock(pthread_rwlock_t *l)
{
    return lock_any(l, WRITE, PN__FOREVER, false);
}

int pn__call_pthread_rwlock_timedrdlock(pthread_rwlock_t *l, const struct timespec *deadline)
{
    return lock_any(l, READ, (struct pn__until){CLOCK_REALTIME, deadline}, false);
}

int pn__call_pthread_rwlock_timedwrlock(pthread_rwlock_t *l, const struct timespec *deadline)
{
    return lock_any(l, WRITE, (struct pn__until){CLOCK_REALTIME, deadline}, false);
}

int pn__call_pthread_rwlock_clockrdlock(pthread_rwlock_t *l, clockid_t clock,
                                        const struct timespec *deadline)
{
    if (!pn__is_lock_clock(clock))
        return pthread_rwlock_clockrdlock(l, clock, deadline);
    return lock_any(l, READ, (struct pn__until){clock, deadline}, true);
}

int pn__call_pthread_rwlock_clockwrlock(pthread_rwlock_t *l, clockid_t clock,
                                        const struct timespec *deadline)
{
    if (!pn__is_lock_clock(clock))
        return pthread_rwlock_clockwrlock(l, clock, deadline);
    return lock_any(l, WRITE, (struct pn__until){clock, deadline}, true);
}

int pn__call_pthread_rwlock_trywrlock(pthread_rwlock_t *l)
{
    return try_lock(l, WRITE);
}

int pn__call_pthread_rwlock_unlock(pthread_rwlock_t *l)
{
    if (pn__layout.rwlock_writer && l->__data.__pad2 && written_here(l))
        l->__data.__pad2 = 0;
    int r = pthread_rwlock_unlock(l);
    pn__wake(l, UINT32_MAX);
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* pthread mutexes (POSIX.1-2017; clocklock of glibc 2.30) in a core.
 *
 * Recursive and error-checking mutexes belong to the OS thread, which all fibers share: every one of them would
 * get in. So whose it is among the fibers is kept beside glibc's own account, in the mutex itself: __list is
 * used by robust mutexes only, and holds the address of the owning core for as long as __owner is this
 * thread. A mark in a mutex that another thread holds, or nobody, means nothing; no mark means that the mutex
 * was locked past us, and then glibc's word counts. Nothing needs to be freed, and an initialiser
 * clears it.
 *
 * Robust and process-shared ones: other processes free them, so a parked fiber looks again every 1 to 20 ms.
 * The owner of a robust recursive one isn't kept (its __list is the kernel's): fibers share it, as they
 * share a thread. */
#include <errno.h>

#include "wait/layout.h"
#include "wait/locks.h"

enum {
    KIND_MASK = 3, /* the type; the bits above are robust, protocol, shared */
};

/* Whether fibers need an owner of their own for this one. */
static bool is_owned(const pthread_mutex_t *m)
{
    int type = m->__data.__kind & KIND_MASK;
    return (type == PTHREAD_MUTEX_RECURSIVE || type == PTHREAD_MUTEX_ERRORCHECK) &&
           !(m->__data.__kind & pn__layout.mutex_robust) && pn__layout.mutex_owner;
}

/* A fiber of this thread holds it. */
static bool held_here(const pthread_mutex_t *m)
{
    return __atomic_load_n(&m->__data.__owner, __ATOMIC_RELAXED) == pn__thread_id();
}

static struct pn_core *owner_of(const pthread_mutex_t *m)
{
    return (struct pn_core *)(void *)m->__data.__list.__prev;
}

static void set_owner(pthread_mutex_t *m, struct pn_core *core)
{
    m->__data.__list.__prev = (void *)core;
}

struct pn_core *pn__fiber_self(void)
{
    struct pn_core *core = pn_core_self();
    if (!core || !pn__core_is_fiber(core) ||
        !atomic_load_explicit(&pn__wait_on, memory_order_relaxed))
        return NULL;
    return core;
}

/* trylock with the owner as fibers see it. */
static int try_owned(pthread_mutex_t *m, struct pn_core *fiber)
{
    if (held_here(m) && owner_of(m) && owner_of(m) != fiber)
        return EBUSY;
    int r = pthread_mutex_trylock(m);
    if (r == 0)
        set_owner(m, fiber);
    return r;
}

static int try_lock(pthread_mutex_t *m)
{
    struct pn_core *fiber;
    if (pn_unlikely(is_owned(m)) && (fiber = pn__fiber_self()))
        return try_owned(m, fiber);
    return pthread_mutex_trylock(m);
}

/* Which of the three libc calls a thread makes. */
static int libc_lock(pthread_mutex_t *m, struct pn__until until, bool by_clock)
{
    if (!until.at)
        return pthread_mutex_lock(m);
    return by_clock ? pthread_mutex_clocklock(m, until.clock, until.at)
                    : pthread_mutex_timedlock(m, until.at);
}

static int try_parked(void *arg)
{
    return try_lock(arg);
}

static int lock_thread(struct pn_core *core, pthread_mutex_t *m, struct pn__until until,
                       bool by_clock)
{
    if (!pn_core_block_begin(core, -1, 0))
        return try_lock(m);
    int r = libc_lock(m, until, by_clock);
    pn_core_block_end(core);
    return r;
}

int pn__park_attached(struct pn_core *core, const void *key, int (*try)(void *arg), void *arg,
                      struct pn__until until, bool *parked)
{
    *parked = core && pn_core_attached(core) && !pn_core_owns_loop(core);
    if (!*parked)
        return EBUSY;
    pn__wait_count();
    pn_core_detach(core);
    int r = pn__park_until(core, key, try, arg, until, PN__LOOKS_PRIVATE);
    pn_core_attach(core);
    return r;
}

/* trylock said EBUSY. */
static int lock_busy(pthread_mutex_t *m, struct pn__until until, bool by_clock)
{
    struct pn_core *core = pn__wait_gate();
    struct pn_core *fiber = pn__fiber_self();
    if (fiber && is_owned(m) && held_here(m) && owner_of(m) == fiber)
        return EDEADLK; /* error-checking: a recursive one would not have been busy */
    if (!pn__until_is_valid(until))
        return EINVAL;
    if (!core) {
        bool parked = false;
        int r = EBUSY;
        if (fiber && held_here(m))
            r = pn__park_attached(fiber, m, try_parked, m, until, &parked);
        return parked ? r : libc_lock(m, until, by_clock);
    }
    pn__wait_count();
    if (!fiber)
        return lock_thread(core, m, until, by_clock);
    return pn__park_until(core, m, try_parked, m, until,
                          pn__mutex_is_shared(m) ? PN__LOOKS_SHARED : PN__LOOKS_PRIVATE);
}

int pn__call_pthread_mutex_lock(pthread_mutex_t *m)
{
    if (!pn_core_self())
        return pthread_mutex_lock(m);
    int r = try_lock(m);
    return pn_likely(r != EBUSY) ? r : lock_busy(m, PN__FOREVER, false);
}

int pn__call_pthread_mutex_timedlock(pthread_mutex_t *m, const struct timespec *deadline)
{
    if (!pn_core_self())
        return pthread_mutex_timedlock(m, deadline);
    int r = try_lock(m);
    return r != EBUSY ? r : lock_busy(m, (struct pn__until){CLOCK_REALTIME, deadline}, false);
}

int pn__call_pthread_mutex_clocklock(pthread_mutex_t *m, clockid_t clock,
                                     const struct timespec *deadline)
{
    if (!pn_core_self() || !pn__is_lock_clock(clock))
        return pthread_mutex_clocklock(m, clock, deadline);
    int r = try_lock(m);
    return r != EBUSY ? r : lock_busy(m, (struct pn__until){clock, deadline}, true);
}

int pn__call_pthread_mutex_trylock(pthread_mutex_t *m)
{
    return try_lock(m);
}

int pn__call_pthread_mutex_unlock(pthread_mutex_t *m)
{
    struct pn_core *fiber;
    if (pn_unlikely(is_owned(m)) && (fiber = pn__fiber_self()) && held_here(m) && owner_of(m)) {
        if (owner_of(m) != fiber)
            return EPERM;
        /* The last one: from the unlock on the memory may be somebody else's. */
        if (m->__data.__count <= 1)
            set_owner(m, NULL);
    }
    int r = pthread_mutex_unlock(m);
    pn__wake(m, 1);
    return r;
}

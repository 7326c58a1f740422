/* SPDX-License-Identifier: Apache-2.0 */
/* Condition variables (POSIX.1-2017; clockwait of glibc 2.30) in a core; never the interpreter's own, which
 * its GIL is made of.
 *
 * A wait of libc's lets the mutex go and takes it back inside libc, as the OS thread. So a fiber does the
 * whole of it by itself: it stands in the queue before it unlocks, which is what makes unlock and wait one
 * step, and takes the mutex back like any lock. A signal goes to libc's waiters and to the oldest fiber: POSIX
 * lets both wake. A wait has nothing to look at again; so that no forgotten wake lasts, it ends as a spurious
 * one (which POSIX allows) after a second, and after 20 ms where other processes may signal. */
#include <errno.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "wait/layout.h"
#include "wait/locks.h"

static int park(struct pn_core *core, struct pn__waiter *w, const pthread_cond_t *c,
                struct pn__until until)
{
    bool shared = pn__layout.cond_shared && (c->__data.__wrefs & pn__layout.cond_shared);
    int64_t look_ns = (shared ? PN_CORE_REPOLL_MAX_MS : PN_CORE_RECHECK_MS) * (int64_t)PN_NS_PER_MS;
    int64_t spurious_ns = pn_deadline_ns(pn_clock_mono_ns(), look_ns);
    int rc;
    do {
        int64_t deadline_ns = pn__until_ns(until);
        rc = pn_core_park(core, w->number, deadline_ns < spurious_ns ? deadline_ns : spurious_ns);
        if (rc == PN_WAIT_CUT) {
            /* Locks are never cut: the same wait again, unless it was woken meanwhile. */
            if (!pn__queue_leave(w))
                return 0;
            pn__queue_enter(w, core, c, PN__WAKE_ANY);
        }
    } while (rc == PN_WAIT_CUT);
    bool woken = !pn__queue_leave(w);
    return !woken && pn_clock_mono_ns() >= pn__until_ns(until) ? ETIMEDOUT : 0;
}

static int wait_fiber(struct pn_core *core, pthread_cond_t *c, pthread_mutex_t *m,
                      struct pn__until until)
{
    struct pn__waiter w;
    int saved = errno;
    pn__queue_enter(&w, core, c, PN__WAKE_ANY);
    int r = pn__call_pthread_mutex_unlock(m);
    if (r != 0) {
        (void)pn__queue_leave(&w);
        return r;
    }
    r = park(core, &w, c, until);
    int locked = pn__call_pthread_mutex_lock(m);
    errno = saved;
    return locked ? locked : r;
}

static int libc_wait(pthread_cond_t *c, pthread_mutex_t *m, struct pn__until until, bool by_clock)
{
    if (!until.at)
        return pthread_cond_wait(c, m);
    return by_clock ? pthread_cond_clockwait(c, m, until.clock, until.at)
                    : pthread_cond_timedwait(c, m, until.at);
}

static int wait_any(pthread_cond_t *c, pthread_mutex_t *m, struct pn__until until, bool by_clock)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || !pn__until_is_valid(until))
        return libc_wait(c, m, until, by_clock);
    pn__wait_count();
    if (pn__core_is_fiber(core))
        return wait_fiber(core, c, m, until);
    if (!pn_core_block_begin(core, -1, 0))
        return 0;
    int r = libc_wait(c, m, until, by_clock);
    pn_core_block_end(core);
    return r;
}

int pn__call_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    return wait_any(c, m, PN__FOREVER, false);
}

int pn__call_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                    const struct timespec *deadline)
{
    /* The clock that the condition variable was made with. */
    bool monotonic = (c->__data.__wrefs & pn__layout.cond_monotonic) != 0;
    struct pn__until until = {monotonic ? CLOCK_MONOTONIC : CLOCK_REALTIME, deadline};
    return wait_any(c, m, until, false);
}

int pn__call_pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t clock,
                                    const struct timespec *deadline)
{
    if (!pn__is_lock_clock(clock))
        return pthread_cond_clockwait(c, m, clock, deadline);
    return wait_any(c, m, (struct pn__until){clock, deadline}, true);
}

int pn__call_pthread_cond_signal(pthread_cond_t *c)
{
    int r = pthread_cond_signal(c);
    pn__wake(c, 1);
    return r;
}

int pn__call_pthread_cond_broadcast(pthread_cond_t *c)
{
    int r = pthread_cond_broadcast(c);
    pn__wake(c, UINT32_MAX);
    return r;
}

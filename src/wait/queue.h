/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for what, among fibers: waiters in a small hash, keyed by the address of the lock.
 *
 * No wake is lost: a waiter enters the queue, then tries; a waker changes the lock by an atomic
 * read-modify-write (a full barrier on x86-64), then looks at the queue. A wake is never a gift of the
 * lock: whoever is woken tries like everybody, so that fibers and threads that wait for the same
 * lock keep their fairness to each other. What nobody in this process wakes (process-shared locks, calls
 * that nothing redirects) is found by looking again: soon at first where others may share the lock, then
 * once a second; and is counted.
 *
 * Waits for locks are never cut, since `with lock:` ignores what acquire returns: a cut only makes the
 * fiber look again. */
#pragma once

#include <stdatomic.h>
#include <time.h>

#include "base/list.h"
#include "cores/core.h"

struct pn__waiter {
    struct pn_list node; /* in its bucket while not woken */
    const void *key;
    struct pn_core *core;
    uint32_t number;
    uint32_t bits; /* wakes that have none of these pass it over */
};
#define PN__WAKE_ANY UINT32_MAX

/* Takes a wait number of CORE and stands in the queue of KEY. */
void pn__queue_enter(struct pn__waiter *w, struct pn_core *core, const void *key, uint32_t bits);
/* True when nobody had woken it. Always called once after enter. */
bool pn__queue_leave(struct pn__waiter *w);
/* Wakes up to COUNT waiters, the oldest first; KEY is only an address, what it names may be gone.
 * Returns how many. Any thread. */
unsigned pn__queue_wake(const void *key, unsigned count, uint32_t bits);

/* Returns when no thread is inside of a wake any more: cores that were told may have ended meanwhile, and
 * nobody may touch them, or their loop, once they are freed. Nobody waits in the queue by then. */
void pn__queue_settle(void);

extern _Atomic unsigned pn__queue_count;

/* The whole cost of a waking call while no fiber waits: one load. Keeps errno. */
static inline void pn__wake(const void *key, unsigned count)
{
    if (pn_unlikely(atomic_load(&pn__queue_count) != 0))
        (void)pn__queue_wake(key, count, PN__WAKE_ANY);
}

/* A time-out as POSIX gives it. AT NULL: none. */
struct pn__until {
    clockid_t clock;
    const struct timespec *at;
};
#define PN__FOREVER ((struct pn__until){CLOCK_MONOTONIC, NULL})

static inline bool pn__until_is_valid(struct pn__until until)
{
    return !until.at || (until.at->tv_nsec >= 0 && until.at->tv_nsec < PN_NS_PER_SEC);
}
/* The clocks that lock calls take; others are the libc call's own business. */
static inline bool pn__is_lock_clock(clockid_t clock)
{
    return clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME;
}
/* When that is on CLOCK_MONOTONIC, as its clock stands now; 0 when it is over. */
int64_t pn__until_ns(struct pn__until until);

/* How soon a wait looks again by itself. */
enum pn__looks {
    PN__LOOKS_PRIVATE = 0, /* its wakes are redirected: once a second */
    PN__LOOKS_SHARED =
        1, /* other processes may free it: 1 ms, twice as long each time up to 20 ms */
};

/* Parks CORE (a fiber, detached) until TRY says something else than EBUSY, and returns that; or ETIMEDOUT.
 * Keeps errno. */
int pn__park_until(struct pn_core *core, const void *key, int (*try)(void *arg), void *arg,
                   struct pn__until until, enum pn__looks looks);

void pn__queue_after_fork_child(void);

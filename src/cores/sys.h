/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting on a word of memory, and a lock made of it, for the room itself.
 *
 * The system call is made here and not through libc's syscall(): errno stays untouched (these run inside
 * redirected calls, which must keep it), and no import table stands in between. */
#pragma once

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/defs.h"

static inline long pn__sys_futex(const void *word, int op, uint32_t value,
                                 const struct timespec *deadline)
{
    long rc;
    register const struct timespec *r10 __asm__("r10") = deadline;
    register const void *r8 __asm__("r8") = NULL;
    register long r9 __asm__("r9") = (long)FUTEX_BITSET_MATCH_ANY;
    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "0"((long)SYS_futex), "D"(word), "S"((long)op), "d"((long)value), "r"(r10),
                       "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return rc;
}

/* Sleeps while *WORD is VALUE, until DEADLINE_NS of CLOCK_MONOTONIC. 0 (also for no reason), -EAGAIN (another value),
 * -ETIMEDOUT, -EINTR. */
static inline int pn__futex_wait(const _Atomic uint32_t *word, uint32_t value, int64_t deadline_ns)
{
    struct timespec t = pn_ns_timespec(deadline_ns < 0 ? 0 : deadline_ns);
    return (int)pn__sys_futex((const void *)word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
                              deadline_ns == PN_NEVER_NS ? NULL : &t);
}

static inline void pn__futex_wake(const _Atomic uint32_t *word, int count)
{
    (void)pn__sys_futex((const void *)word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, (uint32_t)count, NULL);
}

static inline void pn__cpu_relax(void)
{
    __builtin_ia32_pause();
}

/* A lock for a few instructions: 0 free, 1 held, 2 held and somebody sleeps. Unlike a pthread mutex it
 * can be taken anywhere in the room, since nothing redirects it. */
struct pn__lock {
    _Atomic uint32_t word;
};

static inline void pn__lock_init(struct pn__lock *l)
{
    atomic_init(&l->word, 0);
}

static inline void pn__lock_take(struct pn__lock *l)
{
    uint32_t free_value = 0;
    if (pn_likely(atomic_compare_exchange_strong_explicit(
            &l->word, &free_value, 1, memory_order_acquire, memory_order_relaxed)))
        return;
    while (atomic_exchange_explicit(&l->word, 2, memory_order_acquire) != 0)
        pn__futex_wait(&l->word, 2, PN_NEVER_NS);
}

static inline void pn__lock_drop(struct pn__lock *l)
{
    if (pn_unlikely(atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2))
        pn__futex_wake(&l->word, 1);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* syscall(2), for the sake of SYS_futex: the locks of Rust's standard library, of libstdc++'s static
 * initialisers and of absl are made of it.
 *
 * A thread offers the loop and makes the same call. A fiber parks in the queue of the word's address; wakes go to
 * the kernel's waiters first, then to fibers. What has no count among fibers (requeues, wake-and-operate) wakes
 * all of them: futex(2) has callers expect wakes without a reason. Shared words, which another process may
 * wake, are looked at every 1 to 20 ms, others once a second. */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "wait/processes.h"
#include "wait/queue.h"

struct futex {
    uint32_t *word;
    int command;
    bool shared;
    uint32_t value;
    uint32_t bits;
    const struct timespec *time;
    bool realtime;
};

static struct futex futex_of(long a, long b, long c, long d, long f)
{
    struct futex x = {
        .word = (uint32_t *)a,
        .command = (int)b & FUTEX_CMD_MASK,
        .shared = !(b & FUTEX_PRIVATE_FLAG),
        .value = (uint32_t)c,
        .bits = FUTEX_BITSET_MATCH_ANY,
        .time = (const struct timespec *)d,
        .realtime = (b & FUTEX_CLOCK_REALTIME) != 0,
    };
    if (x.command == FUTEX_WAIT_BITSET || x.command == FUTEX_WAKE_BITSET)
        x.bits = (uint32_t)f;
    return x;
}

static bool holds(const struct futex *x)
{
    return __atomic_load_n(x->word, __ATOMIC_SEQ_CST) == x->value;
}

/* When the wait is over; FUTEX_WAIT's time is a span. */
static int64_t deadline_ns(const struct futex *x)
{
    if (!x->time)
        return PN_NEVER_NS;
    if (x->command == FUTEX_WAIT_BITSET)
        return pn__until_ns(
            (struct pn__until){x->realtime ? CLOCK_REALTIME : CLOCK_MONOTONIC, x->time});
    if (x->time->tv_sec > PN_NEVER_NS / PN_NS_PER_SEC - 1)
        return PN_NEVER_NS;
    return pn_deadline_ns(pn_clock_mono_ns(), pn_timespec_ns(x->time));
}

/* 0 or an errno. */
static int wait_fiber(struct pn_core *core, const struct futex *x)
{
    const int64_t look_max_ns =
        (x->shared ? PN_CORE_REPOLL_MAX_MS : PN_CORE_RECHECK_MS) * PN_NS_PER_MS;
    int64_t look_ns = x->shared ? PN_NS_PER_MS : look_max_ns;
    int64_t end_ns = deadline_ns(x);
    struct pn__waiter w;
    for (bool first = true;; first = false) {
        pn__queue_enter(&w, core, x->word, x->bits);
        if (!holds(x)) {
            bool unwoken = pn__queue_leave(&w);
            return first && unwoken ? EAGAIN : 0;
        }
        int64_t until_ns = pn_deadline_ns(pn_clock_mono_ns(), look_ns);
        (void)pn_core_park(core, w.number, end_ns < until_ns ? end_ns : until_ns);
        if (!pn__queue_leave(&w))
            return 0;
        if (!holds(x)) {
            pn_core_count_recheck(core);
            return 0;
        }
        if (pn_clock_mono_ns() >= end_ns)
            return ETIMEDOUT;
        look_ns = look_ns * 2 < look_max_ns ? look_ns * 2 : look_max_ns;
    }
}

static bool is_sound(const struct futex *x)
{
    bool time = !x->time ||
                (x->time->tv_sec >= 0 && x->time->tv_nsec >= 0 && x->time->tv_nsec < PN_NS_PER_SEC);
    return time && x->bits != 0 && ((uintptr_t)x->word & 3) == 0 && x->word;
}

static long call_wait(const struct futex *x, long a, long b, long c, long d, long e, long f)
{
    struct pn_core *core = pn__wait_gate();
    /* What is wrong, or doesn't wait, is the kernel's own business. */
    if (!core || !is_sound(x) || !holds(x))
        return syscall(SYS_futex, a, b, c, d, e, f);
    pn__wait_count();
    if (pn__core_is_fiber(core)) {
        int saved = errno;
        int error = wait_fiber(core, x);
        errno = error ? error : saved;
        return error ? -1 : 0;
    }
    bool offered = pn_core_block_begin(core, -1, 0);
    long r = syscall(SYS_futex, a, b, c, d, e, f);
    if (offered)
        pn_core_block_end(core); /* keeps errno */
    return r;
}

/* R is what the kernel said to a wake. */
static long wake_fibers(const struct futex *x, long r, const void *second)
{
    if (r < 0 || pn_likely(atomic_load(&pn__queue_count) == 0))
        return r;
    if (second) {
        (void)pn__queue_wake(x->word, UINT32_MAX, x->bits);
        (void)pn__queue_wake(second, UINT32_MAX, x->bits);
        return r;
    }
    /* A count is an int to the kernel. */
    long left = (long)(int)x->value - r;
    return left > 0 ? r + (long)pn__queue_wake(x->word, (unsigned)left, x->bits) : r;
}

static long call_futex(long a, long b, long c, long d, long e, long f)
{
    struct futex x = futex_of(a, b, c, d, f);
    switch (x.command) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
        return call_wait(&x, a, b, c, d, e, f);
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
        return wake_fibers(&x, syscall(SYS_futex, a, b, c, d, e, f), NULL);
    case FUTEX_WAKE_OP:
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
        return wake_fibers(&x, syscall(SYS_futex, a, b, c, d, e, f), (const void *)e);
    default:
        return syscall(SYS_futex, a, b, c, d, e, f);
    }
}

long pn__call_syscall(long number, long a, long b, long c, long d, long e, long f)
{
    if (pn_likely(number != SYS_futex))
        return syscall(number, a, b, c, d, e, f);
    return call_futex(a, b, c, d, e, f);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* nanosleep, clock_nanosleep, usleep, sleep and sched_yield (POSIX.1-2017) in a core.
 *
 * A thread offers the loop and makes the very same call. A fiber parks until the deadline on the
 * monotonic clock; a sleep on another clock is turned into a span when it begins, so a step of the real
 * clock during a CLOCK_REALTIME sleep moves a fiber's wake-up where it would not move a thread's: the
 * span is looked at again at least once a second for absolute deadlines. A sleep that is over at once lets the other
 * fibers run, as it lets other threads: code spins with it until somebody else has got on. */
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "wait/gate.h"

static bool is_valid(const struct timespec *t)
{
    return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < PN_NS_PER_SEC;
}

/* The clocks whose time runs while a core is parked; CPU-time clocks are left to the kernel. */
static bool is_wall_clock(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME ||
           clock == CLOCK_TAI;
}

static int64_t clock_now_ns(clockid_t clock)
{
    struct timespec t;
    return clock_gettime(clock, &t) == 0 ? pn_timespec_ns(&t) : 0;
}

/* Seconds beyond this do not fit nanoseconds: such a sleep is for ever (292 years). */
static int64_t span_ns(const struct timespec *t)
{
    if (t->tv_sec > PN_NEVER_NS / PN_NS_PER_SEC - 1)
        return PN_NEVER_NS;
    return pn_timespec_ns(t);
}

/* 0: slept, or cut (the wait counts as finished); EINTR with *left_ns. */
static int sleep_span(struct pn_core *core, int64_t span, int64_t *left_ns)
{
    int64_t deadline = pn_deadline_ns(pn_clock_mono_ns(), span);
    int r = pn_core_sleep_until(core, deadline);
    if (r != PN_WAIT_INTERRUPTED)
        return 0;
    int64_t left = deadline - pn_clock_mono_ns();
    *left_ns = left > 0 ? left : 0;
    return EINTR;
}

/* Until CLOCK shows DEADLINE, which may jump. */
static int sleep_absolute(struct pn_core *core, clockid_t clock, const struct timespec *deadline)
{
    const int64_t look_ns = (int64_t)PN_CORE_RECHECK_MS * PN_NS_PER_MS;
    int64_t until = span_ns(deadline);
    for (bool slept = false;; slept = true) {
        int64_t left = until - clock_now_ns(clock), ignored;
        if (left <= 0) {
            if (!slept)
                pn_core_yield(core);
            return 0;
        }
        bool steps = clock != CLOCK_MONOTONIC && left > look_ns;
        int r = sleep_span(core, steps ? look_ns : left, &ignored);
        if (r != 0)
            return r;
        if (!steps || pn_core_is_cut(core))
            return 0;
    }
}

/* A thread: the very same call, bracketed. A cut makes it a finished one. */
static int sleep_thread(struct pn_core *core, clockid_t clock, int flags,
                        const struct timespec *request, struct timespec *rest)
{
    if (!pn_core_block_begin(core, -1, 0))
        return 0;
    int r = clock_nanosleep(clock, flags, request, rest);
    pn_core_block_end(core);
    return r == EINTR && pn_core_is_cut(core) ? 0 : r;
}

int pn__call_clock_nanosleep(clockid_t clock, int flags, const struct timespec *request,
                             struct timespec *rest)
{
    struct pn_core *core = pn__wait_gate();
    /* What is wrong or doesn't wait is the libc call's own business. */
    if (!core || !is_valid(request) || !is_wall_clock(clock))
        return clock_nanosleep(clock, flags, request, rest);
    if (request->tv_sec == 0 && request->tv_nsec == 0) {
        if (pn__core_is_fiber(core))
            pn_core_yield(core);
        return clock_nanosleep(clock, flags, request, rest);
    }
    int saved = errno;
    int64_t left = 0;
    int r;
    pn__wait_count();
    if (!pn__core_is_fiber(core))
        r = sleep_thread(core, clock, flags, request, rest);
    else if (flags & TIMER_ABSTIME)
        r = sleep_absolute(core, clock, request);
    else
        r = sleep_span(core, span_ns(request), &left);
    if (r == EINTR && rest && !(flags & TIMER_ABSTIME) && pn__core_is_fiber(core))
        *rest = pn_ns_timespec(left);
    errno = saved;
    return r;
}

int pn__call_nanosleep(const struct timespec *request, struct timespec *rest)
{
    if (!pn__wait_gate())
        return nanosleep(request, rest);
    int r = pn__call_clock_nanosleep(CLOCK_MONOTONIC, 0, request, rest);
    if (r == 0)
        return 0;
    errno = r;
    return -1;
}

int pn__call_usleep(useconds_t us)
{
    if (!pn__wait_gate())
        return usleep(us);
    struct timespec t = pn_ns_timespec((int64_t)us * PN_NS_PER_US);
    return pn__call_nanosleep(&t, NULL);
}

unsigned pn__call_sleep(unsigned seconds)
{
    if (!pn__wait_gate())
        return sleep(seconds);
    struct timespec t = {.tv_sec = (time_t)seconds}, rest = {0};
    int saved = errno;
    if (pn__call_nanosleep(&t, &rest) == 0)
        return 0;
    errno = saved;
    /* Rounded to the nearest second, as glibc does. */
    return (unsigned)rest.tv_sec + (rest.tv_nsec >= PN_NS_PER_SEC / 2);
}

/* Fibers only. The other threads get their turn as well. */
int pn__call_sched_yield(void)
{
    struct pn_core *core = pn__wait_gate();
    if (core)
        pn_core_yield(core);
    return sched_yield();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* nanosleep, clock_nanosleep, usleep, sleep and sched_yield (POSIX.1-2017) in a core.
 *
 * A core sleeps until a deadline on the monotonic clock, which the loop keeps: so it wakes once, and with the
 * loop its own. Two sleeps of threads are the very same call, with the loop offered before: until another clock
 * shows a time, and one that is over at once, which code spins with until somebody else has got on. A fiber lets
 * the others run for the latter; the former it turns into a span when it begins, so a step of the real
 * clock during a CLOCK_REALTIME sleep moves a fiber's wake-up where it would not move a thread's: the
 * span is looked at again at least once a second for absolute deadlines. */
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

/* 0: slept, or cut (the wait counts as finished); or EINTR. */
static int sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    return pn_core_sleep_until(core, deadline_ns) == PN_WAIT_INTERRUPTED ? EINTR : 0;
}

/* The same; EINTR with *left_ns. */
static int sleep_span(struct pn_core *core, int64_t span, int64_t *left_ns)
{
    int64_t deadline = pn_deadline_ns(pn_clock_mono_ns(), span);
    int r = sleep_until(core, deadline);
    if (r == 0)
        return 0;
    int64_t left = deadline - pn_clock_mono_ns();
    *left_ns = left > 0 ? left : 0;
    return r;
}

/* Until CLOCK shows UNTIL, which may jump. */
static int sleep_absolute(struct pn_core *core, clockid_t clock, int64_t until_ns)
{
    const int64_t look_ns = (int64_t)PN_CORE_RECHECK_MS * PN_NS_PER_MS;
    if (until_ns <= clock_now_ns(clock)) {
        pn_core_yield(core);
        return 0;
    }
    if (clock == CLOCK_MONOTONIC)
        return sleep_until(core, until_ns);
    for (;;) {
        int64_t left = until_ns - clock_now_ns(clock), ignored;
        if (left <= 0)
            return 0;
        int r = sleep_span(core, left > look_ns ? look_ns : left, &ignored);
        if (r != 0 || left <= look_ns || pn_core_is_cut(core))
            return r;
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

/* True: a sleep of a thread that the loop cannot keep the end of, see above. */
static bool is_the_call(struct pn_core *core, clockid_t clock, int flags, int64_t until_ns)
{
    if (pn__core_is_fiber(core) || !(flags & TIMER_ABSTIME))
        return false;
    return clock != CLOCK_MONOTONIC || until_ns <= pn_clock_mono_ns();
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
    if (is_the_call(core, clock, flags, span_ns(request)))
        r = sleep_thread(core, clock, flags, request, rest);
    else if (flags & TIMER_ABSTIME)
        r = sleep_absolute(core, clock, span_ns(request));
    else if ((r = sleep_span(core, span_ns(request), &left)) == EINTR && rest)
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

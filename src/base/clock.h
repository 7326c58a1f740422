/* SPDX-License-Identifier: Apache-2.0 */
/* Time in nanoseconds as int64_t: monotonic for everything that waits, real for dates in headers and
 * logs. Rooms that the simulation drives take their time from the loop, never from here. */
#pragma once

#include <time.h>

#include "base/defs.h"

int64_t pn_clock_mono_ns(void);
int64_t pn_clock_real_ns(void);

static inline int64_t pn_timespec_ns(const struct timespec *t)
{
    return (int64_t)t->tv_sec * PN_NS_PER_SEC + t->tv_nsec;
}

static inline struct timespec pn_ns_timespec(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / PN_NS_PER_SEC, .tv_nsec = ns % PN_NS_PER_SEC};
}

/* NOW + SPAN that stops at PN_NEVER_NS instead of overflowing; a negative span means never. */
static inline int64_t pn_deadline_ns(int64_t now_ns, int64_t span_ns)
{
    if (span_ns < 0 || span_ns > PN_NEVER_NS - now_ns)
        return PN_NEVER_NS;
    return now_ns + span_ns;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The two clocks that the server reads. Both go through the vDSO: no system call. */
#include "base/clock.h"

static int64_t read_clock(clockid_t id)
{
    struct timespec t;
    /* Cannot fail for these two clocks on Linux. */
    clock_gettime(id, &t);
    return pn_timespec_ns(&t);
}

int64_t pn_clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t pn_clock_real_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* See affinity.h. The sets are as large as the kernel's: a machine may have more than CPU_SETSIZE processors. */
#include "main/affinity.h"

#include <errno.h>
#include <stdio.h>

enum { PROCESSORS_MAX = 1 << 16 }; /* far above what Linux can be built for */

/* The place of the nth processor of SET; the set has more than N. */
static size_t nth(const cpu_set_t *set, size_t size, unsigned n)
{
    size_t cpu = 0;
    for (;; cpu++) {
        if (CPU_ISSET_S(cpu, size, set) && n-- == 0)
            return cpu;
    }
}

unsigned pn__affinity_choose(const cpu_set_t *allowed, size_t size, unsigned slot, unsigned count,
                             cpu_set_t *chosen)
{
    unsigned all = (unsigned)CPU_COUNT_S(size, allowed);
    if (count > all)
        count = all;
    CPU_ZERO_S(size, chosen);
    for (unsigned i = 0; i < count; i++) {
        size_t place = ((size_t)slot * count + i) % all;
        CPU_SET_S(nth(allowed, size, (unsigned)place), size, chosen);
    }
    return count;
}

static void list(const cpu_set_t *set, size_t size, char *text, size_t text_size)
{
    size_t at = 0;
    text[0] = 0;
    for (size_t cpu = 0; cpu < size * 8 && at < text_size; cpu++) {
        if (CPU_ISSET_S(cpu, size, set))
            at += (size_t)snprintf(text + at, text_size - at, "%s%zu", at ? ", " : "", cpu);
    }
}

/* The kernel refuses a set that is smaller than its own (EINVAL). */
static int bind_with(size_t processors, unsigned slot, unsigned count, char *text, size_t text_size)
{
    size_t size = CPU_ALLOC_SIZE(processors);
    cpu_set_t *allowed = CPU_ALLOC(processors);
    cpu_set_t *chosen = CPU_ALLOC(processors);
    int rc = -ENOMEM;
    if (allowed && chosen) {
        CPU_ZERO_S(size, allowed);
        rc = sched_getaffinity(0, size, allowed) < 0 ? -errno : 0;
    }
    if (rc == 0) {
        (void)pn__affinity_choose(allowed, size, slot, count, chosen);
        rc = sched_setaffinity(0, size, chosen) < 0 ? -errno : 0;
    }
    if (rc == 0)
        list(chosen, size, text, text_size);
    CPU_FREE(allowed);
    CPU_FREE(chosen);
    return rc;
}

int pn__affinity_bind(unsigned slot, unsigned count, char *text, size_t size)
{
    int rc = -EINVAL;
    for (size_t n = CPU_SETSIZE; rc == -EINVAL && n <= PROCESSORS_MAX; n *= 2)
        rc = bind_with(n, slot, count, text, size);
    return rc;
}

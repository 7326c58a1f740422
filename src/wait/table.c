/* SPDX-License-Identifier: Apache-2.0 */
/* The table itself. Its order is checked by tests/unit/test_wait_table.c. */
#include "wait/table.h"

#include <string.h>

#include "wait/gate.h"

enum {
    INTERPRETER = PN__IMAGE_INTERPRETER,
    ALL = PN__IMAGE_INTERPRETER | PN__IMAGE_OTHER,
};

#define ROW(name, images, idents_only)                      \
    {                                                       \
#name, (void *)pn__call_##name, images, idents_only \
    }

const struct pn__redirect pn__redirects[] = {
    ROW(clock_nanosleep, ALL, false),
    /* Only the interpreter's: dlopen looks at its caller's RUNPATH, which would be ours. */
    ROW(dlopen, INTERPRETER, false),
    ROW(nanosleep, ALL, false),
    ROW(pthread_cancel, ALL, true),
    ROW(pthread_detach, ALL, true),
    ROW(pthread_getaffinity_np, ALL, true),
    ROW(pthread_getattr_np, ALL, true),
    ROW(pthread_getcpuclockid, ALL, true),
    ROW(pthread_getname_np, ALL, true),
    ROW(pthread_getschedparam, ALL, true),
    ROW(pthread_join, ALL, true),
    ROW(pthread_kill, ALL, true),
    ROW(pthread_self, ALL, true),
    ROW(pthread_setaffinity_np, ALL, true),
    ROW(pthread_setname_np, ALL, true),
    ROW(pthread_setschedparam, ALL, true),
    ROW(pthread_setschedprio, ALL, true),
    ROW(pthread_sigqueue, ALL, true),
    ROW(sem_clockwait, ALL, false),
    ROW(sem_post, ALL, false),
    ROW(sem_timedwait, ALL, false),
    ROW(sem_wait, ALL, false),
    ROW(sleep, ALL, false),
    ROW(usleep, ALL, false),
};

const size_t pn__redirects_count = PN_ARRAY_LEN(pn__redirects);

const struct pn__redirect *pn__redirect_find(const char *name)
{
    size_t low = 0, high = pn__redirects_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, pn__redirects[middle].name);
        if (order == 0)
            return &pn__redirects[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

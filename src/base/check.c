/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a process that found itself wrong: says where, then aborts for the core dump. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void pn_bug(const char *file, int line, const char *func, const char *text)
{
    char msg[512];
    int n = snprintf(msg, sizeof msg, "pelton: BUG at %s:%d in %s: %s\n", file, line, func, text);
    if (n > 0) {
        size_t len = pn_min_size((size_t)n, sizeof msg - 1);
        /* Nothing sensible is left to do when even this fails. */
        if (write(2, msg, len) < 0)
            abort();
    }
    abort();
}

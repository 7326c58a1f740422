/* SPDX-License-Identifier: Apache-2.0 */
/* Input that ends right before an unreadable page: reading one byte too many crashes the test. Each
 * test binary that includes this has one such place. */
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD_SIZE = 1 << 20 };

/* The last N bytes before the unreadable page, N <= GUARD_SIZE. */
static inline char *guard_end(size_t n)
{
    static char *end;
    if (!end) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *p = mmap(NULL, GUARD_SIZE + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);
        if (p == MAP_FAILED || mprotect(p + GUARD_SIZE, page, PROT_NONE) != 0)
            abort();
        end = p + GUARD_SIZE;
    }
    return end - n;
}

/* A copy of the N bytes at DATA there. */
static inline const char *guard_copy(const void *data, size_t n)
{
    char *p = guard_end(n);
    if (n > 0)
        memmove(p, data, n);
    return p;
}

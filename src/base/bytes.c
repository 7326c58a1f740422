/* SPDX-License-Identifier: Apache-2.0 */
/* Growth and compaction of the output queue. */
#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"

enum { CAPACITY_MIN = 1024 };
#define CAPACITY_MAX (1U << 30)

/* Moves the unread bytes to the front when that alone makes room: cheaper than growing. */
static bool compact(struct pn_bytes *b, size_t n)
{
    size_t len = pn_bytes_len(b);
    if (b->start == 0 || len + n > b->capacity || len > b->start)
        return false;
    memcpy(b->data, b->data + b->start, len);
    b->start = 0;
    b->end = (uint32_t)len;
    return true;
}

char *pn_bytes_reserve(struct pn_bytes *b, size_t n)
{
    if (b->capacity - b->end >= n)
        return b->data + b->end;
    if (compact(b, n))
        return b->data + b->end;
    size_t len = pn_bytes_len(b);
    if (n > CAPACITY_MAX - len)
        return NULL;
    size_t capacity = pn_max_size(CAPACITY_MIN, b->capacity);
    while (capacity < len + n)
        capacity *= 2;
    char *data = pn_try_malloc(capacity);
    if (!data)
        return NULL;
    if (len)
        memcpy(data, b->data + b->start, len);
    free(b->data);
    *b = (struct pn_bytes){.data = data, .end = (uint32_t)len, .capacity = (uint32_t)capacity};
    return b->data + b->end;
}

int pn_bytes_append(struct pn_bytes *b, const void *p, size_t n)
{
    if (n == 0)
        return 0;
    char *to = pn_bytes_reserve(b, n);
    if (!to)
        return -ENOMEM;
    memcpy(to, p, n);
    pn_bytes_commit(b, n);
    return 0;
}

void pn_bytes_free(struct pn_bytes *b)
{
    free(b->data);
    *b = (struct pn_bytes){0};
}

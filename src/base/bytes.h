/* SPDX-License-Identifier: Apache-2.0 */
/* A byte queue for output: appended at the end, taken at the front, in one growing block that is
 * compacted when it pays. Owned by one connection; empty queues hold no memory after pn_bytes_free. */
#pragma once

#include "base/str.h"

struct pn_bytes {
    char *data;
    uint32_t start; /* first unread byte */
    uint32_t end;   /* one past the last */
    uint32_t capacity;
};

static inline void pn_bytes_init(struct pn_bytes *b)
{
    *b = (struct pn_bytes){0};
}

static inline size_t pn_bytes_len(const struct pn_bytes *b)
{
    return b->end - b->start;
}

static inline struct pn_str pn_bytes_view(const struct pn_bytes *b)
{
    return (struct pn_str){b->data + b->start, pn_bytes_len(b)};
}

/* Room for N more bytes at the end, contiguous: returns where to write them, or NULL without memory
 * (or past 1 GiB). Commit what was written with pn_bytes_commit. */
char *pn_bytes_reserve(struct pn_bytes *b, size_t n) PN_MUST_CHECK;

static inline void pn_bytes_commit(struct pn_bytes *b, size_t n)
{
    b->end += (uint32_t)n;
}

/* 0 or -ENOMEM; on failure nothing was appended. */
int pn_bytes_append(struct pn_bytes *b, const void *p, size_t n) PN_MUST_CHECK;

/* Drops N bytes at the front. */
static inline void pn_bytes_consume(struct pn_bytes *b, size_t n)
{
    b->start += (uint32_t)n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

/* Frees the block; the queue is empty and usable. */
void pn_bytes_free(struct pn_bytes *b);

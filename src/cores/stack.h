/* SPDX-License-Identifier: Apache-2.0 */
/* Stacks of fibers: mappings with a guard page at the low end, kept for reuse.
 *
 * Address space only: a page costs memory once it was touched, and transparent huge pages are off for
 * them (one touched byte would cost 2 MB). A stack that comes back gives its pages to the kernel but for the
 * highest few, which every fiber touches. One thread at a time (the loop's owner). */
#pragma once

#include "base/list.h"

struct pn__stack {
    char *mapping; /* lowest address, the guard page; NULL: none */
    size_t mapping_size;
    unsigned valgrind_id;
};

struct pn__stack_pool {
    size_t stack_size; /* whole pages, guard page included */
    size_t page_size;
    struct pn__stack *kept;
    size_t kept_count;
    size_t kept_max;
};

/* STACK_SIZE is rounded up to pages. 0 or -ENOMEM. */
int pn__stack_pool_init(struct pn__stack_pool *pool, size_t stack_size, size_t kept_max);
/* Unmaps what is kept. Stacks in use are not the pool's. */
void pn__stack_pool_fini(struct pn__stack_pool *pool);

/* 0, or -ENOMEM (also: vm.max_map_count, two mappings a stack). */
int pn__stack_get(struct pn__stack_pool *pool, struct pn__stack *out) PN_MUST_CHECK;
/* Nobody runs on it any more. */
void pn__stack_put(struct pn__stack_pool *pool, struct pn__stack *stack);

/* Its pages below HERE, which is in use, go back to the kernel. */
void pn__stack_trim(const struct pn__stack_pool *pool, const struct pn__stack *stack,
                    const void *here);

/* The part that may be used: lowest address above the guard, and size. */
static inline void *pn__stack_base(const struct pn__stack_pool *pool, const struct pn__stack *s)
{
    return s->mapping + pool->page_size;
}

static inline size_t pn__stack_usable(const struct pn__stack_pool *pool)
{
    return pool->stack_size - pool->page_size;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation wrappers and pools; see mem.h for who may fail. */
#include "base/mem.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#if PN_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

/* Test switch of the whole process: 0 is off, which is all that a server ever sees. */
static atomic_ulong fail_at;
static atomic_ulong fail_count;
static atomic_bool fail_forever;

static void *or_die(void *p, size_t n)
{
    if (pn_unlikely(!p && n)) {
        fprintf(stderr, "pelton: out of memory (%zu bytes asked for)\n", n);
        abort();
    }
    return p;
}

void *pn_xmalloc(size_t n)
{
    return or_die(malloc(n), n);
}

void *pn_xcalloc(size_t count, size_t n)
{
    return or_die(calloc(count, n), count ? n : 0);
}

void *pn_xrealloc(void *p, size_t n)
{
    return or_die(realloc(p, n), n);
}

char *pn_xstrndup(const char *s, size_t n)
{
    char *copy = pn_xmalloc(n + 1);
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *pn_xstrdup(const char *s)
{
    return pn_xstrndup(s, strlen(s));
}

static bool must_fail(void)
{
    unsigned long at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (pn_likely(!at))
        return false;
    unsigned long nth = atomic_fetch_add(&fail_count, 1) + 1;
    return nth == at || (nth > at && atomic_load(&fail_forever));
}

void pn_mem_limit_arenas(int max)
{
    const char *tunables = getenv("GLIBC_TUNABLES");
    if (!getenv("MALLOC_ARENA_MAX") && !(tunables && strstr(tunables, "arena_max")))
        (void)mallopt(M_ARENA_MAX, max);
}

void *pn_try_malloc(size_t n)
{
    return must_fail() ? NULL : malloc(n);
}

void *pn_try_realloc(void *p, size_t n)
{
    return must_fail() ? NULL : realloc(p, n);
}

void *pn_try_malloc_lines(size_t n)
{
    return must_fail() ? NULL : aligned_alloc(64, (n + 63) & ~(size_t)63);
}

unsigned long pn_mem_fail_at(unsigned long nth, bool forever)
{
    unsigned long counted = atomic_exchange(&fail_count, 0);
    atomic_store(&fail_forever, forever);
    atomic_store(&fail_at, nth);
    return counted;
}

void pn_pool_init(struct pn_pool *pool, size_t object_size, size_t keep_max)
{
    size_t size = pn_max_size(object_size, sizeof(void *));
    *pool = (struct pn_pool){.object_size = (size + 15) & ~(size_t)15, .keep_max = keep_max};
}

void *pn_pool_get(struct pn_pool *pool)
{
    void *object = pool->free_list;
    if (pn_likely(object != NULL)) {
        ASAN_UNPOISON_MEMORY_REGION(object, pool->object_size);
        memcpy(&pool->free_list, object, sizeof(void *));
        pool->kept--;
    } else {
        object = pn_try_malloc(pool->object_size);
        if (!object)
            return NULL;
    }
    pool->in_use++;
    return object;
}

void pn_pool_put(struct pn_pool *pool, void *object)
{
    if (!object)
        return;
    PN_ASSERT(pool->in_use > 0);
    pool->in_use--;
    if (pool->kept >= pool->keep_max) {
        free(object);
        return;
    }
    memcpy(object, &pool->free_list, sizeof(void *));
    pool->free_list = object;
    pool->kept++;
    ASAN_POISON_MEMORY_REGION(object, pool->object_size);
}

void pn_pool_drain(struct pn_pool *pool)
{
    while (pool->free_list) {
        void *object = pool->free_list;
        ASAN_UNPOISON_MEMORY_REGION(object, pool->object_size);
        memcpy(&pool->free_list, object, sizeof(void *));
        free(object);
    }
    pool->kept = 0;
}

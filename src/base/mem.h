/* SPDX-License-Identifier: Apache-2.0 */
/* Where memory comes from. What start-up asks for aborts with a message (pn_xmalloc and kin); what a
 * peer's bytes ask for may fail and the caller answers 503 or cuts (pn_try_malloc). Tests make the
 * n-th allocation fail through pn_mem_fail_at. Pools keep fixed-size objects in LIFO order, so that
 * the next object is the one still in the cache; in ASan builds a pooled object is poisoned. */
#pragma once

#include "base/defs.h"

/* Abort with a message instead of returning NULL. Freed with free(). */
void *pn_xmalloc(size_t n);
void *pn_xcalloc(size_t count, size_t n);
void *pn_xrealloc(void *p, size_t n);
char *pn_xstrdup(const char *s);
char *pn_xstrndup(const char *s, size_t n);

/* NULL when memory is out or a test said so. Freed with free(). */
void *pn_try_malloc(size_t n) PN_MUST_CHECK;
void *pn_try_realloc(void *p, size_t n) PN_MUST_CHECK;
/* The same, beginning with a cache line. */
void *pn_try_malloc_lines(size_t n) PN_MUST_CHECK;

/* glibc's malloc makes up to eight arenas a processor, one thread after the other; each keeps what it held at most. At
 * most MAX from now on, unless the environment says how many (MALLOC_ARENA_MAX, GLIBC_TUNABLES). */
void pn_mem_limit_arenas(int max);

/* Tests only: the NTH pn_try_* call from now on (1 = the next) fails, and all after it when
 * FOREVER; 0 switches it off. Returns how many calls were counted since the last setting. */
unsigned long pn_mem_fail_at(unsigned long nth, bool forever);

struct pn_pool {
    size_t object_size;
    size_t keep_max; /* objects kept for reuse; more are freed */
    size_t kept;
    size_t in_use;
    void *free_list;
};

/* OBJECT_SIZE is rounded up to 16. KEEP_MAX bounds the memory that an idle pool holds. */
void pn_pool_init(struct pn_pool *pool, size_t object_size, size_t keep_max);
/* An object with undefined content, owned by the caller; NULL when memory is out. */
void *pn_pool_get(struct pn_pool *pool) PN_MUST_CHECK;
void pn_pool_put(struct pn_pool *pool, void *object);
/* Frees what is kept. Objects still in use stay valid and are freed by a later put. */
void pn_pool_drain(struct pn_pool *pool);

/* SPDX-License-Identifier: Apache-2.0 */
/* See stack.h. */
#include "cores/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#define HAVE_VALGRIND 1
#endif
#endif

#if PN_ASAN
#include <sanitizer/asan_interface.h>
#endif

/* Left in a kept stack: a core's idle depth in CPython 3.11 to 3.13. */
enum { KEPT_TOP_SIZE = 16 << 10 };

int pn__stack_pool_init(struct pn__stack_pool *pool, size_t stack_size, size_t kept_max)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *pool = (struct pn__stack_pool){
        .page_size = page,
        .stack_size = (pn_max_size(stack_size, 2 * page) + page - 1) / page * page,
        .kept_max = kept_max,
    };
    if (kept_max == 0)
        return 0;
    pool->kept = pn_try_malloc(kept_max * sizeof(*pool->kept));
    return pool->kept ? 0 : -ENOMEM;
}

static unsigned told_valgrind(const struct pn__stack_pool *pool, const struct pn__stack *s)
{
#ifdef HAVE_VALGRIND
    return (unsigned)VALGRIND_STACK_REGISTER(pn__stack_base(pool, s), s->mapping + s->mapping_size);
#else
    (void)pool;
    (void)s;
    return 0;
#endif
}

static void unmap(struct pn__stack *s)
{
#ifdef HAVE_VALGRIND
    VALGRIND_STACK_DEREGISTER(s->valgrind_id);
#endif
    munmap(s->mapping, s->mapping_size);
    s->mapping = NULL;
}

void pn__stack_pool_fini(struct pn__stack_pool *pool)
{
    while (pool->kept_count > 0)
        unmap(&pool->kept[--pool->kept_count]);
    free(pool->kept);
    pool->kept = NULL;
}

int pn__stack_get(struct pn__stack_pool *pool, struct pn__stack *out)
{
    if (pool->kept_count > 0) {
        *out = pool->kept[--pool->kept_count];
        return 0;
    }
    void *p = mmap(NULL, pool->stack_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    if (mprotect(p, pool->page_size, PROT_NONE) < 0) {
        munmap(p, pool->stack_size);
        return -ENOMEM;
    }
    /* Fails on kernels without huge pages, where it isn't needed. */
    (void)madvise(p, pool->stack_size, MADV_NOHUGEPAGE);
    *out = (struct pn__stack){.mapping = p, .mapping_size = pool->stack_size};
    out->valgrind_id = told_valgrind(pool, out);
    return 0;
}

void pn__stack_put(struct pn__stack_pool *pool, struct pn__stack *stack)
{
    PN_ASSERT(stack->mapping);
    PN_ASSERT(stack->mapping_size == pool->stack_size);
#if PN_ASAN
    /* Frames that were left and never returned from are poisoned still. */
    ASAN_UNPOISON_MEMORY_REGION(pn__stack_base(pool, stack), pn__stack_usable(pool));
#endif
    if (pool->kept_count == pool->kept_max) {
        unmap(stack);
        return;
    }
    if (pn__stack_usable(pool) > KEPT_TOP_SIZE)
        (void)madvise(pn__stack_base(pool, stack), pn__stack_usable(pool) - KEPT_TOP_SIZE,
                      MADV_DONTNEED);
    pool->kept[pool->kept_count++] = *stack;
    stack->mapping = NULL;
}

void pn__stack_trim(const struct pn__stack_pool *pool, const struct pn__stack *stack,
                    const void *here)
{
    char *base = pn__stack_base(pool, stack);
    size_t below = (size_t)((const char *)here - base) / pool->page_size * pool->page_size;
    (void)madvise(base, below, MADV_DONTNEED);
}

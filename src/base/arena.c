/* SPDX-License-Identifier: Apache-2.0 */
/* A list of malloc'ed blocks; the newest one is filled. */
#include "base/arena.h"

#include <stdlib.h>

#include "base/mem.h"

struct pn_arena_block {
    struct pn_arena_block *next;
    size_t used;
    size_t capacity;
    _Alignas(16) char data[];
};

enum { BLOCK_SIZE = 1024 };

void pn_arena_init(struct pn_arena *arena, size_t limit_size)
{
    *arena = (struct pn_arena){.limit_size = limit_size};
}

void *pn_arena_alloc(struct pn_arena *arena, size_t n)
{
    if (n > SIZE_MAX / 2)
        return NULL;
    n = (n + 15) & ~(size_t)15;
    if (arena->limit_size && n > arena->limit_size - arena->used_size)
        return NULL;
    struct pn_arena_block *block = arena->blocks;
    if (!block || block->capacity - block->used < n) {
        size_t capacity = pn_max_size(n, BLOCK_SIZE);
        block = pn_try_malloc(sizeof *block + capacity);
        if (!block)
            return NULL;
        block->next = arena->blocks;
        block->used = 0;
        block->capacity = capacity;
        arena->blocks = block;
    }
    void *p = block->data + block->used;
    block->used += n;
    arena->used_size += n;
    return p;
}

char *pn_arena_strndup(struct pn_arena *arena, const char *s, size_t n)
{
    char *copy = pn_arena_alloc(arena, n + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

void pn_arena_free(struct pn_arena *arena)
{
    while (arena->blocks) {
        struct pn_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used_size = 0;
}

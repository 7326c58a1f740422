/* SPDX-License-Identifier: Apache-2.0 */
/* Many small allocations with one owner, freed whole: settings strings, one request's odds and ends.
 * An arena starts without memory and grows by blocks; nothing in it is freed singly. */
#pragma once

#include "base/str.h"

struct pn_arena {
    struct pn_arena_block *blocks;
    size_t used_size;  /* over all blocks */
    size_t limit_size; /* 0: none */
};

/* LIMIT_SIZE bounds the whole arena; 0 for start-up data that only the administrator fills. */
void pn_arena_init(struct pn_arena *arena, size_t limit_size);
/* 16-byte aligned, owned by the arena; NULL past the limit or without memory. */
void *pn_arena_alloc(struct pn_arena *arena, size_t n) PN_MUST_CHECK;
/* A NUL-terminated copy. */
char *pn_arena_strndup(struct pn_arena *arena, const char *s, size_t n) PN_MUST_CHECK;
void pn_arena_free(struct pn_arena *arena);

/* SPDX-License-Identifier: Apache-2.0 */
/* Thread-local memory that each fiber has as its own: pieces of the OS thread's, swapped at switches.
 *
 * A library's thread-local variables belong to the OS thread, which all fibers share. Where that is
 * wrong (greenlet's current greenlet, C++ exceptions in flight) the piece is named here, and from then on
 * a fiber finds what it left there itself. What a fiber left stays with its struct pn_core, for the next
 * fiber on it: to the library that is one thread which never ended, and nothing leaks. */
#pragma once

#include "base/defs.h"

enum {
    PN__FIBER_MEMORY_REGIONS = 8,
    PN__FIBER_MEMORY_SIZE = 128, /* of all regions together: in each struct pn_core */
};

struct pn__fiber_region {
    char *address;
    const char *initial; /* borrowed for ever; what follows INITIAL_SIZE bytes is zero */
    size_t initial_size;
    size_t size;
};

struct pn__fiber_regions {
    unsigned count;
    size_t size;
    struct pn__fiber_region region[PN__FIBER_MEMORY_REGIONS];
};

/* One fiber's copies, while it doesn't run. */
struct pn__fiber_memory {
    unsigned count; /* regions that it has copies of; later ones are initial */
    char bytes[PN__FIBER_MEMORY_SIZE];
};

/* 0 (also when it is known already), or -ENOSPC. */
int pn__fiber_regions_add(struct pn__fiber_regions *regions, const struct pn__fiber_region *add);
/* Before a switch away; after it came back, or a new fiber began. */
void pn__fiber_memory_save(const struct pn__fiber_regions *regions, struct pn__fiber_memory *own);
void pn__fiber_memory_restore(const struct pn__fiber_regions *regions,
                              const struct pn__fiber_memory *own);

/* SPDX-License-Identifier: Apache-2.0 */
/* See fiber_memory.h. The regions are packed one after the other in a fiber's copy, in the order in which
 * they were named: so a copy that was made before a region was added stays good. */
#include "cores/fiber_memory.h"

#include <errno.h>
#include <string.h>

int pn__fiber_regions_add(struct pn__fiber_regions *regions, const struct pn__fiber_region *add)
{
    for (unsigned i = 0; i < regions->count; i++)
        if (regions->region[i].address == add->address)
            return 0;
    if (regions->count == PN__FIBER_MEMORY_REGIONS ||
        add->size > PN__FIBER_MEMORY_SIZE - regions->size)
        return -ENOSPC;
    regions->region[regions->count++] = *add;
    regions->size += add->size;
    return 0;
}

void pn__fiber_memory_save(const struct pn__fiber_regions *regions, struct pn__fiber_memory *own)
{
    char *to = own->bytes;
    for (unsigned i = 0; i < regions->count; i++) {
        const struct pn__fiber_region *r = &regions->region[i];
        memcpy(to, r->address, r->size);
        to += r->size;
    }
    own->count = regions->count;
}

void pn__fiber_memory_restore(const struct pn__fiber_regions *regions,
                              const struct pn__fiber_memory *own)
{
    const char *from = own->bytes;
    for (unsigned i = 0; i < regions->count; i++) {
        const struct pn__fiber_region *r = &regions->region[i];
        if (i < own->count) {
            memcpy(r->address, from, r->size);
        } else {
            memset(r->address, 0, r->size);
            if (r->initial_size)
                memcpy(r->address, r->initial, r->initial_size);
        }
        from += r->size;
    }
}

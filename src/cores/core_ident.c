/* SPDX-License-Identifier: Apache-2.0 */
/* What makes a fiber look like a thread: its ident, and memory that is its own.
 *
 * From an ident back to its core: a fiber's ident is the address of its struct pn_core, and cores live
 * as long as pn_cores: so the table of all is searched without a lock, and nothing behind the
 * ident is read before it was found there. Rare calls only (pthread_kill and kin). */
#include "cores/cores_impl.h"

struct pn_core *pn_cores_by_ident(struct pn_cores *cores, uintptr_t ident)
{
    if (cores->config.carrier != PN_CARRIER_FIBERS)
        return NULL;
    unsigned count = atomic_load_explicit(&cores->all_count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        struct pn_core *core = cores->all[i];
        if ((uintptr_t)core == ident && core != cores->home)
            return core;
    }
    return NULL;
}

int pn_cores_own_memory(struct pn_cores *cores, void *address, size_t size, const void *initial,
                        size_t initial_size)
{
    const struct pn__fiber_region region = {address, initial, initial_size, size};
    if (cores->config.carrier != PN_CARRIER_FIBERS)
        return 0;
    PN_ASSERT(pn__core_self && pn__core_self->cores == cores);
    return pn__fiber_regions_add(&cores->regions, &region);
}

void **pn_core_values(struct pn_core *core)
{
    return &core->values;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* From an ident back to its core. A fiber's ident is the address of its struct pn_core, and cores live
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

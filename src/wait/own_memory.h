/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries whose thread-local variables each fiber must have for itself. */
#pragma once

#include "wait/images.h"

struct pn_cores;
struct pn_log;

/* Looks for them among the images that are loaded now. On a core, or on home. Cheap when nothing was loaded
 * since the last look. */
void pn__own_memory_scan(struct pn_cores *cores, struct pn_log *log);
/* Forgets the last look. */
void pn__own_memory_reset(void);

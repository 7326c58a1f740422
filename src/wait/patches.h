/* SPDX-License-Identifier: Apache-2.0 */
/* The slots of one image that were rewritten, and what stood in them. */
#pragma once

#include "wait/images.h"

struct pn__patch {
    uintptr_t *slot;
    uintptr_t original;
    uintptr_t replacement;
};

/* All zero is an empty one. */
struct pn__patches {
    struct pn__patch *list;
    size_t count;
    size_t capacity;
};

/* Takes down one more; nothing is written yet. 0 or -ENOMEM. */
int pn__patches_add(struct pn__patches *patches, const struct pn__patch *patch);
/* Writes the replacements from the FIRST patch on into IMAGE. 0, or negative errno: then nothing was written
 * and these patches are dropped. */
int pn__patches_store(struct pn__patches *patches, size_t first, const struct pn__image *image);
/* Drops what IMAGE, which may be another one at the place of the one before, doesn't hold. */
void pn__patches_recheck(struct pn__patches *patches, const struct pn__image *image);
/* Puts back what stood in the slots that still hold the replacement. IMAGE is that of pn__patches_store, and
 * loaded still. */
void pn__patches_undo(struct pn__patches *patches, const struct pn__image *image);
/* Forgets them all. */
void pn__patches_free(struct pn__patches *patches);

/* SPDX-License-Identifier: Apache-2.0 */
/* The redirected names: which function stands in for which, and in which images. */
#pragma once

#include "wait/images.h"

struct pn__redirect {
    const char *name;
    void *replacement;
    unsigned images;  /* bits of enum pn__image_kind */
    bool fibers_only; /* idents, tries and wakes: with threads they are the kernel's own */
};

/* Sorted by name, so that an import is looked up by bisection. */
extern const struct pn__redirect pn__redirects[];
extern const size_t pn__redirects_count;

/* Once, before the first look for a name. */
void pn__redirects_prepare(void);
/* The row for NAME, or NULL. */
const struct pn__redirect *pn__redirect_find(const char *name);

/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries that are known by name: those whose waits a fiber cannot make right, and those that must never
 * wait in a core. Their calls are left alone; what a user should know of it is said in the log. */
#pragma once

#include "base/defs.h"

struct pn__known_library {
    const char *name;  /* a part of the file's name */
    bool fibers_only;  /* right in threads */
    const char *about; /* for the log; NULL: nobody needs to know */
};

/* The entry for the image at PATH, or NULL. */
const struct pn__known_library *pn__known_find(const char *path, bool fibers);
/* Its number among them. */
unsigned pn__known_number(const struct pn__known_library *known);

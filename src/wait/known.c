/* SPDX-License-Identifier: Apache-2.0 */
#include "wait/known.h"

#include <string.h>

#define ABSL                                                                       \
    "keeps what waits for its locks by thread, and all fibers are one thread: its" \
    " waits block the server while they last; it waits well with --threads"

static const struct pn__known_library known_libraries[] = {
    {"cygrpc", true, ABSL},
    {"libgrpc.so", true, ABSL},
    {"libabsl_synchronization", true, ABSL},
    /* An allocator's locks are held for moments and never over a wait; who waits for one may be in the midst of
     * parking itself. */
    {"libjemalloc", false, NULL},
    {"libmimalloc", false, NULL},
    {"libtcmalloc", false, NULL},
};

const struct pn__known_library *pn__known_find(const char *path, bool fibers)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash ? slash + 1 : path;
    for (size_t i = 0; i < PN_ARRAY_LEN(known_libraries); i++) {
        const struct pn__known_library *known = &known_libraries[i];
        if (strstr(file, known->name) && (fibers || !known->fibers_only))
            return known;
    }
    return NULL;
}

unsigned pn__known_number(const struct pn__known_library *known)
{
    return (unsigned)(known - known_libraries);
}

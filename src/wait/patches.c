/* SPDX-License-Identifier: Apache-2.0 */
/* Slots are written by one 8-byte store, so a thread that calls through one meanwhile takes either the
 * old way or the new. The pages that the linker made read-only are opened and closed again once for all
 * slots of an image: a pair of these system calls takes some microseconds. */
#include "wait/patches.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

enum { FIRST_CAPACITY = 8 };

int pn__patches_add(struct pn__patches *patches, const struct pn__patch *patch)
{
    if (patches->count == patches->capacity) {
        size_t capacity = patches->capacity ? patches->capacity * 2 : FIRST_CAPACITY;
        struct pn__patch *grown = pn_try_realloc(patches->list, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        patches->list = grown;
        patches->capacity = capacity;
    }
    patches->list[patches->count++] = *patch;
    return 0;
}

/* The read-only pages of the slots from FIRST on, with what lies between them: that is read-only, too. */
static struct pn__span closed_pages(const struct pn__patches *patches, size_t first,
                                    const struct pn__image *image)
{
    struct pn__span sealed = pn__image_sealed(image);
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct pn__span pages = {0, 0};
    for (size_t i = first; i < patches->count; i++) {
        uintptr_t slot = (uintptr_t)patches->list[i].slot;
        uintptr_t page = slot & ~(page_size - 1);
        if (!pn__span_contains(&sealed, slot))
            continue;
        if (pages.end == 0 || page < pages.start)
            pages.start = page;
        if (page + page_size > pages.end)
            pages.end = page + page_size;
    }
    return pages;
}

static int protect(const struct pn__span *pages, int protection)
{
    void *start = (void *)pages->start; /* NOLINT: an address */
    if (pages->end && mprotect(start, pages->end - pages->start, protection) < 0)
        return -errno;
    return 0;
}

int pn__patches_store(struct pn__patches *patches, size_t first, const struct pn__image *image)
{
    struct pn__span pages = closed_pages(patches, first, image);
    int r = protect(&pages, PROT_READ | PROT_WRITE);
    if (r < 0) {
        patches->count = first;
        return r;
    }
    for (size_t i = first; i < patches->count; i++)
        __atomic_store_n(patches->list[i].slot, patches->list[i].replacement, __ATOMIC_RELEASE);
    /* Can it not be closed, then it's as it would be without RELRO. */
    (void)protect(&pages, PROT_READ);
    return 0;
}

static bool is_ours(const struct pn__patch *patch)
{
    return __atomic_load_n(patch->slot, __ATOMIC_ACQUIRE) == patch->replacement;
}

void pn__patches_recheck(struct pn__patches *patches, const struct pn__image *image)
{
    size_t kept = 0;
    for (size_t i = 0; i < patches->count; i++)
        if (pn__image_contains(image, (uintptr_t)patches->list[i].slot) &&
            is_ours(&patches->list[i]))
            patches->list[kept++] = patches->list[i];
    patches->count = kept;
}

void pn__patches_undo(struct pn__patches *patches, const struct pn__image *image)
{
    struct pn__span pages = closed_pages(patches, 0, image);
    if (protect(&pages, PROT_READ | PROT_WRITE) < 0)
        return;
    for (size_t i = 0; i < patches->count; i++)
        if (is_ours(&patches->list[i]))
            __atomic_store_n(patches->list[i].slot, patches->list[i].original, __ATOMIC_RELEASE);
    (void)protect(&pages, PROT_READ);
}

void pn__patches_free(struct pn__patches *patches)
{
    free(patches->list);
    *patches = (struct pn__patches){0};
}

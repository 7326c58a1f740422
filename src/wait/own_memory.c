/* SPDX-License-Identifier: Apache-2.0 */
/* See own_memory.h.
 *
 *   greenlet    which greenlet runs, and what belongs to its thread: with one for all fibers a switch would
 *               jump onto another fiber's stack
 *   libstdc++   exceptions in flight: a handler that waits would find another fiber's
 *
 * Not every library's: caches of allocators, say, rightly belong to the OS thread. */
#include "wait/own_memory.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cores/core.h"

static const char *const names[] = {"_greenlet.", "libstdc++"};

/* As the compiler calls it (the ABI's, of dynamic thread-local storage). */
struct tls_index {
    unsigned long module;
    unsigned long offset;
};
void *__tls_get_addr(struct tls_index *index);

/* Process-wide, as what is loaded is. Only one core runs at a time. */
static struct pn__load_counts seen;

enum { FOUND_MAX = 8 };

struct found {
    char *name; /* owned */
    unsigned long module;
    const void *initial;
    size_t initial_size;
    size_t size;
};

/* The linker's locks are held while it walks over its list: what needs them is done afterwards. */
struct scan {
    struct found found[FOUND_MAX];
    unsigned count;
};

static bool is_wanted(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static int look_at(struct dl_phdr_info *info, size_t PN_UNUSED size, void *ctx)
{
    struct scan *scan = ctx;
    if (info->dlpi_tls_modid == 0 || !is_wanted(info->dlpi_name))
        return 0;
    for (ElfW(Half) i = 0; i < info->dlpi_phnum && scan->count < FOUND_MAX; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_TLS)
            continue;
        scan->found[scan->count++] = (struct found){
            .name = pn_xstrdup(info->dlpi_name),
            .module = info->dlpi_tls_modid,
            .initial = (const void *)(info->dlpi_addr + p->p_vaddr),
            .initial_size = p->p_filesz,
            .size = p->p_memsz,
        };
    }
    return 0;
}

static void own(struct pn_cores *cores, struct pn_log *log, const struct found *f)
{
    /* It is never unloaded from now on: its memory must stay. The handle is kept for that. */
    if (!dlopen(f->name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE))
        return;
    /* Made for this thread here, if nobody has touched it yet. */
    struct tls_index index = {f->module, 0};
    if (pn_cores_own_memory(cores, __tls_get_addr(&index), f->size, f->initial, f->initial_size) ==
        0)
        return;
    pn_log_warning(log,
                   "%s: there is no room to keep its thread-local variables (%zu bytes) for each "
                   "fiber; requests that use it may disturb each other",
                   f->name, f->size);
}

void pn__own_memory_scan(struct pn_cores *cores, struct pn_log *log)
{
    struct pn__load_counts counts = pn__image_counts();
    struct scan scan = {.count = 0};
    if (counts.adds == seen.adds)
        return;
    seen = counts;
    dl_iterate_phdr(look_at, &scan);
    for (unsigned i = 0; i < scan.count; i++) {
        own(cores, log, &scan.found[i]);
        free(scan.found[i].name);
    }
}

void pn__own_memory_reset(void)
{
    seen = (struct pn__load_counts){0, 0};
}

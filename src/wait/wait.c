/* SPDX-License-Identifier: Apache-2.0 */
/* The patcher: finds the images, rewrites their slots, remembers how to undo it.
 *
 * Slots are written by one 8-byte store, so a thread that calls through one meanwhile takes either
 * the old way or the new. A page that the linker made read-only is opened and closed again around
 * the store. Everything here runs under one lock: a dlopen in any thread may scan. */
#include "wait/wait.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "wait/fds.h"
#include "wait/gate.h"
#include "wait/images.h"
#include "wait/io.h"
#include "wait/known.h"
#include "wait/layout.h"
#include "wait/own_memory.h"
#include "wait/queue.h"
#include "wait/table.h"

struct patch {
    uintptr_t *slot;
    uintptr_t original;
    uintptr_t replacement;
    ElfW(Addr) base; /* of its image */
    bool read_only;
};

struct known_image {
    ElfW(Addr) base;
    const ElfW(Phdr) * phdr;
    bool seen; /* in the scan under way */
};

/* Process-wide, as import tables are. */
static struct {
    pthread_mutex_t lock;
    struct pn_wait_config config; /* leave_alone is an own copy */
    struct pn__landmarks landmarks;
    uintptr_t libc_start, libc_end; /* its code: what a slot must resolve to */
    uintptr_t *targets;             /* by row: the global scope's definition */
    struct patch *patches;
    size_t patch_count, patch_capacity;
    struct known_image *images;
    size_t image_count, image_capacity;
    struct pn__load_counts counts;
    uint64_t known_said; /* bits by number */
    struct pn_wait_stats stats;
} patcher = {.lock = PTHREAD_MUTEX_INITIALIZER};

_Atomic bool pn__wait_on;
static _Atomic uint64_t calls_waited;

struct pn_cores *pn__wait_cores(void)
{
    struct pn_cores *cores = patcher.config.cores;
    return cores && pn_cores_carrier(cores) == PN_CARRIER_FIBERS ? cores : NULL;
}

void pn__wait_count(void)
{
    atomic_fetch_add_explicit(&calls_waited, 1, memory_order_relaxed);
}

/* --- Slots --- */

static int set_slot(uintptr_t *slot, uintptr_t value, bool read_only)
{
    static size_t page_size;
    if (!page_size)
        page_size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = (void *)((uintptr_t)slot & ~(page_size - 1));
    if (read_only && mprotect(page, page_size, PROT_READ | PROT_WRITE) < 0)
        return -errno;
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    if (read_only && mprotect(page, page_size, PROT_READ) < 0)
        return -errno;
    return 0;
}

struct scan {
    const struct pn__image *image;
    enum pn__image_kind kind;
    int changed;
    int error;
};

/* A slot is ours to take when it resolves to libc, to what stands in libc's place in the global
 * scope (a sanitizer, a preloaded library), or is not resolved yet (lazy: it points into its own image). */
static bool is_libc_call(const struct pn__image *image, const struct pn__import *import,
                         const struct pn__redirect *row, uintptr_t value)
{
    if (value - patcher.libc_start < patcher.libc_end - patcher.libc_start)
        return true;
    if (value == patcher.targets[row - pn__redirects])
        return true;
    /* Another library may have a function of that name ("wait", "pause"): what is bound by and by says by its
     * version whose it wants. */
    return pn__image_contains(image, value) && pn__import_is_of_libc(import);
}

static struct patch *patch_room(void)
{
    if (patcher.patch_count == patcher.patch_capacity) {
        size_t capacity = patcher.patch_capacity ? patcher.patch_capacity * 2 : 256;
        struct patch *grown = pn_try_realloc(patcher.patches, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        patcher.patches = grown;
        patcher.patch_capacity = capacity;
    }
    return &patcher.patches[patcher.patch_count];
}

static void patch_import(void *ctx, const struct pn__import *import)
{
    struct scan *scan = ctx;
    const struct pn__redirect *row = pn__redirect_find(import->name);
    if (!row || !(row->images & scan->kind) || (row->fibers_only && !pn__wait_cores()))
        return;
    uintptr_t value = __atomic_load_n(import->slot, __ATOMIC_ACQUIRE);
    if (value == (uintptr_t)row->replacement || !is_libc_call(scan->image, import, row, value))
        return;
    struct patch *patch = patch_room();
    int r =
        patch ? set_slot(import->slot, (uintptr_t)row->replacement, import->read_only) : -ENOMEM;
    if (r < 0) {
        scan->error = r;
        return;
    }
    /* An unresolved lazy slot is given back as what it will resolve to. */
    uintptr_t original =
        pn__image_contains(scan->image, value) ? patcher.targets[row - pn__redirects] : value;
    *patch = (struct patch){import->slot, original, (uintptr_t)row->replacement, scan->image->base,
                            import->read_only};
    patcher.patch_count++;
    scan->changed++;
}

/* --- Images --- */

static bool left_alone(const char *name)
{
    for (size_t i = 0; i < patcher.config.leave_alone_count; i++)
        if (name[0] && strstr(name, patcher.config.leave_alone[i]))
            return true;
    return false;
}

/* True when the image was scanned before; else it is remembered. */
static bool known_before(const struct pn__image *image)
{
    for (size_t i = 0; i < patcher.image_count; i++) {
        struct known_image *k = &patcher.images[i];
        if (k->base == image->base && k->phdr == image->phdr) {
            k->seen = true;
            return true;
        }
    }
    if (patcher.image_count == patcher.image_capacity) {
        size_t capacity = patcher.image_capacity ? patcher.image_capacity * 2 : 64;
        struct known_image *grown = pn_try_realloc(patcher.images, capacity * sizeof *grown);
        if (!grown)
            return false; /* scanned again next time: slow, not wrong */
        patcher.images = grown;
        patcher.image_capacity = capacity;
    }
    patcher.images[patcher.image_count++] = (struct known_image){image->base, image->phdr, true};
    return false;
}

/* Libraries that are known by name; each is spoken of once. */
static bool left_alone_as_known(const char *path)
{
    const struct pn__known_library *known = pn__known_find(path, pn__wait_cores() != NULL);
    if (!known)
        return false;
    uint64_t bit = UINT64_C(1) << pn__known_number(known);
    if (known->about && !(patcher.known_said & bit))
        pn_log_warning(patcher.config.log, "%s %s", path, known->about);
    patcher.known_said |= bit;
    return true;
}

static int scan_image(struct dl_phdr_info *info, size_t size, void *ctx)
{
    int *changed = ctx;
    struct pn__image image = {info->dlpi_addr, info->dlpi_name, info->dlpi_phdr, info->dlpi_phnum};
    (void)size;
    if (known_before(&image) || left_alone(image.name) || left_alone_as_known(image.name))
        return 0;
    struct scan scan = {.image = &image, .kind = pn__image_classify(&image, &patcher.landmarks)};
    if (scan.kind == PN__IMAGE_NONE)
        return 0;
    int r = pn__image_imports(&image, patch_import, &scan);
    if (r < 0 || scan.error)
        pn_log_warning(
            patcher.config.log,
            "the import table of %s cannot be redirected (%s): its calls block their thread",
            image.name[0] ? image.name : "the program", strerror(-(r ? r : scan.error)));
    *changed += scan.changed;
    patcher.stats.images += scan.changed > 0;
    return 0;
}

/* Drops what is remembered of images that were unloaded. */
static void forget_unloaded(void)
{
    size_t kept = 0, patches = 0;
    for (size_t i = 0; i < patcher.image_count; i++)
        if (patcher.images[i].seen)
            patcher.images[kept++] = patcher.images[i];
    patcher.image_count = kept;
    for (size_t p = 0; p < patcher.patch_count; p++)
        for (size_t i = 0; i < kept; i++)
            if (patcher.images[i].base == patcher.patches[p].base) {
                patcher.patches[patches++] = patcher.patches[p];
                break;
            }
    patcher.patch_count = patches;
}

static int scan_locked(void)
{
    struct pn__load_counts counts = pn__image_counts();
    int changed = 0;
    if (counts.adds == patcher.counts.adds && counts.subs == patcher.counts.subs)
        return 0;
    int64_t start_ns = pn_clock_mono_ns();
    /* After an unload another image may stand at a remembered address: everything is looked at anew;
     * slots that are ours already are passed over. */
    if (counts.subs != patcher.counts.subs)
        patcher.image_count = 0;
    for (size_t i = 0; i < patcher.image_count; i++)
        patcher.images[i].seen = false;
    dl_iterate_phdr(scan_image, &changed);
    forget_unloaded();
    patcher.counts = counts;
    patcher.stats.scans++;
    patcher.stats.slots = (unsigned)patcher.patch_count;
    patcher.stats.scan_ns_total += pn_clock_mono_ns() - start_ns;
    return changed;
}

/* --- Install, scan, undo --- */

static int find_libc_range(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct pn__image image = {info->dlpi_addr, info->dlpi_name, info->dlpi_phdr, info->dlpi_phnum};
    (void)size;
    (void)ctx;
    if (!pn__image_contains(&image, patcher.landmarks.libc))
        return 0;
    for (ElfW(Half) i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        patcher.libc_start = info->dlpi_addr + p->p_vaddr;
        patcher.libc_end = patcher.libc_start + p->p_memsz;
    }
    return 1;
}

static void copy_leave_alone(const struct pn_wait_config *config)
{
    const char **copy = pn_xcalloc(config->leave_alone_count + 1, sizeof *copy);
    for (size_t i = 0; i < config->leave_alone_count; i++)
        copy[i] = pn_xstrdup(config->leave_alone[i]);
    patcher.config.leave_alone = copy;
}

/* A load in a thread that is no core is noticed at the end of the turn. */
static void scan_own_memory(void)
{
    struct pn_cores *cores = pn__wait_cores();
    if (cores && pn_core_self())
        pn__own_memory_scan(cores, patcher.config.log);
}

int pn_wait_install(const struct pn_wait_config *config)
{
    pthread_mutex_lock(&patcher.lock);
    if (patcher.targets) {
        pthread_mutex_unlock(&patcher.lock);
        return -EALREADY;
    }
    patcher.config = *config;
    copy_leave_alone(config);
    pn__landmarks_find(&patcher.landmarks);
    pn__layout_learn();
    dl_iterate_phdr(find_libc_range, NULL);
    patcher.targets = pn_xcalloc(pn__redirects_count, sizeof *patcher.targets);
    for (size_t i = 0; i < pn__redirects_count; i++)
        patcher.targets[i] = (uintptr_t)dlsym(RTLD_DEFAULT, pn__redirects[i].name);
    pn__fds_install(config->cores);
    atomic_store(&pn__wait_on, true);
    scan_locked();
    pthread_mutex_unlock(&patcher.lock);
    scan_own_memory();
    return patcher.libc_end ? 0 : -ENOEXEC;
}

int pn_wait_scan(void)
{
    if (!atomic_load_explicit(&pn__wait_on, memory_order_relaxed))
        return 0;
    pthread_mutex_lock(&patcher.lock);
    int changed = scan_locked();
    pthread_mutex_unlock(&patcher.lock);
    scan_own_memory();
    return changed;
}

void pn_wait_uninstall(void)
{
    pthread_mutex_lock(&patcher.lock);
    atomic_store(&pn__wait_on, false);
    pn__own_memory_reset();
    pn__fds_uninstall();
    pn__resolve_uninstall();
    patcher.config.cores = NULL;
    patcher.counts = (struct pn__load_counts){0, 0};
    scan_locked(); /* patches of unloaded images are dropped, new ones cost nothing */
    for (size_t i = 0; i < patcher.patch_count; i++) {
        struct patch *p = &patcher.patches[i];
        if (__atomic_load_n(p->slot, __ATOMIC_ACQUIRE) == p->replacement)
            (void)set_slot(p->slot, p->original, p->read_only);
    }
    for (size_t i = 0; i < patcher.config.leave_alone_count; i++)
        free((char *)patcher.config.leave_alone[i]);
    free((void *)patcher.config.leave_alone);
    free(patcher.patches);
    free(patcher.images);
    free(patcher.targets);
    patcher.patches = NULL;
    patcher.images = NULL;
    patcher.targets = NULL;
    patcher.patch_count = patcher.patch_capacity = 0;
    patcher.image_count = patcher.image_capacity = 0;
    patcher.counts = (struct pn__load_counts){0, 0};
    patcher.stats = (struct pn_wait_stats){0};
    pthread_mutex_unlock(&patcher.lock);
    pn__queue_settle();
}

void pn_wait_after_fork_child(void)
{
    atomic_store(&pn__wait_on, false);
    /* Another thread of the parent may have been scanning at the fork. */
    pthread_mutex_init(&patcher.lock, NULL);
    pn__queue_after_fork_child();
    pn__layout_after_fork_child();
    pn__resolve_after_fork_child();
    pn__self_after_fork_child();
}

void pn_wait_stats(struct pn_wait_stats *out)
{
    pthread_mutex_lock(&patcher.lock);
    *out = patcher.stats;
    pthread_mutex_unlock(&patcher.lock);
    out->calls_waited = atomic_load_explicit(&calls_waited, memory_order_relaxed);
}

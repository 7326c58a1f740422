/* SPDX-License-Identifier: Apache-2.0 */
/* The patcher: finds the images, rewrites their slots, remembers how to undo it.
 *
 * Everything here runs under one lock: a dlopen in any thread may scan. Nobody waits for the linker's locks
 * with it but pn_wait_install, so that the loop may take it. */
#include "wait/wait.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "wait/fds.h"
#include "wait/gate.h"
#include "wait/helper.h"
#include "wait/images.h"
#include "wait/io.h"
#include "wait/known.h"
#include "wait/layout.h"
#include "wait/own_memory.h"
#include "wait/patches.h"
#include "wait/queue.h"
#include "wait/table.h"

enum { SCAN_TRIES = 8 }; /* while other threads load on and on */

struct known_image {
    struct pn__image image;
    struct pn__patches patches;
    bool seen; /* in the scan under way */
};

/* Process-wide, as import tables are. */
static struct {
    pthread_mutex_t lock;
    struct pn_wait_config config; /* leave_alone is an own copy */
    struct pn__landmarks landmarks;
    uintptr_t libc_start, libc_end; /* its code: what a slot must resolve to */
    uintptr_t *targets;             /* by row that is asked for: the global scope's definition */
    struct known_image *images;
    size_t image_count, image_capacity;
    struct pn__load_counts counts;
    uint64_t known_said; /* bits by number */
    struct pn_wait_stats stats;
} patcher = {.lock = PTHREAD_MUTEX_INITIALIZER};

_Atomic bool pn__wait_on;
static _Atomic bool settling; /* a helper is going to scan */
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

struct import_plan {
    const struct pn__image *image;
    enum pn__image_kind kind;
    struct pn__patches *patches;
    int error;
};

static bool is_asked_for(const struct pn__redirect *row)
{
    return !row->fibers_only || pn__wait_cores();
}

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

static void plan_import(void *ctx, const struct pn__import *import)
{
    struct import_plan *plan = ctx;
    const struct pn__redirect *row = pn__redirect_find(import->name);
    if (!row || !(row->images & plan->kind) || !is_asked_for(row))
        return;
    uintptr_t value = __atomic_load_n(import->slot, __ATOMIC_ACQUIRE);
    if (value == (uintptr_t)row->replacement || !is_libc_call(plan->image, import, row, value))
        return;
    struct pn__patch patch = {import->slot, value, (uintptr_t)row->replacement};
    /* An unresolved lazy slot is given back as what it will resolve to. */
    if (pn__image_contains(plan->image, value))
        patch.original = patcher.targets[row - pn__redirects];
    int r = pn__patches_add(plan->patches, &patch);
    if (r < 0)
        plan->error = r;
}

/* --- Images --- */

static bool left_alone(const char *name)
{
    for (size_t i = 0; i < patcher.config.leave_alone_count; i++)
        if (name[0] && strstr(name, patcher.config.leave_alone[i]))
            return true;
    return false;
}

struct scan {
    struct pn__load_counts counts; /* all loads among them are over */
    size_t known;                  /* images before this scan */
    size_t next;                   /* among them: the linker's list keeps its order */
    bool recheck;                  /* another image may stand where one stood before */
    bool overtaken;                /* by another load: nothing was done */
    int changed;
};

/* What is remembered of an image, or NULL. */
static struct known_image *known_before(struct scan *scan, const struct pn__image *image)
{
    for (size_t tried = 0; tried < scan->known; tried++) {
        if (scan->next == scan->known)
            scan->next = 0;
        struct known_image *known = &patcher.images[scan->next++];
        if (known->image.base == image->base && known->image.phdr == image->phdr)
            return known;
    }
    return NULL;
}

static struct known_image *remember(const struct pn__image *image)
{
    if (patcher.image_count == patcher.image_capacity) {
        size_t capacity = patcher.image_capacity ? patcher.image_capacity * 2 : 64;
        struct known_image *grown = pn_try_realloc(patcher.images, capacity * sizeof *grown);
        if (!grown)
            return NULL;
        patcher.images = grown;
        patcher.image_capacity = capacity;
    }
    struct known_image *known = &patcher.images[patcher.image_count++];
    *known = (struct known_image){.image = *image};
    return known;
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

/* Redirects what is to be redirected in an image and isn't yet; returns how many slots that were. */
static int patch_image(struct known_image *known)
{
    const struct pn__image *image = &known->image;
    size_t first = known->patches.count;
    struct import_plan plan = {.image = image, .patches = &known->patches};
    if (left_alone(image->name) || left_alone_as_known(image->name))
        return 0;
    plan.kind = pn__image_classify(image, &patcher.landmarks);
    if (plan.kind == PN__IMAGE_NONE)
        return 0;
    int r = pn__image_imports(image, plan_import, &plan);
    if (r == 0)
        r = pn__patches_store(&known->patches, first, image);
    if (r < 0 || plan.error)
        pn_log_warning(
            patcher.config.log,
            "the import table of %s cannot be redirected (%s): its calls block their thread",
            image->name[0] ? image->name : "the program", strerror(-(r ? r : plan.error)));
    return (int)(known->patches.count - first);
}

static int scan_image(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct scan *scan = ctx;
    struct pn__image image = {info->dlpi_addr, info->dlpi_name, info->dlpi_phdr, info->dlpi_phnum};
    (void)size;
    /* The counters stand still while the linker goes through its list. */
    if (info->dlpi_adds != scan->counts.adds) {
        scan->overtaken = true;
        return 1;
    }
    struct known_image *known = known_before(scan, &image);
    if (known && !scan->recheck) {
        known->seen = true;
        return 0;
    }
    if (known) {
        known->image = image;
        pn__patches_recheck(&known->patches, &image);
    } else {
        known = remember(&image);
    }
    if (!known) {
        pn_log_warning(patcher.config.log, "no memory to redirect the calls of %s", image.name);
        return 0;
    }
    known->seen = true;
    scan->changed += patch_image(known);
    return 0;
}

/* Drops what is remembered of images that were unloaded, and counts what is left. */
static void forget_unloaded(void)
{
    size_t kept = 0;
    patcher.stats.images = patcher.stats.slots = 0;
    for (size_t i = 0; i < patcher.image_count; i++) {
        struct known_image *known = &patcher.images[i];
        if (!known->seen) {
            pn__patches_free(&known->patches);
            continue;
        }
        known->seen = false;
        patcher.stats.images += known->patches.count > 0;
        patcher.stats.slots += (unsigned)known->patches.count;
        patcher.images[kept++] = *known;
    }
    patcher.image_count = kept;
}

/* Brings what is patched up to COUNTS, whose loads are over; returns how many slots changed. */
static int scan_locked(const struct pn__load_counts *counts)
{
    int64_t start_ns = pn_clock_mono_ns();
    struct scan scan = {
        .counts = *counts,
        .known = patcher.image_count,
        /* After an unload another image may stand at a remembered address: everything is looked at anew. */
        .recheck = counts->adds != patcher.counts.adds && counts->subs != patcher.counts.subs,
    };
    dl_iterate_phdr(scan_image, &scan);
    if (scan.overtaken)
        return 0;
    forget_unloaded();
    patcher.counts = *counts;
    patcher.stats.scans++;
    patcher.stats.scan_ns_total += pn_clock_mono_ns() - start_ns;
    return scan.changed;
}

/* Whether anything was loaded or unloaded since the last scan; COUNTS is how it stands now. */
static bool is_outdated(struct pn__load_counts *counts)
{
    *counts = pn__image_counts();
    pthread_mutex_lock(&patcher.lock);
    bool outdated = counts->adds != patcher.counts.adds || counts->subs != patcher.counts.subs;
    pthread_mutex_unlock(&patcher.lock);
    return outdated;
}

/* Returns when the loads that were under way are over. The linker lists an image before it binds it: a slot would
 * be overwritten again, and where a page is closed too early the linker itself faults. From before the listing
 * until after the constructors it holds a lock that dlsym takes. */
static void wait_for_loads(void)
{
    (void)dlsym(RTLD_DEFAULT, "dlsym");
}

static int scan_settled(void)
{
    struct pn__load_counts counts;
    int changed = 0;
    for (int i = 0; i < SCAN_TRIES && is_outdated(&counts); i++) {
        wait_for_loads();
        pthread_mutex_lock(&patcher.lock);
        if (atomic_load(&pn__wait_on))
            changed += scan_locked(&counts);
        pthread_mutex_unlock(&patcher.lock);
    }
    return changed;
}

static void *settle(void *unused)
{
    (void)unused;
    (void)scan_settled();
    atomic_store(&settling, false);
    return NULL;
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
    pn__redirects_prepare();
    dl_iterate_phdr(find_libc_range, NULL);
    patcher.targets = pn_xcalloc(pn__redirects_count, sizeof *patcher.targets);
    for (size_t i = 0; i < pn__redirects_count; i++)
        if (is_asked_for(&pn__redirects[i]))
            patcher.targets[i] = (uintptr_t)dlsym(RTLD_DEFAULT, pn__redirects[i].name);
    pn__fds_install(config->cores);
    atomic_store(&pn__wait_on, true);
    pthread_mutex_unlock(&patcher.lock);
    (void)scan_settled();
    scan_own_memory();
    return patcher.libc_end ? 0 : -ENOEXEC;
}

int pn_wait_scan(void)
{
    if (!atomic_load_explicit(&pn__wait_on, memory_order_relaxed))
        return 0;
    int changed = scan_settled();
    scan_own_memory();
    return changed;
}

void pn_wait_scan_later(void)
{
    struct pn__load_counts counts;
    if (!atomic_load_explicit(&pn__wait_on, memory_order_relaxed))
        return;
    /* Is there no thread to be had, then the next turn asks again. */
    if (is_outdated(&counts) && !atomic_exchange(&settling, true) &&
        pn__helper_start(settle, NULL) < 0)
        atomic_store(&settling, false);
    scan_own_memory();
}

/* Under the linker's lock, so that no image goes meanwhile. */
static int undo_image(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct scan *scan = ctx;
    struct pn__image image = {info->dlpi_addr, info->dlpi_name, info->dlpi_phdr, info->dlpi_phnum};
    struct known_image *known = known_before(scan, &image);
    (void)size;
    if (known) {
        pn__patches_recheck(&known->patches, &image);
        pn__patches_undo(&known->patches, &image);
    }
    return 0;
}

void pn_wait_uninstall(void)
{
    pthread_mutex_lock(&patcher.lock);
    atomic_store(&pn__wait_on, false);
    pn__own_memory_reset();
    pn__fds_uninstall();
    pn__resolve_uninstall();
    patcher.config.cores = NULL;
    dl_iterate_phdr(undo_image, &(struct scan){.known = patcher.image_count});
    for (size_t i = 0; i < patcher.image_count; i++)
        pn__patches_free(&patcher.images[i].patches);
    for (size_t i = 0; i < patcher.config.leave_alone_count; i++)
        free((char *)patcher.config.leave_alone[i]);
    free((void *)patcher.config.leave_alone);
    free(patcher.images);
    free(patcher.targets);
    patcher.images = NULL;
    patcher.targets = NULL;
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
    atomic_store(&settling, false);
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

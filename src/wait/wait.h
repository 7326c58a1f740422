/* SPDX-License-Identifier: Apache-2.0 */
/* libc calls that wait in a core instead of blocking its thread.
 *
 * pn_wait_install rewrites the import tables (JUMP_SLOT, GLOB_DAT, 64-bit data relocations) of the
 * images of this process, so that their calls of the names in wait/table.c reach Pelton's functions
 * first. Nothing is preloaded, no Python is patched. A redirected call goes straight on when
 *   - the caller is no core (pn_core_self() is NULL), or the core's carrier is inline,
 *   - the caller holds the GIL with the core's own state (host->attached), or
 *   - the core owns the loop (it runs server code, not the application's).
 * Otherwise it first tries without waiting; would it wait, it waits by src/cores, and then behaves exactly as
 * the libc call would: result, errno, time-outs, signals.
 * Waking calls (sem_post) are redirected in every thread.
 *
 * Which image gets which names (wait/table.c): the interpreter's image (found by the symbol
 * Py_IsInitialized that it defines) gets no mutexes and no condition variables, since its GIL is made
 * of them; sanitizer runtimes, libc, the dynamic linker and Pelton's own extension get none. Onward
 * calls go through the dynamic symbol (dlsym at install), so sanitizers and LD_PRELOAD stay in the chain.
 *
 * One patcher a process. Its state is process-wide because import tables are; everything about a
 * waiting call hangs on the current core. */
#pragma once

#include "base/log.h"
#include "cores/core.h"

struct pn_wait_config {
    struct pn_log *log;             /* NULL: the default */
    const char *const *leave_alone; /* image names (a part of the path) not to patch */
    size_t leave_alone_count;
    struct pn_cores
        *cores; /* borrowed; fibers: pthread_self and what takes its result answer by core */
};

/* 0 or negative errno (-ENOEXEC: an image's tables could not be understood: it is named in the log and left alone). Call before threads
 * of the application exist, after the cores were made. Installing twice is -EALREADY. */
int pn_wait_install(const struct pn_wait_config *config);
/* Puts every slot back that still holds our function. */
void pn_wait_uninstall(void);
/* Patches images that were loaded since the last scan; cheap when there are none (two counters are
 * compared). Waits for loads that are under way in other threads, with their constructors. Called after a
 * redirected dlopen. Returns how many slots changed. */
int pn_wait_scan(void);
/* The same without waiting, for turn ends: when there is something to patch, a thread made for it does so. */
void pn_wait_scan_later(void);
/* Child of a fork, before pn_cores_after_fork_child: every redirected call goes straight on from now on; only
 * pthread_self keeps its answer in the thread that forked. */
void pn_wait_after_fork_child(void);

struct pn_wait_stats {
    unsigned images; /* patched */
    unsigned slots;
    uint64_t scans;
    int64_t scan_ns_total;
    uint64_t calls_waited;
};
void pn_wait_stats(struct pn_wait_stats *out);

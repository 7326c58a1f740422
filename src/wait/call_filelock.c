/* SPDX-License-Identifier: Apache-2.0 */
/* flock(2), fcntl(2)'s F_SETLKW and F_OFD_SETLKW, lockf(3) in a core.
 *
 * The lock is tried; would the call wait, a thread offers the loop and makes the same call, and a fiber has a
 * thread of its own make it: so everybody stands in the kernel's queue of the file. Locks of files
 * belong to the open file or to the process, not to who asked. Like all waits for locks they are never cut. */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "wait/helper.h"
#include "wait/processes.h"

struct request {
    int (*call)(const struct request *q, bool wait); /* the libc call, -1 with errno */
    int fd;
    int command;
    long arg;
    int r;
    int error;
};

static int call_flock(const struct request *q, bool wait)
{
    return flock(q->fd, wait ? q->command : q->command | LOCK_NB);
}

static int call_fcntl(const struct request *q, bool wait)
{
    int try = q->command == F_SETLKW ? F_SETLK : F_OFD_SETLK;
    return fcntl(q->fd, wait ? q->command : try, q->arg);
}

static int call_lockf(const struct request *q, bool wait)
{
    return lockf(q->fd, wait ? F_LOCK : F_TLOCK, (off_t)q->arg);
}

static bool would_wait(int r)
{
    return r < 0 && (errno == EAGAIN || errno == EACCES);
}

static void run_helped(void *arg)
{
    struct request *q = arg;
    q->r = q->call(q, true);
    q->error = errno;
}

static int wait_fiber(struct pn_core *core, struct request *q)
{
    int64_t span_ns = PN_NS_PER_MS;
    if (pn__helper_run(core, run_helped, q) == 0) {
        errno = q->error;
        return q->r;
    }
    do {
        (void)pn_core_sleep_until(core, pn_clock_mono_ns() + span_ns);
        if (span_ns < PN_CORE_REPOLL_MAX_MS * PN_NS_PER_MS)
            span_ns *= 2;
        q->r = q->call(q, false);
    } while (would_wait(q->r));
    return q->r;
}

static int wait_thread(struct pn_core *core, const struct request *q)
{
    int r;
    do {
        bool offered = pn_core_block_begin(core, -1, 0);
        r = q->call(q, true);
        if (offered)
            pn_core_block_end(core); /* keeps errno */
        /* The signal that cuts a core doesn't end its waits for locks. */
    } while (r < 0 && errno == EINTR && pn_core_is_cut(core));
    return r;
}

static int lock_any(struct request *q)
{
    struct pn_core *core = pn__wait_gate();
    if (!core)
        return q->call(q, true);
    int saved = errno;
    int r = q->call(q, false);
    if (!would_wait(r))
        return r;
    pn__wait_count();
    r = pn__core_is_fiber(core) ? wait_fiber(core, q) : wait_thread(core, q);
    if (r >= 0)
        errno = saved;
    return r;
}

int pn__call_flock(int fd, int operation)
{
    struct request q = {.call = call_flock, .fd = fd, .command = operation};
    if ((operation & LOCK_NB) || operation == LOCK_UN)
        return flock(fd, operation);
    return lock_any(&q);
}

int pn__call_fcntl(int fd, int command, long arg)
{
    struct request q = {.call = call_fcntl, .fd = fd, .command = command, .arg = arg};
    if (command != F_SETLKW && command != F_OFD_SETLKW)
        return fcntl(fd, command, arg);
    return lock_any(&q);
}

int pn__call_fcntl64(int fd, int command, long arg)
{
    return pn__call_fcntl(fd, command, arg);
}

int pn__call_lockf(int fd, int command, off_t length)
{
    struct request q = {.call = call_lockf, .fd = fd, .command = command, .arg = length};
    return command == F_LOCK ? lock_any(&q) : lockf(fd, command, length);
}

int pn__call_lockf64(int fd, int command, off_t length)
{
    return pn__call_lockf(fd, command, length);
}

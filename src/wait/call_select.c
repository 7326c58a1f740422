/* SPDX-License-Identifier: Apache-2.0 */
/* select and pselect (POSIX.1-2017, select(2)) in a core: waits as poll does, and lets select itself say
 * what is ready. Linux takes the time that passed off select's time-out; so is it done here. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "wait/fds.h"
#include "wait/io.h"

/* select's three kinds of readiness, as poll has them (fs/select.c's table, in POSIX's words). */
#define READABLE POLLIN
#define WRITABLE POLLOUT
#define SPECIAL  POLLPRI

struct sets {
    fd_set *live[3]; /* the caller's; any may be NULL */
    char *copy;      /* of the three, as they were given */
    size_t size;     /* of one, in whole longs */
    int count;
    struct pollfd *fds;
    nfds_t fds_count;
};

static size_t set_size(int count)
{
    const size_t bits = sizeof(long) * CHAR_BIT;
    return ((size_t)count + bits - 1) / bits * sizeof(long);
}

/* Sets may be longer than fd_set is (FD_ISSET would refuse): the bytes are looked at themselves. */
static bool has(const char *set, int fd)
{
    unsigned long word;
    const size_t bits = sizeof word * CHAR_BIT;
    memcpy(&word, set + (size_t)fd / bits * sizeof word, sizeof word);
    return word >> (size_t)fd % bits & 1;
}

static void list_fds(struct sets *s)
{
    static const short events[3] = {READABLE, WRITABLE, SPECIAL};
    for (int fd = 0; fd < s->count; fd++) {
        short wanted = 0;
        for (int k = 0; k < 3; k++)
            if (s->live[k] && has(s->copy + (size_t)k * s->size, fd))
                wanted |= events[k];
        if (wanted)
            s->fds[s->fds_count++] = (struct pollfd){.fd = fd, .events = wanted};
    }
}

/* False without memory. */
static bool sets_keep(struct sets *s, int count, fd_set *readable, fd_set *writable,
                      fd_set *special)
{
    size_t size = set_size(count), room = 3 * size + (size_t)count * sizeof(struct pollfd);
    *s = (struct sets){.live = {readable, writable, special}, .size = size, .count = count};
    s->fds = pn_try_realloc(NULL, room ? room : 1);
    if (!s->fds)
        return false;
    s->copy = (char *)s->fds + (size_t)count * sizeof(struct pollfd);
    for (int k = 0; k < 3; k++)
        if (s->live[k])
            memcpy(s->copy + (size_t)k * size, s->live[k], size);
    return true;
}

static void sets_restore(const struct sets *s)
{
    for (int k = 0; k < 3; k++)
        if (s->live[k])
            memcpy(s->live[k], s->copy + (size_t)k * s->size, s->size);
}

static void sets_clear(const struct sets *s)
{
    for (int k = 0; k < 3; k++)
        if (s->live[k])
            memset(s->live[k], 0, s->size);
}

static int look(const struct sets *s, const sigset_t *mask)
{
    static const struct timespec no_time = {0, 0};
    sets_restore(s);
    return pselect(s->count, s->live[0], s->live[1], s->live[2], &no_time, mask);
}

/* The first look found nothing; the caller's sets are clear. */
static int select_waiting(struct pn_core *core, struct sets *s, int64_t deadline_ns,
                          const sigset_t *mask)
{
    list_fds(s);
    pn__wait_count();
    for (unsigned idle = 0;; idle++) {
        int reason = pn__poll_park(core, s->fds, s->fds_count, deadline_ns, idle);
        if (reason == -EBADF)
            reason = PN_WAIT_READY; /* the look says so */
        if (reason == PN_WAIT_READY || reason == PN_WAIT_TIMEOUT) {
            int r = look(s, mask);
            if (r != 0 || reason == PN_WAIT_TIMEOUT)
                return r;
            continue;
        }
        if (reason == PN_WAIT_CUT) {
            sets_clear(s);
            return 0;
        }
        sets_restore(s); /* an interrupted select leaves them alone */
        errno = pn__fd_error(reason);
        return -1;
    }
}

/* A thread with a mask: the very same call. */
static int pselect_thread(struct pn_core *core, const struct sets *s,
                          const struct timespec *timeout, const sigset_t *mask)
{
    sets_restore(s);
    pn__wait_count();
    if (!pn_core_block_begin(core, -1, 0))
        return 0;
    int r = pselect(s->count, s->live[0], s->live[1], s->live[2], timeout, mask);
    int error = errno;
    pn_core_block_end(core);
    errno = error;
    if (r < 0 && error == EINTR && pn_core_is_cut(core)) {
        sets_clear(s);
        return 0;
    }
    return r;
}

/* The sets are longer than fd_set, or only said to be: how much of them may be read, the kernel alone knows. */
static int select_blocking(struct pn_core *core, int count, fd_set *sets[3],
                           struct timeval *timeout)
{
    if (!pn_core_block_begin(core, -1, 0))
        return select(count, sets[0], sets[1], sets[2], timeout);
    int r = select(count, sets[0], sets[1], sets[2], timeout);
    int error = errno;
    pn_core_block_end(core);
    errno = error;
    return r;
}

/* A valid time-out (NULL: none), which is not zero. */
static int wait_any(struct pn_core *core, struct sets *s, const struct timespec *timeout,
                    const sigset_t *mask)
{
    int saved = errno;
    int64_t deadline_ns = PN_NEVER_NS;
    if (timeout && timeout->tv_sec < PN_NEVER_NS / PN_NS_PER_SEC - 1)
        deadline_ns = pn_deadline_ns(pn_clock_mono_ns(), pn_timespec_ns(timeout));
    int r = look(s, mask);
    if (r == 0) {
        r = mask && !pn__core_is_fiber(core) ? pselect_thread(core, s, timeout, mask)
                                             : select_waiting(core, s, deadline_ns, mask);
        if (r >= 0)
            errno = saved;
    }
    int error = errno;
    free(s->fds);
    errno = error;
    return r;
}

int pn__call_pselect(int count, fd_set *readable, fd_set *writable, fd_set *special,
                     const struct timespec *timeout, const sigset_t *mask)
{
    struct pn_core *core = pn__wait_gate();
    struct sets s;
    bool waits = !timeout || (timeout->tv_sec >= 0 && timeout->tv_nsec >= 0 &&
                              timeout->tv_nsec < PN_NS_PER_SEC && pn_timespec_ns(timeout) > 0);
    if (!core || !waits || count < 0 || count > FD_SETSIZE ||
        !sets_keep(&s, count, readable, writable, special))
        return pselect(count, readable, writable, special, timeout, mask);
    return wait_any(core, &s, timeout, mask);
}

int pn__call_select(int count, fd_set *readable, fd_set *writable, fd_set *special,
                    struct timeval *timeout)
{
    struct pn_core *core = pn__wait_gate();
    struct sets s;
    struct timespec t = {0};
    /* The kernel takes microseconds above a million as seconds. */
    bool waits = !timeout || (timeout->tv_sec >= 0 && timeout->tv_usec >= 0 &&
                              (timeout->tv_sec > 0 || timeout->tv_usec > 0));
    if (core && waits && count > FD_SETSIZE)
        return select_blocking(core, count, (fd_set *[]){readable, writable, special}, timeout);
    if (!core || !waits || count < 0 || !sets_keep(&s, count, readable, writable, special))
        return select(count, readable, writable, special, timeout);
    if (timeout) {
        t.tv_sec = timeout->tv_sec + timeout->tv_usec / 1000000;
        t.tv_nsec = timeout->tv_usec % 1000000 * PN_NS_PER_US;
    }
    int64_t start_ns = timeout ? pn_clock_mono_ns() : 0;
    int r = wait_any(core, &s, timeout ? &t : NULL, NULL);
    if (timeout && (r >= 0 || errno == EINTR)) {
        int64_t left_ns = pn_timespec_ns(&t) - (pn_clock_mono_ns() - start_ns);
        struct timespec left = pn_ns_timespec(left_ns > 0 ? left_ns : 0);
        *timeout = (struct timeval){left.tv_sec, left.tv_nsec / PN_NS_PER_US};
    }
    return r;
}

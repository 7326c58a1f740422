/* SPDX-License-Identifier: Apache-2.0 */
/* poll, ppoll, and epoll_wait and its kin on the application's own sets, in a core.
 *
 * The call itself, with no time to wait, decides what is ready; the waiting between two looks is done on
 * the one descriptor, on the epoll set, or on a set made for the occasion. None of these is ever restarted
 * after a signal (signal(7)), so a thread's wait may be another call than the one asked for.
 *
 * A signal mask holds during each look: signals that it lets in are delivered there. A fiber's wait
 * leaves the mask of its thread, which others run on, as it is. */
#include "wait/fds.h"
#include "wait/io.h"

#include <unistd.h>

#include "base/clock.h"

extern int __poll_chk(struct pollfd *fds, nfds_t count, int timeout_ms, size_t room);
extern int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                       const sigset_t *mask, size_t room);

#define LOOK_LATER_NS (5 * PN_NS_PER_MS)

static const struct timespec no_time = {0, 0};

static int64_t deadline_of_ms(int timeout_ms)
{
    if (timeout_ms < 0)
        return PN_NEVER_NS;
    return pn_deadline_ns(pn_clock_mono_ns(), timeout_ms * PN_NS_PER_MS);
}

static bool is_valid(const struct timespec *t)
{
    return t->tv_sec >= 0 && t->tv_nsec >= 0 && t->tv_nsec < PN_NS_PER_SEC;
}

static int64_t deadline_of(const struct timespec *t)
{
    if (!t || t->tv_sec > PN_NEVER_NS / PN_NS_PER_SEC - 1)
        return PN_NEVER_NS;
    return pn_deadline_ns(pn_clock_mono_ns(), pn_timespec_ns(t));
}

/* What a wait that ended by REASON makes of the call: true: *result is final. */
static bool is_over(int reason, int *result)
{
    if (reason == PN_WAIT_READY)
        return false;
    /* A cut is a time-out: the caller sees what it knows, and its exception next. */
    int error = reason == PN_WAIT_CUT ? 0 : pn__fd_error(reason);
    *result = error ? -1 : 0;
    if (error)
        errno = error;
    return true;
}

/* --- One set made for the occasion ------------------------------------------------------------------ */

/* All events that any of FDS asks of one descriptor. */
static uint32_t union_of(const struct pollfd *fds, nfds_t count, int fd)
{
    uint32_t events = 0;
    for (nfds_t i = 0; i < count; i++)
        if (fds[i].fd == fd)
            events |= (uint16_t)fds[i].events;
    return events;
}

/* The set's descriptor, or -1: none could be made, or not everything can be in one. */
static int make_set(const struct pollfd *fds, nfds_t count)
{
    int set = epoll_create1(EPOLL_CLOEXEC);
    for (nfds_t i = 0; set >= 0 && i < count; i++) {
        struct epoll_event e = {.events = (uint16_t)fds[i].events};
        if (fds[i].fd < 0)
            continue;
        int r = epoll_ctl(set, EPOLL_CTL_ADD, fds[i].fd, &e);
        if (r < 0 && errno == EEXIST) {
            e.events = union_of(fds, count, fds[i].fd);
            r = epoll_ctl(set, EPOLL_CTL_MOD, fds[i].fd, &e);
        }
        if (r < 0) {
            close(set);
            set = -1;
        }
    }
    return set;
}

/* The one descriptor that FDS name; -1: none, -2: several. */
static int only_one(const struct pollfd *fds, nfds_t count, uint32_t *events)
{
    int fd = -1;
    for (nfds_t i = 0; i < count; i++) {
        if (fds[i].fd < 0)
            continue;
        if (fd >= 0)
            return -2;
        fd = fds[i].fd;
        *events = (uint16_t)fds[i].events;
    }
    return fd;
}

/* Looks are all that is left: a moment later. TIMEOUT only when DEADLINE_NS has come. */
static int look_later(struct pn_core *core, int64_t deadline_ns)
{
    int64_t until_ns = pn_clock_mono_ns() + LOOK_LATER_NS;
    bool last = deadline_ns <= until_ns;
    int r = pn_core_sleep_until(core, last ? deadline_ns : until_ns);
    return r == PN_WAIT_TIMEOUT && !last ? PN_WAIT_READY : r;
}

/* No set is needed: the thread makes the call. */
static int poll_blocking(struct pn_core *core, const struct pollfd *fds, nfds_t count,
                         int64_t deadline_ns)
{
    int64_t left_ns = deadline_ns == PN_NEVER_NS ? -1 : deadline_ns - pn_clock_mono_ns();
    struct timespec t = pn_ns_timespec(left_ns > 0 ? left_ns : 0);
    if (!pn_core_block_begin(core, -1, 0))
        return PN_WAIT_READY;
    int r = ppoll((struct pollfd *)fds, count, left_ns == -1 ? NULL : &t, NULL);
    int error = errno;
    pn_core_block_end(core);
    if (r >= 0)
        return r > 0 ? PN_WAIT_READY : PN_WAIT_TIMEOUT;
    if (error != EINTR)
        return -error;
    return pn_core_is_cut(core) ? PN_WAIT_CUT : PN_WAIT_INTERRUPTED;
}

int pn__poll_park(struct pn_core *core, const struct pollfd *fds, nfds_t count, int64_t deadline_ns,
                  unsigned idle)
{
    uint32_t events = 0;
    int fd = only_one(fds, count, &events);
    /* Two in vain may be another waiter's who was quicker, so the wait gets its chance again behind each pause. */
    if (idle % (PN__FD_STALE_MAX + 1) == PN__FD_STALE_MAX)
        return look_later(core, deadline_ns);
    if (fd == -1)
        return pn_core_sleep_until(core, deadline_ns);
    if (fd >= 0)
        return pn__fd_park(core, fd, events, deadline_ns);
    if (!pn__core_is_fiber(core))
        return poll_blocking(core, fds, count, deadline_ns);
    int set = make_set(fds, count);
    if (set < 0)
        return look_later(core, deadline_ns);
    int r = pn_core_wait_fd(core, set, EPOLLIN, deadline_ns);
    close(set);
    return r;
}

/* --- poll ------------------------------------------------------------------------------------------- */

/* The wait that a library does for itself, on one descriptor, in a variable of its own: a time-out is a failure there.
 * Whoever passes a poll on (Python's select.poll) has its list on the heap. */
static bool is_librarys_own(const struct pollfd *fds, nfds_t count)
{
    enum { NEAR = 16 * 1024 };
    return count == 1 && (uintptr_t)fds - (uintptr_t)__builtin_frame_address(0) < NEAR;
}

/* The first look found nothing. */
static PN_COLD int poll_waiting(struct pn_core *core, struct pollfd *fds, nfds_t count,
                                int64_t deadline_ns, const sigset_t *mask)
{
    int saved = errno, r;
    pn__wait_count();
    for (unsigned idle = 0;; idle++) {
        int reason = pn__poll_park(core, fds, count, deadline_ns, idle);
        /* A descriptor that was closed: the look says POLLNVAL. */
        if (reason == -EBADF)
            reason = PN_WAIT_READY;
        if (reason != PN_WAIT_CUT && reason != PN_WAIT_INTERRUPTED) {
            r = ppoll(fds, count, &no_time, mask);
            if (r != 0)
                break;
        }
        if (reason == PN_WAIT_CUT && is_librarys_own(fds, count))
            pn_core_cut_failed(core);
        if (is_over(reason, &r))
            break;
    }
    if (r >= 0)
        errno = saved;
    return r;
}

static PN_NOINLINE int poll_in_core(struct pn_core *core, struct pollfd *fds, nfds_t count,
                                    int timeout_ms)
{
    if (timeout_ms == 0 || !pn__wait_here(core))
        return poll(fds, count, timeout_ms);
    int r = poll(fds, count, 0);
    if (pn_likely(r != 0))
        return r;
    return poll_waiting(core, fds, count, deadline_of_ms(timeout_ms), NULL);
}

int pn__call_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct pn_core *core = pn__core_self;
    return pn_likely(!core) ? poll(fds, count, timeout_ms)
                            : poll_in_core(core, fds, count, timeout_ms);
}

/* A thread's wait with a mask is the very same call: the mask must change as the wait begins. */
static int ppoll_thread(struct pn_core *core, struct pollfd *fds, nfds_t count,
                        const struct timespec *timeout, const sigset_t *mask)
{
    pn__wait_count();
    if (!pn_core_block_begin(core, -1, 0))
        return 0;
    int r = ppoll(fds, count, timeout, mask);
    int error = errno;
    pn_core_block_end(core);
    errno = error;
    return r < 0 && error == EINTR && pn_core_is_cut(core) ? 0 : r;
}

int pn__call_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                   const sigset_t *mask)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (timeout && (!is_valid(timeout) || pn_timespec_ns(timeout) == 0)))
        return ppoll(fds, count, timeout, mask);
    int r = ppoll(fds, count, &no_time, mask);
    if (r != 0)
        return r;
    if (mask && !pn__core_is_fiber(core))
        return ppoll_thread(core, fds, count, timeout, mask);
    return poll_waiting(core, fds, count, deadline_of(timeout), mask);
}

int pn__call___poll_chk(struct pollfd *fds, nfds_t count, int timeout_ms, size_t room)
{
    return room / sizeof *fds < count ? __poll_chk(fds, count, timeout_ms, room)
                                      : pn__call_poll(fds, count, timeout_ms);
}

int pn__call___ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                         const sigset_t *mask, size_t room)
{
    return room / sizeof *fds < count ? __ppoll_chk(fds, count, timeout, mask, room)
                                      : pn__call_ppoll(fds, count, timeout, mask);
}

/* --- epoll ------------------------------------------------------------------------------------------ */

static PN_COLD int epoll_waiting(struct pn_core *core, int epoll, struct epoll_event *events,
                                 int max, int64_t deadline_ns, const sigset_t *mask)
{
    int saved = errno, r;
    pn__wait_count();
    for (;;) {
        /* A look at a set delivers no signal; one at nothing does. */
        if (mask && ppoll(NULL, 0, &no_time, mask) < 0)
            return -1;
        int reason = pn__fd_park(core, epoll, EPOLLIN, deadline_ns);
        if (reason != PN_WAIT_CUT && reason != PN_WAIT_INTERRUPTED) {
            r = epoll_pwait(epoll, events, max, 0, mask);
            if (r != 0)
                break;
        }
        if (is_over(reason, &r))
            break;
    }
    if (r >= 0)
        errno = saved;
    return r;
}

int pn__call_epoll_wait(int epoll, struct epoll_event *events, int max, int timeout_ms)
{
    struct pn_core *core = timeout_ms == 0 ? NULL : pn__wait_gate();
    if (!core)
        return epoll_wait(epoll, events, max, timeout_ms);
    int r = epoll_wait(epoll, events, max, 0);
    if (pn_likely(r != 0))
        return r;
    return epoll_waiting(core, epoll, events, max, deadline_of_ms(timeout_ms), NULL);
}

/* With a mask, in a thread: the very same call. TIMEOUT_MS counts when TIMEOUT is NULL. */
static int epoll_thread(struct pn_core *core, int epoll, struct epoll_event *events, int max,
                        int timeout_ms, const struct timespec *timeout, const sigset_t *mask)
{
    pn__wait_count();
    if (!pn_core_block_begin(core, -1, 0))
        return 0;
    int r = timeout ? epoll_pwait2(epoll, events, max, timeout, mask)
                    : epoll_pwait(epoll, events, max, timeout_ms, mask);
    int error = errno;
    pn_core_block_end(core);
    errno = error;
    return r < 0 && error == EINTR && pn_core_is_cut(core) ? 0 : r;
}

int pn__call_epoll_pwait(int epoll, struct epoll_event *events, int max, int timeout_ms,
                         const sigset_t *mask)
{
    struct pn_core *core = timeout_ms == 0 ? NULL : pn__wait_gate();
    if (!core)
        return epoll_pwait(epoll, events, max, timeout_ms, mask);
    int r = epoll_pwait(epoll, events, max, 0, mask);
    if (r != 0)
        return r;
    if (mask && !pn__core_is_fiber(core))
        return epoll_thread(core, epoll, events, max, timeout_ms, NULL, mask);
    return epoll_waiting(core, epoll, events, max, deadline_of_ms(timeout_ms), mask);
}

int pn__call_epoll_pwait2(int epoll, struct epoll_event *events, int max,
                          const struct timespec *timeout, const sigset_t *mask)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (timeout && (!is_valid(timeout) || pn_timespec_ns(timeout) == 0)))
        return epoll_pwait2(epoll, events, max, timeout, mask);
    int r = epoll_pwait(epoll, events, max, 0, mask);
    if (r != 0)
        return r;
    if (mask && !pn__core_is_fiber(core))
        return epoll_thread(core, epoll, events, max, -1, timeout, mask);
    return epoll_waiting(core, epoll, events, max, deadline_of(timeout), mask);
}

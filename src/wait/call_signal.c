/* SPDX-License-Identifier: Apache-2.0 */
/* sigwait, sigwaitinfo, sigtimedwait, sigsuspend, pause (POSIX.1-2017) in a core.
 *
 * All fibers share their thread's signal mask and its pending signals. Who waits for blocked signals, as POSIX
 * asks for, waits by a signalfd, and then takes the signal by the call itself: one signal, one taker. A handler
 * that runs on the thread has no fiber that it belongs to: pause is ended by a cut only, as in a thread that no
 * signal is sent to; sigsuspend by the signals that its mask lets through and the thread's does not. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "wait/fds.h"
#include "wait/processes.h"

/* Until one of SET is pending; READY may be stale. FD < 0: no signalfd could be made, looks every 20 ms. */
static int wait_pending(struct pn_core *core, int fd, int64_t deadline_ns)
{
    if (fd >= 0)
        return pn_core_wait_fd(core, fd, EPOLLIN, deadline_ns);
    int64_t look_ns = pn_clock_mono_ns() + PN_CORE_REPOLL_MAX_MS * PN_NS_PER_MS;
    int r = pn_core_sleep_until(core, look_ns < deadline_ns ? look_ns : deadline_ns);
    return r == PN_WAIT_TIMEOUT && look_ns < deadline_ns ? PN_WAIT_READY : r;
}

static void close_keeping_errno(int fd)
{
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
}

static int take_fiber(struct pn_core *core, const sigset_t *set, siginfo_t *info,
                      int64_t deadline_ns)
{
    const struct timespec none = {0, 0};
    int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    int r, how;
    do {
        how = wait_pending(core, fd, deadline_ns);
        r = sigtimedwait(set, info, &none);
    } while (r < 0 && errno == EAGAIN && how == PN_WAIT_READY);
    close_keeping_errno(fd);
    return r;
}

/* EAGAIN: the time is over, or the wait was cut; ETIMEDOUT: cut, and no time was given. */
static int take_any(const sigset_t *set, siginfo_t *info, const struct timespec *span)
{
    const struct timespec none = {0, 0};
    struct pn_core *core = pn__wait_gate();
    bool valid =
        !span || (span->tv_sec >= 0 && span->tv_nsec >= 0 && span->tv_nsec < PN_NS_PER_SEC);
    if (!core || !valid || (span && span->tv_sec == 0 && span->tv_nsec == 0))
        return sigtimedwait(set, info, span);
    int saved = errno;
    int r = sigtimedwait(set, info, &none);
    if (r >= 0 || errno != EAGAIN)
        return r;
    pn__wait_count();
    if (pn__core_is_fiber(core)) {
        int64_t span_ns =
            span && span->tv_sec < PN_NEVER_NS / PN_NS_PER_SEC - 1 ? pn_timespec_ns(span) : -1;
        r = take_fiber(core, set, info, pn_deadline_ns(pn_clock_mono_ns(), span_ns));
    } else if (pn_core_block_begin(core, -1, 0)) {
        r = sigtimedwait(set, info, span);
        int error = errno;
        pn_core_block_end(core);
        errno = r < 0 && error == EINTR && pn_core_is_cut(core) ? EAGAIN : error;
    }
    if (r >= 0)
        errno = saved;
    else if (!span && errno == EAGAIN)
        errno = pn__fd_failure(core, PN_WAIT_CUT); /* none but a cut ends it so */
    return r;
}

int pn__call_sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info,
                          const struct timespec *restrict span)
{
    return take_any(set, info, span);
}

int pn__call_sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info)
{
    return take_any(set, info, NULL);
}

/* Never EINTR, and errors are returned. */
int pn__call_sigwait(const sigset_t *restrict set, int *restrict signo)
{
    if (!pn__wait_gate())
        return sigwait(set, signo);
    int saved = errno;
    siginfo_t info;
    int r;
    do
        r = take_any(set, &info, NULL);
    while (r < 0 && errno == EINTR);
    int error = r < 0 ? errno : 0;
    if (r >= 0)
        *signo = info.si_signo;
    errno = saved;
    return error;
}

/* True when one of WANTED is pending. */
static bool is_pending(const sigset_t *wanted)
{
    sigset_t pending;
    sigpending(&pending);
    for (int signo = 1; signo < NSIG; signo++)
        if (sigismember(wanted, signo) == 1 && sigismember(&pending, signo) == 1)
            return true;
    return false;
}

/* What MASK lets through and the thread doesn't. */
static void let_through(const sigset_t *mask, sigset_t *wanted)
{
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    sigemptyset(wanted);
    for (int signo = 1; signo < NSIG; signo++)
        if (sigismember(&now, signo) == 1 && sigismember(mask, signo) == 0)
            sigaddset(wanted, signo);
}

static int suspend_fiber(struct pn_core *core, const sigset_t *mask)
{
    sigset_t wanted;
    let_through(mask, &wanted);
    int fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    int how = PN_WAIT_READY;
    while (!is_pending(&wanted) && how == PN_WAIT_READY)
        how = wait_pending(core, fd, PN_NEVER_NS);
    close_keeping_errno(fd);
    if (how == PN_WAIT_READY)
        return sigsuspend(mask); /* at once: one is pending */
    errno = EINTR;
    return -1;
}

int pn__call_sigsuspend(const sigset_t *mask)
{
    struct pn_core *core = pn__wait_gate();
    if (!core)
        return sigsuspend(mask);
    pn__wait_count();
    if (pn__core_is_fiber(core))
        return suspend_fiber(core, mask);
    bool offered = pn_core_block_begin(core, -1, 0);
    int r = sigsuspend(mask);
    if (offered)
        pn_core_block_end(core); /* keeps errno */
    return r;
}

int pn__call_pause(void)
{
    struct pn_core *core = pn__wait_gate();
    if (!core)
        return pause();
    pn__wait_count();
    if (pn__core_is_fiber(core)) {
        (void)pn_core_sleep_until(core, PN_NEVER_NS);
        errno = EINTR;
        return -1;
    }
    bool offered = pn_core_block_begin(core, -1, 0);
    int r = pause();
    if (offered)
        pn_core_block_end(core);
    return r;
}

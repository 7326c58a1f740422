/* SPDX-License-Identifier: Apache-2.0 */
/* wait, waitpid, waitid, system (POSIX.1-2017), wait3 and wait4 in a core.
 *
 * A fiber waits for a child's end by a pidfd; for any child, or for stops, it asks again every 1 to 20 ms. Who reaps a
 * child is decided by the kernel in the call itself, as ever. A cut ends the wait with ETIMEDOUT: not
 * EINTR, which Python would repeat, nor ECHILD, which says that the child is gone. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/clock.h"
#include "wait/fds.h"
#include "wait/helper.h"
#include "wait/processes.h"

/* One question to the kernel: > 0 or an error: the answer; 0: not yet. */
struct question {
    int (*ask)(struct question *q, int more_options);
    pid_t pid; /* > 0: the child that it is about */
    int pidfd; /* >= 0: of the child that it is about, the caller's */
    int options;
    /* wait4 */
    int *status;
    struct rusage *rusage;
    /* waitid */
    idtype_t idtype;
    id_t id;
    siginfo_t *info;
};

static int ask_wait4(struct question *q, int more_options)
{
    return wait4(q->pid, q->status, q->options | more_options, q->rusage);
}

/* waitid says 0 both ways: who it was tells them apart. */
static int ask_waitid(struct question *q, int more_options)
{
    siginfo_t info = {0};
    int r = waitid(q->idtype, q->id, &info, q->options | more_options);
    if (r < 0)
        return r;
    if (info.si_pid == 0 && (more_options & WNOHANG))
        return 0;
    if (q->info)
        *q->info = info;
    return 1;
}

/* PIDFD < 0: nothing tells. 0: ask again; PN_WAIT_CUT. */
static int wait_a_little(struct pn_core *core, int pidfd, int64_t *span_ns)
{
    int r;
    if (pidfd >= 0) {
        r = pn_core_wait_fd(core, pidfd, EPOLLIN, PN_NEVER_NS);
    } else {
        r = pn_core_sleep_until(core, pn_clock_mono_ns() + *span_ns);
        *span_ns *= 2;
        if (*span_ns > PN_CORE_REPOLL_MAX_MS * PN_NS_PER_MS)
            *span_ns = PN_CORE_REPOLL_MAX_MS * PN_NS_PER_MS;
    }
    return r == PN_WAIT_CUT ? r : 0;
}

/* The caller's, one of our own, or -1: a pidfd says nothing of stops. */
static int pidfd_of(const struct question *q)
{
    const int stops = WUNTRACED | WCONTINUED; /* waitid's WSTOPPED is WUNTRACED */
    if (q->options & stops)
        return -1;
    return q->pid > 0 ? (int)syscall(SYS_pidfd_open, q->pid, 0) : q->pidfd;
}

static bool is_nonblocking(int fd)
{
    int flags = fd >= 0 ? fcntl(fd, F_GETFL) : -1;
    return flags >= 0 && (flags & O_NONBLOCK);
}

static int wait_fiber(struct pn_core *core, struct question *q)
{
    int64_t span_ns = PN_NS_PER_MS;
    int r;
    if (is_nonblocking(q->pidfd)) {
        errno = EAGAIN;
        return -1;
    }
    int pidfd = pidfd_of(q);
    do {
        if (wait_a_little(core, pidfd, &span_ns) == PN_WAIT_CUT) {
            errno = pn__fd_failure(core, PN_WAIT_CUT);
            r = -1;
            break;
        }
        r = q->ask(q, WNOHANG);
    } while (r == 0);
    if (pidfd >= 0 && pidfd != q->pidfd) {
        int saved = errno;
        close(pidfd);
        errno = saved;
    }
    return r;
}

static int wait_thread(struct pn_core *core, struct question *q)
{
    if (!pn_core_block_begin(core, -1, 0))
        return q->ask(q, WNOHANG);
    int r = q->ask(q, 0);
    int saved = errno;
    pn_core_block_end(core);
    errno =
        r < 0 && saved == EINTR && pn_core_is_cut(core) ? pn__fd_failure(core, PN_WAIT_CUT) : saved;
    return r;
}

static int wait_any(struct question *q)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (q->options & WNOHANG))
        return q->ask(q, 0);
    int saved = errno;
    int r = q->ask(q, WNOHANG);
    if (r != 0)
        return r;
    pn__wait_count();
    r = pn__core_is_fiber(core) ? wait_fiber(core, q) : wait_thread(core, q);
    if (r >= 0)
        errno = saved;
    return r;
}

pid_t pn__call_wait4(pid_t pid, int *status, int options, struct rusage *rusage)
{
    struct question q = {.ask = ask_wait4,
                         .pid = pid,
                         .pidfd = -1,
                         .options = options,
                         .status = status,
                         .rusage = rusage};
    return wait_any(&q);
}

pid_t pn__call_wait(int *status)
{
    return pn__call_wait4(-1, status, 0, NULL);
}

pid_t pn__call_wait3(int *status, int options, struct rusage *rusage)
{
    return pn__call_wait4(-1, status, options, rusage);
}

pid_t pn__call_waitpid(pid_t pid, int *status, int options)
{
    return pn__call_wait4(pid, status, options, NULL);
}

int pn__call_waitid(idtype_t idtype, id_t id, siginfo_t *info, int options)
{
    struct question q = {.ask = ask_waitid,
                         .pid = idtype == P_PID ? (pid_t)id : 0,
                         .pidfd = idtype == P_PIDFD ? (int)id : -1,
                         .options = options,
                         .idtype = idtype,
                         .id = id,
                         .info = info};
    if (!pn__wait_gate() || (options & WNOHANG))
        return waitid(idtype, id, info, options);
    int r = wait_any(&q);
    return r > 0 ? 0 : r;
}

/* --- system --------------------------------------------------------------------------------------------- */

struct command {
    const char *text;
    sigset_t mask; /* the caller's, which the shell inherits */
    int r;
    int error;
};

static void run_command(void *arg)
{
    struct command *c = arg;
    pthread_sigmask(SIG_SETMASK, &c->mask, NULL);
    c->r = system(c->text);
    c->error = errno;
}

/* It waits inside of libc, so a fiber has a thread of its own do all of it. Never cut, as it ignores signals. */
static int system_fiber(struct pn_core *core, const char *text)
{
    struct command c = {.text = text};
    pthread_sigmask(SIG_SETMASK, NULL, &c.mask);
    if (pn__helper_run(core, run_command, &c) < 0)
        return system(text);
    if (c.r < 0)
        errno = c.error;
    return c.r;
}

int pn__call_system(const char *command)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || !command)
        return system(command);
    pn__wait_count();
    if (pn__core_is_fiber(core))
        return system_fiber(core, command);
    bool offered = pn_core_block_begin(core, -1, 0);
    int r = system(command);
    if (offered)
        pn_core_block_end(core); /* keeps errno */
    return r;
}

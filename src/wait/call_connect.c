/* SPDX-License-Identifier: Apache-2.0 */
/* connect, accept and accept4 (POSIX.1-2017) in a core.
 *
 * A thread's connect is the very same call. A fiber's begins it with O_NONBLOCK, which is on for that
 * system call only: others who share the open file could see it for that moment, not for the wait. When
 * the socket is ready, the blocking call is made again: what it would have returned, it returns now. */
#include "wait/fds.h"
#include "wait/io.h"

#include <fcntl.h>

#include "base/clock.h"

#define UNIX_RETRY_FIRST_NS PN_NS_PER_MS
#define UNIX_RETRY_LAST_NS  (20 * PN_NS_PER_MS)

static int connect_thread(struct pn_core *core, int fd, const struct sockaddr *address,
                          socklen_t size)
{
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLOUT, errno);
    pn__wait_count();
    if (!pn_core_block_begin(core, -1, 0))
        return connect(fd, address, size);
    return (int)pn__fd_blocked(&w, connect(fd, address, size));
}

static int connect_begin(int fd, int flags, const struct sockaddr *address, socklen_t size)
{
    (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    int r = connect(fd, address, size);
    int error = errno;
    (void)fcntl(fd, F_SETFL, flags);
    errno = error;
    return r;
}

/* The error of a fiber's wait, as connect says it: BEGUN is what it said at first. */
static int failed(int begun)
{
    if (errno == EAGAIN)
        errno = begun; /* SO_SNDTIMEO: the attempt goes on */
    return -1;
}

/* A unix socket's listener has no room: nothing that can be polled says when it has. */
static int connect_unix(struct pn__fd_wait *w, int flags, const struct sockaddr *address,
                        socklen_t size)
{
    int64_t span_ns = UNIX_RETRY_FIRST_NS;
    for (;;) {
        int64_t now_ns = pn_clock_mono_ns();
        if (now_ns >= w->deadline_ns) {
            errno = EAGAIN;
            return -1;
        }
        int64_t until_ns = now_ns + span_ns;
        int r = pn_core_sleep_until(w->core, until_ns < w->deadline_ns ? until_ns : w->deadline_ns);
        if (r != PN_WAIT_TIMEOUT && r != PN_WAIT_READY) {
            errno = pn__fd_failure(w->core, r);
            return -1;
        }
        r = connect_begin(w->fd, flags, address, size);
        if (r == 0)
            return (int)pn__fd_done(w, 0);
        if (errno != EAGAIN)
            return r;
        span_ns = span_ns * 2 < UNIX_RETRY_LAST_NS ? span_ns * 2 : UNIX_RETRY_LAST_NS;
    }
}

static int connect_fiber(struct pn_core *core, int fd, int flags, const struct sockaddr *address,
                         socklen_t size)
{
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLOUT, errno);
    int r = connect_begin(fd, flags, address, size);
    int begun = errno; /* EALREADY: it goes on from an earlier call */
    bool full = r < 0 && errno == EAGAIN && size >= sizeof address->sa_family &&
                address->sa_family == AF_UNIX;
    if (r == 0 || (!full && errno != EINPROGRESS && errno != EALREADY))
        return r;
    if (full)
        return pn__fd_begin(&w) ? connect_unix(&w, flags, address, size) : -1;
    while (!pn__fd_ready(fd, POLLOUT))
        if (pn__fd_wait(&w) == PN__FD_FAILED)
            return failed(begun);
    errno = w.saved_errno;
    return connect(fd, address, size);
}

int pn__call_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    struct pn_core *core = pn__wait_gate();
    int flags = core ? fcntl(fd, F_GETFL) : -1;
    if (flags < 0 || (flags & O_NONBLOCK))
        return connect(fd, address, size);
    return pn__core_is_fiber(core) ? connect_fiber(core, fd, flags, address, size)
                                   : connect_thread(core, fd, address, size);
}

/* AGAIN: the call does not wait now. */
static enum pn__fd_next wait_to_accept(struct pn__fd_wait *w)
{
    enum pn__fd_next next = PN__FD_AGAIN;
    while (next == PN__FD_AGAIN && !pn__fd_ready(w->fd, POLLIN))
        next = pn__fd_wait(w);
    if (next == PN__FD_FAILED && !w->begun)
        next = PN__FD_AGAIN; /* O_NONBLOCK, or no descriptor: the call says what is wrong */
    return next;
}

int pn__call_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    struct pn_core *core = pn__wait_gate();
    if (!core)
        return accept4(fd, address, size, flags);
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLIN, errno);
    switch (wait_to_accept(&w)) {
    case PN__FD_BLOCK:
        return (int)pn__fd_blocked(&w, accept4(fd, address, size, flags));
    case PN__FD_FAILED:
        return -1;
    default:
        errno = w.saved_errno;
        return accept4(fd, address, size, flags);
    }
}

int pn__call_accept(int fd, struct sockaddr *address, socklen_t *size)
{
    return pn__wait_gate() ? pn__call_accept4(fd, address, size, 0) : accept(fd, address, size);
}

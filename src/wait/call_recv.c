/* SPDX-License-Identifier: Apache-2.0 */
/* recv and its kin (POSIX.1-2017, socket(7)) in a core: tried with MSG_DONTWAIT; what waits goes on as
 * recvmsg, which can say everything that the others can.
 *
 * A receive that isn't redirected to its end: SO_RCVLOWAT above one is not seen by the first try. */
#include "wait/fds.h"
#include "wait/io.h"

#include "base/clock.h"
#include "wait/iov.h"

/* The kernel never waits for these, blocking descriptor or not. */
#define NEVER_WAITS (MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE)

extern ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
extern ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
                              struct sockaddr *from, socklen_t *from_size);

static bool would_wait(ssize_t r, size_t size, int flags)
{
    if (pn_likely(r >= 0))
        return (flags & MSG_WAITALL) && r > 0 && (size_t)r < size;
    return errno == EAGAIN;
}

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -1 : value;
}

/* --- One message, or any bytes ---------------------------------------------------------------------- */

/* The first try found nothing. */
static ssize_t receive_some(struct pn__fd_wait *w, struct msghdr *m, int flags)
{
    /* What a receive changes is given as the caller had it each time. */
    const struct msghdr asked = *m;
    for (;;) {
        ssize_t r;
        switch (pn__fd_wait(w)) {
        case PN__FD_AGAIN:
            *m = asked;
            r = recvmsg(w->fd, m, flags | MSG_DONTWAIT);
            if (r < 0 && errno == EAGAIN)
                continue;
            break;
        case PN__FD_BLOCK:
            *m = asked;
            r = pn__fd_blocked(w, recvmsg(w->fd, m, flags));
            break;
        default:
            return -1;
        }
        return r < 0 ? r : pn__fd_done(w, r);
    }
}

/* --- MSG_WAITALL on a stream ------------------------------------------------------------------------ */

/* DONE bytes came with the first try, which had the address and the control bytes. */
static ssize_t receive_all(struct pn__fd_wait *w, struct msghdr *m, int flags, size_t done)
{
    const size_t total = pn__message_total(m);
    struct iovec parts[PN__IOV_PARTS];
    while (done < total) {
        struct msghdr rest = pn__message_rest(m, done, parts);
        ssize_t r;
        switch (pn__fd_wait(w)) {
        case PN__FD_AGAIN:
            r = recvmsg(w->fd, &rest, flags | MSG_DONTWAIT);
            if (r < 0 && errno == EAGAIN)
                continue;
            break;
        case PN__FD_BLOCK: {
            size_t wanted = pn__message_total(&rest);
            r = pn__fd_blocked(w, recvmsg(w->fd, &rest, flags));
            if (r > 0 && (size_t)r < wanted)
                return pn__fd_done(w,
                                   (ssize_t)done + r); /* cut short by the end, time or a signal */
            break;
        }
        default:
            r = -1;
            break;
        }
        if (r <= 0)
            break; /* an error after bytes is the next call's */
        done += (size_t)r;
        pn__fd_progress(w);
    }
    return pn__fd_done(w, (ssize_t)done);
}

/* MSG_PEEK leaves the bytes, so the descriptor stays ready while there are too few: fibers look again
 * now and then. FOUND were there at the first try. */
static ssize_t peek_all(struct pn__fd_wait *w, struct msghdr *m, int flags, ssize_t found)
{
    const struct msghdr asked = *m;
    const size_t total = pn__message_total(m);
    w->stale = PN__FD_STALE_MAX; /* readiness says nothing here */
    while (found > 0 && (size_t)found < total && !pn__fd_ready(w->fd, POLLRDHUP)) {
        enum pn__fd_next next = pn__fd_wait(w);
        if (next == PN__FD_FAILED)
            break;
        *m = asked;
        ssize_t r = recvmsg(w->fd, m, next == PN__FD_BLOCK ? flags : flags | MSG_DONTWAIT);
        if (next == PN__FD_BLOCK)
            return pn__fd_blocked(w, r);
        if (r < 0)
            break;
        found = r;
    }
    return pn__fd_done(w, found);
}

/* R is the first try's result. */
static PN_COLD ssize_t receive_waiting(struct pn_core *core, int fd, struct msghdr *m, int flags,
                                       ssize_t r, int saved_errno)
{
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLIN, saved_errno);
    bool all = (flags & MSG_WAITALL) && option_of(fd, SO_TYPE) == SOCK_STREAM;
    if (r > 0 && !all)
        return pn__fd_done(&w, r); /* a datagram that is shorter than the room for it */
    if (r < 0) {
        r = receive_some(&w, m, all ? flags & ~MSG_WAITALL : flags);
        if (!all || r <= 0 || (size_t)r >= pn__message_total(m))
            return r;
    }
    pn__fd_progress(&w);
    if (flags & MSG_PEEK) /* unix sockets never wait for a second look */
        return option_of(fd, SO_DOMAIN) == AF_UNIX ? pn__fd_done(&w, r) : peek_all(&w, m, flags, r);
    /* The kernel, too, ends a WAITALL where ancillary data (descriptors) came with the bytes. */
    return m->msg_controllen ? pn__fd_done(&w, r) : receive_all(&w, m, flags, (size_t)r);
}

/* --- The calls -------------------------------------------------------------------------------------- */

ssize_t pn__receive(struct pn_core *core, int fd, struct msghdr *message, int flags)
{
    int saved = errno;
    const struct msghdr asked = *message;
    ssize_t r = recvmsg(fd, message, flags | MSG_DONTWAIT);
    if (r < 0 ? errno != EAGAIN : pn_likely(!(flags & MSG_WAITALL)))
        return r;
    if (r < 0)
        *message = asked;
    else if (!would_wait(r, pn__message_total(message), flags))
        return r;
    return receive_waiting(core, fd, message, flags, r, saved);
}

ssize_t pn__call_recvmsg(int fd, struct msghdr *message, int flags)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (flags & NEVER_WAITS))
        return recvmsg(fd, message, flags);
    return pn__receive(core, fd, message, flags);
}

static PN_COLD ssize_t recv_waiting(struct pn_core *core, int fd, struct iovec part, int flags,
                                    ssize_t r, int saved_errno)
{
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    return receive_waiting(core, fd, &m, flags, r, saved_errno);
}

static PN_NOINLINE ssize_t recv_in_core(struct pn_core *core, int fd, void *buf, size_t size,
                                        int flags)
{
    if (!pn__wait_here(core) || (flags & NEVER_WAITS))
        return recv(fd, buf, size, flags);
    int saved = errno;
    ssize_t r = recv(fd, buf, size, flags | MSG_DONTWAIT);
    return pn_likely(!would_wait(r, size, flags))
               ? r
               : recv_waiting(core, fd, (struct iovec){buf, size}, flags, r, saved);
}

ssize_t pn__call_recv(int fd, void *buf, size_t size, int flags)
{
    struct pn_core *core = pn__core_self;
    return pn_likely(!core) ? recv(fd, buf, size, flags) : recv_in_core(core, fd, buf, size, flags);
}

ssize_t pn__call_recvfrom(int fd, void *buf, size_t size, int flags, struct sockaddr *from,
                          socklen_t *from_size)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (flags & NEVER_WAITS))
        return recvfrom(fd, buf, size, flags, from, from_size);
    int saved = errno;
    socklen_t room = from && from_size ? *from_size : 0;
    ssize_t r = recvfrom(fd, buf, size, flags | MSG_DONTWAIT, from, from_size);
    if (pn_likely(!would_wait(r, size, flags)))
        return r;
    struct iovec part = {buf, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (r < 0 && from && from_size) {
        m.msg_name = from;
        m.msg_namelen = room;
    }
    ssize_t got = receive_waiting(core, fd, &m, flags, r, saved);
    if (got >= 0 && m.msg_name)
        *from_size = m.msg_namelen;
    return got;
}

ssize_t pn__call___recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
    return size > room ? __recv_chk(fd, buf, size, room, flags)
                       : pn__call_recv(fd, buf, size, flags);
}

ssize_t pn__call___recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
                                struct sockaddr *from, socklen_t *from_size)
{
    return size > room ? __recvfrom_chk(fd, buf, size, room, flags, from, from_size)
                       : pn__call_recvfrom(fd, buf, size, flags, from, from_size);
}

/* --- Several messages ------------------------------------------------------------------------------- */

/* What is left of a time-out until UNTIL_NS. */
static struct timespec left_until(int64_t until_ns)
{
    int64_t left_ns = until_ns - pn_clock_mono_ns();
    return pn_ns_timespec(left_ns > 0 ? left_ns : 0);
}

/* As the kernel does it: the time-out is looked at after each datagram only (recvmmsg(2), BUGS). */
static int receive_many(struct pn__fd_wait *w, struct mmsghdr *messages, unsigned count, int flags,
                        int64_t until_ns)
{
    enum pn__fd_next next = PN__FD_AGAIN;
    unsigned done = 0;
    while (done < count) {
        struct timespec left = left_until(until_ns);
        struct timespec *timeout = until_ns == PN_NEVER_NS ? NULL : &left;
        int r;
        if (next == PN__FD_BLOCK)
            r = (int)pn__fd_blocked(w,
                                    recvmmsg(w->fd, messages + done, count - done, flags, timeout));
        else
            r = recvmmsg(w->fd, messages + done, count - done, flags | MSG_DONTWAIT, NULL);
        if (r > 0) {
            done += (unsigned)r;
            pn__fd_progress(w);
            if (next == PN__FD_BLOCK || (flags & MSG_WAITFORONE) || pn_clock_mono_ns() >= until_ns)
                break;
            next = PN__FD_AGAIN;
            continue;
        }
        if (r == 0 || next == PN__FD_BLOCK || errno != EAGAIN)
            break;
        next = pn__fd_wait(w);
        if (next == PN__FD_FAILED)
            break;
    }
    return done > 0 ? (int)pn__fd_done(w, (ssize_t)done) : -1;
}

int pn__call_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                      struct timespec *timeout)
{
    struct pn_core *core = pn__wait_gate();
    bool bad_time = timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 ||
                                timeout->tv_nsec >= PN_NS_PER_SEC);
    if (!core || (flags & NEVER_WAITS) || bad_time || count == 0)
        return recvmmsg(fd, messages, count, flags, timeout);
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLIN, errno);
    int64_t until_ns = PN_NEVER_NS;
    if (timeout)
        until_ns = pn_deadline_ns(pn_clock_mono_ns(), pn_timespec_ns(timeout));
    int r = receive_many(&w, messages, count, flags, until_ns);
    if (timeout && r > 0)
        *timeout = left_until(until_ns);
    return r;
}

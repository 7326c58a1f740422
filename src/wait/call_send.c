/* SPDX-License-Identifier: Apache-2.0 */
/* send and its kin (POSIX.1-2017, socket(7)) in a core: tried with MSG_DONTWAIT. A blocking send on a
 * stream goes on until everything is taken, so a part that went is no result yet. */
#include "wait/fds.h"
#include "wait/io.h"
#include "wait/iov.h"

/* MSG_FASTOPEN connects and sends at once, which cannot be tried: it stays the kernel's. */
#define LEFT_ALONE (MSG_DONTWAIT | MSG_FASTOPEN)

/* DONE bytes have gone (none: it found no room). */
static PN_COLD ssize_t transmit_waiting(struct pn_core *core, int fd, const struct msghdr *m,
                                        int flags, size_t done, int saved_errno)
{
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLOUT, saved_errno);
    const size_t total = pn__message_total(m);
    struct iovec parts[PN__IOV_PARTS];
    enum pn__fd_next next;
    w.moved = done > 0;
    while ((next = pn__fd_wait(&w)) != PN__FD_FAILED) {
        struct msghdr rest = done > 0 ? pn__message_rest(m, done, parts) : *m;
        /* What fails after a part is the next call's business, and so is its SIGPIPE. */
        int quiet = done > 0 ? flags | MSG_NOSIGNAL : flags;
        ssize_t r;
        if (next == PN__FD_BLOCK) {
            r = pn__fd_blocked(&w, sendmsg(fd, &rest, quiet));
        } else {
            r = sendmsg(fd, &rest, quiet | MSG_DONTWAIT);
            if (r < 0 && errno == EAGAIN)
                continue;
        }
        if (r < 0)
            break;
        done += (size_t)r;
        bool cut_short = next == PN__FD_BLOCK && (size_t)r < pn__message_total(&rest);
        if (done >= total || cut_short)
            return pn__fd_done(&w, (ssize_t)done);
        pn__fd_progress(&w);
    }
    return done > 0 ? pn__fd_done(&w, (ssize_t)done) : -1;
}

/* True when the first try's result R is not what a blocking call would say. */
static inline bool is_unfinished(ssize_t r, size_t size)
{
    return pn_unlikely(r < 0 ? errno == EAGAIN : (size_t)r < size);
}

ssize_t pn__transmit(struct pn_core *core, int fd, const struct msghdr *message, int flags)
{
    int saved = errno;
    ssize_t r = sendmsg(fd, message, flags | MSG_DONTWAIT);
    if (!is_unfinished(r, r < 0 ? 0 : pn__message_total(message)))
        return r;
    return transmit_waiting(core, fd, message, flags, r < 0 ? 0 : (size_t)r, saved);
}

ssize_t pn__call_sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (flags & LEFT_ALONE))
        return sendmsg(fd, message, flags);
    return pn__transmit(core, fd, message, flags);
}

static PN_COLD ssize_t send_waiting(struct pn_core *core, int fd, struct iovec part, int flags,
                                    ssize_t r, int saved_errno)
{
    const struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    return transmit_waiting(core, fd, &m, flags, r < 0 ? 0 : (size_t)r, saved_errno);
}

ssize_t pn__transmit_bytes(struct pn_core *core, int fd, const void *buf, size_t size, int flags)
{
    int saved = errno;
    ssize_t r = send(fd, buf, size, flags | MSG_DONTWAIT);
    return is_unfinished(r, size)
               ? send_waiting(core, fd, (struct iovec){(void *)buf, size}, flags, r, saved)
               : r;
}

static PN_NOINLINE ssize_t send_in_core(struct pn_core *core, int fd, const void *buf, size_t size,
                                        int flags)
{
    if (!pn__wait_here(core) || (flags & LEFT_ALONE))
        return send(fd, buf, size, flags);
    return pn__transmit_bytes(core, fd, buf, size, flags);
}

ssize_t pn__call_send(int fd, const void *buf, size_t size, int flags)
{
    struct pn_core *core = pn__core_self;
    return pn_likely(!core) ? send(fd, buf, size, flags) : send_in_core(core, fd, buf, size, flags);
}

ssize_t pn__call_sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *to,
                        socklen_t to_size)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (flags & LEFT_ALONE))
        return sendto(fd, buf, size, flags, to, to_size);
    int saved = errno;
    ssize_t r = sendto(fd, buf, size, flags | MSG_DONTWAIT, to, to_size);
    if (!is_unfinished(r, size))
        return r;
    struct iovec part = {(void *)buf, size};
    struct msghdr m = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_name = (void *)to, .msg_namelen = to_size};
    return transmit_waiting(core, fd, &m, flags, r < 0 ? 0 : (size_t)r, saved);
}

/* The rest of a message of which a part went. False: it did not go whole, and nothing may follow it. */
static bool finish_message(struct pn_core *core, int fd, struct mmsghdr *message, int flags)
{
    size_t total = pn__message_total(&message->msg_hdr);
    size_t done = message->msg_len;
    if (done < total)
        done = (size_t)transmit_waiting(core, fd, &message->msg_hdr, flags, done, errno);
    message->msg_len = (unsigned)done;
    return done >= total;
}

int pn__call_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || (flags & LEFT_ALONE) || count == 0)
        return sendmmsg(fd, messages, count, flags);
    int saved = errno;
    int r = sendmmsg(fd, messages, count, flags | MSG_DONTWAIT);
    if (r < 0 && errno != EAGAIN)
        return r;
    unsigned done = r < 0 ? 0 : (unsigned)r;
    bool whole = done == 0 || finish_message(core, fd, &messages[done - 1], flags);
    /* One by one from where it would have waited: each goes whole, or ends the call. */
    while (whole && done < count) {
        struct mmsghdr *message = &messages[done];
        ssize_t sent = pn__transmit(core, fd, &message->msg_hdr, flags);
        if (sent < 0)
            break;
        message->msg_len = (unsigned)sent;
        whole = (size_t)sent >= pn__message_total(&message->msg_hdr);
        done++;
    }
    if (done == 0)
        return -1;
    errno = saved;
    return (int)done;
}

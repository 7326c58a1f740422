/* SPDX-License-Identifier: Apache-2.0 */
/* Plain TCP and unix stream sockets: the kernel's calls, with their results translated. The
 * socket is owned by the transport from init to close, and is non-blocking. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/transport.h"

/* Linux moves no more than this in one call. */
enum { SENDFILE_MAX = 0x7ffff000 };

/* A fact about the process: see pn_transport_plain_forked. */
static atomic_bool has_forked;

static enum pn_io failed(struct pn_transport *t, enum pn_io want)
{
    if (errno == EAGAIN) /* the same as EWOULDBLOCK on Linux */
        return want;
    t->error = errno;
    return PN_IO_ERROR;
}

static enum pn_io plain_readv(struct pn_transport *t, const struct iovec *iov, int count,
                              size_t *done)
{
    ssize_t n;
    do {
        n = count == 1 ? recv(t->fd, iov->iov_base, iov->iov_len, 0) : readv(t->fd, iov, count);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return failed(t, PN_IO_WANT_READ);
    *done = (size_t)n;
    return PN_IO_OK;
}

static enum pn_io plain_writev(struct pn_transport *t, const struct iovec *iov, int count,
                               size_t *done)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};
    ssize_t n;
    /* MSG_NOSIGNAL: a peer that has gone must not kill the process. */
    do {
        n = count == 1 ? send(t->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
                       : sendmsg(t->fd, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return failed(t, PN_IO_WANT_WRITE);
    *done = (size_t)n;
    return PN_IO_OK;
}

/* sendfile(2) knows no MSG_NOSIGNAL: it relies on SIGPIPE being ignored, as Python does at its
 * start. */
static enum pn_io plain_sendfile(struct pn_transport *t, int file_fd, off_t *offset, size_t n,
                                 size_t *done)
{
    ssize_t sent;
    if (n > SENDFILE_MAX)
        n = SENDFILE_MAX;
    do {
        sent = sendfile(t->fd, file_fd, offset, n);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ESPIPE)
            errno = EINVAL;
        return failed(t, PN_IO_WANT_WRITE);
    }
    *done = (size_t)sent;
    return PN_IO_OK;
}

static size_t plain_pending(struct pn_transport *t)
{
    (void)t;
    return 0;
}

static enum pn_io plain_shutdown(struct pn_transport *t)
{
    if (shutdown(t->fd, SHUT_WR) == 0)
        return PN_IO_OK;
    t->error = errno;
    return PN_IO_ERROR;
}

static void plain_close(struct pn_transport *t, bool reset)
{
    if (t->fd < 0)
        return;
    if (reset) {
        /* Lingering for zero seconds: the queue is dropped and RST is sent. No effect on unix
         * sockets. */
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    if (pn_unlikely(atomic_load_explicit(&has_forked, memory_order_relaxed)))
        shutdown(t->fd, SHUT_RDWR);
    close(t->fd);
    t->fd = -1;
}

static const struct pn_transport_ops tcp_ops = {
    .name = "tcp",
    .readv = plain_readv,
    .writev = plain_writev,
    .sendfile = plain_sendfile,
    .pending = plain_pending,
    .shutdown = plain_shutdown,
    .close = plain_close,
    .short_read_drains = true,
};

static const struct pn_transport_ops unix_ops = {
    .name = "unix",
    .readv = plain_readv,
    .writev = plain_writev,
    .sendfile = plain_sendfile,
    .pending = plain_pending,
    .shutdown = plain_shutdown,
    .close = plain_close,
    .short_read_drains = true,
};

void pn_transport_plain_init(struct pn_transport *t, int fd, bool is_unix)
{
    *t = (struct pn_transport){.ops = is_unix ? &unix_ops : &tcp_ops, .fd = fd};
}

void pn_transport_plain_forked(void)
{
    atomic_store_explicit(&has_forked, true, memory_order_relaxed);
}

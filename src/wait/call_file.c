/* SPDX-License-Identifier: Apache-2.0 */
/* read, write, readv, writev, eventfd_read, eventfd_write, sendfile and splice in a core, on any kind of descriptor.
 *
 * A socket is tried as recv and send are. Anything else is asked by poll(2) first: regular files always
 * say ready, so they go straight on; pipes, terminals, eventfds and the like say whether they would wait.
 * A writer of more than PIPE_BUF bytes to a pipe goes on in pieces that cannot wait once poll says ready. A terminal that is
 * ready has room for one byte, and nothing says for how many more: a fiber has a thread of its own write there. */
#include "wait/fds.h"
#include "wait/helper.h"
#include "wait/io.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "wait/iov.h"

extern ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);

enum {
    COPY_SIZE = 64 * 1024,
    SENDFILE_MAX = 0x7ffff000, /* the kernel's own limit for one call */
};

/* --- Reading ------------------------------------------------------------------------------------------ */

/* No socket, and poll(2) said that nothing is there. */
static PN_COLD ssize_t read_waiting(struct pn_core *core, int fd, const struct iovec *parts,
                                    int count)
{
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLIN, errno);
    for (;;) {
        switch (pn__fd_wait(&w)) {
        case PN__FD_AGAIN:
            if (!pn__fd_ready(fd, POLLIN))
                continue;
            errno = w.saved_errno;
            return readv(fd, parts, count);
        case PN__FD_BLOCK:
            return pn__fd_blocked(&w, readv(fd, parts, count));
        default:
            /* What never waits (O_NONBLOCK) says itself why. */
            return w.begun ? -1 : readv(fd, parts, count);
        }
    }
}

static PN_NOINLINE ssize_t read_in_core(struct pn_core *core, int fd, void *buf, size_t size)
{
    if (!pn__wait_here(core) || size == 0)
        return read(fd, buf, size);
    int saved = errno;
    if (!pn__fd_hint_no_socket(fd)) {
        ssize_t r = recv(fd, buf, size, MSG_DONTWAIT);
        if (pn_likely(r >= 0) || (errno != EAGAIN && errno != ENOTSOCK))
            return r;
        bool socket = errno != ENOTSOCK;
        errno = saved;
        if (socket) {
            struct iovec part = {buf, size};
            struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
            return pn__receive(core, fd, &m, 0);
        }
        pn__fd_set_hint(fd, true);
    }
    if (pn__fd_ready(fd, POLLIN))
        return read(fd, buf, size);
    struct iovec part = {buf, size};
    return read_waiting(core, fd, &part, 1);
}

ssize_t pn__call_read(int fd, void *buf, size_t size)
{
    struct pn_core *core = pn__core_self;
    return pn_likely(!core) ? read(fd, buf, size) : read_in_core(core, fd, buf, size);
}

ssize_t pn__call_readv(int fd, const struct iovec *parts, int count)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || count <= 0 || count > IOV_MAX || pn__iov_total(parts, (size_t)count) == 0)
        return readv(fd, parts, count);
    int saved = errno;
    if (!pn__fd_hint_no_socket(fd)) {
        struct msghdr m = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
        ssize_t r = pn__receive(core, fd, &m, 0);
        if (r >= 0 || errno != ENOTSOCK)
            return r;
        errno = saved;
        pn__fd_set_hint(fd, true);
    }
    return pn__fd_ready(fd, POLLIN) ? readv(fd, parts, count)
                                    : read_waiting(core, fd, parts, count);
}

ssize_t pn__call___read_chk(int fd, void *buf, size_t size, size_t room)
{
    return size > room ? __read_chk(fd, buf, size, room) : pn__call_read(fd, buf, size);
}

int pn__call_eventfd_read(int fd, eventfd_t *value)
{
    return pn__call_read(fd, value, sizeof *value) == (ssize_t)sizeof *value ? 0 : -1;
}

/* --- Writing ------------------------------------------------------------------------------------------ */

static mode_t kind_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ? 0 : st.st_mode & S_IFMT;
}

/* How much of SIZE may be written when poll(2) says ready, without waiting for a reader. */
static size_t piece_of(mode_t kind, size_t size)
{
    return kind == S_IFIFO ? pn_min_size(size, PIPE_BUF) : size;
}

static bool is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK);
}

/* No socket. A descriptor that blocks takes all bytes, or as many as went before an error. */
static ssize_t write_pieces(struct pn_core *core, int fd, mode_t kind, const char *buf, size_t size)
{
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLOUT, errno);
    size_t done = 0;
    while (done < size) {
        enum pn__fd_next next = PN__FD_AGAIN;
        if (!pn__fd_ready(fd, POLLOUT)) {
            next = pn__fd_wait(&w);
            if (next == PN__FD_FAILED)
                break;
            if (next == PN__FD_AGAIN)
                continue;
        }
        bool all = next == PN__FD_BLOCK;
        size_t piece = all ? size - done : piece_of(kind, size - done);
        ssize_t r = write(fd, buf + done, piece);
        if (all)
            r = pn__fd_blocked(&w, r);
        if (r < 0)
            return done > 0 ? pn__fd_done(&w, (ssize_t)done) : r;
        done += (size_t)r;
        if ((size_t)r < piece)
            break;
        pn__fd_progress(&w);
    }
    return done > 0 ? pn__fd_done(&w, (ssize_t)done) : -1;
}

static bool is_terminal(int fd)
{
    int saved = errno;
    bool is = kind_of(fd) == S_IFCHR && isatty(fd);
    errno = saved;
    return is;
}

struct terminal_write {
    int fd;
    const struct iovec *parts;
    int count;
    ssize_t r;
    int error;
};

static void run_terminal_write(void *arg)
{
    struct terminal_write *t = arg;
    t->r = writev(t->fd, t->parts, t->count);
    t->error = errno;
}

/* Not cut: the bytes are the fiber's. */
static ssize_t write_terminal(struct pn_core *core, int fd, const struct iovec *parts, int count)
{
    struct terminal_write t = {.fd = fd, .parts = parts, .count = count};
    pn__wait_count();
    if (pn__helper_run(core, run_terminal_write, &t) < 0)
        return writev(fd, parts, count);
    if (t.r < 0)
        errno = t.error;
    return t.r;
}

static ssize_t write_file(struct pn_core *core, int fd, const void *buf, size_t size)
{
    if (pn__core_is_fiber(core) && is_terminal(fd) && !is_nonblocking(fd)) {
        struct iovec part = {(void *)buf, size};
        return write_terminal(core, fd, &part, 1);
    }
    if (size <= PIPE_BUF)
        return pn__fd_ready(fd, POLLOUT) ? write(fd, buf, size)
                                         : write_pieces(core, fd, S_IFIFO, buf, size);
    mode_t kind = kind_of(fd);
    if (kind == S_IFREG || is_nonblocking(fd))
        return write(fd, buf, size);
    return write_pieces(core, fd, kind, buf, size);
}

static PN_NOINLINE ssize_t write_in_core(struct pn_core *core, int fd, const void *buf, size_t size)
{
    if (!pn__wait_here(core) || size == 0)
        return write(fd, buf, size);
    int saved = errno;
    /* A big write must know for sure: on a socket that looks like a file it would wait for the peer. */
    if (!pn__fd_hint_no_socket(fd) || (size > PIPE_BUF && kind_of(fd) == S_IFSOCK)) {
        ssize_t r = pn__transmit_bytes(core, fd, buf, size, 0);
        if (pn_likely(r >= 0) || errno != ENOTSOCK)
            return r;
        errno = saved;
        pn__fd_set_hint(fd, true);
    }
    return write_file(core, fd, buf, size);
}

ssize_t pn__call_write(int fd, const void *buf, size_t size)
{
    struct pn_core *core = pn__core_self;
    return pn_likely(!core) ? write(fd, buf, size) : write_in_core(core, fd, buf, size);
}

int pn__call_eventfd_write(int fd, eventfd_t value)
{
    return pn__call_write(fd, &value, sizeof value) == (ssize_t)sizeof value ? 0 : -1;
}

/* More than PIPE_BUF bytes to a pipe need not stay together. */
static ssize_t write_parts(struct pn_core *core, int fd, const struct iovec *parts, int count)
{
    ssize_t done = 0;
    for (int i = 0; i < count; i++) {
        if (parts[i].iov_len == 0)
            continue;
        ssize_t r = write_file(core, fd, parts[i].iov_base, parts[i].iov_len);
        if (r < 0)
            return done > 0 ? done : r;
        done += r;
        if ((size_t)r < parts[i].iov_len)
            break;
    }
    return done;
}

ssize_t pn__call_writev(int fd, const struct iovec *parts, int count)
{
    struct pn_core *core = pn__wait_gate();
    size_t total = core && count > 0 && count <= IOV_MAX ? pn__iov_total(parts, (size_t)count) : 0;
    if (total == 0)
        return writev(fd, parts, count);
    int saved = errno;
    if (!pn__fd_hint_no_socket(fd) || (total > PIPE_BUF && kind_of(fd) == S_IFSOCK)) {
        const struct msghdr m = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
        ssize_t r = pn__transmit(core, fd, &m, 0);
        if (r >= 0 || errno != ENOTSOCK)
            return r;
        errno = saved;
        pn__fd_set_hint(fd, true);
    }
    if (pn__core_is_fiber(core) && is_terminal(fd) && !is_nonblocking(fd))
        return write_terminal(core, fd, parts, count);
    if (total > PIPE_BUF && kind_of(fd) != S_IFREG && !is_nonblocking(fd))
        return write_parts(core, fd, parts, count);
    struct pn__fd_wait w = pn__fd_waiter(core, fd, POLLOUT, saved);
    while (!pn__fd_ready(fd, POLLOUT)) {
        enum pn__fd_next next = pn__fd_wait(&w);
        if (next == PN__FD_BLOCK)
            return pn__fd_blocked(&w, writev(fd, parts, count));
        if (next == PN__FD_FAILED)
            return -1;
    }
    errno = saved;
    return writev(fd, parts, count);
}

/* --- From one descriptor to another ------------------------------------------------------------------- */

/* A thread makes the very same call; a fiber copies, since the kernel's own way could only wait. */
static ssize_t copy_file(int out, int in, off_t *offset, size_t count)
{
    off_t at = offset ? *offset : lseek(in, 0, SEEK_CUR);
    char *buf = at < 0 ? NULL : pn_try_realloc(NULL, pn_min_size(count, COPY_SIZE));
    if (!buf)
        return sendfile(out, in, offset, count);
    size_t done = 0;
    ssize_t r = 0;
    count = pn_min_size(count, SENDFILE_MAX);
    while (done < count) {
        ssize_t got = pread(in, buf, pn_min_size(count - done, COPY_SIZE), at + (off_t)done);
        if (got <= 0) {
            r = got;
            break;
        }
        r = pn__call_write(out, buf, (size_t)got);
        if (r < 0)
            break;
        done += (size_t)r;
        if (r < got)
            break;
    }
    int error = errno;
    free(buf);
    if (offset)
        *offset = at + (off_t)done;
    else if (done > 0)
        (void)lseek(in, at + (off_t)done, SEEK_SET);
    errno = error;
    return done > 0 || r >= 0 ? (ssize_t)done : -1;
}

/* A pipe takes what it has room for, and that is all: it waits for room only. */
static ssize_t sendfile_to_pipe(struct pn_core *core, int out, int in, off_t *offset, size_t count)
{
    struct pn__fd_wait w = pn__fd_waiter(core, out, POLLOUT, errno);
    while (!pn__fd_ready(out, POLLOUT)) {
        enum pn__fd_next next = pn__fd_wait(&w);
        if (next == PN__FD_BLOCK)
            return pn__fd_blocked(&w, sendfile(out, in, offset, count));
        if (next == PN__FD_FAILED)
            return -1;
    }
    errno = w.saved_errno;
    return sendfile(out, in, offset, count);
}

ssize_t pn__call_sendfile(int out, int in, off_t *offset, size_t count)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || count == 0)
        return sendfile(out, in, offset, count);
    mode_t kind = kind_of(out);
    if ((kind != S_IFSOCK && kind != S_IFIFO) || is_nonblocking(out) || kind_of(in) != S_IFREG)
        return sendfile(out, in, offset, count);
    if (kind == S_IFIFO)
        return sendfile_to_pipe(core, out, in, offset, count);
    if (pn__core_is_fiber(core))
        return copy_file(out, in, offset, count);
    struct pn__fd_wait w = pn__fd_waiter(core, out, POLLOUT, errno);
    pn__wait_count();
    if (!pn_core_block_begin(core, -1, 0))
        return sendfile(out, in, offset, count);
    return pn__fd_blocked(&w, sendfile(out, in, offset, count));
}

/* Until both ends may go on. False: BLOCK, *w says for which. */
static enum pn__fd_next wait_for_both(struct pn_core *core, int in, int out, unsigned flags,
                                      struct pn__fd_wait *w)
{
    int saved = errno;
    *w = pn__fd_waiter(core, in, POLLIN, saved);
    if (flags & SPLICE_F_NONBLOCK)
        return PN__FD_AGAIN;
    for (;;) {
        bool in_ready = pn__fd_ready(in, POLLIN);
        if (in_ready && pn__fd_ready(out, POLLOUT))
            return PN__FD_AGAIN;
        if (in_ready != (w->fd == out))
            *w = pn__fd_waiter(core, in_ready ? out : in, in_ready ? POLLOUT : POLLIN, saved);
        enum pn__fd_next next = pn__fd_wait(w);
        if (next != PN__FD_AGAIN)
            return next;
    }
}

ssize_t pn__call_splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size,
                        unsigned flags)
{
    struct pn_core *core = pn__wait_gate();
    if (!core || size == 0)
        return splice(in, in_offset, out, out_offset, size, flags);
    struct pn__fd_wait w;
    int saved = errno;
    enum pn__fd_next next = wait_for_both(core, in, out, flags, &w);
    if (next == PN__FD_BLOCK)
        return pn__fd_blocked(&w, splice(in, in_offset, out, out_offset, size, flags));
    /* What does not wait at all (O_NONBLOCK) says so itself. */
    if (next == PN__FD_FAILED && w.begun)
        return -1;
    errno = saved;
    return splice(in, in_offset, out, out_offset, size, flags);
}

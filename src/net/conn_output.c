/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes out: gathered in one queue that leaves at the latest in the turn's FLUSH phase; large
 * ones sent beside it without a copy; files by sendfile. What the socket does not take waits for
 * the edge.
 *
 * The writer above is told to wait above the high-water mark (write_blocked), and its state's
 * writable comes below the low one; never from inside a call of its own. */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/net_state.h"

enum {
    GATHER_MAX = 16 * 1024,  /* more in the queue is sent at the next write, not gathered further */
    SENDS_MAX = 16,          /* system calls a call of ours */
    FILE_PART_MAX = 1 << 20, /* of one file a call: a fast peer must not keep the loop */
    FILE_COPY_SIZE = 16 * 1024 /* read and written, where sendfile is not possible */
};

static void progress(struct pn_conn *c)
{
    if (c->timer == PN_CONN_TIMER_WRITE)
        pn_conn_touch(c);
}

/* The transport would wait: from now on the edge goes on with it. */
static enum pn_io want(struct pn_conn *c, enum pn_io io)
{
    c->writable = false;
    if (io == PN_IO_WANT_READ)
        c->write_wants_read = true;
    int rc = pn__conn_watch(c);
    if (rc == 0)
        return PN_IO_WANT_WRITE;
    c->transport.error = -rc;
    return PN_IO_ERROR;
}

static void queue_emptied(struct pn_conn *c)
{
    pn_task_cancel(&c->flush);
    if (c->out.data)
        pn__net_spare_give(c->net, &c->out);
}

/* Sends the queue and DATA behind it by one call each time. *TAKEN says how much of DATA left.
 * OK: all. */
static enum pn_io send_with(struct pn_conn *c, const char *data, size_t n, size_t *taken)
{
    *taken = 0;
    for (int i = 0; i < SENDS_MAX; i++) {
        struct pn_str queue = pn_bytes_view(&c->out);
        struct iovec iov[2] = {
            {.iov_base = (void *)queue.p, .iov_len = queue.n},
            {.iov_base = data ? (void *)(data + *taken) : NULL, .iov_len = n - *taken},
        };
        size_t done = 0;
        size_t asked = queue.n + n - *taken;
        if (asked == 0)
            return PN_IO_OK;
        int first = queue.n ? 0 : 1;
        int count = n > *taken ? 2 - first : 1;
        enum pn_io io = c->transport.ops->writev(&c->transport, iov + first, count, &done);
        if (pn_unlikely(io == PN_IO_ERROR))
            return io;
        if (pn_unlikely(io != PN_IO_OK))
            return want(c, io);
        PN_BUG_ON(done > asked);
        size_t of_queue = pn_min_size(done, queue.n);
        pn_bytes_consume(&c->out, of_queue);
        *taken += done - of_queue;
        progress(c);
        if (pn_likely(done == asked))
            return PN_IO_OK;
    }
    return PN_IO_WANT_WRITE; /* an odd transport: the FLUSH phase tries again */
}

/* What the first try at the queue left over. */
static __attribute__((noinline)) enum pn_io send_rest(struct pn_conn *c)
{
    size_t taken;
    enum pn_io io = send_with(c, NULL, 0, &taken);
    if (io == PN_IO_OK)
        queue_emptied(c);
    else if (io == PN_IO_WANT_WRITE && c->writable)
        pn_task_post(c->net->loop, &c->flush);
    return io;
}

enum pn_io pn__conn_send(struct pn_conn *c)
{
    struct pn_str queue = pn_bytes_view(&c->out);
    struct iovec iov = {.iov_base = (void *)queue.p, .iov_len = queue.n};
    size_t done = 0;
    if (queue.n == 0)
        return PN_IO_OK;
    if (!c->writable)
        return PN_IO_WANT_WRITE;
    enum pn_io io = c->transport.ops->writev(&c->transport, &iov, 1, &done);
    if (pn_unlikely(io == PN_IO_ERROR))
        return io;
    if (pn_unlikely(io != PN_IO_OK))
        return want(c, io);
    PN_BUG_ON(done > queue.n);
    pn_bytes_consume(&c->out, done);
    progress(c);
    if (pn_unlikely(done < queue.n))
        return send_rest(c);
    queue_emptied(c);
    return PN_IO_OK;
}

bool pn__conn_writable_due(struct pn_conn *c)
{
    size_t len = pn_bytes_len(&c->out);
    bool due = false;
    if (c->write_blocked && len <= PN_CONN_OUT_LOW_WATER) {
        c->write_blocked = false;
        due = true;
    }
    if (c->flush_waits && len == 0) {
        c->flush_waits = false;
        due = true;
    }
    return due;
}

/* In the FLUSH phase, or once more in the next turn. */
void pn__conn_flush_run(struct pn_task *task)
{
    struct pn_conn *c = pn_container_of(task, struct pn_conn, flush);
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(!c->dead);
    if (pn__conn_send(c) == PN_IO_ERROR)
        c->state->closed(c, c->transport.error);
    else if (c->writable && pn__conn_writable_due(c))
        c->state->writable(c);
}

/* The wire has sent the queue itself: if somebody waits for that, it is told in the FLUSH phase. */
static void tell_later(struct pn_conn *c)
{
    size_t len = pn_bytes_len(&c->out);
    if (!c->writable) /* the edge tells: who tried again now would be told again at once */
        return;
    if ((c->write_blocked && len <= PN_CONN_OUT_LOW_WATER) || (c->flush_waits && len == 0))
        pn_task_post_flush(c->net->loop, &c->flush);
}

enum pn_io pn_conn_flush(struct pn_conn *c)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    if (c->dead) {
        c->transport.error = EPIPE;
        return PN_IO_ERROR;
    }
    enum pn_io io = pn__conn_send(c);
    if (io == PN_IO_WANT_WRITE)
        c->flush_waits = true;
    if (pn_unlikely(c->write_blocked || c->flush_waits))
        tell_later(c);
    return io;
}

char *pn_conn_out_reserve(struct pn_conn *c, size_t n)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    if (pn_unlikely(c->dead))
        return NULL;
    pn__net_spare_take(c->net, &c->out);
    return pn_bytes_reserve(&c->out, n);
}

void pn_conn_out_commit(struct pn_conn *c, size_t n)
{
    PN_ASSERT(!c->dead && n <= c->out.capacity - c->out.end);
    pn_bytes_commit(&c->out, n);
    pn_task_post_flush(c->net->loop, &c->flush);
}

/* Copies what may still stand in the queue. How much that was. */
static size_t gather(struct pn_conn *c, const char *data, size_t n)
{
    size_t len = pn_bytes_len(&c->out);
    size_t room = len < PN_CONN_OUT_HIGH_WATER ? PN_CONN_OUT_HIGH_WATER - len : 0;
    n = pn_min_size(n, room);
    char *to = n ? pn_conn_out_reserve(c, n) : NULL;
    if (!to)
        return 0;
    memcpy(to, data, n);
    pn_conn_out_commit(c, n);
    return n;
}

ssize_t pn_conn_write(struct pn_conn *c, const void *data, size_t n)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    if (pn_unlikely(c->dead))
        return -EPIPE;
    if (n == 0)
        return 0;
    const char *bytes = data;
    size_t taken = 0;
    bool small = pn_bytes_len(&c->out) + n <= GATHER_MAX;
    if (small && pn_likely(gather(c, bytes, n) == n))
        return (ssize_t)n;
    if (c->writable) {
        enum pn_io io = send_with(c, bytes, n, &taken);
        if (pn_unlikely(io == PN_IO_ERROR))
            return -EPIPE;
        if (pn_bytes_len(&c->out) == 0)
            queue_emptied(c);
    }
    taken += gather(c, bytes + taken, n - taken);
    if (taken == 0 && pn_bytes_len(&c->out) == 0)
        return -ENOMEM; /* nothing is under way that would bring the writer back */
    if (taken < n)
        c->write_blocked = true;
    if (c->writable && (pn_bytes_len(&c->out) > 0 || taken < n))
        pn_task_post_flush(c->net->loop, &c->flush);
    return (ssize_t)taken;
}

/* Where sendfile is not possible: a part is read and written. */
static ssize_t copy_file(struct pn_conn *c, int fd, off_t *offset, size_t n)
{
    char part[FILE_COPY_SIZE];
    ssize_t got;
    do {
        got = pread(fd, part, pn_min_size(n, sizeof(part)), *offset);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    if (got == 0)
        return -ENODATA;
    ssize_t taken = pn_conn_write(c, part, (size_t)got);
    if (taken > 0)
        *offset += taken;
    return taken;
}

static ssize_t copy_file_parts(struct pn_conn *c, int fd, off_t *offset, size_t n)
{
    size_t total = 0;
    while (total < n) {
        ssize_t taken = copy_file(c, fd, offset, n - total);
        if (taken < 0)
            return total ? (ssize_t)total : taken;
        total += (size_t)taken;
        if (c->write_blocked)
            break;
    }
    return (ssize_t)total;
}

/* At most FILE_PART_MAX bytes. *WAITS: the transport takes no more now. */
static ssize_t send_file_part(struct pn_conn *c, int fd, off_t *offset, size_t n, bool *waits)
{
    size_t total = 0;
    n = pn_min_size(n, FILE_PART_MAX);
    for (int i = 0; i < SENDS_MAX && total < n; i++) {
        size_t done = 0;
        enum pn_io io = c->transport.ops->sendfile(&c->transport, fd, offset, n - total, &done);
        if (io == PN_IO_ERROR) {
            int error = c->transport.error;
            if (total == 0 && (error == EINVAL || error == ENOTSUP))
                return copy_file_parts(c, fd, offset, n);
            return total ? (ssize_t)total : (error == EIO ? -EIO : -EPIPE);
        }
        if (io != PN_IO_OK) {
            *waits = true;
            if (want(c, io) == PN_IO_ERROR)
                return -EPIPE;
            break;
        }
        if (done == 0)
            return total ? (ssize_t)total : -ENODATA;
        total += done;
        progress(c);
    }
    return (ssize_t)total;
}

ssize_t pn_conn_send_file(struct pn_conn *c, int fd, off_t *offset, size_t n)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    if (c->dead)
        return -EPIPE;
    if (n == 0)
        return 0;
    enum pn_io io = pn__conn_send(c);
    if (io == PN_IO_ERROR)
        return -EPIPE;
    if (io != PN_IO_OK || !c->writable) {
        c->write_blocked = true;
        return 0;
    }
    bool waits = false;
    ssize_t taken = send_file_part(c, fd, offset, n, &waits);
    if (taken < 0 || (size_t)taken == n)
        return taken;
    c->write_blocked = true;
    if (!waits)
        pn_task_post_flush(c->net->loop, &c->flush); /* brings the writer back next turn */
    return taken;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The in-memory connection: see sim_link.h. Reads and writes behave as those of a non-blocking socket. */
#include "support/sim_link.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/mem.h"

static void append(struct pn_bytes *b, const void *data, size_t n)
{
    /* Not through pn_try_malloc: the tests' own memory never fails. */
    if (b->capacity - b->end < n) {
        size_t len = pn_bytes_len(b), capacity = pn_max_size(256, b->capacity);
        while (capacity < len + n)
            capacity *= 2;
        char *block = pn_xmalloc(capacity);
        if (len)
            memcpy(block, b->data + b->start, len);
        free(b->data);
        *b = (struct pn_bytes){.data = block, .end = (uint32_t)len, .capacity = (uint32_t)capacity};
    }
    memcpy(b->data + b->end, data, n);
    b->end += (uint32_t)n;
}

static enum pn_io fail(struct pn_transport *t, int error)
{
    t->error = error;
    return PN_IO_ERROR;
}

/* As TLS does in a handshake: a read must write first, and a write must read. The edge comes a little later, and
 * the next call of that kind (*CROSSED) goes through. */
static bool crosses(struct sim_link *l, bool *crossed, void (*edge)(void *ctx))
{
    if (!l->cross_every)
        return false;
    *crossed = !*crossed && ++l->calls % l->cross_every == 0;
    if (!*crossed)
        return false;
    sim_at(l->sim, sim_now_ns(l->sim) + PN_NS_PER_MS, edge, l);
    return true;
}

static void on_room(void *ctx)
{
    struct sim_link *l = ctx;
    if (l->fd >= 0)
        sim_fd_raise(l->sim, l->fd, EPOLLOUT);
}

static void on_bytes(void *ctx)
{
    struct sim_link *l = ctx;
    if (l->fd >= 0)
        sim_fd_raise(l->sim, l->fd, EPOLLIN);
}

/* Only what finds nothing to read waits for something. */
static bool write_crosses(struct sim_link *l)
{
    return pn_bytes_len(&l->to_server) == 0 && !l->eof && crosses(l, &l->write_crossed, on_bytes);
}

static enum pn_io link_readv(struct pn_transport *t, const struct iovec *iov, int count,
                             size_t *done)
{
    struct sim_link *l = t->state;
    size_t moved = 0, asked = 0;
    *done = 0;
    if (l->broken)
        return fail(t, ECONNRESET);
    if (crosses(l, &l->read_crossed, on_room)) {
        /* What came is in the layer between: only the room tells. */
        sim_fd_lower(l->sim, l->fd, EPOLLIN | EPOLLOUT);
        return PN_IO_WANT_WRITE;
    }
    size_t left = pn_bytes_len(&l->to_server);
    if (left == 0) {
        if (l->eof) {
            l->reads++;
            return PN_IO_OK;
        }
        l->read_blocks++;
        sim_fd_lower(l->sim, l->fd, EPOLLIN);
        return PN_IO_WANT_READ;
    }
    if (l->read_max)
        left = pn_min_size(left, l->read_max);
    for (int i = 0; i < count; i++) {
        size_t n = pn_min_size(left, iov[i].iov_len);
        asked += iov[i].iov_len;
        memcpy(iov[i].iov_base, l->to_server.data + l->to_server.start, n);
        pn_bytes_consume(&l->to_server, n);
        moved += n;
        left -= n;
    }
    l->reads++;
    l->moved_at_ns = sim_now_ns(l->sim);
    /* A short read: the rest comes just now, with its edge. A full one leaves the rest without one. */
    if (pn_bytes_len(&l->to_server) > 0 && moved < asked)
        sim_fd_raise(l->sim, l->fd, EPOLLIN);
    else if (pn_bytes_len(&l->to_server) == 0 && !l->eof)
        sim_fd_lower(l->sim, l->fd, EPOLLIN);
    *done = moved;
    return PN_IO_OK;
}

static size_t room_of(const struct sim_link *l)
{
    size_t len = pn_bytes_len(&l->to_client);
    size_t room = l->window > len ? l->window - len : 0;
    return l->write_max ? pn_min_size(room, l->write_max) : room;
}

static enum pn_io link_writev(struct pn_transport *t, const struct iovec *iov, int count,
                              size_t *done)
{
    struct sim_link *l = t->state;
    size_t moved = 0;
    *done = 0;
    if (l->broken || l->fin)
        return fail(t, EPIPE);
    if (write_crosses(l))
        return PN_IO_WANT_READ;
    size_t room = room_of(l);
    if (room == 0) {
        sim_fd_lower(l->sim, l->fd, EPOLLOUT);
        return PN_IO_WANT_WRITE;
    }
    for (int i = 0; i < count && room > 0; i++) {
        size_t n = pn_min_size(room, iov[i].iov_len);
        append(&l->to_client, iov[i].iov_base, n);
        moved += n;
        room -= n;
    }
    l->writes++;
    l->moved_at_ns = sim_now_ns(l->sim);
    *done = moved;
    return PN_IO_OK;
}

static enum pn_io link_sendfile(struct pn_transport *t, int file_fd, off_t *offset, size_t n,
                                size_t *done)
{
    struct sim_link *l = t->state;
    char block[4096];
    *done = 0;
    if (l->broken || l->fin)
        return fail(t, EPIPE);
    if (write_crosses(l))
        return PN_IO_WANT_READ;
    size_t room = pn_min_size(pn_min_size(room_of(l), n), sizeof block);
    if (room == 0) {
        sim_fd_lower(l->sim, l->fd, EPOLLOUT);
        return PN_IO_WANT_WRITE;
    }
    ssize_t r = pread(file_fd, block, room, *offset);
    if (r < 0)
        return fail(t, errno);
    append(&l->to_client, block, (size_t)r);
    *offset += r;
    *done = (size_t)r;
    l->writes++;
    l->moved_at_ns = sim_now_ns(l->sim);
    return PN_IO_OK;
}

static size_t link_pending(struct pn_transport *t)
{
    (void)t;
    return 0;
}

static void end_direction(struct sim_link *l)
{
    if (!l->fin)
        l->fin_at_ns = sim_now_ns(l->sim);
    l->fin = true;
}

static enum pn_io link_shutdown(struct pn_transport *t)
{
    struct sim_link *l = t->state;
    end_direction(l);
    return l->broken ? fail(t, ENOTCONN) : PN_IO_OK;
}

static void link_close(struct pn_transport *t, bool reset)
{
    struct sim_link *l = t->state;
    end_direction(l);
    l->reset = reset;
    l->unread = pn_bytes_len(&l->to_server);
    l->closed_at_ns = sim_now_ns(l->sim);
    sim_fd_close(l->sim, l->fd);
    l->fd = -1;
    t->fd = -1;
}

static const struct pn_transport_ops ops = {
    .name = "sim",
    .readv = link_readv,
    .writev = link_writev,
    .sendfile = link_sendfile,
    .pending = link_pending,
    .shutdown = link_shutdown,
    .close = link_close,
    .short_read_drains = true,
};

struct sim_link *sim_link_open(struct sim_poller *sim)
{
    struct sim_link *l = pn_xcalloc(1, sizeof *l);
    l->sim = sim;
    l->fd = sim_fd_open(sim);
    l->window = SIZE_MAX;
    sim_fd_raise(sim, l->fd, EPOLLOUT);
    return l;
}

struct pn_transport sim_link_transport(struct sim_link *l)
{
    return (struct pn_transport){.ops = &ops, .fd = l->fd, .state = l};
}

void sim_link_send(struct sim_link *l, const void *data, size_t n)
{
    if (l->fd < 0 || l->eof || l->broken || n == 0)
        return;
    append(&l->to_server, data, n);
    sim_fd_raise(l->sim, l->fd, EPOLLIN);
}

void sim_link_shutdown(struct sim_link *l)
{
    l->eof = true;
    if (l->fd >= 0)
        sim_fd_raise(l->sim, l->fd, EPOLLIN | EPOLLRDHUP);
}

void sim_link_break(struct sim_link *l)
{
    l->broken = true;
    if (l->fd >= 0)
        sim_fd_raise(l->sim, l->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP);
}

void sim_link_take(struct sim_link *l, size_t n)
{
    pn_bytes_consume(&l->to_client, n);
    if (l->fd >= 0 && room_of(l) > 0)
        sim_fd_raise(l->sim, l->fd, EPOLLOUT);
}

void sim_link_set_window(struct sim_link *l, size_t window)
{
    l->window = window;
    if (l->fd >= 0 && room_of(l) > 0)
        sim_fd_raise(l->sim, l->fd, EPOLLOUT);
}

void sim_link_free(struct sim_link *l)
{
    PN_BUG_ON(l->fd >= 0);
    pn_bytes_free(&l->to_server);
    pn_bytes_free(&l->to_client);
    free(l);
}

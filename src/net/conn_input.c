/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes in: read into the shared scratch, kept in an own block only when they must outlive it.
 *
 *   nothing here:   one read into a scratch
 *   in a scratch:   behind what is there, moved to its front when its end is reached
 *   in a block:     into its spare room and a scratch at once; it then grows by what came
 * So a block never has room for bytes that nobody sent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "net/net_state.h"

static uint32_t unused(const struct pn_conn *c)
{
    return c->in_len - c->in_pos;
}

static void check_input(const struct pn_conn *c)
{
    PN_ASSERT(c->in_pos <= c->in_len);
    PN_ASSERT(!c->scratch || (c->in_data == c->scratch->data && c->in_capacity == 0));
    PN_ASSERT(c->scratch || c->in_len <= c->in_capacity);
    PN_ASSERT(c->in_data || c->in_len == 0);
    (void)c;
}

void pn__conn_input_drop(struct pn_conn *c)
{
    if (c->scratch) {
        pn__net_scratch_put(c->net, c->scratch);
        c->scratch = NULL;
    } else {
        free(c->in_data);
    }
    c->in_data = NULL;
    c->in_pos = c->in_len = c->in_capacity = 0;
}

void pn_conn_consume(struct pn_conn *c, size_t n)
{
    check_input(c);
    PN_BUG_ON(n > unused(c));
    c->in_pos += (uint32_t)n;
    if (c->in_pos == c->in_len && c->in_data)
        pn__conn_input_drop(c);
}

/* Moves what is unused to an own block of SIZE bytes, from wherever it is. */
static int move_to_block(struct pn_conn *c, size_t size)
{
    uint32_t n = unused(c);
    PN_ASSERT(size >= n && size <= UINT32_MAX);
    char *block = pn_try_malloc(size);
    if (!block)
        return -ENOMEM;
    memcpy(block, c->in_data + c->in_pos, n);
    pn__conn_input_drop(c);
    c->in_data = block;
    c->in_len = n;
    c->in_capacity = (uint32_t)size;
    return 0;
}

int pn_conn_keep_input(struct pn_conn *c)
{
    check_input(c);
    if (!c->scratch)
        return 0;
    if (unused(c) > 0)
        return move_to_block(c, unused(c));
    pn__conn_input_drop(c);
    return 0;
}

static void compact(struct pn_conn *c)
{
    if (c->in_pos == 0)
        return;
    memmove(c->in_data, c->in_data + c->in_pos, unused(c));
    c->in_len -= c->in_pos;
    c->in_pos = 0;
}

static enum pn_io no_memory(struct pn_conn *c)
{
    c->transport.error = ENOMEM;
    return PN_IO_ERROR;
}

/* What a read of *DONE bytes, asked for ASKED, means for the next one. */
static void note_read(struct pn_conn *c, size_t asked, size_t done)
{
    if (done == 0) {
        c->peer_closed = true;
        c->readable = false;
    } else if (done < asked && c->transport.ops->short_read_drains && !c->eof_due) {
        /* The edge for the next bytes comes by itself, once somebody watches. */
        c->readable = false;
    } else {
        c->readable = true;
    }
}

static enum pn_io want(struct pn_conn *c, enum pn_io io)
{
    c->readable = false;
    if (io == PN_IO_WANT_WRITE)
        c->read_wants_write = true;
    int rc = pn__conn_watch(c);
    if (rc == 0)
        return PN_IO_WANT_READ;
    c->transport.error = -rc;
    return PN_IO_ERROR;
}

/* Into the scratch that the input lies in, behind what is there. ROOM is what may come at most. */
static enum pn_io read_scratch(struct pn_conn *c, size_t room)
{
    if (sizeof(c->scratch->data) - c->in_len < pn_min_size(room, sizeof(c->scratch->data) / 2))
        compact(c);
    struct iovec iov = {
        .iov_base = c->in_data + c->in_len,
        .iov_len = pn_min_size(room, sizeof(c->scratch->data) - c->in_len),
    };
    size_t done = 0;
    enum pn_io io = c->transport.ops->readv(&c->transport, &iov, 1, &done);
    if (pn_likely(io == PN_IO_OK)) {
        PN_BUG_ON(done > iov.iov_len);
        c->in_len += (uint32_t)done;
        note_read(c, iov.iov_len, done);
    }
    return io;
}

/* DONE bytes came for a block with ROOM bytes free: the rest is in OVERFLOW. */
static int append_overflow(struct pn_conn *c, size_t room, const char *overflow, size_t done,
                           size_t max_size)
{
    size_t direct = pn_min_size(room, done);
    c->in_len += (uint32_t)direct;
    if (done == direct)
        return 0;
    /* Doubling bounds the copying when a peer sends byte by byte. */
    size_t need = unused(c) + done - direct;
    size_t size = pn_max_size(need, pn_min_size(2 * (size_t)c->in_capacity, max_size));
    if (move_to_block(c, size) < 0)
        return -ENOMEM;
    memcpy(c->in_data + c->in_len, overflow, done - direct);
    c->in_len += (uint32_t)(done - direct);
    return 0;
}

/* Into the own block and, with what does not fit, into a scratch. */
static enum pn_io read_block(struct pn_conn *c, size_t room, size_t max_size)
{
    struct pn_scratch *scratch = pn__net_scratch_get(c->net);
    if (!scratch)
        return no_memory(c);
    compact(c);
    size_t direct = pn_min_size(room, c->in_capacity - c->in_len);
    struct iovec iov[2] = {
        {.iov_base = c->in_data + c->in_len, .iov_len = direct},
        {.iov_base = scratch->data, .iov_len = pn_min_size(room - direct, sizeof(scratch->data))},
    };
    size_t asked = iov[0].iov_len + iov[1].iov_len;
    size_t done = 0;
    int first = direct ? 0 : 1;
    int count = iov[1].iov_len ? 2 - first : 1;
    enum pn_io io = c->transport.ops->readv(&c->transport, iov + first, count, &done);
    if (io == PN_IO_OK) {
        PN_BUG_ON(done > asked);
        note_read(c, asked, done);
        if (append_overflow(c, direct, scratch->data, done, max_size) < 0)
            io = no_memory(c);
    }
    pn__net_scratch_put(c->net, scratch);
    return io;
}

enum pn_io pn_conn_read(struct pn_conn *c, size_t max_size)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(!c->dead);
    check_input(c);
    max_size = pn_min_size(max_size, UINT32_MAX / 2);
    uint32_t here = unused(c);
    if (here >= max_size)
        return no_memory(c);
    if (!c->in_data) {
        c->scratch = pn__net_scratch_get(c->net);
        if (!c->scratch)
            return no_memory(c);
        c->in_data = c->scratch->data;
    } else if (c->scratch && here == sizeof(c->scratch->data)) {
        if (move_to_block(c, here) < 0)
            return no_memory(c);
    }
    enum pn_io io =
        c->scratch ? read_scratch(c, max_size - here) : read_block(c, max_size - here, max_size);
    if (c->in_pos == c->in_len)
        pn__conn_input_drop(c);
    if (pn_likely(io == PN_IO_OK || io == PN_IO_ERROR))
        return io;
    return want(c, io);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* zlib's raw streams, one each way. A message ends in a sync flush whose last four bytes (an empty
 * stored block) are not sent (RFC 7692 7.2.1), and are put back before it is inflated (7.2.2). */
#include "http/ws_deflate.h"

#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "base/mem.h"

enum {
    INFLATE_STEP = 16 * 1024,
    WINDOW_MAX = 32 * 1024,
    TAIL_SIZE = 4,
    LEVEL = 6,
    MEMORY_LEVEL = 8,
};

static const char tail[TAIL_SIZE] = {0, 0, '\xff', '\xff'};

void pn_ws_deflate_init(struct pn_ws_deflate *d, const struct pn_ws_deflate_params *params)
{
    *d = (struct pn_ws_deflate){.params = *params};
}

static void end_in(struct pn_ws_deflate *d)
{
    if (d->in)
        inflateEnd(d->in);
    free(d->in);
    d->in = NULL;
}

static void end_out(struct pn_ws_deflate *d)
{
    if (d->out)
        deflateEnd(d->out);
    free(d->out);
    d->out = NULL;
}

void pn_ws_deflate_fini(struct pn_ws_deflate *d)
{
    end_in(d);
    end_out(d);
}

/* zlib's memory comes from where a test can make it fail. */
static voidpf allocate(voidpf opaque, uInt count, uInt size)
{
    (void)opaque;
    return pn_try_malloc((size_t)count * size);
}

static void release(voidpf opaque, voidpf p)
{
    (void)opaque;
    free(p);
}

static z_stream *new_stream(void)
{
    z_stream *z = pn_try_malloc(sizeof *z);
    if (z)
        *z = (z_stream){.zalloc = allocate, .zfree = release};
    return z;
}

/* --- In ---------------------------------------------------------------------------------------- */

static int begin_in(struct pn_ws_deflate *d)
{
    z_stream *z = new_stream();
    if (!z)
        return -ENOMEM;
    if (inflateInit2(z, -d->params.client_max_window_bits) != Z_OK) {
        free(z);
        return -ENOMEM;
    }
    d->in = z;
    return 0;
}

/* A block with BFINAL set is allowed (RFC 7692 7.2.3.4). For zlib it is the end; the next one begins with
 * the window that was. */
static int begin_again(z_stream *z)
{
    uInt size = 0;
    Bytef *window = pn_try_malloc(WINDOW_MAX);
    int rc = window ? inflateGetDictionary(z, window, &size) : Z_MEM_ERROR;
    if (rc == Z_OK)
        rc = inflateReset(z);
    if (rc == Z_OK && size)
        rc = inflateSetDictionary(z, window, size);
    free(window);
    return rc == Z_OK ? 0 : -ENOMEM;
}

int pn_ws_inflate(struct pn_ws_deflate *d, const char *data, size_t n, struct pn_bytes *out,
                  size_t size_max)
{
    if (!d->in && begin_in(d) < 0)
        return -ENOMEM;
    z_stream *z = d->in;
    z->next_in = (z_const Bytef *)(uintptr_t)data;
    z->avail_in = (uInt)n;
    for (;;) {
        size_t room = size_max - pn_bytes_len(out);
        /* One byte more than is allowed tells that there is more. */
        size_t step = pn_min_size(INFLATE_STEP, room + 1);
        char *to = pn_bytes_reserve(out, step);
        if (!to)
            return -ENOMEM;
        z->next_out = (Bytef *)to;
        z->avail_out = (uInt)step;
        int rc = inflate(z, Z_SYNC_FLUSH);
        size_t got = step - z->avail_out;
        if (got > room)
            return -EMSGSIZE;
        pn_bytes_commit(out, got);
        if (rc == Z_STREAM_END) {
            if (begin_again(z) < 0)
                return -ENOMEM;
            if (z->avail_in == 0)
                return 0;
            continue;
        }
        if (rc == Z_MEM_ERROR)
            return -ENOMEM;
        if (rc != Z_OK && rc != Z_BUF_ERROR)
            return -EBADMSG;
        if (z->avail_out > 0)
            return z->avail_in ? -EBADMSG : 0;
    }
}

int pn_ws_inflate_end(struct pn_ws_deflate *d, struct pn_bytes *out, size_t size_max)
{
    int rc = pn_ws_inflate(d, tail, TAIL_SIZE, out, size_max);
    if (rc < 0 || d->params.client_no_context_takeover)
        end_in(d);
    return rc;
}

/* --- Out --------------------------------------------------------------------------------------- */

static int begin_out(struct pn_ws_deflate *d)
{
    z_stream *z = new_stream();
    if (!z)
        return -ENOMEM;
    if (deflateInit2(z, LEVEL, Z_DEFLATED, -d->params.server_max_window_bits, MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        free(z);
        return -ENOMEM;
    }
    d->out = z;
    return 0;
}

int pn_ws_deflate_message(struct pn_ws_deflate *d, const char *data, size_t n, struct pn_bytes *out)
{
    size_t before = pn_bytes_len(out);
    /* zlib flushes nothing twice; the begin of an empty block is always right (RFC 7692 7.2.3.6). */
    if (n == 0)
        return pn_bytes_append(out, "", 1);
    if (!d->out && begin_out(d) < 0)
        return -ENOMEM;
    z_stream *z = d->out;
    z->next_in = (z_const Bytef *)(uintptr_t)data;
    z->avail_in = (uInt)n;
    do {
        /* The bound holds for Z_FINISH; a flush adds a few bytes, and then there is another round. */
        size_t step = pn_max_size(deflateBound(z, z->avail_in) + TAIL_SIZE + 8, 64);
        char *to = pn_bytes_reserve(out, step);
        if (!to) {
            out->end -= (uint32_t)(pn_bytes_len(out) - before);
            pn_ws_deflate_unsent(d);
            return -ENOMEM;
        }
        z->next_out = (Bytef *)to;
        z->avail_out = (uInt)step;
        (void)deflate(z, Z_SYNC_FLUSH);
        pn_bytes_commit(out, step - z->avail_out);
    } while (z->avail_out == 0);
    out->end -= TAIL_SIZE;
    if (d->params.server_no_context_takeover)
        end_out(d);
    return 0;
}

/* A new stream: it refers to nothing that came before it, so the other end's window doesn't matter. */
void pn_ws_deflate_unsent(struct pn_ws_deflate *d)
{
    end_out(d);
}

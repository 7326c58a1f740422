/* SPDX-License-Identifier: Apache-2.0 */
/* The chunked coding. Beside not crashing: cut anywhere the result is the same, and a decoded body
 * that is encoded again decodes to the same bytes. */
#include <stdlib.h>

#include "base/check.h"
#include "http/h1_chunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 8192 };

struct decoded {
    int result;
    size_t used;
    size_t size;
    char body[INPUT_MAX];
};

static void feed(struct pn_h1_chunk *chunk, const char *bytes, size_t n, struct decoded *d)
{
    /* In a block of its own exact size, so that one byte too many is noticed. */
    char *copy = malloc(n + !n), *p = copy;
    size_t used;
    struct pn_str out;
    memcpy(copy, bytes, n);
    do {
        d->result = pn_h1_chunk_next(chunk, p, n, &used, &out);
        PN_BUG_ON(used > n);
        PN_BUG_ON(d->result == PN_H1_CHUNK_MORE && used != n);
        if (d->result == PN_H1_CHUNK_DATA) {
            PN_BUG_ON(out.n == 0 || out.p < p || out.p + out.n != p + used);
            memcpy(d->body + d->size, out.p, out.n);
            d->size += out.n;
        }
        p += used;
        n -= used;
        d->used += used;
    } while (d->result == PN_H1_CHUNK_DATA);
    free(copy);
}

/* In pieces of the lengths that SEED has, 1 to 256 bytes; whole without it. */
static void decode(const char *bytes, size_t n, const uint8_t *seed, struct decoded *d)
{
    struct pn_h1_chunk chunk;
    pn_h1_chunk_init(&chunk);
    d->result = PN_H1_CHUNK_MORE;
    d->used = d->size = 0;
    for (size_t i = 0; i < n && d->result == PN_H1_CHUNK_MORE;) {
        size_t m = seed ? (size_t)seed[n - 1 - i] % 16 + 1 : n;
        if (m > n - i)
            m = n - i;
        feed(&chunk, bytes + i, m, d);
        i += m;
    }
}

static void same(const struct decoded *a, const struct decoded *b)
{
    PN_BUG_ON(a->result != b->result || a->size != b->size);
    PN_BUG_ON(memcmp(a->body, b->body, a->size) != 0);
    PN_BUG_ON(a->result == PN_H1_CHUNK_END && a->used != b->used);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoded whole, other;
    static char again[INPUT_MAX + 64];
    if (size > INPUT_MAX)
        return 0;
    decode((const char *)data, size, NULL, &whole);
    decode((const char *)data, size, data, &other);
    same(&whole, &other);
    if (whole.result < 0) {
        PN_BUG_ON(pn_h1_error_status(whole.result) < 400);
    } else if (whole.result == PN_H1_CHUNK_END) {
        size_t n = 0;
        if (whole.size > 0) {
            n = pn_h1_chunk_head(whole.size, again);
            memcpy(again + n, whole.body, whole.size);
            n += whole.size;
            memcpy(again + n, PN_H1_CHUNK_CRLF.p, PN_H1_CHUNK_CRLF.n);
            n += PN_H1_CHUNK_CRLF.n;
        }
        memcpy(again + n, PN_H1_CHUNK_FIN.p, PN_H1_CHUNK_FIN.n);
        n += PN_H1_CHUNK_FIN.n;
        decode(again, n, NULL, &other);
        PN_BUG_ON(other.used != n);
        other.used = whole.used;
        same(&whole, &other);
    }
    return 0;
}

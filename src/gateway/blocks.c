/* SPDX-License-Identifier: Apache-2.0 */
/* Clients repeat themselves: a keep-alive connection mostly sends the same header lines again. So the
 * environ that they made, with the peer's address in it, is kept as it was before the request's own
 * parts came in, and the next request with the very same bytes copies that.
 *
 * PN__BLOCKS connections have one at a time; the next one that wants takes the oldest's. Lines that
 * may carry a secret are never kept (pn__keep_value), nor long ones, nor those of a proxy that
 * change what else is in environ. A connection whose lines differ each time is left alone after a
 * few attempts. Owner, attached, the collector held off. */
#include "gateway/internal.h"

/* Where the header lines of X lie: equal bytes are parsed equally. */
static struct pn_str lines_of(const struct pn_exchange *x)
{
    const struct pn_header *last = &x->headers[x->header_count - 1];
    uint32_t begin = x->headers[0].name_off;
    return (struct pn_str){x->head_base + begin, last->value_off + last->value_len - begin};
}

PyObject *pn__block_copy(struct pn__peer *peer, const struct pn_exchange *x)
{
    struct pn__block *b = peer->block;
    if (!b || b->header_count != x->header_count)
        return NULL;
    if (!pn_str_eq(b->lines, lines_of(x)))
        return NULL;
    PyObject *env = PyDict_Copy(b->environ);
    if (pn_unlikely(!env))
        PyErr_Clear(); /* it is made anew, or fails there */
    peer->attempts = 0;
    return env;
}

static void empty(struct pn__block *b)
{
    b->owner->block = NULL;
    b->owner = NULL;
    free((char *)b->lines.p);
    b->lines = PN_STR_NONE;
    Py_CLEAR(b->environ); /* exact strs, and what the template keeps alive */
}

void pn__block_drop(struct pn__peer *peer)
{
    if (peer->block)
        empty(peer->block);
}

void pn__block_keep(struct pn_gateway *gw, struct pn__peer *peer, const struct pn_exchange *x,
                    PyObject *env)
{
    /* The first request of a connection may be its only one. */
    if (!peer->seen || peer->attempts >= PN__BLOCK_ATTEMPTS) {
        peer->seen = true;
        return;
    }
    struct pn_str lines = x->header_count ? lines_of(x) : PN_STR_NONE;
    if (!lines.n || lines.n > PN__BLOCK_TEXT_MAX)
        return;
    peer->attempts++;
    char *text = pn_try_malloc(lines.n);
    PyObject *copy = text ? PyDict_Copy(env) : NULL;
    if (!copy) {
        PyErr_Clear();
        free(text);
        return;
    }
    memcpy(text, lines.p, lines.n);
    struct pn__block *b = peer->block ? peer->block : &gw->blocks[gw->block_next++ % PN__BLOCKS];
    if (b->owner)
        empty(b);
    *b = (struct pn__block){peer, copy, {text, lines.n}, x->header_count};
    peer->block = b;
}

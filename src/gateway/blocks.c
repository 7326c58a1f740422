/* SPDX-License-Identifier: Apache-2.0 */
/* Clients repeat themselves, and resemble each other: what one browser sends differs between two
 * requests in a cookie or a referer, and from another browser's in a few values. So the environ that
 * a request's header lines made is kept, in a table whose slots are chosen by the names of the headers
 * and the User-Agent. The next request with these names copies it, and puts in what differs; one with
 * the very same bytes needs no look at its lines at all.
 *
 * Values that may be secrets (pn__keep_value) are neither kept nor compared: they are put in each
 * time. Requests with many or long lines, or with two lines of one name, are left alone. What comes to
 * a slot takes it over only when the one in it has not been of use for a while, so clients that differ
 * each time cost little. Owner, attached, the collector held off. */
#include "gateway/internal.h"

/* One header of a block. */
struct line {
    PyObject *key; /* owned; NULL: it does not come into environ */
    uint32_t value_off;
    uint16_t name_off;
    uint16_t name_len;
    uint16_t value_len;
    uint16_t id;
    bool secret;
};

/* One slot; text and lines are one allocation. */
struct pn__block {
    PyObject *environ; /* owned; NULL: the slot is free. Secrets are empty strings in it */
    PyObject *base;    /* borrowed of gw->servers: the template of environ */
    PyObject *address; /* borrowed of environ */
    PyObject *port;    /* borrowed of environ */
    struct line *lines;
    struct pn_str text; /* the lines with the secret values left out */
    uint16_t count;
    uint16_t misses; /* requests in a row that found something else here */
    bool secret;     /* one of the lines has a secret */
    bool forwarded;  /* there are headers of that family */
};

static struct pn__block *slot_of(struct pn_gateway *gw, const struct pn_exchange *x)
{
    uint64_t hash = x->header_count;
    for (const struct pn_header *h = x->headers; h < x->headers + x->header_count; h++) {
        hash = hash * 33 + h->id + h->name_len;
        if (h->id == PN_HEADER_USER_AGENT)
            hash ^= pn__hash_bytes(x->head_base + h->value_off, h->value_len);
    }
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return &gw->blocks[hash >> 32 & (PN__BLOCKS - 1)];
}

/* Whether B was made for the names of X's headers, in their order. */
static bool same_names(const struct pn__block *b, const struct pn__peer *peer,
                       const struct pn_exchange *x)
{
    if (!b->environ || b->count != x->header_count || b->base != peer->environ)
        return false;
    const struct pn_header *h = x->headers;
    for (const struct line *l = b->lines; l < b->lines + b->count; l++, h++) {
        if (l->id != h->id)
            return false;
        if (l->id == PN_HEADER_OTHER &&
            !pn_str_eq((struct pn_str){b->text.p + l->name_off, l->name_len}, pn_header_name(x, h)))
            return false;
    }
    return true;
}

/* Puts the values of X into ENV, a copy of B's: how many of those that B keeps were others, or -1 with
 * an exception. */
static int put_values(struct pn_gateway *gw, const struct pn__block *b, const struct pn_exchange *x,
                      PyObject *env)
{
    const struct pn_header *h = x->headers;
    int others = 0;
    for (const struct line *l = b->lines; l < b->lines + b->count; l++, h++) {
        struct pn_str value = pn_header_value(x, h);
        if (!l->key)
            continue;
        if (!l->secret) {
            if (pn_str_eq((struct pn_str){b->text.p + l->value_off, l->value_len}, value))
                continue;
            others++;
        }
        PyObject *str = pn__value(gw, l->id, value);
        if (pn_unlikely(!str))
            return -1;
        int rc = PyDict_SetItem(env, l->key, str);
        Py_DECREF(str);
        if (pn_unlikely(rc < 0))
            return -1;
    }
    return others;
}

static int put_peer(struct pn_gateway *gw, const struct pn__block *b, const struct pn__peer *peer,
                    PyObject *env)
{
    if (b->port != peer->port && PyDict_SetItem(env, gw->words[PN__W_REMOTE_PORT], peer->port) < 0)
        return -1;
    if (b->address != peer->address)
        return PyDict_SetItem(env, gw->words[PN__W_REMOTE_ADDR], peer->address);
    return 0;
}

PyObject *pn__block_copy(struct pn_gateway *gw, struct pn__peer *peer, const struct pn_exchange *x,
                         bool *forwarded)
{
    /* A new connection is often one more of the client that was here last. */
    struct pn__block *b = peer->block ? peer->block : gw->block_last;
    PyObject *env = NULL;
    if (pn_unlikely(x->header_count == 0))
        return NULL;
    int others = 0;
    if (b && b->environ && !b->secret && b->count == x->header_count && b->base == peer->environ &&
        pn_str_eq(b->text, pn__lines_text(x))) {
        env = PyDict_Copy(b->environ);
        peer->block = b;
    } else {
        b = peer->block = slot_of(gw, x);
        if (!same_names(b, peer, x))
            return NULL;
        env = PyDict_Copy(b->environ);
        others = pn_likely(env) ? put_values(gw, b, x, env) : -1;
    }
    if (pn_unlikely(!env || others < 0 || put_peer(gw, b, peer, env) < 0)) {
        PyErr_Clear(); /* it is made anew, or fails there */
        Py_XDECREF(env);
        return NULL;
    }
    *forwarded = b->forwarded;
    gw->block_last = b;
    if (pn_likely(others == 0))
        b->misses = 0;
    else
        pn__block_keep(gw, peer, x, env, b->forwarded);
    return env;
}

static void empty(struct pn__block *b)
{
    for (struct line *l = b->lines; l < b->lines + b->count; l++)
        Py_XDECREF(l->key);
    free(b->lines);
    Py_XDECREF(b->environ); /* exact strs, and what the template keeps alive */
    *b = (struct pn__block){0};
}

/* Bytes of X's lines without the secret values. */
static size_t text_size(const struct pn_exchange *x)
{
    size_t n = pn__lines_text(x).n;
    for (const struct pn_header *h = x->headers; h < x->headers + x->header_count; h++)
        n -= pn__keep_value[h->id] ? 0 : h->value_len;
    return n;
}

/* Writes X's lines to B, and their text to TEXT. In B's environ the secrets become empty. 0, or -1 with
 * an exception; then B can be emptied. */
static int take_lines(struct pn_gateway *gw, struct pn__block *b, const struct pn_exchange *x,
                      char *text)
{
    const struct pn_header *end = x->headers + x->header_count;
    uint32_t from = x->headers[0].name_off; /* what has not been copied yet */
    size_t at = 0;
    for (const struct pn_header *h = x->headers; h < end; h++) {
        struct line *l = &b->lines[b->count++];
        bool secret = !pn__keep_value[h->id];
        *l = (struct line){
            .name_off = (uint16_t)(at + (h->name_off - from)),
            .name_len = h->name_len,
            .value_off = (uint32_t)(at + (h->value_off - from)),
            .value_len = secret ? 0 : (uint16_t)h->value_len,
            .id = h->id,
            .secret = secret,
        };
        if (h->id == PN_HEADER_OTHER)
            l->key = pn__other_key(gw, pn_header_name(x, h));
        else if (h->id > PN_HEADER_UNUSUAL)
            l->key = Py_XNewRef(gw->keys[h->id]);
        if (secret || h + 1 == end) {
            size_t n = h->value_off + (secret ? 0 : h->value_len) - from;
            memcpy(text + at, x->head_base + from, n);
            at += n;
            from = h->value_off + h->value_len;
        }
        b->secret |= secret;
        if (h->id == PN_HEADER_OTHER && !l->key)
            return -1;
        if (secret && l->key && PyDict_SetItem(b->environ, l->key, gw->words[PN__W_EMPTY]) < 0)
            return -1;
    }
    b->text = (struct pn_str){text, at};
    return 0;
}

void pn__block_keep(struct pn_gateway *gw, struct pn__peer *peer, const struct pn_exchange *x,
                    PyObject *env, bool forwarded)
{
    struct pn__block *b = peer->block;
    if (!b || (b->environ && ++b->misses < PN__BLOCK_MISSES))
        return;
    size_t count = x->header_count;
    if (count == 0 || count > PN__BLOCK_LINES_MAX || text_size(x) > PN__BLOCK_TEXT_MAX)
        return;
    if (b->environ)
        empty(b);
    b->lines = pn_try_malloc(count * sizeof *b->lines + text_size(x));
    b->environ = b->lines ? PyDict_Copy(env) : NULL;
    if (!b->environ || take_lines(gw, b, x, (char *)(b->lines + count)) < 0) {
        PyErr_Clear();
        empty(b);
        return;
    }
    b->base = peer->environ;
    b->address = peer->address;
    b->port = peer->port;
    b->forwarded = forwarded;
}

void pn__blocks_init(struct pn_gateway *gw)
{
    gw->blocks = pn_xcalloc(PN__BLOCKS, sizeof *gw->blocks);
}

void pn__blocks_fini(struct pn_gateway *gw)
{
    for (unsigned i = 0; gw->blocks && i < PN__BLOCKS; i++)
        empty(&gw->blocks[i]);
    free(gw->blocks);
    gw->blocks = NULL;
    gw->block_last = NULL;
}

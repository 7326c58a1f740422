/* SPDX-License-Identifier: Apache-2.0 */
/* The headers of a request's scope. A client that asks again sends the same lines: what was made of them is
 * kept, in a table whose slots are chosen by the lines' bytes, and copied where they come again. Lines with
 * values that may be secrets (pn__keep_value) are not kept, nor are many or long ones. Owner, attached,
 * the collector held off. */
#include "gateway/asgi.h"

/* HOST, if there is one, stands instead of what the client's Host says. New. */
static PyObject *make_list(struct pn__asgi *asgi, const struct pn_exchange *x, struct pn_str host,
                           bool *forwarded, bool *secret)
{
    PyObject *list = PyList_New(x->header_count);
    Py_ssize_t n = 0;
    if (!list)
        return NULL;
    for (const struct pn_header *h = x->headers; h < x->headers + x->header_count; h++) {
        unsigned id = h->id;
        if (pn_unlikely(id == PN_HEADER_UNUSUAL))
            continue; /* X_Real_IP is taken for X-Real-IP by many */
        struct pn_str value = pn_header_value(x, h);
        if (pn_unlikely(id == PN_HEADER_HOST && host.n))
            value = host;
        PyObject *pair = pn__asgi_header(asgi, id, pn_header_name(x, h), value);
        if (pn_unlikely(!pair)) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, n++, pair);
        *secret |= !pn__keep_value[id];
        *forwarded |= id == PN_HEADER_FORWARDED ||
                      (id >= PN_HEADER_X_FORWARDED_FOR && id <= PN_HEADER_X_FORWARDED_SSL);
    }
    if (pn_unlikely(n < x->header_count)) {
        /* What follows is NULL: the list never had it. */
        Py_SET_SIZE((PyVarObject *)list, n);
    }
    return list;
}

static void empty(struct pn__asgi_lines *lines)
{
    Py_CLEAR(lines->list);
    free(lines->text);
    *lines = (struct pn__asgi_lines){0};
}

/* What is kept of LIST (borrowed) is a copy: an application may change its own. */
static void keep(struct pn__asgi_lines *lines, PyObject *list, struct pn_str text, bool forwarded)
{
    char *copy = pn_try_malloc(text.n);
    PyObject *own = copy ? PyList_GetSlice(list, 0, PyList_GET_SIZE(list)) : NULL;
    if (!own) {
        PyErr_Clear();
        free(copy);
        return;
    }
    empty(lines);
    memcpy(copy, text.p, text.n);
    *lines = (struct pn__asgi_lines){.list = own, .text = copy, .size = text.n};
    lines->forwarded = forwarded;
}

PyObject *pn__asgi_headers(struct pn__asgi *asgi, const struct pn_exchange *x, struct pn_str host,
                           bool *forwarded)
{
    bool secret = false;
    if (pn_unlikely(x->header_count == 0 || host.n))
        return make_list(asgi, x, host, forwarded, &secret);
    struct pn_str text = pn__lines_text(x);
    struct pn__asgi_lines *lines =
        &asgi->lines[pn__hash_bytes(text.p, text.n) & (PN__ASGI_LINES - 1)];
    if (pn_likely(lines->size == text.n && memcmp(lines->text, text.p, text.n) == 0)) {
        lines->misses = 0;
        *forwarded = lines->forwarded;
        return PyList_GetSlice(lines->list, 0, PyList_GET_SIZE(lines->list));
    }
    PyObject *list = make_list(asgi, x, host, forwarded, &secret);
    bool takes = !lines->list || ++lines->misses >= PN__BLOCK_MISSES;
    if (list && takes && !secret && x->header_count <= PN__BLOCK_LINES_MAX &&
        text.n <= PN__BLOCK_TEXT_MAX)
        keep(lines, list, text, *forwarded);
    return list;
}

void pn__asgi_headers_fini(struct pn__asgi *asgi)
{
    for (unsigned i = 0; i < PN__ASGI_LINES; i++)
        empty(&asgi->lines[i]);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of answers that come again. Many applications send header tuples that are constants of theirs: the very
 * same objects each time. Tuples of bytes cannot change, so what was found out about them holds, and the
 * wire may keep the text that it made of them (pn_exchange.fields_id).
 *
 * A table, whose slots are chosen by the tuples' addresses. Headers are kept, with references of ours, when the same
 * addresses have come twice in a row to a slot. Those of tuples that were made anew can do that, too: each that is kept and
 * brings nothing doubles the pause until the next. Values that are somebody's own are not kept. Home,
 * inside; no Python code runs here but that of objects that die. */
#include "gateway/asgi.h"

enum { PAUSE_MAX = 4096, MULTIPLIER_SHIFT = 58 };

static Py_ssize_t items_of(PyObject *headers, PyObject ***items)
{
    if (pn_unlikely(!PyList_CheckExact(headers) && !PyTuple_CheckExact(headers)))
        return 0;
    *items = PySequence_Fast_ITEMS(headers);
    return PySequence_Fast_GET_SIZE(headers);
}

static struct pn__asgi_head_slot *slot_of(struct pn__asgi *asgi, uint64_t key)
{
    PN_STATIC_ASSERT(PN__ASGI_HEADS == 1 << (64 - MULTIPLIER_SHIFT), "the key's upper bits");
    return &asgi->heads[key >> MULTIPLIER_SHIFT];
}

static bool is_same(const struct pn__asgi_head *head, PyObject **items, Py_ssize_t n)
{
    if (head->item_count != (size_t)n)
        return false;
    for (Py_ssize_t i = 0; i < n; i++)
        if (head->items[i] != items[i])
            return false;
    return true;
}

const struct pn__asgi_head *pn__asgi_head_find(struct pn__asgi *asgi, PyObject *headers,
                                               uint64_t *key)
{
    PyObject **items = NULL;
    Py_ssize_t n = items_of(headers, &items);
    *key = 0;
    if (pn_unlikely(n <= 0 || n > PN__ASGI_HEAD_ITEMS))
        return NULL;
    uint64_t k = (uint64_t)n;
    for (Py_ssize_t i = 0; i < n; i++)
        k = (k ^ (uintptr_t)items[i]) * UINT64_C(0x9e3779b97f4a7c15);
    struct pn__asgi_head_slot *slot = slot_of(asgi, k);
    if (pn_likely(slot->head && is_same(slot->head, items, n))) {
        slot->misses = 0;
        asgi->head_pause_next = 0;
        return slot->head;
    }
    if (asgi->head_pause > 0) {
        asgi->head_pause--;
        return NULL;
    }
    if (slot->key != k)
        slot->key = k;
    else if (!slot->head || ++slot->misses >= PN__BLOCK_MISSES)
        *key = k;
    return NULL;
}

/* Whether ITEM is (name, value) for good, and may be kept. */
static bool can_keep(PyObject *item)
{
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 2)
        return false;
    PyObject *name = PyTuple_GET_ITEM(item, 0);
    PyObject *value = PyTuple_GET_ITEM(item, 1);
    if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value) ||
        PyBytes_GET_SIZE(value) > PN__VALUE_MAX)
        return false;
    switch (pn_header_id_of(PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name))) {
    case PN_HEADER_CONTENT_LENGTH:
    case PN_HEADER_CONTENT_TYPE:
    case PN_HEADER_CONTENT_ENCODING:
    case PN_HEADER_CONTENT_LANGUAGE:
    case PN_HEADER_CACHE_CONTROL:
    case PN_HEADER_CONNECTION:
    case PN_HEADER_PRAGMA:
    case PN_HEADER_SERVER:
        return true;
    default:
        return false;
    }
}

static void empty(struct pn__asgi_head_slot *slot)
{
    struct pn__asgi_head *head = slot->head;
    slot->head = NULL;
    for (unsigned i = 0; head && i < head->item_count; i++)
        Py_DECREF(head->items[i]);
    free(head);
}

void pn__asgi_head_keep(struct pn__asgi *asgi, PyObject *headers, uint64_t key)
{
    const struct pn__answer *a = &asgi->answer;
    struct pn__asgi_head_slot *slot = slot_of(asgi, key);
    PyObject **items = NULL;
    Py_ssize_t n = items_of(headers, &items);
    if (n <= 0 || n > PN__ASGI_HEAD_ITEMS || a->count > (size_t)n)
        return; /* the list has changed */
    for (Py_ssize_t i = 0; i < n; i++)
        if (!can_keep(items[i]))
            return;
    struct pn__asgi_head *head = pn_try_malloc(sizeof *head);
    if (!head)
        return;
    head->id = ++asgi->head_id;
    head->length = a->length;
    head->flags = a->flags;
    head->item_count = (unsigned)n;
    head->field_count = (unsigned)a->count;
    memcpy(head->fields, a->fields, a->count * sizeof *a->fields);
    for (Py_ssize_t i = 0; i < n; i++)
        head->items[i] = Py_NewRef(items[i]);
    asgi->head_pause = asgi->head_pause_next;
    asgi->head_pause_next = (uint16_t)pn_min_size(asgi->head_pause_next * 2U + 1, PAUSE_MAX);
    empty(slot);
    slot->misses = 0;
    slot->head = head;
}

void pn__asgi_heads_fini(struct pn__asgi *asgi)
{
    for (unsigned i = 0; i < PN__ASGI_HEADS; i++)
        empty(&asgi->heads[i]);
}

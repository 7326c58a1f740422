/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of what waits to be sent: references to bytes objects, and where each of them goes on. See aio_out.h. */
#include "gateway/aio_out.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

void pn__out_clear(struct pn__out *out)
{
    struct pn__out old = *out;
    *out = (struct pn__out){0};
    for (size_t i = 0; i < old.count; i++)
        Py_DECREF(old.pieces[old.first + i].owner); /* exact bytes: that runs no code */
    free(old.pieces);
}

static int make_room(struct pn__out *out)
{
    if (out->first + out->count < out->capacity)
        return 0;
    if (out->first > 0 && out->first >= out->capacity / 2) {
        memmove(out->pieces, out->pieces + out->first, out->count * sizeof(*out->pieces));
        out->first = 0;
        return 0;
    }
    size_t capacity = pn_max_size(out->capacity * 2, 4);
    struct pn__piece *pieces = pn_try_realloc(out->pieces, capacity * sizeof(*pieces));
    if (!pieces) {
        PyErr_NoMemory();
        return -1;
    }
    out->pieces = pieces;
    out->capacity = capacity;
    return 0;
}

int pn__out_append(struct pn__out *out, PyObject *owner, const char *data, size_t size)
{
    if (make_room(out) < 0) {
        Py_DECREF(owner);
        return -1;
    }
    out->pieces[out->first + out->count] = (struct pn__piece){owner, data, size};
    out->count++;
    out->bytes += size;
    return 0;
}

void pn__out_consume(struct pn__out *out, size_t n)
{
    PN_ASSERT(n <= out->bytes);
    out->bytes -= n;
    while (out->count > 0) {
        struct pn__piece *p = &out->pieces[out->first];
        if (n < p->size) {
            p->data += n;
            p->size -= n;
            return;
        }
        n -= p->size;
        Py_DECREF(p->owner);
        out->first++;
        out->count--;
    }
    out->first = 0;
    if (out->capacity > PN__OUT_PIECES_KEEP)
        pn__out_clear(out);
}

int pn__out_add(struct pn__out *out, PyObject *data, const char *bytes, size_t size, size_t sent)
{
    if (PyBytes_CheckExact(data))
        return pn__out_append(out, Py_NewRef(data), bytes + sent, size - sent);
    PyObject *copy = PyBytes_FromStringAndSize(bytes + sent, (Py_ssize_t)(size - sent));
    if (!copy)
        return -1;
    return pn__out_append(out, copy, PyBytes_AS_STRING(copy), size - sent);
}

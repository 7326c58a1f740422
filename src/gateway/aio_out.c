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

int pn__out_join(struct pn__out *out, size_t max)
{
    size_t size = 0;
    size_t n = 0;
    while (n < out->count && size + out->pieces[out->first + n].size <= max)
        size += out->pieces[out->first + n++].size;
    if (n < 2)
        return 0;
    PyObject *all = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!all)
        return -1;
    char *to = PyBytes_AS_STRING(all);
    for (size_t i = 0; i < n; i++) {
        struct pn__piece *p = &out->pieces[out->first + i];
        memcpy(to, p->data, p->size);
        to += p->size;
        Py_DECREF(p->owner);
    }
    out->first += n - 1;
    out->count -= n - 1;
    out->pieces[out->first] = (struct pn__piece){all, PyBytes_AS_STRING(all), size};
    return 0;
}

static int queue_line(struct pn__out *out, PyObject *line)
{
    if (PyBytes_CheckExact(line)) {
        if (PyBytes_GET_SIZE(line) == 0)
            return 0;
        return pn__out_append(out, Py_NewRef(line), PyBytes_AS_STRING(line),
                              (size_t)PyBytes_GET_SIZE(line));
    }
    Py_buffer view;
    if (PyObject_GetBuffer(line, &view, PyBUF_SIMPLE) < 0)
        return -1;
    int rc = view.len > 0 ? pn__out_add(out, line, view.buf, (size_t)view.len, 0) : 0;
    PyBuffer_Release(&view);
    return rc;
}

int pn__out_add_lines(struct pn__out *out, PyObject *lines)
{
    struct pn__out fresh = {0};
    Py_ssize_t n = PySequence_Fast_GET_SIZE(lines);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *line = Py_NewRef(PySequence_Fast_GET_ITEM(lines, i)); /* a buffer may run code */
        int rc = queue_line(&fresh, line);
        Py_DECREF(line);
        if (rc < 0 || n != PySequence_Fast_GET_SIZE(lines)) {
            if (rc == 0)
                PyErr_SetString(PyExc_RuntimeError, "the list changed while it was written");
            pn__out_clear(&fresh);
            return -1;
        }
    }
    if (out->count == 0) {
        pn__out_clear(out);
        *out = fresh;
        return 0;
    }
    int rc = 0;
    for (size_t i = 0; i < fresh.count; i++) {
        const struct pn__piece *p = &fresh.pieces[i];
        if (rc == 0)
            rc = pn__out_append(out, p->owner, p->data, p->size);
        else
            Py_DECREF(p->owner);
    }
    free(fresh.pieces);
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* An exception as text for the log: as CPython's traceback module has it, but that nothing in it is a
 * control character, and that a message of several lines cannot pass for lines of the log: what a
 * client sends may be in it. Lines of the log begin in the first column; a message's lines after its
 * first, and notes, are indented by four spaces. */
#include <stdlib.h>

#include "base/mem.h"
#include "gateway/internal.h"

struct text {
    char *p;
    size_t n, capacity;
    bool failed; /* no memory */
};

static void append(struct text *t, const char *p, size_t n)
{
    if (!t->failed && n > t->capacity - t->n) {
        size_t capacity = 2 * t->capacity + n + 1024;
        char *grown = pn_try_realloc(t->p, capacity);
        t->failed = !grown;
        t->p = grown ? grown : t->p;
        t->capacity = grown ? capacity : t->capacity;
    }
    if (t->failed)
        return;
    memcpy(t->p + t->n, p, n);
    t->n += n;
}

/* Line ends and tabs are layout. The controls from U+0080 to U+009F, of which terminals make as much
 * as of ESC, are two bytes of UTF-8. */
static void defuse(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            p[i] = '?';
        else if (c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0)
            p[i] = p[i + 1] = '?';
    }
}

/* How far it is in what traceback gives piece by piece: a header, frames and source (which begin with
 * a space, as all of an ExceptionGroup does), the exception, its notes; and again, when it is chained. */
enum place {
    PLACE_HEAD = 0,
    PLACE_NOTES = 1,
};

/* What stands between two chained exceptions. A note is cut into lines, so it is never one. */
static bool is_link(struct pn_str piece)
{
    return pn_str_eq(piece, PN_STR("\nThe above exception was the direct cause of the following "
                                   "exception:\n\n")) ||
           pn_str_eq(piece, PN_STR("\nDuring handling of the above exception, another exception "
                                   "occurred:\n\n"));
}

static void append_piece(struct text *t, struct pn_str piece, enum place *place)
{
    bool is_own = piece.n && piece.p[0] != ' ';
    bool indent_first = is_own && *place == PLACE_NOTES;
    if (*place == PLACE_NOTES && is_link(piece)) {
        *place = PLACE_HEAD;
        append(t, piece.p, piece.n);
        return;
    }
    if (is_own && !pn_str_eq(piece, PN_STR("Traceback (most recent call last):\n")))
        *place = PLACE_NOTES;
    for (size_t at = 0; at < piece.n;) {
        const char *line = piece.p + at;
        const char *end = memchr(line, '\n', piece.n - at);
        size_t n = end ? (size_t)(end - line) + 1 : piece.n - at;
        bool indent = at ? is_own || line[0] != ' ' : indent_first;
        if (indent && line[0] != '\n')
            append(t, "    ", 4);
        append(t, line, n);
        at += n;
    }
}

/* True when each of PIECES is in T. */
static bool append_all(struct text *t, PyObject *pieces)
{
    enum place place = PLACE_HEAD;
    Py_ssize_t count = PyList_Check(pieces) ? PyList_GET_SIZE(pieces) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *piece = PyList_GET_ITEM(pieces, i); /* borrowed */
        PyObject *bytes = PyUnicode_AsEncodedString(piece, "utf-8", "backslashreplace");
        if (!bytes)
            return false;
        append_piece(t, (struct pn_str){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)},
                     &place);
        Py_DECREF(bytes);
    }
    return count > 0 && !t->failed;
}

PyObject *pn_gateway_format_exception(PyObject *exc)
{
    struct text t = {0};
    PyObject *bytes = NULL;
    PyObject *module = PyImport_ImportModule("traceback");
    PyObject *pieces = module ? PyObject_CallMethod(module, "format_exception", "O", exc) : NULL;
    if (pieces && append_all(&t, pieces)) {
        defuse(t.p, t.n);
        bytes = PyBytes_FromStringAndSize(t.p, (Py_ssize_t)t.n);
    }
    free(t.p);
    Py_XDECREF(pieces);
    Py_XDECREF(module);
    PyErr_Clear();
    return bytes;
}

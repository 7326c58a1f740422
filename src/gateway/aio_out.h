/* SPDX-License-Identifier: Apache-2.0 */
/* What a transport has yet to send: pieces of bytes objects, first in first out. It belongs to its transport; a zeroed
 * one is empty. Attached; nothing here runs Python code, if it is not said. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum {
    PN__OUT_PIECES_KEEP = 64, /* room for so many pieces is kept when the queue is empty */
};

/* A part of a bytes object. */
struct pn__piece {
    PyObject *owner; /* owned; an exact bytes object */
    const char *data;
    size_t size;
};

/* Bytes on their way out, first in first out. */
struct pn__out {
    struct pn__piece *pieces;
    size_t first;
    size_t count;
    size_t capacity;
    size_t bytes;
};

/* OWNER's reference becomes the queue's, or goes when this fails. DATA lies in OWNER. 0, or -1 with MemoryError. */
int pn__out_append(struct pn__out *out, PyObject *owner, const char *data, size_t size);
/* What of DATA, which is SIZE BYTES, has not been sent, from its byte SENT on: bytes objects are kept, everything else,
 * which may change, is copied. 0 or -1. */
int pn__out_add(struct pn__out *out, PyObject *data, const char *bytes, size_t size, size_t sent);
/* The lines, bytes-like objects, of LINES, which PySequence_Fast returned: all of them, or none. Runs Python code. 0 or -1. */
int pn__out_add_lines(struct pn__out *out, PyObject *lines);
/* As many of the first pieces as are MAX bytes together become one. 0 or -1. */
int pn__out_join(struct pn__out *out, size_t max);
/* The first N bytes have left. */
void pn__out_consume(struct pn__out *out, size_t n);
void pn__out_clear(struct pn__out *out);

/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of ours, lent for one call to a function that takes a buffer (a bytes-like object): no copy, and nothing is
 * made for it. One window a loop is enough, since whom it is lent to looks through it before anybody else can. It
 * shows nothing between calls. It belongs to the loop. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

struct pn__window {
    PyObject ob_base;
    char *data;
    Py_ssize_t size;
    bool writable;
};

/* New, or NULL with an exception. */
PyObject *pn__window_make_type(PyObject *module);
/* An empty one of TYPE: new, or NULL. */
PyObject *pn__window_new(PyTypeObject *type);

static inline void pn__window_open(PyObject *window, const char *data, size_t size, bool writable)
{
    struct pn__window *w = (struct pn__window *)window;
    w->data = (char *)(uintptr_t)data;
    w->size = (Py_ssize_t)size;
    w->writable = writable;
}

static inline void pn__window_shut(PyObject *window)
{
    pn__window_open(window, NULL, 0, false);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of an answer, out of a message. One answer serves all channels: it is filled, given to the wire,
 * which copies it, and emptied, all on home and inside. */
#include "gateway/asgi.h"

static int add(struct pn__answer *a, PyObject *name, PyObject *value, const char *what)
{
    struct pn_field field = {
        {PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)},
        {PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)},
    };
    int goes = pn__answer_judge(a, field.name, field.value, what);
    if (pn_unlikely(goes <= 0))
        return goes;
    a->fields[a->count] = field;
    a->held[2 * a->count] = Py_NewRef(name);
    a->held[2 * a->count + 1] = Py_NewRef(value);
    a->count++;
    return 0;
}

/* Whether ITEM is a pair of bytes in a plain tuple or list: what frameworks send. Runs no Python code. */
static bool is_plain(PyObject *item)
{
    if (!PyTuple_CheckExact(item) && !PyList_CheckExact(item))
        return false;
    PyObject **pair = PySequence_Fast_ITEMS(item);
    return PySequence_Fast_GET_SIZE(item) == 2 && PyBytes_CheckExact(pair[0]) &&
           PyBytes_CheckExact(pair[1]);
}

/* Takes HEADERS where they and all their items are plain: 1, or -1 with an exception; 0: they are not. */
static int take_plain(struct pn__answer *a, PyObject *headers, const char *what)
{
    if (!PyList_CheckExact(headers) && !PyTuple_CheckExact(headers))
        return 0;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(headers);
    PyObject **items = PySequence_Fast_ITEMS(headers); /* borrowed */
    for (Py_ssize_t i = 0; i < n; i++)
        if (pn_unlikely(!is_plain(items[i])))
            return 0;
    int rc = pn__answer_reserve(a, (size_t)n, what);
    for (Py_ssize_t i = 0; rc == 0 && i < n; i++) {
        PyObject **pair = PySequence_Fast_ITEMS(items[i]);
        rc = add(a, pair[0], pair[1], what);
    }
    return rc < 0 ? -1 : 1;
}

/* The two items of one header; 0, or -1 with an exception. *HELD: new, keeps them alive. */
static int split(PyObject *item, const char *what, PyObject *out[2], PyObject **held)
{
    PyObject *pair = PySequence_Fast(item, "");
    if (!pair || PySequence_Fast_GET_SIZE(pair) != 2) {
        if (!pair && !PyErr_ExceptionMatches(PyExc_TypeError))
            return -1;
        Py_XDECREF(pair);
        PyErr_Format(PyExc_TypeError, "%s: headers must be [name, value], not %.200R", what, item);
        return -1;
    }
    out[0] = PySequence_Fast_GET_ITEM(pair, 0); /* borrowed */
    out[1] = PySequence_Fast_GET_ITEM(pair, 1);
    *held = pair;
    return 0;
}

static int take_field(struct pn__answer *a, PyObject *item, const char *what)
{
    PyObject *pair[2];
    PyObject *held = NULL;
    if (split(item, what, pair, &held) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        if (pn_unlikely(!PyBytes_Check(pair[i]))) {
            PyErr_Format(PyExc_TypeError, "%s: a header's %s must be bytes, not %.100s", what,
                         i ? "value" : "name", Py_TYPE(pair[i])->tp_name);
            Py_DECREF(held);
            return -1;
        }
    }
    int rc = add(a, pair[0], pair[1], what);
    Py_DECREF(held);
    return rc;
}

int pn__asgi_take_headers(struct pn__asgi *asgi, PyObject *headers, const char *what)
{
    struct pn__answer *a = &asgi->answer;
    if (pn_unlikely(a->count > 0)) /* of one that an exception left behind */
        pn__answer_clear(a);
    int taken = take_plain(a, headers, what);
    if (pn_likely(taken != 0))
        return taken < 0 ? -1 : 0;
    PyObject *all = PySequence_Tuple(headers); /* items cannot change under us */
    if (!all) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s: headers must be an iterable, not %.100s", what,
                         Py_TYPE(headers)->tp_name);
        return -1;
    }
    Py_ssize_t n = PyTuple_GET_SIZE(all);
    int rc = pn__answer_reserve(a, (size_t)n, what);
    for (Py_ssize_t i = 0; rc == 0 && i < n; i++)
        rc = take_field(a, PyTuple_GET_ITEM(all, i), what);
    Py_DECREF(all);
    return rc;
}

void pn__asgi_raise_refused(struct pn__asgi *asgi)
{
    struct pn__answer *a = &asgi->answer;
    size_t i = pn__answer_bad_field(a);
    if (i < a->count)
        PyErr_Format(PyExc_ValueError, "the response header %R: %R cannot be sent", a->held[2 * i],
                     a->held[2 * i + 1]);
    else
        PyErr_Format(PyExc_ValueError, "a response with status %u cannot be sent", a->status);
}

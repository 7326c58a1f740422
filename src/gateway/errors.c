/* SPDX-License-Identifier: Apache-2.0 */
/* wsgi.errors: a text stream into the server's log.
 *
 * Whole lines leave in one piece, so that lines of several requests never mix: a request's unfinished
 * line is kept with the request, and ended with it. One object serves all requests; written to outside
 * of one (another thread of the application) it gathers in the gateway. */
#include "gateway/internal.h"

struct errors {
    PyObject_HEAD struct pn_gateway *gw;
};

/* The last thing of a line that never ended. */
void pn__errors_finish(struct pn_gateway *gw, struct pn_bytes *line)
{
    if (!pn_bytes_len(line))
        return;
    if (pn_bytes_append(line, "\n", 1) == 0) {
        struct pn_str text = pn_bytes_view(line);
        pn_log_raw(gw->log, text.p, text.n);
    }
    pn_bytes_free(line);
}

static int add(struct pn_gateway *gw, struct pn_bytes *line, struct pn_str text)
{
    const char *last = text.n ? memrchr(text.p, '\n', text.n) : NULL;
    size_t whole = last ? (size_t)(last - text.p) + 1 : 0;
    if (whole && !pn_bytes_len(line)) {
        pn_log_raw(gw->log, text.p, whole);
    } else if (whole) {
        if (pn_bytes_append(line, text.p, whole) < 0)
            return -1;
        struct pn_str lines = pn_bytes_view(line);
        pn_log_raw(gw->log, lines.p, lines.n);
        pn_bytes_free(line);
    }
    if (whole == text.n)
        return 0;
    if (pn_bytes_append(line, text.p + whole, text.n - whole) < 0)
        return -1;
    if (pn_bytes_len(line) > PN__ERRORS_LINE_MAX)
        pn__errors_finish(gw, line);
    return 0;
}

static struct pn_bytes *current_line(struct pn_gateway *gw)
{
    struct pn__request *r = pn__request_current();
    return r ? &r->errors_line : &gw->errors_line;
}

/* 0, or -1 with an exception. */
static int write_text(struct pn_gateway *gw, PyObject *o)
{
    if (!PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "wsgi.errors takes str, not %.100s", Py_TYPE(o)->tp_name);
        return -1;
    }
    PyObject *bytes = PyUnicode_AsEncodedString(o, "utf-8", "backslashreplace");
    if (!bytes)
        return -1;
    struct pn_str text = {PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    int rc = add(gw, current_line(gw), text);
    Py_DECREF(bytes);
    if (rc < 0)
        PyErr_NoMemory();
    return rc;
}

static PyObject *errors_write(PyObject *self, PyObject *text)
{
    if (write_text(((struct errors *)self)->gw, text) < 0)
        return NULL;
    return PyLong_FromSsize_t(PyUnicode_GetLength(text));
}

static PyObject *errors_writelines(PyObject *self, PyObject *lines)
{
    PyObject *it = PyObject_GetIter(lines);
    PyObject *line;
    if (!it)
        return NULL;
    while ((line = PyIter_Next(it))) {
        int rc = write_text(((struct errors *)self)->gw, line);
        Py_DECREF(line);
        if (rc < 0)
            break;
    }
    Py_DECREF(it);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* Writes what is whole. The begin of a line stays: another process's lines would tear it. */
static PyObject *errors_flush(PyObject *self, PyObject *unused)
{
    (void)unused;
    pn_log_flush(((struct errors *)self)->gw->log);
    Py_RETURN_NONE;
}

static PyObject *errors_writable(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_TRUE;
}

static PyObject *errors_isatty(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_FALSE;
}

static PyObject *errors_encoding(PyObject *self, void *unused)
{
    (void)self;
    (void)unused;
    return PyUnicode_FromString("utf-8");
}

static void errors_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef errors_methods[] = {
    {"write", errors_write, METH_O, "write(text): whole lines go to the server's log"},
    {"writelines", errors_writelines, METH_O, "writelines(lines): write() for each"},
    {"flush", errors_flush, METH_NOARGS, "flush(): writes the log's pending lines"},
    {"writable", errors_writable, METH_NOARGS, "True"},
    {"isatty", errors_isatty, METH_NOARGS, "False"},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef errors_getset[] = {
    {"encoding", errors_encoding, NULL, "utf-8", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot errors_slots[] = {
    {Py_tp_dealloc, errors_free},
    {Py_tp_methods, errors_methods},
    {Py_tp_getset, errors_getset},
    {Py_tp_doc, (void *)"wsgi.errors: text into the server's log"},
    {0, NULL},
};
static PyType_Spec errors_spec = {
    .name = "pelton.Errors",
    .basicsize = sizeof(struct errors),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = errors_slots,
};

int pn__errors_init(struct pn_gateway *gw)
{
    gw->types.errors = (PyTypeObject *)PyType_FromSpec(&errors_spec);
    if (!gw->types.errors)
        return -1;
    struct errors *e = PyObject_New(struct errors, gw->types.errors);
    if (!e)
        return -1;
    e->gw = gw;
    gw->errors = (PyObject *)e;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* wsgi.file_wrapper: FileWrapper(filelike, block_size). An iterable of blocks; one that the
 * application returns as it is goes out by sendfile when it wraps a plain file.
 *
 * Plain means: exactly io.FileIO, or exactly io.BufferedReader/BufferedRandom over exactly io.FileIO,
 * perhaps in one of tempfile's wrappers. Others have fileno() as well, and it may not be what read()
 * gives (gzip.GzipFile): they are read. */
#include <sys/stat.h>

#include "gateway/internal.h"

enum { BLOCK_SIZE_DEFAULT = 64 * 1024 };

struct file_wrapper {
    PyObject_HEAD PyObject *file; /* owned */
    Py_ssize_t block;             /* bytes */
};

static PyObject *wrapper_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"filelike", (char *)"block_size", NULL};
    PyObject *file; /* borrowed */
    Py_ssize_t block = BLOCK_SIZE_DEFAULT;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|n:FileWrapper", names, &file, &block))
        return NULL;
    struct file_wrapper *w = (struct file_wrapper *)type->tp_alloc(type, 0);
    if (!w)
        return NULL;
    w->file = Py_NewRef(file);
    w->block = block > 0 ? block : BLOCK_SIZE_DEFAULT;
    return (PyObject *)w;
}

static int wrapper_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct file_wrapper *)self)->file);
    return 0;
}

static int wrapper_clear(PyObject *self)
{
    Py_CLEAR(((struct file_wrapper *)self)->file);
    return 0;
}

static void wrapper_free(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    wrapper_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *wrapper_next(PyObject *self)
{
    struct file_wrapper *w = (struct file_wrapper *)self;
    if (!w->file)
        return NULL;
    PyObject *data = PyObject_CallMethod(w->file, "read", "n", w->block);
    if (!data)
        return NULL;
    Py_ssize_t n = PyObject_Size(data);
    if (n <= 0)
        Py_CLEAR(data); /* the end, or an exception out of PyObject_Size */
    return data;
}

static PyObject *wrapper_close(PyObject *self, PyObject *unused)
{
    struct file_wrapper *w = (struct file_wrapper *)self;
    PyObject *close = NULL;
    (void)unused;
    if (!w->file)
        Py_RETURN_NONE;
    PyObject *name = PyUnicode_InternFromString("close");
    int found = name ? pn_pycompat_get_optional_attr(w->file, name, &close) : -1;
    Py_XDECREF(name);
    if (found < 0)
        return NULL;
    if (!found)
        Py_RETURN_NONE;
    PyObject *result = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    return result;
}

static PyObject *wrapper_getattro(PyObject *self, PyObject *name)
{
    PyObject *found = PyObject_GenericGetAttr(self, name);
    struct file_wrapper *w = (struct file_wrapper *)self;
    if (found || !w->file || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return found;
    /* Middleware asks for fileno, seek and the like. */
    PyErr_Clear();
    return PyObject_GetAttr(w->file, name);
}

static PyMethodDef wrapper_methods[] = {
    {"close", wrapper_close, METH_NOARGS, "close(): closes the wrapped file"},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot wrapper_slots[] = {
    {Py_tp_new, wrapper_new},
    {Py_tp_dealloc, wrapper_free},
    {Py_tp_traverse, wrapper_traverse},
    {Py_tp_clear, wrapper_clear},
    {Py_tp_methods, wrapper_methods},
    {Py_tp_getattro, wrapper_getattro},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wrapper_next},
    {Py_tp_doc, (void *)"FileWrapper(filelike, block_size=65536): a file as a WSGI response"},
    {0, NULL},
};
static PyType_Spec wrapper_spec = {
    .name = "pelton.FileWrapper",
    .basicsize = sizeof(struct file_wrapper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wrapper_slots,
};

int pn__file_wrapper_init(struct pn_gateway *gw)
{
    gw->types.file_wrapper = (PyTypeObject *)PyType_FromSpec(&wrapper_spec);
    return gw->types.file_wrapper ? 0 : -1;
}

/* True when O's type is MODULE.NAME itself; the module is not imported for it. */
static bool is_exactly(PyObject *o, const char *module, const char *name)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    PyObject *m = PyDict_GetItemString(modules, module);
    PyObject *type = m ? PyObject_GetAttrString(m, name) : NULL;
    bool is = type && (PyObject *)Py_TYPE(o) == type;
    Py_XDECREF(type);
    PyErr_Clear();
    return is;
}

/* New, or NULL without an exception. */
static PyObject *attribute(PyObject *o, const char *name)
{
    PyObject *value = PyObject_GetAttrString(o, name);
    PyErr_Clear();
    return value;
}

/* The plain file in O: new; NULL without an exception when there is none. */
static PyObject *plain_file(PyObject *o)
{
    PyObject *file = Py_NewRef(o);
    if (is_exactly(file, "tempfile", "_TemporaryFileWrapper")) {
        PyObject *inner = attribute(file, "file");
        Py_SETREF(file, inner);
        if (!file)
            return NULL;
    }
    PyObject *raw = NULL;
    if (is_exactly(file, "io", "BufferedReader") || is_exactly(file, "io", "BufferedRandom"))
        raw = attribute(file, "raw");
    else if (is_exactly(file, "io", "FileIO"))
        raw = Py_NewRef(file);
    bool plain = raw && is_exactly(raw, "io", "FileIO");
    Py_XDECREF(raw);
    if (!plain)
        Py_CLEAR(file);
    return file;
}

/* Where the application stands in FILE: tell(), since a buffer reads ahead. -1 without an exception. */
static off_t position(PyObject *file)
{
    PyObject *done = PyObject_CallMethod(file, "flush", NULL); /* BufferedRandom may hold writes */
    PyObject *where = done ? PyObject_CallMethod(file, "tell", NULL) : NULL;
    Py_XDECREF(done);
    long long at = where ? PyLong_AsLongLong(where) : -1;
    Py_XDECREF(where);
    PyErr_Clear();
    return (off_t)at;
}

int pn__file_wrapper_range(struct pn_gateway *gw, PyObject *o, int *fd, off_t *offset,
                           int64_t *size)
{
    if (Py_TYPE(o) != gw->types.file_wrapper || !((struct file_wrapper *)o)->file)
        return 0;
    PyObject *file = plain_file(((struct file_wrapper *)o)->file);
    if (!file)
        return 0;
    struct stat st;
    *offset = position(file);
    *fd = *offset >= 0 ? PyObject_AsFileDescriptor(file) : -1;
    Py_DECREF(file);
    PyErr_Clear();
    if (*fd < 0 || fstat(*fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    *size = st.st_size > *offset ? st.st_size - *offset : 0;
    return 1;
}

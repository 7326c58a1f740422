/* SPDX-License-Identifier: Apache-2.0 */
/* The Python side of the log's streams: two small types, text and bytes, over one set of lines.
 *
 * They are made by pn_logstream_install only and live as long as Python refers to them, which may be
 * longer than the log's sinks: see pn_logstream_detach. */
#include "gateway/logstream.h"

/* After Python.h, which it needs. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <structmember.h>
#include <unistd.h>

#include "gateway/logstream_lines.h"

struct pn_logstream {
    PyObject_HEAD PyObject *dict;
    PyObject *buffer;   /* the text stream's: its twin for bytes; NULL in that one */
    PyObject *name;     /* "<stdout>" */
    PyObject *encoding; /* the text stream's */
    PyObject *errors;
    struct pn__lines *lines; /* shared by the twins */
    bool utf8;               /* what encoding says */
    bool closed;
};

static struct pn_logstream *as_stream(PyObject *self)
{
    return (struct pn_logstream *)(void *)self;
}

static bool is_usable(const struct pn_logstream *stream)
{
    if (!stream->closed)
        return true;
    PyErr_SetString(PyExc_ValueError, "I/O operation on closed file.");
    return false;
}

/* --- Writing ---------------------------------------------------------------------------------- */

/* Every text that is no plain UTF-8: another encoding, or lone surrogates, by the stream's rules. */
static int write_encoded(struct pn_logstream *stream, PyObject *text)
{
    const char *encoding = PyUnicode_AsUTF8(stream->encoding);
    const char *errors = encoding ? PyUnicode_AsUTF8(stream->errors) : NULL;
    PyObject *bytes = errors ? PyUnicode_AsEncodedString(text, encoding, errors) : NULL;
    if (!bytes)
        return -1;
    pn__lines_write(stream->lines, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    Py_DECREF(bytes);
    return 0;
}

static int write_text(struct pn_logstream *stream, PyObject *text)
{
    if (stream->utf8) {
        Py_ssize_t n;
        const char *p = PyUnicode_AsUTF8AndSize(text, &n);
        if (p) {
            pn__lines_write(stream->lines, p, (size_t)n);
            return 0;
        }
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return -1;
        PyErr_Clear();
    }
    return write_encoded(stream, text);
}

static PyObject *text_write(PyObject *self, PyObject *text)
{
    struct pn_logstream *stream = as_stream(self);
    if (!PyUnicode_Check(text))
        return PyErr_Format(PyExc_TypeError, "write() argument must be str, not %.100s",
                            Py_TYPE(text)->tp_name);
    if (!is_usable(stream) || write_text(stream, text) < 0)
        return NULL;
    return PyLong_FromSsize_t(PyUnicode_GET_LENGTH(text));
}

static PyObject *bytes_write(PyObject *self, PyObject *data)
{
    struct pn_logstream *stream = as_stream(self);
    Py_buffer view;
    if (!is_usable(stream) || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t n = view.len;
    pn__lines_write(stream->lines, view.buf, (size_t)n);
    PyBuffer_Release(&view);
    return PyLong_FromSsize_t(n);
}

static PyObject *stream_writelines(PyObject *self, PyObject *items)
{
    bool is_text = as_stream(self)->buffer != NULL;
    PyObject *it = PyObject_GetIter(items);
    if (!it)
        return NULL;
    PyObject *item;
    while ((item = PyIter_Next(it))) {
        PyObject *done = is_text ? text_write(self, item) : bytes_write(self, item);
        Py_DECREF(item);
        if (!done)
            break;
        Py_DECREF(done);
    }
    Py_DECREF(it);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *stream_flush(PyObject *self, PyObject *unused PN_UNUSED)
{
    if (!is_usable(as_stream(self)))
        return NULL;
    pn__lines_flush(as_stream(self)->lines);
    Py_RETURN_NONE;
}

/* The descriptor stays open, as with the interpreter's own standard streams. */
static PyObject *stream_close(PyObject *self, PyObject *unused PN_UNUSED)
{
    struct pn_logstream *stream = as_stream(self);
    if (!stream->closed) {
        pn__lines_flush(stream->lines);
        stream->closed = true;
    }
    Py_RETURN_NONE;
}

/* --- What else a stream is asked -------------------------------------------------------------- */

static PyObject *stream_fileno(PyObject *self, PyObject *unused PN_UNUSED)
{
    if (!is_usable(as_stream(self)))
        return NULL;
    return PyLong_FromLong(pn__lines_fd(as_stream(self)->lines));
}

static PyObject *stream_isatty(PyObject *self, PyObject *unused PN_UNUSED)
{
    if (!is_usable(as_stream(self)))
        return NULL;
    return PyBool_FromLong(isatty(pn__lines_fd(as_stream(self)->lines)));
}

static PyObject *stream_yes(PyObject *self, PyObject *unused PN_UNUSED)
{
    if (!is_usable(as_stream(self)))
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *stream_no(PyObject *self, PyObject *unused PN_UNUSED)
{
    if (!is_usable(as_stream(self)))
        return NULL;
    Py_RETURN_FALSE;
}

static PyObject *stream_enter(PyObject *self, PyObject *unused PN_UNUSED)
{
    return is_usable(as_stream(self)) ? Py_NewRef(self) : NULL;
}

static PyObject *stream_exit(PyObject *self, PyObject *args PN_UNUSED)
{
    return stream_close(self, NULL);
}

/* read, seek, truncate and their like. */
static PyObject *stream_refuse(PyObject *self PN_UNUSED, PyObject *args PN_UNUSED)
{
    PyObject *io = PyImport_ImportModule("io");
    PyObject *error = io ? PyObject_GetAttrString(io, "UnsupportedOperation") : NULL;
    if (error)
        PyErr_SetString(error, "the server's log takes text in order, and gives none back");
    Py_XDECREF(error);
    Py_XDECREF(io);
    return NULL;
}

static void set_encoding(struct pn_logstream *stream, PyObject *encoding)
{
    Py_XSETREF(stream->encoding, Py_NewRef(encoding));
    const char *name = PyUnicode_AsUTF8(encoding);
    stream->utf8 = name && (strcasecmp(name, "utf-8") == 0 || strcasecmp(name, "utf8") == 0);
    if (!name)
        PyErr_Clear();
}

/* Buffering is the server's business: those two are taken and change nothing. */
static PyObject *text_reconfigure(PyObject *self, PyObject *args, PyObject *kwargs)
{
    /* The API takes them without const up to 3.12, and never writes. */
    static char *names[] = {(char *)"encoding",       (char *)"errors",        (char *)"newline",
                            (char *)"line_buffering", (char *)"write_through", NULL};
    struct pn_logstream *stream = as_stream(self);
    PyObject *encoding = Py_None, *errors = Py_None, *ignored = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOO:reconfigure", names, &encoding, &errors,
                                     &ignored, &ignored, &ignored))
        return NULL;
    if ((encoding != Py_None && !PyUnicode_Check(encoding)) ||
        (errors != Py_None && !PyUnicode_Check(errors)))
        return PyErr_Format(PyExc_TypeError, "encoding and errors must be str or None");
    if (encoding != Py_None) {
        set_encoding(stream, encoding);
        /* As TextIOWrapper does: a new encoding comes with strict errors. */
        if (errors == Py_None) {
            PyObject *strict = PyUnicode_InternFromString("strict");
            if (!strict)
                return NULL;
            Py_SETREF(stream->errors, strict);
        }
    }
    if (errors != Py_None)
        Py_SETREF(stream->errors, Py_NewRef(errors));
    Py_RETURN_NONE;
}

/* The usual idiom wraps the bytes in a TextIOWrapper of the application's own. */
static PyObject *text_detach(PyObject *self, PyObject *unused PN_UNUSED)
{
    struct pn_logstream *stream = as_stream(self);
    if (!is_usable(stream))
        return NULL;
    pn__lines_flush(stream->lines);
    stream->closed = true;
    return Py_NewRef(stream->buffer);
}

static PyObject *get_closed(PyObject *self, void *unused PN_UNUSED)
{
    return PyBool_FromLong(as_stream(self)->closed);
}

static PyObject *get_none(PyObject *self PN_UNUSED, void *unused PN_UNUSED)
{
    Py_RETURN_NONE;
}

static PyObject *get_true(PyObject *self PN_UNUSED, void *unused PN_UNUSED)
{
    Py_RETURN_TRUE;
}

static PyObject *get_false(PyObject *self PN_UNUSED, void *unused PN_UNUSED)
{
    Py_RETURN_FALSE;
}

static PyObject *get_mode(PyObject *self, void *unused PN_UNUSED)
{
    return PyUnicode_FromString(as_stream(self)->buffer ? "w" : "wb");
}

static PyObject *get_raw(PyObject *self, void *unused PN_UNUSED)
{
    return Py_NewRef(self);
}

static PyObject *get_object(PyObject *self, void *closure)
{
    PyObject *value = *(PyObject **)(void *)((char *)self + (size_t)closure);
    return Py_NewRef(value ? value : Py_None);
}

static PyObject *stream_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<%s name=%R>", Py_TYPE(self)->tp_name, as_stream(self)->name);
}

/* --- The types -------------------------------------------------------------------------------- */

static int stream_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct pn_logstream *stream = as_stream(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(stream->dict);
    Py_VISIT(stream->buffer);
    return 0;
}

static int stream_clear(PyObject *self)
{
    Py_CLEAR(as_stream(self)->dict);
    return 0;
}

static void stream_dealloc(PyObject *self)
{
    struct pn_logstream *stream = as_stream(self);
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    pn__lines_unref(stream->lines);
    Py_CLEAR(stream->dict);
    Py_CLEAR(stream->buffer);
    Py_CLEAR(stream->name);
    Py_CLEAR(stream->encoding);
    Py_CLEAR(stream->errors);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* What both types have. */
#define STREAM_METHODS                                                                            \
    {"writelines", stream_writelines, METH_O, NULL}, {"flush", stream_flush, METH_NOARGS, NULL},  \
        {"close", stream_close, METH_NOARGS, NULL}, {"fileno", stream_fileno, METH_NOARGS, NULL}, \
        {"isatty", stream_isatty, METH_NOARGS, NULL}, {"readable", stream_no, METH_NOARGS, NULL}, \
        {"writable", stream_yes, METH_NOARGS, NULL}, {"seekable", stream_no, METH_NOARGS, NULL},  \
        {"read", stream_refuse, METH_VARARGS, NULL},                                              \
        {"readline", stream_refuse, METH_VARARGS, NULL},                                          \
        {"readlines", stream_refuse, METH_VARARGS, NULL},                                         \
        {"seek", stream_refuse, METH_VARARGS, NULL}, {"tell", stream_refuse, METH_VARARGS, NULL}, \
        {"truncate", stream_refuse, METH_VARARGS, NULL},                                          \
        {"__enter__", stream_enter, METH_NOARGS, NULL},                                           \
    {                                                                                             \
        "__exit__", stream_exit, METH_VARARGS, NULL                                               \
    }

static PyMethodDef text_methods[] = {
    {"write", text_write, METH_O, NULL},
    STREAM_METHODS,
    {"detach", text_detach, METH_NOARGS, NULL},
    {"reconfigure", (PyCFunction)(void (*)(void))text_reconfigure, METH_VARARGS | METH_KEYWORDS,
     NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef bytes_methods[] = {
    {"write", bytes_write, METH_O, NULL},
    STREAM_METHODS,
    {NULL, NULL, 0, NULL},
};

#define OBJECT_AT(field) get_object, NULL, NULL, (void *)offsetof(struct pn_logstream, field)

static PyGetSetDef text_getset[] = {
    {"closed", get_closed, NULL, NULL, NULL},
    {"mode", get_mode, NULL, NULL, NULL},
    {"newlines", get_none, NULL, NULL, NULL},
    {"line_buffering", get_true, NULL, NULL, NULL},
    {"write_through", get_false, NULL, NULL, NULL},
    {"name", OBJECT_AT(name)},
    {"buffer", OBJECT_AT(buffer)},
    {"encoding", OBJECT_AT(encoding)},
    {"errors", OBJECT_AT(errors)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyGetSetDef bytes_getset[] = {
    {"closed", get_closed, NULL, NULL, NULL},
    {"mode", get_mode, NULL, NULL, NULL},
    {"raw", get_raw, NULL, NULL, NULL},
    {"name", OBJECT_AT(name)},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef stream_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(struct pn_logstream, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot text_slots[] = {
    {Py_tp_traverse, stream_traverse}, {Py_tp_clear, stream_clear},
    {Py_tp_dealloc, stream_dealloc},   {Py_tp_repr, stream_repr},
    {Py_tp_members, stream_members},   {Py_tp_methods, text_methods},
    {Py_tp_getset, text_getset},       {0, NULL},
};

static PyType_Slot bytes_slots[] = {
    {Py_tp_traverse, stream_traverse}, {Py_tp_clear, stream_clear},
    {Py_tp_dealloc, stream_dealloc},   {Py_tp_repr, stream_repr},
    {Py_tp_members, stream_members},   {Py_tp_methods, bytes_methods},
    {Py_tp_getset, bytes_getset},      {0, NULL},
};

enum { STREAM_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION };

static PyType_Spec text_spec = {
    .name = "pelton._pelton.LogStream",
    .basicsize = sizeof(struct pn_logstream),
    .flags = STREAM_FLAGS,
    .slots = text_slots,
};

static PyType_Spec bytes_spec = {
    .name = "pelton._pelton.LogBuffer",
    .basicsize = sizeof(struct pn_logstream),
    .flags = STREAM_FLAGS,
    .slots = bytes_slots,
};

/* isinstance(sys.stdout, io.TextIOBase) is a question that programs ask. */
static PyTypeObject *make_type(PyObject *module, PyType_Spec *spec, const char *base_name)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    PyObject *io = type ? PyImport_ImportModule("io") : NULL;
    PyObject *base = io ? PyObject_GetAttrString(io, base_name) : NULL;
    PyObject *done = base ? PyObject_CallMethod(base, "register", "O", type) : NULL;
    if (!done)
        Py_CLEAR(type);
    Py_XDECREF(done);
    Py_XDECREF(base);
    Py_XDECREF(io);
    return (PyTypeObject *)(void *)type;
}

int pn_logstream_init(PyObject *module, struct pn_logstream_state *state)
{
    state->text_type = make_type(module, &text_spec, "TextIOBase");
    state->bytes_type = state->text_type ? make_type(module, &bytes_spec, "BufferedIOBase") : NULL;
    return state->bytes_type ? 0 : -1;
}

int pn_logstream_traverse(struct pn_logstream_state *state, visitproc visit, void *arg)
{
    Py_VISIT(state->text_type);
    Py_VISIT(state->bytes_type);
    Py_VISIT(state->out);
    Py_VISIT(state->err);
    return 0;
}

void pn_logstream_clear(struct pn_logstream_state *state)
{
    Py_CLEAR(state->text_type);
    Py_CLEAR(state->bytes_type);
    Py_CLEAR(state->out);
    Py_CLEAR(state->err);
}

/* --- Installation ----------------------------------------------------------------------------- */

/* A string attribute of what stands in sys now, or FALLBACK. New reference. */
static PyObject *inherited(PyObject *old, const char *attribute, const char *fallback)
{
    PyObject *value = old && old != Py_None ? PyObject_GetAttrString(old, attribute) : NULL;
    if (value && PyUnicode_Check(value))
        return value;
    Py_XDECREF(value);
    PyErr_Clear();
    return PyUnicode_FromString(fallback);
}

/* An empty stream of TYPE over LINES; takes its own reference of them. */
static struct pn_logstream *stream_new(PyTypeObject *type, struct pn__lines *lines,
                                       const char *name)
{
    struct pn_logstream *stream = PyObject_GC_New(struct pn_logstream, type);
    if (!stream)
        return NULL;
    stream->dict = stream->buffer = stream->encoding = stream->errors = NULL;
    stream->utf8 = stream->closed = false;
    stream->lines = pn__lines_ref(lines);
    stream->name = PyUnicode_FromString(name);
    PyObject_GC_Track(stream);
    if (stream->name)
        return stream;
    Py_DECREF(stream);
    return NULL;
}

static struct pn_logstream *stream_pair_new(struct pn_logstream_state *state,
                                            struct pn__lines *lines, const char *name,
                                            PyObject *old, const char *errors)
{
    struct pn_logstream *text = stream_new(state->text_type, lines, name);
    if (!text)
        return NULL;
    PyObject *encoding = inherited(old, "encoding", "utf-8");
    text->buffer = (PyObject *)stream_new(state->bytes_type, lines, name);
    text->errors = inherited(old, "errors", errors);
    if (encoding)
        set_encoding(text, encoding);
    Py_XDECREF(encoding);
    if (encoding && text->buffer && text->errors)
        return text;
    Py_DECREF(text);
    return NULL;
}

struct place {
    int fd;
    const char *name;
    const char *attribute;
    const char *original;
    const char *errors;
};

/* *SLOT keeps a reference for detach. A descriptor that is closed is left alone. */
static int install_one(struct pn_logstream_state *state, const struct place *place,
                       struct pn_log *log, struct pn_logstream **slot)
{
    if (fcntl(place->fd, F_GETFD) < 0)
        return 0;
    PyObject *old = PySys_GetObject(place->attribute); /* borrowed */
    if (old && old != Py_None) {
        PyObject *done = PyObject_CallMethod(old, "flush", NULL);
        Py_XDECREF(done);
        PyErr_Clear();
    }
    bool at_once = place->fd == STDERR_FILENO || isatty(place->fd);
    struct pn__lines *lines = pn__lines_new(place->fd, log, at_once);
    if (!lines) {
        PyErr_NoMemory();
        return -1;
    }
    struct pn_logstream *text = stream_pair_new(state, lines, place->name, old, place->errors);
    pn__lines_unref(lines);
    if (!text)
        return -1;
    Py_XSETREF(*slot, text);
    if (PySys_SetObject(place->attribute, (PyObject *)text) < 0 ||
        PySys_SetObject(place->original, (PyObject *)text) < 0)
        return -1;
    return 0;
}

int pn_logstream_install(struct pn_logstream_state *state, struct pn_log *out, struct pn_log *err)
{
    static const struct place places[] = {
        {STDOUT_FILENO, "<stdout>", "stdout", "__stdout__", "strict"},
        {STDERR_FILENO, "<stderr>", "stderr", "__stderr__", "backslashreplace"},
    };
    if (install_one(state, &places[0], out, &state->out) < 0)
        return -1;
    return install_one(state, &places[1], err, &state->err);
}

void pn_logstream_detach(struct pn_logstream_state *state)
{
    if (state->out)
        pn__lines_detach(state->out->lines);
    if (state->err)
        pn__lines_detach(state->err->lines);
}

void pn_logstream_after_fork_child(struct pn_logstream_state *state)
{
    if (state->out)
        pn__lines_after_fork_child(state->out->lines);
    if (state->err)
        pn__lines_after_fork_child(state->err->lines);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* start_response and the write callable that it returns (PEP 3333).
 *
 * start_response reads status and headers at once: what is wrong with them is raised where the
 * application's traceback shows it, and a list that is changed afterwards changes nothing. It keeps
 * references to the strings and views of their bytes, which the wire takes as they are; whether a
 * value holds CR, LF or NUL is the wire's one check (pn_exchange_head).
 *
 * Both objects are bound to one request, and unbound at its end. One that nobody else refers to is
 * used again. */
#include "gateway/internal.h"
#include "http/http_token.h"

struct writer {
    PyObject_HEAD vectorcallfunc vectorcall;
    struct pn__request *r; /* NULL: the request is over */
};

struct start_response {
    PyObject_HEAD vectorcallfunc vectorcall;
    struct pn__request *r; /* NULL: the request is over */
    struct writer *writer; /* owned */
};

/* --- The answer --- */

void pn__answer_init(struct pn__answer *a)
{
    a->status = 0;
    a->flags = 0;
    a->length = -1;
    a->count = 0;
    a->capacity = PN__FIELDS_INLINE;
    a->status_text = NULL;
    a->reason = PN_STR_NONE;
    a->fields = a->inline_fields;
    a->held = a->inline_held;
}

void pn__answer_clear(struct pn__answer *a)
{
    for (size_t i = 0; i < 2 * a->count; i++)
        Py_DECREF(a->held[i]);
    a->count = 0;
    a->status = 0;
    a->flags = 0;
    a->length = -1;
    Py_CLEAR(a->status_text);
    if (pn_unlikely(a->fields != a->inline_fields)) {
        PyMem_Free(a->fields);
        PyMem_Free(a->held);
        a->fields = a->inline_fields;
        a->held = a->inline_held;
        a->capacity = PN__FIELDS_INLINE;
    }
}

int pn__answer_reserve(struct pn__answer *a, size_t count, const char *what)
{
    if (count <= a->capacity)
        return 0;
    if (count > PN_RESPONSE_HEADERS_MAX) {
        PyErr_Format(PyExc_ValueError, "%s: %zu headers, at most %d are sent", what, count,
                     (int)PN_RESPONSE_HEADERS_MAX);
        return -1;
    }
    struct pn_field *fields = PyMem_Malloc(count * sizeof *fields);
    PyObject **held = PyMem_Malloc(2 * count * sizeof *held);
    if (!fields || !held) {
        PyMem_Free(fields);
        PyMem_Free(held);
        PyErr_NoMemory();
        return -1;
    }
    a->fields = fields;
    a->held = held;
    a->capacity = count;
    return 0;
}

size_t pn__answer_bad_field(const struct pn__answer *a)
{
    size_t i;
    for (i = 0; i < a->count; i++) {
        const struct pn_field *f = &a->fields[i];
        bool bad = f->name.n == 0;
        for (size_t k = 0; k < f->name.n && !bad; k++)
            bad = !pn_http_is(f->name.p[k], PN_HTTP_C_TOKEN);
        if (bad || !pn_http_is_field_value(f->value))
            break;
    }
    return i;
}

/* The bytes of str O as latin-1, in *VIEW: a new reference to the exact str that they lie in. NULL
 * with an exception; WHAT names it. Runs no Python code. */
static PyObject *view_of(PyObject *o, const char *what, struct pn_str *view)
{
    PyObject *s;
    if (pn_likely(PyUnicode_CheckExact(o))) {
        s = Py_NewRef(o);
    } else if (PyUnicode_Check(o)) {
        s = PyUnicode_FromObject(o); /* a copy: dropping it can run no __del__ */
        if (!s)
            return NULL;
    } else {
        return PyErr_Format(PyExc_TypeError, "start_response: %s must be str, not %.100s", what,
                            Py_TYPE(o)->tp_name);
    }
    if (pn_unlikely(pn_pycompat_unicode_ready(s) < 0)) {
        Py_DECREF(s);
        return NULL;
    }
    if (pn_unlikely(PyUnicode_KIND(s) != PyUnicode_1BYTE_KIND)) {
        PyErr_Format(PyExc_ValueError, "start_response: %s has characters beyond latin-1: %.200R",
                     what, s);
        Py_DECREF(s);
        return NULL;
    }
    *view = (struct pn_str){(const char *)PyUnicode_1BYTE_DATA(s), (size_t)PyUnicode_GET_LENGTH(s)};
    return s;
}

static int take_status(struct pn__answer *a, PyObject *status)
{
    struct pn_str s;
    PyObject *text = view_of(status, "the status", &s);
    if (!text)
        return -1;
    unsigned code = 0;
    bool good = s.n >= 3 && (s.n == 3 || s.p[3] == ' ');
    for (size_t i = 0; good && i < 3; i++) {
        good = s.p[i] >= '0' && s.p[i] <= '9';
        code = code * 10 + (unsigned)(s.p[i] - '0');
    }
    if (pn_unlikely(!good || code < 200)) {
        PyErr_Format(PyExc_ValueError,
                     "start_response: the status must be like '200 OK', from 200 on, not %.200R",
                     text);
        Py_DECREF(text);
        return -1;
    }
    a->status = code;
    a->status_text = text;
    a->reason = s.n > 4 ? (struct pn_str){s.p + 4, s.n - 4} : PN_STR_NONE;
    return 0;
}

/* What the application says of framing. 1: the field goes out, 0: it does not, -1 with an exception. */
static int judge_length(struct pn__answer *a, struct pn_str value, const char *what)
{
    uint64_t length;
    if (pn_str_to_u64(value, INT64_MAX, &length) < 0) {
        PyErr_Format(PyExc_ValueError, "%s: Content-Length is no number: '%.100s'", what, value.p);
        return -1;
    }
    if (a->flags & PN_HEAD_HAS_LENGTH) {
        if (a->length == (int64_t)length)
            return 0;
        PyErr_Format(PyExc_ValueError, "%s: two different Content-Length headers", what);
        return -1;
    }
    a->flags |= PN_HEAD_HAS_LENGTH;
    a->length = (int64_t)length;
    return 1;
}

/* Few lengths only belong to names that mean something to the server. Hop-by-hop headers are not an
 * application's to send (PEP 3333); programs that pass on what another server said send them all the
 * same, and the connection here is another one: they are left out. */
int pn__answer_judge(struct pn__answer *a, struct pn_str name, struct pn_str value,
                     const char *what)
{
    switch (name.n) {
    case 2:
        return !pn_str_eq_nocase(name, PN_STR("te"));
    case 4:
        if (pn_str_eq_nocase(name, PN_STR("date")))
            a->flags |= PN_HEAD_HAS_DATE;
        return 1;
    case 6:
        if (pn_str_eq_nocase(name, PN_STR("server")))
            a->flags |= PN_HEAD_HAS_SERVER;
        return 1;
    case 7:
        return !pn_str_eq_nocase(name, PN_STR("upgrade"));
    case 10:
        if (pn_str_eq_nocase(name, PN_STR("connection"))) {
            if (pn_str_eq_nocase(value, PN_STR("close")))
                a->flags |= PN_HEAD_CLOSE;
            return 0;
        }
        return !pn_str_eq_nocase(name, PN_STR("keep-alive"));
    case 14:
        if (pn_str_eq_nocase(name, PN_STR("content-length")))
            return judge_length(a, value, what);
        return 1;
    case 16:
        return !pn_str_eq_nocase(name, PN_STR("proxy-connection"));
    case 17:
        return !pn_str_eq_nocase(name, PN_STR("transfer-encoding"));
    default:
        return 1;
    }
}

static int take_field(struct pn__answer *a, PyObject *item)
{
    if (pn_unlikely(!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2)) {
        PyErr_Format(PyExc_TypeError,
                     "start_response: headers must be (name, value) tuples, not %.200R", item);
        return -1;
    }
    struct pn_field field;
    PyObject *name = view_of(PyTuple_GET_ITEM(item, 0), "a header name", &field.name);
    if (pn_unlikely(!name))
        return -1;
    PyObject *value = view_of(PyTuple_GET_ITEM(item, 1), "a header value", &field.value);
    if (pn_unlikely(!value)) {
        Py_DECREF(name);
        return -1;
    }
    int goes = pn__answer_judge(a, field.name, field.value, "start_response");
    if (pn_unlikely(goes <= 0)) {
        Py_DECREF(name);
        Py_DECREF(value);
        return goes;
    }
    a->fields[a->count] = field;
    a->held[2 * a->count] = name;
    a->held[2 * a->count + 1] = value;
    a->count++;
    return 0;
}

static int take_answer(struct pn__answer *a, PyObject *status, PyObject *headers)
{
    if (pn_unlikely(!PyList_Check(headers) && !PyTuple_Check(headers))) {
        PyErr_Format(PyExc_TypeError, "start_response: headers must be a list, not %.100s",
                     Py_TYPE(headers)->tp_name);
        return -1;
    }
    if (take_status(a, status) < 0)
        return -1;
    Py_ssize_t n = PySequence_Fast_GET_SIZE(headers);
    if (pn_unlikely(pn__answer_reserve(a, (size_t)n, "start_response") < 0))
        return -1;
    /* take_field's repr of a wrong item runs code, and returns an error: the list is not looked at
     * again. */
    PyObject **items = PySequence_Fast_ITEMS(headers); /* borrowed */
    for (Py_ssize_t i = 0; i < n; i++)
        if (pn_unlikely(take_field(a, items[i]) < 0))
            return -1;
    return 0;
}

/* --- The objects --- */

/* The request, when the calling core is the one that carries it; else NULL with an exception. */
static struct pn__request *bound(struct pn__request *r, const char *what)
{
    if (pn_unlikely(!r)) {
        PyErr_Format(PyExc_RuntimeError, "%s was called after the end of its request", what);
        return NULL;
    }
    return r;
}

/* PEP 3333: after the first call only an error may replace the answer, and when the head has gone
 * that error is raised. 0: take the new answer; -1 with an exception. */
static int check_again(struct pn__request *r, PyObject *exc_info)
{
    if (!exc_info || exc_info == Py_None) {
        if (!r->answer.status)
            return 0;
        PyErr_SetString(PyExc_AssertionError,
                        "start_response was called a second time without exc_info");
        return -1;
    }
    if (!PyTuple_Check(exc_info) || PyTuple_GET_SIZE(exc_info) != 3) {
        PyErr_SetString(PyExc_TypeError,
                        "start_response: exc_info must be what sys.exc_info() says");
        return -1;
    }
    if (r->head_sent) {
        PyObject *exc = PyTuple_GET_ITEM(exc_info, 1); /* borrowed */
        if (!PyExceptionInstance_Check(exc))
            PyErr_SetString(PyExc_TypeError, "start_response: exc_info has no exception");
        else
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc); /* with its traceback */
        return -1;
    }
    pn__answer_clear(&r->answer);
    return 0;
}

/* status and headers by name: rare, but exc_info=... is not. */
static int arguments(struct pn_gateway *gw, PyObject *const *args, Py_ssize_t n, PyObject *names,
                     PyObject *out[3])
{
    static const enum pn__word words[] = {PN__W_STATUS, PN__W_RESPONSE_HEADERS, PN__W_EXC_INFO,
                                          PN__W_HEADERS};
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < n && i < 3; i++)
        out[i] = args[i];
    bool good = n <= 3;
    for (Py_ssize_t i = 0; good && i < named; i++) {
        size_t at = 0;
        while (at < PN_ARRAY_LEN(words) &&
               PyUnicode_Compare(PyTuple_GET_ITEM(names, i), gw->words[words[at]]) != 0)
            at++;
        good = at < PN_ARRAY_LEN(words);
        at = at == 3 ? 1 : at;
        good = good && !out[at];
        if (good)
            out[at] = args[n + i];
    }
    if (good && out[0] && out[1])
        return 0;
    PyErr_SetString(PyExc_TypeError, "start_response(status, response_headers, exc_info=None)");
    return -1;
}

static PyObject *call_start_response(PyObject *self, PyObject *const *args, size_t nargsf,
                                     PyObject *names)
{
    struct start_response *s = (struct start_response *)self;
    Py_ssize_t n = PyVectorcall_NARGS(nargsf);
    struct pn__request *r = bound(s->r, "start_response");
    if (pn_unlikely(!r))
        return NULL;
    PyObject *given[3] = {NULL, NULL, NULL}; /* borrowed */
    if (pn_likely(n == 2 && !names)) {
        given[0] = args[0];
        given[1] = args[1];
    } else if (arguments(r->gw, args, n, names, given) < 0) {
        return NULL;
    }
    if (pn_unlikely(given[2] || r->answer.status) && check_again(r, given[2]) < 0)
        return NULL;
    if (pn_unlikely(take_answer(&r->answer, given[0], given[1]) < 0)) {
        pn__answer_clear(&r->answer);
        return NULL;
    }
    return Py_NewRef((PyObject *)s->writer);
}

static PyObject *call_write(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    struct writer *w = (struct writer *)self;
    struct pn__request *r = bound(w->r, "write");
    if (!r)
        return NULL;
    if (PyVectorcall_NARGS(nargsf) != 1 || (names && PyTuple_GET_SIZE(names)) ||
        !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "write takes one bytes object");
        return NULL;
    }
    PyObject *data = Py_NewRef(args[0]);
    int rc = pn__response_write(r, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    Py_DECREF(data);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type); /* heap types are counted by their objects */
}

static void free_start_response(PyObject *self)
{
    Py_XDECREF((PyObject *)((struct start_response *)self)->writer);
    free_object(self);
}

static PyMemberDef writer_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct writer, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot writer_slots[] = {
    {Py_tp_dealloc, free_object},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, writer_members},
    {Py_tp_doc, (void *)"write(data: bytes): sends data of a WSGI response at once"},
    {0, NULL},
};
static PyType_Spec writer_spec = {
    .name = "pelton.Write",
    .basicsize = sizeof(struct writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = writer_slots,
};

static PyMemberDef start_response_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct start_response, vectorcall), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot start_response_slots[] = {
    {Py_tp_dealloc, free_start_response},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, start_response_members},
    {Py_tp_doc, (void *)"start_response(status, response_headers, exc_info=None) of PEP 3333"},
    {0, NULL},
};
static PyType_Spec start_response_spec = {
    .name = "pelton.StartResponse",
    .basicsize = sizeof(struct start_response),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = start_response_slots,
};

int pn__start_response_init(struct pn_gateway *gw)
{
    gw->types.writer = (PyTypeObject *)PyType_FromSpec(&writer_spec);
    gw->types.start_response = (PyTypeObject *)PyType_FromSpec(&start_response_spec);
    return gw->types.writer && gw->types.start_response ? 0 : -1;
}

static struct writer *new_writer(struct pn_gateway *gw)
{
    struct writer *w = PyObject_New(struct writer, gw->types.writer);
    if (!w)
        return NULL;
    w->vectorcall = call_write;
    w->r = NULL;
    return w;
}

static struct start_response *new_start_response(struct pn_gateway *gw)
{
    struct start_response *s = PyObject_New(struct start_response, gw->types.start_response);
    if (!s)
        return NULL;
    s->vectorcall = call_start_response;
    s->r = NULL;
    s->writer = NULL;
    return s;
}

PyObject *pn__start_response_new(struct pn__request *r)
{
    struct pn_gateway *gw = r->gw;
    struct start_response *s;
    if (pn_likely(gw->free_start_response_count))
        s = (struct start_response *)gw->free_start_response[--gw->free_start_response_count];
    else
        s = new_start_response(gw);
    if (pn_unlikely(!s))
        return NULL;
    if (pn_unlikely(!s->writer)) {
        s->writer = new_writer(gw);
        if (!s->writer) {
            Py_DECREF((PyObject *)s);
            return NULL;
        }
    }
    s->r = r;
    s->writer->r = r;
    return (PyObject *)s;
}

void pn__start_response_release(struct pn_gateway *gw, PyObject *o)
{
    struct start_response *s = (struct start_response *)o;
    s->r = NULL;
    s->writer->r = NULL;
    if (pn_unlikely(Py_REFCNT((PyObject *)s->writer) != 1))
        Py_CLEAR(s->writer); /* the application keeps it; it is unbound */
    if (pn_likely(Py_REFCNT(o) == 1 && gw->free_start_response_count < PN__FREE_OBJECTS_MAX &&
                  !gw->stopped))
        gw->free_start_response[gw->free_start_response_count++] = o;
    else
        Py_DECREF(o);
}

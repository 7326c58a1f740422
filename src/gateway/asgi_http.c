/* SPDX-License-Identifier: Apache-2.0 */
/* receive() and send() of http: messages to and from the exchange, in the order that the specification has
 * (asgi.readthedocs.io, HTTP & WebSocket, 2.5).
 *
 *   STARTING --start--> BODY --body with more_body false--> [TRAILERS -->] COMPLETE
 *
 * The head goes to the wire at once, which checks it and holds it until the first bytes, so an application
 * hears at its own line of a header that cannot be sent. */
#include <errno.h>
#include <unistd.h>

#include "gateway/asgi.h"

enum { FILE_READ_SIZE = 64 * 1024 };

/* --- receive ----------------------------------------------------------------------------------- */

/* Steals BODY, which may be NULL after a failure. */
static enum pn__asgi_step give_body(struct pn__channel *c, PyObject *body, bool more,
                                    PyObject **result)
{
    struct pn__asgi *asgi = c->gw->asgi;
    PyObject *message = body ? PyDict_Copy(asgi->request) : NULL;
    if (message && (PyDict_SetItem(message, asgi->words[PN__A_BODY], body) < 0 ||
                    (more && PyDict_SetItem(message, asgi->words[PN__A_MORE_BODY], Py_True) < 0)))
        Py_CLEAR(message);
    Py_XDECREF(body);
    *result = message;
    return message ? PN__ASGI_DONE : PN__ASGI_FAIL;
}

static enum pn__asgi_step copy_of(PyObject *message, PyObject **result)
{
    *result = PyDict_Copy(message);
    return *result ? PN__ASGI_DONE : PN__ASGI_FAIL;
}

/* What is here of the body. */
static enum pn__asgi_step next_part(struct pn__channel *c, PyObject **result)
{
    struct pn_exchange *x = c->x;
    struct pn_str view;
    PyObject *body = NULL;
    bool more = false;
    struct pn_core *core = pn__asgi_own();
    enum pn_body have = pn_exchange_body_peek(x, &view);
    if (have == PN_BODY_DATA) {
        body = PyBytes_FromStringAndSize(view.p, (Py_ssize_t)view.n);
        if (body)
            pn_exchange_body_consume(x, view.n);
        /* Of a body without a length only the next look can tell. */
        more = x->content_length < 0 || x->received_body_size < (uint64_t)x->content_length;
    } else if (have == PN_BODY_ERROR) {
        c->why = x->cancel;
        pn__asgi_release_exchange(c);
    }
    pn__asgi_disown(core);
    switch (have) {
    case PN_BODY_DATA:
        c->body_over = !more;
        return give_body(c, body, more, result);
    case PN_BODY_END:
        c->body_over = true;
        return copy_of(c->gw->asgi->request, result);
    case PN_BODY_AGAIN:
        return PN__ASGI_WAIT;
    case PN_BODY_ERROR:
        break;
    }
    return copy_of(c->gw->asgi->no_more, result);
}

enum pn__asgi_step pn__asgi_http_receive(struct pn__channel *c, PyObject **result)
{
    struct pn__asgi *asgi = c->gw->asgi;
    if (pn_unlikely(!c->x || c->cut))
        return copy_of(asgi->no_more, result);
    if (pn_likely(!c->body_over)) {
        if (pn_unlikely(c->x->has_body))
            return next_part(c, result);
        c->body_over = true;
        return copy_of(asgi->request, result);
    }
    if (!c->peer_ended)
        return PN__ASGI_WAIT;
    c->told_end = true;
    return copy_of(asgi->no_more, result);
}

/* --- send: the exchange ------------------------------------------------------------------------ */

/* Inside. The wire's refusal RC as an exception. */
static enum pn__asgi_step raise_error(struct pn__channel *c, int rc)
{
    if (rc == -ENOMEM)
        PyErr_NoMemory();
    else if (rc == -EMSGSIZE)
        PyErr_SetString(PyExc_RuntimeError, "Response content longer than Content-Length");
    else if (!c->x || rc == -EPIPE)
        pn__asgi_raise_gone(c);
    else
        PyErr_Format(PyExc_OSError, "the response cannot be sent: %s", strerror(-rc));
    return PN__ASGI_FAIL;
}

/* Owner. After a call that failed with RC. */
static int failed(struct pn__channel *c, int rc)
{
    if (c->x && c->x->state == PN_EXCHANGE_CANCELLED) {
        c->why = c->x->cancel;
        pn__asgi_release_exchange(c);
    }
    return rc;
}

/* Owner. 1: all of it is taken, 0: the rest must wait, or negative errno. */
static int push_bytes(struct pn__channel *c, struct pn__awaitable *a)
{
    const char *p = a->body ? PyBytes_AS_STRING(a->body) : NULL;
    while (a->sent < a->size) {
        ssize_t n = pn_exchange_write(c->x, p + a->sent, a->size - a->sent);
        if (n < 0)
            return failed(c, (int)n);
        a->sent += (size_t)n;
        if (a->sent < a->size)
            return 0;
    }
    return 1;
}

/* Owner. A file that the transport cannot send by itself; as pn_exchange_send_file. */
static ssize_t copy_file(struct pn__channel *c, struct pn__awaitable *a)
{
    char *buffer = pn_try_malloc(FILE_READ_SIZE);
    if (!buffer)
        return -ENOMEM;
    ssize_t n = pread(a->fd, buffer, pn_min_size(a->size - a->sent, FILE_READ_SIZE), a->offset);
    if (n <= 0)
        n = n < 0 ? -errno : -ENODATA;
    else
        n = pn_exchange_write(c->x, buffer, (size_t)n);
    free(buffer);
    if (n > 0)
        a->offset += n;
    return n;
}

/* Owner. As push_bytes. */
static int push_file(struct pn__channel *c, struct pn__awaitable *a)
{
    while (a->sent < a->size) {
        ssize_t n = pn_exchange_send_file(c->x, a->fd, &a->offset, a->size - a->sent);
        bool copied = n == -ENOTSUP || n == -EINVAL || n == -ENOSYS;
        if (copied)
            n = copy_file(c, a);
        if (n < 0)
            return failed(c, (int)n);
        a->sent += (size_t)n;
        if (a->sent < a->size && (!copied || n == 0))
            return 0;
    }
    return 1;
}

/* Owner. What was announced is here, or there is no more: 0 or negative errno. */
static int end_answer(struct pn__channel *c, const struct pn_field *trailers, size_t count)
{
    pn__asgi_keep_name(c); /* the application may fail after its answer */
    int rc = pn_exchange_end(c->x, trailers, count);
    if (rc < 0)
        return failed(c, rc);
    pn__asgi_release_exchange(c);
    return 0;
}

/* The body's next part: what A has. */
static enum pn__asgi_step push(struct pn__channel *c, struct pn__awaitable *a)
{
    bool ends = a->last && !c->wants_trailers;
    struct pn_core *core = pn__asgi_own();
    c->x->ends_with_next = ends;
    int rc = a->fd >= 0 ? push_file(c, a) : push_bytes(c, a);
    bool whole = rc > 0;
    if (pn_likely(whole))
        rc = ends ? end_answer(c, NULL, 0) : failed(c, pn_exchange_flush(c->x));
    pn__asgi_disown(core);
    if (pn_unlikely(rc < 0)) {
        if (whole && rc == -EMSGSIZE) {
            c->stage = PN__ASGI_COMPLETE;
            PyErr_SetString(PyExc_RuntimeError, "Response content shorter than Content-Length");
            return PN__ASGI_FAIL;
        }
        return raise_error(c, rc);
    }
    if (!whole)
        return PN__ASGI_WAIT;
    if (a->last) {
        c->stage = ends ? PN__ASGI_COMPLETE : PN__ASGI_TRAILERS;
        if (pn_unlikely(!pn_list_empty(&c->waiters))) /* receive() has a disconnection to give */
            pn__asgi_wake_all(c);
    }
    return PN__ASGI_DONE;
}

/* --- send: the messages ------------------------------------------------------------------------ */

static int take_status(PyObject *status, const char *what)
{
    if (!status) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "status");
        return -1;
    }
    if (!PyLong_Check(status)) {
        PyErr_Format(PyExc_TypeError, "%s: status must be int, not %.100s", what,
                     Py_TYPE(status)->tp_name);
        return -1;
    }
    int overflow;
    long code = PyLong_AsLongAndOverflow(status, &overflow);
    if (overflow || code < 200 || code > 999) {
        PyErr_Format(PyExc_ValueError, "%s: status must be 200 to 999, not %R", what, status);
        return -1;
    }
    return (int)code;
}

/* Inside. What the application sent as HEADERS, which the wire has not seen yet: as pn_exchange_head, or -1
 * with an exception. */
static int send_head(struct pn__channel *c, unsigned status, PyObject *headers, uint64_t key,
                     const char *what)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn__answer *a = &asgi->answer;
    if (headers && pn__asgi_take_headers(asgi, headers, what) < 0) {
        pn__answer_clear(a);
        return -1;
    }
    int rc = -EPIPE;
    a->status = status;
    if (pn_likely(c->x != NULL)) {
        struct pn_core *core = pn__asgi_own();
        rc = failed(c, pn_exchange_head(c->x, status, PN_STR_NONE, a->fields, a->count, a->length,
                                        a->flags));
        pn__asgi_disown(core);
    }
    if (pn_unlikely(rc == -EINVAL))
        pn__asgi_raise_refused(asgi);
    else if (pn_unlikely(rc < 0))
        (void)raise_error(c, rc);
    else if (pn_unlikely(key))
        pn__asgi_head_keep(asgi, headers, key);
    pn__answer_clear(a);
    return rc < 0 ? -1 : 0;
}

/* The same for one that it has seen: negative errno. */
static int send_known_head(struct pn__channel *c, unsigned status, const struct pn__asgi_head *h)
{
    struct pn_core *core = pn__asgi_own();
    c->x->fields_id = h->id;
    int rc = failed(c, pn_exchange_head(c->x, status, PN_STR_NONE, h->fields, h->field_count,
                                        h->length, h->flags));
    pn__asgi_disown(core);
    return rc;
}

enum pn__asgi_step pn__asgi_start_answer(struct pn__channel *c, struct pn__message *m,
                                         const char *what)
{
    struct pn__asgi *asgi = c->gw->asgi;
    int status = take_status(pn__asgi_field(asgi, m, PN__A_STATUS), what);
    if (status < 0)
        return PN__ASGI_FAIL;
    int trailers = pn__asgi_flag(asgi, m, PN__A_TRAILERS, false);
    PyObject *headers = trailers < 0 ? NULL : pn__asgi_field(asgi, m, PN__A_HEADERS);
    if (trailers < 0 || (!headers && PyErr_Occurred()))
        return PN__ASGI_FAIL;
    uint64_t key = 0;
    const struct pn__asgi_head *known = NULL;
    if (pn_likely(headers && c->x))
        known = pn__asgi_head_find(asgi, headers, &key);
    /* What the wire refuses is seen to with the headers in hand. */
    if (!known || pn_unlikely(send_known_head(c, (unsigned)status, known) < 0)) {
        Py_XINCREF(headers);
        int rc = send_head(c, (unsigned)status, headers, key, what);
        Py_XDECREF(headers);
        if (pn_unlikely(rc < 0))
            return PN__ASGI_FAIL;
    }
    c->wants_trailers = trailers > 0 && (asgi->config.extensions & PN_ASGI_TRAILERS);
    c->stage = PN__ASGI_BODY;
    return PN__ASGI_DONE;
}

/* A's body and last out of a http.response.body. */
static int take_body(struct pn__asgi *asgi, struct pn__message *m, struct pn__awaitable *a)
{
    int more = pn__asgi_flag(asgi, m, PN__A_MORE_BODY, false);
    PyObject *body = more < 0 ? NULL : pn__asgi_field(asgi, m, PN__A_BODY); /* borrowed */
    if (more < 0 || (!body && PyErr_Occurred()))
        return -1;
    a->last = !more;
    a->size = a->sent = 0;
    if (!body)
        return 0;
    if (pn_likely(PyBytes_Check(body))) {
        a->body = Py_NewRef(body);
    } else if (PyObject_CheckBuffer(body)) {
        a->body = PyBytes_FromObject(body);
    } else {
        PyErr_Format(PyExc_TypeError, "http.response.body: body must be bytes, not %.100s",
                     Py_TYPE(body)->tp_name);
    }
    if (!a->body)
        return -1;
    a->size = (size_t)PyBytes_GET_SIZE(a->body);
    return 0;
}

enum pn__asgi_step pn__asgi_send_body(struct pn__channel *c, struct pn__message *m,
                                      struct pn__awaitable *a)
{
    if (take_body(c->gw->asgi, m, a) < 0)
        return PN__ASGI_FAIL;
    if (pn_unlikely(!c->x))
        return raise_error(c, -EPIPE);
    return push(c, a);
}

static enum pn__asgi_step send_file(struct pn__channel *c, struct pn__message *m,
                                    struct pn__awaitable *a, bool is_path)
{
    struct pn__asgi *asgi = c->gw->asgi;
    int more = is_path ? 0 : pn__asgi_flag(asgi, m, PN__A_MORE_BODY, false);
    if (more < 0 || pn__asgi_open_file(asgi, m, is_path, a) < 0)
        return PN__ASGI_FAIL;
    a->last = !more;
    if (!c->x)
        return raise_error(c, -EPIPE);
    return push(c, a);
}

/* Trailers gather until the last of them. */
static enum pn__asgi_step send_trailers(struct pn__channel *c, struct pn__message *m)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn__answer *a = &asgi->answer;
    int more = pn__asgi_flag(asgi, m, PN__A_MORE_TRAILERS, false);
    PyObject *headers = more < 0 ? NULL : pn__asgi_field(asgi, m, PN__A_HEADERS);
    if (more < 0 || (!headers && PyErr_Occurred()))
        return PN__ASGI_FAIL;
    if (!c->trailers && !(c->trailers = PyList_New(0)))
        return PN__ASGI_FAIL;
    if (headers) {
        PyObject *done = PyObject_CallMethod(c->trailers, "extend", "O", headers);
        Py_XDECREF(done);
        if (!done)
            return PN__ASGI_FAIL;
    }
    if (more)
        return PN__ASGI_DONE;
    int rc = pn__asgi_take_headers(asgi, c->trailers, "http.response.trailers");
    if (rc == 0 && pn__answer_bad_field(a) < a->count) {
        pn__asgi_raise_refused(asgi);
        rc = -1;
    }
    if (rc < 0 || !c->x) {
        pn__answer_clear(a);
        return rc < 0 ? PN__ASGI_FAIL : raise_error(c, -EPIPE);
    }
    struct pn_core *core = pn__asgi_own();
    rc = end_answer(c, a->fields, a->count);
    pn__asgi_disown(core);
    pn__answer_clear(a);
    c->stage = PN__ASGI_COMPLETE;
    pn__asgi_wake_all(c);
    return rc < 0 ? raise_error(c, rc) : PN__ASGI_DONE;
}

/* 103 with a Link of each (RFC 8297). */
static enum pn__asgi_step early_hint(struct pn__channel *c, struct pn__message *m)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn__answer *a = &asgi->answer;
    PyObject *links = pn__asgi_field(asgi, m, PN__A_LINKS); /* borrowed */
    Py_XINCREF(links);
    PyObject *all = links ? PySequence_Tuple(links) : NULL;
    Py_XDECREF(links);
    PyObject *fields = all ? PyList_New(0) : NULL;
    int rc = fields ? 0 : -1;
    for (Py_ssize_t i = 0; rc == 0 && i < PyTuple_GET_SIZE(all); i++) {
        PyObject *field = Py_BuildValue("(yO)", "link", PyTuple_GET_ITEM(all, i));
        rc = field ? PyList_Append(fields, field) : -1;
        Py_XDECREF(field);
    }
    if (rc == 0)
        rc = pn__asgi_take_headers(asgi, fields, "http.response.early_hint");
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_KeyError, "links");
    Py_XDECREF(fields);
    Py_XDECREF(all);
    if (rc < 0 || !c->x) {
        pn__answer_clear(a);
        return rc < 0 ? PN__ASGI_FAIL : raise_error(c, -EPIPE);
    }
    struct pn_core *core = pn__asgi_own();
    rc = failed(c, pn_exchange_info(c->x, 103, a->fields, a->count));
    pn__asgi_disown(core);
    if (rc == -EINVAL)
        pn__asgi_raise_refused(asgi);
    pn__answer_clear(a);
    if (rc < 0)
        return rc == -EINVAL ? PN__ASGI_FAIL : raise_error(c, rc);
    return PN__ASGI_DONE;
}

/* An extension's message that may stand here, if it is switched on. */
static bool switched_on(const struct pn__asgi *asgi, int type)
{
    unsigned on = asgi->config.extensions;
    switch (type) {
    case PN__A_RESPONSE_PATHSEND:
        return on & PN_ASGI_PATHSEND;
    case PN__A_RESPONSE_ZEROCOPYSEND:
        return on & PN_ASGI_ZEROCOPYSEND;
    case PN__A_EARLY_HINT:
        return on & PN_ASGI_EARLY_HINT;
    case PN__A_RESPONSE_DEBUG:
        return on & PN_ASGI_DEBUG;
    default:
        return true;
    }
}

static enum pn__asgi_step out_of_order(struct pn__channel *c, PyObject *type)
{
    switch (c->stage) {
    case PN__ASGI_STARTING:
        pn__asgi_raise_order(type, "'http.response.start'");
        break;
    case PN__ASGI_BODY:
        pn__asgi_raise_order(type, "'http.response.body'");
        break;
    case PN__ASGI_TRAILERS:
        pn__asgi_raise_order(type, "'http.response.trailers'");
        break;
    case PN__ASGI_COMPLETE:
        PyErr_Format(PyExc_RuntimeError,
                     "Unexpected ASGI message '%S' sent, after response already completed.", type);
        break;
    }
    return PN__ASGI_FAIL;
}

/* The first step of a message. */
static enum pn__asgi_step begin(struct pn__channel *c, struct pn__awaitable *a)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn__message m;
    if (pn_unlikely(pn__asgi_read(asgi, a->message, &m) < 0))
        return PN__ASGI_FAIL;
    int which = m.which;
    if (pn_unlikely(!c->x && c->stage != PN__ASGI_COMPLETE))
        return raise_error(c, -EPIPE);
    if (pn_unlikely(c->torn)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a send() of this response was cancelled when a part of its body had gone");
        return PN__ASGI_FAIL;
    }
    if (pn_unlikely(!switched_on(asgi, which)))
        return out_of_order(c, m.type);
    switch (c->stage) {
    case PN__ASGI_STARTING:
        if (pn_likely(which == PN__A_RESPONSE_START))
            return pn__asgi_start_answer(c, &m, "http.response.start");
        if (which == PN__A_EARLY_HINT)
            return early_hint(c, &m);
        if (which == PN__A_RESPONSE_DEBUG)
            return PN__ASGI_DONE; /* for test clients */
        break;
    case PN__ASGI_BODY:
        if (pn_likely(which == PN__A_RESPONSE_BODY))
            return pn__asgi_send_body(c, &m, a);
        if (which == PN__A_RESPONSE_PATHSEND || which == PN__A_RESPONSE_ZEROCOPYSEND)
            return send_file(c, &m, a, which == PN__A_RESPONSE_PATHSEND);
        break;
    case PN__ASGI_TRAILERS:
        if (which == PN__A_RESPONSE_TRAILERS)
            return send_trailers(c, &m);
        break;
    case PN__ASGI_COMPLETE:
        break;
    }
    return out_of_order(c, m.type);
}

enum pn__asgi_step pn__asgi_http_send(struct pn__channel *c, struct pn__awaitable *a)
{
    if (pn_likely(!a->body && a->fd < 0))
        return begin(c, a);
    if (pn_unlikely(!c->x))
        return raise_error(c, -EPIPE);
    return push(c, a);
}

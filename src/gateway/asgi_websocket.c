/* SPDX-License-Identifier: Apache-2.0 */
/* receive() and send() of websocket (asgi.readthedocs.io, HTTP & WebSocket, 2.5), over src/http/ws_conn.h.
 *
 *   CONNECTING --accept--> OPEN --close--> CLOSED
 *       |                    +-- the client, or the server, closes it: send raises, close does nothing
 *       +--close: 403, or http.response.start--> RESPONDING --body--> CLOSED
 *
 * While it is open the connection, not the channel, has the exchange's notify; what it tells comes by
 * on_news, and makes those who wait look again. A message is taken out of the connection when receive asks
 * for it, so who does not ask stops the client. */
#include "gateway/asgi.h"

#include <errno.h>

#include "http/http_token.h"

/* --- The handshake ----------------------------------------------------------------------------- */

static void refuse_version(struct pn_exchange *x)
{
    const struct pn_field fields[] = {{PN_STR("Sec-WebSocket-Version"), PN_STR("13")}};
    if (pn_exchange_head(x, 426, PN_STR_NONE, fields, 1, 0, PN_HEAD_CLOSE) == 0)
        (void)pn_exchange_end(x, NULL, 0);
}

int pn__asgi_ws_check(struct pn__channel *c)
{
    if (!c->gw->websockets)
        return 0;
    switch (pn_ws_handshake_check(c->x, c->key)) {
    case PN_WS_NOT_ASKED:
        return 0;
    case PN_WS_ASKED:
        c->ws_stage = PN__ASGI_WS_CONNECTING;
        return 1;
    case PN_WS_BAD_VERSION:
        refuse_version(c->x);
        return -1;
    case PN_WS_BAD:
        break;
    }
    (void)pn_exchange_answer_status(c->x, 400, true);
    return -1;
}

/* Owner; never from inside a call of ours. */
static void on_news(struct pn_ws *ws, unsigned what PN_UNUSED)
{
    struct pn__channel *c = pn_ws_owner(ws);
    pn_aio_home_call(c->gw->asgi->config.home, &c->call);
}

/* Owner. The client's list has NAME. */
static bool is_offered(const struct pn_exchange *x, struct pn_str name)
{
    for (unsigned i = 0; i < x->header_count; i++) {
        struct pn_http_list list = {pn_header_value(x, &x->headers[i])};
        struct pn_str item;
        if (x->headers[i].id != PN_HEADER_SEC_WEBSOCKET_PROTOCOL)
            continue;
        while (pn_http_list_next(&list, &item))
            if (pn_str_eq(item, name))
                return true;
    }
    return false;
}

/* *NAME: a view of the message's own str; empty: none. 0, or -1 with an exception. */
static int take_subprotocol(struct pn__asgi *asgi, struct pn__message *m, struct pn_str *name)
{
    PyObject *value = pn__asgi_field(asgi, m, PN__A_SUBPROTOCOL); /* borrowed */
    Py_ssize_t n;
    *name = PN_STR_NONE;
    if (!value || value == Py_None)
        return PyErr_Occurred() ? -1 : 0;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "websocket.accept: subprotocol must be str, not %.100s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    name->p = PyUnicode_AsUTF8AndSize(value, &n);
    name->n = name->p ? (size_t)n : 0;
    return name->p ? 0 : -1;
}

/* The answer has the headers; those of the handshake are not among them. */
static int check_headers(const struct pn__answer *a)
{
    const struct pn_str own = PN_STR("sec-websocket-");
    for (size_t i = 0; i < a->count; i++) {
        struct pn_str name = a->fields[i].name;
        if (name.n >= own.n && pn_str_eq_nocase((struct pn_str){name.p, own.n}, own)) {
            PyErr_Format(PyExc_ValueError,
                         "websocket.accept: the header %R is the server's: subprotocol says which "
                         "one is chosen",
                         a->held[2 * i]);
            return -1;
        }
    }
    return 0;
}

/* Owner. 0, or negative errno; -ENOENT: the subprotocol was not offered. */
static int open_ws(struct pn__channel *c, const char *accept, struct pn_str subprotocol)
{
    const struct pn__answer *a = &c->gw->asgi->answer;
    const struct pn_ws_opening opening = {
        .accept = accept,
        .subprotocol = subprotocol,
        .fields = a->fields,
        .count = a->count,
        .news = on_news,
        .owner = c,
    };
    if (subprotocol.n && !is_offered(c->x, subprotocol))
        return -ENOENT;
    return pn_ws_open(c->gw->websockets, c->x, &opening, &c->ws);
}

static enum pn__asgi_step accept_failed(struct pn__channel *c, struct pn__message *m, int rc)
{
    struct pn__asgi *asgi = c->gw->asgi;
    if (rc == -EINVAL)
        pn__asgi_raise_refused(asgi);
    else if (rc == -ENOENT)
        PyErr_Format(PyExc_ValueError,
                     "websocket.accept: the client has not offered the subprotocol %R",
                     pn__asgi_field(asgi, m, PN__A_SUBPROTOCOL));
    else if (rc == -ENOMEM)
        PyErr_NoMemory();
    else
        pn__asgi_raise_gone(c);
    return PN__ASGI_FAIL;
}

static enum pn__asgi_step accept_it(struct pn__channel *c, struct pn__message *m)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn__answer *a = &asgi->answer;
    char accept[PN_WS_ACCEPT_SIZE];
    struct pn_str subprotocol;
    PyObject *headers = pn__asgi_field(asgi, m, PN__A_HEADERS); /* borrowed */
    if (!headers && PyErr_Occurred())
        return PN__ASGI_FAIL;
    Py_XINCREF(headers);
    pn__answer_clear(a);
    int rc = headers ? pn__asgi_take_headers(asgi, headers, "websocket.accept") : 0;
    Py_XDECREF(headers);
    m->read = false; /* code of the application's may have run, and changed the dict */
    if (rc < 0 || check_headers(a) < 0 || take_subprotocol(asgi, m, &subprotocol) < 0 ||
        pn__ws_accept(c->key, accept) < 0) {
        pn__answer_clear(a);
        return PN__ASGI_FAIL;
    }
    a->status = 101;
    rc = -EPIPE;
    if (c->x) { /* else the client has left meanwhile */
        struct pn_core *core = pn__asgi_own();
        rc = open_ws(c, accept, subprotocol);
        if (c->x->state == PN_EXCHANGE_CANCELLED && rc < 0) {
            c->why = c->x->cancel;
            pn__asgi_release_exchange(c);
        }
        pn__asgi_disown(core);
    }
    if (rc == 0)
        c->ws_stage = PN__ASGI_WS_OPEN;
    else
        accept_failed(c, m, rc);
    pn__answer_clear(a);
    pn__asgi_wake_all(c); /* who waits for a message waits for others now */
    return rc == 0 ? PN__ASGI_DONE : PN__ASGI_FAIL;
}

/* Without an answer of its own. */
static enum pn__asgi_step refuse(struct pn__channel *c)
{
    struct pn_core *core = pn__asgi_own();
    pn__asgi_keep_name(c);
    (void)pn_exchange_answer_status(c->x, 403, false);
    pn__asgi_release_exchange(c);
    pn__asgi_disown(core);
    c->ws_stage = PN__ASGI_WS_CLOSED;
    pn__asgi_wake_all(c);
    return PN__ASGI_DONE;
}

/* --- receive ----------------------------------------------------------------------------------- */

/* Steals VALUE, which may be NULL after a failure. */
static enum pn__asgi_step give(struct pn__asgi *asgi, enum pn__asgi_word type,
                               enum pn__asgi_word key, PyObject *value, PyObject **result)
{
    PyObject *message = value ? PyDict_New() : NULL;
    if (message && (PyDict_SetItem(message, asgi->words[PN__A_TYPE], asgi->words[type]) < 0 ||
                    PyDict_SetItem(message, asgi->words[key], value) < 0))
        Py_CLEAR(message);
    Py_XDECREF(value);
    *result = message;
    return message ? PN__ASGI_DONE : PN__ASGI_FAIL;
}

static enum pn__asgi_step give_end(struct pn__channel *c, unsigned status, PyObject *reason,
                                   PyObject **result)
{
    struct pn__asgi *asgi = c->gw->asgi;
    enum pn__asgi_step step =
        give(asgi, PN__A_WS_DISCONNECT, PN__A_CODE, PyLong_FromUnsignedLong(status), result);
    if (step == PN__ASGI_DONE && reason &&
        PyDict_SetItem(*result, asgi->words[PN__A_REASON], reason) == 0)
        return step;
    Py_CLEAR(*result);
    return PN__ASGI_FAIL;
}

static enum pn__asgi_step give_end_without(struct pn__channel *c, PyObject **result)
{
    PyObject *none = PyUnicode_FromStringAndSize(NULL, 0);
    enum pn__asgi_step step = give_end(c, PN_WS_STATUS_ABNORMAL, none, result);
    Py_XDECREF(none);
    return step;
}

/* The next message of an open connection. */
static enum pn__asgi_step take(struct pn__channel *c, PyObject **result)
{
    struct pn__asgi *asgi = c->gw->asgi;
    struct pn_ws_message m;
    PyObject *data = NULL;
    struct pn_core *core = pn__asgi_own();
    int kind = pn_ws_take(c->ws, &m);
    if (kind == PN_WS_BINARY)
        data = PyBytes_FromStringAndSize(m.data.p, (Py_ssize_t)m.data.n);
    else if (kind != PN_WS_MORE) /* it was checked as it came */
        data = PyUnicode_DecodeUTF8(m.data.p, (Py_ssize_t)m.data.n, NULL);
    pn_ws_taken(c->ws);
    pn__asgi_disown(core);
    switch (kind) {
    case PN_WS_TEXT:
        return give(asgi, PN__A_WS_RECEIVE, PN__A_TEXT, data, result);
    case PN_WS_BINARY:
        return give(asgi, PN__A_WS_RECEIVE, PN__A_BYTES, data, result);
    case PN_WS_CLOSE: {
        c->why = PN_CANCEL_CLIENT_GONE;
        enum pn__asgi_step step = give_end(c, m.status, data, result);
        Py_XDECREF(data);
        return step;
    }
    default:
        return PN__ASGI_WAIT;
    }
}

enum pn__asgi_step pn__asgi_ws_receive(struct pn__channel *c, PyObject **result)
{
    struct pn__asgi *asgi = c->gw->asgi;
    if (!c->connect_given) {
        c->connect_given = true;
        *result = PyDict_New();
        if (*result &&
            PyDict_SetItem(*result, asgi->words[PN__A_TYPE], asgi->words[PN__A_WS_CONNECT]) < 0)
            Py_CLEAR(*result);
        return *result ? PN__ASGI_DONE : PN__ASGI_FAIL;
    }
    if (pn_likely(c->ws))
        return take(c, result);
    if (c->x && !c->cut && !c->peer_ended)
        return PN__ASGI_WAIT;
    c->told_end = c->peer_ended;
    return give_end_without(c, result);
}

/* --- send -------------------------------------------------------------------------------------- */

/* The one of text and bytes that M has: *DATA is a view of it, and *OPCODE. 0, or -1 with an exception. */
static int take_data(struct pn__asgi *asgi, struct pn__message *m, struct pn_str *data,
                     unsigned *opcode)
{
    PyObject *text = pn__asgi_field(asgi, m, PN__A_TEXT); /* borrowed, both */
    PyObject *bytes = PyErr_Occurred() ? NULL : pn__asgi_field(asgi, m, PN__A_BYTES);
    Py_ssize_t n;
    if (PyErr_Occurred())
        return -1;
    text = text == Py_None ? NULL : text;
    bytes = bytes == Py_None ? NULL : bytes;
    if (!text == !bytes) {
        PyErr_SetString(PyExc_ValueError, "websocket.send: exactly one of text and bytes must be "
                                          "there and not None");
        return -1;
    }
    if (text) {
        *opcode = PN_WS_OP_TEXT;
        if (!PyUnicode_Check(text)) {
            PyErr_Format(PyExc_TypeError, "websocket.send: text must be str, not %.100s",
                         Py_TYPE(text)->tp_name);
            return -1;
        }
        data->p = PyUnicode_AsUTF8AndSize(text, &n);
        data->n = (size_t)n;
        return data->p ? 0 : -1;
    }
    *opcode = PN_WS_OP_BINARY;
    if (!PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "websocket.send: bytes must be bytes, not %.100s",
                     Py_TYPE(bytes)->tp_name);
        return -1;
    }
    *data = (struct pn_str){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    return 0;
}

/* It was sent, and waits until the client has taken so much that more may follow. */
static enum pn__asgi_step wait_for_room(struct pn__channel *c)
{
    bool full = false;
    if (c->ws) {
        struct pn_core *core = pn__asgi_own();
        full = pn_ws_is_full(c->ws);
        pn__asgi_disown(core);
    }
    return full ? PN__ASGI_WAIT : PN__ASGI_DONE;
}

static enum pn__asgi_step send_data(struct pn__channel *c, struct pn__message *m,
                                    struct pn__awaitable *a)
{
    struct pn_str data = PN_STR_NONE;
    unsigned opcode = 0;
    if (take_data(c->gw->asgi, m, &data, &opcode) < 0)
        return PN__ASGI_FAIL;
    struct pn_core *core = pn__asgi_own();
    int rc = pn_ws_send(c->ws, opcode, data.p, data.n);
    bool full = pn_ws_is_full(c->ws);
    pn__asgi_disown(core);
    if (rc == -EAGAIN)
        return PN__ASGI_WAIT;
    if (rc == -ENOMEM) {
        PyErr_NoMemory();
        return PN__ASGI_FAIL;
    }
    if (rc < 0) {
        c->why = PN_CANCEL_CLIENT_GONE;
        pn__asgi_raise_gone(c);
        return PN__ASGI_FAIL;
    }
    a->last = true;
    return full ? PN__ASGI_WAIT : PN__ASGI_DONE;
}

static int take_code(struct pn__asgi *asgi, struct pn__message *m, unsigned *code)
{
    PyObject *value = pn__asgi_field(asgi, m, PN__A_CODE); /* borrowed */
    *code = PN_WS_STATUS_NORMAL;
    if (!value || value == Py_None)
        return PyErr_Occurred() ? -1 : 0;
    int overflow = 0;
    long number = PyLong_Check(value) ? PyLong_AsLongAndOverflow(value, &overflow) : -1;
    if (overflow || number < 0 || number > 4999 || !pn_ws_status_may_be_sent((unsigned)number)) {
        PyErr_Format(PyExc_ValueError, "websocket.close: %R is no code that may be sent", value);
        return -1;
    }
    *code = (unsigned)number;
    return 0;
}

static int take_reason(struct pn__asgi *asgi, struct pn__message *m, struct pn_str *reason)
{
    PyObject *value = pn__asgi_field(asgi, m, PN__A_REASON); /* borrowed */
    Py_ssize_t n;
    *reason = PN_STR_NONE;
    if (!value || value == Py_None)
        return PyErr_Occurred() ? -1 : 0;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "websocket.close: reason must be str, not %.100s",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    reason->p = PyUnicode_AsUTF8AndSize(value, &n);
    if (!reason->p)
        return -1;
    reason->n = (size_t)n;
    if (reason->n > PN_WS_REASON_MAX) {
        PyErr_Format(PyExc_ValueError, "websocket.close: reason is %zd bytes long, more than %d", n,
                     (int)PN_WS_REASON_MAX);
        return -1;
    }
    return 0;
}

static enum pn__asgi_step close_it(struct pn__channel *c, struct pn__message *m)
{
    struct pn_str reason;
    unsigned code;
    if (take_code(c->gw->asgi, m, &code) < 0 || take_reason(c->gw->asgi, m, &reason) < 0)
        return PN__ASGI_FAIL;
    if (!c->ws)
        return refuse(c);
    struct pn_core *core = pn__asgi_own();
    pn_ws_close(c->ws, code, reason); /* the client may have been first */
    pn__asgi_disown(core);
    c->ws_stage = PN__ASGI_WS_CLOSED;
    pn__asgi_wake_all(c);
    return PN__ASGI_DONE;
}

static enum pn__asgi_step out_of_order(struct pn__channel *c, PyObject *type)
{
    switch ((enum pn__asgi_ws)c->ws_stage) {
    case PN__ASGI_WS_CONNECTING:
        pn__asgi_raise_order(type, "'websocket.accept', 'websocket.close' or "
                                   "'websocket.http.response.start'");
        break;
    case PN__ASGI_WS_RESPONDING:
        pn__asgi_raise_order(type, "'websocket.http.response.body'");
        break;
    case PN__ASGI_WS_OPEN:
        pn__asgi_raise_order(type, "'websocket.send' or 'websocket.close'");
        break;
    case PN__ASGI_WS_CLOSED:
    case PN__ASGI_NO_WS:
        PyErr_Format(PyExc_RuntimeError,
                     "Unexpected ASGI message '%S' sent, after the WebSocket was closed or refused "
                     "by the application.",
                     type);
        break;
    }
    return PN__ASGI_FAIL;
}

/* What the answer that stands for a handshake's has come to. */
static enum pn__asgi_step responded(struct pn__channel *c, enum pn__asgi_step step)
{
    if (c->stage == PN__ASGI_COMPLETE)
        c->ws_stage = PN__ASGI_WS_CLOSED;
    return step;
}

static enum pn__asgi_step start_response(struct pn__channel *c, struct pn__message *m)
{
    enum pn__asgi_step step = pn__asgi_start_answer(c, m, "websocket.http.response.start");
    if (step == PN__ASGI_DONE)
        c->ws_stage = PN__ASGI_WS_RESPONDING;
    return step;
}

static enum pn__asgi_step before_open(struct pn__channel *c, struct pn__message *m)
{
    int which = m->which;
    bool may_respond = c->gw->asgi->config.extensions & PN_ASGI_WEBSOCKET_RESPONSE;
    bool good = which == PN__A_WS_ACCEPT || which == PN__A_WS_CLOSE ||
                (which == PN__A_WS_RESPONSE_START && may_respond);
    if (!good)
        return out_of_order(c, m->type);
    if (!c->x) {
        if (which == PN__A_WS_CLOSE)
            return PN__ASGI_DONE; /* the client was first */
        pn__asgi_raise_gone(c);
        return PN__ASGI_FAIL;
    }
    if (which == PN__A_WS_ACCEPT)
        return accept_it(c, m);
    return which == PN__A_WS_CLOSE ? close_it(c, m) : start_response(c, m);
}

enum pn__asgi_step pn__asgi_ws_send(struct pn__channel *c, struct pn__awaitable *a)
{
    struct pn__message m;
    if (a->body) /* a part of an answer, of which more is to be sent */
        return responded(c, pn__asgi_http_send(c, a));
    if (a->last) /* sent already */
        return wait_for_room(c);
    if (pn_unlikely(pn__asgi_read(c->gw->asgi, a->message, &m) < 0))
        return PN__ASGI_FAIL;
    switch ((enum pn__asgi_ws)c->ws_stage) {
    case PN__ASGI_WS_OPEN:
        if (pn_likely(m.which == PN__A_WS_SEND))
            return send_data(c, &m, a);
        if (m.which == PN__A_WS_CLOSE)
            return close_it(c, &m);
        break;
    case PN__ASGI_WS_CONNECTING:
        return before_open(c, &m);
    case PN__ASGI_WS_RESPONDING:
        if (m.which == PN__A_WS_RESPONSE_BODY)
            return responded(c, pn__asgi_send_body(c, &m, a));
        break;
    case PN__ASGI_WS_CLOSED:
    case PN__ASGI_NO_WS:
        break;
    }
    return out_of_order(c, m.type);
}

/* --- The end ----------------------------------------------------------------------------------- */

void pn__asgi_ws_settle(struct pn__channel *c, bool failed)
{
    struct pn_ws *ws = c->ws;
    c->ws = NULL;
    if (failed) /* before the server's end, which has closed it */
        pn_ws_close(ws, PN_WS_STATUS_INTERNAL, PN_STR_NONE);
    pn_ws_release(ws); /* closes what is open */
    pn__asgi_release_exchange(c);
}

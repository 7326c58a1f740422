/* SPDX-License-Identifier: Apache-2.0 */
/* uwsgi.websocket_*: WebSockets of WSGI applications, by uWSGI's names. The core that carries the request waits for
 * the client's messages, as it waits for a body: with threads and fibers others go on meanwhile.
 *
 *   websocket_handshake --> r->ws --> recv, recv_nb, send, send_binary --> the application returns: closed
 *
 * From the handshake on the request's answer is over (r->disconnected): what the application returns is
 * iterated and dropped. The connection, not the request, has the exchange's notify then. */
#include <errno.h>

#include "gateway/internal.h"
#include "http/ws_conn.h"

/* --- The connection ---------------------------------------------------------------------------- */

/* Owner; never from inside a call of ours. */
static void on_news(struct pn_ws *ws, unsigned what PN_UNUSED)
{
    struct pn__request *r = pn_ws_owner(ws);
    if (r->waiting)
        pn_core_unpark(r->core, r->wait_number);
}

void pn__uwsgi_ws_end(struct pn__request *r)
{
    struct pn_ws *ws = r->ws;
    r->ws = NULL;
    if (r->cut)
        pn_ws_close(ws, PN_WS_STATUS_RESTART, PN_STR_NONE);
    else if (r->ws_failed)
        pn_ws_close(ws, PN_WS_STATUS_INTERNAL, PN_STR_NONE);
    pn_ws_release(ws); /* closes what is open */
}

/* NULL with an exception. */
static struct pn__request *need_request(const char *what)
{
    struct pn__request *r = pn__request_current();
    if (!r)
        PyErr_Format(PyExc_RuntimeError, "uwsgi.%s: there is no request here", what);
    return r;
}

static struct pn__request *need_websocket(const char *what)
{
    struct pn__request *r = need_request(what);
    if (r && !r->ws) {
        PyErr_Format(PyExc_OSError, "uwsgi.%s: websocket_handshake comes first", what);
        return NULL;
    }
    return r;
}

/* Owner on entry and return. 0: look again; or negative errno, r->cut, or an exception. */
static int wait_for(struct pn__request *r, unsigned why)
{
    int rc = pn__request_wait(r, why);
    if (PyErr_Occurred() || r->cut)
        return rc < 0 ? rc : -EINTR;
    if (why == PN_NOTIFY_DRAINED)
        pn_ws_push(r->ws); /* where the thread itself has waited, nobody has told */
    return 0;              /* also when the client has gone: the connection knows */
}

/* What has ended a call: -1. */
static int raise_closed(struct pn__request *r, int rc, const char *what)
{
    if (PyErr_Occurred())
        return -1;
    if (r->cut) {
        pn__raise_gone(r);
    } else if (rc == -ENOMEM) {
        PyErr_NoMemory();
    } else {
        r->gone = true;
        PyErr_Format(r->gw->client_disconnected, "unable to %s: the WebSocket is closed", what);
    }
    return -1;
}

/* --- The handshake ----------------------------------------------------------------------------- */

/* An optional argument, str or bytes, as a view of it; None is none. 0, or -1 with an exception. */
static int text_of(PyObject *o, struct pn_str *out)
{
    Py_ssize_t n;
    *out = PN_STR_NONE;
    if (!o || o == Py_None)
        return 0;
    if (PyBytes_Check(o)) {
        *out = (struct pn_str){PyBytes_AS_STRING(o), (size_t)PyBytes_GET_SIZE(o)};
        return 0;
    }
    if (!PyUnicode_Check(o)) {
        PyErr_Format(PyExc_TypeError, "str or bytes expected, not %.100s", Py_TYPE(o)->tp_name);
        return -1;
    }
    out->p = PyUnicode_AsUTF8AndSize(o, &n);
    out->n = out->p ? (size_t)n : 0;
    return out->p ? 0 : -1;
}

static void warn_inline(struct pn__request *r)
{
    if (r->gw->carrier != PN_CARRIER_INLINE || r->gw->websockets_warned)
        return;
    r->gw->websockets_warned = true;
    pn_log_warning(r->gw->log, "a WebSocket keeps this worker from all other requests while it is "
                               "open: --threads N or --async N serves more of them");
}

/* PROTOCOL: the subprotocol to answer with, or empty. 0 or -1 with an exception. */
static int shake_hands(struct pn__request *r, struct pn_str protocol)
{
    char key[PN_WS_KEY_SIZE], accept[PN_WS_ACCEPT_SIZE];
    const struct pn_ws_opening opening = {
        .accept = accept, .subprotocol = protocol, .news = on_news, .owner = r};
    int rc = -EPIPE;
    pn_core_leave_app(r->core);
    bool asked = r->gw->websockets && r->x->state == PN_EXCHANGE_RECEIVED &&
                 pn_ws_handshake_check(r->x, key) == PN_WS_ASKED;
    pn_core_enter_app(r->core);
    if (!asked) {
        PyErr_SetString(PyExc_OSError, "unable to complete websocket handshake");
        return -1;
    }
    if (pn__ws_accept(key, accept) < 0)
        return -1;
    pn_core_leave_app(r->core);
    if (r->x->state == PN_EXCHANGE_RECEIVED)
        rc = pn_ws_open(r->gw->websockets, r->x, &opening, &r->ws);
    if (rc == 0)
        r->head_sent = r->disconnected = true;
    pn_core_enter_app(r->core);
    if (rc == 0) {
        warn_inline(r);
        return 0;
    }
    if (rc == -EINVAL)
        PyErr_SetString(PyExc_ValueError, "this subprotocol cannot be sent");
    return rc == -EINVAL ? -1 : raise_closed(r, rc, "complete websocket handshake");
}

PyObject *pn__uwsgi_ws_handshake(PyObject *module PN_UNUSED, PyObject *args)
{
    PyObject *key = NULL, *origin = NULL, *proto = NULL; /* borrowed */
    struct pn_str unused, protocol;
    struct pn__request *r = need_request("websocket_handshake");
    if (!r || !PyArg_ParseTuple(args, "|OOO", &key, &origin, &proto))
        return NULL;
    /* The key is the request's own, whatever the application read of it; an origin is not answered. */
    if (text_of(key, &unused) < 0 || text_of(origin, &unused) < 0 || text_of(proto, &protocol) < 0)
        return NULL;
    if (shake_hands(r, protocol) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* --- Messages ---------------------------------------------------------------------------------- */

/* Owner. 1: *OUT is new, or NULL without memory; 0: there is none now; or -EPIPE. */
static int take(struct pn__request *r, PyObject **out)
{
    struct pn_ws_message m;
    int kind = pn_ws_take(r->ws, &m);
    if (kind == PN_WS_MORE || kind == PN_WS_CLOSE)
        return kind == PN_WS_MORE ? 0 : -EPIPE;
    *out = PyBytes_FromStringAndSize(m.data.p, (Py_ssize_t)m.data.n);
    pn_ws_taken(r->ws);
    return 1;
}

/* The same; with the inline carrier nobody but us looks at the socket, and at the clock. */
static int look(struct pn__request *r, PyObject **out)
{
    bool alone = r->gw->carrier == PN_CARRIER_INLINE;
    if (alone)
        (void)pn_loop_update_now(pn_cores_loop(r->gw->cores));
    int rc = take(r, out);
    return rc == 0 && alone && pn_ws_see_due(r->ws) ? take(r, out) : rc;
}

static PyObject *receive(struct pn__request *r, bool waits)
{
    PyObject *message = NULL;
    pn_core_leave_app(r->core);
    if (r->gw->carrier == PN_CARRIER_INLINE) /* it is not read from otherwise */
        (void)pn_exchange_wait_fd(r->x);
    int rc = look(r, &message);
    while (rc == 0 && waits) {
        rc = wait_for(r, PN_NOTIFY_BODY);
        if (rc == 0)
            rc = look(r, &message);
    }
    pn_core_enter_app(r->core);
    if (rc < 0) {
        (void)raise_closed(r, rc, "receive websocket message");
        return NULL;
    }
    return rc ? message : PyBytes_FromStringAndSize(NULL, 0);
}

PyObject *pn__uwsgi_ws_recv(PyObject *module PN_UNUSED, PyObject *Py_UNUSED(unused))
{
    struct pn__request *r = need_websocket("websocket_recv");
    return r ? receive(r, true) : NULL;
}

PyObject *pn__uwsgi_ws_recv_nb(PyObject *module PN_UNUSED, PyObject *Py_UNUSED(unused))
{
    struct pn__request *r = need_websocket("websocket_recv_nb");
    return r ? receive(r, false) : NULL;
}

/* Comes back when the client has taken so much that more may follow. */
static PyObject *send_message(const char *name, PyObject *message, unsigned opcode)
{
    struct pn__request *r = need_websocket(name);
    struct pn_str data;
    struct pn_ws_utf8 utf8 = {0};
    if (!r || text_of(message, &data) < 0)
        return NULL;
    if (opcode == PN_WS_OP_TEXT && PyBytes_Check(message) &&
        !(pn_ws_utf8_feed(&utf8, data.p, data.n) && pn_ws_utf8_whole(&utf8))) {
        PyErr_SetString(PyExc_ValueError, "websocket_send sends text: these bytes are not UTF-8, "
                                          "websocket_send_binary sends them");
        return NULL;
    }
    pn_core_leave_app(r->core);
    int rc = pn_ws_send(r->ws, opcode, data.p, data.n);
    bool again = rc == -EAGAIN;
    while (again || (rc == 0 && pn_ws_is_full(r->ws))) {
        rc = wait_for(r, PN_NOTIFY_DRAINED);
        if (rc == 0 && again)
            rc = pn_ws_send(r->ws, opcode, data.p, data.n);
        again = rc == -EAGAIN;
    }
    pn_core_enter_app(r->core);
    if (rc < 0) {
        (void)raise_closed(r, rc, "send websocket message");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *pn__uwsgi_ws_send(PyObject *module PN_UNUSED, PyObject *message)
{
    return send_message("websocket_send", message, PN_WS_OP_TEXT);
}

PyObject *pn__uwsgi_ws_send_binary(PyObject *module PN_UNUSED, PyObject *message)
{
    return send_message("websocket_send_binary", message, PN_WS_OP_BINARY);
}

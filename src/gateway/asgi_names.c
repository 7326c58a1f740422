/* SPDX-License-Identifier: Apache-2.0 */
/* Strings and headers that requests share. Headers whose values come again and are no secrets
 * (pn__keep_value) are kept as finished pairs, in a direct-mapped table as names.c has it: what comes later
 * drives out what was there. Used by the loop's owner, attached. */
#include "gateway/asgi.h"

static const char *const word_text[PN__A_WORDS] = {
    [PN__A_TYPE] = "type",
    [PN__A_BODY] = "body",
    [PN__A_MORE_BODY] = "more_body",
    [PN__A_STATUS] = "status",
    [PN__A_HEADERS] = "headers",
    [PN__A_TRAILERS] = "trailers",
    [PN__A_ASGI] = "asgi",
    [PN__A_HTTP_VERSION] = "http_version",
    [PN__A_SERVER] = "server",
    [PN__A_CLIENT] = "client",
    [PN__A_SCHEME] = "scheme",
    [PN__A_METHOD] = "method",
    [PN__A_ROOT_PATH] = "root_path",
    [PN__A_PATH] = "path",
    [PN__A_RAW_PATH] = "raw_path",
    [PN__A_QUERY_STRING] = "query_string",
    [PN__A_STATE] = "state",
    [PN__A_EXTENSIONS] = "extensions",
    [PN__A_MORE_TRAILERS] = "more_trailers",
    [PN__A_FILE] = "file",
    [PN__A_OFFSET] = "offset",
    [PN__A_COUNT] = "count",
    [PN__A_LINKS] = "links",
    [PN__A_SUBPROTOCOLS] = "subprotocols",
    [PN__A_SUBPROTOCOL] = "subprotocol",
    [PN__A_TEXT] = "text",
    [PN__A_BYTES] = "bytes",
    [PN__A_CODE] = "code",
    [PN__A_REASON] = "reason",
    [PN__A_HTTP] = "http",
    [PN__A_HTTPS] = "https",
    [PN__A_REQUEST] = "http.request",
    [PN__A_DISCONNECT] = "http.disconnect",
    [PN__A_RESPONSE_START] = "http.response.start",
    [PN__A_RESPONSE_BODY] = "http.response.body",
    [PN__A_RESPONSE_TRAILERS] = "http.response.trailers",
    [PN__A_RESPONSE_PATHSEND] = "http.response.pathsend",
    [PN__A_RESPONSE_ZEROCOPYSEND] = "http.response.zerocopysend",
    [PN__A_EARLY_HINT] = "http.response.early_hint",
    [PN__A_RESPONSE_DEBUG] = "http.response.debug",
    [PN__A_WS] = "ws",
    [PN__A_WSS] = "wss",
    [PN__A_WEBSOCKET] = "websocket",
    [PN__A_WS_CONNECT] = "websocket.connect",
    [PN__A_WS_RECEIVE] = "websocket.receive",
    [PN__A_WS_DISCONNECT] = "websocket.disconnect",
    [PN__A_WS_ACCEPT] = "websocket.accept",
    [PN__A_WS_SEND] = "websocket.send",
    [PN__A_WS_CLOSE] = "websocket.close",
    [PN__A_WS_RESPONSE_START] = "websocket.http.response.start",
    [PN__A_WS_RESPONSE_BODY] = "websocket.http.response.body",
    [PN__A_HTTP_1_0] = "1.0",
    [PN__A_HTTP_1_1] = "1.1",
    [PN__A_HTTP_2] = "2",
    [PN__A_GET] = "GET",
    [PN__A_TASK_NAME] = "pelton-request",
    [PN__A_LOOP] = "loop",
    [PN__A_NAME] = "name",
    [PN__A_EAGER_START] = "eager_start",
    [PN__A_DONE] = "done",
    [PN__A_RESULT] = "result",
    [PN__A_CANCEL] = "cancel",
    [PN__A_SET_RESULT] = "set_result",
    [PN__A_ADD_DONE_CALLBACK] = "add_done_callback",
    [PN__A_THROW] = "throw",
    [PN__A_CLOSE] = "close",
    [PN__A_FILENO] = "fileno",
};

static PyObject *bytes_of(struct pn_str s)
{
    return PyBytes_FromStringAndSize(s.p, (Py_ssize_t)s.n);
}

int pn__asgi_names_init(struct pn__asgi *asgi)
{
    for (unsigned i = 0; i < PN__A_WORDS; i++) {
        asgi->words[i] = PyUnicode_InternFromString(word_text[i]);
        if (!asgi->words[i])
            return -1;
    }
    for (unsigned id = PN_HEADER_UNUSUAL + 1; id < PN_HEADER_COUNT; id++) {
        asgi->names[id] = bytes_of(pn_header_known_name((enum pn_header_id)id));
        if (!asgi->names[id])
            return -1;
    }
    asgi->no_bytes = bytes_of(PN_STR(""));
    asgi->slash = bytes_of(PN_STR("/"));
    return asgi->no_bytes && asgi->slash ? 0 : -1;
}

void pn__asgi_names_fini(struct pn__asgi *asgi)
{
    for (unsigned i = 0; i < PN__A_WORDS; i++)
        Py_CLEAR(asgi->words[i]);
    for (unsigned i = 0; i < PN__ASGI_TYPES; i++)
        Py_CLEAR(asgi->seen[i]);
    for (unsigned i = 0; i < PN_HEADER_COUNT; i++)
        Py_CLEAR(asgi->names[i]);
    for (unsigned i = 0; i < PN__ASGI_VALUES; i++)
        Py_CLEAR(asgi->values[i].pair);
    Py_CLEAR(asgi->no_bytes);
    Py_CLEAR(asgi->slash);
}

/* New. */
static PyObject *lower_name(struct pn_str name)
{
    PyObject *bytes = bytes_of(name);
    char *p = bytes ? PyBytes_AS_STRING(bytes) : NULL; /* nobody else has seen it */
    for (size_t i = 0; p && i < name.n; i++)
        if (p[i] >= 'A' && p[i] <= 'Z')
            p[i] = (char)(p[i] - 'A' + 'a');
    return bytes;
}

/* New; steals NAME. */
static PyObject *make_pair(PyObject *name, struct pn_str value)
{
    PyObject *bytes = name ? bytes_of(value) : NULL;
    PyObject *pair = bytes ? PyTuple_New(2) : NULL;
    if (!pair) {
        Py_XDECREF(name);
        Py_XDECREF(bytes);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, name);
    PyTuple_SET_ITEM(pair, 1, bytes);
    return pair;
}

PyObject *pn__asgi_header(struct pn__asgi *asgi, unsigned id, struct pn_str name,
                          struct pn_str value)
{
    if (pn_unlikely(id == PN_HEADER_OTHER))
        return make_pair(lower_name(name), value);
    if (!pn__keep_value[id] || value.n > PN__VALUE_MAX)
        return make_pair(Py_NewRef(asgi->names[id]), value);
    uint64_t hash = pn__hash_bytes(value.p, value.n) + id * 31;
    struct pn__asgi_value *slot = &asgi->values[hash & (PN__ASGI_VALUES - 1)];
    if (pn_likely(slot->pair && slot->id == id)) {
        PyObject *old = PyTuple_GET_ITEM(slot->pair, 1); /* borrowed */
        if (pn_likely((size_t)PyBytes_GET_SIZE(old) == value.n &&
                      memcmp(PyBytes_AS_STRING(old), value.p, value.n) == 0))
            return Py_NewRef(slot->pair);
    }
    PyObject *pair = make_pair(Py_NewRef(asgi->names[id]), value);
    if (pn_likely(pair)) {
        slot->id = id;
        Py_XSETREF(slot->pair, Py_NewRef(pair));
    }
    return pair;
}

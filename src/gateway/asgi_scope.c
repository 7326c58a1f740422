/* SPDX-License-Identifier: Apache-2.0 */
/* A request's scope: a copy of a template, with what is this request's own put over it. As environ, it is
 * built by the loop's owner with the collector held off; no Python code runs here. */
#include "gateway/asgi.h"
#include "http/h1_target.h"
#include "http/http_token.h"

enum { PATH_STACK_SIZE = 1024 };

/* Steals VALUE, which may be NULL after a failure. */
static inline int put(PyObject *scope, PyObject *key, PyObject *value)
{
    if (pn_unlikely(!value))
        return -1;
    int rc = PyDict_SetItem(scope, key, value);
    Py_DECREF(value);
    return rc;
}

static PyObject *bytes_of(struct pn_str s)
{
    return PyBytes_FromStringAndSize(s.p, (Py_ssize_t)s.n);
}

/* --- Templates --------------------------------------------------------------------------------- */

static PyObject *make_template(struct pn__asgi *asgi, PyObject *server)
{
    PyObject **w = asgi->words;
    PyObject *scope = PyDict_New();
    PyObject *version = Py_BuildValue(
        "{ssss}", "version", asgi->config.version == 2 ? "2.0" : "3.0", "spec_version", "2.5");
    if (scope && version && PyDict_SetItem(scope, w[PN__A_TYPE], w[PN__A_HTTP]) == 0 &&
        PyDict_SetItem(scope, w[PN__A_ASGI], version) == 0 &&
        PyDict_SetItem(scope, w[PN__A_HTTP_VERSION], w[PN__A_HTTP_1_1]) == 0 &&
        PyDict_SetItem(scope, w[PN__A_SERVER], server) == 0 &&
        PyDict_SetItem(scope, w[PN__A_CLIENT], Py_None) == 0 &&
        PyDict_SetItem(scope, w[PN__A_SCHEME], w[PN__A_HTTP]) == 0 &&
        PyDict_SetItem(scope, w[PN__A_METHOD], w[PN__A_GET]) == 0 &&
        put(scope, w[PN__A_ROOT_PATH], PyUnicode_DecodeFSDefault(asgi->config.root_path)) == 0 &&
        put(scope, w[PN__A_PATH], PyUnicode_FromFormat("%s/", asgi->config.root_path)) == 0 &&
        put(scope, w[PN__A_RAW_PATH], PyBytes_FromFormat("%s/", asgi->config.root_path)) == 0 &&
        PyDict_SetItem(scope, w[PN__A_QUERY_STRING], asgi->no_bytes) == 0 &&
        PyDict_SetItem(scope, w[PN__A_HEADERS], Py_None) == 0 &&
        PyDict_SetItem(scope, w[PN__A_EXTENSIONS], Py_None) == 0) {
        Py_DECREF(version);
        return scope;
    }
    Py_XDECREF(version);
    Py_XDECREF(scope);
    return NULL;
}

/* (host, port); (path, None) of a unix socket. */
static PyObject *server_address(const struct pn_gateway *gw, size_t i)
{
    PyObject *env = gw->servers[i].environ;
    PyObject *name = PyDict_GetItemWithError(env, gw->words[PN__W_SERVER_NAME]); /* borrowed */
    PyObject *port = PyDict_GetItemWithError(env, gw->words[PN__W_SERVER_PORT]);
    if (!name || !port)
        return NULL;
    if (gw->servers[i].unix_path)
        return Py_BuildValue("(NO)", PyUnicode_DecodeFSDefault(gw->servers[i].unix_path), Py_None);
    PyObject *number = PyLong_FromUnicodeObject(port, 10);
    return number ? Py_BuildValue("(ON)", name, number) : NULL;
}

struct extension {
    unsigned bit;
    const char *name;
};

static PyObject *make_extensions(unsigned bits, const struct extension *rows, size_t count)
{
    PyObject *all = PyDict_New();
    for (size_t i = 0; all && i < count; i++) {
        PyObject *none = bits & rows[i].bit ? PyDict_New() : NULL;
        if (none && PyDict_SetItemString(all, rows[i].name, none) < 0)
            Py_CLEAR(all);
        Py_XDECREF(none);
    }
    return PyErr_Occurred() ? NULL : all;
}

static int put_extensions(struct pn__asgi *asgi)
{
    static const struct extension http[] = {
        {PN_ASGI_TRAILERS, "http.response.trailers"},
        {PN_ASGI_PATHSEND, "http.response.pathsend"},
        {PN_ASGI_ZEROCOPYSEND, "http.response.zerocopysend"},
        {PN_ASGI_EARLY_HINT, "http.response.early_hint"},
        {PN_ASGI_DEBUG, "http.response.debug"},
    };
    static const struct extension ws[] = {
        {PN_ASGI_WEBSOCKET_RESPONSE, "websocket.http.response"},
    };
    asgi->extensions = make_extensions(asgi->config.extensions, http, PN_ARRAY_LEN(http));
    asgi->ws_extensions = make_extensions(asgi->config.extensions, ws, PN_ARRAY_LEN(ws));
    return asgi->extensions && asgi->ws_extensions ? 0 : -1;
}

/* New, of an http template. */
static PyObject *make_ws_template(struct pn__asgi *asgi, PyObject *http)
{
    PyObject **w = asgi->words;
    PyObject *scope = PyDict_Copy(http);
    if (scope && PyDict_SetItem(scope, w[PN__A_TYPE], w[PN__A_WEBSOCKET]) == 0 &&
        PyDict_SetItem(scope, w[PN__A_SCHEME], w[PN__A_WS]) == 0 &&
        PyDict_DelItem(scope, w[PN__A_METHOD]) == 0 &&
        PyDict_SetItem(scope, w[PN__A_SUBPROTOCOLS], Py_None) == 0)
        return scope;
    Py_XDECREF(scope);
    return NULL;
}

int pn__asgi_scope_init(struct pn_gateway *gw, struct pn__asgi *asgi)
{
    PyObject **w = asgi->words;
    asgi->no_more = PyDict_New();
    asgi->request = PyDict_New();
    asgi->servers = pn_xcalloc(gw->server_count, sizeof *asgi->servers);
    if (put_extensions(asgi) < 0 || !asgi->no_more || !asgi->request ||
        PyDict_SetItem(asgi->no_more, w[PN__A_TYPE], w[PN__A_DISCONNECT]) < 0 ||
        PyDict_SetItem(asgi->request, w[PN__A_TYPE], w[PN__A_REQUEST]) < 0 ||
        PyDict_SetItem(asgi->request, w[PN__A_BODY], asgi->no_bytes) < 0 ||
        PyDict_SetItem(asgi->request, w[PN__A_MORE_BODY], Py_False) < 0)
        return -1;
    for (size_t i = 0; i < gw->server_count; i++) {
        struct pn__asgi_server *s = &asgi->servers[i];
        s->address = server_address(gw, i);
        s->scope = s->address ? make_template(asgi, s->address) : NULL;
        s->websocket = s->scope ? make_ws_template(asgi, s->scope) : NULL;
        if (!s->websocket)
            return -1;
    }
    return 0;
}

void pn__asgi_scope_fini(struct pn_gateway *gw, struct pn__asgi *asgi)
{
    for (size_t i = 0; asgi->servers && i < gw->server_count; i++) {
        Py_CLEAR(asgi->servers[i].scope);
        Py_CLEAR(asgi->servers[i].websocket);
        Py_CLEAR(asgi->servers[i].address);
    }
    free(asgi->servers);
    asgi->servers = NULL;
    Py_CLEAR(asgi->extensions);
    Py_CLEAR(asgi->ws_extensions);
    Py_CLEAR(asgi->no_more);
    Py_CLEAR(asgi->request);
}

/* --- The request ------------------------------------------------------------------------------- */

/* The path as text: percent-decoded UTF-8; what is none becomes U+FFFD. */
static PyObject *decoded_path(const struct pn__asgi *asgi, struct pn_str path)
{
    char small[PATH_STACK_SIZE];
    size_t root = asgi->root_len;
    char *text = small;
    if (root + path.n > sizeof small && !(text = pn_try_malloc(root + path.n)))
        return PyErr_NoMemory();
    memcpy(text, asgi->config.root_path, root);
    PyObject *str = NULL;
    ptrdiff_t n = pn_h1_target_decode(path.p, path.n, text + root);
    if (n >= 0)
        str = PyUnicode_DecodeUTF8(text, (Py_ssize_t)root + n, "replace");
    else
        PyErr_SetString(PyExc_ValueError, "a path with a bad escape"); /* the wire refuses it */
    if (text != small)
        free(text);
    return str;
}

/* The path as it came, behind the root path. */
static PyObject *prefixed(const struct pn__asgi *asgi, struct pn_str path)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(asgi->root_len + path.n));
    if (bytes) {
        memcpy(PyBytes_AS_STRING(bytes), asgi->config.root_path, asgi->root_len);
        memcpy(PyBytes_AS_STRING(bytes) + asgi->root_len, path.p, path.n);
    }
    return bytes;
}

static int put_target(const struct pn__asgi *asgi, const struct pn_exchange *x, PyObject *scope)
{
    struct pn_str path = pn_exchange_text(x, x->path);
    struct pn_str query = pn_exchange_text(x, x->query);
    PyObject *const *w = asgi->words;
    if (query.n && put(scope, w[PN__A_QUERY_STRING], bytes_of(query)) < 0)
        return -1;
    if (path.n == 1 && path.p[0] == '/')
        return 0;
    PyObject *raw = asgi->root_len ? prefixed(asgi, path) : bytes_of(path);
    if (put(scope, w[PN__A_RAW_PATH], raw) < 0)
        return -1;
    if (asgi->root_len || memchr(path.p, '%', path.n))
        return put(scope, w[PN__A_PATH], decoded_path(asgi, path));
    return put(scope, w[PN__A_PATH], PyUnicode_DecodeUTF8(path.p, (Py_ssize_t)path.n, "replace"));
}

static int put_peer(struct pn_gateway *gw, const struct pn_exchange *x, struct pn__peer *peer,
                    PyObject *scope)
{
    if (x->peer->is_unix)
        return 0; /* None: the template has it */
    if (pn_unlikely(!peer->client)) {
        peer->client = Py_BuildValue("(OI)", peer->address, (unsigned)x->peer->port);
        if (!peer->client)
            return -1;
    }
    return PyDict_SetItem(scope, gw->asgi->words[PN__A_CLIENT], peer->client);
}

/* The client's list, in its order. New. */
static PyObject *subprotocols(const struct pn_exchange *x)
{
    PyObject *all = PyList_New(0);
    for (unsigned i = 0; all && i < x->header_count; i++) {
        struct pn_http_list list = {pn_header_value(x, &x->headers[i])};
        struct pn_str item;
        if (x->headers[i].id != PN_HEADER_SEC_WEBSOCKET_PROTOCOL)
            continue;
        while (all && pn_http_list_next(&list, &item)) {
            PyObject *name = pn__latin1(item);
            if (!name || PyList_Append(all, name) < 0)
                Py_CLEAR(all);
            Py_XDECREF(name);
        }
    }
    return all;
}

static int put_odd(struct pn_gateway *gw, const struct pn_exchange *x, bool websocket,
                   PyObject *scope)
{
    PyObject **w = gw->asgi->words;
    struct pn_str method = pn_exchange_text(x, x->method);
    if (websocket) {
        if (put(scope, w[PN__A_SUBPROTOCOLS], subprotocols(x)) < 0)
            return -1;
    } else if (!(method.n == 3 && memcmp(method.p, "GET", 3) == 0) &&
               put(scope, w[PN__A_METHOD], pn__value(gw, PN_HEADER_CONNECTION, method)) < 0)
        return -1;
    if (!(x->version_major == 1 && x->version_minor == 1) &&
        PyDict_SetItem(scope, w[PN__A_HTTP_VERSION],
                       w[x->version_major == 1 ? PN__A_HTTP_1_0 : PN__A_HTTP_2]) < 0)
        return -1;
    if (x->scheme_https &&
        PyDict_SetItem(scope, w[PN__A_SCHEME], w[websocket ? PN__A_WSS : PN__A_HTTPS]) < 0)
        return -1;
    if (gw->asgi->state && put(scope, w[PN__A_STATE], PyDict_Copy(gw->asgi->state)) < 0)
        return -1;
    return put(scope, w[PN__A_EXTENSIONS],
               PyDict_Copy(websocket ? gw->asgi->ws_extensions : gw->asgi->extensions));
}

/* What our own proxies say, over what the connection says. */
static int put_forwarded(struct pn_gateway *gw, const struct pn_exchange *x, PyObject *server,
                         bool websocket, PyObject *scope)
{
    PyObject **w = gw->asgi->words;
    PyObject *plain = w[websocket ? PN__A_WS : PN__A_HTTP];
    PyObject *secure = w[websocket ? PN__A_WSS : PN__A_HTTPS];
    struct pn__forwarded f;
    bool unused = false;
    pn__forwarded_find(gw, x, &f);
    if (f.address[0] && put(scope, w[PN__A_CLIENT], Py_BuildValue("(sI)", f.address, f.port)) < 0)
        return -1;
    if (f.scheme != PN__FORWARDED_NO_SCHEME &&
        PyDict_SetItem(scope, w[PN__A_SCHEME], f.scheme == PN__FORWARDED_HTTPS ? secure : plain) <
            0)
        return -1;
    if (f.host.n &&
        put(scope, w[PN__A_HEADERS], pn__asgi_headers(gw->asgi, x, f.host, &unused)) < 0)
        return -1;
    if (f.server_port)
        return put(scope, w[PN__A_SERVER],
                   Py_BuildValue("(OI)", PyTuple_GET_ITEM(server, 0), f.server_port));
    return 0;
}

PyObject *pn__asgi_scope(struct pn_gateway *gw, struct pn_exchange *x, bool websocket)
{
    struct pn__asgi *asgi = gw->asgi;
    bool forwarded = false;
    struct pn_str host = PN_STR_NONE;
    struct pn__peer *peer = pn__peer_of(gw, x->peer);
    const struct pn__asgi_server *server = peer ? &asgi->servers[peer->server] : NULL;
    PyObject *scope = NULL;
    if (pn_likely(server))
        scope = PyDict_Copy(pn_unlikely(websocket) ? server->websocket : server->scope);
    if (pn_unlikely(!scope))
        return NULL;
    /* An absolute target says the host itself, whatever Host says (RFC 9112 3.2.2). */
    if (pn_unlikely(x->authority.len && x->authority.off < x->target.off + x->target.len))
        host = pn_exchange_text(x, x->authority);
    if (put(scope, asgi->words[PN__A_HEADERS], pn__asgi_headers(asgi, x, host, &forwarded)) < 0 ||
        put_target(asgi, x, scope) < 0 || put_peer(gw, x, peer, scope) < 0 ||
        put_odd(gw, x, websocket, scope) < 0 ||
        (pn_unlikely(forwarded) && x->peer->trusted &&
         put_forwarded(gw, x, server->address, websocket, scope) < 0)) {
        Py_DECREF(scope);
        return NULL;
    }
    return scope;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A request's environ: a copy of a template that holds all that requests have in common, with what is
 * this request's own put over it.
 *
 * PyDict_Copy of a dict that nothing was deleted from clones its table, spare room included, so the
 * template's table decides that a usual request never makes the dict grow. Built by the loop's owner
 * with the collector held off: no Python code runs here, and the views of the exchange's text are
 * good throughout. */
#include <errno.h>
#include <stdio.h>

#include "gateway/internal.h"
#include "http/h1_target.h"

enum { PATH_STACK_SIZE = 1024 };

/* Steals VALUE, which may be NULL after a failure. */
static inline int put(PyObject *env, PyObject *key, PyObject *value)
{
    if (pn_unlikely(!value))
        return -1;
    int rc = PyDict_SetItem(env, key, value);
    Py_DECREF(value);
    return rc;
}

/* --- Templates --- */

static int put_word(struct pn_gateway *gw, PyObject *env, enum pn__word key, enum pn__word value)
{
    return PyDict_SetItem(env, gw->words[key], gw->words[value]);
}

/* What depends on nothing but the gateway. */
static int fill_common(struct pn_gateway *gw, PyObject *env)
{
    PyObject **w = gw->words;
    bool concurrent = gw->carrier != PN_CARRIER_INLINE;
    char node[256] = "";
    (void)gethostname(node, sizeof node - 1);
    if (put_word(gw, env, PN__W_REQUEST_METHOD, PN__W_GET) < 0 ||
        put_word(gw, env, PN__W_SCRIPT_NAME, PN__W_EMPTY) < 0 ||
        put_word(gw, env, PN__W_PATH_INFO, PN__W_SLASH) < 0 ||
        put_word(gw, env, PN__W_QUERY_STRING, PN__W_EMPTY) < 0 ||
        put_word(gw, env, PN__W_REQUEST_URI, PN__W_SLASH) < 0 ||
        put_word(gw, env, PN__W_SERVER_PROTOCOL, PN__W_HTTP_1_1) < 0 ||
        put_word(gw, env, PN__W_REMOTE_ADDR, PN__W_EMPTY) < 0 ||
        put_word(gw, env, PN__W_REMOTE_PORT, PN__W_EMPTY) < 0 ||
        put_word(gw, env, PN__W_URL_SCHEME, PN__W_HTTP) < 0)
        return -1;
    if (PyDict_SetItem(env, w[PN__W_INPUT], gw->no_input) < 0 ||
        PyDict_SetItem(env, w[PN__W_INPUT_TERMINATED], Py_True) < 0 ||
        PyDict_SetItem(env, w[PN__W_ERRORS], gw->errors) < 0 ||
        PyDict_SetItem(env, w[PN__W_MULTITHREAD], concurrent ? Py_True : Py_False) < 0 ||
        PyDict_SetItem(env, w[PN__W_MULTIPROCESS], gw->processes > 1 ? Py_True : Py_False) < 0 ||
        PyDict_SetItem(env, w[PN__W_RUN_ONCE], Py_False) < 0 ||
        PyDict_SetItem(env, w[PN__W_FILE_WRAPPER], (PyObject *)gw->types.file_wrapper) < 0)
        return -1;
    if (put(env, w[PN__W_WSGI_VERSION], Py_BuildValue("(ii)", 1, 0)) < 0 ||
        put(env, w[PN__W_SERVER_SOFTWARE], PyUnicode_FromString("pelton/" PELTON_VERSION)) < 0 ||
        put(env, w[PN__W_UWSGI_VERSION], PyBytes_FromString("2.0.0-pelton-" PELTON_VERSION)) < 0 ||
        put(env, w[PN__W_UWSGI_NODE], PyBytes_FromString(node)) < 0)
        return -1;
    return 0;
}

static PyObject *make_template(struct pn_gateway *gw, const struct pn_gateway_server *server)
{
    bool named = server->name && server->name[0];
    /* Grown entry by entry: that leaves the fast kind of table, for str keys only, and with 22 entries
     * or more room for 42 (tests/gateway checks it). _PyDict_NewPresized makes the other kind. */
    PyObject *env = PyDict_New();
    if (!env)
        return NULL;
    /* PEP 3333: neither may be empty, also for a unix socket, which has no host and no port. */
    if (fill_common(gw, env) < 0 ||
        put(env, gw->words[PN__W_SERVER_NAME],
            PyUnicode_FromString(named ? server->name : "localhost")) < 0 ||
        put(env, gw->words[PN__W_SERVER_PORT],
            PyUnicode_FromFormat("%u", server->port ? server->port : 80U)) < 0)
        Py_CLEAR(env);
    return env;
}

int pn__environ_init(struct pn_gateway *gw, const struct pn_gateway_config *config)
{
    pn__blocks_init(gw);
    gw->servers = pn_xcalloc(config->server_count, sizeof *gw->servers);
    gw->server_count = config->server_count;
    for (size_t i = 0; i < config->server_count; i++) {
        gw->servers[i].listener = config->servers[i].listener;
        if (config->servers[i].unix_path)
            gw->servers[i].unix_path = pn_xstrdup(config->servers[i].unix_path);
        gw->servers[i].environ = make_template(gw, &config->servers[i]);
        if (!gw->servers[i].environ)
            return -1;
    }
    return 0;
}

void pn__environ_fini(struct pn_gateway *gw)
{
    pn__blocks_fini(gw);
    for (size_t i = 0; i < gw->server_count; i++) {
        Py_CLEAR(gw->servers[i].environ);
        free(gw->servers[i].unix_path);
    }
    free(gw->servers);
    gw->servers = NULL;
    gw->server_count = 0;
}

/* --- What a connection's requests have in common --- */

static size_t server_of(const struct pn_gateway *gw, const struct pn_listener *listener)
{
    for (size_t i = 1; i < gw->server_count; i++)
        if (gw->servers[i].listener == listener)
            return i;
    return 0;
}

struct pn__peer *pn__peer_of(struct pn_gateway *gw, struct pn_peer *peer)
{
    if (pn_likely(peer->handler_cache))
        return peer->handler_cache;
    struct pn__peer *p = pn_try_malloc(sizeof *p);
    if (!p) {
        PyErr_NoMemory();
        return NULL;
    }
    char port[20];
    size_t n = peer->port ? pn_u64_format(peer->port, port) : 0;
    /* Many connections come from one address: of one client, or a proxy. */
    p->address = pn__value(gw, PN_HEADER_HOST, (struct pn_str){peer->address, peer->address_len});
    p->port = pn__latin1((struct pn_str){port, n});
    p->server = server_of(gw, peer->listener);
    p->environ = gw->servers[p->server].environ;
    p->client = NULL;
    p->block = NULL;
    p->dropped = NULL;
    if (!p->address || !p->port) {
        Py_XDECREF(p->address);
        Py_XDECREF(p->port);
        free(p);
        return NULL;
    }
    peer->handler_cache = p;
    return p;
}

static void free_peer(struct pn__peer *p)
{
    Py_DECREF(p->address);
    Py_DECREF(p->port);
    Py_XDECREF(p->client);
    free(p);
}

void pn__peers_free_dropped(struct pn_gateway *gw)
{
    while (gw->dropped_peers) {
        struct pn__peer *p = gw->dropped_peers;
        gw->dropped_peers = p->dropped;
        free_peer(p);
    }
}

/* Owner, perhaps detached (a follower that closes): then somebody who is attached frees it later. */
void pn__peer_gone(struct pn_handler *h, struct pn_peer *peer)
{
    struct pn_gateway *gw = pn_container_of(h, struct pn_gateway, handler);
    struct pn__peer *p = peer->handler_cache;
    if (!p)
        return;
    peer->handler_cache = NULL;
    p->dropped = gw->dropped_peers;
    gw->dropped_peers = p;
    if (pn_pycompat_current())
        pn__peers_free_dropped(gw);
}

/* --- The request --- */

/* PEP 3333 has path text as latin-1 of the decoded bytes. */
static PyObject *decoded_path(struct pn_str path)
{
    char small[PATH_STACK_SIZE];
    if (!memchr(path.p, '%', path.n))
        return pn__latin1(path);
    char *text = path.n <= sizeof small ? small : pn_try_malloc(path.n);
    if (!text)
        return PyErr_NoMemory();
    PyObject *str = NULL;
    ptrdiff_t n = pn_h1_target_decode(path.p, path.n, text);
    if (n >= 0)
        str = PyUnicode_DecodeLatin1(text, n, NULL);
    else
        PyErr_SetString(PyExc_ValueError, "a path with a bad escape"); /* the wire refuses it */
    if (text != small)
        free(text);
    return str;
}

static int put_target(struct pn_gateway *gw, const struct pn_exchange *x, PyObject *env)
{
    struct pn_str target = pn_exchange_text(x, x->target);
    struct pn_str path = pn_exchange_text(x, x->path);
    struct pn_str query = pn_exchange_text(x, x->query);
    PyObject **w = gw->words;
    PyObject *uri = NULL;
    if (query.n && put(env, w[PN__W_QUERY_STRING], pn__latin1(query)) < 0)
        return -1;
    if (path.n > 1 || (path.n == 1 && path.p[0] != '/')) {
        PyObject *str = decoded_path(path);
        /* Most targets are just their path: one string for both keys. */
        if (str && target.n == path.n && (size_t)PyUnicode_GET_LENGTH(str) == path.n)
            uri = Py_NewRef(str);
        if (put(env, w[PN__W_PATH_INFO], str) < 0) {
            Py_XDECREF(uri);
            return -1;
        }
    }
    if (!uri && target.n == 1 && target.p[0] == '/')
        return 0;
    return put(env, w[PN__W_REQUEST_URI], uri ? uri : pn__latin1(target));
}

/* The second and later lines of one name: joined as RFC 9110 5.3 has it. Cookies join by "; " (RFC
 * 9113 8.2.3); a second Content-Type or Content-Length does not get past the wire. */
static int join_header(PyObject *env, PyObject *key, unsigned id, struct pn_str value)
{
    PyObject *old = PyDict_GetItemWithError(env, key); /* borrowed */
    if (!old)
        return PyErr_Occurred() ? -1 : put(env, key, pn__latin1(value));
    PyObject *more = pn__latin1(value);
    if (!more)
        return -1;
    PyObject *both = PyUnicode_FromFormat(id == PN_HEADER_COOKIE ? "%U; %U" : "%U, %U", old, more);
    Py_DECREF(more);
    return put(env, key, both);
}

static int put_other(struct pn_gateway *gw, PyObject *env, struct pn_str name, struct pn_str value,
                     bool *joined)
{
    PyObject *key = pn__other_key(gw, name);
    if (!key)
        return -1;
    int rc = PyDict_Contains(env, key);
    *joined |= rc > 0;
    if (rc > 0)
        rc = join_header(env, key, PN_HEADER_OTHER, value);
    else if (rc == 0)
        rc = put(env, key, pn__latin1(value));
    Py_DECREF(key);
    return rc;
}

/* *FORWARDED: a header of that family is among them. *JOINED: there were two lines of one name. */
static int put_headers(struct pn_gateway *gw, const struct pn_exchange *x, PyObject *env,
                       bool *forwarded, bool *joined)
{
    uint64_t seen[(PN_HEADER_COUNT + 63) / 64] = {0};
    const struct pn_header *h = x->headers;
    const struct pn_header *end = h + x->header_count;
    for (; h < end; h++) {
        unsigned id = h->id;
        struct pn_str value = pn_header_value(x, h);
        int rc;
        if (pn_likely(id > PN_HEADER_UNUSUAL)) {
            PyObject *key = gw->keys[id]; /* borrowed */
            uint64_t bit = UINT64_C(1) << (id & 63);
            if (!key)
                continue;
            if (pn_likely(!(seen[id >> 6] & bit))) {
                rc = put(env, key, pn__value(gw, id, value));
            } else {
                rc = join_header(env, key, id, value);
                *joined = true;
            }
            seen[id >> 6] |= bit;
        } else if (id == PN_HEADER_OTHER) {
            rc = put_other(gw, env, pn_header_name(x, h), value, joined);
        } else {
            continue; /* X_Real_IP and X-Real-IP would be one key */
        }
        if (pn_unlikely(rc < 0))
            return -1;
    }
    PN_STATIC_ASSERT(PN_HEADER_FORWARDED < 64 && PN_HEADER_X_FORWARDED_FOR >= 64 &&
                         PN_HEADER_COUNT <= 128,
                     "the two words of seen");
    *forwarded =
        (seen[0] >> PN_HEADER_FORWARDED & 1) || (seen[1] >> (PN_HEADER_X_FORWARDED_FOR - 64));
    return 0;
}

static int put_odd(struct pn__request *r, PyObject *env)
{
    const struct pn_exchange *x = r->x;
    struct pn_gateway *gw = r->gw;
    struct pn_str method = pn_exchange_text(x, x->method);
    if (!(method.n == 3 && memcmp(method.p, "GET", 3) == 0) &&
        put(env, gw->words[PN__W_REQUEST_METHOD], pn__value(gw, PN_HEADER_CONNECTION, method)) < 0)
        return -1;
    if (!(x->version_major == 1 && x->version_minor == 1) &&
        put_word(gw, env, PN__W_SERVER_PROTOCOL,
                 x->version_major == 1 ? PN__W_HTTP_1_0 : PN__W_HTTP_2) < 0)
        return -1;
    /* An absolute target says the host itself, whatever Host says (RFC 9112 3.2.2). */
    if (pn_unlikely(x->authority.len && x->authority.off < x->target.off + x->target.len) &&
        put(env, gw->words[PN__W_HTTP_HOST], pn__latin1(pn_exchange_text(x, x->authority))) < 0)
        return -1;
    if (x->scheme_https && put_word(gw, env, PN__W_URL_SCHEME, PN__W_HTTPS) < 0)
        return -1;
    if (!x->has_body)
        return 0;
    r->input = pn__input_new(gw, r);
    return r->input ? PyDict_SetItem(env, gw->words[PN__W_INPUT], r->input) : -1;
}

/* All but what is this request's own: new; NULL with an exception. */
static PyObject *common_part(struct pn_gateway *gw, struct pn__peer *peer,
                             const struct pn_exchange *x, bool *forwarded)
{
    bool joined = false;
    PyObject *env = pn__block_copy(gw, peer, x, forwarded);
    if (pn_likely(env))
        return env;
    env = PyDict_Copy(peer->environ);
    if (!env)
        return NULL;
    if (PyDict_SetItem(env, gw->words[PN__W_REMOTE_ADDR], peer->address) < 0 ||
        PyDict_SetItem(env, gw->words[PN__W_REMOTE_PORT], peer->port) < 0 ||
        put_headers(gw, x, env, forwarded, &joined) < 0) {
        Py_DECREF(env);
        return NULL;
    }
    if (!joined)
        pn__block_keep(gw, peer, x, env, *forwarded);
    return env;
}

PyObject *pn__environ_build(struct pn__request *r)
{
    struct pn_gateway *gw = r->gw;
    struct pn_exchange *x = r->x;
    bool forwarded = false;
    struct pn__peer *peer = pn__peer_of(gw, x->peer);
    if (!peer)
        return NULL;
    PyObject *env = common_part(gw, peer, x, &forwarded);
    if (!env)
        return NULL;
    if (put_target(gw, x, env) < 0 || put_odd(r, env) < 0)
        goto fail;
    if (pn_unlikely(forwarded) && x->peer->trusted && pn__forwarded_apply(r, env) < 0)
        goto fail;
    return env;
fail:
    Py_DECREF(env);
    return NULL;
}

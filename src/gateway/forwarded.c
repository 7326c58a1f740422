/* SPDX-License-Identifier: Apache-2.0 */
/* X-Forwarded-* and Forwarded (RFC 7239) of a peer that is one of our own proxies.
 *
 * REMOTE_ADDR becomes the right-most hop that is not a proxy of ours: each proxy appends whom it saw,
 * so everything left of the first stranger is his own claim. Scheme and host come from the same hop
 * where their lists are as long as the list of hops, else from the nearest proxy (the last value).
 * When X-Forwarded-* is there, Forwarded is not looked at: a proxy that writes the one passes the
 * client's other one on. The headers themselves stay in environ as they came. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "gateway/internal.h"
#include "http/h1_target.h"
#include "http/http_token.h"

enum { HOPS_MAX = 32 }; /* more of them: the nearest ones count */

/* The last HOPS_MAX items of a list, reached from its end. */
struct items {
    struct pn_str item[HOPS_MAX];
    size_t total;
};

struct address {
    struct sockaddr_storage storage;
    socklen_t len;
    char text[INET6_ADDRSTRLEN];
    unsigned port; /* 0: none given */
};

static size_t items_count(const struct items *l)
{
    return pn_min_size(l->total, HOPS_MAX);
}

/* FROM_END 0 is the last one. */
static struct pn_str items_at(const struct items *l, size_t from_end)
{
    return l->item[(l->total - 1 - from_end) % HOPS_MAX];
}

static void collect(const struct pn_exchange *x, unsigned id, struct items *out)
{
    out->total = 0;
    for (unsigned i = 0; i < x->header_count; i++) {
        if (x->headers[i].id != id)
            continue;
        struct pn_http_list list = {pn_header_value(x, &x->headers[i])};
        struct pn_str item;
        while (pn_http_list_next(&list, &item))
            out->item[out->total++ % HOPS_MAX] = item;
    }
}

static struct pn_str unquoted(struct pn_str s)
{
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
        return (struct pn_str){s.p + 1, s.n - 2};
    return s;
}

/* "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80"; false for anything else, as "unknown"
 * or "_hidden" of RFC 7239. */
static bool parse_address(struct pn_str s, struct address *out)
{
    char host[INET6_ADDRSTRLEN];
    struct pn_str name = s;
    struct pn_str port = PN_STR_NONE;
    const char *colon = s.n ? memchr(s.p, ':', s.n) : NULL;
    if (s.n && s.p[0] == '[') {
        const char *close = memchr(s.p, ']', s.n);
        if (!close)
            return false;
        name = (struct pn_str){s.p + 1, (size_t)(close - s.p) - 1};
        port = (struct pn_str){close + 1, s.n - name.n - 2};
    } else if (colon && !memchr(colon + 1, ':', s.n - (size_t)(colon + 1 - s.p))) {
        name.n = (size_t)(colon - s.p);
        port = (struct pn_str){colon, s.n - name.n};
    }
    uint64_t number = 0;
    if (port.n && (port.p[0] != ':' ||
                   pn_str_to_u64((struct pn_str){port.p + 1, port.n - 1}, 65535, &number) < 0))
        return false;
    if (!name.n || name.n >= sizeof host)
        return false;
    memcpy(host, name.p, name.n);
    host[name.n] = '\0';
    *out = (struct address){.port = (unsigned)number};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&out->storage;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        out->len = sizeof *v4;
        return inet_ntop(AF_INET, &v4->sin_addr, out->text, sizeof out->text) != NULL;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    out->len = sizeof *v6;
    return inet_ntop(AF_INET6, &v6->sin6_addr, out->text, sizeof out->text) != NULL;
}

/* Which hop is the client, from the end; -1: none can be told. *OUT is its address then. */
static int find_client(const struct pn_gateway *gw, const struct items *hops, struct address *out)
{
    int best = -1;
    for (size_t i = 0; i < items_count(hops); i++) {
        struct address a;
        if (!parse_address(unquoted(items_at(hops, i)), &a))
            break;
        *out = a;
        best = (int)i;
        if (!gw->is_trusted || !gw->is_trusted(gw->trust_ctx, (struct sockaddr *)&a.storage, a.len))
            break;
    }
    return best;
}

static void set_client(struct pn__forwarded *out, const struct address *a)
{
    PN_STATIC_ASSERT(sizeof out->address >= sizeof a->text, "any address fits");
    memcpy(out->address, a->text, sizeof a->text);
    /* The port of the connection is the proxy's; 0 says that the client's is not known. */
    out->port = a->port;
}

static void set_scheme(struct pn__forwarded *out, struct pn_str proto)
{
    if (pn_str_eq_nocase(proto, PN_STR("https")) || pn_str_eq_nocase(proto, PN_STR("wss")))
        out->scheme = PN__FORWARDED_HTTPS;
    else if (pn_str_eq_nocase(proto, PN_STR("http")) || pn_str_eq_nocase(proto, PN_STR("ws")))
        out->scheme = PN__FORWARDED_HTTP;
}

static void set_host(struct pn__forwarded *out, struct pn_str host)
{
    if (host.n && pn_h1_host_valid(host))
        out->host = host;
}

static void set_port(struct pn__forwarded *out, struct pn_str port)
{
    uint64_t number;
    if (pn_str_to_u64(port, 65535, &number) == 0)
        out->server_port = (unsigned)number;
}

/* The value that belongs to hop BEST of HOPS. */
static struct pn_str value_of(const struct items *values, const struct items *hops, int best)
{
    if (!values->total)
        return PN_STR_NONE;
    bool parallel = best > 0 && values->total == hops->total;
    return unquoted(items_at(values, parallel ? (size_t)best : 0));
}

/* Whether there were such headers. */
static bool find_x_forwarded(const struct pn_gateway *gw, const struct pn_exchange *x,
                             struct pn__forwarded *out)
{
    struct items hops, protos, hosts, ports, ssl;
    struct address client;
    collect(x, PN_HEADER_X_FORWARDED_FOR, &hops);
    collect(x, PN_HEADER_X_FORWARDED_PROTO, &protos);
    collect(x, PN_HEADER_X_FORWARDED_HOST, &hosts);
    collect(x, PN_HEADER_X_FORWARDED_PORT, &ports);
    collect(x, PN_HEADER_X_FORWARDED_SSL, &ssl);
    if (!(hops.total + protos.total + hosts.total + ports.total + ssl.total))
        return false;
    int best = find_client(gw, &hops, &client);
    if (best >= 0)
        set_client(out, &client);
    struct pn_str proto = value_of(&protos, &hops, best);
    if (!proto.n && ssl.total && pn_str_eq_nocase(items_at(&ssl, 0), PN_STR("on")))
        proto = PN_STR("https");
    set_scheme(out, proto);
    set_host(out, value_of(&hosts, &hops, best));
    set_port(out, value_of(&ports, &hops, best));
    return true;
}

/* The value of parameter NAME in one element of Forwarded: for=..;proto=..;host=.. */
static struct pn_str parameter(struct pn_str element, struct pn_str name)
{
    while (element.n) {
        bool quoted = false;
        size_t n = 0;
        while (n < element.n && (quoted || element.p[n] != ';')) {
            if (element.p[n] == '"')
                quoted = !quoted;
            n++;
        }
        struct pn_str pair = pn_http_trim((struct pn_str){element.p, n});
        const char *equals = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
        if (equals) {
            struct pn_str key = {pair.p, (size_t)(equals - pair.p)};
            if (pn_str_eq_nocase(key, name))
                return unquoted((struct pn_str){equals + 1, pair.n - key.n - 1});
        }
        n = pn_min_size(n + 1, element.n);
        element = (struct pn_str){element.p + n, element.n - n};
    }
    return PN_STR_NONE;
}

static void find_forwarded(const struct pn_gateway *gw, const struct pn_exchange *x,
                           struct pn__forwarded *out)
{
    struct items elements, hops;
    struct address client;
    collect(x, PN_HEADER_FORWARDED, &elements);
    if (!elements.total)
        return;
    hops.total = elements.total;
    for (size_t i = 0; i < HOPS_MAX && i < elements.total; i++)
        hops.item[i] = parameter(elements.item[i], PN_STR("for"));
    int best = find_client(gw, &hops, &client);
    if (best >= 0)
        set_client(out, &client);
    struct pn_str element = items_at(&elements, best > 0 ? (size_t)best : 0);
    set_scheme(out, parameter(element, PN_STR("proto")));
    set_host(out, parameter(element, PN_STR("host")));
}

void pn__forwarded_find(const struct pn_gateway *gw, const struct pn_exchange *x,
                        struct pn__forwarded *out)
{
    *out = (struct pn__forwarded){.host = PN_STR_NONE};
    if (!find_x_forwarded(gw, x, out))
        find_forwarded(gw, x, out);
}

/* --- environ ----------------------------------------------------------------------------------- */

static int put(PyObject *env, PyObject *key, PyObject *value)
{
    if (!value)
        return -1;
    int rc = PyDict_SetItem(env, key, value);
    Py_DECREF(value);
    return rc;
}

int pn__forwarded_apply(struct pn__request *r, PyObject *env)
{
    PyObject **w = r->gw->words;
    struct pn__forwarded f;
    pn__forwarded_find(r->gw, r->x, &f);
    if (f.address[0] && (put(env, w[PN__W_REMOTE_ADDR], PyUnicode_FromString(f.address)) < 0 ||
                         put(env, w[PN__W_REMOTE_PORT], PyUnicode_FromFormat("%u", f.port)) < 0))
        return -1;
    if (f.scheme != PN__FORWARDED_NO_SCHEME) {
        enum pn__word word = f.scheme == PN__FORWARDED_HTTPS ? PN__W_HTTPS : PN__W_HTTP;
        if (PyDict_SetItem(env, w[PN__W_URL_SCHEME], w[word]) < 0)
            return -1;
    }
    if (f.host.n && put(env, w[PN__W_HTTP_HOST], pn__latin1(f.host)) < 0)
        return -1;
    if (f.server_port)
        return put(env, w[PN__W_SERVER_PORT], PyUnicode_FromFormat("%u", f.server_port));
    return 0;
}

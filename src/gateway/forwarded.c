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

static int put(PyObject *env, PyObject *key, PyObject *value)
{
    if (!value)
        return -1;
    int rc = PyDict_SetItem(env, key, value);
    Py_DECREF(value);
    return rc;
}

static int put_client(struct pn_gateway *gw, PyObject *env, const struct address *a)
{
    /* The port of the connection is the proxy's; "0" says that the client's is not known. */
    if (put(env, gw->words[PN__W_REMOTE_ADDR], PyUnicode_FromString(a->text)) < 0)
        return -1;
    return put(env, gw->words[PN__W_REMOTE_PORT], PyUnicode_FromFormat("%u", a->port));
}

static int put_scheme(struct pn_gateway *gw, PyObject *env, struct pn_str proto)
{
    enum pn__word word;
    if (pn_str_eq_nocase(proto, PN_STR("https")) || pn_str_eq_nocase(proto, PN_STR("wss")))
        word = PN__W_HTTPS;
    else if (pn_str_eq_nocase(proto, PN_STR("http")) || pn_str_eq_nocase(proto, PN_STR("ws")))
        word = PN__W_HTTP;
    else
        return 0;
    return PyDict_SetItem(env, gw->words[PN__W_URL_SCHEME], gw->words[word]);
}

static int put_host(struct pn_gateway *gw, PyObject *env, struct pn_str host)
{
    if (!host.n || !pn_h1_host_valid(host))
        return 0;
    return put(env, gw->words[PN__W_HTTP_HOST], pn__latin1(host));
}

static int put_port(struct pn_gateway *gw, PyObject *env, struct pn_str port)
{
    uint64_t number;
    if (pn_str_to_u64(port, 65535, &number) < 0 || number == 0)
        return 0;
    return put(env, gw->words[PN__W_SERVER_PORT], PyUnicode_FromFormat("%u", (unsigned)number));
}

/* The value that belongs to hop BEST of HOPS. */
static struct pn_str value_of(const struct items *values, const struct items *hops, int best)
{
    if (!values->total)
        return PN_STR_NONE;
    bool parallel = best > 0 && values->total == hops->total;
    return unquoted(items_at(values, parallel ? (size_t)best : 0));
}

/* 1: there were such headers, 0: there were none, -1 with an exception. */
static int apply_x_forwarded(struct pn__request *r, PyObject *env)
{
    struct pn_gateway *gw = r->gw;
    struct items hops, protos, hosts, ports, ssl;
    struct address client;
    collect(r->x, PN_HEADER_X_FORWARDED_FOR, &hops);
    collect(r->x, PN_HEADER_X_FORWARDED_PROTO, &protos);
    collect(r->x, PN_HEADER_X_FORWARDED_HOST, &hosts);
    collect(r->x, PN_HEADER_X_FORWARDED_PORT, &ports);
    collect(r->x, PN_HEADER_X_FORWARDED_SSL, &ssl);
    if (!(hops.total + protos.total + hosts.total + ports.total + ssl.total))
        return 0;
    int best = find_client(gw, &hops, &client);
    if (best >= 0 && put_client(gw, env, &client) < 0)
        return -1;
    struct pn_str proto = value_of(&protos, &hops, best);
    if (!proto.n && ssl.total && pn_str_eq_nocase(items_at(&ssl, 0), PN_STR("on")))
        proto = PN_STR("https");
    if (put_scheme(gw, env, proto) < 0 || put_host(gw, env, value_of(&hosts, &hops, best)) < 0 ||
        put_port(gw, env, value_of(&ports, &hops, best)) < 0)
        return -1;
    return 1;
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

static int apply_forwarded(struct pn__request *r, PyObject *env)
{
    struct pn_gateway *gw = r->gw;
    struct items elements, hops;
    struct address client;
    collect(r->x, PN_HEADER_FORWARDED, &elements);
    if (!elements.total)
        return 0;
    hops.total = elements.total;
    for (size_t i = 0; i < HOPS_MAX && i < elements.total; i++)
        hops.item[i] = parameter(elements.item[i], PN_STR("for"));
    int best = find_client(gw, &hops, &client);
    if (best >= 0 && put_client(gw, env, &client) < 0)
        return -1;
    struct pn_str element = items_at(&elements, best > 0 ? (size_t)best : 0);
    if (put_scheme(gw, env, parameter(element, PN_STR("proto"))) < 0)
        return -1;
    return put_host(gw, env, parameter(element, PN_STR("host")));
}

int pn__forwarded_apply(struct pn__request *r, PyObject *env)
{
    int rc = apply_x_forwarded(r, env);
    if (rc == 0)
        rc = apply_forwarded(r, env);
    return rc < 0 ? -1 : 0;
}

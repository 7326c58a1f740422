/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of h1_target.h. */
#include "http/h1_target.h"

#include <arpa/inet.h>
#include <errno.h>

#include "http/http_token.h"

enum {
    PORT_DIGITS_MAX = 5,
    PORT_MAX = 65535,
    IP_FUTURE_MAX = 255, /* nobody has given one out: as long as a name of DNS may be */
};

/* True when an escape stands at P[I]. */
static inline bool escape_at(const char *p, size_t n, size_t i)
{
    return n - i >= 3 && pn_http_is(p[i + 1], PN_HTTP_C_HEX) && pn_http_is(p[i + 2], PN_HTTP_C_HEX);
}

ptrdiff_t pn_h1_target_decode(const char *p, size_t n, char *out)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == '%') {
            if (!escape_at(p, n, i))
                return -EINVAL;
            c = (char)(pn_http_hex_value(p[i + 1]) << 4 | pn_http_hex_value(p[i + 2]));
            if (c == '\0')
                return -EINVAL;
            i += 2;
        }
        out[at++] = c;
    }
    return (ptrdiff_t)at;
}

/* Digits of a port after the colon; none is allowed (RFC 3986 3.2.3). */
static bool port_valid(struct pn_str s)
{
    unsigned value = 0;
    if (s.n > PORT_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!pn_http_is(s.p[i], PN_HTTP_C_DIGIT))
            return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    return value <= PORT_MAX;
}

/* S is what stands between the brackets. */
static bool ipv6_valid(struct pn_str s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (s.n == 0 || s.n >= sizeof(text) || memchr(s.p, '\0', s.n))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, &addr) == 1;
}

/* "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ), likewise: RFC 3986 3.2.2. */
static bool ip_future_valid(struct pn_str s)
{
    size_t i = 1;
    if (s.n > IP_FUTURE_MAX || s.n == 0 || (s.p[0] != 'v' && s.p[0] != 'V'))
        return false;
    while (i < s.n && pn_http_is(s.p[i], PN_HTTP_C_HEX))
        i++;
    if (i == 1 || i == s.n || s.p[i] != '.' || i + 1 == s.n)
        return false;
    for (i++; i < s.n; i++) {
        if (s.p[i] != ':' && !pn_http_is(s.p[i], PN_HTTP_C_HOST))
            return false;
    }
    return true;
}

/* The same for either. */
static bool ip_literal_valid(struct pn_str s)
{
    return ipv6_valid(s) || ip_future_valid(s);
}

bool pn_h1_host_valid(struct pn_str host)
{
    size_t i = 0;
    if (host.n == 0)
        return true;
    if (host.p[0] == '[') {
        const char *end = memchr(host.p, ']', host.n);
        if (!end || !ip_literal_valid((struct pn_str){host.p + 1, (size_t)(end - host.p - 1)}))
            return false;
        i = (size_t)(end - host.p) + 1;
    } else {
        for (; i < host.n && host.p[i] != ':'; i++) {
            if (pn_http_is(host.p[i], PN_HTTP_C_HOST))
                continue;
            if (host.p[i] != '%' || !escape_at(host.p, host.n, i))
                return false;
            i += 2;
        }
    }
    if (i == host.n)
        return true;
    return i > 0 && host.p[i] == ':' && port_valid((struct pn_str){host.p + i + 1, host.n - i - 1});
}

void pn_h1_host_split(struct pn_str host, struct pn_str *name, int *port)
{
    size_t i = host.n;
    int value = 0;
    /* A colon inside brackets is followed by the bracket that ends the name. */
    while (i > 0 && pn_http_is(host.p[i - 1], PN_HTTP_C_DIGIT))
        i--;
    *name = host;
    *port = -1;
    if (i == 0 || host.p[i - 1] != ':')
        return;
    name->n = i - 1;
    if (i == host.n)
        return;
    for (; i < host.n; i++)
        value = value * 10 + (host.p[i] - '0');
    *port = value;
}

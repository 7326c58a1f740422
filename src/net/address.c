/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as people write them. Parsed once, at start; every refusal is a sentence that names
 * the text. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

#include "base/str.h"
#include "net/listener.h"

enum { HOST_MAX = 255, PORT_MAX = 65535, FD_MAX = 1 << 20 };

struct error_text {
    char *text;
    size_t size;
};

static int fail(const struct error_text *err, int error, const char *address, const char *what)
{
    snprintf(err->text, err->size, "the address '%s' cannot be used: %s", address, what);
    return error;
}

static int parse_fd(const char *text, struct pn_address *out, const struct error_text *err)
{
    uint64_t fd;
    if (pn_str_to_u64(pn_str_of(text + 5), FD_MAX, &fd) < 0)
        return fail(err, -EINVAL, text, "fd:// is followed by the number of an open descriptor");
    out->kind = PN_ADDRESS_FD;
    out->fd = (int)fd;
    snprintf(out->text, sizeof(out->text), "fd://%d", out->fd);
    return 0;
}

/* PATH is a file's, or a name when ABSTRACT. */
static int parse_unix(const char *text, const char *path, bool abstract, struct pn_address *out,
                      const struct error_text *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&out->storage;
    size_t n = strlen(path);
    if (n == 0)
        return fail(err, -EINVAL, text,
                    abstract ? "'@' is followed by a name" : "'unix:' is followed by a path");
    /* A file's path keeps its NUL; an abstract name begins with one instead. */
    if (n + 1 > sizeof(un->sun_path))
        return fail(err, -ENAMETOOLONG, text,
                    "a unix socket's path may have at most 107 characters (a kernel limit)");
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path + abstract, path, n);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    out->kind = abstract ? PN_ADDRESS_ABSTRACT : PN_ADDRESS_UNIX;
    snprintf(out->text, sizeof(out->text), "%s%s", abstract ? "@" : "unix:", path);
    return 0;
}

static void format_inet(struct pn_address *a)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (a->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&a->storage;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(a->text, sizeof(a->text), "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const void *)&a->storage;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(a->text, sizeof(a->text), "%s:%u", host, ntohs(in->sin_port));
    }
}

static int resolve(const char *text, const char *host, unsigned port, bool is_ipv6,
                   struct pn_address *out, const struct error_text *err)
{
    char service[8];
    struct addrinfo hints = {
        .ai_family = is_ipv6 ? AF_INET6 : AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV | (is_ipv6 ? AI_NUMERICHOST : 0),
    };
    struct addrinfo *found = NULL;
    snprintf(service, sizeof(service), "%u", port);
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0) {
        char what[256];
        if (is_ipv6)
            snprintf(what, sizeof(what), "'%s' is no IPv6 address", host);
        else
            snprintf(what, sizeof(what), "the host name '%s' is not known (%s)", host,
                     gai_strerror(rc));
        return fail(err, -EINVAL, text, what);
    }
    memcpy(&out->storage, found->ai_addr, found->ai_addrlen);
    out->len = found->ai_addrlen;
    freeaddrinfo(found);
    format_inet(out);
    return 0;
}

static int parse_inet(const char *text, struct pn_address *out, const struct error_text *err)
{
    static const char form[] = "write HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH, @NAME or fd://N";
    struct pn_str host;
    const char *port_text;
    const char *colon = strrchr(text, ':');
    bool is_ipv6 = text[0] == '[';
    if (is_ipv6) {
        const char *close = strchr(text, ']');
        if (!close || close[1] != ':')
            return fail(err, -EINVAL, text, "an IPv6 address is written [ADDRESS]:PORT");
        host = (struct pn_str){text + 1, (size_t)(close - text - 1)};
        port_text = close + 2;
    } else if (colon) {
        host = (struct pn_str){text, (size_t)(colon - text)};
        port_text = colon + 1;
        if (memchr(host.p, ':', host.n))
            return fail(err, -EINVAL, text, "an IPv6 address needs brackets: [ADDRESS]:PORT");
    } else {
        host = PN_STR_NONE;
        port_text = text;
    }
    uint64_t port;
    if (pn_str_to_u64(pn_str_of(port_text), PORT_MAX, &port) < 0)
        return fail(err, -EINVAL, text,
                    colon ? "the port after the last ':' must be a number from 0 to 65535" : form);
    if (host.n > HOST_MAX)
        return fail(err, -EINVAL, text, "the host name is too long");
    if (is_ipv6 && host.n == 0)
        return fail(err, -EINVAL, text, "there is no address between the brackets");
    char name[HOST_MAX + 1];
    if (host.n == 0 || pn_str_eq(host, PN_STR("*"))) {
        strcpy(name, "0.0.0.0");
    } else {
        memcpy(name, host.p, host.n);
        name[host.n] = '\0';
    }
    out->kind = PN_ADDRESS_INET;
    return resolve(text, name, (unsigned)port, is_ipv6, out, err);
}

int pn_address_parse(const char *text, struct pn_address *out, char *err, size_t err_size)
{
    const struct error_text error = {err, err_size};
    *out = (struct pn_address){.fd = -1};
    if (text[0] == '\0')
        return fail(&error, -EINVAL, text, "it is empty");
    if (strncmp(text, "fd://", 5) == 0)
        return parse_fd(text, out, &error);
    const char *path = strncmp(text, "unix:", 5) == 0 ? text + 5 : text;
    if (path[0] == '@')
        return parse_unix(text, path + 1, true, out, &error);
    if (path != text || strchr(text, '/'))
        return parse_unix(text, path, false, out, &error);
    return parse_inet(text, out, &error);
}

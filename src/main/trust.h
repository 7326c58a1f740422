/* SPDX-License-Identifier: Apache-2.0 */
/* --forwarded-allow-ips: whose Forwarded headers are believed. Made once from the option's list, read
 * once for each connection. */
#pragma once

#include <sys/socket.h>

#include "config/option.h"

struct pn__trust {
    struct pn__trust_net *nets; /* owned */
    size_t count;
    bool everybody; /* "*" */
    bool unix_too;  /* "unix": whoever comes by a unix socket */
};

/* Each item of LIST is "*", "unix", an address, or a network ADDRESS/BITS. 0, or -EINVAL with a
 * sentence in ERR that names the item. */
int pn__trust_init(struct pn__trust *trust, const struct pn_string_list *list,
                   struct pn_config_error *err);
void pn__trust_fini(struct pn__trust *trust);
/* An IPv4 address mapped into IPv6 is that IPv4 address. LEN 0 or AF_UNIX: a unix socket. */
bool pn__trust_has(const struct pn__trust *trust, const struct sockaddr *address, socklen_t len);

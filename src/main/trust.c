/* SPDX-License-Identifier: Apache-2.0 */
/* Networks as 128-bit prefixes: IPv4 lies in ::ffff:0:0/96, so there is one way to compare. */
#include "main/trust.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "config/config.h"

enum {
    ADDRESS_SIZE = 16,
    V4_OFFSET = 12, /* of the four bytes in a mapped address */
    V4_PREFIX_BITS = 96,
    V4_BITS = 32,
    V6_BITS = 128,
    ITEM_MAX = 64, /* longer than any network in text */
    BITS_OF_BYTE = 8,
};

struct pn__trust_net {
    unsigned char address[ADDRESS_SIZE];
    unsigned bits;
};

static void map_v4(unsigned char *out, const void *v4)
{
    static const unsigned char prefix[V4_OFFSET] = {[10] = 0xff, [11] = 0xff};
    memcpy(out, prefix, sizeof prefix);
    memcpy(out + V4_OFFSET, v4, ADDRESS_SIZE - V4_OFFSET);
}

/* Clears what lies behind the prefix, so that two networks can be compared as bytes. */
static void mask(unsigned char *address, unsigned bits)
{
    for (unsigned i = 0; i < ADDRESS_SIZE; i++) {
        unsigned before = i * BITS_OF_BYTE;
        if (bits <= before)
            address[i] = 0;
        else if (bits < before + BITS_OF_BYTE)
            address[i] &= (unsigned char)(0xff << (before + BITS_OF_BYTE - bits));
    }
}

/* ADDRESS or ADDRESS/BITS. 0 or -EINVAL. */
static int parse_net(const char *text, struct pn__trust_net *net)
{
    char buffer[ITEM_MAX];
    unsigned char v4[ADDRESS_SIZE - V4_OFFSET];
    size_t n = strlen(text);
    if (n >= sizeof buffer)
        return -EINVAL;
    memcpy(buffer, text, n + 1);
    char *slash = strchr(buffer, '/');
    if (slash)
        *slash = '\0';
    bool is_v4 = inet_pton(AF_INET, buffer, v4) == 1;
    if (is_v4)
        map_v4(net->address, v4);
    else if (inet_pton(AF_INET6, buffer, net->address) != 1)
        return -EINVAL;
    uint64_t bits = is_v4 ? V4_BITS : V6_BITS;
    if (slash && pn_str_to_u64(pn_str_of(slash + 1), bits, &bits) < 0)
        return -EINVAL;
    net->bits = (unsigned)bits + (is_v4 ? V4_PREFIX_BITS : 0);
    mask(net->address, net->bits);
    return 0;
}

int pn__trust_init(struct pn__trust *trust, const struct pn_string_list *list,
                   struct pn_config_error *err)
{
    *trust = (struct pn__trust){0};
    if (list->count == 0)
        return 0;
    trust->nets = pn_xcalloc(list->count, sizeof *trust->nets);
    for (size_t i = 0; i < list->count; i++) {
        const char *item = list->items[i];
        char quoted[ITEM_MAX];
        if (strcmp(item, "*") == 0) {
            trust->everybody = true;
        } else if (strcmp(item, "unix") == 0) {
            trust->unix_too = true;
        } else if (parse_net(item, &trust->nets[trust->count]) == 0) {
            trust->count++;
        } else {
            pn__trust_fini(trust);
            return pn_config_fail(err,
                                  "option '--forwarded-allow-ips': '%s' is no address, no network "
                                  "(ADDRESS/BITS), and neither '*' nor 'unix'",
                                  pn_config_quote(quoted, sizeof quoted, pn_str_of(item)));
        }
    }
    return 0;
}

void pn__trust_fini(struct pn__trust *trust)
{
    free(trust->nets);
    *trust = (struct pn__trust){0};
}

bool pn__trust_has(const struct pn__trust *trust, const struct sockaddr *address, socklen_t len)
{
    unsigned char wanted[ADDRESS_SIZE];
    if (trust->everybody)
        return true;
    if (len == 0 || address->sa_family == AF_UNIX)
        return trust->unix_too;
    if (address->sa_family == AF_INET)
        map_v4(wanted, &((const struct sockaddr_in *)(const void *)address)->sin_addr);
    else if (address->sa_family == AF_INET6)
        memcpy(wanted, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr,
               sizeof wanted);
    else
        return false;
    for (size_t i = 0; i < trust->count; i++) {
        unsigned char net[ADDRESS_SIZE];
        memcpy(net, wanted, sizeof net);
        mask(net, trust->nets[i].bits);
        if (memcmp(net, trust->nets[i].address, sizeof net) == 0)
            return true;
    }
    return false;
}

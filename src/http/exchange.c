/* SPDX-License-Identifier: Apache-2.0 */
/* What all wires and handlers share of the seam. */
#include "http/exchange.h"

#include <errno.h>

#include "http/http_status.h"

const struct pn_header *pn_exchange_find(const struct pn_exchange *x, uint16_t id)
{
    for (unsigned i = 0; i < x->header_count; i++)
        if (x->headers[i].id == id)
            return &x->headers[i];
    return NULL;
}

int pn_exchange_answer_status(struct pn_exchange *x, unsigned status, bool close)
{
    const struct pn_field fields[] = {{PN_STR("Content-Type"), PN_STR("text/plain")}};
    struct pn_str reason = pn_http_status_reason((int)status);
    bool has_body = pn_http_status_has_body((int)status);
    char body[64];
    size_t n = 0;
    if (has_body) {
        n = pn_min_size(reason.n, sizeof body - 1);
        if (n)
            memcpy(body, reason.p, n);
        body[n++] = '\n';
    }
    int r = pn_exchange_head(x, status, PN_STR_NONE, fields, has_body, has_body ? (int64_t)n : -1,
                             close ? PN_HEAD_CLOSE : 0);
    if (r < 0)
        return r;
    ssize_t taken = n ? pn_exchange_write(x, body, n) : 0;
    if (taken < 0)
        return (int)taken;
    return (size_t)taken < n ? -EAGAIN : pn_exchange_end(x, NULL, 0);
}

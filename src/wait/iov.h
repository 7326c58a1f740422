/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of which a part went. */
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include "base/defs.h"

enum { PN__IOV_PARTS = 64 };

static inline size_t pn__iov_total(const struct iovec *parts, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += parts[i].iov_len;
    return total;
}

static inline size_t pn__message_total(const struct msghdr *m)
{
    return pn__iov_total(m->msg_iov, m->msg_iovlen);
}

/* M after DONE bytes (more than none), as far as PARTS reach. Address and ancillary data went with the first. */
static inline struct msghdr pn__message_rest(const struct msghdr *m, size_t done,
                                             struct iovec parts[PN__IOV_PARTS])
{
    struct msghdr rest = {.msg_iov = parts};
    for (size_t i = 0; i < m->msg_iovlen && rest.msg_iovlen < PN__IOV_PARTS; i++) {
        struct iovec part = m->msg_iov[i];
        size_t skip = pn_min_size(done, part.iov_len);
        done -= skip;
        if (skip == part.iov_len)
            continue;
        part.iov_base = (char *)part.iov_base + skip;
        part.iov_len -= skip;
        parts[rest.msg_iovlen++] = part;
    }
    return rest;
}

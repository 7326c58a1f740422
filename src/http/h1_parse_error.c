/* SPDX-License-Identifier: Apache-2.0 */
/* The table behind h1_parse_error.h. Read-only. */
#include "http/h1_parse_error.h"

#include "base/check.h"

static const struct {
    short status;
    unsigned short reason_len;
    const char *reason;
} errors[] = {[PN_H1_ERROR_INDEX_NONE] = {400, 0, ""},
#define X(name, status, reason) [PN_H1_ERROR_INDEX_##name] = {status, sizeof(reason) - 1, reason},
              PN_H1_ERRORS(X)
#undef X
};

int pn_h1_error_status(int err)
{
    PN_BUG_ON(err >= 0 || err <= -PN_H1_ERROR_INDEX_END);
    return errors[-err].status;
}

struct pn_str pn_h1_error_reason(int err)
{
    PN_BUG_ON(err >= 0 || err <= -PN_H1_ERROR_INDEX_END);
    return (struct pn_str){errors[-err].reason, errors[-err].reason_len};
}

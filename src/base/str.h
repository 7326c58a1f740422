/* SPDX-License-Identifier: Apache-2.0 */
/* A view of bytes that somebody else owns. Never NUL-terminated by promise; an empty view may have
 * a NULL pointer. Only ASCII is folded in caseless comparison (RFC 9110 5.1). */
#pragma once

#include <string.h>

#include "base/defs.h"

struct pn_str {
    const char *p;
    size_t n;
};

#define PN_STR(lit) ((struct pn_str){(lit), sizeof(lit) - 1})
#define PN_STR_NONE ((struct pn_str){NULL, 0})
/* For printf's "%.*s". */
#define PN_STR_ARGS(s) (int)(s).n, (s).p

static inline struct pn_str pn_str_of(const char *cstr)
{
    return cstr ? (struct pn_str){cstr, strlen(cstr)} : PN_STR_NONE;
}

static inline bool pn_str_eq(struct pn_str a, struct pn_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Equal when ASCII letters are compared without case. */
bool pn_str_eq_nocase(struct pn_str a, struct pn_str b);

static inline bool pn_str_starts(struct pn_str s, struct pn_str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* Decimal digits only, no sign, no space, no empty string. 0, or -EINVAL, or -ERANGE past MAX. */
int pn_str_to_u64(struct pn_str s, uint64_t max, uint64_t *out);

/* Writes VALUE in decimal at OUT (at least 20 bytes) and returns the length. No NUL. */
size_t pn_u64_format(uint64_t value, char *out);

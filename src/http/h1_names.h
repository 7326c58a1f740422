/* SPDX-License-Identifier: Apache-2.0 */
/* Written by tools/gen_headers.py; change that, not this. */
/* Known header names: an id for each, and the way from bytes to an id. Read-only tables. */
#pragma once

#include <string.h>

#include "base/str.h"

/* From PN_HEADER_SPECIAL_FIRST to _LAST are those that the parser acts on. */
enum pn_header_id {
    PN_HEADER_OTHER = 0, /* a name that is not in the list */
    /* A name that has a token character other than ALPHA, DIGIT and '-'. Such names collide with others
     * once they are environ keys (X_Real_IP), so the gateway drops them by default. */
    PN_HEADER_UNUSUAL = 1,
    PN_HEADER_HOST = 2,
    PN_HEADER_CONNECTION = 3,
    PN_HEADER_CONTENT_LENGTH = 4,
    PN_HEADER_TRANSFER_ENCODING = 5,
    PN_HEADER_EXPECT = 6,
    PN_HEADER_UPGRADE = 7,
    PN_HEADER_CONTENT_TYPE = 8,
    PN_HEADER_ACCEPT = 9,
    PN_HEADER_ACCEPT_CHARSET = 10,
    PN_HEADER_ACCEPT_ENCODING = 11,
    PN_HEADER_ACCEPT_LANGUAGE = 12,
    PN_HEADER_ACCESS_CONTROL_REQUEST_HEADERS = 13,
    PN_HEADER_ACCESS_CONTROL_REQUEST_METHOD = 14,
    PN_HEADER_AGE = 15,
    PN_HEADER_ALT_USED = 16,
    PN_HEADER_AUTHORIZATION = 17,
    PN_HEADER_CACHE_CONTROL = 18,
    PN_HEADER_CONTENT_DISPOSITION = 19,
    PN_HEADER_CONTENT_ENCODING = 20,
    PN_HEADER_CONTENT_LANGUAGE = 21,
    PN_HEADER_CONTENT_LOCATION = 22,
    PN_HEADER_CONTENT_MD5 = 23,
    PN_HEADER_CONTENT_RANGE = 24,
    PN_HEADER_COOKIE = 25,
    PN_HEADER_DATE = 26,
    PN_HEADER_DNT = 27,
    PN_HEADER_EARLY_DATA = 28,
    PN_HEADER_ETAG = 29,
    PN_HEADER_FORWARDED = 30,
    PN_HEADER_FROM = 31,
    PN_HEADER_HTTP2_SETTINGS = 32,
    PN_HEADER_IF_MATCH = 33,
    PN_HEADER_IF_MODIFIED_SINCE = 34,
    PN_HEADER_IF_NONE_MATCH = 35,
    PN_HEADER_IF_RANGE = 36,
    PN_HEADER_IF_UNMODIFIED_SINCE = 37,
    PN_HEADER_KEEP_ALIVE = 38,
    PN_HEADER_LAST_MODIFIED = 39,
    PN_HEADER_MAX_FORWARDS = 40,
    PN_HEADER_ORIGIN = 41,
    PN_HEADER_PRAGMA = 42,
    PN_HEADER_PRIORITY = 43,
    PN_HEADER_PROXY = 44,
    PN_HEADER_PROXY_AUTHORIZATION = 45,
    PN_HEADER_PROXY_CONNECTION = 46,
    PN_HEADER_PURPOSE = 47,
    PN_HEADER_RANGE = 48,
    PN_HEADER_REFERER = 49,
    PN_HEADER_SAVE_DATA = 50,
    PN_HEADER_SEC_CH_UA = 51,
    PN_HEADER_SEC_CH_UA_MOBILE = 52,
    PN_HEADER_SEC_CH_UA_PLATFORM = 53,
    PN_HEADER_SEC_FETCH_DEST = 54,
    PN_HEADER_SEC_FETCH_MODE = 55,
    PN_HEADER_SEC_FETCH_SITE = 56,
    PN_HEADER_SEC_FETCH_USER = 57,
    PN_HEADER_SEC_GPC = 58,
    PN_HEADER_SEC_PURPOSE = 59,
    PN_HEADER_SEC_WEBSOCKET_ACCEPT = 60,
    PN_HEADER_SEC_WEBSOCKET_EXTENSIONS = 61,
    PN_HEADER_SEC_WEBSOCKET_KEY = 62,
    PN_HEADER_SEC_WEBSOCKET_PROTOCOL = 63,
    PN_HEADER_SEC_WEBSOCKET_VERSION = 64,
    PN_HEADER_SERVER = 65,
    PN_HEADER_SET_COOKIE = 66,
    PN_HEADER_TE = 67,
    PN_HEADER_TRACEPARENT = 68,
    PN_HEADER_TRACESTATE = 69,
    PN_HEADER_TRAILER = 70,
    PN_HEADER_UPGRADE_INSECURE_REQUESTS = 71,
    PN_HEADER_USER_AGENT = 72,
    PN_HEADER_VIA = 73,
    PN_HEADER_WARNING = 74,
    PN_HEADER_X_API_KEY = 75,
    PN_HEADER_X_CORRELATION_ID = 76,
    PN_HEADER_X_CSRF_TOKEN = 77,
    PN_HEADER_X_CSRFTOKEN = 78,
    PN_HEADER_X_FORWARDED_FOR = 79,
    PN_HEADER_X_FORWARDED_HOST = 80,
    PN_HEADER_X_FORWARDED_PORT = 81,
    PN_HEADER_X_FORWARDED_PREFIX = 82,
    PN_HEADER_X_FORWARDED_PROTO = 83,
    PN_HEADER_X_FORWARDED_SERVER = 84,
    PN_HEADER_X_FORWARDED_SSL = 85,
    PN_HEADER_X_HTTP_METHOD_OVERRIDE = 86,
    PN_HEADER_X_REAL_IP = 87,
    PN_HEADER_X_REQUEST_ID = 88,
    PN_HEADER_X_REQUEST_START = 89,
    PN_HEADER_X_REQUESTED_WITH = 90,
    PN_HEADER_COUNT = 91,
    PN_HEADER_SPECIAL_FIRST = PN_HEADER_HOST,
    PN_HEADER_SPECIAL_LAST = PN_HEADER_CONTENT_TYPE,
};

enum { PN_HEADER_NAME_MAX = 30 };

struct pn_header_known {
    PN_NONSTRING char text[PN_HEADER_NAME_MAX]; /* lower case, filled up with NUL */
    uint8_t len;
    bool trailer_forbidden; /* RFC 9110 6.5.1 */
};
PN_STATIC_ASSERT(sizeof(struct pn_header_known) == 32, "an index is a shift");

/* By id; PN_HEADER_OTHER and PN_HEADER_UNUSUAL have empty names. */
extern const struct pn_header_known pn_header_known[PN_HEADER_COUNT];

/* By slot of the perfect hash. */
extern const uint8_t pn__h1_name_slots[512];

static inline uint32_t pn__h1_load4(const char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t pn__h1_load8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Bit 5 of each byte: lower-cases letters, and is set in digits and '-' anyway. */
#define PN__H1_LOWER4 0x20202020U
#define PN__H1_LOWER8 UINT64_C(0x2020202020202020)

/* The first and the last four bytes, lower case, and the length tell all known names apart. */
static inline unsigned pn__h1_name_slot(uint32_t first, uint32_t last, size_t n)
{
    return ((first + (uint32_t)n) * 0xd1223303U + last * 0x927c0f1fU) >> 23;
}

/* Names below four bytes. */
static inline enum pn_header_id pn__h1_short_name_id(const char *p, size_t n)
{
    uint32_t first = ((unsigned char)p[0] | (uint32_t)(unsigned char)p[n / 2] << 8) | 0x2020U;
    uint32_t last = (unsigned char)p[n - 1] | 0x20U;
    unsigned id = pn__h1_name_slots[pn__h1_name_slot(first, last, n)];
    const struct pn_header_known *known = &pn_header_known[id];
    if (known->len != n)
        return PN_HEADER_OTHER;
    for (size_t i = 0; i < n; i++)
        if ((p[i] | 0x20) != known->text[i])
            return PN_HEADER_OTHER;
    return (enum pn_header_id)id;
}

/* As pn_header_id_of, for N >= 4; in the parser's loop without a call. */
static inline __attribute__((always_inline)) enum pn_header_id pn__h1_name_id(const char *p,
                                                                              size_t n)
{
    uint32_t first = pn__h1_load4(p) | PN__H1_LOWER4;
    uint32_t last = pn__h1_load4(p + n - 4) | PN__H1_LOWER4;
    unsigned id = pn__h1_name_slots[pn__h1_name_slot(first, last, n)];
    const struct pn_header_known *known = &pn_header_known[id];
    const char *text = known->text;
    if (known->len != n)
        return PN_HEADER_OTHER;
    if (n < 8) {
        if (first != pn__h1_load4(text) || last != pn__h1_load4(text + n - 4))
            return PN_HEADER_OTHER;
        return (enum pn_header_id)id;
    }
    /* Eight bytes at a time, the last eight overlapping what is before them. */
    if ((pn__h1_load8(p) | PN__H1_LOWER8) != pn__h1_load8(text) ||
        (pn__h1_load8(p + n - 8) | PN__H1_LOWER8) != pn__h1_load8(text + n - 8))
        return PN_HEADER_OTHER;
    for (size_t i = 8; pn_unlikely(i + 8 < n); i += 8)
        if ((pn__h1_load8(p + i) | PN__H1_LOWER8) != pn__h1_load8(text + i))
            return PN_HEADER_OTHER;
    return (enum pn_header_id)id;
}

/* The id of the name of N >= 1 bytes at P, any case. The bytes must be ALPHA, DIGIT or '-'; known
 * names have nothing else. Reads P[0..N) only. */
static inline enum pn_header_id pn_header_id_of(const char *p, size_t n)
{
    return n < 4 ? pn__h1_short_name_id(p, n) : pn__h1_name_id(p, n);
}

static inline struct pn_str pn_header_known_name(enum pn_header_id id)
{
    return (struct pn_str){pn_header_known[id].text, pn_header_known[id].len};
}

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Generates the tables of src/http: known header names with a perfect hash, and classes of bytes.

    tools/gen_headers.py            writes src/http/h1_names.h, h1_names.c and http_token_class.c
    tools/gen_headers.py --check    writes nothing; ends with 1 when a file is not what it would write

The result depends on this file alone.
"""

import pathlib
import random
import string
import sys

HTTP = pathlib.Path(__file__).resolve().parent.parent / "src" / "http"

# The parser itself looks at these; they come first so that one comparison finds them.
SPECIAL = """
    host connection content-length transfer-encoding expect upgrade content-type
""".split()

# Everything else that something in the server or many a client asks for by name. A known name costs
# the gateway no look-up, so what browsers and proxies send with each request is worth a line.
KNOWN = """
    accept accept-charset accept-encoding accept-language
    access-control-request-headers access-control-request-method
    age alt-used authorization cache-control content-disposition content-encoding content-language
    content-location content-md5 content-range cookie date dnt early-data etag
    forwarded from http2-settings
    if-match if-modified-since if-none-match if-range if-unmodified-since
    keep-alive last-modified max-forwards origin pragma priority proxy proxy-authorization
    proxy-connection purpose range referer save-data
    sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site
    sec-fetch-user sec-gpc sec-purpose
    sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-protocol
    sec-websocket-version
    server set-cookie te traceparent tracestate trailer upgrade-insecure-requests user-agent via
    warning x-api-key x-correlation-id x-csrf-token x-csrftoken x-forwarded-for x-forwarded-host
    x-forwarded-port x-forwarded-prefix x-forwarded-proto x-forwarded-server x-forwarded-ssl
    x-http-method-override x-real-ip x-request-id x-request-start x-requested-with
""".split()

# RFC 9110 6.5.1: fields for framing, routing, request modifiers, authentication and content format
# have no meaning, or a dangerous one, after the content.
TRAILER_FORBIDDEN = set(
    """
    host connection content-length transfer-encoding expect upgrade content-type
    authorization cache-control content-encoding content-language content-location content-range cookie
    forwarded http2-settings if-match if-modified-since if-none-match if-range if-unmodified-since
    keep-alive max-forwards proxy proxy-authorization proxy-connection range set-cookie te trailer
    x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto
    x-forwarded-server x-forwarded-ssl x-real-ip x-http-method-override
""".split()
)

NAMES = SPECIAL + KNOWN
NAME_MAX = 30  # text, length and flag make 32 bytes
SLOT_BITS = 9

LICENCE = "/* SPDX-License-Identifier: Apache-2.0 */\n"
GENERATED = "/* Written by tools/gen_headers.py; change that, not this. */\n"


def ident(name):
    return "PN_HEADER_" + name.upper().replace("-", "_")


def ends(name):
    """As in pn_header_id_of and pn__h1_short_name_id: first and last bytes, and length."""
    b = name.encode()
    if len(b) >= 4:
        return int.from_bytes(b[:4], "little"), int.from_bytes(b[-4:], "little"), len(b)
    return b[0] | b[len(b) // 2] << 8, b[-1], len(b)


def slot(name, mult):
    first, last, n = ends(name)
    return (((first + n) * mult[0] + last * mult[1]) & 0xFFFFFFFF) >> (32 - SLOT_BITS)


def find_multipliers():
    """Two odd numbers that give each name a slot of its own. Names alike in all three find none."""
    assert len({ends(n) for n in NAMES}) == len(NAMES), "two names have the same ends"
    rng = random.Random(9112)
    while True:
        mult = rng.getrandbits(32) | 1, rng.getrandbits(32) | 1
        if len({slot(n, mult) for n in NAMES}) == len(NAMES):
            return mult


def check_names():
    plain = set(string.ascii_lowercase + string.digits + "-")
    assert len(NAMES) == len(set(NAMES)), "a name is there twice"
    assert all(set(n) <= plain and 2 <= len(n) <= NAME_MAX for n in NAMES)
    assert TRAILER_FORBIDDEN <= set(NAMES)
    assert len(NAMES) < 254


def names_h(mult):
    ids = "".join(f"    {ident(n)} = {i},\n" for i, n in enumerate(NAMES, 2))
    return f"""{LICENCE}{GENERATED}/* Known header names: an id for each, and the way from bytes to an id. Read-only tables. */
#pragma once

#include <string.h>

#include "base/str.h"

/* From PN_HEADER_SPECIAL_FIRST to _LAST are those that the parser acts on. */
enum pn_header_id {{
    PN_HEADER_OTHER = 0, /* a name that is not in the list */
    /* A name that has a token character other than ALPHA, DIGIT and '-'. Such names collide with others
     * once they are environ keys (X_Real_IP), so the gateway drops them by default. */
    PN_HEADER_UNUSUAL = 1,
{ids}    PN_HEADER_COUNT = {len(NAMES) + 2},
    PN_HEADER_SPECIAL_FIRST = {ident(SPECIAL[0])},
    PN_HEADER_SPECIAL_LAST = {ident(SPECIAL[-1])},
}};

enum {{ PN_HEADER_NAME_MAX = {NAME_MAX} }};

struct pn_header_known {{
    PN_NONSTRING char text[PN_HEADER_NAME_MAX]; /* lower case, filled up with NUL */
    uint8_t len;
    bool trailer_forbidden; /* RFC 9110 6.5.1 */
}};
PN_STATIC_ASSERT(sizeof(struct pn_header_known) == 32, "an index is a shift");

/* By id; PN_HEADER_OTHER and PN_HEADER_UNUSUAL have empty names. */
extern const struct pn_header_known pn_header_known[PN_HEADER_COUNT];

/* By slot of the perfect hash. */
extern const uint8_t pn__h1_name_slots[{1 << SLOT_BITS}];

static inline uint32_t pn__h1_load4(const char *p)
{{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}}

static inline uint64_t pn__h1_load8(const char *p)
{{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}}

/* Bit 5 of each byte: lower-cases letters, and is set in digits and '-' anyway. */
#define PN__H1_LOWER4 0x20202020U
#define PN__H1_LOWER8 UINT64_C(0x2020202020202020)

/* The first and the last four bytes, lower case, and the length tell all known names apart. */
static inline unsigned pn__h1_name_slot(uint32_t first, uint32_t last, size_t n)
{{
    return ((first + (uint32_t)n) * {mult[0]:#010x}U + last * {mult[1]:#010x}U) >> {32 - SLOT_BITS};
}}

/* Names below four bytes. */
static inline enum pn_header_id pn__h1_short_name_id(const char *p, size_t n)
{{
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
}}

/* As pn_header_id_of, for N >= 4; in the parser's loop without a call. */
static inline __attribute__((always_inline)) enum pn_header_id pn__h1_name_id(const char *p,
                                                                              size_t n)
{{
    uint32_t first = pn__h1_load4(p) | PN__H1_LOWER4;
    uint32_t last = pn__h1_load4(p + n - 4) | PN__H1_LOWER4;
    unsigned id = pn__h1_name_slots[pn__h1_name_slot(first, last, n)];
    const struct pn_header_known *known = &pn_header_known[id];
    const char *text = known->text;
    if (known->len != n)
        return PN_HEADER_OTHER;
    if (n < 8) {{
        if (first != pn__h1_load4(text) || last != pn__h1_load4(text + n - 4))
            return PN_HEADER_OTHER;
        return (enum pn_header_id)id;
    }}
    /* Eight bytes at a time, the last eight overlapping what is before them. */
    if ((pn__h1_load8(p) | PN__H1_LOWER8) != pn__h1_load8(text) ||
        (pn__h1_load8(p + n - 8) | PN__H1_LOWER8) != pn__h1_load8(text + n - 8))
        return PN_HEADER_OTHER;
    for (size_t i = 8; pn_unlikely(i + 8 < n); i += 8)
        if ((pn__h1_load8(p + i) | PN__H1_LOWER8) != pn__h1_load8(text + i))
            return PN_HEADER_OTHER;
    return (enum pn_header_id)id;
}}

/* The id of the name of N >= 1 bytes at P, any case. The bytes must be ALPHA, DIGIT or '-'; known
 * names have nothing else. Reads P[0..N) only. */
static inline enum pn_header_id pn_header_id_of(const char *p, size_t n)
{{
    return n < 4 ? pn__h1_short_name_id(p, n) : pn__h1_name_id(p, n);
}}

static inline struct pn_str pn_header_known_name(enum pn_header_id id)
{{
    return (struct pn_str){{pn_header_known[id].text, pn_header_known[id].len}};
}}
"""


def names_c(mult):
    rows = [
        '    [PN_HEADER_OTHER] = {"", 0, false},\n',
        '    [PN_HEADER_UNUSUAL] = {"", 0, false},\n',
    ]
    for n in NAMES:
        flag = "true" if n in TRAILER_FORBIDDEN else "false"
        rows.append(f'    [{ident(n)}] = {{"{n}", {len(n)}, {flag}}},\n')
    slots = {}
    for n in NAMES:
        slots[slot(n, mult)] = n
    slot_rows = "".join(f"    [{s}] = {ident(slots[s])},\n" for s in sorted(slots))
    return f"""{LICENCE}{GENERATED}/* Tables of h1_names.h. Read-only. */
#include "http/h1_names.h"

const struct pn_header_known pn_header_known[PN_HEADER_COUNT] = {{
{"".join(rows)}}};

const uint8_t pn__h1_name_slots[{1 << SLOT_BITS}] = {{
{slot_rows}}};
"""


def byte_class(c):
    ch = chr(c)
    alpha, digit = ch in string.ascii_letters, ch in string.digits
    plain = alpha or digit or ch == "-"
    token = alpha or digit or (c < 128 and ch in "!#$%&'*+-.^_`|~")
    control = (c < 0x20 and c != 9) or c == 0x7F
    host = alpha or digit or (c < 128 and ch in "-._~!$&'()*+,;=")
    quoted = c in (9, 0x20, 0x21) or 0x23 <= c <= 0x5B or 0x5D <= c <= 0x7E or c >= 0x80
    target = (c > 0x20 and c != 0x7F) and not (c < 128 and ch in "?#%")
    bits = [plain, token, control, digit, ch in string.hexdigits, host, quoted, target]
    return sum(1 << i for i, b in enumerate(bits) if b)


def class_c():
    rows = []
    for at in range(0, 256, 8):
        cells = ", ".join(f"0x{byte_class(c):02x}" for c in range(at, at + 8))
        rows.append(f"    {cells}, /* {at:02x} */\n")
    return f"""{LICENCE}{GENERATED}/* Classes of bytes, see enum pn_http_class_bit in http_token.h. Read-only. */
#include "http/http_token.h"

const uint8_t pn_http_class[256] = {{
{"".join(rows)}}};
"""


def main():
    check_names()
    mult = find_multipliers()
    files = {
        "h1_names.h": names_h(mult),
        "h1_names.c": names_c(mult),
        "http_token_class.c": class_c(),
    }
    stale = []
    for name, text in files.items():
        path = HTTP / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
    if "--check" in sys.argv[1:] and stale:
        sys.exit(f"not current: {', '.join(stale)}; run tools/gen_headers.py")


if __name__ == "__main__":
    main()

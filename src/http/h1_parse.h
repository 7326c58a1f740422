/* SPDX-License-Identifier: Apache-2.0 */
/* The head of an HTTP/1.x request (RFC 9112), from bytes to offsets: one pure function. It copies
 * nothing and allocates nothing. Whatever it reports is an offset into the buffer, never a pointer,
 * because the buffer may move while the request waits.
 *
 * What the head means for framing is decided here as well, and strictly: a head whose body length,
 * host or line ends two programs could understand differently is refused (RFC 9112 11.2). Decisions
 * where the RFC leaves a choice:
 *  - Up to PN_HTTP_LEADING_CRLF_MAX empty lines before the request line are skipped (2.2).
 *  - Lines end in CRLF only; CR or LF alone, NUL and other controls are 400 everywhere.
 *  - One space between the three parts of the request line, nothing after the version.
 *  - Version: major 1 only, else 505; a minor above 1 counts as 1. The method may be any token of up
 *    to PN_H1_METHOD_MAX bytes; CONNECT is 501.
 *  - Target: bytes from 0x80 on and characters that RFC 3986 wants escaped (as in "/a|b") go through,
 *    since browsers and curl send them; the application gets them as latin-1. '#' is 400.
 *    Bad escapes and %00 in the path are 400 (h1_target.h says why). Absolute-form needs http or
 *    https and a host, without a user name; it overrides Host (3.2.2).
 *  - Content-Length: digits only, at most 19, value below 2^63; no tabs, no list, also none of equals.
 *  - Transfer-Encoding: one line, "chunked" in any case, no tabs around it. A well-formed list that
 *    ends in its only chunked is 501 (6.1), all else is 400 (6.3). In HTTP/1.0 400.
 *  - Host may be empty but must be there in 1.1; twice or invalid is 400 in 1.0 too. */
#pragma once

#include "base/bounds.h"
#include "http/exchange.h"
#include "http/h1_names.h"
#include "http/h1_parse_error.h"
#include "http/h1_parse_scan.h"

enum {
    PN_H1_INCOMPLETE = 0, /* not an error: ask again with more bytes */
    PN_H1_METHOD_MAX = 32,
};

/* Set once per listener, read-only afterwards; shared by all threads. */
struct pn_h1_limits {
    const struct pn_h1_scan *scan; /* never NULL */
    uint32_t head_max;             /* bytes of the whole head, empty lines before it included */
    uint32_t target_max;           /* bytes of the request target; more is 414 */
    uint32_t line_max;             /* bytes of a header line without its CRLF; more is 431 */
    uint32_t headers_max;          /* header lines; more is 431 */
};

/* The defaults of bounds.h and the fastest scanner. */
void pn_h1_limits_init(struct pn_h1_limits *limits);

enum pn_h1_method {
    PN_H1_METHOD_OTHER = 0, /* any other token; METHOD says which */
    PN_H1_METHOD_GET = 1,
    PN_H1_METHOD_HEAD = 2,
    PN_H1_METHOD_POST = 3,
    PN_H1_METHOD_PUT = 4,
    PN_H1_METHOD_DELETE = 5,
    PN_H1_METHOD_OPTIONS = 6,
    PN_H1_METHOD_PATCH = 7,
    PN_H1_METHOD_TRACE = 8,
};

enum pn_h1_form {
    PN_H1_FORM_ORIGIN = 0,   /* /path?query */
    PN_H1_FORM_ABSOLUTE = 1, /* http://host/path?query, also https */
    PN_H1_FORM_ASTERISK = 2, /* OPTIONS * */
};

struct pn_h1_head {
    /* Set by the caller, who owns the array. It is written up to the first error. */
    struct pn_header *headers;
    uint32_t headers_cap; /* more lines than this are 431, too */

    /* All that follows is set when the head is complete, and means nothing before. */
    uint32_t headers_count;
    int64_t content_length; /* -1: none sent */
    struct pn_span method;
    struct pn_span target;    /* as it came */
    struct pn_span path;      /* still escaped; empty only in absolute-form, where it means "/" */
    struct pn_span query;     /* without the '?' */
    struct pn_span authority; /* from an absolute target, else Host's value, else empty */
    uint8_t method_id;        /* enum pn_h1_method */
    uint8_t form;             /* enum pn_h1_form */
    uint8_t minor;            /* 0 or 1 */
    bool https;               /* scheme of an absolute target: a claim of the client's only */
    bool has_query;           /* there was a '?' */
    bool path_escaped;        /* PATH has escapes: pn_h1_target_decode is needed */
    bool has_host;            /* there was a Host line */
    bool chunked;             /* Transfer-Encoding: chunked */
    bool has_body;            /* chunked, or content_length > 0 */
    bool keep_alive;          /* by version and Connection (RFC 9112 9.3) */
    bool expect_continue;     /* 1.1, has_body, Expect: 100-continue */
    bool upgrade;             /* 1.1, Connection: upgrade and an Upgrade line */
};

/* Parses the head that begins at BUF, of which LEN bytes are there (at most 4 GB - 1). Never reads
 * beyond BUF + LEN. Returns
 *   the number of bytes of the head, its empty line included: OUT is complete; the body, or the next
 *     request, begins there;
 *   PN_H1_INCOMPLETE;
 *   a negative PN_H1_E_*: answer with pn_h1_error_status() and close.
 * SCANNED is how many bytes were there when the same bytes were last found incomplete, 0 at first:
 * then only new bytes are looked at, so that a head which comes byte by byte costs linear time. An
 * error inside a line may then be reported at the head's end only. However the bytes were cut, the
 * result for the whole is the same. */
int pn_h1_parse_head(const char *buf, size_t len, size_t scanned, const struct pn_h1_limits *limits,
                     struct pn_h1_head *out);

static inline struct pn_str pn_h1_span_str(const char *buf, struct pn_span span)
{
    return (struct pn_str){buf + span.off, span.len};
}

static inline struct pn_str pn_h1_header_name(const char *buf, const struct pn_header *h)
{
    return (struct pn_str){buf + h->name_off, h->name_len};
}

static inline struct pn_str pn_h1_header_value(const char *buf, const struct pn_header *h)
{
    return (struct pn_str){buf + h->value_off, h->value_len};
}

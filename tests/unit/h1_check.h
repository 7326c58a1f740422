/* SPDX-License-Identifier: Apache-2.0 */
/* check_bytes() for the tests of the head parser: an input is parsed before an unreadable page, with
 * every scanner this machine has, cut at every byte, with and without SCANNED; all results must agree.
 * Each test binary that includes this has its own limits and result. */
#pragma once

#include "h1_guard.h"
#include "http/h1_parse.h"
#include "test_base.h"

enum { HEADERS_CAP = 512 };

static struct pn_h1_limits limits;
static struct pn_header headers[HEADERS_CAP];
static struct pn_h1_head head; /* of the last check() that was parsed whole */
static const char *base;       /* its bytes */

static inline int parse(const char *bytes, size_t n, size_t scanned, struct pn_h1_head *out,
                        struct pn_header *hs)
{
    memset(out, 0x5a, sizeof(*out));
    memset(hs, 0x5a, HEADERS_CAP * sizeof(*hs));
    out->headers = hs;
    out->headers_cap = HEADERS_CAP;
    return pn_h1_parse_head(guard_copy(bytes, n), n, scanned, &limits, out);
}

static inline bool same_head(const struct pn_h1_head *a, const struct pn_h1_head *b)
{
    struct pn_h1_head x = *a, y = *b;
    x.headers = y.headers = NULL;
    return memcmp(a->headers, b->headers, a->headers_count * sizeof(*a->headers)) == 0 &&
           x.headers_count == y.headers_count && x.content_length == y.content_length &&
           memcmp(&x.method, &y.method, 5 * sizeof(x.method)) == 0 && x.method_id == y.method_id &&
           x.form == y.form && x.minor == y.minor && x.https == y.https &&
           x.has_query == y.has_query && x.path_escaped == y.path_escaped &&
           x.has_host == y.has_host && x.chunked == y.chunked && x.has_body == y.has_body &&
           x.keep_alive == y.keep_alive && x.expect_continue == y.expect_continue &&
           x.upgrade == y.upgrade;
}

/* Parses BYTES in every way, fails the test where two disagree, and returns the common result. */
static inline int check_bytes(const char *bytes, size_t n)
{
    static struct pn_header other_headers[HEADERS_CAP];
    struct pn_h1_head other;
    char *longer = malloc(n + 4);
    limits.scan = pn_h1_scan_for(PN_H1_ISA_PORTABLE);
    int whole = parse(bytes, n, 0, &head, headers);
    for (int isa = PN_H1_ISA_PORTABLE; isa < PN_H1_ISA_COUNT; isa++) {
        limits.scan = pn_h1_scan_for((enum pn_h1_isa)isa);
        if (!limits.scan)
            continue;
        assert_int_equal(parse(bytes, n, 0, &other, other_headers), whole);
        if (whole > 0)
            assert_true(same_head(&head, &other));
        /* Each prefix by itself; and each behind the one before, as a connection does it. */
        size_t scanned = 0;
        int grown = PN_H1_INCOMPLETE;
        for (size_t cut = 1; cut <= n; cut++) {
            int rc = parse(bytes, cut, 0, &other, other_headers);
            if (whole > 0 && cut < (size_t)whole)
                assert_int_equal(rc, PN_H1_INCOMPLETE);
            else if (rc != PN_H1_INCOMPLETE)
                assert_int_equal(rc, whole);
            if (grown != PN_H1_INCOMPLETE)
                continue;
            grown = parse(bytes, cut, scanned, &other, other_headers);
            scanned = cut;
            if (grown > 0)
                assert_true(grown == whole && same_head(&head, &other));
            else if (grown < 0)
                assert_int_equal(grown, whole);
            /* What is not looked at again must not have been the end. */
            if (rc != PN_H1_INCOMPLETE && rc > 0)
                assert_int_equal(grown, rc);
        }
        if (whole < 0 && grown == PN_H1_INCOMPLETE) {
            /* Wrong inside the last line, which is only looked at again when it has an end. */
            memcpy(longer, bytes, n);
            memcpy(longer + n, "\r\n\r\n", 4);
            grown = parse(longer, n + 4, n, &other, other_headers);
        }
        assert_int_equal(grown, whole);
    }
    free(longer);
    limits.scan = pn_h1_scan_best();
    base = bytes;
    return whole;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The request head parser. Beside not crashing: all scanners agree, however the input is cut the result
 * is the same, all offsets lie in the head, and a head written again from the result means the same. */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "http/h1_parse.h"
#include "http/h1_target.h"
#include "http/http_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAP = 64, INPUT_MAX = 4096, LONGER = 4 };

struct result {
    int rc;
    struct pn_h1_head head;
    struct pn_header headers[CAP];
};

static void parse(const char *bytes, size_t n, size_t scanned, enum pn_h1_isa isa, struct result *r)
{
    struct pn_h1_limits limits = {.scan = pn_h1_scan_for(isa),
                                  .head_max = 2048,
                                  .target_max = 512,
                                  .line_max = 512,
                                  .headers_max = CAP};
    if (!limits.scan)
        limits.scan = pn_h1_scan_best();
    memset(r, 0, sizeof(*r));
    r->head.headers = r->headers;
    r->head.headers_cap = CAP;
    /* In a block of its own exact size, so that one byte too many is noticed. */
    char *copy = malloc(n + !n);
    memcpy(copy, bytes, n);
    r->rc = pn_h1_parse_head(copy, n, scanned, &limits, &r->head);
    free(copy);
}

static void same_meaning(const struct result *a, const struct result *b)
{
    const struct pn_h1_head *x = &a->head, *y = &b->head;
    PN_BUG_ON((a->rc > 0) != (b->rc > 0));
    if (a->rc <= 0)
        return;
    PN_BUG_ON(x->headers_count != y->headers_count || x->content_length != y->content_length);
    PN_BUG_ON(x->method_id != y->method_id || x->form != y->form || x->minor != y->minor);
    PN_BUG_ON(x->https != y->https || x->has_query != y->has_query || x->chunked != y->chunked);
    PN_BUG_ON(x->path_escaped != y->path_escaped || x->has_host != y->has_host);
    PN_BUG_ON(x->keep_alive != y->keep_alive || x->expect_continue != y->expect_continue);
    PN_BUG_ON(x->upgrade != y->upgrade || x->has_body != y->has_body);
    PN_BUG_ON(x->authority.len != y->authority.len || x->path.len != y->path.len);
    for (uint32_t i = 0; i < x->headers_count; i++) {
        PN_BUG_ON(a->headers[i].id != b->headers[i].id);
        PN_BUG_ON(a->headers[i].name_len != b->headers[i].name_len);
        PN_BUG_ON(a->headers[i].value_len != b->headers[i].value_len);
    }
}

static void in_head(const struct result *r, struct pn_span s)
{
    PN_BUG_ON((size_t)s.off + s.len > (size_t)r->rc);
}

/* Writes the head that R says was at BYTES, to OUT; returns its length. */
static size_t write_again(const char *bytes, const struct result *r, char *out)
{
    char *p = out;
    const struct pn_h1_head *h = &r->head;
    p = mempcpy(p, bytes + h->method.off, h->method.len);
    *p++ = ' ';
    p = mempcpy(p, bytes + h->target.off, h->target.len);
    p += sprintf(p, " HTTP/1.%d\r\n", h->minor);
    for (uint32_t i = 0; i < h->headers_count; i++) {
        p = mempcpy(p, bytes + r->headers[i].name_off, r->headers[i].name_len);
        p = mempcpy(p, ": ", 2);
        p = mempcpy(p, bytes + r->headers[i].value_off, r->headers[i].value_len);
        p = mempcpy(p, "\r\n", 2);
    }
    p = mempcpy(p, "\r\n", 2);
    return (size_t)(p - out);
}

static void check_accepted(const char *bytes, const struct result *r)
{
    const struct pn_h1_head *h = &r->head;
    char out[INPUT_MAX + 2 * CAP + 16], path[INPUT_MAX];
    struct result again;
    in_head(r, h->method);
    in_head(r, h->target);
    in_head(r, h->path);
    in_head(r, h->query);
    in_head(r, h->authority);
    PN_BUG_ON(!pn_http_is_token(pn_h1_span_str(bytes, h->method)));
    PN_BUG_ON(!pn_h1_host_valid(pn_h1_span_str(bytes, h->authority)));
    PN_BUG_ON(pn_h1_target_decode(bytes + h->path.off, h->path.len, path) < 0);
    PN_BUG_ON(h->chunked && h->content_length >= 0);
    for (uint32_t i = 0; i < h->headers_count; i++) {
        const struct pn_header *f = &r->headers[i];
        PN_BUG_ON(!pn_http_is_token((struct pn_str){bytes + f->name_off, f->name_len}));
        PN_BUG_ON(!pn_http_is_field_value((struct pn_str){bytes + f->value_off, f->value_len}));
        in_head(r, (struct pn_span){f->value_off, f->value_len});
        if (f->id > PN_HEADER_UNUSUAL)
            PN_BUG_ON(!pn_str_eq_nocase((struct pn_str){bytes + f->name_off, f->name_len},
                                        pn_header_known_name((enum pn_header_id)f->id)));
    }
    size_t n = write_again(bytes, r, out);
    parse(out, n, 0, PN_H1_ISA_PORTABLE, &again);
    if (again.rc < 0 && pn_h1_error_status(again.rc) != 400)
        return; /* a line without its space became one byte longer than allowed */
    PN_BUG_ON(again.rc != (int)n);
    same_meaning(r, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct result whole, other;
    const char *bytes = (const char *)data;
    char longer[INPUT_MAX + LONGER];
    if (size > INPUT_MAX)
        return 0;
    parse(bytes, size, 0, PN_H1_ISA_PORTABLE, &whole);
    for (int isa = PN_H1_ISA_SSE42; isa < PN_H1_ISA_COUNT; isa++) {
        parse(bytes, size, 0, (enum pn_h1_isa)isa, &other);
        PN_BUG_ON(other.rc != whole.rc);
        same_meaning(&whole, &other);
    }
    if (whole.rc > 0)
        check_accepted(bytes, &whole);
    /* A few cuts that depend on the input, the second part behind the first. */
    for (size_t i = 0, cut = size / 2; i < 6 && cut > 0 && cut < size; i++) {
        parse(bytes, cut, 0, PN_H1_ISA_AVX2, &other);
        PN_BUG_ON(other.rc < 0 && other.rc != whole.rc);
        PN_BUG_ON(other.rc > 0 && other.rc != whole.rc);
        PN_BUG_ON(other.rc == 0 && whole.rc > 0 && (size_t)whole.rc <= cut);
        if (other.rc == PN_H1_INCOMPLETE) {
            parse(bytes, size, cut, PN_H1_ISA_AVX2, &other);
            if (other.rc == PN_H1_INCOMPLETE && whole.rc < 0) {
                /* Only noticed when the line has an end. */
                memcpy(longer, bytes, size);
                memcpy(longer + size, "\r\n\r\n", LONGER);
                parse(longer, size + LONGER, size, PN_H1_ISA_AVX2, &other);
            }
            PN_BUG_ON(other.rc != whole.rc);
            same_meaning(&whole, &other);
        }
        cut = (cut * 7 + data[i % size]) % size;
    }
    return 0;
}

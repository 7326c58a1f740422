/* SPDX-License-Identifier: Apache-2.0 */
/* The meaning of the few header lines that decide framing, host and persistence (RFC 9112 3.2, 6, 9.3;
 * RFC 9110 7.6.1, 10.1.1). */
#include "http/h1_parse_facts.h"

#include "http/h1_target.h"
#include "http/http_token.h"

enum { LENGTH_DIGITS_MAX = 19 }; /* INT64_MAX has 19 digits, so the sum below cannot overflow */

/* Tabs around a framing value are lawful and never sent; other servers have read past them. */
static bool has_tab_around(const char *buf, const struct pn_header *h)
{
    uint32_t i = h->name_off + h->name_len + 1U;
    for (; i < h->value_off; i++)
        if (buf[i] == '\t')
            return true;
    for (i = h->value_off + h->value_len; buf[i] != '\r'; i++)
        if (buf[i] == '\t')
            return true;
    return false;
}

static int add_host(unsigned *facts, const char *buf, const struct pn_header *h,
                    struct pn_h1_head *out)
{
    if (*facts & PN__H1_FACT_HOST)
        return PN_H1_E_HOST_REPEATED;
    if (!pn_h1_host_valid(pn_h1_header_value(buf, h)))
        return PN_H1_E_HOST;
    *facts |= PN__H1_FACT_HOST;
    if (out->form != PN_H1_FORM_ABSOLUTE)
        out->authority = (struct pn_span){h->value_off, h->value_len};
    return 0;
}

static int add_length(const char *buf, const struct pn_header *h, struct pn_h1_head *out)
{
    struct pn_str s = pn_h1_header_value(buf, h);
    uint64_t value = 0;
    if (out->content_length >= 0)
        return PN_H1_E_LENGTH_REPEATED;
    if (s.n == 0 || s.n > LENGTH_DIGITS_MAX || has_tab_around(buf, h))
        return PN_H1_E_LENGTH;
    for (size_t i = 0; i < s.n; i++) {
        if (!pn_http_is(s.p[i], PN_HTTP_C_DIGIT))
            return PN_H1_E_LENGTH;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    if (value > INT64_MAX)
        return PN_H1_E_LENGTH;
    out->content_length = (int64_t)value;
    return 0;
}

static int add_coding(unsigned *facts, const char *buf, const struct pn_header *h,
                      struct pn_h1_head *out)
{
    struct pn_str value = pn_h1_header_value(buf, h);
    struct pn_str item = PN_STR_NONE;
    size_t items = 0, chunked = 0, commas = 0;

    if (*facts & PN__H1_FACT_CODING)
        return PN_H1_E_CODING_REPEATED;
    *facts |= PN__H1_FACT_CODING;
    if (has_tab_around(buf, h))
        return PN_H1_E_CODING;
    if (pn_likely(pn_str_eq_nocase(value, PN_STR("chunked")))) {
        out->chunked = true;
        return 0;
    }
    /* Either a list of plain tokens that ends in the only chunked, or ambiguous. The commas are
     * counted so that empty elements do not pass. */
    for (size_t i = 0; i < value.n; i++)
        commas += value.p[i] == ',';
    for (struct pn_http_list list = {value}; pn_http_list_next(&list, &item); items++) {
        if (!pn_http_is_token(item))
            return PN_H1_E_CODING;
        chunked += pn_str_eq_nocase(item, PN_STR("chunked"));
    }
    if (chunked != 1 || items != commas + 1 || !pn_str_eq_nocase(item, PN_STR("chunked")))
        return PN_H1_E_CODING;
    *facts |= PN__H1_FACT_CODING_UNKNOWN;
    return 0;
}

static void add_connection(unsigned *facts, struct pn_str value)
{
    struct pn_http_list list = {value};
    struct pn_str item;
    if (pn_likely(pn_str_eq_nocase(value, PN_STR("close")))) { /* what proxies send */
        *facts |= PN__H1_FACT_CLOSE;
        return;
    }
    while (pn_http_list_next(&list, &item)) {
        if (pn_str_eq_nocase(item, PN_STR("close")))
            *facts |= PN__H1_FACT_CLOSE;
        else if (pn_str_eq_nocase(item, PN_STR("keep-alive")))
            *facts |= PN__H1_FACT_KEEP_ALIVE;
        else if (pn_str_eq_nocase(item, PN_STR("upgrade")))
            *facts |= PN__H1_FACT_CONNECTION_UPGRADE;
    }
}

static void add_expect(unsigned *facts, struct pn_str value)
{
    struct pn_http_list list = {value};
    struct pn_str item;
    while (pn_http_list_next(&list, &item)) {
        if (pn_str_eq_nocase(item, PN_STR("100-continue")))
            *facts |= PN__H1_FACT_EXPECT_CONTINUE;
        else
            *facts |= PN__H1_FACT_EXPECT_UNKNOWN;
    }
}

int pn__h1_facts_add(unsigned *facts, const char *buf, const struct pn_header *h,
                     struct pn_h1_head *out)
{
    struct pn_str value = pn_h1_header_value(buf, h);
    switch (h->id) {
    case PN_HEADER_HOST:
        return add_host(facts, buf, h, out);
    case PN_HEADER_CONNECTION:
        add_connection(facts, value);
        return 0;
    case PN_HEADER_CONTENT_LENGTH:
        return add_length(buf, h, out);
    case PN_HEADER_TRANSFER_ENCODING:
        return add_coding(facts, buf, h, out);
    case PN_HEADER_EXPECT:
        add_expect(facts, value);
        return 0;
    case PN_HEADER_UPGRADE:
        *facts |= value.n > 0 ? PN__H1_FACT_UPGRADE : 0;
        return 0;
    case PN_HEADER_CONTENT_TYPE:
        if (*facts & PN__H1_FACT_TYPE)
            return PN_H1_E_TYPE_REPEATED;
        *facts |= PN__H1_FACT_TYPE;
        return 0;
    default:
        return 0;
    }
}

int pn__h1_facts_conclude_odd(unsigned facts, struct pn_h1_head *out)
{
    const bool v11 = out->minor > 0;
    out->has_host = facts & PN__H1_FACT_HOST;
    if (v11 && !out->has_host)
        return PN_H1_E_HOST_MISSING;
    if (facts & PN__H1_FACT_CODING) {
        /* The ambiguous ones first: whoever sends them must not learn more than 400. */
        if (!v11)
            return PN_H1_E_CODING_IN_1_0;
        if (out->content_length >= 0)
            return PN_H1_E_LENGTH_AND_CODING;
        if (facts & PN__H1_FACT_CODING_UNKNOWN)
            return PN_H1_E_CODING_UNKNOWN;
    }
    out->has_body = out->chunked || out->content_length > 0;
    out->keep_alive = !(facts & PN__H1_FACT_CLOSE) && (v11 || facts & PN__H1_FACT_KEEP_ALIVE);
    if (v11) { /* a 1.0 client's expectations and upgrades are ignored (RFC 9110 7.8, 10.1.1) */
        if (facts & PN__H1_FACT_EXPECT_UNKNOWN)
            return PN_H1_E_EXPECT;
        out->expect_continue = facts & PN__H1_FACT_EXPECT_CONTINUE && out->has_body;
        out->upgrade = facts & PN__H1_FACT_UPGRADE && facts & PN__H1_FACT_CONNECTION_UPGRADE;
    }
    return 0;
}

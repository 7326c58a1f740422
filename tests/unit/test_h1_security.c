/* SPDX-License-Identifier: Apache-2.0 */
/* Bugs that other servers had, each as a named case against the whole wire: what must be refused is
 * answered 400 (or the status that says more), the connection ends, and nothing behind it is ever
 * served. The parser's own tests have the same lines at the level of the pure functions. */
#include "unit/h1_test.h"

#include <stdlib.h>

struct refusal {
    const char *name;
    const char *request;
    const char *status; /* NULL: 400 */
};

#define POST  "POST / HTTP/1.1\r\nHost: a\r\n"
#define CHUNK POST "Transfer-Encoding: chunked\r\n\r\n"

/* clang-format off */
static const struct refusal refusals[] = {
    {"gunicorn CVE-2024-1135 conflicting Transfer-Encoding", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn CVE-2024-1135 two chunked", POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn CVE-2024-6827 unknown Transfer-Encoding and a length", POST "Transfer-Encoding: tchunked\r\nContent-Length: 3\r\n\r\nabc", NULL},
    {"gunicorn SNYK-541164 length and coding", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NULL},
    {"the same the other way round", POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn 3091 nbsp behind a name", POST "Transfer-Encoding\xa0: chunked\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn 3091 nel behind a name", POST "Transfer-Encoding\x85: chunked\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn 3364 VT around chunked", POST "Transfer-Encoding: \x0b" "chunked\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn 3364 FS around chunked", POST "Transfer-Encoding: chunked\x1c\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn 3364 nbsp around chunked", POST "Transfer-Encoding: \xa0" "chunked\r\n\r\n0\r\n\r\n", NULL},
    {"gunicorn 25.3 chunk extension with bare CR", CHUNK "1;a\rb\r\nx\r\n0\r\n\r\n", NULL},
    {"gunicorn 26.0 Content-Length list", POST "Content-Length: 3, 3\r\n\r\nabc", NULL},
    {"gunicorn 26.0 control character in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01" "b\r\n\r\n", NULL},
    {"gunicorn 26.0 forbidden trailer", CHUNK "0\r\nContent-Length: 5\r\n\r\n", NULL},
    {"gunicorn 26.0 forbidden trailer Host", CHUNK "0\r\nHost: b\r\n\r\n", NULL},
    {"gunicorn 26.0 authority-form outside CONNECT", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"gunicorn 26.0 asterisk-form outside OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"gunicorn 26.0 relative target", "GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"gunicorn 26.1 two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", NULL},
    {"gunicorn 26.1 two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", NULL},
    {"gunicorn 26.1 two Content-Types", POST "Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n\r\n", NULL},
    {"waitress CVE-2019-16785 bare LF lines", "GET / HTTP/1.1\nHost: a\n\n", NULL},
    {"waitress CVE-2019-16785 one bare LF", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", NULL},
    {"waitress CVE-2019-16786 coding not exactly chunked", POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", NULL},
    {"waitress CVE-2019-16786 gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
    {"waitress CVE-2019-16789 whitespace in the coding", POST "Transfer-Encoding: \tchunked\r\n\r\n0\r\n\r\n", NULL},
    {"waitress CVE-2019-16792 two lengths", POST "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc", NULL},
    {"two equal lengths", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", NULL},
    {"waitress CVE-2022-24761 +10", POST "Content-Length: +3\r\n\r\nabc", NULL},
    {"waitress CVE-2022-24761 0x10", POST "Content-Length: 0x3\r\n\r\nabc", NULL},
    {"negative length", POST "Content-Length: -3\r\n\r\nabc", NULL},
    {"length with an underscore", POST "Content-Length: 1_0\r\n\r\nabc", NULL},
    {"empty length", POST "Content-Length:\r\n\r\nabc", NULL},
    {"length past 64 bits", POST "Content-Length: 18446744073709551619\r\n\r\nabc", NULL},
    {"waitress CVE-2022-24761 unchecked chunk extension", CHUNK "1;\x01\r\nx\r\n0\r\n\r\n", NULL},
    {"protocol-http1 CVE-2023-38697 +size", CHUNK "+1\r\nx\r\n0\r\n\r\n", NULL},
    {"protocol-http1 CVE-2023-38697 0x size", CHUNK "0x1\r\nx\r\n0\r\n\r\n", NULL},
    {"hyper CVE-2021-32714 chunk size overflow", CHUNK "fffffffffffffffff1\r\nx\r\n0\r\n\r\n", NULL},
    {"h11 CVE-2025-43859 lax chunk terminator", CHUNK "1\r\nxAB0\r\n\r\n", NULL},
    {"chunk terminator LF only", CHUNK "1\r\nx\n0\r\n\r\n", NULL},
    {"chunk size line LF only", CHUNK "1\nx\r\n0\r\n\r\n", NULL},
    {"aiohttp CVE-2024-52304 LF in a chunk extension", CHUNK "1;a\nb\r\nx\r\n0\r\n\r\n", NULL},
    {"aiohttp CVE-2025-53643 bad trailer line", CHUNK "0\r\nGET / HTTP/1.1\r\n\r\n", NULL},
    {"gevent CVE-2023-41419 trailers read as a request", CHUNK "0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"llhttp CVE-2022-32213 coding with a space before the colon", POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", NULL},
    {"llhttp CVE-2022-32215 folded coding", POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", NULL},
    {"llhttp CVE-2023-30589 bare CR as a line end", "GET / HTTP/1.1\rHost: a\r\n\r\n", NULL},
    {"llhttp CVE-2024-27982 space before Content-Length", POST " Content-Length: 3\r\n\r\nabc", NULL},
    {"llhttp CVE-2025-23167 CRLF CR X", "GET / HTTP/1.1\r\nHost: a\r\n\rX", NULL},
    {"obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", NULL},
    {"coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NULL},
    {"hypercorn 277 CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "501"},
    {"no Host", "GET / HTTP/1.1\r\n\r\n", NULL},
    {"invalid Host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", NULL},
    {"Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", NULL},
    {"empty name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", NULL},
    {"NUL in a value", NULL, NULL}, /* sent by its own test */
    {"version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NULL},
    {"no version", "GET /\r\nHost: a\r\n\r\n", NULL},
    {"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"%00 in the path", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"bad escape in the path", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", NULL},
    {"TLS hello", "\x16\x03\x01\x02\x01\x01\x01\xfc\x03\x03", NULL},
};
/* clang-format on */

/* The refused request is followed by one that must never be served. */
static void refused(struct h1_fixture *f, const struct refusal *r, bool split)
{
    char expected[32];
    struct sim_link *l = h1_fixture_connect(f, GET);
    unsigned starts = f->starts, logged = f->accesses;
    h1_fixture_answer(f, l);
    snprintf(expected, sizeof expected, "HTTP/1.1 %s ", r->status ? r->status : "400");
    if (split)
        l->read_max = 1;
    h1_fixture_send(f, l, r->request);
    h1_fixture_send(f, l, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    h1_fixture_run(f);
    const char *out = h1_fixture_answer(f, l);
    if (strncmp(out, expected, strlen(expected)) != 0)
        fail_msg("%s: %s", r->name, out);
    assert_has(out, "Connection: close\r\n");
    assert_int_equal(h1_count(out, "HTTP/1.1 "), 1);
    if (f->starts != starts)
        fail_msg("%s: a handler was called", r->name);
    assert_int_equal(f->accesses, logged + 1);
    assert_non_null(f->seen[logged % H1_FIXTURE_SEEN_MAX].error);
    assert_true(l->fin);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

static void test_refusals(void **state)
{
    struct h1_fixture *f = *state;
    for (size_t i = 0; i < PN_ARRAY_LEN(refusals); i++) {
        if (!refusals[i].request)
            continue;
        f->accesses = 0;
        refused(f, &refusals[i], false);
        f->accesses = 0;
        refused(f, &refusals[i], true);
    }
}

static void test_nul_in_a_value(void **state)
{
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
    struct h1_fixture *f = *state;
    struct sim_link *l = h1_fixture_connect(f, NULL);
    sim_link_send(l, text, sizeof text - 1);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 400 ");
    assert_int_equal(f->starts, 0);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* waitress CVE-2024-49768: a request pipelined behind one that failed is never served, in whichever
 * pieces it comes. */
static void test_waitress_cve_2024_49768(void **state)
{
    struct h1_fixture *f = *state;
    static const char text[] =
        POST "Content-Length: x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        struct sim_link *l = h1_fixture_connect(f, NULL);
        sim_link_send(l, text, cut);
        h1_fixture_run(f);
        sim_link_send(l, text + cut, sizeof text - 1 - cut);
        const char *out = h1_fixture_answer(f, l);
        assert_int_equal(h1_count(out, "HTTP/1.1 400"), 1);
        assert_int_equal(f->starts, 0);
        sim_link_shutdown(l);
        h1_fixture_run(f);
        sim_link_free(l);
    }
}

/* gunicorn 26.0: pipelined bytes must not enter a body that is over. */
static void test_gunicorn_26_0_pipelined_bytes_and_closed_body(void **state)
{
    struct h1_fixture *f = *state;
    struct pn_str view;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, POST "Content-Length: 2\r\n\r\nab" GET);
    h1_fixture_run(f);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_DATA);
    assert_int_equal(view.n, 2);
    pn_exchange_body_consume(f->kept, 2);
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_END);
    f->start = NULL;
    h1_fixture_reply(f->kept, 200, "x");
    assert_int_equal(pn_exchange_body_peek(f->kept, &view), PN_BODY_END);
    h1_fixture_drop(f);
    assert_int_equal(h1_count(h1_fixture_answer(f, l), "200 OK"), 2);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* gunicorn 3626: a late reply must not reach the next request. */
static void test_gunicorn_3626_late_reply(void **state)
{
    struct h1_fixture *f = *state;
    f->start = h1_fixture_start_later;
    struct sim_link *l = h1_fixture_connect(f, GET);
    h1_fixture_run(f);
    struct pn_exchange *first = f->kept;
    f->kept = NULL;
    h1_fixture_reply(first, 200, "first\n");
    h1_fixture_send(f, l, GET);
    assert_int_equal(pn_exchange_write(first, "late", 4), -EPIPE);
    assert_int_equal(pn_exchange_end(first, NULL, 0), -EPIPE);
    pn_exchange_cancel(first, PN_CANCEL_HANDLER);
    assert_int_not_equal(l->fd, -1);
    h1_fixture_reply(f->kept, 200, "second\n");
    h1_fixture_drop(f);
    pn_exchange_unpin(first);
    const char *out = h1_fixture_answer(f, l);
    assert_has_not(out, "late");
    assert_has(out, "second\n");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

/* waitress CVE-2024-49769: a peer that goes at once must not make the loop spin. */
static void test_waitress_cve_2024_49769(void **state)
{
    struct h1_fixture *f = *state;
    struct sim_link *l = sim_link_open(f->sim);
    struct pn_transport t = sim_link_transport(l);
    struct pn_peer peer = {.address_len = 0};
    sim_link_break(l);
    pn_h1_adopt(f->h1, &t, &peer, NULL);
    assert_int_equal(l->fd, -1);
    h1_fixture_run(f);
    assert_int_equal(pn_h1_connections(f->h1), 0);
    uint64_t waits = sim_poller_stats(f->sim).waits;
    h1_fixture_advance(f, 1000);
    assert_true(sim_poller_stats(f->sim).waits < waits + 5);
    sim_link_free(l);
}

/* Tiny chunks with long extensions cost their sender. */
static void test_chunk_extension_flood(void **state)
{
    struct h1_fixture *f = *state;
    char ext[300];
    memset(ext, 'e', sizeof ext);
    memcpy(ext, "1;", 2);
    memcpy(ext + sizeof ext - 5, "\r\nx\r\n", 5);
    struct sim_link *l = h1_fixture_connect(f, CHUNK);
    for (int i = 0; i < 40; i++)
        sim_link_send(l, ext, sizeof ext);
    assert_has(h1_fixture_answer(f, l), "HTTP/1.1 400 ");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void flood(struct h1_fixture *f, const char *head, const char *part, int count,
                  const char *status)
{
    struct sim_link *l = h1_fixture_connect(f, head);
    for (int i = 0; i < count; i++)
        sim_link_send(l, part, strlen(part));
    sim_link_send(l, "\r\n\r\n", 4);
    const char *out = h1_fixture_answer(f, l);
    assert_has(out, status);
    assert_int_equal(h1_count(out, "HTTP/1.1 "), 1);
    assert_int_equal(f->starts, 0);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void test_input_bounds(void **state)
{
    struct h1_fixture *f = *state;
    flood(f, "GET /", "aaaaaaaaaaaaaaaa", 2100, "HTTP/1.1 414 ");
    flood(f, "GET / HTTP/1.1\r\nHost: a\r\nX: ", "aaaaaaaaaaaaaaaa", 2100, "HTTP/1.1 431 ");
    flood(f, "GET / HTTP/1.1\r\nHost: a\r\n", "X: y\r\n", 101, "HTTP/1.1 431 ");
    flood(f, "GET / HTTP/1.1\r\nHost: a\r\nX: ", "aaaaaaaaaaaaaaaaaaa\r\nX: ", 2000,
          "HTTP/1.1 431 ");
    flood(f, "\r\n\r\n\r\n\r\n\r\n\r\n", "\r\n", 4, "HTTP/1.1 400 ");
}

/* --- splitting: gunicorn CVE-2018-1000164, uvicorn CVE-2020-7695, gevent 775, waitress ZSL-2015-5267 --------- */

static unsigned splits_tried;

static void start_splits(struct h1_fixture *f, struct pn_exchange *x)
{
    static const struct pn_field bad[] = {
        {PN_STR("X-A"), PN_STR("a\r\nSet-Cookie: b")},
        {PN_STR("X-A"), PN_STR("a\nb")},
        {PN_STR("X-A"), PN_STR("a\rb")},
        {PN_STR("X-A"), {"a\0b", 3}},
        {PN_STR("X-A"), PN_STR("0123456789abcdef\r\n")},
        {PN_STR("X-A"), PN_STR("\r\n0123456789abcdef0123456789abcdef")},
        {PN_STR("X-A"), PN_STR("12345678\r")},
        {PN_STR("X-A"), PN_STR("\x7f")},
        {PN_STR("Location"), PN_STR("/a\r\n\r\n<script>")},
        {PN_STR("Set-Cookie"), PN_STR("a=b\r\nX: y")},
        {PN_STR("X-A\r\nX-B"), PN_STR("a")},
        {PN_STR("X-A:"), PN_STR("a")},
        {PN_STR("X A"), PN_STR("a")},
        {PN_STR(""), PN_STR("a")},
        {PN_STR("Content\rType"), PN_STR("a")}, /* bit 5 makes a hyphen of CR */
        {PN_STR("X-\xe9"), PN_STR("a")},
        {PN_STR("Transfer-Encoding"), PN_STR("chunked")},
        {PN_STR("transfer-encoding"), PN_STR("identity")},
        {PN_STR("Content-Length"), PN_STR("5\r\n")},
        {PN_STR("Content-Length"), PN_STR("+5")},
        {PN_STR("Content-Length"), PN_STR("5, 5")},
        {PN_STR("Content-Length"), PN_STR("")},
    };
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++, splits_tried++) {
        assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, &bad[i], 1, -1, 0), -EINVAL);
        assert_int_equal(pn_exchange_info(x, 103, &bad[i], 1), -EINVAL);
        assert_int_equal(x->state, PN_EXCHANGE_RECEIVED);
    }
    assert_int_equal(pn_exchange_head(x, 200, PN_STR("OK\r\nX: y"), NULL, 0, -1, 0), -EINVAL);
    assert_int_equal(pn_exchange_head(x, 99, PN_STR_NONE, NULL, 0, -1, 0), -EINVAL);
    assert_int_equal(pn_exchange_head(x, 1000, PN_STR_NONE, NULL, 0, -1, 0), -EINVAL);
    assert_int_equal(pn_exchange_head(x, 101, PN_STR_NONE, NULL, 0, -1, 0), -EINVAL);
    const struct pn_field two[] = {{PN_STR("Content-Length"), PN_STR("5")},
                                   {PN_STR("Content-Length"), PN_STR("6")}};
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, two, 2, -1, 0), -EINVAL);
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, two, 1, 4, 0), -EINVAL);
    h1_fixture_reply(x, 200, "clean\n");
    (void)f;
}

static void test_response_splitting(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_splits;
    struct sim_link *l = h1_fixture_connect(f, GET);
    const char *out = h1_fixture_answer(f, l);
    assert_int_equal(splits_tried, 22);
    /* None of it has left. */
    assert_true(strncmp(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer", 49) == 0);
    assert_has(out, "\r\n\r\nclean\n");
    assert_has_not(out, "X-A");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_fields(struct h1_fixture *f, struct pn_exchange *x)
{
    static const struct pn_field fields[] = {
        {PN_STR("Connection"), PN_STR("keep-alive, X-Secret")},
        {PN_STR("Keep-Alive"), PN_STR("timeout=5")},
        {PN_STR("Proxy-Connection"), PN_STR("close")},
        {PN_STR("Server"), PN_STR("mine")},
        {PN_STR("Date"), PN_STR("today")},
        {PN_STR("X-Tab"), PN_STR("a\tb")},
        {PN_STR("X-Bytes"), PN_STR("\xc3\xa9 and a long one of more than sixteen bytes \xff")},
        {PN_STR("x!#$%&'*+.^_`|~"), PN_STR("token")},
        {PN_STR("Empty"), PN_STR("")},
        {PN_STR("CONTENT-LENGTH"), PN_STR("2")},
    };
    (void)f;
    assert_int_equal(
        pn_exchange_head(x, 299, PN_STR("My \xe9 Own"), fields, PN_ARRAY_LEN(fields), -1, 0), 0);
    assert_int_equal(pn_exchange_write(x, "ok", 2), 2);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

/* Hop-by-hop fields are the wire's; everything lawful goes through as it is. */
static void test_response_fields(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_fields;
    struct sim_link *l = h1_fixture_connect(f, GET);
    assert_string_equal(h1_fixture_answer(f, l),
                        "HTTP/1.1 299 My \xe9 Own\r\nServer: mine\r\nDate: today\r\nX-Tab: a\tb\r\n"
                        "X-Bytes: \xc3\xa9 and a long one of more than sixteen bytes \xff\r\n"
                        "x!#$%&'*+.^_`|~: token\r\nEmpty: \r\nContent-Length: 2\r\n\r\nok");
    sim_link_shutdown(l);
    h1_fixture_run(f);
    sim_link_free(l);
}

static void start_close(struct h1_fixture *f, struct pn_exchange *x)
{
    static const struct pn_field fields[] = {{PN_STR("Connection"), PN_STR("Close")}};
    (void)f;
    assert_int_equal(pn_exchange_head(x, 200, PN_STR_NONE, fields, 1, 0, 0), 0);
    assert_int_equal(pn_exchange_end(x, NULL, 0), 0);
}

static void test_application_closes(void **state)
{
    struct h1_fixture *f = *state;
    f->start = start_close;
    struct sim_link *l = h1_fixture_connect(f, GET GET);
    const char *out = h1_fixture_answer(f, l);
    assert_int_equal(h1_count(out, "Connection: close\r\n"), 1);
    assert_int_equal(f->starts, 1);
    sim_link_shutdown(l);
    h1_fixture_run(f);
    assert_int_equal(l->fd, -1);
    sim_link_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        h1_test(test_refusals),
        h1_test(test_nul_in_a_value),
        h1_test(test_waitress_cve_2024_49768),
        h1_test(test_gunicorn_26_0_pipelined_bytes_and_closed_body),
        h1_test(test_gunicorn_3626_late_reply),
        h1_test(test_waitress_cve_2024_49769),
        h1_test(test_chunk_extension_flood),
        h1_test(test_input_bounds),
        h1_test(test_response_splitting),
        h1_test(test_response_fields),
        h1_test(test_application_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

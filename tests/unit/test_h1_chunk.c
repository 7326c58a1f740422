/* SPDX-License-Identifier: Apache-2.0 */
/* The chunked coding. Every input, good or bad, is decoded whole, byte by byte, and cut once at every
 * place, before an unreadable page; data, end and error must be the same each time. */
#include "http/h1_chunk.h"

#include <errno.h>
#include <stdio.h>

#include "h1_guard.h"
#include "test_base.h"

enum { BODY_MAX = 1 << 17 };

struct decoded {
    int result;  /* END, MORE or an error */
    size_t used; /* input bytes up to the end */
    size_t size;
    char body[BODY_MAX];
};

static struct decoded first, other;

/* Feeds the N bytes at INPUT as one span to CHUNK; what comes out goes behind what is in D. */
static void feed(struct pn_h1_chunk *chunk, const char *input, size_t n, struct decoded *d)
{
    const char *p = guard_copy(input, n);
    size_t used;
    struct pn_str data;
    do {
        d->result = pn_h1_chunk_next(chunk, p, n, &used, &data);
        assert_true(used <= n);
        if (d->result == PN_H1_CHUNK_DATA) {
            assert_true(data.n > 0 && data.p >= p && data.p + data.n == p + used);
            assert_true(d->size + data.n <= BODY_MAX);
            memcpy(d->body + d->size, data.p, data.n);
            d->size += data.n;
        }
        p += used;
        n -= used;
        d->used += used;
    } while (d->result == PN_H1_CHUNK_DATA);
    if (d->result == PN_H1_CHUNK_MORE)
        assert_int_equal(n, 0);
}

static void decode_cut(const char *input, size_t n, size_t cut, size_t step, struct decoded *d)
{
    struct pn_h1_chunk chunk;
    pn_h1_chunk_init(&chunk);
    d->result = PN_H1_CHUNK_MORE;
    d->used = d->size = 0;
    for (size_t i = 0; i < n && d->result == PN_H1_CHUNK_MORE;) {
        size_t m = i < cut ? cut - i : n - i;
        m = m < step ? m : step;
        feed(&chunk, input + i, m, d);
        i += m;
    }
    if (d->result < 0) /* and stays so */
        feed(&chunk, "0\r\n\r\n", 5, &(struct decoded){.size = 0});
}

static int check_bytes(const char *input, size_t n)
{
    decode_cut(input, n, 0, n, &first);
    decode_cut(input, n, 0, 1, &other);
    assert_int_equal(other.result, first.result);
    assert_int_equal(other.size, first.size);
    assert_memory_equal(other.body, first.body, first.size);
    if (first.result == PN_H1_CHUNK_END)
        assert_int_equal(other.used, first.used);
    for (size_t cut = 1; cut < n && n < 4096; cut++) {
        decode_cut(input, n, cut, n, &other);
        assert_int_equal(other.result, first.result);
        assert_int_equal(other.size, first.size);
        assert_memory_equal(other.body, first.body, first.size);
        if (first.result == PN_H1_CHUNK_END)
            assert_int_equal(other.used, first.used);
    }
    return first.result;
}

static int check(const char *text)
{
    return check_bytes(text, strlen(text));
}

static void assert_body(const char *want)
{
    assert_int_equal(first.size, strlen(want));
    assert_memory_equal(first.body, want, first.size);
}

static void bodies(void **state)
{
    (void)state;
    assert_int_equal(check("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), PN_H1_CHUNK_END);
    assert_body("hello world");
    assert_int_equal(check("0\r\n\r\n"), PN_H1_CHUNK_END);
    assert_body("");
    assert_int_equal(check("000000000000000\r\n\r\nGET /"), PN_H1_CHUNK_END);
    assert_int_equal(first.used, 19);
    assert_int_equal(check("00000000000000a\r\n0123456789\r\n00\r\n\r\n"), PN_H1_CHUNK_END);
    assert_body("0123456789");
    assert_int_equal(
        check("1a\r\nabcdefghijklmnopqrstuvwxyz\r\n1A\r\nABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n0\r\n\r\n"),
        PN_H1_CHUNK_END);
    assert_int_equal(first.size, 52);
    assert_int_equal(check("2\r\n\r\n\r\n0\r\n\r\n"), PN_H1_CHUNK_END);
    assert_body("\r\n");
}

static void a_body_cut_short_goes_on(void **state)
{
    (void)state;
    assert_int_equal(check("5\r\nhel"), PN_H1_CHUNK_MORE);
    assert_body("hel");
    assert_int_equal(check("5\r\nhello\r\n"), PN_H1_CHUNK_MORE);
    assert_int_equal(check("0\r\n"), PN_H1_CHUNK_MORE); /* gunicorn 26.1: that is not the end */
    assert_int_equal(check("0\r\n\r"), PN_H1_CHUNK_MORE);
    assert_int_equal(check("0\r\nA: b\r\n"), PN_H1_CHUNK_MORE);
    assert_int_equal(check("fffffffffffffff\r\nx"), PN_H1_CHUNK_MORE);
}

static void extensions(void **state)
{
    (void)state;
    assert_int_equal(check("5;a\r\nhello\r\n0;b=c;d=\"e;\\\"\t\r f\"\r\n\r\n"), PN_H1_E_CHUNK_EXT);
    assert_int_equal(check("5;a;b=c\r\nhello\r\n0;b=c;d=\"e;\\\"\t f\xc3\xbc\"\r\n\r\n"),
                     PN_H1_CHUNK_END);
    assert_body("hello");
    assert_int_equal(check("0;a=\"\"\r\n\r\n"), PN_H1_CHUNK_END);
}

static void trailers(void **state)
{
    struct pn_h1_chunk chunk;
    size_t used;
    struct pn_str data;
    (void)state;
    assert_int_equal(check("0\r\nX-Sum: 1\r\nEmpty:\r\nETag: \"a\"\r\n\r\nGET"), PN_H1_CHUNK_END);
    assert_int_equal(first.used, 34);
    assert_int_equal(
        check("0\r\nA-name-that-is-longer-than-all-those-that-are-known: \t\xff\r\n\r\n"),
        PN_H1_CHUNK_END);
    pn_h1_chunk_init(&chunk);
    assert_false(pn_h1_chunk_in_trailers(&chunk));
    assert_int_equal(pn_h1_chunk_next(&chunk, "0\r\n", 3, &used, &data), PN_H1_CHUNK_MORE);
    assert_true(pn_h1_chunk_in_trailers(&chunk));
    assert_int_equal(pn_h1_chunk_next(&chunk, "\r\n", 2, &used, &data), PN_H1_CHUNK_END);
    assert_false(pn_h1_chunk_in_trailers(&chunk));
    assert_int_equal(pn_h1_chunk_next(&chunk, "x", 1, &used, &data), PN_H1_CHUNK_END);
    assert_int_equal(used, 0);
}

static void extensions_are_bounded_over_the_body(void **state)
{
    static char text[BODY_MAX];
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 40; i++)
        n += (size_t)sprintf(text + n, "1;%0*d\r\nx\r\n", 99, 0);
    n += (size_t)sprintf(text + n, "0\r\n\r\n");
    assert_int_equal(check_bytes(text, n), PN_H1_CHUNK_END);
    n -= 5;
    n += (size_t)sprintf(text + n, "1;%0*d\r\nx\r\n0\r\n\r\n", 99, 0);
    assert_int_equal(check_bytes(text, n), PN_H1_E_CHUNK_EXT_SIZE);
}

static void trailers_are_bounded(void **state)
{
    static char text[BODY_MAX];
    size_t n;
    (void)state;
    n = (size_t)sprintf(text, "0\r\nA: %0*d\r\n\r\n", PN_HTTP_TRAILERS_SIZE_MAX - 7, 0);
    assert_int_equal(check_bytes(text, n), PN_H1_CHUNK_END);
    n = (size_t)sprintf(text, "0\r\nA: %0*d\r\n\r\n", PN_HTTP_TRAILERS_SIZE_MAX - 6, 0);
    assert_int_equal(check_bytes(text, n), PN_H1_E_TRAILERS_SIZE);
    n = (size_t)sprintf(text, "0\r\n");
    for (int i = 0; i < PN_HTTP_TRAILERS_MAX; i++)
        n += (size_t)sprintf(text + n, "A: b\r\n");
    strcpy(text + n, "\r\n");
    assert_int_equal(check_bytes(text, n + 2), PN_H1_CHUNK_END);
    strcpy(text + n, "A: b\r\n\r\n");
    assert_int_equal(check_bytes(text, n + 8), PN_H1_E_TRAILERS_SIZE);
}

static void forbidden_trailers_are_refused(void **state)
{
    static const char *const names[] = {
        "Content-Length", "Transfer-Encoding", "HOST",      "trailer",           "TE",
        "Connection",     "Authorization",     "cookie",    "Content-Type",      "content-encoding",
        "Expect",         "Upgrade",           "Range",     "X-Forwarded-For",   "Forwarded",
        "Proxy",          "If-Match",          "X-Real-IP", "Transfer_Encoding", "X_Forwarded-For"};
    char text[128], out[64];
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++) {
        snprintf(text, sizeof(text), "0\r\nA: b\r\n%s: x\r\n\r\n", names[i]);
        assert_int_equal(check(text), PN_H1_E_TRAILER_FORBIDDEN);
        if (!strchr(names[i], '_'))
            assert_int_equal(
                pn_h1_chunk_trailer(pn_str_of(names[i]), PN_STR("x"), out, sizeof(out)), -EINVAL);
    }
}

static void encoding(void **state)
{
    char out[PN_H1_CHUNK_HEAD_MAX + 1], line[32];
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++)
        for (int less = 0; less < 2; less++) {
            char want[32];
            uint64_t n = (UINT64_C(1) << bit) - (uint64_t)less;
            if (n == 0)
                continue;
            size_t len = (size_t)snprintf(want, sizeof(want), "%llx\r\n", (unsigned long long)n);
            assert_int_equal(pn_h1_chunk_head(n, out), len);
            assert_memory_equal(out, want, len);
        }
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("X-Sum"), PN_STR("12"), line, sizeof(line)), 11);
    assert_memory_equal(line, "X-Sum: 12\r\n", 11);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("X-Sum"), PN_STR("12"), line, 11), 11);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("X-Sum"), PN_STR("12"), line, 10), -ENOSPC);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("A"), PN_STR_NONE, line, 3), -ENOSPC);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("A"), PN_STR_NONE, line, 5), 5);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR(""), PN_STR("x"), line, 32), -EINVAL);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("A:"), PN_STR("x"), line, 32), -EINVAL);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("A"), PN_STR("x\r\nB: c"), line, 32), -EINVAL);
    assert_int_equal(pn_h1_chunk_trailer(PN_STR("A_b"), PN_STR("x"), line, 32), 8);
}

struct refused {
    const char *name;
    int err;
    const char *text;
    size_t len;
};

#define R(name, err, text)                          \
    {                                               \
        name, PN_H1_E_##err, text, sizeof(text) - 1 \
    }

static struct refused refused[] = {
    R("size +5 (protocol-http1 CVE-2023-38697, hyper)", CHUNK_SIZE, "+5\r\nhello\r\n0\r\n\r\n"),
    R("size 0x5 (protocol-http1 CVE-2023-38697)", CHUNK_SIZE, "0x5\r\nhello\r\n0\r\n\r\n"),
    R("size -1", CHUNK_SIZE, "-1\r\nhello\r\n0\r\n\r\n"),
    R("size empty", CHUNK_SIZE, "\r\nhello\r\n0\r\n\r\n"),
    R("size only an extension", CHUNK_SIZE, ";a\r\nhello\r\n0\r\n\r\n"),
    R("size 1_0", CHUNK_SIZE, "1_0\r\nhello\r\n0\r\n\r\n"),
    R("size with a space before", CHUNK_SIZE, " 5\r\nhello\r\n0\r\n\r\n"),
    R("size with a space behind", CHUNK_SIZE, "5 \r\nhello\r\n0\r\n\r\n"),
    R("size with a tab behind", CHUNK_SIZE, "5\t\r\nhello\r\n0\r\n\r\n"),
    R("size with a space before its extension", CHUNK_SIZE, "5 ;a\r\nhello\r\n0\r\n\r\n"),
    R("size overflow (hyper CVE-2021-32714)", CHUNK_SIZE, "f0000000000000003\r\nabc\r\n0\r\n\r\n"),
    R("size of 2^64", CHUNK_SIZE, "10000000000000000\r\nabc\r\n0\r\n\r\n"),
    R("size of 2^60", CHUNK_SIZE, "1000000000000000\r\nabc\r\n0\r\n\r\n"),
    R("size with endless zeros", CHUNK_SIZE, "0000000000000005\r\nhello\r\n0\r\n\r\n"),
    R("size not hexadecimal", CHUNK_SIZE, "g\r\nhello\r\n0\r\n\r\n"),
    R("size line ends in LF", CHUNK_SIZE, "5\nhello\r\n0\r\n\r\n"),
    R("size line ends in CR", CHUNK_SIZE, "5\rhello\r\n0\r\n\r\n"),
    R("size line ends in CR X", CHUNK_SIZE, "5\rXhello\r\n0\r\n\r\n"),
    R("size line ends in CR CR LF", CHUNK_SIZE, "5\r\r\nhello\r\n0\r\n\r\n"),
    R("data longer than its size", CHUNK_END, "5\r\nhello!\r\n0\r\n\r\n"),
    R("data ends in LF (h11 CVE-2025-43859)", CHUNK_END, "5\r\nhello\n0\r\n\r\n"),
    R("data ends in any two bytes (h11 CVE-2025-43859)", CHUNK_END, "5\r\nhelloXX0\r\n\r\n"),
    R("data ends in CR X", CHUNK_END, "5\r\nhello\rX0\r\n\r\n"),
    R("data without an end", CHUNK_END, "5\r\nhello0\r\n\r\n"),
    R("last chunk line cut (gunicorn 26.1)", TRAILER,
      "0\r\nX"
      "\r\n\r\n"),
    R("extension with a bare CR (gunicorn 25.3)", CHUNK_SIZE, "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    R("extension with a bare LF (aiohttp CVE-2024-52304)", CHUNK_EXT,
      "5;a\nb\r\nhello\r\n0\r\n\r\n"),
    R("extension with NUL", CHUNK_EXT, "5;a\0b\r\nhello\r\n0\r\n\r\n"),
    R("extension unchecked (waitress CVE-2022-24761)", CHUNK_EXT, "5;(a)\r\nhello\r\n0\r\n\r\n"),
    R("extension empty", CHUNK_EXT, "5;\r\nhello\r\n0\r\n\r\n"),
    R("extension value empty", CHUNK_EXT, "5;a=\r\nhello\r\n0\r\n\r\n"),
    R("extension with a space", CHUNK_EXT, "5;a =b\r\nhello\r\n0\r\n\r\n"),
    R("extension quoted and more", CHUNK_EXT, "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n"),
    R("extension with LF in quotes", CHUNK_EXT, "5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n"),
    R("extension with CR LF in quotes", CHUNK_EXT, "5;a=\"b\r\nc\"\r\nhello\r\n0\r\n\r\n"),
    R("extension with an escaped LF", CHUNK_EXT, "5;a=\"\\\n\"\r\nhello\r\n0\r\n\r\n"),
    R("trailer that is a request (gevent CVE-2023-41419)", TRAILER,
      "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("trailer that is a request (eventlet CVE-2025-58068)", TRAILER,
      "0\r\nGET /admin?: HTTP/1.1\r\n\r\n"),
    R("trailer without a colon (aiohttp CVE-2025-53643)", TRAILER, "0\r\nabc\r\n\r\n"),
    R("trailer without a name", TRAILER, "0\r\n: b\r\n\r\n"),
    R("trailer with a space before the colon", TRAILER, "0\r\nA : b\r\n\r\n"),
    R("trailer folded", TRAILER, "0\r\nA: b\r\n c\r\n\r\n"),
    R("trailer with a bare LF", TRAILER, "0\r\nA: b\nC: d\r\n\r\n"),
    R("trailer with a bare CR", TRAILER, "0\r\nA: b\rC: d\r\n\r\n"),
    R("trailer with NUL", TRAILER, "0\r\nA: b\0\r\n\r\n"),
    R("trailer with DEL", TRAILER, "0\r\nA: \x7f\r\n\r\n"),
    R("trailer name above 7f", TRAILER, "0\r\n\xc3: b\r\n\r\n"),
    R("end is LF", TRAILER, "0\r\n\n"),
    R("end is CR X", TRAILER, "0\r\n\rX"),
    R("end is CR CR LF", TRAILER, "0\r\n\r\r\n"),
};

static void is_refused(void **state)
{
    const struct refused *r = *state;
    assert_int_equal(check_bytes(r->text, r->len), r->err);
    assert_int_equal(pn_h1_error_status(r->err), 400);
}

int main(void)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(bodies),
        cmocka_unit_test(a_body_cut_short_goes_on),
        cmocka_unit_test(extensions),
        cmocka_unit_test(trailers),
        cmocka_unit_test(extensions_are_bounded_over_the_body),
        cmocka_unit_test(trailers_are_bounded),
        cmocka_unit_test(forbidden_trailers_are_refused),
        cmocka_unit_test(encoding),
    };
    struct CMUnitTest refused_tests[PN_ARRAY_LEN(refused)];
    for (size_t i = 0; i < PN_ARRAY_LEN(refused); i++)
        refused_tests[i] = (struct CMUnitTest){
            .name = refused[i].name, .test_func = is_refused, .initial_state = &refused[i]};
    int failed = cmocka_run_group_tests_name("plain", plain, NULL, NULL);
    return failed + cmocka_run_group_tests_name("refused", refused_tests, NULL, NULL);
}

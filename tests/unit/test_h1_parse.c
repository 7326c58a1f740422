/* SPDX-License-Identifier: Apache-2.0 */
/* The request head parser: what is accepted and what comes out, sizes, scanners. What is refused is in
 * test_h1_refuse.c. */
#include "http/h1_parse.h"

#include <stdio.h>

#include "h1_check.h"

static int check(const char *text)
{
    return check_bytes(text, strlen(text));
}

static void assert_span(struct pn_span span, const char *want)
{
    assert_int_equal(span.len, strlen(want));
    assert_memory_equal(base + span.off, want, span.len);
}

static void assert_header(size_t i, const char *name, const char *value, int id)
{
    assert_true(i < head.headers_count);
    assert_span((struct pn_span){headers[i].name_off, headers[i].name_len}, name);
    assert_span((struct pn_span){headers[i].value_off, headers[i].value_len}, value);
    assert_int_equal(headers[i].id, id);
}

/* --- what is accepted --- */

static void a_plain_get(void **state)
{
    const char *text = "GET /a/b?x=1&y=2 HTTP/1.1\r\nHost: example.com:8080\r\n"
                       "User-Agent: test\r\nAccept: */*\r\nX-Own:\t a b \t\r\nEmpty:\r\n\r\n";
    (void)state;
    assert_int_equal(check(text), strlen(text));
    assert_span(head.method, "GET");
    assert_int_equal(head.method_id, PN_H1_METHOD_GET);
    assert_span(head.target, "/a/b?x=1&y=2");
    assert_span(head.path, "/a/b");
    assert_span(head.query, "x=1&y=2");
    assert_span(head.authority, "example.com:8080");
    assert_int_equal(head.form, PN_H1_FORM_ORIGIN);
    assert_int_equal(head.minor, 1);
    assert_int_equal(head.headers_count, 5);
    assert_header(0, "Host", "example.com:8080", PN_HEADER_HOST);
    assert_header(1, "User-Agent", "test", PN_HEADER_USER_AGENT);
    assert_header(2, "Accept", "*/*", PN_HEADER_ACCEPT);
    assert_header(3, "X-Own", "a b", PN_HEADER_OTHER);
    assert_header(4, "Empty", "", PN_HEADER_OTHER);
    assert_int_equal(head.content_length, -1);
    assert_true(head.keep_alive && head.has_host && head.has_query);
    assert_false(head.has_body || head.chunked || head.expect_continue || head.upgrade);
    assert_false(head.path_escaped || head.https);
}

static void bytes_behind_the_head_are_left(void **state)
{
    const char *one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    char text[1024];
    (void)state;
    snprintf(text, sizeof(text), "%s%s\x01\r\n\r\n", one, one);
    assert_int_equal(check(text), strlen(one));
}

static void lines_of_every_length(void **state)
{
    /* Names and values that end at every place of a 64 byte block and of a window. */
    char text[4096];
    (void)state;
    for (int n = 1; n < 150; n++) {
        int len =
            snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\nHost: a\r\nN%0*d: v%0*d\r\n\r\n", n,
                     0, n, 0, 300 - n, 0);
        assert_int_equal(check_bytes(text, (size_t)len), len);
        assert_int_equal(head.path.len, n + 1);
        assert_int_equal(headers[1].name_len, n + 1);
        assert_int_equal(headers[1].value_len, 301 - n);
    }
}

static void empty_lines_before_are_skipped(void **state)
{
    (void)state;
    assert_int_equal(check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 31);
    assert_span(head.method, "GET");
    assert_int_equal(check("\r\n"), PN_H1_INCOMPLETE);
    assert_int_equal(check("\r\n\r\n\r\n\r\n"), PN_H1_INCOMPLETE);
    assert_int_equal(check("\r\n\r\n\r\n\r\n\r\n"), PN_H1_E_EMPTY_LINES);
}

static void methods(void **state)
{
    static const char *const names[] = {"OTHER",  "GET",     "HEAD",  "POST", "PUT",
                                        "DELETE", "OPTIONS", "PATCH", "TRACE"};
    char text[256];
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++) {
        snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: a\r\n\r\n", names[i]);
        assert_true(check(text) > 0);
        assert_int_equal(head.method_id, i);
        assert_span(head.method, names[i]);
    }
    assert_true(check("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(check("!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_span(head.method, "!#$%&'*+-.^_`|~9");
    assert_true(check("get / HTTP/1.1\r\nHost: a\r\n\r\n") > 0); /* case matters: another method */
    assert_int_equal(head.method_id, PN_H1_METHOD_OTHER);
}

static void targets(void **state)
{
    (void)state;
    assert_true(check("GET /? HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(head.has_query);
    assert_span(head.query, "");
    assert_span(head.path, "/");
    assert_true(check("GET /a?b?c%zz HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_span(head.query, "b?c%zz");
    assert_false(head.path_escaped);
    assert_true(check("GET /%41%2F HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(head.path_escaped);
    assert_true(check("GET //x/../y HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_span(head.path, "//x/../y");
    assert_true(check("GET /a|b{}\"<>^`\\[] HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_true(check("GET /\xc3\xbc\xff\x80?\xa0 HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_span(head.path, "/\xc3\xbc\xff\x80");
    assert_true(check("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_int_equal(head.form, PN_H1_FORM_ASTERISK);
    assert_span(head.path, "*");
}

static void absolute_targets_override_host(void **state)
{
    (void)state;
    assert_true(check("GET http://b.example:81/p?q HTTP/1.1\r\nHost: a\r\n\r\n") > 0);
    assert_int_equal(head.form, PN_H1_FORM_ABSOLUTE);
    assert_span(head.authority, "b.example:81");
    assert_span(head.path, "/p");
    assert_span(head.query, "q");
    assert_span(head.target, "http://b.example:81/p?q");
    assert_false(head.https);
    assert_true(check("GET HTTPS://[::1]:443?q HTTP/1.1\r\nHost: %41\r\n\r\n") > 0);
    assert_true(head.https);
    assert_span(head.authority, "[::1]:443");
    assert_span(head.path, "");
    assert_span(head.query, "q");
    assert_true(check("GET http://b HTTP/1.0\r\n\r\n") > 0);
    assert_span(head.authority, "b");
    assert_span(head.path, "");
    /* Long enough for the end of the target to lie several windows behind its path. */
    char text[2048];
    snprintf(text, sizeof(text), "GET http://b/%0*d?%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 700, 0, 300,
             0);
    assert_true(check(text) > 0);
    assert_int_equal(head.path.len, 701);
    assert_int_equal(head.query.len, 300);
}

static void versions(void **state)
{
    (void)state;
    assert_true(check("GET / HTTP/1.0\r\n\r\n") > 0);
    assert_int_equal(head.minor, 0);
    assert_false(head.keep_alive || head.has_host);
    assert_span(head.authority, "");
    assert_true(check("GET / HTTP/1.2\r\nHost: a\r\n\r\n") > 0);
    assert_int_equal(head.minor, 1);
    assert_true(head.keep_alive);
    assert_true(check("GET / HTTP/1.9\r\nHost: a\r\n\r\n") > 0);
}

static void persistence(void **state)
{
    static const struct {
        const char *text;
        bool keep;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x, close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: \"close\"\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: foo,keep-alive ,\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alivf\r\n\r\n", false},
    };
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(cases); i++) {
        assert_true(check(cases[i].text) > 0);
        assert_int_equal(head.keep_alive, cases[i].keep);
    }
}

static void bodies(void **state)
{
    (void)state;
    assert_true(check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 42\r\n\r\n") > 0);
    assert_int_equal(head.content_length, 42);
    assert_true(head.has_body && !head.chunked);
    assert_true(check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") > 0);
    assert_int_equal(head.content_length, 0);
    assert_false(head.has_body);
    assert_true(check("POST / HTTP/1.1\r\nHost: a\r\ncontent-length:   007  \r\n\r\n") > 0);
    assert_int_equal(head.content_length, 7);
    assert_true(check("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n") >
                0);
    assert_true(head.content_length == INT64_MAX);
    assert_true(check("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ChunKed\r\n\r\n") > 0);
    assert_true(head.chunked && head.has_body);
    assert_int_equal(head.content_length, -1);
}

static void expectations_and_upgrades(void **state)
{
    (void)state;
    assert_true(
        check("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n") >
        0);
    assert_true(head.expect_continue);
    assert_true(check("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n") > 0);
    assert_false(head.expect_continue); /* nothing is to come */
    assert_true(check("PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n") > 0);
    assert_false(head.expect_continue);
    assert_true(check("PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n") > 0);
    assert_true(
        check("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, x\r\nUpgrade: websocket\r\n\r\n") >
        0);
    assert_true(head.upgrade);
    assert_true(check("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n") > 0);
    assert_false(head.upgrade);
    assert_true(check("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n") > 0);
    assert_false(head.upgrade);
    assert_true(check("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n") > 0);
    assert_false(head.upgrade);
}

static void hosts(void **state)
{
    static const char *const good[] = {
        "",      "a",       "a.b-c.example", "127.0.0.1:9090", "[::1]", "[::1]:80",     "[v1.a]",
        "a_b:1", "a:65535", "xn--9ca.de",    "%41:",           "a:",    "1.2.3.4:12345"};
    static const char *const bad[] = {"a b",
                                      "a:65536",
                                      "a:123456",
                                      ":80",
                                      "a:b",
                                      "a:8 0",
                                      "[::1",
                                      "::1",
                                      "[1]",
                                      "u@h",
                                      "a/b",
                                      "a?b",
                                      "a,b c",
                                      "a:80:80",
                                      "%4",
                                      "\xc3\xbc",
                                      "a\\b",
                                      "[::1]a",
                                      "[fe80::1%25eth0]",
                                      "a:-1",
                                      "a:8a",
                                      "a\tb"};
    char text[256];
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(good); i++) {
        snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        assert_true(check(text) > 0);
        assert_span(head.authority, good[i]);
        assert_true(head.has_host);
    }
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++)
        for (int minor = 0; minor < 2; minor++) {
            snprintf(text, sizeof(text), "GET / HTTP/1.%d\r\nHost: %s\r\n\r\n", minor, bad[i]);
            assert_int_equal(check(text), PN_H1_E_HOST);
        }
}

static void host_is_checked_wherever_it_lies(void **state)
{
    /* The quick look at a host uses the maps of the block it is in. */
    char text[1024];
    (void)state;
    for (int n = 0; n < 330; n++) {
        snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\nHost: 127.0.0.1:9090\r\n\r\n", n + 1,
                 0);
        assert_true(check(text) > 0);
        assert_span(head.authority, "127.0.0.1:9090");
        snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\nHost: 127.0.0.1:9o90\r\n\r\n", n + 1,
                 0);
        assert_int_equal(check(text), PN_H1_E_HOST);
    }
}

static void unusual_names_are_marked(void **state)
{
    (void)state;
    assert_true(check("GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\nHo.st: 2\r\n"
                      "!: 3\r\nX-Forwarded-For: 4\r\nContent_Length: 5\r\n_: 6\r\n\r\n") > 0);
    assert_header(1, "X_Forwarded_For", "1", PN_HEADER_UNUSUAL);
    assert_header(2, "Ho.st", "2", PN_HEADER_UNUSUAL);
    assert_header(3, "!", "3", PN_HEADER_UNUSUAL);
    assert_header(4, "X-Forwarded-For", "4", PN_HEADER_X_FORWARDED_FOR);
    assert_header(5, "Content_Length", "5", PN_HEADER_UNUSUAL);
    assert_header(6, "_", "6", PN_HEADER_UNUSUAL);
    assert_int_equal(head.content_length, -1);
}

static void every_known_name_is_known(void **state)
{
    char text[256];
    (void)state;
    for (int id = PN_HEADER_HOST; id < PN_HEADER_COUNT; id++) {
        char name[PN_HEADER_NAME_MAX + 2];
        struct pn_str known = pn_header_known_name((enum pn_header_id)id);
        memcpy(name, known.p, known.n);
        name[known.n] = '\0';
        assert_int_equal(pn_header_id_of(name, known.n), id);
        for (size_t i = 0; i < known.n; i++) {
            /* Upper case is the same name; one other letter is another name. */
            char was = name[i];
            if (was >= 'a')
                name[i] = (char)(was - 32);
            assert_int_equal(pn_header_id_of(name, known.n), id);
            name[i] = was == 'q' ? 'z' : 'q';
            assert_int_equal(pn_header_id_of(name, known.n), PN_HEADER_OTHER);
            name[i] = was;
        }
        snprintf(text, sizeof(text), "GET / HTTP/1.0\r\n%s:\r\n\r\n", name);
        int rc = check(text);
        if (id == PN_HEADER_CONTENT_LENGTH || id == PN_HEADER_TRANSFER_ENCODING)
            assert_true(rc < 0);
        else
            assert_header(0, name, "", id);
        name[known.n] = 'x';
        assert_int_equal(pn_header_id_of(name, known.n + 1), PN_HEADER_OTHER);
        if (known.n > 1)
            assert_int_equal(pn_header_id_of(name, known.n - 1) == (enum pn_header_id)id, 0);
    }
}

static void sizes_are_bounded(void **state)
{
    char text[2048];
    struct pn_h1_limits before = limits;
    (void)state;
    limits.head_max = 600;
    limits.target_max = 100;
    limits.line_max = 200;
    limits.headers_max = 3;
    snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 99, 0);
    assert_true(check(text) > 0);
    snprintf(text, sizeof(text), "GET /%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 100, 0);
    assert_int_equal(check(text), PN_H1_E_TARGET_SIZE);
    snprintf(text, sizeof(text), "GET /%0*d", 700, 0);
    assert_int_equal(check(text), PN_H1_E_TARGET_SIZE);
    snprintf(text, sizeof(text), "GET http://a/%0*d HTTP/1.1\r\nHost: a\r\n\r\n", 100, 0);
    assert_int_equal(check(text), PN_H1_E_TARGET_SIZE);
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nA: %0*d\r\n\r\n", 197, 0);
    assert_true(check(text) > 0);
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nA: %0*d\r\n\r\n", 198, 0);
    assert_int_equal(check(text), PN_H1_E_LINE_SIZE);
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nA%0*d: 1\r\n\r\n", 198, 0);
    assert_int_equal(check(text), PN_H1_E_LINE_SIZE);
    snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nA_%0*d: 1\r\n\r\n", 198, 0);
    assert_int_equal(check(text), PN_H1_E_LINE_SIZE);
    assert_true(check("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 2\r\n\r\n") > 0);
    assert_int_equal(check("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nA: 2\r\nA: 3\r\n\r\n"),
                     PN_H1_E_HEADERS_COUNT);
    int n = snprintf(text, sizeof(text),
                     "GET / HTTP/1.1\r\nHost: a\r\nA: %0*d\r\nA: %0*d\r\nA: %0*d\r\n\r\n", 180, 0,
                     180, 0, 180, 0);
    limits.headers_max = 4;
    assert_true(n <= 600 && check(text) == n);
    limits.head_max = (uint32_t)n;
    assert_int_equal(check(text), n);
    limits.head_max = (uint32_t)n - 1;
    assert_int_equal(check(text), PN_H1_E_HEAD_SIZE);
    limits = before;
}

static void a_name_longer_than_its_length_field(void **state)
{
    struct pn_h1_limits before = limits;
    size_t n = 70000;
    char *text = malloc(n + 100);
    (void)state;
    limits.head_max = limits.line_max = 200000;
    int at = sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
    memset(text + at, 'n', n);
    strcpy(text + at + n, ": v\r\n\r\n");
    n += (size_t)at + 7;
    assert_int_equal(parse(text, n, 0, &head, headers), PN_H1_E_LINE_SIZE);
    text[at + 3] = '_';
    assert_int_equal(parse(text, n, 0, &head, headers), PN_H1_E_LINE_SIZE);
    free(text);
    limits = before;
}

static size_t blocks_classified;

static void classify_counting(const char *p, size_t n, uint64_t *stop, uint64_t *control)
{
    blocks_classified += (n + PN_H1_BLOCK - 1) / PN_H1_BLOCK;
    pn_h1_scan_for(PN_H1_ISA_PORTABLE)->classify(p, n, stop, control);
}

static void byte_by_byte_is_linear(void **state)
{
    /* Looking at everything again with each byte would take 7 million blocks. */
    enum { N = 30000 };
    static char text[N];
    static struct pn_header many[N / 20];
    const struct pn_h1_scan counting = {.name = "counting", .classify = classify_counting};
    struct pn_h1_limits own = limits;
    struct pn_h1_head h = {.headers = many, .headers_cap = N / 20};
    int rc = PN_H1_INCOMPLETE;
    (void)state;
    own.scan = &counting;
    own.headers_max = N / 20;
    int at = sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
    while (at < N - 40)
        at += sprintf(text + at, "Header: value and value\r\n");
    at += sprintf(text + at, "\r\n");
    blocks_classified = 0;
    for (int i = 1; i <= at && rc == PN_H1_INCOMPLETE; i++)
        rc = pn_h1_parse_head(text, (size_t)i, (size_t)i - 1, &own, &h);
    assert_int_equal(rc, at);
    assert_true(blocks_classified >= 1 && blocks_classified <= 2 * (size_t)at);
}

static void scanners_agree_on_every_byte(void **state)
{
    const struct pn_h1_scan *portable = pn_h1_scan_for(PN_H1_ISA_PORTABLE);
    uint64_t rng = 9112;
    char block[4 * PN_H1_BLOCK];
    (void)state;
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof(block); i++) {
            rng = rng * 6364136223846793005U + 1442695040888963407U;
            block[i] = round < 256 ? (char)(i + (size_t)round) : (char)(rng >> 56);
        }
        uint64_t stop[2][4], control[2][4];
        size_t n = (size_t)round % (3 * PN_H1_BLOCK) + PN_H1_BLOCK;
        const char *p = guard_copy(block, n);
        memset(stop, 0, sizeof(stop));
        memset(control, 0, sizeof(control));
        portable->classify(p, n, stop[0], control[0]);
        for (int isa = PN_H1_ISA_SSE42; isa < PN_H1_ISA_COUNT; isa++) {
            const struct pn_h1_scan *scan = pn_h1_scan_for((enum pn_h1_isa)isa);
            if (!scan)
                continue;
            scan->classify(p, n, stop[1], control[1]);
            assert_memory_equal(stop[0], stop[1], sizeof(stop[0]));
            assert_memory_equal(control[0], control[1], sizeof(control[0]));
        }
    }
}

static void random_heads(void **state)
{
    /* Pieces that make sense and pieces that do not, in random order, through check(). */
    static const char *const pieces[] = {
        "GET ",
        "/",
        " HTTP/1.1\r\n",
        "Host: a\r\n",
        "\r\n",
        "\r",
        "\n",
        ": ",
        "x",
        "Content-Length: 3\r\n",
        "POST /a?b",
        "%41",
        "#",
        "\t",
        " ",
        "\x7f",
        "\xff",
        "X-Long-Header-Name: value\r\n",
        "\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "a_b: c\r\n",
        "Transfer-Encoding: chunked\r\n",
        "0123456789abcdefghijklmnopqrstuvwxyz",
    };
    uint64_t rng = 7230;
    char text[4096];
    int good = 0;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        size_t n = 0;
        int count = (int)(rng >> 60) + 1;
        if (round % 2)
            n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
        while (count-- > 0) {
            rng = rng * 6364136223846793005U + 1442695040888963407U;
            n += (size_t)sprintf(text + n, "%s", pieces[(rng >> 40) % PN_ARRAY_LEN(pieces)]);
        }
        good += check_bytes(text, n) > 0;
    }
    assert_true(good > 50);
}

static int set_up(void **state)
{
    (void)state;
    pn_h1_limits_init(&limits);
    return 0;
}

int main(void)
{
    const struct CMUnitTest accepted[] = {
        cmocka_unit_test(a_plain_get),
        cmocka_unit_test(bytes_behind_the_head_are_left),
        cmocka_unit_test(lines_of_every_length),
        cmocka_unit_test(empty_lines_before_are_skipped),
        cmocka_unit_test(methods),
        cmocka_unit_test(targets),
        cmocka_unit_test(absolute_targets_override_host),
        cmocka_unit_test(versions),
        cmocka_unit_test(persistence),
        cmocka_unit_test(bodies),
        cmocka_unit_test(expectations_and_upgrades),
        cmocka_unit_test(hosts),
        cmocka_unit_test(host_is_checked_wherever_it_lies),
        cmocka_unit_test(unusual_names_are_marked),
        cmocka_unit_test(every_known_name_is_known),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(a_name_longer_than_its_length_field),
        cmocka_unit_test(byte_by_byte_is_linear),
        cmocka_unit_test(scanners_agree_on_every_byte),
        cmocka_unit_test(random_heads),
    };
    return cmocka_run_group_tests(accepted, set_up, NULL);
}

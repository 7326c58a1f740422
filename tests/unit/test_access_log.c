/* SPDX-License-Identifier: Apache-2.0 */
/* The request log: one line a request, whatever the client wrote. */
#include "unit/h1_test.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "http/access_log.h"

static struct pn_access_log writer;
static char lines[PN_ACCESS_LINE_MAX + 1];

static int utc(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    pn_access_log_init(&writer, NULL);
    return 0;
}

static const char *format(const struct pn_access *a)
{
    size_t n = pn_access_log_format(&writer, a, lines);
    assert_true(n > 0 && n <= PN_ACCESS_LINE_MAX);
    assert_int_equal(lines[n - 1], '\n');
    assert_null(memchr(lines, '\n', n - 1));
    lines[n] = '\0';
    return lines;
}

static const struct pn_peer peer = {.address = "192.0.2.1", .address_len = 9, .port = 80};

static struct pn_exchange exchange(const char *method, const char *target)
{
    static char text[1 << 16];
    struct pn_exchange x = {.magic = PN_EXCHANGE_MAGIC, .version_major = 1, .version_minor = 1};
    size_t m = strlen(method), t = strlen(target);
    memcpy(text, method, m);
    memcpy(text + m, target, t);
    x.head_base = text;
    x.method = (struct pn_span){0, (uint32_t)m};
    x.target = (struct pn_span){(uint32_t)m, (uint32_t)t};
    return x;
}

static void test_line(void **state)
{
    struct pn_exchange x = exchange("GET", "/a/path?with=a&query=of-some-length");
    struct pn_access a = {.x = &x,
                          .peer = &peer,
                          .status = 200,
                          .sent_size = 1234,
                          .duration_ns = 412345,
                          .time_s = 784111777};
    (void)state;
    assert_string_equal(format(&a), "192.0.2.1 [1994-11-06 08:49:37 +0000] \"GET "
                                    "/a/path?with=a&query=of-some-length HTTP/1.1\" 200 1234 "
                                    "0.412ms\n");
    a.time_s++;
    a.duration_ns = INT64_C(3600000001999);
    x.version_minor = 0;
    assert_string_equal(format(&a), "192.0.2.1 [1994-11-06 08:49:38 +0000] \"GET "
                                    "/a/path?with=a&query=of-some-length HTTP/1.0\" 200 1234 "
                                    "3600000.001ms\n");
}

static void test_line_of_refusal(void **state)
{
    struct pn_peer unix_peer = {.is_unix = true};
    struct pn_access a = {.peer = &unix_peer,
                          .status = 400,
                          .sent_size = 99,
                          .time_s = 784111777,
                          .error = "Host is missing"};
    (void)state;
    assert_string_equal(format(&a), "unix [1994-11-06 08:49:37 +0000] \"-\" 400 99 0.000ms "
                                    "error=\"Host is missing\"\n");
}

/* uvicorn CVE-2020-7694: what a client writes must not reach a terminal, or make a second line. */
static void test_escapes(void **state)
{
    struct pn_exchange x = exchange("GE\x1b", "/\x1b[31m\"\\\n\x7f\xc3\xa9");
    struct pn_access a = {.x = &x, .peer = &peer, .status = 404, .time_s = 784111777};
    (void)state;
    assert_has(format(&a), "\"GE\\x1b /\\x1b[31m\\x22\\x5c\\x0a\\x7f\\xc3\\xa9 HTTP/1.1\" 404");
}

/* In a target of N bytes, at every place, each byte comes out as itself or escaped. */
static void check_every_byte(size_t n)
{
    char target[64], expected[80];
    for (size_t pos = 1; pos < n; pos++) {
        for (unsigned b = 1; b < 256; b++) {
            memset(target, 'a', n);
            target[0] = '/';
            target[n] = '\0';
            target[pos] = (char)b;
            struct pn_exchange x = exchange("GET", target);
            struct pn_access a = {.x = &x, .peer = &peer, .status = 200, .time_s = 784111777};
            bool plain = b >= 0x20 && b < 0x7f && b != '"' && b != '\\';
            if (plain)
                snprintf(expected, sizeof expected, "%s HTTP", target);
            else
                snprintf(expected, sizeof expected, "a\\x%02xa", b);
            if (!plain && (pos == 1 || pos == n - 1))
                snprintf(expected, sizeof expected, "\\x%02x", b);
            assert_has(format(&a), expected);
        }
    }
}

/* Lengths are copied in different ways. */
static void test_every_byte(void **state)
{
    (void)state;
    for (size_t n = 2; n < 36; n++)
        check_every_byte(n);
}

static void test_long_targets_are_cut(void **state)
{
    static char target[30000];
    (void)state;
    for (size_t n = PN_ACCESS_TARGET_MAX - 40; n < PN_ACCESS_TARGET_MAX + 40; n++) {
        memset(target, 'a', n);
        target[n] = '\0';
        struct pn_exchange x = exchange("GET", target);
        struct pn_access a = {.x = &x, .peer = &peer, .status = 200, .time_s = 784111777};
        const char *line = format(&a);
        assert_int_equal(strstr(line, "...") != NULL, n > PN_ACCESS_TARGET_MAX);
    }
    memset(target, 1, sizeof target - 1);
    struct pn_exchange x = exchange("GET", target);
    struct pn_access a = {
        .x = &x, .peer = &peer, .status = 200, .time_s = 784111777, .error = "an error"};
    assert_has(format(&a), "... HTTP/1.1\" 200");
}

/* From the wire to a file. */
static void test_from_the_wire(void **state)
{
    static struct h1_fixture f;
    char text[512];
    int fds[2];
    (void)state;
    assert_int_equal(pipe(fds), 0);
    struct pn_log *log = pn_log_create(fds[1], PN_LOG_INFO);
    pn_access_log_init(&writer, log);
    h1_fixture_init(&f);
    f.config.on_access = pn_access_log_write;
    f.config.ctx = &writer;
    f.config.may_continue = NULL;
    f.config.real_ns = NULL;
    h1_fixture_open(&f);
    struct sim_link *l = h1_fixture_connect(&f, "GET /x HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\n");
    size_t sent = pn_bytes_len(&l->to_client);
    sim_link_shutdown(l);
    h1_fixture_run(&f);
    sim_link_free(l);
    h1_fixture_close(&f);
    pn_log_destroy(log);
    close(fds[1]);
    ssize_t n = read(fds[0], text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_has(text, "192.0.2.1 [");
    assert_has(text, "\"GET /x HTTP/1.1\" 200 ");
    assert_has(text, "\"-\" 400 ");
    assert_int_equal(h1_count(text, "\n"), 2);
    /* The two sizes are all that was sent. */
    unsigned long first = strtoul(strstr(text, "\" 200 ") + 6, NULL, 10);
    unsigned long second = strtoul(strstr(text, "\" 400 ") + 6, NULL, 10);
    assert_int_equal(first + second, sent);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_line_of_refusal),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_long_targets_are_cut),
        cmocka_unit_test(test_from_the_wire),
    };
    return cmocka_run_group_tests(tests, utc, NULL);
}

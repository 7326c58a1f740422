/* SPDX-License-Identifier: Apache-2.0 */
/* Percent escapes and the split of hosts. Which hosts are valid is in test_h1_parse.c, through Host. */
#include "http/h1_target.h"

#include <errno.h>

#include "h1_guard.h"
#include "test_base.h"

static void escapes_are_decoded(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"", ""},
        {"/", "/"},
        {"/a%20b", "/a b"},
        {"/%41%42", "/AB"},
        {"/%2f%2F", "///"},
        {"%25", "%"},
        {"/%c3%bC", "/\xc3\xbc"},
        {"/a+b", "/a+b"},
        {"%ff%01", "\xff\x01"},
        {"/%2541", "/%41"},
        {"/..%5c", "/..\\"},
    };
    char out[64];
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(cases); i++) {
        size_t n = strlen(cases[i].in), want = strlen(cases[i].out);
        const char *in = guard_copy(cases[i].in, n);
        assert_int_equal(pn_h1_target_decode(in, n, out), want);
        assert_memory_equal(out, cases[i].out, want);
        /* In place too. */
        char *same = guard_end(n);
        assert_int_equal(pn_h1_target_decode(same, n, same), want);
        assert_memory_equal(same, cases[i].out, want);
    }
}

static void bad_escapes_are_refused(void **state)
{
    static const char *const cases[] = {"%",   "/%",   "/%4",    "/%4g", "/%g4",
                                        "/%%", "/%00", "/a%00b", "% 1"};
    char out[64];
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(cases); i++) {
        size_t n = strlen(cases[i]);
        assert_int_equal(pn_h1_target_decode(guard_copy(cases[i], n), n, out), -EINVAL);
    }
}

static void every_escape(void **state)
{
    static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
    (void)state;
    for (unsigned c = 1; c < 256; c++) {
        char in[3] = {'%', lower[c >> 4], upper[c & 15]}, out[3];
        assert_int_equal(pn_h1_target_decode(in, 3, out), 1);
        assert_int_equal((unsigned char)out[0], c);
    }
}

static void hosts_are_split(void **state)
{
    static const struct {
        const char *host, *name;
        int port;
    } cases[] = {
        {"a", "a", -1},
        {"a:80", "a", 80},
        {"a:", "a", -1},
        {"", "", -1},
        {"[::1]", "[::1]", -1},
        {"[::1]:8", "[::1]", 8},
        {"[v1.a:80]", "[v1.a:80]", -1},
        {"[v1.a]:80", "[v1.a]", 80},
        {"1.2.3.4", "1.2.3.4", -1},
        {"h1", "h1", -1},
        {"1:65535", "1", 65535},
        {"123", "123", -1},
    };
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(cases); i++) {
        struct pn_str name, host = pn_str_of(cases[i].host);
        int port;
        assert_true(pn_h1_host_valid(host));
        pn_h1_host_split(host, &name, &port);
        assert_true(pn_str_eq(name, pn_str_of(cases[i].name)));
        assert_int_equal(port, cases[i].port);
    }
}

/* RFC 3986 3.2.2: "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ), in brackets. */
static void future_addresses(void **state)
{
    static const char *const good[] = {
        "[v1.x]",    "[V1.x]",       "[vF0a9.x]",        "[v1.:]", "[v1.a:80]",
        "[v1.a]:80", "[v1.fe80::1]", "[v1.!$&'()*+,;=]", "[v1..]", "[v1.-._~]:",
    };
    static const char *const bad[] = {
        "[v]",       "[v1]",      "[v1.]",     "[v.x]",        "[vg.x]",      "[1.x]",
        "[v1x]",     "[v1.x",     "v1.x]",     "[v1.a]b",      "[v1.a][b]",   "[v1.[a]]",
        "[v1.%41]",  "[v1.a b]",  "[v1.a/b]",  "[v1.a@b]",     "[v1.a?b]",    "[v1.a\\b]",
        "[v1.a#b]",  "[v1.\x80]", "[v1.\x7f]", "[v1.a]:65536", "[v1.a]:http", "[x1.a]",
        "[v1.a\"b]", "[v1.a|b]",  "[ v1.a]",   "[v1.a ]",      "[v1.a\tb]",   "[v-1.a]",
    };
    char text[300];
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(good); i++) {
        size_t n = strlen(good[i]);
        assert_true(pn_h1_host_valid((struct pn_str){guard_copy(good[i], n), n}));
        /* Cut anywhere it is no host. */
        for (size_t cut = 1; cut < n && good[i][cut - 1] != ']'; cut++)
            assert_false(pn_h1_host_valid((struct pn_str){guard_copy(good[i], cut), cut}));
    }
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++) {
        size_t n = strlen(bad[i]);
        assert_false(pn_h1_host_valid((struct pn_str){guard_copy(bad[i], n), n}));
    }
    assert_false(pn_h1_host_valid((struct pn_str){"[v1.a\0b]", 9}));
    /* 255 bytes between the brackets, and one more. */
    memset(text, 'a', sizeof(text));
    memcpy(text, "[v1.", 4);
    text[256] = ']';
    assert_true(pn_h1_host_valid((struct pn_str){text, 257}));
    text[256] = 'a';
    text[257] = ']';
    assert_false(pn_h1_host_valid((struct pn_str){text, 258}));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_are_decoded), cmocka_unit_test(bad_escapes_are_refused),
        cmocka_unit_test(every_escape),        cmocka_unit_test(hosts_are_split),
        cmocka_unit_test(future_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

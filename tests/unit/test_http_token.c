/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of fields: what splits a response must not pass. */
#include "http/http_token.h"

#include "h1_guard.h"
#include "test_base.h"

static void tokens(void **state)
{
    (void)state;
    assert_true(pn_http_is_token(PN_STR("!#$%&'*+-.^_`|~09azAZ")));
    assert_false(pn_http_is_token(PN_STR("")));
    for (unsigned c = 0; c < 256; c++) {
        char ch = (char)c;
        bool want = c > 0x20 && c < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", (int)c);
        assert_int_equal(pn_http_is_token((struct pn_str){&ch, 1}), want);
    }
}

static void a_bad_byte_is_found_anywhere(void **state)
{
    (void)state;
    for (size_t n = 1; n < 40; n++)
        for (size_t at = 0; at < n; at++)
            for (unsigned c = 0; c < 256; c++) {
                char *text = guard_end(n);
                memset(text, 'x', n);
                text[at] = (char)c;
                bool edge = at == 0 || at == n - 1;
                bool want = c == ' ' || c == '\t' ? !edge : c >= 0x20 && c != 0x7f;
                assert_int_equal(pn_http_is_field_value((struct pn_str){text, n}), want);
            }
    assert_true(pn_http_is_field_value(PN_STR("")));
    assert_true(pn_http_is_field_value(PN_STR("a b\tc d e f \xff g")));
    assert_false(pn_http_is_field_value(PN_STR("a\r\nSet-Cookie: b=c")));
}

static void trimming(void **state)
{
    (void)state;
    assert_true(pn_str_eq(pn_http_trim(PN_STR(" \t a b\t ")), PN_STR("a b")));
    assert_int_equal(pn_http_trim(PN_STR(" \t ")).n, 0);
    assert_int_equal(pn_http_trim(PN_STR("\x0b")).n, 1); /* no whitespace in HTTP */
}

static void lists(void **state)
{
    static const char *const want[] = {"a", "b c", "\"d, \\\"e\"", "f=\"g,h\"", "i"};
    struct pn_http_list list = {PN_STR(",a,, b c\t,\"d, \\\"e\" ,f=\"g,h\", i , ,")};
    struct pn_str item;
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(want); i++) {
        assert_true(pn_http_list_next(&list, &item));
        assert_true(pn_str_eq(item, pn_str_of(want[i])));
    }
    assert_false(pn_http_list_next(&list, &item));
    assert_false(pn_http_list_next(&list, &item));
    /* A quote that is never closed takes the rest. */
    list.rest = PN_STR("a, \"b, c\\");
    assert_true(pn_http_list_next(&list, &item) && pn_http_list_next(&list, &item));
    assert_true(pn_str_eq(item, PN_STR("\"b, c\\")));
    assert_false(pn_http_list_next(&list, &item));
}

static void list_membership(void **state)
{
    (void)state;
    assert_true(pn_http_list_has(PN_STR("foo, CLOSE"), PN_STR("close")));
    assert_false(pn_http_list_has(PN_STR("closed, \"close\", clos"), PN_STR("close")));
    assert_false(pn_http_list_has(PN_STR(""), PN_STR("close")));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens),          cmocka_unit_test(a_bad_byte_is_found_anywhere),
        cmocka_unit_test(trimming),        cmocka_unit_test(lists),
        cmocka_unit_test(list_membership),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

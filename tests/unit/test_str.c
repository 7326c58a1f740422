/* SPDX-License-Identifier: Apache-2.0 */
/* Strings and numbers: what is refused matters more than what is taken. */
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "test_base.h"

static void equality_folds_ascii_letters_only(void **state)
{
    (void)state;
    assert_true(pn_str_eq_nocase(PN_STR("Content-LENGTH"), PN_STR("content-length")));
    assert_false(pn_str_eq_nocase(PN_STR("a["), PN_STR("a{")));
    assert_false(pn_str_eq_nocase(PN_STR("@"), PN_STR("`")));
    assert_false(pn_str_eq_nocase(PN_STR("\xc4"), PN_STR("\xe4")));
    assert_false(pn_str_eq_nocase(PN_STR("ab"), PN_STR("abc")));
    assert_true(pn_str_eq_nocase(PN_STR_NONE, PN_STR("")));
}

static bool same_letter(unsigned a, unsigned b)
{
    a -= a >= 'A' && a <= 'Z' ? 'A' - 'a' : 0;
    b -= b >= 'A' && b <= 'Z' ? 'A' - 'a' : 0;
    return a == b;
}

/* Every pair of bytes, at the ends and in the middle of texts of all lengths that are compared in
 * different ways; each text ends where its memory ends. */
static void folding_is_right_for_every_byte_at_every_place(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 20; n++) {
        char *a = malloc(n), *b = malloc(n);
        const size_t places[] = {0, n / 3, n / 2, n - 1};
        assert_true(a && b);
        for (size_t k = 0; k < PN_ARRAY_LEN(places); k++) {
            memset(a, 'q', n);
            memset(b, 'Q', n);
            for (unsigned pair = 0; pair < 1U << 16; pair++) {
                a[places[k]] = (char)(pair & 255);
                b[places[k]] = (char)(pair >> 8);
                bool same = pn_str_eq_nocase((struct pn_str){a, n}, (struct pn_str){b, n});
                if (same != same_letter(pair & 255, pair >> 8))
                    fail_msg("bytes %02x and %02x at %zu of %zu", pair & 255, pair >> 8, places[k],
                             n);
            }
        }
        free(a);
        free(b);
    }
}

static void plain_equality_and_prefix(void **state)
{
    (void)state;
    assert_true(pn_str_eq(PN_STR("x"), PN_STR("x")));
    assert_false(pn_str_eq(PN_STR("x"), PN_STR("X")));
    assert_true(pn_str_starts(PN_STR("unix:/a"), PN_STR("unix:")));
    assert_false(pn_str_starts(PN_STR("uni"), PN_STR("unix:")));
    assert_true(pn_str_starts(PN_STR("a"), PN_STR_NONE));
    assert_int_equal(pn_str_of(NULL).n, 0);
    assert_int_equal(pn_str_of("abc").n, 3);
}

static void numbers_are_digits_only(void **state)
{
    static const char *const bad[] = {"", "+1", "-1", " 1", "1 ", "0x10", "1_0", "1.0", "\xd9\xa1"};
    uint64_t v = 77;
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++)
        assert_int_equal(pn_str_to_u64(pn_str_of(bad[i]), UINT64_MAX, &v), -EINVAL);
    assert_int_equal(v, 77);
    assert_int_equal(pn_str_to_u64(PN_STR("007"), UINT64_MAX, &v), 0);
    assert_int_equal(v, 7);
    assert_int_equal(pn_str_to_u64(PN_STR("18446744073709551615"), UINT64_MAX, &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(pn_str_to_u64(PN_STR("18446744073709551616"), UINT64_MAX, &v), -ERANGE);
    assert_int_equal(pn_str_to_u64(PN_STR("101"), 100, &v), -ERANGE);
    assert_int_equal(pn_str_to_u64(PN_STR("100"), 100, &v), 0);
}

static void check_format(uint64_t value)
{
    char want[32], got[20];
    int n = snprintf(want, sizeof want, "%" PRIu64, value);
    assert_int_equal(pn_u64_format(value, got), n);
    assert_memory_equal(got, want, (size_t)n);
}

static void formatting_agrees_with_printf(void **state)
{
    static const uint64_t values[] = {0, 9, 10, 99, 100, 1234567890123, UINT64_MAX};
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(values); i++)
        check_format(values[i]);
    for (unsigned v = 0; v < 10100; v++)
        check_format(v);
    for (uint64_t power = 10, digits = 2; digits <= 20; power *= 10, digits++) {
        check_format(power - 1);
        check_format(power);
        check_format(power + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_folds_ascii_letters_only),
        cmocka_unit_test(folding_is_right_for_every_byte_at_every_place),
        cmocka_unit_test(plain_equality_and_prefix),
        cmocka_unit_test(numbers_are_digits_only),
        cmocka_unit_test(formatting_agrees_with_printf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Dates beside libc's, and the table of statuses. */
#include "http/http_date.h"

#include <time.h>

#include "http/http_status.h"
#include "test_base.h"

static void assert_date(int64_t sec, const char *want)
{
    char out[PN_HTTP_DATE_LEN + 1];
    out[PN_HTTP_DATE_LEN] = '!';
    pn_http_date_format(sec, out);
    assert_int_equal(out[PN_HTTP_DATE_LEN], '!');
    out[PN_HTTP_DATE_LEN] = '\0';
    assert_string_equal(out, want);
}

static void known_dates(void **state)
{
    (void)state;
    assert_date(784111777, "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_date(0, "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_date(951782400, "Tue, 29 Feb 2000 00:00:00 GMT");
    assert_date(4107542399, "Sun, 28 Feb 2100 23:59:59 GMT");
    assert_date(4107542400, "Mon, 01 Mar 2100 00:00:00 GMT");
    assert_date(INT64_C(253402300799), "Fri, 31 Dec 9999 23:59:59 GMT");
}

static void what_cannot_be_said_is_clamped(void **state)
{
    (void)state;
    assert_date(-1, "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_date(INT64_MIN, "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_date(INT64_MAX, "Fri, 31 Dec 9999 23:59:59 GMT");
}

static void every_day_as_libc_has_it(void **state)
{
    (void)state;
    for (int64_t day = 0; day < 200000; day++) {
        char want[64];
        time_t t = day * 86400 + day % 86400;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        assert_date(t, want);
    }
}

static void reasons(void **state)
{
    (void)state;
    assert_true(pn_str_eq(pn_http_status_reason(200), PN_STR("OK")));
    assert_true(pn_str_eq(pn_http_status_reason(100), PN_STR("Continue")));
    assert_true(pn_str_eq(pn_http_status_reason(413), PN_STR("Content Too Large")));
    assert_true(pn_str_eq(pn_http_status_reason(511), PN_STR("Network Authentication Required")));
    static const int none[] = {-1, 0, 99, 105, 299, 306, 418, 599, 600, 1000};
    for (size_t i = 0; i < PN_ARRAY_LEN(none); i++)
        assert_int_equal(pn_http_status_reason(none[i]).n, 0);
}

static void statuses_without_content(void **state)
{
    (void)state;
    assert_false(pn_http_status_has_body(101) || pn_http_status_has_body(204) ||
                 pn_http_status_has_body(304));
    assert_true(pn_http_status_has_body(200) && pn_http_status_has_body(205));
    assert_false(pn_http_status_may_have_length(103) || pn_http_status_may_have_length(204));
    assert_true(pn_http_status_may_have_length(304) && pn_http_status_may_have_length(404));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_dates),
        cmocka_unit_test(what_cannot_be_said_is_clamped),
        cmocka_unit_test(every_day_as_libc_has_it),
        cmocka_unit_test(reasons),
        cmocka_unit_test(statuses_without_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Deadlines: the arithmetic must never wrap into the past. */
#include "base/clock.h"

#include "test_base.h"

static void deadlines_stop_at_never(void **state)
{
    (void)state;
    assert_true(pn_deadline_ns(100, 5) == 105);
    assert_true(pn_deadline_ns(100, 0) == 100);
    assert_true(pn_deadline_ns(100, -1) == PN_NEVER_NS);
    assert_true(pn_deadline_ns(100, PN_NEVER_NS) == PN_NEVER_NS);
    assert_true(pn_deadline_ns(100, PN_NEVER_NS - 100) == PN_NEVER_NS);
    assert_true(pn_deadline_ns(100, PN_NEVER_NS - 101) == PN_NEVER_NS - 1);
}

static void timespecs_go_there_and_back(void **state)
{
    (void)state;
    struct timespec t = pn_ns_timespec(INT64_C(3000000007));
    assert_int_equal(t.tv_sec, 3);
    assert_int_equal(t.tv_nsec, 7);
    assert_true(pn_timespec_ns(&t) == INT64_C(3000000007));
    int64_t a = pn_clock_mono_ns(), b = pn_clock_mono_ns();
    assert_true(a > 0 && b >= a);
    assert_true(pn_clock_real_ns() > INT64_C(1600000000) * PN_NS_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_stop_at_never),
        cmocka_unit_test(timespecs_go_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

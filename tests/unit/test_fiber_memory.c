/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of memory that are swapped between fibers. */
#include "test_base.h"

#include <errno.h>
#include <string.h>

#include "cores/fiber_memory.h"

static void each_fiber_finds_its_own(void **state)
{
    (void)state;
    char shared[6] = "start";
    const struct pn__fiber_region region = {shared, "new", 3, sizeof shared};
    struct pn__fiber_regions regions = {.count = 0};
    struct pn__fiber_memory a = {.count = 0}, b = {.count = 0};
    assert_int_equal(pn__fiber_regions_add(&regions, &region), 0);
    assert_int_equal(pn__fiber_regions_add(&regions, &region), 0);
    assert_int_equal(regions.count, 1);
    /* A named it, and goes on with what is there; B begins with the initial bytes, then zeros. */
    pn__fiber_memory_save(&regions, &a);
    pn__fiber_memory_restore(&regions, &b);
    assert_memory_equal(shared, "new\0\0\0", 6);
    memcpy(shared, "of b.", 6);
    pn__fiber_memory_save(&regions, &b);
    pn__fiber_memory_restore(&regions, &a);
    assert_string_equal(shared, "start");
    pn__fiber_memory_restore(&regions, &b);
    assert_string_equal(shared, "of b.");
}

static void later_regions_are_new_to_those_who_slept(void **state)
{
    (void)state;
    char first[8] = "first", second[8] = "second";
    const struct pn__fiber_region one = {first, NULL, 0, sizeof first};
    const struct pn__fiber_region two = {second, "2", 1, sizeof second};
    struct pn__fiber_regions regions = {.count = 0};
    struct pn__fiber_memory slept = {.count = 0}, other = {.count = 0};
    assert_int_equal(pn__fiber_regions_add(&regions, &one), 0);
    pn__fiber_memory_save(&regions, &slept);
    assert_int_equal(pn__fiber_regions_add(&regions, &two), 0);
    pn__fiber_memory_save(&regions, &other);
    pn__fiber_memory_restore(&regions, &slept);
    assert_string_equal(first, "first");
    assert_memory_equal(second, "2\0\0\0\0\0\0\0", 8);
    pn__fiber_memory_restore(&regions, &other);
    assert_string_equal(second, "second");
}

static void there_is_an_end(void **state)
{
    (void)state;
    static char big[PN__FIBER_MEMORY_SIZE + 1], small[PN__FIBER_MEMORY_REGIONS + 1];
    struct pn__fiber_regions regions = {.count = 0};
    const struct pn__fiber_region too_big = {big, NULL, 0, sizeof big};
    assert_int_equal(pn__fiber_regions_add(&regions, &too_big), -ENOSPC);
    assert_int_equal(regions.count, 0);
    for (unsigned i = 0; i < PN__FIBER_MEMORY_REGIONS; i++) {
        const struct pn__fiber_region one = {small + i, NULL, 0, 1};
        assert_int_equal(pn__fiber_regions_add(&regions, &one), 0);
    }
    const struct pn__fiber_region more = {small + PN__FIBER_MEMORY_REGIONS, NULL, 0, 1};
    assert_int_equal(pn__fiber_regions_add(&regions, &more), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_fiber_finds_its_own),
        cmocka_unit_test(later_regions_are_new_to_those_who_slept),
        cmocka_unit_test(there_is_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

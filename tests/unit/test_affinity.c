/* SPDX-License-Identifier: Apache-2.0 */
/* --cpu-affinity: which processors each worker gets. */
#include "main/affinity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/defs.h"
#include "test_base.h"

static cpu_set_t set_of(const char *processors)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (; *processors; processors++)
        CPU_SET(*processors - '0', &set);
    return set;
}

static void check(const char *allowed, unsigned slot, unsigned count, const char *expected)
{
    cpu_set_t from = set_of(allowed), wanted = set_of(expected), chosen;
    memset(&chosen, 0xff, sizeof chosen);
    unsigned n = pn__affinity_choose(&from, sizeof from, slot, count, &chosen);
    assert_int_equal(n, strlen(expected));
    assert_true(CPU_EQUAL(&chosen, &wanted));
}

static void workers_take_turns(void **state)
{
    (void)state;
    check("0123", 0, 1, "0");
    check("0123", 3, 1, "3");
    check("0123", 4, 1, "0");
    check("0123", 1, 2, "23");
    check("0123", 2, 2, "01");
}

static void the_end_is_followed_by_the_first(void **state)
{
    (void)state;
    check("012", 1, 2, "02");
    check("012", 1023, 2, "01");
}

static void only_what_is_allowed(void **state)
{
    (void)state;
    check("257", 0, 1, "2");
    check("257", 1, 1, "5");
    check("257", 2, 2, "57");
    check("257", 5, 3, "257");
}

static void never_more_than_there_are(void **state)
{
    (void)state;
    check("25", 1, 1024, "25");
    check("7", 1023, 1024, "7");
}

static void far_processors_too(void **state)
{
    (void)state;
    size_t size = CPU_ALLOC_SIZE(4096);
    cpu_set_t *from = CPU_ALLOC(4096), *chosen = CPU_ALLOC(4096);
    CPU_ZERO_S(size, from);
    CPU_SET_S(4000, size, from);
    CPU_SET_S(4095, size, from);
    assert_int_equal(pn__affinity_choose(from, size, 1, 1, chosen), 1);
    assert_true(CPU_ISSET_S(4095, size, chosen));
    assert_int_equal(CPU_COUNT_S(size, chosen), 1);
    CPU_FREE(from);
    CPU_FREE(chosen);
}

static void the_thread_is_bound(void **state)
{
    (void)state;
    cpu_set_t before, now;
    char text[16];
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(pn__affinity_bind(1, 1, text, sizeof text), 0);
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_int_equal(CPU_COUNT(&now), 1);
    int cpu = atoi(text);
    assert_true(CPU_ISSET(cpu, &now) && CPU_ISSET(cpu, &before));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void a_list_is_cut_to_its_room(void **state)
{
    (void)state;
    cpu_set_t before;
    char text[4];
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    memset(text, 'x', sizeof text);
    assert_int_equal(pn__affinity_bind(0, 1024, text, 3), 0);
    assert_true(memchr(text, 0, 3) != NULL);
    assert_int_equal(text[3], 'x');
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_take_turns),
        cmocka_unit_test(the_end_is_followed_by_the_first),
        cmocka_unit_test(only_what_is_allowed),
        cmocka_unit_test(never_more_than_there_are),
        cmocka_unit_test(far_processors_too),
        cmocka_unit_test(the_thread_is_bound),
        cmocka_unit_test(a_list_is_cut_to_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The table of redirected names is sorted, complete in itself, and found by bisection. */
#include "wait/table.h"

#include <dlfcn.h>
#include <string.h>

#include "test_base.h"
#include "wait/known.h"

static void rows_are_sorted_and_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < pn__redirects_count; i++) {
        if (i)
            assert_true(strcmp(pn__redirects[i - 1].name, pn__redirects[i].name) < 0);
        assert_ptr_equal(pn__redirect_find(pn__redirects[i].name), &pn__redirects[i]);
        assert_non_null(pn__redirects[i].replacement);
        assert_true(pn__redirects[i].images != 0);
    }
}

static void every_name_is_one_of_libc(void **state)
{
    (void)state;
    for (size_t i = 0; i < pn__redirects_count; i++)
        assert_non_null(dlsym(RTLD_DEFAULT, pn__redirects[i].name));
}

static void others_are_not_found(void **state)
{
    static const char *const names[] = {
        "", "a", "nanosleep2", "nanoslee", "zzz", "sem_trywait", "rea", "__", "pthread_create"};
    (void)state;
    for (size_t i = 0; i < PN_ARRAY_LEN(names); i++)
        assert_null(pn__redirect_find(names[i]));
}

static void the_interpreter_keeps_its_own_locks(void **state)
{
    (void)state;
    for (size_t i = 0; i < pn__redirects_count; i++)
        if (strstr(pn__redirects[i].name, "mutex") || strstr(pn__redirects[i].name, "cond_"))
            assert_false(pn__redirects[i].images & PN__IMAGE_INTERPRETER);
}

static void known_libraries_are_found_by_their_file(void **state)
{
    (void)state;
    const char *grpc = "/usr/lib/python3/grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so";
    assert_non_null(pn__known_find(grpc, true));
    assert_non_null(pn__known_find(grpc, true)->about);
    assert_null(pn__known_find(grpc, false));
    assert_non_null(pn__known_find("/usr/lib/libjemalloc.so.2", false));
    assert_null(pn__known_find("/usr/lib/libjemalloc.so.2", true)->about);
    assert_null(pn__known_find("/srv/cygrpc/_ssl.so", true));
    assert_null(pn__known_find("", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_sorted_and_found),
        cmocka_unit_test(every_name_is_one_of_libc),
        cmocka_unit_test(others_are_not_found),
        cmocka_unit_test(the_interpreter_keeps_its_own_locks),
        cmocka_unit_test(known_libraries_are_found_by_their_file),
    };
    pn__redirects_prepare();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

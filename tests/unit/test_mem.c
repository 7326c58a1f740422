/* SPDX-License-Identifier: Apache-2.0 */
/* Lists, pools, arenas and the byte queue, each with its memory running out. */
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/list.h"
#include "test_base.h"

struct item {
    struct pn_list node;
    int value;
};

static int pop_value(struct pn_list *head)
{
    struct pn_list *n = pn_list_pop_front(head);
    return n ? pn_list_entry(n, struct item, node)->value : -1;
}

static void lists_keep_order_and_bear_double_removal(void **state)
{
    struct pn_list a, b;
    struct item items[4];
    (void)state;
    pn_list_init(&a);
    pn_list_init(&b);
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        pn_list_init(&items[i].node);
    }
    pn_list_push_back(&a, &items[1].node);
    pn_list_push_front(&a, &items[0].node);
    pn_list_push_back(&b, &items[2].node);
    pn_list_push_back(&b, &items[3].node);
    pn_list_splice_back(&a, &b);
    assert_true(pn_list_empty(&b));
    pn_list_splice_back(&a, &b);
    pn_list_remove(&items[2].node);
    pn_list_remove(&items[2].node);
    assert_false(pn_list_linked(&items[2].node));
    assert_int_equal(pop_value(&a), 0);
    assert_int_equal(pop_value(&a), 1);
    assert_int_equal(pop_value(&a), 3);
    assert_int_equal(pop_value(&a), -1);
}

static void a_pool_reuses_the_last_object_first(void **state)
{
    struct pn_pool pool;
    (void)state;
    pn_pool_init(&pool, 24, 2);
    assert_int_equal(pool.object_size % 16, 0);
    void *a = pn_pool_get(&pool), *b = pn_pool_get(&pool), *c = pn_pool_get(&pool);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    pn_pool_put(&pool, a);
    pn_pool_put(&pool, b);
    pn_pool_put(&pool, c); /* past keep_max: freed */
    assert_int_equal(pool.kept, 2);
    assert_int_equal(pool.in_use, 0);
    assert_ptr_equal(pn_pool_get(&pool), b);
    assert_ptr_equal(pn_pool_get(&pool), a);
    pn_pool_put(&pool, a);
    pn_pool_put(&pool, b);
    pn_pool_put(&pool, NULL);
    pn_pool_drain(&pool);
    assert_int_equal(pool.kept, 0);
}

static void the_nth_allocation_fails_when_told(void **state)
{
    struct pn_pool pool;
    (void)state;
    pn_pool_init(&pool, 16, 1);
    pn_mem_fail_at(2, false);
    void *a = pn_try_malloc(1);
    assert_non_null(a);
    assert_null(pn_pool_get(&pool));
    assert_int_equal(pool.in_use, 0);
    void *b = pn_try_malloc(1);
    assert_non_null(b);
    assert_int_equal(pn_mem_fail_at(0, false), 3);
    free(a);
    free(b);
}

static void arenas_align_bound_and_end_whole(void **state)
{
    struct pn_arena arena;
    (void)state;
    pn_arena_init(&arena, 4096);
    for (int i = 1; i < 40; i++) {
        char *p = pn_arena_alloc(&arena, (size_t)i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, i, (size_t)i);
    }
    char *s = pn_arena_strndup(&arena, "hello world", 5);
    assert_string_equal(s, "hello");
    assert_null(pn_arena_alloc(&arena, 4096));
    assert_null(pn_arena_alloc(&arena, SIZE_MAX));
    pn_arena_free(&arena);
    pn_mem_fail_at(1, true);
    assert_null(pn_arena_alloc(&arena, 1));
    pn_mem_fail_at(0, false);
    pn_arena_free(&arena);
}

static void the_byte_queue_is_a_queue(void **state)
{
    struct pn_bytes b;
    unsigned char next_in = 0, next_out = 0;
    unsigned seed = 12345;
    (void)state;
    pn_bytes_init(&b);
    for (int round = 0; round < 20000; round++) {
        seed = seed * 1103515245u + 12345u;
        size_t n = (seed >> 16) % 300;
        if (seed & 0x40000000u) {
            char chunk[300];
            for (size_t i = 0; i < n; i++)
                chunk[i] = (char)next_in++;
            assert_int_equal(pn_bytes_append(&b, chunk, n), 0);
        } else {
            n = pn_min_size(n, pn_bytes_len(&b));
            struct pn_str v = pn_bytes_view(&b);
            for (size_t i = 0; i < n; i++)
                assert_int_equal((unsigned char)v.p[i], next_out++);
            pn_bytes_consume(&b, n);
        }
    }
    assert_true(b.capacity <= 256 * 1024);
    pn_bytes_free(&b);
}

static void the_byte_queue_survives_failing_memory(void **state)
{
    struct pn_bytes b;
    (void)state;
    pn_bytes_init(&b);
    assert_int_equal(pn_bytes_append(&b, "abc", 3), 0);
    pn_mem_fail_at(1, true);
    assert_null(pn_bytes_reserve(&b, 1 << 20));
    char big[5000] = {0};
    assert_int_equal(pn_bytes_append(&b, big, sizeof big), -ENOMEM);
    pn_mem_fail_at(0, false);
    assert_true(pn_str_eq(pn_bytes_view(&b), PN_STR("abc")));
    assert_null(pn_bytes_reserve(&b, SIZE_MAX / 2));
    pn_bytes_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_keep_order_and_bear_double_removal),
        cmocka_unit_test(a_pool_reuses_the_last_object_first),
        cmocka_unit_test(the_nth_allocation_fails_when_told),
        cmocka_unit_test(arenas_align_bound_and_end_whole),
        cmocka_unit_test(the_byte_queue_is_a_queue),
        cmocka_unit_test(the_byte_queue_survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

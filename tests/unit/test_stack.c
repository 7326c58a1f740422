/* SPDX-License-Identifier: Apache-2.0 */
/* Fiber stacks and the switch between them. */
#include <errno.h>
#include <execinfo.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "cores/fiber.h"
#include "cores/stack.h"
#include "test_base.h"

static void test_sizes(void **state)
{
    (void)state;
    struct pn__stack_pool pool;
    struct pn__stack s;
    assert_int_equal(pn__stack_pool_init(&pool, 100001, 2), 0);
    assert_int_equal(pool.stack_size % pool.page_size, 0);
    assert_true(pool.stack_size >= 100001);
    assert_int_equal(pn__stack_get(&pool, &s), 0);
    char *base = pn__stack_base(&pool, &s);
    memset(base, 1, pn__stack_usable(&pool)); /* all of it is ours */
    pn__stack_put(&pool, &s);
    pn__stack_pool_fini(&pool);
}

/* One below the lowest byte is the guard page. */
static void test_guard(void **state)
{
    (void)state;
    struct pn__stack_pool pool;
    struct pn__stack s;
    assert_int_equal(pn__stack_pool_init(&pool, 65536, 0), 0);
    assert_int_equal(pn__stack_get(&pool, &s), 0);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        volatile char *p = pn__stack_base(&pool, &s);
        p[-1] = 1;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    pn__stack_put(&pool, &s);
    pn__stack_pool_fini(&pool);
}

static size_t resident_pages(const struct pn__stack_pool *pool, const struct pn__stack *s)
{
    unsigned char there[64] = {0};
    size_t pages = pn__stack_usable(pool) / pool->page_size, n = 0;
    assert_true(pages <= sizeof(there));
    assert_int_equal(mincore(pn__stack_base(pool, s), pn__stack_usable(pool), there), 0);
    for (size_t i = 0; i < pages; i++)
        n += there[i] & 1u;
    return n;
}

/* A stack that comes back is used again, without the pages that only a deep call touched. */
static void test_pool(void **state)
{
    (void)state;
    struct pn__stack_pool pool;
    struct pn__stack a, b, c;
    assert_int_equal(pn__stack_pool_init(&pool, 200000, 2), 0);
    assert_int_equal(pn__stack_get(&pool, &a), 0);
    assert_int_equal(pn__stack_get(&pool, &b), 0);
    assert_int_equal(pn__stack_get(&pool, &c), 0);
    char *first = a.mapping;
    memset(pn__stack_base(&pool, &a), 1, pn__stack_usable(&pool));
    assert_int_equal(resident_pages(&pool, &a), pn__stack_usable(&pool) / pool.page_size);
    pn__stack_put(&pool, &b);
    pn__stack_put(&pool, &a);
    pn__stack_put(&pool, &c); /* one too many: unmapped */
    assert_null(a.mapping);
    assert_null(c.mapping);
    assert_int_equal(pool.kept_count, 2);
    assert_int_equal(pn__stack_get(&pool, &a), 0);
    assert_ptr_equal(a.mapping, first); /* last in, first out */
    assert_true(resident_pages(&pool, &a) <= 4);
    pn__stack_put(&pool, &a);
    pn__stack_pool_fini(&pool);
}

static void test_too_large(void **state)
{
    (void)state;
    struct pn__stack_pool pool;
    struct pn__stack s;
    assert_int_equal(pn__stack_pool_init(&pool, (size_t)1 << 47, 0), 0);
    assert_int_equal(pn__stack_get(&pool, &s), -ENOMEM);
    pn__stack_pool_fini(&pool);
}

/* --- switching -------------------------------------------------------------------------------------- */

struct fibers {
    struct pn__stack_pool pool;
    struct pn__stack stack;
    struct pn__fiber home, fiber;
    int steps;
    int frames;
    double third;
};

static void body(void *arg)
{
    struct fibers *f = arg;
    pn__fiber_begun(&f->fiber);
    PN_BUG_ON((uintptr_t)__builtin_frame_address(0) % 16 != 0); /* as the ABI wants */
    void *frames[16];
    f->frames = backtrace(frames, 16); /* must end at pn__fiber_start */
    char text[64];
    snprintf(text, sizeof(text), "%f", f->third); /* aligned SSE spills work */
    for (; f->steps < 10; f->steps++) {
        errno = 100 + f->steps;
        pn__fiber_switch(&f->fiber, &f->home);
        PN_BUG_ON(errno != 100 + f->steps);
    }
    pn__fiber_leave(&f->fiber, &f->home);
}

static void test_switch(void **state)
{
    (void)state;
    struct fibers f = {.third = 1.0 / 3};
    void *warm_up[2];
    (void)backtrace(warm_up, 2); /* loads libgcc on this stack */
    assert_int_equal(pn__stack_pool_init(&f.pool, 256 << 10, 1), 0);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(pn__stack_get(&f.pool, &f.stack), 0);
        pn__fiber_of_thread(&f.home);
        assert_non_null(f.home.stack_base);
        pn__fiber_init(&f.fiber, pn__stack_base(&f.pool, &f.stack), pn__stack_usable(&f.pool), body,
                       &f);
        f.steps = 0;
        for (int i = 0; i <= 10; i++) {
            assert_int_equal(f.steps, i ? i - 1 : 0);
            errno = 5;
            pn__fiber_switch(&f.home, &f.fiber);
            assert_int_equal(errno, 5);
        }
        assert_int_equal(f.steps, 10);
        assert_true(f.frames >= 1 && f.frames <= 5);
        pn__fiber_fini(&f.fiber);
        pn__stack_put(&f.pool, &f.stack);
    }
    pn__stack_pool_fini(&f.pool);
}

static void rounds_up(void *arg)
{
    struct fibers *f = arg;
    pn__fiber_begun(&f->fiber);
    for (;;) {
        __builtin_ia32_ldmxcsr((__builtin_ia32_stmxcsr() & ~0x6000u) | 0x4000); /* up */
        pn__fiber_switch(&f->fiber, &f->home);
        PN_BUG_ON((__builtin_ia32_stmxcsr() & 0x6000u) != 0x4000);
        if (++f->steps == 3)
            pn__fiber_leave(&f->fiber, &f->home);
    }
}

/* Rounding is each fiber's own; callee-saved registers hold these locals. */
static void test_registers(void **state)
{
    (void)state;
    struct fibers f = {0};
    assert_int_equal(pn__stack_pool_init(&f.pool, 256 << 10, 0), 0);
    assert_int_equal(pn__stack_get(&f.pool, &f.stack), 0);
    pn__fiber_of_thread(&f.home);
    pn__fiber_init(&f.fiber, pn__stack_base(&f.pool, &f.stack), pn__stack_usable(&f.pool),
                   rounds_up, &f);
    register long a = 11, b = 22, c = 33, d = 44, e = 55;
    for (int i = 0; i < 4; i++) {
        __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e));
        pn__fiber_switch(&f.home, &f.fiber);
        __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e));
        assert_int_equal(__builtin_ia32_stmxcsr() & 0x6000u, 0);
        assert_int_equal(a + b + c + d + e, 165);
    }
    pn__fiber_fini(&f.fiber);
    pn__stack_put(&f.pool, &f.stack);
    pn__stack_pool_fini(&f.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),  cmocka_unit_test(test_guard),
        cmocka_unit_test(test_pool),   cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_switch), cmocka_unit_test(test_registers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The baton's word: each edge by itself, the edges that must not be, and many threads at once, whose
 * plain counter TSan watches. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "cores/baton.h"
#include "test_base.h"

static enum pn__baton_state state_of(const struct pn__baton *b)
{
    return pn__baton_state_of(pn__baton_load(b));
}

static void test_runner(void **state)
{
    (void)state;
    struct pn__baton b;
    pn__baton_init(&b, 7);
    assert_true(pn__baton_is(&b, 7, PN__BATON_ACTIVE));
    assert_false(pn__baton_is(&b, 6, PN__BATON_ACTIVE));
    pn__baton_enter(&b, 7);
    assert_true(pn__baton_is(&b, 7, PN__BATON_INSIDE));
    assert_false(pn__baton_leave(&b, 6));
    assert_true(pn__baton_leave(&b, 7));
    assert_true(pn__baton_is(&b, 7, PN__BATON_ACTIVE));
    assert_false(pn__baton_leave(&b, 7));
    assert_false(pn__baton_take(&b, 8));
    assert_int_equal(pn__baton_try(&b, 8, true), PN__GOT_NOTHING);
}

/* Every stay in the application has its own word. */
static void test_stays_differ(void **state)
{
    (void)state;
    struct pn__baton b;
    pn__baton_init(&b, 1);
    uint64_t before = 0;
    for (int i = 0; i < 100; i++) {
        pn__baton_enter(&b, 1);
        uint64_t word = pn__baton_load(&b);
        assert_true(word != before);
        before = word;
        assert_true(pn__baton_leave(&b, 1));
    }
    pn__baton_enter(&b, 1);
    assert_true(pn__baton_offer(&b, 1));
    assert_true(pn__baton_take(&b, 1));
    pn__baton_enter(&b, 1);
    assert_true(pn__baton_load(&b) != before);
    /* The count may overflow. */
    atomic_store(&b.word, UINT64_C(0xffffffff00000000) | pn__baton_who(1, PN__BATON_ACTIVE));
    pn__baton_enter(&b, 1);
    assert_int_equal(pn__baton_load(&b), pn__baton_who(1, PN__BATON_INSIDE));
    pn__baton_move(&b, PN__BATON_RUNNER_MAX, PN__BATON_POLLING);
    assert_int_equal(pn__baton_runner_of(pn__baton_load(&b)), PN__BATON_RUNNER_MAX);
}

static void test_offer_and_take(void **state)
{
    (void)state;
    struct pn__baton b;
    pn__baton_init(&b, 1);
    assert_false(pn__baton_offer(&b, 1)); /* only from inside */
    pn__baton_enter(&b, 1);
    assert_false(pn__baton_offer(&b, 2));
    assert_true(pn__baton_offer(&b, 1));
    assert_int_equal(state_of(&b), PN__BATON_FREE);
    assert_false(pn__baton_offer(&b, 1));
    assert_false(pn__baton_leave(&b, 1));
    assert_true(pn__baton_take(&b, 2));
    assert_false(pn__baton_take(&b, 3));
    pn__baton_drop(&b);
    assert_int_equal(pn__baton_try(&b, 4, true), PN__GOT_RUNNER);
    assert_true(pn__baton_is(&b, 4, PN__BATON_ACTIVE));
}

static void test_loans(void **state)
{
    (void)state;
    struct pn__baton b;
    pn__baton_init(&b, 1);
    pn__baton_enter(&b, 1);
    assert_int_equal(pn__baton_try(&b, 2, true), PN__GOT_LOAN);
    assert_int_equal(pn__baton_try(&b, 3, true), PN__GOT_NOTHING);
    assert_false(pn__baton_leave(&b, 1)); /* it waits */
    assert_int_equal(pn__baton_try(&b, 1, true), PN__GOT_NOTHING);
    assert_true(pn__baton_offer(&b, 1)); /* the loan stays */
    assert_false(pn__baton_take(&b, 3));
    assert_int_equal(pn__baton_state_of(pn__baton_unlend(&b)), PN__BATON_FREE);
    /* Home borrows even from nobody. */
    assert_int_equal(pn__baton_try(&b, 0, false), PN__GOT_LOAN);
    pn__baton_unlend(&b);
    assert_true(pn__baton_take(&b, 3));
    pn__baton_move(&b, 3, PN__BATON_POLLING);
    assert_int_equal(pn__baton_try(&b, 2, true), PN__GOT_LOAN);
    pn__baton_unlend(&b);
    assert_int_equal(pn__baton_get(&b, 3, false, NULL), PN__GOT_RUNNER);
    assert_int_equal(b.wanted, 0);
}

static void test_steal(void **state)
{
    (void)state;
    const unsigned dog = PN__BATON_RUNNER_MAX;
    struct pn__baton b;
    pn__baton_init(&b, 1);
    pn__baton_enter(&b, 1);
    uint64_t seen = pn__baton_load(&b);
    assert_int_equal(pn__baton_try(&b, dog, false), PN__GOT_LOAN);
    assert_true(pn__baton_steal(&b, seen));
    assert_int_equal(state_of(&b), PN__BATON_FREE);
    assert_int_equal(pn__baton_try(&b, 1, true), PN__GOT_RUNNER);
    /* A later stay of the same core is not the one that was seen. */
    pn__baton_enter(&b, 1);
    assert_int_equal(pn__baton_try(&b, dog, false), PN__GOT_LOAN);
    assert_false(pn__baton_steal(&b, seen));
    assert_true(pn__baton_is(&b, 1, PN__BATON_INSIDE));
    assert_true(pn__baton_leave(&b, 1)); /* the loan has ended all the same */
    pn__baton_enter(&b, 1);
    seen = pn__baton_load(&b);
    assert_int_equal(pn__baton_try(&b, dog, false), PN__GOT_LOAN);
    assert_true(pn__baton_offer(&b, 1)); /* meanwhile */
    assert_false(pn__baton_steal(&b, seen));
    assert_true(pn__baton_take(&b, 5));
}

static void test_dead(void **state)
{
    (void)state;
    struct pn__baton b;
    atomic_bool stop = false;
    pn__baton_init(&b, 1);
    pn__baton_enter(&b, 1);
    pn__baton_kill(&b);
    assert_false(pn__baton_leave(&b, 1));
    assert_false(pn__baton_take(&b, 2));
    assert_int_equal(pn__baton_get(&b, 1, true, NULL), PN__GOT_NOTHING);
    /* A runner that never comes back. */
    pn__baton_init(&b, 1);
    stop = true;
    assert_int_equal(pn__baton_get(&b, 2, true, &stop), PN__GOT_NOTHING);
    assert_int_equal(b.wanted, 0);
}

/* --- many threads ----------------------------------------------------------------------------------- */

enum { THREADS = 6, ROUNDS = PN_TSAN || PN_ASAN ? 4000 : 30000 };

struct stress {
    struct pn__baton b;
    long counter; /* the loop's */
    atomic_long owned;
    atomic_bool done;
};
struct worker {
    struct stress *s;
    unsigned number;
    pthread_t thread;
};

static void touch(struct stress *s)
{
    s->counter++;
    atomic_fetch_add_explicit(&s->owned, 1, memory_order_relaxed);
}

/* A core's life: comes back, does something of the loop's, goes into the application, blocks or not. */
static void *live(void *arg)
{
    struct worker *w = arg;
    struct pn__baton *b = &w->s->b;
    unsigned seed = w->number;
    for (int i = 0; i < ROUNDS; i++) {
        if (pn__baton_get(b, w->number, true, NULL) == PN__GOT_LOAN) {
            touch(w->s);
            pn__baton_unlend(b);
            continue;
        }
        touch(w->s);
        switch (rand_r(&seed) % 4) {
        case 0: /* sleeps in the poller */
            pn__baton_move(b, w->number, PN__BATON_POLLING);
            sched_yield();
            PN_BUG_ON(pn__baton_get(b, w->number, true, NULL) != PN__GOT_RUNNER);
            break;
        case 1:
            if (pn__baton_wanted(b))
                pn__baton_let_in(b, w->number);
            if (pn__baton_is(b, w->number, PN__BATON_ACTIVE))
                touch(w->s);
            else
                continue; /* robbed */
            break;
        default:
            break;
        }
        pn__baton_enter(b, w->number);
        if (rand_r(&seed) % 2 && pn__baton_leave(b, w->number)) {
            touch(w->s);
            pn__baton_enter(b, w->number);
        }
        pn__baton_offer(b, w->number); /* or it was stolen */
    }
    return NULL;
}

static void *steal(void *arg)
{
    struct stress *s = arg;
    while (!atomic_load(&s->done)) {
        uint64_t seen = pn__baton_load(&s->b);
        if (pn__baton_state_of(seen) != PN__BATON_INSIDE || (seen & PN__BATON_LENT))
            continue;
        if (pn__baton_try(&s->b, PN__BATON_RUNNER_MAX, false) != PN__GOT_LOAN)
            continue;
        touch(s);
        pn__baton_steal(&s->b, seen);
    }
    return NULL;
}

static void test_stress(void **state)
{
    (void)state;
    static struct stress s;
    struct worker w[THREADS];
    pthread_t thief;
    pn__baton_init(&s.b, 1);
    pn__baton_drop(&s.b);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.s = &s, .number = i + 1};
        pthread_create(&w[i].thread, NULL, live, &w[i]);
    }
    pthread_create(&thief, NULL, steal, &s);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(w[i].thread, NULL);
    atomic_store(&s.done, true);
    pthread_join(thief, NULL);
    assert_true(s.counter >= (long)THREADS * ROUNDS);
    assert_int_equal(s.counter, atomic_load(&s.owned)); /* none was lost */
    assert_int_equal(state_of(&s.b), PN__BATON_FREE);
    assert_int_equal(s.b.wanted, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runner),         cmocka_unit_test(test_stays_differ),
        cmocka_unit_test(test_offer_and_take), cmocka_unit_test(test_loans),
        cmocka_unit_test(test_steal),          cmocka_unit_test(test_dead),
        cmocka_unit_test(test_stress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

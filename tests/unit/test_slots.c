/* SPDX-License-Identifier: Apache-2.0 */
/* Run slots: at most so many holders, first come first served, and a bounded wait. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "cores/slots.h"
#include "test_base.h"

#define MS PN_NS_PER_MS

static void test_get_and_put(void **state)
{
    (void)state;
    struct pn__slots s;
    struct pn__slot a, b, c;
    pn__slots_init(&s, 2);
    pn__slot_init(&a);
    pn__slot_init(&b);
    pn__slot_init(&c);
    assert_true(pn__slots_get(&s, &a, 0));
    assert_true(pn__slots_get(&s, &a, 0)); /* has it */
    assert_true(pn__slots_get(&s, &b, 0));
    assert_int_equal(s.free_count, 0);
    int64_t t0 = pn_clock_mono_ns();
    assert_false(pn__slots_get(&s, &c, 5 * MS));
    assert_true(pn_clock_mono_ns() - t0 >= 5 * MS);
    assert_true(pn_list_empty(&s.queue));
    pn__slots_put(&s, &c); /* has none */
    assert_int_equal(s.free_count, 0);
    pn__slots_put(&s, &a);
    pn__slots_put(&s, &a);
    assert_int_equal(s.free_count, 1);
    assert_true(pn__slots_get(&s, &c, 0));
    pn__slots_put(&s, &b);
    pn__slots_put(&s, &c);
    assert_int_equal(s.free_count, 2);
}

struct waiter {
    struct pn__slots *s;
    struct pn__slot slot;
    pthread_t thread;
    atomic_int *turn;
    int64_t span_ns;
    int place;
    bool got;
};

struct mover {
    struct pn__slots *s;
    atomic_bool over;
};

static size_t queued(struct pn__slots *s)
{
    size_t n = 0;
    struct pn_list *pos;
    pn__lock_take(&s->lock);
    pn_list_for_each(pos, &s->queue) n++;
    pn__lock_drop(&s->lock);
    return n;
}

static void *wait_for_slot(void *arg)
{
    struct waiter *w = arg;
    w->got = pn__slots_get(w->s, &w->slot, w->span_ns);
    w->place = atomic_fetch_add(w->turn, 1);
    pn__slots_put(w->s, &w->slot);
    return NULL;
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    struct pn__slots s;
    struct pn__slot holder;
    struct waiter w[8];
    atomic_int turn = 0;
    pn__slots_init(&s, 1);
    pn__slot_init(&holder);
    pn__slots_get(&s, &holder, 0);
    for (size_t i = 0; i < 8; i++) {
        w[i] = (struct waiter){.s = &s, .turn = &turn, .span_ns = 5000 * MS};
        pn__slot_init(&w[i].slot);
        pthread_create(&w[i].thread, NULL, wait_for_slot, &w[i]);
        while (queued(&s) != i + 1)
            usleep(100);
    }
    pn__slots_put(&s, &holder);
    for (int i = 0; i < 8; i++) {
        pthread_join(w[i].thread, NULL);
        assert_true(w[i].got);
        assert_int_equal(w[i].place, i);
    }
    assert_int_equal(s.grants, 8); /* by which those behind see that the queue moves */
    assert_int_equal(s.free_count, 1);
}

/* Seems to give others a slot all the time. */
static void *move(void *arg)
{
    struct mover *m = arg;
    while (!atomic_load(&m->over)) {
        pn__lock_take(&m->s->lock);
        m->s->grants++;
        pn__lock_drop(&m->s->lock);
        usleep(200);
    }
    return NULL;
}

/* Longer than the span, but it moves all the while. */
static void test_a_moving_queue_is_waited_for(void **state)
{
    (void)state;
    struct pn__slots s;
    struct pn__slot holder;
    struct mover mover = {.s = &s};
    pthread_t thread;
    atomic_int turn = 0;
    pn__slots_init(&s, 1);
    pn__slot_init(&holder);
    pn__slots_get(&s, &holder, 0);
    pthread_create(&thread, NULL, move, &mover);
    struct waiter w = {.s = &s, .turn = &turn, .span_ns = 400 * MS};
    pn__slot_init(&w.slot);
    pthread_create(&w.thread, NULL, wait_for_slot, &w);
    while (queued(&s) != 1)
        usleep(100);
    usleep(600000);
    pn__slots_put(&s, &holder);
    pthread_join(w.thread, NULL);
    assert_true(w.got);
    atomic_store(&mover.over, true);
    pthread_join(thread, NULL);
    assert_int_equal(s.free_count, 1);
    assert_int_equal(s.queued, 0);
}

/* The first is called away from the queue: it keeps waiting until it is released, and has no slot then. */
static void test_one_is_spared_its_slot(void **state)
{
    (void)state;
    struct pn__slots s;
    struct pn__slot holder;
    atomic_int turn = 0;
    pn__slots_init(&s, 1);
    pn__slot_init(&holder);
    assert_null(pn__slots_pop(&s));
    pn__slots_get(&s, &holder, 0);
    struct waiter w = {.s = &s, .turn = &turn, .span_ns = 200 * MS, .got = true};
    pn__slot_init(&w.slot);
    pthread_create(&w.thread, NULL, wait_for_slot, &w);
    struct pn__slot *slot = NULL;
    while (!slot && atomic_load(&turn) == 0)
        slot = pn__slots_pop(&s);
    if (slot) { /* not too late for its span */
        assert_ptr_equal(slot, &w.slot);
        usleep(600000);
        assert_int_equal(atomic_load(&turn), 0);
        pn__slots_release(slot);
    }
    pthread_join(w.thread, NULL);
    assert_non_null(slot);
    assert_false(w.got);
    assert_int_equal(s.free_count, 0);
    assert_int_equal(s.queued, 0);
    pn__slots_put(&s, &holder);
    assert_int_equal(s.free_count, 1);
}

static struct pn__slots shared;
static atomic_int holders;

/* Time-outs and grants meet all the time: no slot may get lost, none be had twice. */
static void *fight(void *arg)
{
    struct pn__slot slot;
    unsigned seed = (unsigned)(uintptr_t)arg;
    pn__slot_init(&slot);
    for (int i = 0; i < 2000; i++) {
        if (pn__slots_get(&shared, &slot, (rand_r(&seed) % 60) * PN_NS_PER_US)) {
            PN_BUG_ON(atomic_fetch_add(&holders, 1) >= 2);
            if (rand_r(&seed) % 4 == 0)
                sched_yield();
            atomic_fetch_sub(&holders, 1);
        }
        pn__slots_put(&shared, &slot);
    }
    return NULL;
}

static void test_stress(void **state)
{
    (void)state;
    pthread_t t[6];
    pn__slots_init(&shared, 2);
    for (uintptr_t i = 0; i < 6; i++)
        pthread_create(&t[i], NULL, fight, (void *)(i + 1));
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(shared.free_count, 2);
    assert_true(pn_list_empty(&shared.queue));
    assert_int_equal(shared.queued, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_and_put),
        cmocka_unit_test(test_first_come_first_served),
        cmocka_unit_test(test_a_moving_queue_is_waited_for),
        cmocka_unit_test(test_one_is_spared_its_slot),
        cmocka_unit_test(test_stress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

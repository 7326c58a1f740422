/* SPDX-License-Identifier: Apache-2.0 */
/* Messages from other threads: none lost, none twice, each sender's in its order, and no wake
 * for a loop that is awake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop/loop.h"

enum { SENDERS = 4, EACH = 20000 };

struct numbered {
    struct pn_message message;
    struct sender *sender;
    unsigned number;
};

struct sender {
    struct pn_loop *loop;
    struct numbered *all;
    unsigned next; /* the number that must come next; the loop's owner only */
    unsigned pause;
};

static unsigned delivered;

static void on_numbered(struct pn_message *m)
{
    struct numbered *n = pn_container_of(m, struct numbered, message);
    assert_int_equal(n->number, n->sender->next);
    n->sender->next++;
    delivered++;
}

static void *send_all(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < EACH; i++) {
        s->all[i] = (struct numbered){{.deliver = on_numbered}, s, i};
        pn_message_send(s->loop, &s->all[i].message);
        if (s->pause && i % s->pause == 0)
            usleep(50); /* lets the loop fall asleep */
    }
    return NULL;
}

static void many_senders(void **state)
{
    (void)state;
    struct pn_loop *loop = pn_loop_create(pn_poller_epoll_create());
    struct sender senders[SENDERS];
    pthread_t threads[SENDERS];
    delivered = 0;
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.loop = loop, .pause = i % 2 ? 500 : 0};
        senders[i].all = pn_xcalloc(EACH, sizeof(struct numbered));
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    while (delivered < SENDERS * EACH)
        pn_loop_step(loop);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(senders[i].next, EACH);
        free(senders[i].all);
    }
    struct pn_loop_stats s;
    pn_loop_stats(loop, &s);
    assert_true(s.wakes <= s.turns);
    pn_loop_destroy(loop);
}

/* A sleeper is woken by each of many single messages: ping-pong finds a lost wake-up as a hang. */
static struct pn_message ping_message;
static atomic_uint pings;

static void on_ping(struct pn_message *m)
{
    (void)m;
    atomic_fetch_add(&pings, 1);
}

static void *ping_pong(void *arg)
{
    for (unsigned i = 1; i <= 5000; i++) {
        ping_message.deliver = on_ping;
        pn_message_send(arg, &ping_message);
        while (atomic_load(&pings) < i)
            sched_yield();
    }
    return NULL;
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    struct pn_loop *loop = pn_loop_create(pn_poller_epoll_create());
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ping_pong, loop), 0);
    while (atomic_load(&pings) < 5000)
        pn_loop_step(loop);
    pthread_join(thread, NULL);
    pn_loop_destroy(loop);
}

static void the_owner_pays_no_wake(void **state)
{
    (void)state;
    struct pn_loop *loop = pn_loop_create(pn_poller_epoll_create());
    struct sender s = {.loop = loop};
    struct numbered n[3];
    delivered = 0;
    for (unsigned i = 0; i < 3; i++) {
        n[i] = (struct numbered){{.deliver = on_numbered}, &s, i};
        pn_message_send(loop, &n[i].message);
    }
    while (delivered < 3)
        pn_loop_step(loop);
    struct pn_loop_stats stats;
    pn_loop_stats(loop, &stats);
    assert_int_equal(stats.wakes, 0);
    pn_loop_destroy(loop);
}

static struct numbered follow_up;
static void on_first(struct pn_message *m)
{
    struct numbered *n = pn_container_of(m, struct numbered, message);
    follow_up = (struct numbered){{.deliver = on_numbered}, n->sender, 0};
    pn_message_send(n->sender->loop, &follow_up.message);
}

static void one_sent_from_a_delivery_comes_in_the_next_turn(void **state)
{
    (void)state;
    struct pn_loop *loop = pn_loop_create(pn_poller_epoll_create());
    struct sender s = {.loop = loop};
    struct numbered first = {{.deliver = on_first}, &s, 0};
    delivered = 0;
    pn_message_send(loop, &first.message);
    struct pn_loop_stats before, after;
    pn_loop_step(loop);
    pn_loop_stats(loop, &before);
    while (delivered < 1)
        pn_loop_step(loop);
    pn_loop_stats(loop, &after);
    assert_int_equal(after.turns, before.turns + 1);
    pn_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_senders),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(the_owner_pays_no_wake),
        cmocka_unit_test(one_sent_from_a_delivery_comes_in_the_next_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

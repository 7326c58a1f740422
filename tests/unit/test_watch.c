/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors: modes, several waiters on one fd, generations, numbers used again, what the
 * kernel is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop/loop.h"
#include "support/sim_poller.h"

struct waiter {
    struct pn_watch watch;
    unsigned calls;
    uint32_t events;
    void (*then)(struct waiter *w);
};

static struct sim_poller *sim;
static struct pn_loop *loop;

static void on_ready(struct pn_watch *watch, uint32_t events)
{
    struct waiter *w = pn_container_of(watch, struct waiter, watch);
    w->calls++;
    w->events = events;
    if (w->then)
        w->then(w);
}

static void waiter_init(struct waiter *w)
{
    *w = (struct waiter){0};
    pn_watch_init(&w->watch, on_ready);
}

static int set_up(void **state)
{
    (void)state;
    sim = sim_poller_create();
    loop = pn_loop_create(sim_poller_base(sim));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pn_loop_destroy(loop);
    return 0;
}

/* Until a wait had nothing to wait for. */
static void run_idle(void)
{
    struct pn_loop_stats s;
    for (int i = 0; i < 1000; i++) {
        pn_loop_step(loop);
        pn_loop_stats(loop, &s);
        if (sim_idle(sim) && !pn_loop_has_work(loop))
            return;
    }
    fail_msg("the loop does not come to rest");
}

static uint64_t calls_to_the_kernel(void)
{
    struct sim_poller_stats s = sim_poller_stats(sim);
    return s.adds + s.modifies + s.removes;
}

static void add(struct waiter *w, int fd, uint32_t events)
{
    assert_int_equal(pn_watch_add(loop, &w->watch, fd, events), 0);
}

#define CONN_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

static void an_edge_is_told_once_and_costs_one_call(void **state)
{
    (void)state;
    struct waiter w;
    waiter_init(&w);
    int fd = sim_fd_open(sim);
    sim_fd_raise(sim, fd, EPOLLIN);
    add(&w, fd, CONN_EVENTS);
    run_idle();
    assert_int_equal(w.calls, 1);
    assert_int_equal(w.events, EPOLLIN);
    sim_fd_raise(sim, fd, EPOLLIN); /* more bytes: an edge again */
    run_idle();
    assert_int_equal(w.calls, 2);
    pn_watch_remove(loop, &w.watch);
    pn_watch_remove(loop, &w.watch); /* harmless */
    sim_fd_close(sim, fd);
    assert_int_equal(calls_to_the_kernel(), 1);
    run_idle();
    assert_int_equal(w.calls, 2);
}

static void level_goes_on_until_removed(void **state)
{
    (void)state;
    struct waiter w;
    waiter_init(&w);
    int fd = sim_fd_open(sim);
    add(&w, fd, EPOLLIN);
    sim_fd_raise(sim, fd, EPOLLIN);
    for (int i = 0; i < 20; i++)
        pn_loop_step(loop);
    assert_true(w.calls > 5);
    pn_watch_remove(loop, &w.watch);
    assert_int_equal(sim_poller_stats(sim).removes, 1);
    unsigned calls = w.calls;
    run_idle();
    assert_int_equal(w.calls, calls);
    sim_fd_close(sim, fd);
}

static void repeated_one_shots_cost_one_call_each(void **state)
{
    (void)state;
    struct waiter w;
    waiter_init(&w);
    int fd = sim_fd_open(sim);
    sim_fd_raise(sim, fd, EPOLLIN);
    for (unsigned i = 1; i <= 10; i++) {
        add(&w, fd, EPOLLIN | EPOLLONESHOT);
        run_idle();
        assert_int_equal(w.calls, i);
        assert_int_equal(w.watch.fd, -1);
    }
    struct sim_poller_stats s = sim_poller_stats(sim);
    assert_int_equal(s.adds, 1);
    assert_int_equal(s.modifies, 9);
    assert_int_equal(s.removes, 0);
    sim_fd_close(sim, fd);
}

static void a_one_shot_that_is_removed_never_comes(void **state)
{
    (void)state;
    struct waiter w;
    waiter_init(&w);
    int fd = sim_fd_open(sim);
    add(&w, fd, EPOLLIN | EPOLLONESHOT);
    pn_watch_remove(loop, &w.watch);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    assert_int_equal(w.calls, 0);
    struct pn_loop_stats s;
    pn_loop_stats(loop, &s);
    assert_int_equal(s.stale_events, 1);
    sim_fd_close(sim, fd);
}

static void several_waiters_get_what_they_asked_for(void **state)
{
    (void)state;
    struct waiter r1, r2, w1;
    waiter_init(&r1);
    waiter_init(&r2);
    waiter_init(&w1);
    int fd = sim_fd_open(sim);
    add(&r1, fd, EPOLLIN | EPOLLONESHOT);
    add(&w1, fd, EPOLLOUT | EPOLLONESHOT);
    add(&r2, fd, EPOLLIN | EPOLLONESHOT);
    sim_fd_raise(sim, fd, EPOLLOUT);
    run_idle();
    assert_int_equal(w1.calls, 1);
    assert_int_equal(r1.calls + r2.calls, 0);
    sim_fd_raise(sim, fd, EPOLLIN); /* the rest was armed again */
    run_idle();
    assert_int_equal(w1.calls, 1);
    assert_int_equal(r1.calls, 1);
    assert_int_equal(r2.calls, 1);
    sim_fd_close(sim, fd);
}

static void one_waiter_a_step(void **state)
{
    (void)state;
    struct waiter w[3];
    int fd = sim_fd_open(sim);
    for (int i = 0; i < 3; i++) {
        waiter_init(&w[i]);
        add(&w[i], fd, EPOLLIN | EPOLLONESHOT);
    }
    sim_fd_raise(sim, fd, EPOLLIN);
    pn_loop_step(loop); /* waits */
    for (unsigned i = 1; i <= 3; i++) {
        pn_loop_step(loop);
        assert_int_equal(w[0].calls + w[1].calls + w[2].calls, i);
        assert_true(i == 3 || pn_loop_has_work(loop));
    }
    sim_fd_close(sim, fd);
}

static struct waiter *victim;
static void remove_victim(struct waiter *w)
{
    (void)w;
    pn_watch_remove(loop, &victim->watch);
}

static void a_callback_may_remove_the_next_waiter(void **state)
{
    (void)state;
    struct waiter a, b;
    waiter_init(&a);
    waiter_init(&b);
    a.then = remove_victim;
    victim = &b;
    int fd = sim_fd_open(sim);
    add(&a, fd, EPOLLIN | EPOLLONESHOT);
    add(&b, fd, EPOLLIN | EPOLLONESHOT);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    assert_int_equal(a.calls, 1);
    assert_int_equal(b.calls, 0);
    sim_fd_close(sim, fd);
}

static void a_level_mask_is_narrowed_when_a_one_shot_went(void **state)
{
    (void)state;
    struct waiter reader, once;
    waiter_init(&reader);
    waiter_init(&once);
    int fd = sim_fd_open(sim);
    add(&reader, fd, EPOLLIN);
    add(&once, fd, EPOLLOUT | EPOLLONESHOT);
    sim_fd_raise(sim, fd, EPOLLOUT);
    run_idle(); /* would spin otherwise */
    assert_int_equal(once.calls, 1);
    assert_int_equal(reader.calls, 0);
    pn_watch_remove(loop, &reader.watch);
    sim_fd_close(sim, fd);
}

static void an_edge_and_a_one_shot_share(void **state)
{
    (void)state;
    struct waiter conn, once;
    waiter_init(&conn);
    waiter_init(&once);
    int fd = sim_fd_open(sim);
    sim_fd_raise(sim, fd, EPOLLOUT);
    add(&conn, fd, CONN_EVENTS);
    run_idle();
    assert_int_equal(conn.calls, 1);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    /* Ready already, and no edge will come: the wait must end all the same. */
    add(&once, fd, EPOLLIN | EPOLLONESHOT);
    run_idle();
    assert_int_equal(once.calls, 1);
    assert_true(conn.calls >= 2);
    pn_watch_remove(loop, &conn.watch);
    sim_fd_close(sim, fd);
}

static struct waiter replacement;
static int reused_fd;

static void close_and_reuse(struct waiter *w)
{
    (void)w;
    pn_watch_remove(loop, &victim->watch);
    sim_fd_close(sim, reused_fd);
    int fd = sim_fd_open(sim);
    assert_int_equal(fd, reused_fd);
    assert_int_equal(pn_watch_add(loop, &replacement.watch, fd, CONN_EVENTS), 0);
}

/* Two events were fetched together; the first one's callback closes the second's fd, and a new file
 * gets its number: the second event is not for it. */
static void a_fetched_event_does_not_reach_a_reused_number(void **state)
{
    (void)state;
    struct waiter first, second;
    waiter_init(&first);
    waiter_init(&second);
    waiter_init(&replacement);
    int fd1 = sim_fd_open(sim);
    reused_fd = sim_fd_open(sim);
    first.then = close_and_reuse;
    victim = &second;
    add(&first, fd1, CONN_EVENTS);
    add(&second, reused_fd, CONN_EVENTS);
    sim_fd_raise(sim, fd1, EPOLLIN);
    sim_fd_raise(sim, reused_fd, EPOLLIN);
    run_idle();
    assert_int_equal(first.calls, 1);
    assert_int_equal(second.calls, 0);
    assert_int_equal(replacement.calls, 0);
    struct pn_loop_stats s;
    pn_loop_stats(loop, &s);
    assert_int_equal(s.stale_events, 1);
    pn_watch_remove(loop, &first.watch);
    pn_watch_remove(loop, &replacement.watch);
}

/* The application closed the fd and nobody told us: the number is another file's now. */
static void a_number_used_again_is_registered_anew(void **state)
{
    (void)state;
    struct waiter w, old;
    waiter_init(&w);
    waiter_init(&old);
    int fd = sim_fd_open(sim);
    add(&w, fd, EPOLLIN | EPOLLONESHOT);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    assert_int_equal(w.calls, 1);
    sim_fd_close(sim, fd);
    assert_int_equal(sim_fd_open(sim), fd);
    add(&w, fd, EPOLLIN | EPOLLONESHOT);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    assert_int_equal(w.calls, 2);

    /* Somebody waits for the file that is gone: it must hear of it. */
    add(&old, fd, EPOLLOUT | EPOLLONESHOT);
    sim_fd_close(sim, fd);
    assert_int_equal(sim_fd_open(sim), fd);
    add(&w, fd, EPOLLIN | EPOLLONESHOT);
    run_idle();
    assert_int_equal(old.calls, 1);
    assert_int_equal(old.events, PN_WATCH_CLOSED);
    assert_int_equal(w.calls, 2);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    assert_int_equal(w.calls, 3);
    sim_fd_close(sim, fd);
}

static void closing_wakes_the_waiters_later(void **state)
{
    (void)state;
    struct waiter a, b, c;
    waiter_init(&a);
    waiter_init(&b);
    waiter_init(&c);
    int fd = sim_fd_open(sim);
    add(&a, fd, EPOLLIN | EPOLLONESHOT);
    add(&b, fd, EPOLLIN);
    add(&c, fd, EPOLLIN);
    pn_loop_fd_closed(loop, fd);
    pn_loop_fd_closed(loop, fd);
    pn_loop_fd_closed(loop, 12345);
    pn_loop_fd_closed(loop, -1);
    assert_int_equal(a.calls + b.calls + c.calls, 0);
    assert_true(pn_loop_has_work(loop));
    pn_watch_remove(loop, &c.watch); /* off again before it was called */
    sim_fd_close(sim, fd);
    run_idle();
    assert_int_equal(a.calls, 1);
    assert_int_equal(b.calls, 1);
    assert_int_equal(c.calls, 0);
    assert_int_equal(b.events, PN_WATCH_CLOSED);
    assert_int_equal(a.watch.fd, -1);
}

static void refusals_change_nothing(void **state)
{
    (void)state;
    struct waiter w, other;
    waiter_init(&w);
    waiter_init(&other);
    assert_int_equal(pn_watch_add(loop, &w.watch, -1, EPOLLIN), -EBADF);
    assert_int_equal(pn_watch_add(loop, &w.watch, 4000, EPOLLIN), -EBADF);
    int fd = sim_fd_open(sim);
    sim_fd_refuse(sim, fd, EPERM);
    assert_int_equal(pn_watch_add(loop, &w.watch, fd, EPOLLIN | EPOLLONESHOT), -EPERM);
    assert_int_equal(w.watch.fd, -1);
    sim_fd_refuse(sim, fd, 0);
    add(&other, fd, EPOLLIN | EPOLLONESHOT);
    sim_fd_refuse(sim, fd, ENOMEM);
    assert_int_equal(pn_watch_add(loop, &w.watch, fd, EPOLLOUT | EPOLLONESHOT), -ENOMEM);
    sim_fd_refuse(sim, fd, 0);
    sim_fd_raise(sim, fd, EPOLLIN);
    run_idle();
    assert_int_equal(other.calls, 1);
    assert_int_equal(w.calls, 0);
    pn_mem_fail_at(1, false);
    assert_int_equal(pn_watch_add(loop, &w.watch, 100000, EPOLLIN), -ENOMEM);
    pn_mem_fail_at(0, false);
    sim_fd_close(sim, fd);
}

static void an_exclusive_watch_is_never_modified(void **state)
{
    (void)state;
    struct waiter listener, other;
    waiter_init(&listener);
    waiter_init(&other);
    int fd = sim_fd_open(sim);
    add(&listener, fd, EPOLLIN | EPOLLEXCLUSIVE);
    add(&other, fd, EPOLLIN | EPOLLONESHOT);
    sim_fd_raise(sim, fd, EPOLLIN);
    for (int i = 0; i < 6; i++)
        pn_loop_step(loop);
    assert_int_equal(other.calls, 1);
    assert_true(listener.calls >= 1);
    pn_watch_remove(loop, &listener.watch);
    add(&listener, fd, EPOLLIN | EPOLLEXCLUSIVE);
    pn_watch_remove(loop, &listener.watch);
    sim_fd_close(sim, fd);
}

/* --- The same against the kernel --- */

static void step_until(struct pn_loop *real, const unsigned *counter, unsigned value)
{
    for (int i = 0; i < 1000 && *counter < value; i++)
        pn_loop_step(real);
    assert_int_equal(*counter, value);
}

static void the_kernel_agrees(void **state)
{
    (void)state;
    struct pn_loop *real = pn_loop_create(pn_poller_epoll_create());
    struct waiter w, conn;
    waiter_init(&w);
    waiter_init(&conn);
    int pair[2];
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        assert_int_equal(write(pair[1], "x", 1), 1);
        for (unsigned j = 1; j <= 3; j++) {
            assert_int_equal(pn_watch_add(real, &w.watch, pair[0], EPOLLIN | EPOLLONESHOT), 0);
            step_until(real, &w.calls, (i - 1) * 3 + j);
        }
        /* Closed without a word; the next socketpair gets the number. */
        close(pair[0]);
        close(pair[1]);
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(pn_watch_add(real, &conn.watch, pair[0], CONN_EVENTS), 0);
    step_until(real, &conn.calls, 1);
    assert_int_equal(conn.events, EPOLLOUT);
    assert_int_equal(write(pair[1], "x", 1), 1);
    step_until(real, &conn.calls, 2);
    assert_int_equal(pn_watch_add(real, &w.watch, pair[0], EPOLLIN | EPOLLONESHOT), 0);
    step_until(real, &w.calls, 10);
    pn_watch_remove(real, &conn.watch);
    close(pair[0]);
    close(pair[1]);
    char name[] = "/tmp/pn_watchXXXXXX";
    int file = mkstemp(name);
    unlink(name);
    assert_int_equal(pn_watch_add(real, &w.watch, file, EPOLLIN | EPOLLONESHOT), -EPERM);
    close(file);
    assert_int_equal(pn_watch_add(real, &w.watch, file, EPOLLIN | EPOLLONESHOT), -EBADF);
    pn_loop_destroy(real);
}

/* Somebody closed some of them, and nobody said which. */
static void what_the_kernel_forgot_is_found(void **state)
{
    (void)state;
    struct pn_loop *real = pn_loop_create(pn_poller_epoll_create());
    struct waiter kept, gone, reused;
    int pairs[3][2], other;
    waiter_init(&kept);
    waiter_init(&gone);
    waiter_init(&reused);
    for (int i = 0; i < 3; i++)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]), 0);
    assert_int_equal(pn_watch_add(real, &kept.watch, pairs[0][0], EPOLLIN | EPOLLONESHOT), 0);
    assert_int_equal(pn_watch_add(real, &gone.watch, pairs[1][0], EPOLLIN | EPOLLONESHOT), 0);
    assert_int_equal(pn_watch_add(real, &reused.watch, pairs[2][0], EPOLLIN | EPOLLONESHOT), 0);
    other = dup(pairs[2][0]); /* the file lives on, under another number */
    close(pairs[1][0]);
    assert_int_equal(dup2(pairs[0][1], pairs[2][0]), pairs[2][0]);
    pn_loop_fds_check(real, pairs[0][0] + 1, 1);
    assert_int_equal(gone.calls + reused.calls, 0); /* not from inside */
    pn_loop_fds_check(real, 0, 1);
    step_until(real, &gone.calls, 1);
    step_until(real, &reused.calls, 1);
    assert_int_equal(gone.events, PN_WATCH_CLOSED);
    assert_int_equal(reused.events, PN_WATCH_CLOSED);
    assert_int_equal(kept.calls, 0);
    assert_int_equal(write(pairs[0][1], "x", 1), 1);
    step_until(real, &kept.calls, 1);
    assert_int_equal(kept.events, EPOLLIN);
    close(other);
    for (int i = 0; i < 3; i++) {
        if (i != 1)
            close(pairs[i][0]);
        close(pairs[i][1]);
    }
    pn_loop_destroy(real);
}

/* --- Anything against anything: nobody is forgotten, nobody is called who is off --- */

enum { FDS = 4, WAITERS = 10, ROUNDS = 20000 };

static void random_waiters_are_never_forgotten(void **state)
{
    (void)state;
    static struct waiter w[WAITERS];
    static const uint32_t wants[] = {EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT};
    static const uint32_t modes[] = {EPOLLONESHOT, EPOLLONESHOT, EPOLLET, 0};
    int fds[FDS];
    sim_poller_seed(sim, 42);
    for (int i = 0; i < FDS; i++)
        fds[i] = sim_fd_open(sim);
    for (int i = 0; i < WAITERS; i++)
        waiter_init(&w[i]);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t r = sim_poller_random(sim);
        struct waiter *x = &w[(r >> 8) % WAITERS];
        int fd = fds[(r >> 16) % FDS];
        uint32_t want = wants[(r >> 24) % 3];
        unsigned calls = x->calls;
        switch (r % 6) {
        case 0:
        case 1:
            if (x->watch.fd < 0)
                add(x, fd, want | modes[(r >> 32) % 4]);
            break;
        case 2:
            pn_watch_remove(loop, &x->watch);
            assert_int_equal(x->watch.fd, -1);
            for (int i = 0; i < 5; i++)
                pn_loop_step(loop);
            assert_int_equal(x->calls, calls);
            break;
        case 3:
            pn_loop_fd_closed(loop, fd);
            sim_fd_close(sim, fd);
            assert_int_equal(sim_fd_open(sim), fd);
            break;
        case 4:
            sim_fd_raise(sim, fd, want);
            break;
        case 5:
            sim_fd_lower(sim, fd, want);
            break;
        }
        for (uint64_t i = (r >> 40) % 4; i > 0; i--)
            pn_loop_step(loop);
    }
    /* Everything ready now: every one-shot must come off. */
    for (int i = 0; i < FDS; i++)
        sim_fd_raise(sim, fds[i], EPOLLIN | EPOLLOUT);
    for (int i = 0; i < 500; i++)
        pn_loop_step(loop);
    for (int i = 0; i < WAITERS; i++) {
        assert_true(w[i].watch.fd < 0 || !(w[i].watch.events & EPOLLONESHOT));
        pn_watch_remove(loop, &w[i].watch);
    }
    run_idle();
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_edge_is_told_once_and_costs_one_call),
        TEST(level_goes_on_until_removed),
        TEST(repeated_one_shots_cost_one_call_each),
        TEST(a_one_shot_that_is_removed_never_comes),
        TEST(several_waiters_get_what_they_asked_for),
        TEST(one_waiter_a_step),
        TEST(a_callback_may_remove_the_next_waiter),
        TEST(a_level_mask_is_narrowed_when_a_one_shot_went),
        TEST(an_edge_and_a_one_shot_share),
        TEST(a_fetched_event_does_not_reach_a_reused_number),
        TEST(a_number_used_again_is_registered_anew),
        TEST(closing_wakes_the_waiters_later),
        TEST(refusals_change_nothing),
        TEST(an_exclusive_watch_is_never_modified),
        TEST(the_kernel_agrees),
        TEST(what_the_kernel_forgot_is_found),
        TEST(random_waiters_are_never_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

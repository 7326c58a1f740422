/* SPDX-License-Identifier: Apache-2.0 */
/* A connection's input, its states and time-outs, its end, without memory, and on a socketpair. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/conn_fixture.h"

/* --- Input ----------------------------------------------------------------------------------- */

static void reading_needs_no_memory_and_no_watch(void **state)
{
    (void)state;
    send_text("hello");
    assert_int_equal(pn_conn_read(c, 1000), PN_IO_OK);
    expect_input("hello");
    assert_non_null(c->scratch);
    assert_int_equal(c->watch.fd, -1);
    pn_conn_consume(c, 2);
    expect_input("llo");
    pn_conn_consume(c, 3);
    assert_null(c->scratch);
    assert_null(c->in_data);
    /* The next one has the warm scratch: nothing is allocated. */
    send_text("again");
    pn_mem_fail_at(1, true);
    assert_int_equal(pn_conn_read(c, 1000), PN_IO_OK);
    pn_conn_consume(c, 5);
    assert_int_equal(pn_mem_fail_at(0, false), 0);
    assert_int_equal(sim_poller_stats(sim).adds, 0);
}

static void the_watch_comes_with_the_first_want(void **state)
{
    (void)state;
    assert_true(pn_conn_may_read(c));
    assert_int_equal(pn_conn_read(c, 1000), PN_IO_WANT_READ);
    assert_false(pn_conn_may_read(c));
    assert_null(c->scratch);
    assert_int_equal(c->watch.fd, far_end->fd);
    assert_int_equal(pn_conn_read(c, 1000), PN_IO_WANT_READ);
    assert_int_equal(sim_poller_stats(sim).adds, 1);
    turns(3);
    assert_int_equal(w->readable, 0); /* it was writable only: no news */
    send_text("x");
    turns(3);
    assert_int_equal(w->readable, 1);
    assert_true(c->readable);
    assert_int_equal(pn_conn_read(c, 1000), PN_IO_OK);
    assert_false(c->readable); /* a short read: used up */
    send_text("y");
    turns(3);
    assert_int_equal(w->readable, 2);
    assert_int_equal(sim_poller_stats(sim).adds, 1);
    assert_int_equal(sim_poller_stats(sim).modifies, 0);
}

static void a_full_read_leaves_the_edge(void **state)
{
    (void)state;
    assert_int_equal(pn_conn_read(c, 4), PN_IO_WANT_READ);
    send_text("abcdef");
    turns(2);
    assert_int_equal(pn_conn_read(c, 4), PN_IO_OK);
    expect_input("abcd");
    assert_true(c->readable);
    assert_int_equal(pn_conn_read(c, 4), PN_IO_ERROR); /* full */
    assert_int_equal(c->transport.error, ENOMEM);
    pn_conn_consume(c, 3);
    assert_int_equal(pn_conn_read(c, 4), PN_IO_OK);
    expect_input("def");
}

static void an_announced_end_is_read_after_a_short_read(void **state)
{
    (void)state;
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    send_text("bye");
    sim_link_shutdown(far_end);
    turns(3);
    assert_int_equal(w->readable, 1);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    expect_input("bye");
    assert_true(c->readable); /* else nobody would find the end */
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    assert_true(c->peer_closed);
    assert_false(c->readable);
    expect_input("bye");
    assert_int_equal(w->closed, 0); /* the peer may still read */
}

static void records_are_read_to_the_want(void **state)
{
    (void)state;
    c->transport.ops = &record_ops;
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    send_text("abc");
    turns(2);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    assert_true(c->readable);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    assert_false(c->readable);
}

static void kept_input_grows_with_what_comes(void **state)
{
    (void)state;
    send_text("GET / HT");
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    pn_conn_consume(c, 4);
    assert_int_equal(pn_conn_keep_input(c), 0);
    assert_null(c->scratch);
    assert_int_equal(c->in_capacity, 4); /* exactly */
    expect_input("/ HT");
    assert_int_equal(pn_conn_keep_input(c), 0);
    send_text("TP/1.1\r\n");
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    expect_input("/ HTTP/1.1\r\n");
    assert_int_equal(c->in_capacity, 12);
    /* Byte by byte: the block doubles, and never past the bound. */
    char sent[101] = "/ HTTP/1.1\r\n";
    for (size_t i = 12; i < 100; i++) {
        sent[i] = (char)('a' + i % 26);
        sim_link_send(far_end, &sent[i], 1);
        assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
        assert_true(c->in_capacity <= 100 && c->in_capacity <= 2 * (i + 1));
        expect_input(sent);
    }
    send_text("z");
    assert_int_equal(pn_conn_read(c, 100), PN_IO_ERROR);
    pn_conn_consume(c, 60);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK); /* compacted first */
    assert_int_equal(c->in_capacity, 100);
    pn_conn_consume(c, 41);
    assert_int_equal(c->in_capacity, 0);
    assert_null(c->in_data);
}

static void more_than_a_scratch(void **state)
{
    (void)state;
    static char big[3 * PN_NET_SCRATCH_SIZE];
    for (size_t i = 0; i < sizeof(big); i++)
        big[i] = (char)(i * 7 + i / 251);
    sim_link_send(far_end, big, sizeof(big));
    size_t here = 0;
    while (here < sizeof(big)) {
        assert_int_equal(pn_conn_read(c, sizeof(big)), PN_IO_OK);
        assert_true(pn_conn_input(c).n > here);
        here = pn_conn_input(c).n;
    }
    assert_memory_equal(pn_conn_input(c).p, big, sizeof(big));
    pn_conn_consume(c, sizeof(big) - 10);
    assert_memory_equal(pn_conn_input(c).p, big + sizeof(big) - 10, 10);
}

/* A scratch whose front is used goes on at its end, and then from its front. */
static void a_scratch_is_compacted(void **state)
{
    (void)state;
    static char chunk[40000];
    memset(chunk, 'a', sizeof(chunk));
    sim_link_send(far_end, chunk, sizeof(chunk));
    assert_int_equal(pn_conn_read(c, 50000), PN_IO_OK);
    pn_conn_consume(c, 39990);
    memset(chunk, 'b', sizeof(chunk));
    sim_link_send(far_end, chunk, sizeof(chunk));
    assert_int_equal(pn_conn_read(c, 50000), PN_IO_OK);
    assert_non_null(c->scratch);
    assert_int_equal(pn_conn_input(c).n, 40010);
    assert_int_equal(pn_conn_input(c).p[9], 'a');
    assert_int_equal(pn_conn_input(c).p[10], 'b');
    assert_int_equal(pn_conn_input(c).p[40009], 'b');
}

static void two_readers_have_two_scratches(void **state)
{
    (void)state;
    bool other_freed = false;
    struct sim_link *l2 = sim_link_open(sim);
    struct pn_transport t2 = sim_link_transport(l2);
    struct wire *w2 = new_wire(&t2, net, &other_freed);
    send_text("one");
    sim_link_send(l2, "two", 3);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    assert_int_equal(pn_conn_read(&w2->c, 100), PN_IO_OK);
    assert_ptr_not_equal(c->scratch, w2->c.scratch);
    expect_input("one");
    pn_conn_close(&w2->c, false);
    turns(2);
    assert_true(other_freed);
    sim_link_free(l2);
}

/* --- Ends ------------------------------------------------------------------------------------ */

static void closing_is_two_phase(void **state)
{
    (void)state;
    send_text("abc");
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
    gather_text("lost");
    pn_conn_pin(c);
    pn_conn_pin(c);
    assert_int_equal(pn_net_connections(net), 1);
    pn_conn_close(c, true);
    assert_true(c->dead);
    assert_true(far_end->reset);
    assert_int_equal(far_end->fd, -1);
    assert_int_equal(pn_net_connections(net), 0);
    assert_int_equal(pn_conn_input(c).n, 0);
    pn_conn_close(c, true); /* harmless */
    assert_int_equal(pn_conn_write(c, "x", 1), -EPIPE);
    assert_null(pn_conn_out_reserve(c, 1));
    assert_int_equal(pn_conn_flush(c), PN_IO_ERROR);
    off_t offset = 0;
    assert_int_equal(pn_conn_send_file(c, 0, &offset, 1), -EPIPE);
    pn_conn_unpin(c);
    turns(3);
    assert_false(freed);
    pn_conn_unpin(c);
    assert_false(freed);
    pn_conn_pin(c); /* in the same turn: there and back, and once more */
    pn_conn_unpin(c);
    pn_conn_pin(c);
    turns(3);
    assert_false(freed);
    pn_conn_unpin(c);
    turns(3);
    assert_true(freed);
    expect_sent("");
}

static struct wire kept;
static void keep_and_free(struct pn_conn *conn)
{
    kept = *wire_of(conn);
    *kept.freed = true;
    free(wire_of(conn));
}

static void a_reset_is_told(void **state)
{
    (void)state;
    c->free = keep_and_free;
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    send_text("abc");
    sim_link_break(far_end);
    turns(3);
    assert_true(freed);
    assert_int_equal(kept.closed, 1);
    assert_int_equal(kept.closed_error, ECONNRESET);
    assert_int_equal(kept.readable, 0);
}

static void a_hang_up_lets_the_state_read_first(void **state)
{
    (void)state;
    c->free = keep_and_free;
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    send_text("last words");
    sim_fd_raise(sim, far_end->fd, EPOLLIN | EPOLLRDHUP | EPOLLHUP);
    turns(5);
    assert_true(freed);
    assert_int_equal(kept.readable, 1);
    assert_int_equal(kept.closed, 1);
    assert_int_equal(kept.closed_error, 0);
}

static void an_error_while_flushing_in_the_background_is_told(void **state)
{
    (void)state;
    c->free = keep_and_free;
    fault.fail_at = 1;
    fault.error = EPIPE;
    gather_text("x");
    turns(3);
    assert_true(freed);
    assert_int_equal(kept.closed, 1);
    assert_int_equal(kept.closed_error, EPIPE);
}

static void an_error_in_a_call_is_returned(void **state)
{
    (void)state;
    fault.fail_at = 1;
    fault.error = ECONNRESET;
    assert_int_equal(pn_conn_read(c, 100), PN_IO_ERROR);
    assert_int_equal(c->transport.error, ECONNRESET);
    assert_null(c->scratch);
    fault.op = 0;
    gather_text("x");
    assert_int_equal(pn_conn_flush(c), PN_IO_ERROR);
    fault.op = 0;
    static char big[100000];
    assert_int_equal(pn_conn_write(c, big, sizeof(big)), -EPIPE);
    assert_int_equal(w->closed, 0);
}

static void a_refused_watch_is_an_error(void **state)
{
    (void)state;
    sim_fd_refuse(sim, far_end->fd, ENOSPC);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_ERROR);
    assert_int_equal(c->transport.error, ENOSPC);
}

static struct wire *others[3];
static unsigned visited;
static void close_all(struct pn_conn *conn, void *ctx)
{
    (void)ctx;
    (void)conn;
    visited++;
    for (int i = 0; i < 3; i++)
        pn_conn_close(&others[i]->c, false);
}

static void each_survives_closings(void **state)
{
    (void)state;
    bool flags[3] = {false};
    struct sim_link *links[3];
    for (int i = 0; i < 3; i++) {
        links[i] = sim_link_open(sim);
        struct pn_transport t = sim_link_transport(links[i]);
        others[i] = new_wire(&t, net, &flags[i]);
    }
    visited = 0;
    pn_net_each(net, close_all, NULL); /* the first one closes the rest */
    assert_int_equal(visited, 1);
    assert_int_equal(pn_net_connections(net), 1);
    turns(2);
    for (int i = 0; i < 3; i++) {
        assert_true(flags[i]);
        sim_link_free(links[i]);
    }
}

/* --- Time-outs ------------------------------------------------------------------------------- */

static void sleep_until(int64_t at_ns)
{
    while (pn_loop_next_deadline_ns(loop) <= at_ns)
        pn_loop_step(loop);
    if (sim_now_ns(sim) < at_ns)
        sim_advance(sim, at_ns - sim_now_ns(sim));
    turns(1);
}

static void states_have_their_time_outs(void **state)
{
    (void)state;
    int64_t t0 = sim_now_ns(sim);
    sleep_until(t0 + 5 * PN_NS_PER_SEC);
    pn_conn_touch(c); /* progress */
    sleep_until(t0 + 12 * PN_NS_PER_SEC);
    assert_int_equal(w->timed_out, 0);
    sleep_until(t0 + 16 * PN_NS_PER_SEC);
    assert_int_equal(w->timed_out, 1);
    assert_int_equal(w->timed_out_ns, t0 + 15 * PN_NS_PER_SEC);
    pn_conn_set_state(c, &busy);
    sleep_until(t0 + 1000 * PN_NS_PER_SEC);
    assert_int_equal(w->timed_out, 1);
    pn_conn_set_state(c, &reading);
    sleep_until(t0 + 1011 * PN_NS_PER_SEC);
    assert_int_equal(w->timed_out, 2);
}

static void writing_progress_restarts_its_time_out(void **state)
{
    (void)state;
    int64_t t0 = sim_now_ns(sim);
    sim_link_set_window(far_end, 1);
    gather_text("abc");
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    pn_conn_set_state(c, &writing);
    sleep_until(t0 + 15 * PN_NS_PER_SEC);
    sim_link_take(far_end, 1);
    turns(3);
    sleep_until(t0 + 34 * PN_NS_PER_SEC);
    assert_int_equal(w->timed_out, 0);
    sleep_until(t0 + 36 * PN_NS_PER_SEC);
    assert_int_equal(w->timed_out, 1);
}

/* --- Memory ---------------------------------------------------------------------------------- */

/* A whole exchange in small pieces; returns false when some step failed for want of memory. */
static bool whole_story(void)
{
    static char big[PN_CONN_OUT_HIGH_WATER];
    sim_link_set_window(far_end, 100);
    send_text("part one ");
    if (pn_conn_read(c, 200) != PN_IO_OK || pn_conn_keep_input(c) != 0)
        return false;
    send_text("part two, which is longer than the first");
    if (pn_conn_read(c, 200) != PN_IO_OK)
        return false;
    expect_input("part one part two, which is longer than the first");
    if (pn_conn_read(c, 200) != PN_IO_WANT_READ)
        return false;
    char *p = pn_conn_out_reserve(c, 3000);
    if (!p)
        return false;
    memset(p, 'h', 3000);
    pn_conn_out_commit(c, 3000);
    ssize_t taken = pn_conn_write(c, big, sizeof(big));
    if (taken < 0)
        return false;
    sim_link_set_window(far_end, SIZE_MAX);
    turns(4);
    assert_int_equal(pn_bytes_len(&far_end->to_client), 3000 + (size_t)taken);
    return (size_t)taken == sizeof(big) || w->writable == 1;
}

static void every_allocation_may_fail(void **state)
{
    bool done = false;
    unsigned long nth = 1;
    for (; !done; nth++) {
        pn_mem_fail_at(nth, true);
        done = whole_story();
        pn_mem_fail_at(0, false);
        if (!done) {
            tear_down(state);
            set_up(state);
        }
        assert_true(nth < 50);
    }
    assert_true(nth > 4);
}

/* --- The kernel's sockets -------------------------------------------------------------------- */

static char echoed[1 << 20];
static size_t echoed_len;

static void echo(struct wire *x)
{
    while (pn_conn_may_read(&x->c)) {
        enum pn_io io = pn_conn_read(&x->c, PN_NET_SCRATCH_SIZE);
        if (io != PN_IO_OK)
            return;
        if (x->c.peer_closed) {
            pn_conn_close(&x->c, false);
            return;
        }
        struct pn_str in = pn_conn_input(&x->c);
        memcpy(echoed + echoed_len, in.p, in.n);
        echoed_len += in.n;
        assert_true(pn_conn_write(&x->c, in.p, in.n) == (ssize_t)in.n);
        pn_conn_consume(&x->c, in.n);
    }
}

static void a_socketpair_echoes(void **state)
{
    (void)state;
    struct pn_loop *real = pn_loop_create(pn_poller_epoll_create());
    struct pn_net *real_net = pn_net_create(real, &(struct pn_net_config){0});
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct pn_transport t;
    pn_transport_plain_init(&t, fds[0], true);
    bool gone = false;
    struct wire *x = new_wire(&t, real_net, &gone);
    x->on_readable = echo;
    echo(x); /* as after accept: begins to watch */
    static char sent[200000], got[200000];
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (char)(i * 13 + i / 257);
    size_t out = 0, in = 0;
    echoed_len = 0;
    while (in < sizeof(sent)) {
        if (out < sizeof(sent)) {
            ssize_t n = write(fds[1], sent + out, pn_min_size(5000, sizeof(sent) - out));
            out += n > 0 ? (size_t)n : 0;
        }
        for (int i = 0; i < 4 && in < out; i++) {
            if (echoed_len == in)
                pn_loop_step(real);
            ssize_t n = read(fds[1], got + in, sizeof(got) - in);
            in += n > 0 ? (size_t)n : 0;
            if (n <= 0)
                pn_loop_step(real);
        }
    }
    assert_memory_equal(sent, got, sizeof(sent));
    close(fds[1]);
    while (!gone)
        pn_loop_step(real);
    pn_net_destroy(real_net);
    pn_loop_destroy(real);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        TEST(reading_needs_no_memory_and_no_watch),
        TEST(the_watch_comes_with_the_first_want),
        TEST(a_full_read_leaves_the_edge),
        TEST(an_announced_end_is_read_after_a_short_read),
        TEST(records_are_read_to_the_want),
        TEST(kept_input_grows_with_what_comes),
        TEST(more_than_a_scratch),
        TEST(a_scratch_is_compacted),
        TEST(two_readers_have_two_scratches),
        TEST(closing_is_two_phase),
        TEST(a_reset_is_told),
        TEST(a_hang_up_lets_the_state_read_first),
        TEST(an_error_while_flushing_in_the_background_is_told),
        TEST(an_error_in_a_call_is_returned),
        TEST(a_refused_watch_is_an_error),
        TEST(each_survives_closings),
        TEST(states_have_their_time_outs),
        TEST(writing_progress_restarts_its_time_out),
        TEST(every_allocation_may_fail),
        TEST(a_socketpair_echoes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

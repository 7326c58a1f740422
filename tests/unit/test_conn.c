/* SPDX-License-Identifier: Apache-2.0 */
/* One connection's bytes in and out, on an in-memory link behind a transport that fails to order, and on a socketpair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/mem.h"
#include "net/conn.h"
#include "support/sim_link.h"
#include "support/sim_poller.h"

/* --- A transport that fails to order, in front of a link ----------------------------------------- */

struct fault {
    struct pn_transport inner;
    unsigned op;      /* counts readv, writev, sendfile */
    unsigned fail_at; /* this one answers ERROR */
    int error;        /* with this */
    bool swap_reads;  /* one readv answers WANT_WRITE */
    bool swap_writes; /* one writev answers WANT_READ */
    bool no_sendfile; /* ENOTSUP */
    unsigned writevs; /* with more than one part */
};

static bool fails(struct pn_transport *t)
{
    struct fault *f = t->state;
    if (++f->op != f->fail_at)
        return false;
    t->error = f->error;
    return true;
}

static enum pn_io pass(struct pn_transport *t, enum pn_io io)
{
    t->error = ((struct fault *)t->state)->inner.error;
    return io;
}

static enum pn_io fault_readv(struct pn_transport *t, const struct iovec *iov, int n, size_t *done)
{
    struct fault *f = t->state;
    if (fails(t))
        return PN_IO_ERROR;
    if (f->swap_reads) {
        f->swap_reads = false;
        return PN_IO_WANT_WRITE;
    }
    return pass(t, f->inner.ops->readv(&f->inner, iov, n, done));
}

static enum pn_io fault_writev(struct pn_transport *t, const struct iovec *iov, int n, size_t *done)
{
    struct fault *f = t->state;
    if (fails(t))
        return PN_IO_ERROR;
    if (f->swap_writes) {
        f->swap_writes = false;
        return PN_IO_WANT_READ;
    }
    f->writevs += n > 1;
    return pass(t, f->inner.ops->writev(&f->inner, iov, n, done));
}

static enum pn_io fault_sendfile(struct pn_transport *t, int fd, off_t *offset, size_t n,
                                 size_t *done)
{
    struct fault *f = t->state;
    if (fails(t))
        return PN_IO_ERROR;
    if (f->no_sendfile) {
        t->error = ENOTSUP;
        return PN_IO_ERROR;
    }
    return pass(t, f->inner.ops->sendfile(&f->inner, fd, offset, n, done));
}

static size_t fault_pending(struct pn_transport *t)
{
    struct fault *f = t->state;
    return f->inner.ops->pending(&f->inner);
}

static enum pn_io fault_shutdown(struct pn_transport *t)
{
    struct fault *f = t->state;
    return pass(t, f->inner.ops->shutdown(&f->inner));
}

static void fault_close(struct pn_transport *t, bool reset)
{
    struct fault *f = t->state;
    f->inner.ops->close(&f->inner, reset);
    t->fd = -1;
}

static const struct pn_transport_ops fault_ops = {
    .name = "fault",
    .readv = fault_readv,
    .writev = fault_writev,
    .sendfile = fault_sendfile,
    .pending = fault_pending,
    .shutdown = fault_shutdown,
    .close = fault_close,
    .short_read_drains = true,
};

static const struct pn_transport_ops record_ops = {
    .name = "records",
    .readv = fault_readv,
    .writev = fault_writev,
    .sendfile = fault_sendfile,
    .pending = fault_pending,
    .shutdown = fault_shutdown,
    .close = fault_close,
};

/* --- A wire that only counts --------------------------------------------------------------------- */

struct wire {
    struct pn_conn c;
    unsigned readable, writable, closed, timed_out;
    int closed_error;
    int64_t timed_out_ns;
    bool *freed;
    void (*on_readable)(struct wire *w);
};

static struct wire *wire_of(struct pn_conn *c)
{
    return pn_container_of(c, struct wire, c);
}

static void on_readable(struct pn_conn *c)
{
    struct wire *w = wire_of(c);
    w->readable++;
    if (w->on_readable)
        w->on_readable(w);
}
static void on_writable(struct pn_conn *c)
{
    wire_of(c)->writable++;
}
static void on_closed(struct pn_conn *c, int error)
{
    wire_of(c)->closed++;
    wire_of(c)->closed_error = error;
    pn_conn_close(c, false);
}
static struct sim_poller *sim;
static void on_timed_out(struct pn_conn *c)
{
    wire_of(c)->timed_out++;
    wire_of(c)->timed_out_ns = sim_now_ns(sim);
}

static const struct pn_conn_state reading = {"reading", on_readable,  on_writable,
                                             on_closed, on_timed_out, PN_CONN_TIMER_HEADER};
static const struct pn_conn_state writing = {"writing", on_readable,  on_writable,
                                             on_closed, on_timed_out, PN_CONN_TIMER_WRITE};
static const struct pn_conn_state busy = {"busy",    on_readable,  on_writable,
                                          on_closed, on_timed_out, PN_CONN_TIMER_NONE};

static void free_wire(struct pn_conn *c)
{
    struct wire *w = wire_of(c);
    *w->freed = true;
    free(w);
}

/* --- Setting ------------------------------------------------------------------------------------- */

static struct pn_loop *loop;
static struct pn_net *net;
static struct sim_link *far_end;
static struct fault fault;
static struct wire *w;
static struct pn_conn *c;
static bool freed;

enum { HEADER_S = 10, WRITE_S = 20 };

static struct wire *new_wire(const struct pn_transport *t, struct pn_net *n, bool *freed_flag)
{
    struct wire *x = pn_xcalloc(1, sizeof(*x));
    x->freed = freed_flag;
    x->c.transport = *t;
    pn_conn_init(&x->c, n, &reading, free_wire);
    return x;
}

static int set_up(void **state)
{
    (void)state;
    sim = sim_poller_create();
    loop = pn_loop_create(sim_poller_base(sim));
    const struct pn_net_config config = {
        .header_timeout_ns = HEADER_S * PN_NS_PER_SEC,
        .write_timeout_ns = WRITE_S * PN_NS_PER_SEC,
    };
    net = pn_net_create(loop, &config);
    far_end = sim_link_open(sim);
    fault = (struct fault){.inner = sim_link_transport(far_end)};
    const struct pn_transport t = {.ops = &fault_ops, .fd = far_end->fd, .state = &fault};
    freed = false;
    w = new_wire(&t, net, &freed);
    c = &w->c;
    return 0;
}

/* Some turns without a sleep. */
static void again(struct pn_task *t)
{
    pn_task_post(loop, t);
}
static void turns(int n)
{
    struct pn_task awake;
    struct pn_loop_stats s;
    pn_task_init(&awake, again);
    pn_task_post(loop, &awake);
    pn_loop_stats(loop, &s);
    for (uint64_t end = s.turns + (uint64_t)n; s.turns < end; pn_loop_stats(loop, &s))
        pn_loop_step(loop);
    pn_task_cancel(&awake);
}

static int tear_down(void **state)
{
    (void)state;
    pn_mem_fail_at(0, false);
    if (!freed)
        pn_conn_close(c, false);
    turns(2); /* frees it */
    pn_net_destroy(net);
    pn_loop_destroy(loop);
    assert_true(freed);
    sim_link_free(far_end);
    return 0;
}

static void expect_input(const char *text)
{
    struct pn_str in = pn_conn_input(c);
    assert_int_equal(in.n, strlen(text));
    assert_memory_equal(in.p, text, in.n);
}

static void send_text(const char *text)
{
    sim_link_send(far_end, text, strlen(text));
}

/* --- Input ------------------------------------------------------------------------------------------- */

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

/* --- Output ------------------------------------------------------------------------------------------ */

static void expect_sent(const char *text)
{
    struct pn_str sent = pn_bytes_view(&far_end->to_client);
    assert_int_equal(sent.n, strlen(text));
    assert_memory_equal(sent.p, text, sent.n);
}

static void gather_text(const char *text)
{
    char *p = pn_conn_out_reserve(c, strlen(text));
    assert_non_null(p);
    memcpy(p, text, strlen(text));
    pn_conn_out_commit(c, strlen(text));
}

static void gathered_output_leaves_once_in_the_flush_phase(void **state)
{
    (void)state;
    gather_text("head ");
    assert_int_equal(pn_conn_write(c, "body", 4), 4);
    expect_sent("");
    turns(2);
    expect_sent("head body");
    assert_int_equal(far_end->writes, 1);
    assert_int_equal(w->writable, 0); /* nobody waited */
    assert_null(c->out.data);
}

static void flushing_at_once_leaves_nothing_to_the_turn(void **state)
{
    (void)state;
    gather_text("now");
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    expect_sent("now");
    assert_false(pn_list_linked(&c->flush.node));
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    assert_int_equal(far_end->writes, 1);
    /* The block goes from answer to answer. */
    pn_mem_fail_at(1, true);
    gather_text("and again");
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    assert_int_equal(pn_mem_fail_at(0, false), 0);
}

static void a_slow_peer_is_waited_for(void **state)
{
    (void)state;
    sim_link_set_window(far_end, 4);
    gather_text("0123456789");
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    assert_false(c->writable);
    expect_sent("0123");
    turns(3);
    assert_int_equal(w->writable, 0);
    sim_link_take(far_end, 4);
    turns(2);
    expect_sent("4567");
    assert_int_equal(w->writable, 0);
    sim_link_take(far_end, 4);
    turns(2);
    expect_sent("89");
    assert_int_equal(w->writable, 1); /* empty: the flush that waited is over */
    assert_true(c->writable);
}

static void large_writes_are_not_copied(void **state)
{
    (void)state;
    static char big[1 << 20];
    memset(big, 'x', sizeof(big));
    gather_text("head");
    pn_mem_fail_at(1, true); /* no block may be had: none is needed */
    assert_int_equal(pn_conn_write(c, big, sizeof(big)), sizeof(big));
    pn_mem_fail_at(0, false);
    assert_int_equal(fault.writevs, 1);
    assert_int_equal(far_end->writes, 1);
    assert_int_equal(pn_bytes_len(&far_end->to_client), 4 + sizeof(big));
}

static void the_writer_waits_above_the_high_water_mark(void **state)
{
    (void)state;
    static char big[1 << 20];
    sim_link_set_window(far_end, 1000);
    ssize_t taken = pn_conn_write(c, big, sizeof(big));
    assert_int_equal(taken, 1000 + PN_CONN_OUT_HIGH_WATER);
    assert_true(c->write_blocked);
    assert_int_equal(pn_conn_write(c, big, 1), 0);
    size_t left = PN_CONN_OUT_HIGH_WATER;
    while (left > PN_CONN_OUT_LOW_WATER) {
        assert_int_equal(w->writable, 0);
        sim_link_take(far_end, 1000);
        turns(2);
        left -= 1000;
    }
    assert_int_equal(w->writable, 1);
    assert_false(c->write_blocked);
    sim_link_set_window(far_end, SIZE_MAX);
    turns(2);
    assert_int_equal(pn_bytes_len(&c->out), 0);
    assert_int_equal(w->writable, 1); /* told once */
}

/* A queue that was filled without a try at sending still brings its writer back. */
static void a_blocked_writer_is_told_without_an_edge(void **state)
{
    (void)state;
    static char big[PN_CONN_OUT_HIGH_WATER + 1];
    char *p = pn_conn_out_reserve(c, sizeof(big));
    memcpy(p, big, sizeof(big));
    pn_conn_out_commit(c, sizeof(big));
    c->write_blocked = true; /* as a wire does that found the queue full */
    turns(2);
    assert_int_equal(w->writable, 1);
    p = pn_conn_out_reserve(c, sizeof(big));
    pn_conn_out_commit(c, sizeof(big));
    c->write_blocked = true;
    assert_int_equal(pn_conn_flush(c), PN_IO_OK);
    assert_int_equal(w->writable, 1); /* not from inside */
    turns(2);
    assert_int_equal(w->writable, 2);
}

static int make_file(size_t size)
{
    char name[] = "/tmp/pn_connXXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    char *data = pn_xmalloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 11 + i / 253);
    assert_int_equal(write(fd, data, size), size);
    free(data);
    return fd;
}

static void send_whole_file(size_t size)
{
    int fd = make_file(size);
    off_t offset = 0;
    size_t left = size, calls = 0;
    gather_text("head");
    while (left > 0) {
        ssize_t taken = pn_conn_send_file(c, fd, &offset, left);
        assert_true(taken >= 0 && (size_t)taken <= left);
        left -= (size_t)taken;
        assert_int_equal(offset, size - left);
        if (left > 0) {
            unsigned told = w->writable;
            sim_link_take(far_end, 0);
            for (int i = 0; i < 10 && w->writable == told; i++)
                turns(1);
            assert_int_equal(w->writable, told + 1);
        }
        assert_true(++calls < 1000);
    }
    turns(2);
    assert_int_equal(pn_bytes_len(&c->out), 0);
    assert_int_equal(pn_bytes_len(&far_end->to_client), size + 4);
    const char *sent = pn_bytes_view(&far_end->to_client).p;
    assert_memory_equal(sent, "head", 4);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(sent[4 + i], (char)(i * 11 + i / 253));
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5), -ENODATA);
    close(fd);
}

static void files_by_sendfile(void **state)
{
    (void)state;
    send_whole_file(300000);
}

static void files_by_reading_and_writing(void **state)
{
    (void)state;
    fault.no_sendfile = true;
    send_whole_file(700000);
}

static void a_file_for_a_slow_peer(void **state)
{
    (void)state;
    int fd = make_file(5000);
    off_t offset = 0;
    sim_link_set_window(far_end, 1000);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 5000), 1000);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 4000), 0);
    turns(3);
    assert_int_equal(w->writable, 0);
    sim_link_take(far_end, 600);
    turns(2);
    assert_int_equal(w->writable, 1);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 4000), 600);
    assert_int_equal(offset, 1600);
    sim_link_take(far_end, 1000);
    turns(2);
    gather_text("0123456789"); /* the queue is in the way first */
    sim_link_set_window(far_end, 4);
    assert_int_equal(pn_conn_send_file(c, fd, &offset, 3400), 0);
    expect_sent("0123");
    close(fd);
}

/* --- Wants the other way round ----------------------------------------------------------------------- */

static void a_read_that_wants_to_write(void **state)
{
    (void)state;
    fault.swap_reads = true;
    send_text("x");
    assert_int_equal(pn_conn_read(c, 100), PN_IO_WANT_READ);
    turns(2);
    assert_int_equal(w->readable, 1);
    assert_true(c->readable);
    assert_int_equal(pn_conn_read(c, 100), PN_IO_OK);
}

static void a_write_that_wants_to_read(void **state)
{
    (void)state;
    fault.swap_writes = true;
    gather_text("x");
    assert_int_equal(pn_conn_flush(c), PN_IO_WANT_WRITE);
    turns(2);
    send_text("key");
    turns(3);
    expect_sent("x");
    assert_int_equal(w->writable, 1);
    assert_int_equal(w->readable, 1);
}

/* --- Ends ------------------------------------------------------------------------------------------------- */

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
    pn_conn_pin(c); /* once more, in the same turn */
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

/* --- Time-outs ------------------------------------------------------------------------------------------ */

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

/* --- Memory ------------------------------------------------------------------------------------------- */

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

/* --- The kernel's sockets --------------------------------------------------------------------------- */

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
        TEST(gathered_output_leaves_once_in_the_flush_phase),
        TEST(flushing_at_once_leaves_nothing_to_the_turn),
        TEST(a_slow_peer_is_waited_for),
        TEST(large_writes_are_not_copied),
        TEST(the_writer_waits_above_the_high_water_mark),
        TEST(a_blocked_writer_is_told_without_an_edge),
        TEST(files_by_sendfile),
        TEST(files_by_reading_and_writing),
        TEST(a_file_for_a_slow_peer),
        TEST(a_read_that_wants_to_write),
        TEST(a_write_that_wants_to_read),
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

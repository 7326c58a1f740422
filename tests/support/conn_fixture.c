/* SPDX-License-Identifier: Apache-2.0 */
/* The setting of the connection tests: see conn_fixture.h. */
#include "support/conn_fixture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- A transport that fails to order, in front of a link ------------------------------------- */

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

const struct pn_transport_ops record_ops = {
    .name = "records",
    .readv = fault_readv,
    .writev = fault_writev,
    .sendfile = fault_sendfile,
    .pending = fault_pending,
    .shutdown = fault_shutdown,
    .close = fault_close,
};

/* --- A wire that only counts ----------------------------------------------------------------- */

struct wire *wire_of(struct pn_conn *conn)
{
    return pn_container_of(conn, struct wire, c);
}

static void on_readable(struct pn_conn *conn)
{
    struct wire *x = wire_of(conn);
    x->readable++;
    if (x->on_readable)
        x->on_readable(x);
}
static void on_writable(struct pn_conn *conn)
{
    wire_of(conn)->writable++;
}
static void on_closed(struct pn_conn *conn, int error)
{
    wire_of(conn)->closed++;
    wire_of(conn)->closed_error = error;
    pn_conn_close(c, false);
}
struct sim_poller *sim;
static void on_timed_out(struct pn_conn *conn)
{
    wire_of(conn)->timed_out++;
    wire_of(conn)->timed_out_ns = sim_now_ns(sim);
}

const struct pn_conn_state reading = {"reading", on_readable,  on_writable,
                                      on_closed, on_timed_out, PN_CONN_TIMER_HEADER};
const struct pn_conn_state writing = {"writing", on_readable,  on_writable,
                                      on_closed, on_timed_out, PN_CONN_TIMER_WRITE};
const struct pn_conn_state busy = {"busy",    on_readable,  on_writable,
                                   on_closed, on_timed_out, PN_CONN_TIMER_NONE};

static void free_wire(struct pn_conn *conn)
{
    struct wire *x = wire_of(conn);
    *x->freed = true;
    free(x);
}

/* --- Setting --------------------------------------------------------------------------------- */

struct pn_loop *loop;
struct pn_net *net;
struct sim_link *far_end;
struct fault fault;
struct wire *w;
struct pn_conn *c;
bool freed;

struct wire *new_wire(const struct pn_transport *t, struct pn_net *n, bool *freed_flag)
{
    struct wire *x = pn_xcalloc(1, sizeof(*x));
    x->freed = freed_flag;
    x->c.transport = *t;
    pn_conn_init(&x->c, n, &reading, free_wire);
    return x;
}

int set_up(void **state)
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
void turns(int n)
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

int tear_down(void **state)
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

void expect_input(const char *text)
{
    struct pn_str in = pn_conn_input(c);
    assert_int_equal(in.n, strlen(text));
    assert_memory_equal(in.p, text, in.n);
}

void send_text(const char *text)
{
    sim_link_send(far_end, text, strlen(text));
}

void expect_sent(const char *text)
{
    struct pn_str sent = pn_bytes_view(&far_end->to_client);
    assert_int_equal(sent.n, strlen(text));
    assert_memory_equal(sent.p, text, sent.n);
}

void gather_text(const char *text)
{
    char *p = pn_conn_out_reserve(c, strlen(text));
    assert_non_null(p);
    memcpy(p, text, strlen(text));
    pn_conn_out_commit(c, strlen(text));
}

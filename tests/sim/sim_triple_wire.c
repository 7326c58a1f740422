/* SPDX-License-Identifier: Apache-2.0 */
/* The wire with three exchanges a connection: see sim_triple.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "http/http_status.h"
#include "sim/sim_triple.h"

struct triple;

struct triple_x {
    struct pn_exchange x; /* first */
    struct triple *t;     /* pinned */
    unsigned id;
    char text[32]; /* the request line: method and target */
    struct pn_bytes body;
    bool body_whole;
    bool body_wanted;
    bool out_blocked;
    bool is_bodiless;
    int64_t left; /* announced and not written; -1: nothing announced */
};

struct triple {
    struct pn_conn c; /* first */
    struct sim_world *w;
    struct triple_x *live[SIM_TRIPLE_EXCHANGES];
    struct pn_task gone; /* the transport broke inside a call: tells the exchanges */
    struct pn_peer peer;
};

static bool is_live(const struct triple_x *tx)
{
    return tx->x.state < PN_EXCHANGE_ENDED;
}

static unsigned live_count(const struct triple *t)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES; i++)
        n += t->live[i] != NULL;
    return n;
}

/* The next frame is a request, and there is no place for it. */
static bool is_full(const struct triple *t)
{
    struct pn_str in = pn_conn_input(&t->c);
    return in.n > 0 && in.p[0] == 'Q' && live_count(t) == SIM_TRIPLE_EXCHANGES;
}

/* --- states ----------------------------------------------------------------------------------------------- */

static void on_readable(struct pn_conn *c);
static void on_writable(struct pn_conn *c);
static void on_closed(struct pn_conn *c, int error);
static void on_timed_out(struct pn_conn *c);

#define STATE(name, timer)                                             \
    {                                                                  \
        name, on_readable, on_writable, on_closed, on_timed_out, timer \
    }
static const struct pn_conn_state state_idle = STATE("idle", PN_CONN_TIMER_KEEPALIVE);
static const struct pn_conn_state state_body = STATE("body", PN_CONN_TIMER_BODY);
static const struct pn_conn_state state_writing = STATE("writing", PN_CONN_TIMER_WRITE);
static const struct pn_conn_state state_serving = STATE("serving", PN_CONN_TIMER_NONE);

static void set_state(struct triple *t)
{
    const struct pn_conn_state *state = live_count(t) ? &state_serving : &state_idle;
    if (t->c.dead)
        return;
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES; i++)
        if (t->live[i] && t->live[i]->body_wanted && !is_full(t))
            state = &state_body;
    if (pn_bytes_len(&t->c.out) > 0)
        state = &state_writing;
    if (t->c.state != state)
        pn_conn_set_state(&t->c, state);
}

/* --- the end of exchanges and connections -------------------------------------------------------------------- */

/* The wire lets go of an exchange that is over; its place is another's. */
static void let_go(struct triple_x *tx)
{
    struct triple *t = tx->t;
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES; i++)
        if (t->live[i] == tx)
            t->live[i] = NULL;
    pn_exchange_unpin(&tx->x);
}

static void over(struct triple_x *tx, enum pn_exchange_state state, enum pn_cancel why)
{
    struct triple *t = tx->t;
    tx->x.state = state;
    tx->x.cancel = why;
    tx->body_wanted = tx->out_blocked = false;
    if (!t->c.dead) {
        pn_task_post(t->w->loop, &t->c.resume);
        set_state(t);
    }
    let_go(tx);
}

/* Not from inside a call of the handler's. */
static void cancel_told(struct triple_x *tx, enum pn_cancel why)
{
    struct pn_exchange *x = &tx->x;
    pn_exchange_pin(x);
    over(tx, PN_EXCHANGE_CANCELLED, why);
    if (x->notify)
        x->notify(x, PN_NOTIFY_CANCELLED);
    pn_exchange_unpin(x);
}

static void cancel_all(struct triple *t, enum pn_cancel why)
{
    pn_conn_pin(&t->c);
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES; i++)
        if (t->live[i])
            cancel_told(t->live[i], why);
    pn_conn_unpin(&t->c);
}

static void end(struct triple *t, enum pn_cancel why, bool reset)
{
    pn_conn_pin(&t->c);
    pn_conn_close(&t->c, reset);
    cancel_all(t, why);
    pn_conn_unpin(&t->c);
}

static void on_closed(struct pn_conn *c, int error)
{
    (void)error;
    end((struct triple *)c, PN_CANCEL_CLIENT_GONE, false);
}

static void on_timed_out(struct pn_conn *c)
{
    if (c->state == &state_writing && pn_bytes_len(&c->out) == 0) {
        set_state((struct triple *)c); /* it left in the background */
        return;
    }
    bool idle = c->state == &state_idle;
    end((struct triple *)c, PN_CANCEL_TIMEOUT, !idle);
}

static void on_gone(struct pn_task *task)
{
    struct triple *t = pn_container_of(task, struct triple, gone);
    cancel_all(t, PN_CANCEL_CLIENT_GONE);
    pn_conn_unpin(&t->c);
}

/* The transport broke inside a call for TX, whose return value says it; the others are told later. */
static int broken(struct triple_x *tx)
{
    struct triple *t = tx->t;
    if (!pn_list_linked(&t->gone.node)) {
        pn_conn_pin(&t->c);
        pn_task_post(t->w->loop, &t->gone);
    }
    pn_conn_close(&t->c, true);
    if (is_live(tx))
        over(tx, PN_EXCHANGE_CANCELLED, PN_CANCEL_CLIENT_GONE);
    return -EPIPE;
}

/* --- frames out ------------------------------------------------------------------------------------------------- */

static int put_frame(struct triple_x *tx, char type, const void *payload, size_t n)
{
    char head[16];
    struct pn_conn *c = &tx->t->c;
    snprintf(head, sizeof head, "%c%u%06zu", type, tx->id, n);
    char *p = pn_conn_out_reserve(c, SIM_TRIPLE_HEAD + n);
    if (!p)
        return broken(tx);
    memcpy(p, head, SIM_TRIPLE_HEAD);
    if (n)
        memcpy(p + SIM_TRIPLE_HEAD, payload, n);
    pn_conn_out_commit(c, SIM_TRIPLE_HEAD + n);
    set_state(tx->t);
    return 0;
}

static int t_info(struct pn_exchange *x, unsigned status, const struct pn_field *f, size_t n)
{
    (void)f, (void)n, (void)status;
    struct triple_x *tx = (struct triple_x *)x;
    if (x->state != PN_EXCHANGE_RECEIVED)
        return is_live(tx) ? -EINVAL : -EPIPE;
    return put_frame(tx, 'I', NULL, 0);
}

static int t_head(struct pn_exchange *x, unsigned status, struct pn_str reason,
                  const struct pn_field *fields, size_t count, int64_t length, unsigned flags)
{
    struct triple_x *tx = (struct triple_x *)x;
    char text[32];
    (void)reason, (void)fields, (void)count, (void)flags;
    if (x->state != PN_EXCHANGE_RECEIVED)
        return is_live(tx) ? -EINVAL : -EPIPE;
    tx->is_bodiless = x->is_head || !pn_http_status_has_body((int)status);
    tx->left = tx->is_bodiless ? -1 : length;
    x->status = (uint16_t)status;
    x->state = PN_EXCHANGE_STARTED;
    int n = snprintf(text, sizeof text, "%u %lld", status, (long long)length);
    return put_frame(tx, 'H', text, (size_t)n);
}

/* Room for N bytes of data, or for some; 0: the handler must wait. */
static size_t room(struct triple_x *tx, size_t n)
{
    struct pn_conn *c = &tx->t->c;
    if (pn_bytes_len(&c->out) >= SIM_TRIPLE_OUT_MAX && pn_conn_flush(c) == PN_IO_WANT_WRITE &&
        pn_bytes_len(&c->out) >= SIM_TRIPLE_OUT_MAX) {
        tx->out_blocked = true;
        return 0;
    }
    return pn_min_size(n, SIM_TRIPLE_DATA_MAX);
}

static ssize_t t_write(struct pn_exchange *x, const void *data, size_t n)
{
    struct triple_x *tx = (struct triple_x *)x;
    size_t done = 0;
    if (x->state != PN_EXCHANGE_STARTED)
        return is_live(tx) ? -EINVAL : -EPIPE;
    if (tx->is_bodiless)
        return (ssize_t)n;
    if (tx->left >= 0 && n > (uint64_t)tx->left)
        return -EMSGSIZE;
    while (done < n) {
        size_t part = room(tx, n - done);
        if (part == 0)
            break;
        if (put_frame(tx, 'D', (const char *)data + done, part) < 0)
            return -EPIPE;
        done += part;
    }
    tx->left -= tx->left >= 0 ? (int64_t)done : 0;
    set_state(tx->t);
    return (ssize_t)done;
}

static ssize_t t_send_file(struct pn_exchange *x, int fd, off_t *offset, size_t n)
{
    char part[SIM_TRIPLE_DATA_MAX];
    ssize_t got = pread(fd, part, pn_min_size(n, sizeof part), *offset);
    if (got <= 0)
        return got < 0 ? -errno : -ENODATA;
    ssize_t taken = t_write(x, part, (size_t)got);
    if (taken < 0)
        return taken;
    *offset += taken;
    if ((size_t)taken == (size_t)got && (size_t)got < n) {
        ssize_t more = t_send_file(x, fd, offset, n - (size_t)got);
        return more < 0 ? more : more + taken;
    }
    return taken;
}

static int t_flush(struct pn_exchange *x)
{
    struct triple_x *tx = (struct triple_x *)x;
    if (!is_live(tx))
        return -EPIPE;
    int rc = pn_conn_flush(&tx->t->c) == PN_IO_ERROR ? broken(tx) : 0;
    if (rc == 0)
        set_state(tx->t);
    return rc;
}

static void t_cancel(struct pn_exchange *x, enum pn_cancel why)
{
    struct triple_x *tx = (struct triple_x *)x;
    if (is_live(tx) && put_frame(tx, 'C', NULL, 0) == 0)
        over(tx, PN_EXCHANGE_CANCELLED, why);
}

static int t_end(struct pn_exchange *x, const struct pn_field *trailers, size_t n)
{
    struct triple_x *tx = (struct triple_x *)x;
    (void)trailers, (void)n;
    if (x->state != PN_EXCHANGE_STARTED)
        return is_live(tx) ? -EINVAL : -EPIPE;
    if (tx->left > 0) {
        t_cancel(x, PN_CANCEL_HANDLER);
        return -EMSGSIZE;
    }
    if (put_frame(tx, 'E', NULL, 0) < 0)
        return -EPIPE;
    over(tx, PN_EXCHANGE_ENDED, PN_CANCEL_NONE);
    return 0;
}

static int t_upgrade(struct pn_exchange *x, unsigned status, const struct pn_field *f, size_t n)
{
    (void)x, (void)status, (void)f, (void)n;
    return -EINVAL;
}

static int t_wait_fd(struct pn_exchange *x)
{
    struct triple *t = ((struct triple_x *)x)->t;
    return t->c.dead ? -1 : t->c.transport.fd;
}

static int t_keep(struct pn_exchange *x)
{
    return pn_conn_keep_input(&((struct triple_x *)x)->t->c);
}

/* --- the body ----------------------------------------------------------------------------------------------------- */

static enum pn_body t_body_peek(struct pn_exchange *x, struct pn_str *view)
{
    struct triple_x *tx = (struct triple_x *)x;
    *view = pn_bytes_view(&tx->body);
    if (!is_live(tx))
        return x->state == PN_EXCHANGE_ENDED ? PN_BODY_END : PN_BODY_ERROR;
    if (view->n > 0)
        return PN_BODY_DATA;
    if (tx->body_whole)
        return PN_BODY_END;
    tx->body_wanted = true;
    set_state(tx->t);
    return PN_BODY_AGAIN;
}

static void t_body_consume(struct pn_exchange *x, size_t n)
{
    pn_bytes_consume(&((struct triple_x *)x)->body, n);
}

static void t_release(struct pn_exchange *x)
{
    struct triple_x *tx = (struct triple_x *)x;
    pn_bytes_free(&tx->body);
    pn_conn_unpin(&tx->t->c);
    free(tx);
}

static const struct pn_wire_ops ops = {
    .name = "triple",
    .body_peek = t_body_peek,
    .body_consume = t_body_consume,
    .info = t_info,
    .head = t_head,
    .write = t_write,
    .send_file = t_send_file,
    .flush = t_flush,
    .end = t_end,
    .upgrade = t_upgrade,
    .cancel = t_cancel,
    .wait_fd = t_wait_fd,
    .keep = t_keep,
    .release = t_release,
};

/* --- frames in ------------------------------------------------------------------------------------------------------ */

/* "METHOD TARGET LENGTH a", the last being the authority: LENGTH -1 is unknown, -2 is no body at all. */
static void begin(struct triple *t, unsigned id, struct pn_str line)
{
    struct triple_x *tx = pn_xcalloc(1, sizeof *tx);
    struct pn_exchange *x = &tx->x;
    const char *target = (const char *)memchr(line.p, ' ', line.n) + 1;
    uint32_t at = (uint32_t)(target - line.p);
    unsigned slot = 0;
    tx->t = t;
    tx->id = id;
    tx->left = -1;
    memcpy(tx->text, line.p, pn_min_size(line.n, sizeof tx->text - 1));
    pn_conn_pin(&t->c);
    *x = (struct pn_exchange){.magic = PN_EXCHANGE_MAGIC, .pins = 1, .ops = &ops, .peer = &t->peer};
    x->head_base = tx->text;
    x->method = (struct pn_span){0, at - 1};
    x->target = x->path = (struct pn_span){at, 4};
    x->authority = (struct pn_span){(uint32_t)line.n - 1, 1};
    x->is_head = line.p[0] == 'H';
    x->content_length = strtoll(tx->text + at + 5, NULL, 10);
    x->has_body = x->content_length == -1 || x->content_length > 0;
    if (x->content_length < 0)
        x->content_length = -1;
    x->received_ns = pn_loop_now_ns(t->w->loop);
    tx->body_whole = !x->has_body;
    while (t->live[slot])
        slot++;
    t->live[slot] = tx;
    set_state(t);
    pn_conn_consume(&t->c, SIM_TRIPLE_HEAD + line.n);
    /* This frame may be away for long, and what lies behind may be what another exchange waits for. */
    if (pn_conn_input(&t->c).n > 0 || pn_conn_may_read(&t->c))
        pn_task_post(t->w->loop, &t->c.resume);
    t->w->handler.start(&t->w->handler, x);
}

static void tell_body(struct triple_x *tx)
{
    if (!tx->body_wanted)
        return;
    tx->body_wanted = false;
    set_state(tx->t);
    pn_exchange_pin(&tx->x);
    if (tx->x.notify)
        tx->x.notify(&tx->x, PN_NOTIFY_BODY);
    pn_exchange_unpin(&tx->x);
}

static void take_body(struct triple *t, unsigned id, char type, struct pn_str piece)
{
    struct triple_x *tx = NULL;
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES; i++)
        if (t->live[i] && t->live[i]->id == id)
            tx = t->live[i];
    if (t->c.state == &state_body)
        pn_conn_touch(&t->c);
    if (tx) {
        sim_append(&tx->body, piece.p, piece.n);
        tx->body_whole = type == 'E';
    }
    pn_conn_consume(&t->c, SIM_TRIPLE_HEAD + piece.n);
    if (tx)
        tell_body(tx);
}

/* One frame of the input; false when none is whole, or must wait. Nothing is kept over it. */
static bool take_frame(struct triple *t)
{
    struct pn_str in = pn_conn_input(&t->c);
    if (in.n < SIM_TRIPLE_HEAD || is_full(t))
        return false;
    size_t n = strtoul((char[]){in.p[2], in.p[3], in.p[4], in.p[5], in.p[6], in.p[7], 0}, NULL, 10);
    if (in.n < SIM_TRIPLE_HEAD + n)
        return false;
    struct pn_str payload = {in.p + SIM_TRIPLE_HEAD, n};
    unsigned id = (unsigned)(in.p[1] - '0');
    if (in.p[0] != 'Q') {
        take_body(t, id, in.p[0], payload);
        return true;
    }
    begin(t, id, payload);
    return true;
}

/* No byte will come any more: who waits for one is told so, and when all are over, so is this. */
static void at_end(struct triple *t)
{
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES && !t->c.dead; i++)
        if (t->live[i] && !t->live[i]->body_whole)
            cancel_told(t->live[i], PN_CANCEL_CLIENT_GONE);
    if (!t->c.dead && live_count(t) == 0 && pn_conn_flush(&t->c) != PN_IO_WANT_WRITE)
        pn_conn_close(&t->c, false);
}

/* Reads and works through what comes. Handlers may give the loop away in here, and other frames of the
 * same connection then run above this one. */
static void run(struct triple *t)
{
    struct pn_conn *c = &t->c;
    const bool *follower = &t->w->follower; /* this frame's, once start has returned */
    enum pn_io io = PN_IO_OK;
    while (!c->dead && !*follower && take_frame(t))
        ;
    while (!c->dead && !*follower && io == PN_IO_OK && pn_conn_may_read(c) && !is_full(t)) {
        io = pn_conn_read(c, SIM_TRIPLE_IN_MAX);
        while (io == PN_IO_OK && !c->dead && !*follower && take_frame(t))
            ;
    }
    if (c->dead)
        return;
    if (*follower) /* it must not begin another */
        pn_task_post(t->w->loop, &c->resume);
    if (io == PN_IO_ERROR || pn_conn_keep_input(c) < 0) {
        end(t, PN_CANCEL_CLIENT_GONE, true);
        return;
    }
    if (c->peer_closed && !is_full(t))
        at_end(t);
    if (!c->dead)
        set_state(t);
}

static void on_readable(struct pn_conn *c)
{
    pn_conn_pin(c);
    run((struct triple *)c);
    pn_conn_unpin(c);
}

static void on_writable(struct pn_conn *c)
{
    struct triple *t = (struct triple *)c;
    pn_conn_pin(c);
    set_state(t);
    for (unsigned i = 0; i < SIM_TRIPLE_EXCHANGES; i++) {
        struct triple_x *tx = t->live[i];
        if (!tx || !tx->out_blocked)
            continue;
        tx->out_blocked = false;
        pn_exchange_pin(&tx->x);
        if (tx->x.notify)
            tx->x.notify(&tx->x, PN_NOTIFY_DRAINED);
        pn_exchange_unpin(&tx->x);
    }
    if (!c->dead)
        pn_task_post(t->w->loop, &c->resume);
    pn_conn_unpin(c);
}

static void free_triple(struct pn_conn *c)
{
    struct triple *t = (struct triple *)c;
    if (live_count(t) != 0)
        sim_fail(t->w, "a connection is freed under an exchange");
    t->w->peers_gone++;
    free(t);
}

void sim_triple_adopt(struct sim_world *w, struct sim_link *link)
{
    struct triple *t = pn_xcalloc(1, sizeof *t);
    t->w = w;
    t->c.transport = sim_link_transport(link);
    pn_task_init(&t->gone, on_gone);
    pn_conn_init(&t->c, w->net, &state_idle, free_triple);
    on_readable(&t->c);
}

void sim_triple_check(struct pn_conn *c, void *ctx)
{
    const struct triple *t = (const struct triple *)c;
    const struct sim_world *w = ctx;
    if (c->timer != c->state->timer)
        sim_fail(w, "state %s has another's time-out", c->state->name);
    if (c->timer == PN_CONN_TIMER_NONE && live_count(t) == 0 && !pn_list_linked(&c->resume.node))
        sim_fail(w, "state %s without a request", c->state->name);
    if (c->scratch && w->nested == 0)
        sim_fail(w, "state %s keeps the scratch", c->state->name);
}

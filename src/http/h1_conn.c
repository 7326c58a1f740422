/* SPDX-License-Identifier: Apache-2.0 */
/* A connection's states, and the frame that works through its input: read, take a request, gather
 * its body, start the handler, put the finished exchange away, again.
 *
 * The frame rule (docs/lifecycle.md, 1.5): the handler's start may give the loop away, and come back
 * as a follower. So the frame pins its connection, keeps nothing of it in locals over start, and
 * in_frame says to everybody else that requests of this connection begin here and nowhere else.
 *
 *   READING --head--> [BODY] --> SERVING <--> BODY, WRITING      ended: FLUSHING, DRAINING
 *      ^  ^                         |                                 |
 *      |  +-- byte -- IDLE <--------+---------------------------------+--> LINGERING --> closed */
#include "http/h1_wire.h"

static void on_readable(struct pn_conn *c);
static void on_writable(struct pn_conn *c);
static void on_lingering_writable(struct pn_conn *c);
static void on_serving_readable(struct pn_conn *c);
static void on_serving_writable(struct pn_conn *c);
static void on_flushing_readable(struct pn_conn *c);
static void on_flushing_writable(struct pn_conn *c);

/* Between requests, and while a head comes in. */
const struct pn_conn_state pn__h1_state_reading = {
    "reading",
    on_readable,
    on_writable,
    pn__h1_on_closed,
    pn__h1_on_header_timeout,
    PN_CONN_TIMER_HEADER,
};
const struct pn_conn_state pn__h1_state_idle = {
    "idle",
    on_readable,
    on_writable,
    pn__h1_on_closed,
    pn__h1_on_idle_timeout,
    PN_CONN_TIMER_KEEPALIVE,
};
/* An exchange is under way. BODY: it waits for its body, before or after the handler was called;
 * WRITING: the handler waits for the peer to take bytes; SERVING: neither. */
const struct pn_conn_state pn__h1_state_body = {
    "body",           on_serving_readable,    on_serving_writable,
    pn__h1_on_closed, pn__h1_on_body_timeout, PN_CONN_TIMER_BODY,
};
const struct pn_conn_state pn__h1_state_serving = {
    "serving",        on_serving_readable,    on_serving_writable,
    pn__h1_on_closed, pn__h1_on_last_timeout, PN_CONN_TIMER_NONE,
};
const struct pn_conn_state pn__h1_state_writing = {
    "writing",        on_serving_readable,     on_serving_writable,
    pn__h1_on_closed, pn__h1_on_write_timeout, PN_CONN_TIMER_WRITE,
};
/* The answer is whole and waits for the peer to take it; the next request's body may wait behind it. */
const struct pn_conn_state pn__h1_state_flushing = {
    "flushing",       on_flushing_readable,    on_flushing_writable,
    pn__h1_on_closed, pn__h1_on_write_timeout, PN_CONN_TIMER_WRITE,
};
/* The answer has left; a rest of the request's body that nobody wants is read. */
const struct pn_conn_state pn__h1_state_draining = {
    "draining",         on_readable, on_writable, pn__h1_on_closed, pn__h1_on_last_timeout,
    PN_CONN_TIMER_BODY,
};
const struct pn_conn_state pn__h1_state_lingering = {
    "lingering",      pn__h1_on_lingering,    on_lingering_writable,
    pn__h1_on_closed, pn__h1_on_last_timeout, PN_CONN_TIMER_LINGER,
};

static void set_state(struct pn__h1_conn *hc, const struct pn_conn_state *state)
{
    if (hc->c.state != state)
        pn_conn_set_state(&hc->c, state);
}

/* --- events ------------------------------------------------------------------------------------- */

static void on_readable(struct pn_conn *c)
{
    pn__h1_run(pn__h1_conn_of(c));
}

/* The output took several rounds to leave, and reading has waited for it. */
static void on_writable(struct pn_conn *c)
{
    pn__h1_run(pn__h1_conn_of(c));
}

/* Nobody waits for room. */
static void on_lingering_writable(struct pn_conn *c)
{
    (void)c;
}

/* Tells the handler; it may finish the exchange in here, or drop it. */
static void tell(struct pn__h1_exchange *hx, unsigned why)
{
    struct pn_exchange *x = &hx->x;
    if (!x->notify)
        return;
    pn_exchange_pin(x);
    x->notify(x, why);
    pn_exchange_unpin(x);
}

static void on_serving_readable(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    struct pn__h1_exchange *hx = hc->hx;
    if (!hx || !hx->started || !pn__h1_is_live(hx)) {
        pn__h1_run(hc);
        return;
    }
    unsigned why = 0;
    /* The bytes are read by the handler's next peek, straight to where it wants them. */
    if (hx->body_wanted) {
        hx->body_wanted = false;
        pn__h1_serving_state(hc);
        why = PN_NOTIFY_BODY;
    }
    if (pn_unlikely(c->eof_due && hx->x.tell_end)) {
        hx->x.tell_end = false;
        why |= PN_NOTIFY_PEER_ENDED;
    }
    if (why)
        tell(hx, why);
}

static void on_serving_writable(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    struct pn__h1_exchange *hx = hc->hx;
    if (!hx || !pn__h1_is_live(hx))
        return;
    if (!hx->started) {
        on_writable(c);
        return;
    }
    if (!hx->out_blocked)
        return;
    hx->out_blocked = false;
    pn__h1_serving_state(hc);
    tell(hx, PN_NOTIFY_DRAINED);
}

/* New requests wait until the answers before them were taken; a resume task finds its way here too. */
static void on_flushing_readable(struct pn_conn *c)
{
    if (pn_bytes_len(&c->out) == 0)
        on_flushing_writable(c);
}

static void on_flushing_writable(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    if (pn_bytes_len(&c->out) > 0)
        return;
    if (!hc->closing) {
        pn__h1_run(hc);
        return;
    }
    hc->linger |= c->readable; /* bytes came while the output waited */
    pn__h1_close(hc);
}

void pn__h1_serving_state(struct pn__h1_conn *hc)
{
    const struct pn__h1_exchange *hx = hc->hx;
    if (hc->c.dead)
        return;
    /* A tunnel may be silent for as long as its ends like. */
    if (hx->body_wanted && hx->body != PN__H1_BODY_RAW)
        set_state(hc, &pn__h1_state_body);
    else
        set_state(hc, hx->out_blocked ? &pn__h1_state_writing : &pn__h1_state_serving);
}

/* --- the frame's steps ---------------------------------------------------------------------------- */

static void drop_now(struct pn__h1_conn *hc)
{
    struct pn__h1_exchange *hx = hc->hx;
    hc->hx = NULL;
    /* The handler may keep the object; what it points to is gone. */
    if (hx->x.pins > 1)
        pn__h1_leave_text(hx);
    pn_exchange_unpin(&hx->x);
}

void pn__h1_drop(struct pn__h1_conn *hc)
{
    if (hc->hx && !hc->in_frame)
        drop_now(hc);
}

/* No byte will come any more, and what is here is not enough. */
static enum pn__h1_step at_end(struct pn__h1_conn *hc)
{
    struct pn__h1_exchange *hx = hc->hx;
    if (hx && pn__h1_is_live(hx)) {
        pn__h1_fail(hx, 400, PN_CANCEL_CLIENT_GONE, "body cut short");
    } else if (!hx && pn_conn_input(&hc->c).n > 0) {
        pn__h1_refuse(hc, 400, false, "request cut short");
    } else {
        hc->closing = true;
    }
    return PN__H1_AGAIN;
}

static enum pn__h1_step read_more(struct pn__h1_conn *hc)
{
    struct pn_conn *c = &hc->c;
    if (c->peer_closed)
        return at_end(hc);
    if (!pn__h1_may_read(hc))
        return PN__H1_REST;
    /* The answers so far leave before we look for more to do. */
    if (pn_bytes_len(&c->out) > 0) {
        enum pn_io io = pn_conn_flush(c);
        if (io == PN_IO_ERROR)
            pn__h1_gone(hc, "connection broke");
        if (io != PN_IO_OK)
            return PN__H1_REST;
    }
    enum pn_io io = pn_conn_read(c, pn__h1_read_max(hc));
    if (io == PN_IO_ERROR)
        pn__h1_gone(hc, "connection broke");
    if (io != PN_IO_OK)
        return PN__H1_REST;
    if (c->state == &pn__h1_state_body || c->state == &pn__h1_state_draining)
        pn_conn_touch(c);
    return PN__H1_AGAIN;
}

/* Calls the handler. The loop may have been given away when it returns. */
static enum pn__h1_step start(struct pn__h1_exchange *hx, unsigned *begun)
{
    struct pn__h1_conn *hc = hx->hc;
    struct pn_h1 *h1 = hc->h1;
    hx->started = true;
    ++*begun;
    h1->stats.requests++;
    /* Between requests the state stays what it was: most answers are over when start returns, and
     * in_frame keeps events and time-outs off until then. A handler that waits sets the state for it. */
    if (hc->c.state != &pn__h1_state_idle && hc->c.state != &pn__h1_state_reading)
        pn_conn_set_state(&hc->c, &pn__h1_state_serving);
    h1->handler->start(h1->handler, &hx->x);
    pn__h1_check_time(h1);
    if (pn__h1_is_live(hx))
        return PN__H1_REST;
    if (h1->config.may_continue && !h1->config.may_continue(h1->config.ctx))
        *begun = PN_CONN_REQUESTS_PER_EVENT;
    return PN__H1_AGAIN;
}

/* The connection ends after what is gathered; bytes that may still come are read first, since a
 * close over unread bytes is a reset that can overtake the answer (RFC 9112 9.6). */
static enum pn__h1_step end_connection(struct pn__h1_conn *hc, bool linger)
{
    hc->closing = true;
    hc->linger = linger;
    drop_now(hc);
    return PN__H1_AGAIN;
}

/* True when there is input that nobody will work through. A client that meant to GO_ON may have sent its
 * next request since the last read, however short that was. */
static bool more_is_here(struct pn__h1_conn *hc, bool go_on)
{
    struct pn_conn *c = &hc->c;
    if (pn_conn_input(c).n == 0 && go_on && !c->peer_closed)
        (void)pn_conn_read(c, PN_NET_SCRATCH_SIZE); /* when this broke it, the flush says so */
    return pn_conn_input(c).n > 0;
}

/* The exchange is over: on to the next request, or to the end. */
static enum pn__h1_step put_away(struct pn__h1_exchange *hx)
{
    struct pn__h1_conn *hc = hx->hc;
    struct pn_conn *c = &hc->c;
    if (hc->closing)
        return end_connection(hc, hc->linger);
    if (hc->close_after) {
        bool unread = pn__h1_body_missing(hx) > 0 || c->readable;
        pn__h1_consume_request(hx);
        return end_connection(hc, unread || more_is_here(hc, hx->keep_alive));
    }
    if (pn_bytes_len(&c->out) >= PN_HTTP_PIPELINE_OUT_MAX) {
        enum pn_io io = pn_conn_flush(c);
        if (io == PN_IO_ERROR)
            pn__h1_gone(hc, "connection broke");
        if (io != PN_IO_OK)
            return PN__H1_REST;
    }
    if (pn_unlikely(hx->body != PN__H1_BODY_NONE)) {
        enum pn__h1_discard left = pn__h1_discard_body(hx);
        if (left == PN__H1_DISCARD_NEVER)
            return end_connection(hc, true);
        if (left == PN__H1_DISCARD_MORE)
            return PN__H1_READ;
    }
    pn__h1_consume_request(hx);
    hc->drained = 0;
    drop_now(hc);
    return PN__H1_AGAIN;
}

static enum pn__h1_step go_on(struct pn__h1_exchange *hx, unsigned *begun)
{
    if (!pn__h1_is_live(hx))
        return put_away(hx);
    if (hx->started)
        return PN__H1_REST;
    if (pn_unlikely(hx->body != PN__H1_BODY_NONE)) {
        enum pn__h1_step step = pn__h1_gather_body(hx);
        if (step != PN__H1_AGAIN || !pn__h1_is_live(hx))
            return step;
    }
    return start(hx, begun);
}

/* --- the frame -------------------------------------------------------------------------------------- */

/* The state that a connection without a live exchange rests in. */
static const struct pn_conn_state *resting_state(const struct pn__h1_conn *hc)
{
    if (pn_bytes_len(&hc->c.out) > 0)
        return &pn__h1_state_flushing;
    if (hc->hx)
        return &pn__h1_state_draining;
    if (pn_conn_input(&hc->c).n > 0 || hc->requests == 0)
        return &pn__h1_state_reading;
    return &pn__h1_state_idle;
}

/* A request goes on by itself: from now on its client's leaving is news. Without memory it is found
 * out at the next write. */
static void watch_peer(struct pn__h1_conn *hc)
{
    struct pn_conn *c = &hc->c;
    if (c->watch.fd < 0)
        (void)pn_watch_add(hc->h1->loop, &c->watch, c->transport.fd,
                           EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

/* The frame is over, the connection lives: what is gathered leaves, and a time-out starts. SERVED: a
 * request was begun, so that the time of the state before does not go on. */
static void rest(struct pn__h1_conn *hc, bool served)
{
    struct pn_conn *c = &hc->c;
    if (pn_bytes_len(&c->out) > 0 && pn_conn_flush(c) == PN_IO_ERROR) {
        pn__h1_gone(hc, "connection broke");
        return;
    }
    if (hc->hx && pn__h1_is_live(hc->hx)) {
        if (hc->hx->started) {
            /* Without memory the scratch stays ours until the request is over. */
            (void)pn__h1_keep(&hc->hx->x);
            watch_peer(hc);
            /* The end of the peer came before the handler could ask for that news. */
            if (pn_unlikely(c->eof_due && hc->hx->x.tell_end))
                pn_task_post(hc->h1->loop, &c->resume);
            return;
        }
        /* Its body is read when the answer before was taken: until then the time is not the body's. */
        set_state(hc, pn_bytes_len(&c->out) > 0 ? &pn__h1_state_flushing : &pn__h1_state_body);
    } else {
        const struct pn_conn_state *state = resting_state(hc);
        if (served || c->state != state)
            pn_conn_set_state(c, state);
    }
    if (c->scratch && pn_conn_keep_input(c) < 0)
        pn__h1_gone(hc, "out of memory");
    else if (pn_unlikely(hc->h1->draining) && pn__h1_is_silent(hc) &&
             !pn_timer_is_set(&hc->h1->grace))
        pn_h1_drain(hc->h1);
}

static void run_frame(struct pn__h1_conn *hc)
{
    unsigned begun = 0;
    while (!hc->c.dead) {
        enum pn__h1_step step;
        if (hc->hx) {
            step = go_on(hc->hx, &begun);
        } else if (pn_unlikely(hc->closing)) {
            pn__h1_close(hc);
            return;
        } else if (pn_unlikely(begun >= PN_CONN_REQUESTS_PER_EVENT)) {
            if (pn_conn_input(&hc->c).n > 0 || pn__h1_may_read(hc) || hc->c.peer_closed)
                pn_task_post(hc->h1->loop, &hc->c.resume);
            step = PN__H1_REST;
        } else {
            step = pn__h1_take_request(hc);
        }
        if (step == PN__H1_READ)
            step = read_more(hc);
        if (step == PN__H1_REST)
            break;
    }
    if (!hc->c.dead && !hc->closing)
        rest(hc, begun > 0);
}

void pn__h1_run(struct pn__h1_conn *hc)
{
    if (hc->in_frame || hc->c.dead)
        return;
    pn_conn_pin(&hc->c);
    hc->in_frame = true;
    run_frame(hc);
    hc->in_frame = false;
    if (pn_unlikely(hc->c.dead || hc->closing))
        pn__h1_drop(hc);
    pn_conn_unpin(&hc->c);
}

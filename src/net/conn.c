/* SPDX-License-Identifier: Apache-2.0 */
/* A connection's life: its start, its states and time-outs, the events of its descriptor, its
 * two-phase end. conn_input.c and conn_output.c move its bytes.
 *
 *   init --> open ... events: readable, writable, closed, timed_out (of the state) ...
 *        --> close: dead ... the last pin gone --> freed at the end of the turn
 *
 * An event calls one handler of the state and touches nothing afterwards: the handler may have
 * run the application, and the loop may be another core's by then. What else the event brought
 * is left to the resume task. */
#include "net/conn.h"

#include <errno.h>

#include "net/net_state.h"

#define CONN_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

/* --- Events ----------------------------------------------------------------------------------- */

static void on_closed(struct pn_conn *c, int error)
{
    c->state->closed(c, error);
}

/* Notes what the event says. True when there is something to read that was not known. */
static bool note_event(struct pn_conn *c, uint32_t events)
{
    bool news = false;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) {
        news = !c->peer_closed;
        c->readable = news;
    }
    if (events & (EPOLLRDHUP | EPOLLHUP))
        c->eof_due = true;
    if (events & EPOLLOUT) {
        c->writable = true;
        if (pn_unlikely(c->read_wants_write)) {
            c->read_wants_write = false;
            c->readable = news = true;
        }
    }
    if (pn_unlikely(news && c->write_wants_read)) {
        c->write_wants_read = false;
        c->writable = true;
    }
    return news;
}

static void on_event(struct pn_watch *watch, uint32_t events)
{
    struct pn_conn *c = pn_container_of(watch, struct pn_conn, watch);
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(!c->dead);
    if (pn_unlikely(events & (EPOLLERR | PN_WATCH_CLOSED))) {
        on_closed(c, ECONNRESET);
        return;
    }
    bool news = note_event(c, events);
    if (pn_unlikely((events & EPOLLHUP) && !c->hung_up)) {
        /* Bytes may still be here, so the state may read first; then it is told. */
        c->hung_up = true;
        pn_task_post(c->net->loop, &c->resume);
    }
    if (pn_unlikely(c->writable && (pn_bytes_len(&c->out) > 0 || c->write_blocked))) {
        if (pn__conn_send(c) == PN_IO_ERROR) {
            on_closed(c, c->transport.error);
            return;
        }
        if (pn__conn_writable_due(c)) {
            if (news)
                pn_task_post(c->net->loop, &c->resume);
            c->state->writable(c);
            return;
        }
    }
    if (news)
        c->state->readable(c);
}

static void on_resume(struct pn_task *task)
{
    struct pn_conn *c = pn_container_of(task, struct pn_conn, resume);
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(!c->dead);
    if (pn_unlikely(c->hung_up))
        on_closed(c, 0);
    else
        c->state->readable(c);
}

int pn__conn_watch(struct pn_conn *c)
{
    if (c->watch.fd >= 0)
        return 0;
    return pn_watch_add(c->net->loop, &c->watch, c->transport.fd, CONN_EVENTS);
}

/* --- Start, states --------------------------------------------------------------------------- */

void pn_conn_init(struct pn_conn *c, struct pn_net *net, const struct pn_conn_state *state,
                  void (*free_fn)(struct pn_conn *c))
{
    PN_CHECK_MAGIC(net, PN__NET_MAGIC);
    struct pn_transport transport = c->transport;
    *c = (struct pn_conn){
        .magic = PN_CONN_MAGIC,
        .state = state,
        .net = net,
        .transport = transport,
        .timer = PN_CONN_TIMER_NONE,
        .readable = true,
        .writable = true,
        .free = free_fn,
    };
    pn_watch_init(&c->watch, on_event);
    pn_timeout_init(&c->timeout);
    pn_task_init(&c->flush, pn__conn_flush_run);
    pn_task_init(&c->resume, on_resume);
    pn_list_push_back(&net->all, &c->all);
    net->connections++;
    pn_conn_set_state(c, state);
}

void pn_conn_touch(struct pn_conn *c)
{
    if (c->timer != PN_CONN_TIMER_NONE)
        pn_timeout_start(&c->net->timers[c->timer], &c->timeout);
}

void pn_conn_set_state(struct pn_conn *c, const struct pn_conn_state *state)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(!c->dead);
    PN_ASSERT(state->readable && state->writable && state->closed && state->timed_out);
    PN_ASSERT(state->timer >= 0 && state->timer <= PN_CONN_TIMER_NONE);
    c->state = state;
    if (c->timer != state->timer) {
        pn_timeout_stop(&c->timeout);
        c->timer = state->timer;
    }
    pn_conn_touch(c);
}

/* --- The end --------------------------------------------------------------------------------- */

static void on_free(struct pn_closing *closing)
{
    struct pn_conn *c = pn_container_of(closing, struct pn_conn, closing);
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(c->dead);
    c->freeing = false;
    if (c->pins == 0) /* else it was pinned again, and the last unpin comes back here */
        c->free(c);
}

static void free_later(struct pn_conn *c)
{
    if (c->freeing)
        return;
    c->freeing = true;
    pn_loop_close_later(c->net->loop, &c->closing, on_free);
}

void pn_conn_unpin(struct pn_conn *c)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_BUG_ON(c->pins == 0);
    if (--c->pins == 0 && c->dead)
        free_later(c);
}

void pn_conn_close(struct pn_conn *c, bool reset)
{
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    if (c->dead)
        return;
    c->dead = true;
    c->readable = c->writable = false;
    pn_watch_remove(c->net->loop, &c->watch);
    pn_timeout_stop(&c->timeout);
    c->timer = PN_CONN_TIMER_NONE;
    pn_task_cancel(&c->flush);
    pn_task_cancel(&c->resume);
    c->transport.ops->close(&c->transport, reset);
    pn__conn_input_drop(c);
    pn_bytes_consume(&c->out, pn_bytes_len(&c->out));
    if (c->out.data)
        pn__net_spare_give(c->net, &c->out);
    pn_list_remove(&c->all);
    c->net->connections--;
    if (c->pins == 0)
        free_later(c);
}

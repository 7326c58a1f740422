/* SPDX-License-Identifier: Apache-2.0 */
/* The client side of a simulated connection: see sim_client.h. */
#include "sim/sim_client.h"

#include <stdio.h>

enum {
    SMALL_SENDS_MAX = 60, /* then larger pieces, so that a head comes in its time */
    POLLS_MAX = 20000,    /* 3000 virtual seconds: no handler takes that long */
    HOLDS_MAX = 100000,   /* the same, while it waits for a 100 */
};

static void client_step(void *ctx);

static void again(struct sim_conn *c, int64_t delay_ns)
{
    sim_at(c->world->sim, sim_now_ns(c->world->sim) + delay_ns, client_step, c);
}

static void take(struct sim_conn *c, size_t n)
{
    struct sim_link *l = c->link;
    if (n == 0)
        return;
    sim_say(c->world, "client %u takes %zu", c->number, n);
    sim_append(&c->received, l->to_client.data + l->to_client.start, n);
    sim_link_take(l, n);
    c->polls = 0;
}

static void take_some(struct sim_conn *c)
{
    size_t here = pn_bytes_len(&c->link->to_client);
    if (c->trouble == SIM_TROUBLE_DEAF && c->received.end >= c->trouble_at)
        return;
    if (here && sim_chance(c->world, 20))
        here = 1 + (size_t)sim_random(c->world, here);
    take(c, here);
}

static bool has_come(const struct sim_conn *c, const char *text)
{
    return c->received.data && memmem(c->received.data, c->received.end, text, strlen(text));
}

/* How far the client may send: not the body of a request whose 100 it waits for. */
static size_t allowed(const struct sim_conn *c)
{
    for (unsigned i = 0; i < c->plan_count && c->trouble != SIM_TROUBLE_DEAF; i++) {
        const struct sim_plan *p = &c->plans[i];
        char id[24];
        if (!p->waits || c->sent > p->body_at)
            continue;
        snprintf(id, sizeof id, "X-Id: %u\r\n", p->id);
        /* Only the first that waits, so that any 100 is the one for it. */
        return has_come(c, "HTTP/1.1 100") || has_come(c, id) || c->link->fin ? c->request.end
                                                                              : p->body_at;
    }
    return c->request.end;
}

static size_t piece(struct sim_conn *c)
{
    struct sim_world *w = c->world;
    size_t left = c->request.end - c->sent;
    size_t n = left;
    if (c->small_sends < SMALL_SENDS_MAX && sim_chance(w, 70)) {
        n = 1 + (size_t)sim_random(w, sim_chance(w, 50) ? 5 : 200);
        c->small_sends++;
    } else if (sim_chance(w, 50)) {
        n = 1 + (size_t)sim_random(w, 70000);
    }
    return pn_min_size(pn_min_size(n, left), allowed(c) - c->sent);
}

/* True when the trouble has come that ends the sending. */
static bool send_some(struct sim_conn *c)
{
    size_t n = c->calm ? c->request.end : piece(c);
    bool stops = c->trouble && c->trouble != SIM_TROUBLE_DEAF && c->sent + n >= c->trouble_at;
    if (stops)
        n = c->trouble_at - c->sent;
    sim_say(c->world, "client %u sends %zu%s", c->number, n, stops ? ", then has trouble" : "");
    sim_link_send(c->link, c->request.data + c->sent, n);
    c->sent += n;
    c->sent_ns = n ? sim_now_ns(c->world->sim) : c->sent_ns;
    if (!stops)
        return false;
    sim_say(c->world, "client %u: trouble %u", c->number, c->trouble);
    if (c->trouble == SIM_TROUBLE_RESET)
        sim_link_break(c->link);
    else if (c->trouble == SIM_TROUBLE_CUT)
        sim_link_shutdown(c->link);
    c->shut = true;
    return true;
}

static void client_step(void *ctx)
{
    struct sim_conn *c = ctx;
    struct sim_world *w = c->world;
    struct sim_link *l = c->link;
    if (l->fd < 0) { /* what the server has sent is still to be had */
        take(c, pn_bytes_len(&l->to_client));
        sim_say(w, "client %u finds it closed%s", c->number, l->reset ? " by a reset" : "");
        c->gone = true;
        return;
    }
    take_some(c);
    if (l->fin && pn_bytes_len(&l->to_client) == 0 && !l->eof && !sim_chance(w, 20))
        sim_link_shutdown(l);
    if (!c->shut && c->sent < c->request.end) {
        bool holds = c->sent >= allowed(c);
        if (holds && ++c->polls > HOLDS_MAX)
            sim_fail(w, "connection %u gets no 100", c->number);
        if (!holds)
            send_some(c);
        again(c, !holds && sim_chance(w, 60) ? 0 : (int64_t)sim_random(w, 5 * PN_NS_PER_MS));
        return;
    }
    if (!c->shut && c->shuts_early) {
        c->shut = true;
        sim_link_shutdown(l);
    }
    if (++c->polls > POLLS_MAX)
        sim_fail(w, "connection %u is not closed by anybody", c->number);
    again(c, (int64_t)sim_random(w, 300) * PN_NS_PER_MS);
}

void sim_client_open(struct sim_conn *c)
{
    struct sim_world *w = c->world;
    struct sim_link *l = sim_link_open(w->sim);
    c->link = l;
    c->opened_ns = c->sent_ns = sim_now_ns(w->sim);
    if (c->calm) {
        send_some(c);
        again(c, 0);
        return;
    }
    c->trouble_at = (size_t)sim_random(w, c->request.end + 1);
    if (sim_chance(w, 10))
        l->read_max = 1 + (size_t)sim_random(w, 3000);
    if (sim_chance(w, 20))
        l->write_max = 100 + (size_t)sim_random(w, 5000);
    if (sim_chance(w, 10))
        l->cross_every = 2 + (unsigned)sim_random(w, 10);
    if (sim_chance(w, 30))
        l->window = 1000 + (size_t)sim_random(w, 100000);
    if (c->trouble == SIM_TROUBLE_DEAF) {
        l->window = 1 + (size_t)sim_random(w, 20000);
        c->trouble_at = (size_t)sim_random(w, 2000);
    }
    if (sim_chance(w, 50) && !c->trouble) /* the first request is often there at once */
        send_some(c);
    again(c, 0);
}

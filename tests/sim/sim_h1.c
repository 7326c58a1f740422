/* SPDX-License-Identifier: Apache-2.0 */
/* Simulation of HTTP/1.1: plans as requests, the wire under test, and what holds between any two steps of
 * the loop. sim_model.c judges what came back. */
#include <stdio.h>
#include <stdlib.h>

#include "http/h1_wire.h"
#include "sim/sim_client.h"
#include "sim/sim_model.h"

/* No step of the loop lets more time pass before what was due. */
#define OVERDUE_NS (PN_NS_PER_SEC / 1000)
#define BORN_S     INT64_C(784111777) /* the virtual clock's zero, as real time */

static struct sim_world *world; /* the one there is */
static struct pn_h1 *h1;
static struct pn_timer drain_timer, close_timer;

/* --- requests ------------------------------------------------------------------------------------------- */

static void put(struct pn_bytes *b, const char *text)
{
    sim_append(b, text, strlen(text));
}

static void put_body(struct sim_conn *c, const struct sim_plan *p, size_t from, size_t n)
{
    sim_append(&c->request, sim_text(p, from, false), n);
}

static void render_chunks(struct sim_conn *c, const struct sim_plan *p)
{
    struct sim_world *w = c->world;
    char line[64];
    for (size_t done = 0; done < p->body_size;) {
        size_t n = 1 + (size_t)sim_random(w, p->body_size - done);
        snprintf(line, sizeof line, sim_chance(w, 10) ? "%zx;a=b\r\n" : "%zX\r\n", n);
        put(&c->request, line);
        put_body(c, p, done, n);
        put(&c->request, "\r\n");
        done += n;
    }
    if (p->flaw == SIM_FLAW_CHUNK)
        put(&c->request, SIM_PICK(w, 0, 1) ? "-1\r\n\r\n" : "5\r\nabcdefg\r\n");
    else if (p->flaw == SIM_FLAW_TRAILER)
        put(&c->request, "0\r\nContent-Length: 7\r\n\r\n");
    else
        put(&c->request, sim_chance(w, 80) ? "0\r\n\r\n" : "0\r\nX-Sum: 1\r\n\r\n");
}

static void render(struct sim_conn *c, struct sim_plan *p)
{
    static const char *const before[] = {"", "", "http://b:81"}, *const after[] = {"", "?a=b", ""};
    char line[128];
    struct pn_bytes *b = &c->request;
    if (p->flaw == SIM_FLAW_HEAD) {
        put(b, p->flaw_head);
        return;
    }
    snprintf(line, sizeof line, "%s %s/%u/%u%s HTTP/1.%u\r\nHost: a\r\n", p->method,
             before[p->form], c->number, p->id, after[p->form], p->minor);
    put(b, line);
    if (p->connection)
        put(b, p->connection == 1 ? "Connection: close\r\n" : "Connection: Keep-Alive\r\n");
    for (unsigned i = 0; i < p->headers; i++) {
        snprintf(line, sizeof line, "X-Line-%u: value %u\r\n", i, i);
        put(b, line);
    }
    if (p->body == SIM_BODY_CHUNKED) {
        put(b, "Transfer-Encoding: chunked\r\n");
    } else if (p->body == SIM_BODY_LENGTH) {
        snprintf(line, sizeof line, "Content-Length: %u\r\n", p->body_size);
        put(b, line);
    }
    put(b, p->expect ? "Expect: 100-continue\r\n\r\n" : "\r\n");
    p->body_at = b->end;
    if (p->body == SIM_BODY_CHUNKED)
        render_chunks(c, p);
    else if (p->body == SIM_BODY_LENGTH)
        put_body(c, p, 0, p->body_size);
}

/* --- the world ---------------------------------------------------------------------------------------------- */

/* A refusal of something that never was a request: the peer's address says whose. */
static void note_refusal(struct sim_world *w, const struct pn_access *a)
{
    struct sim_conn *c = &w->conns[a->peer->address[8] - '0'];
    sim_say(w, "%u: log: refused, %u: %s", c->number, a->status, a->error);
    c->refusals++;
    c->refusal_status = a->status;
    c->refusal_size = a->sent_size;
    if (!a->error || a->duration_ns != 0)
        sim_fail(w, "connection %u: a refusal that was logged as a request", c->number);
}

static void on_access(void *ctx, const struct pn_access *a)
{
    struct sim_world *w = ctx;
    int64_t now_s = BORN_S + sim_now_ns(w->sim) / PN_NS_PER_SEC;
    if (a->time_s != now_s && !w->out_of_memory)
        sim_fail(w, "the log is %lld s off", (long long)(a->time_s - now_s));
    if (!a->x) {
        note_refusal(w, a);
        return;
    }
    if (a->x->state < PN_EXCHANGE_ENDED)
        sim_fail(w, "logged before its end");
    if (a->x->path.len == 0 && w->out_of_memory)
        return;
    struct sim_plan *p = sim_find_plan(w, pn_exchange_text(a->x, a->x->path));
    sim_say(w, "%u/%u log: %u, %llu bytes%s%s", p->conn->number, p->id, a->status,
            (unsigned long long)a->sent_size, a->error ? ", " : "", a->error ? a->error : "");
    p->logs++;
    p->log_status = a->status;
    p->log_size = a->sent_size;
    p->log_error = a->error != NULL;
    if ((a->x->state == PN_EXCHANGE_ENDED) == p->log_error)
        sim_fail(w, "connection %u request %u: the log mistakes its end", p->conn->number, p->id);
    /* The loop's clock stands still while events are handled. */
    int64_t most_ns = sim_now_ns(w->sim) - p->conn->opened_ns;
    int64_t least_ns = p->started ? sim_now_ns(w->sim) - p->started_ns : 0;
    if (a->duration_ns < least_ns || a->duration_ns > most_ns)
        sim_fail(w, "connection %u request %u: took %lld ns?", p->conn->number, p->id,
                 (long long)a->duration_ns);
}

static bool may_continue(void *ctx)
{
    return !((struct sim_world *)ctx)->follower;
}

static int64_t real_ns(void *ctx)
{
    return BORN_S * PN_NS_PER_SEC + sim_now_ns(((struct sim_world *)ctx)->sim);
}

static void on_drain(struct pn_timer *timer)
{
    (void)timer;
    sim_say(world, "drain");
    world->drained_ns = sim_now_ns(world->sim);
    pn_h1_drain(h1);
}

static void on_close_all(struct pn_timer *timer)
{
    (void)timer;
    sim_say(world, "close all");
    world->closed_all = true;
    pn_h1_close_all(h1);
    if (pn_net_connections(world->net) > 0)
        sim_fail(world, "close_all leaves a connection");
}

static void end_at(struct pn_timer *timer, void (*fire)(struct pn_timer *), int64_t span_ms)
{
    pn_timer_init(timer, fire);
    if (pn_timer_set(world->loop, timer, pn_loop_now_ns(world->loop) + span_ms * PN_NS_PER_MS) < 0)
        sim_fail(world, "no memory for a timer");
}

static void create(struct sim_world *w)
{
    const struct pn_h1_config config = {
        .body_size_max = (int64_t)w->body_limit,
        .body_buffer_size = w->body_buffer,
        .keepalive_requests_max = w->requests_max,
        .server_header = "sim",
        .on_access = on_access,
        .may_continue = may_continue,
        .real_ns = real_ns,
        .ctx = w,
    };
    h1 = pn_h1_create(w->net, &config, &w->handler);
    world = w;
    w->one_at_a_time = true;
    if (sim_chance(w, 10))
        end_at(&drain_timer, on_drain, (int64_t)sim_random(w, 100));
    if (sim_chance(w, 5))
        end_at(&close_timer, on_close_all, (int64_t)sim_random(w, 200));
}

static void connect_client(struct sim_conn *c)
{
    struct pn_peer peer = {.address = "192.0.2.", .address_len = 9};
    peer.address[8] = (char)('0' + c->number);
    for (unsigned i = 0; i < c->plan_count; i++)
        render(c, &c->plans[i]);
    sim_client_open(c);
    struct pn_transport t = sim_link_transport(c->link);
    pn_h1_adopt(h1, &t, &peer, NULL);
}

/* Between two steps: no state without its time-out, nobody left behind. */
static void check_conn(struct sim_world *w, const struct pn__h1_conn *hc)
{
    const struct pn_conn *c = &hc->c;
    unsigned number = (unsigned)(hc->peer.address[8] - '0');
    if (w->conns[number].in_start > 0 && !(hc->in_frame && hc->hx))
        sim_fail(w, "connection %u: an exchange is gone under its frame", number);
    if (c->dead)
        return;
    if (c->timer != c->state->timer)
        sim_fail(w, "state %s has another's time-out", c->state->name);
    if (c->timer != PN_CONN_TIMER_NONE && !pn_list_linked(&c->timeout.node))
        sim_fail(w, "state %s has no time-out", c->state->name);
    int64_t late_ns = sim_now_ns(w->sim) - c->timeout.deadline_ns;
    if (c->timer != PN_CONN_TIMER_NONE && late_ns > OVERDUE_NS)
        sim_fail(w, "the time-out of state %s is %lld ns overdue", c->state->name,
                 (long long)late_ns);
    if (hc->in_frame)
        return;
    if (c->timer == PN_CONN_TIMER_NONE && !hc->hx)
        sim_fail(w, "state %s without a request", c->state->name);
    if (hc->hx && !pn__h1_is_live(hc->hx) && !pn_list_linked(&c->resume.node) &&
        c->state != &pn__h1_state_flushing && c->state != &pn__h1_state_draining)
        sim_fail(w, "an exchange is over in state %s and nobody goes on", c->state->name);
    if (c->scratch && !(hc->hx && w->out_of_memory) && w->nested == 0)
        sim_fail(w, "state %s keeps the scratch", c->state->name);
}

static void check_world(struct sim_world *w)
{
    struct pn_list *pos;
    pn_list_for_each(pos, &h1->all) check_conn(w, pn_list_entry(pos, struct pn__h1_conn, node));
}

static void destroy(struct sim_world *w)
{
    if (pn_h1_connections(h1) != 0 || h1->exchanges.in_use != 0 || h1->conns.in_use != 0)
        sim_fail(w, "%zu connections, %zu exchanges are left", h1->conns.in_use,
                 h1->exchanges.in_use);
    pn_h1_destroy(h1);
}

int main(int argc, char **argv)
{
    static const struct sim_wire wire = {
        .name = "sim_h1",
        .create = create,
        .connect = connect_client,
        .check = check_world,
        .judge = sim_h1_judge,
        .destroy = destroy,
    };
    return sim_main(argc, argv, &wire);
}

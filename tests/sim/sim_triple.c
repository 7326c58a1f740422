/* SPDX-License-Identifier: Apache-2.0 */
/* Simulation of a wire with three exchanges a connection: plans as interleaved frames, and what must have come
 * back for each. */
#include "sim/sim_triple.h"

#include <stdio.h>
#include <stdlib.h>

#include "sim/sim_client.h"

/* --- requests ------------------------------------------------------------------------------------------- */

static void put_frame(struct pn_bytes *b, char type, unsigned id, const void *payload, size_t n)
{
    char head[16];
    snprintf(head, sizeof head, "%c%u%06zu", type, id, n);
    sim_append(b, head, SIM_TRIPLE_HEAD);
    if (n)
        sim_append(b, payload, n);
}

static void put_request(struct sim_conn *c, const struct sim_plan *p)
{
    char line[64];
    int length = p->body == SIM_BODY_LENGTH ? (int)p->body_size : p->body ? -1 : -2;
    int n = snprintf(line, sizeof line, "%s /%u/%u %d a", p->method, c->number, p->id, length);
    put_frame(&c->request, 'Q', p->id, line, (size_t)n);
}

/* A piece of P's body, or its end; true when that was the end. */
static bool put_body(struct sim_conn *c, const struct sim_plan *p, uint32_t *done)
{
    struct sim_world *w = c->world;
    size_t n = p->body_size - *done;
    if (n == 0) {
        put_frame(&c->request, 'E', p->id, NULL, 0);
        return true;
    }
    n = 1 + (size_t)sim_random(w, pn_min_size(n, SIM_TRIPLE_DATA_MAX));
    put_frame(&c->request, 'B', p->id, sim_text(p, *done, false), n);
    *done += (uint32_t)n;
    return false;
}

/* Frames of several requests in turn. At most two bodies are under way when a new request comes: one of three
 * exchanges that fill the connection can then end without what lies behind that request. */
static void render(struct sim_conn *c)
{
    struct sim_world *w = c->world;
    unsigned under_way[SIM_TRIPLE_EXCHANGES], count = 0, next = 0;
    uint32_t done[SIM_PLANS_MAX] = {0};
    while (next < c->plan_count || count > 0) {
        if (next < c->plan_count && count < SIM_TRIPLE_EXCHANGES &&
            (count == 0 || sim_chance(w, 50))) {
            const struct sim_plan *p = &c->plans[next];
            put_request(c, p);
            if (p->body == SIM_BODY_CHUNKED || p->body_size > 0)
                under_way[count++] = next;
            next++;
            continue;
        }
        unsigned which = (unsigned)sim_random(w, count);
        const struct sim_plan *p = &c->plans[under_way[which]];
        if (put_body(c, p, &done[p->id]))
            under_way[which] = under_way[--count];
    }
}

static void adapt(struct sim_plan *p)
{
    p->flaw = SIM_FLAW_NONE;
    p->expect = p->waits = false;
    p->form = 0;
    p->minor = 1;
    p->connection = 0;
}

static void connect_client(struct sim_conn *c)
{
    c->calm = false;
    render(c);
    sim_client_open(c);
    sim_triple_adopt(c->world, c->link);
}

static void create(struct sim_world *w)
{
    (void)w;
}

static void check_world(struct sim_world *w)
{
    pn_net_each(w->net, sim_triple_check, w);
}

/* --- the model ------------------------------------------------------------------------------------------- */

struct answer {
    size_t size;
    bool headed;
    bool hinted;
    bool over;
    bool whole;
};

static PN_NORETURN void wrong(const struct sim_conn *c, unsigned id, const char *what)
{
    sim_fail(c->world, "connection %u answer %u: %s", c->number, id, what);
}

static void judge_head(const struct sim_plan *p, struct pn_str payload)
{
    char want[32];
    long long length = p->length == SIM_LENGTH_KNOWN ? (long long)p->answer_size : -1;
    int n = snprintf(want, sizeof want, "%u %lld", p->status, length);
    if (!pn_str_eq(payload, (struct pn_str){want, (size_t)n}))
        wrong(p->conn, p->id, "another head");
}

static void judge_frame(const struct sim_plan *p, struct answer *a, char type,
                        struct pn_str payload)
{
    const struct sim_conn *c = p->conn;
    if (!p->started || a->over)
        wrong(c, p->id, "a frame for a request that is not under way");
    if ((type == 'I' || type == 'H') == a->headed && type != 'C')
        wrong(c, p->id, "a frame out of its order");
    switch (type) {
    case 'I':
        if (!p->info || a->hinted)
            wrong(c, p->id, "103 that nobody sent");
        a->hinted = true;
        break;
    case 'H':
        judge_head(p, payload);
        a->headed = true;
        break;
    case 'D':
        if (sim_bodiless(p) || a->size + payload.n > p->answer_size)
            wrong(c, p->id, "too many bytes");
        if (memcmp(payload.p, sim_text(p, a->size, true), payload.n) != 0)
            wrong(c, p->id, "a wrong byte");
        a->size += payload.n;
        break;
    case 'E':
        a->over = a->whole = true;
        if (a->size != (sim_bodiless(p) ? 0 : p->answer_size))
            wrong(c, p->id, "a piece passed for the whole");
        break;
    case 'C':
        a->over = true;
        if (p->ending == SIM_END_PROPER && !c->world->out_of_memory)
            wrong(c, p->id, "cancelled without a reason");
        break;
    default:
        wrong(c, p->id, "an unknown frame");
    }
}

static void judge(struct sim_conn *c)
{
    struct answer answers[SIM_PLANS_MAX] = {0};
    bool disrupted = c->trouble || c->world->out_of_memory;
    const char *at = c->received.data;
    for (size_t left = c->received.end; left > 0;) {
        char digits[7] = {0};
        size_t n = SIM_TRIPLE_DATA_MAX + 1;
        if (left >= SIM_TRIPLE_HEAD) {
            memcpy(digits, at + 2, 6);
            n = strtoul(digits, NULL, 10);
        }
        if (left < SIM_TRIPLE_HEAD + n) {
            if (!disrupted)
                wrong(c, c->plan_count, "a frame that is cut");
            break;
        }
        unsigned id = (unsigned)(at[1] - '0');
        if (id >= c->plan_count)
            wrong(c, id, "an answer to a request that nobody sent");
        judge_frame(&c->plans[id], &answers[id], at[0], (struct pn_str){at + SIM_TRIPLE_HEAD, n});
        at += SIM_TRIPLE_HEAD + n;
        left -= SIM_TRIPLE_HEAD + n;
    }
    for (unsigned i = 0; i < c->plan_count && !disrupted; i++) {
        if (!answers[i].over)
            wrong(c, i, "no answer, or not all of it");
        if (answers[i].whole == c->plans[i].was_cancelled)
            wrong(c, i, "the handler and the client differ");
    }
}

static void destroy(struct sim_world *w)
{
    (void)w;
}

int main(int argc, char **argv)
{
    static const struct sim_wire wire = {
        .name = "sim_triple",
        .create = create,
        .connect = connect_client,
        .check = check_world,
        .judge = judge,
        .destroy = destroy,
        .adapt = adapt,
    };
    return sim_main(argc, argv, &wire);
}

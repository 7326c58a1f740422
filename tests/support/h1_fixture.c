/* SPDX-License-Identifier: Apache-2.0 */
/* The fixture of the HTTP/1.1 tests: see h1_fixture.h. */
#include "support/h1_fixture.h"

#include <stdlib.h>

#include "base/bounds.h"
#include "base/check.h"
#include "base/mem.h"

static void on_start(struct pn_handler *h, struct pn_exchange *x)
{
    struct h1_fixture *f = (struct h1_fixture *)h;
    f->starts++;
    x->handler = f;
    x->notify = f->notify;
    if (f->start)
        f->start(f, x);
    else
        h1_fixture_reply(x, 200, "hello\n");
}

static void on_peer_gone(struct pn_handler *h, struct pn_peer *peer)
{
    (void)peer;
    ((struct h1_fixture *)h)->peers_gone++;
}

static void on_access(void *ctx, const struct pn_access *a)
{
    struct h1_fixture *f = ctx;
    if (f->accesses < H1_FIXTURE_SEEN_MAX) {
        f->seen[f->accesses].status = a->status;
        f->seen[f->accesses].error = a->error;
        f->seen[f->accesses].sent_size = a->sent_size;
        f->seen[f->accesses].duration_ns = a->duration_ns;
        f->seen[f->accesses].had_exchange = a->x != NULL;
    }
    f->accesses++;
}

static bool may_continue(void *ctx)
{
    return ((struct h1_fixture *)ctx)->may_continue;
}

static int64_t real_ns(void *ctx)
{
    struct h1_fixture *f = ctx;
    /* 1994-11-06 08:49:37 UTC when the virtual clock starts. */
    return (INT64_C(784111776) * PN_NS_PER_SEC) + sim_now_ns(f->sim);
}

void h1_fixture_init(struct h1_fixture *f)
{
    *f = (struct h1_fixture){.handler = {.start = on_start, .peer_gone = on_peer_gone}};
    f->may_continue = true;
    f->config = (struct pn_h1_config){
        .head_size_max = PN_HTTP_HEAD_SIZE_DEFAULT,
        .target_size_max = PN_HTTP_TARGET_SIZE_DEFAULT,
        .line_size_max = PN_HTTP_LINE_SIZE_DEFAULT,
        .headers_max = PN_HTTP_HEADERS_DEFAULT,
        .body_size_max = PN_HTTP_BODY_MAX_DEFAULT,
        .body_buffer_size = PN_HTTP_BODY_BUFFER_DEFAULT,
        .server_header = "pelton",
        .on_access = on_access,
        .may_continue = may_continue,
        .real_ns = real_ns,
        .ctx = f,
    };
    f->times = (struct pn_net_config){
        .header_timeout_ns = PN_HTTP_HEADER_TIMEOUT_MS * PN_NS_PER_MS,
        .body_timeout_ns = PN_HTTP_BODY_TIMEOUT_MS * PN_NS_PER_MS,
        .keepalive_timeout_ns = PN_HTTP_KEEPALIVE_TIMEOUT_MS * PN_NS_PER_MS,
        .write_timeout_ns = PN_HTTP_WRITE_TIMEOUT_MS * PN_NS_PER_MS,
        .linger_timeout_ns = PN_HTTP_LINGER_TIMEOUT_MS * PN_NS_PER_MS,
    };
}

void h1_fixture_open(struct h1_fixture *f)
{
    f->sim = sim_poller_create();
    f->loop = pn_loop_create(sim_poller_base(f->sim));
    f->net = pn_net_create(f->loop, &f->times);
    f->h1 = pn_h1_create(f->net, &f->config, &f->handler);
}

void h1_fixture_close(struct h1_fixture *f)
{
    pn_h1_close_all(f->h1);
    h1_fixture_run(f);
    PN_BUG_ON(f->kept != NULL);
    PN_BUG_ON(pn_h1_connections(f->h1) != 0);
    PN_BUG_ON(pn_net_connections(f->net) != 0);
    pn_h1_destroy(f->h1);
    pn_net_destroy(f->net);
    pn_loop_destroy(f->loop);
}

struct sim_link *h1_fixture_connect(struct h1_fixture *f, const char *first)
{
    struct sim_link *l = sim_link_open(f->sim);
    struct pn_transport t = sim_link_transport(l);
    struct pn_peer peer = {.address = "192.0.2.1", .address_len = 9, .port = 4711};
    if (first)
        sim_link_send(l, first, strlen(first));
    pn_h1_adopt(f->h1, &t, &peer, NULL);
    return l;
}

void h1_fixture_send(struct h1_fixture *f, struct sim_link *l, const char *text)
{
    sim_link_send(l, text, strlen(text));
    h1_fixture_run(f);
}

struct pause {
    struct sim_poller *sim;
    bool over;
};

static void on_pause_over(void *ctx)
{
    struct pause *p = ctx;
    struct pn_poller *base = sim_poller_base(p->sim);
    p->over = true;
    base->wake(base);
}

static void run_for(struct h1_fixture *f, int64_t ns)
{
    struct pause p = {.sim = f->sim};
    sim_at(f->sim, sim_now_ns(f->sim) + ns, on_pause_over, &p);
    while (!p.over)
        pn_loop_step(f->loop);
    /* The turn that began with the pause's end: time-outs of this very moment, closings. */
    while (pn_loop_has_work(f->loop))
        pn_loop_step(f->loop);
}

void h1_fixture_run(struct h1_fixture *f)
{
    run_for(f, 1);
}

void h1_fixture_advance(struct h1_fixture *f, int64_t ms)
{
    run_for(f, ms * PN_NS_PER_MS);
}

const char *h1_fixture_output(struct sim_link *l)
{
    static char text[1 << 22];
    size_t n = pn_min_size(pn_bytes_len(&l->to_client), sizeof text - 1);
    if (n)
        memcpy(text, l->to_client.data + l->to_client.start, n);
    text[n] = '\0';
    return text;
}

const char *h1_fixture_answer(struct h1_fixture *f, struct sim_link *l)
{
    h1_fixture_run(f);
    const char *text = h1_fixture_output(l);
    sim_link_take(l, pn_bytes_len(&l->to_client));
    return text;
}

static void note(struct pn_exchange *x, unsigned why)
{
    struct h1_fixture *f = x->handler;
    f->notified |= why;
    f->cancels += (why & PN_NOTIFY_CANCELLED) != 0;
}

void h1_fixture_keep(struct h1_fixture *f, struct pn_exchange *x)
{
    PN_BUG_ON(f->kept != NULL);
    pn_exchange_pin(x);
    if (!x->notify)
        x->notify = note;
    f->kept = x;
    f->notified = 0;
}

void h1_fixture_drop(struct h1_fixture *f)
{
    struct pn_exchange *x = f->kept;
    f->kept = NULL;
    pn_exchange_unpin(x);
}

void h1_fixture_reply(struct pn_exchange *x, unsigned status, const char *body)
{
    const struct pn_field fields[] = {{PN_STR("Content-Type"), PN_STR("text/plain")}};
    size_t n = strlen(body);
    PN_BUG_ON(pn_exchange_head(x, status, PN_STR_NONE, fields, 1, (int64_t)n, 0) < 0);
    PN_BUG_ON(pn_exchange_write(x, body, n) != (ssize_t)n);
    PN_BUG_ON(pn_exchange_end(x, NULL, 0) < 0);
}

void h1_fixture_echo(struct h1_fixture *f, struct pn_exchange *x)
{
    static char body[1 << 20];
    struct pn_str view;
    size_t n = 0;
    (void)f;
    while (pn_exchange_body_peek(x, &view) == PN_BODY_DATA) {
        PN_BUG_ON(n + view.n > sizeof body);
        memcpy(body + n, view.p, view.n);
        n += view.n;
        pn_exchange_body_consume(x, view.n);
    }
    PN_BUG_ON(pn_exchange_head(x, 200, PN_STR_NONE, NULL, 0, (int64_t)n, 0) < 0);
    PN_BUG_ON(pn_exchange_write(x, body, n) != (ssize_t)n);
    PN_BUG_ON(pn_exchange_end(x, NULL, 0) < 0);
}

void h1_fixture_start_later(struct h1_fixture *f, struct pn_exchange *x)
{
    h1_fixture_keep(f, x);
}

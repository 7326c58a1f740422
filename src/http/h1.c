/* SPDX-License-Identifier: Apache-2.0 */
/* The wire as a whole: making and ending it, taking connections in, draining, figures, and what
 * changes once a second. One wire a worker and handler; everything needs the loop's ownership. */
#include "http/h1.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "http/h1_wire.h"
#include "http/http_token.h"

const struct pn_wire_ops pn__h1_ops = {
    .name = "http/1.1",
    .body_peek = pn__h1_body_peek,
    .body_consume = pn__h1_body_consume,
    .info = pn__h1_info,
    .head = pn__h1_head,
    .write = pn__h1_write,
    .send_file = pn__h1_send_file,
    .flush = pn__h1_flush,
    .end = pn__h1_end,
    .upgrade = pn__h1_upgrade,
    .cancel = pn__h1_cancel,
    .wait_fd = pn__h1_wait_fd,
    .keep = pn__h1_keep,
    .fetch = pn__h1_fetch,
    .release = pn__h1_release,
};

/* --- making and ending ------------------------------------------------------------------------- */

/* Idle connections have had their grace. */
static void on_grace_over(struct pn_timer *timer)
{
    struct pn_h1 *h1 = pn_container_of(timer, struct pn_h1, grace);
    struct pn_list *pos, *tmp;
    pn_list_for_each_safe(pos, tmp, &h1->all)
    {
        struct pn__h1_conn *hc = pn_list_entry(pos, struct pn__h1_conn, node);
        if (pn__h1_is_silent(hc) && !hc->in_frame)
            pn_conn_close(&hc->c, false);
    }
}

static void init_limits(struct pn_h1 *h1)
{
    const struct pn_h1_config *config = &h1->config;
    pn_h1_limits_init(&h1->limits);
    if (config->head_size_max)
        h1->limits.head_max =
            (uint32_t)pn_min_size(config->head_size_max, PN_HTTP_HEAD_SIZE_HARD_MAX);
    if (config->target_size_max)
        h1->limits.target_max = (uint32_t)pn_min_size(config->target_size_max, h1->limits.head_max);
    if (config->line_size_max)
        h1->limits.line_max = (uint32_t)pn_min_size(config->line_size_max, h1->limits.head_max);
    if (config->headers_max)
        h1->limits.headers_max =
            (uint32_t)pn_min_size(config->headers_max, PN_HTTP_HEADERS_HARD_MAX);
}

struct pn_h1 *pn_h1_create(struct pn_net *net, const struct pn_h1_config *config,
                           struct pn_handler *handler)
{
    struct pn_h1 *h1 = pn_xcalloc(1, sizeof *h1);
    h1->net = net;
    h1->loop = pn_net_loop(net);
    h1->handler = handler;
    h1->config = *config;
    init_limits(h1);
    h1->headers = pn_xcalloc(h1->limits.headers_max, sizeof *h1->headers);
    pn_pool_init(&h1->conns, sizeof(struct pn__h1_conn), PN__H1_POOL_KEEP);
    pn_pool_init(&h1->exchanges, sizeof(struct pn__h1_exchange), PN__H1_POOL_KEEP);
    pn_list_init(&h1->all);
    pn_timer_init(&h1->grace, on_grace_over);

    struct pn_str server = pn_str_of(config->server_header);
    /* The administrator's own text: one that would break the head is not sent at all. */
    if (server.n > 0 && server.n < sizeof h1->server && pn_http_is_field_value(server)) {
        memcpy(h1->server, server.p, server.n);
        h1->config.server_header = h1->server;
        memcpy(h1->lines, "Server: ", 8);
        memcpy(h1->lines + 8, server.p, server.n);
        memcpy(h1->lines + 8 + server.n, "\r\n", 2);
        h1->server_line_len = (uint32_t)server.n + 10;
    } else {
        h1->config.server_header = NULL;
    }
    pn__h1_new_second(h1);
    return h1;
}

void pn_h1_destroy(struct pn_h1 *h1)
{
    if (!h1)
        return;
    PN_BUG_ON(h1->connections != 0);
    pn_timer_cancel(h1->loop, &h1->grace);
    pn_pool_drain(&h1->conns);
    pn_pool_drain(&h1->exchanges);
    free(h1->headers);
    free(h1);
}

void pn__h1_new_second(struct pn_h1 *h1)
{
    int64_t real_ns = h1->config.real_ns ? h1->config.real_ns(h1->config.ctx) : pn_clock_real_ns();
    char *line = h1->lines + h1->server_line_len;
    h1->time_s = real_ns / PN_NS_PER_SEC;
    h1->second_ends_ns = pn_loop_now_ns(h1->loop) + PN_NS_PER_SEC - real_ns % PN_NS_PER_SEC;
    memcpy(line, "Date: ", 6);
    pn_http_date_format(h1->time_s, line + 6);
    memcpy(line + 6 + PN_HTTP_DATE_LEN, "\r\n", 2);
    h1->date_line_len = 6 + PN_HTTP_DATE_LEN + 2;
}

/* --- connections -------------------------------------------------------------------------------- */

static void free_conn(struct pn_conn *c)
{
    struct pn__h1_conn *hc = pn__h1_conn_of(c);
    struct pn_h1 *h1 = hc->h1;
    PN_BUG_ON(hc->hx != NULL);
    if (h1->handler->peer_gone)
        h1->handler->peer_gone(h1->handler, &hc->peer);
    pn_list_remove(&hc->node);
    h1->connections--;
    pn_pool_put(&h1->conns, hc);
}

void pn_h1_adopt(struct pn_h1 *h1, const struct pn_transport *transport, const struct pn_peer *peer,
                 struct pn_listener *listener)
{
    struct pn__h1_conn *hc = pn_pool_get(&h1->conns);
    if (!hc) {
        struct pn_transport refused = *transport;
        refused.ops->close(&refused, true);
        return;
    }
    hc->c.transport = *transport;
    pn_conn_init(&hc->c, h1->net, &pn__h1_state_reading, free_conn);
    hc->c.listener = listener;
    hc->c.is_unix = peer->is_unix;
    hc->h1 = h1;
    hc->hx = NULL;
    hc->scanned = 0;
    hc->requests = 0;
    hc->drained = 0;
    hc->in_frame = false;
    hc->close_after = false;
    hc->closing = false;
    hc->linger = false;
    hc->peer = *peer;
    hc->peer.listener = listener;
    hc->peer.handler_cache = NULL;
    pn_list_init(&hc->node);
    pn_list_push_back(&h1->all, &hc->node);
    h1->connections++;
    h1->stats.accepted++;
    pn__h1_run(hc);
}

/* inet_ntop's dotted quad, which new connections are many enough to want cheap. */
static size_t format_ipv4(const uint8_t *quad, char *out)
{
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        unsigned v = quad[i];
        if (v >= 100)
            out[n++] = (char)('0' + v / 100);
        if (v >= 10)
            out[n++] = (char)('0' + v / 10 % 10);
        out[n++] = (char)('0' + v % 10);
        out[n++] = '.';
    }
    out[n - 1] = '\0';
    return n - 1;
}

static void describe_peer(struct pn_peer *peer, const struct pn_accepted *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    peer->address[0] = '\0';
    peer->address_len = 0;
    peer->port = 0;
    peer->is_unix = false;
    peer->trusted = false;
    peer->handler_cache = NULL;
    if (a->peer.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&a->peer;
        peer->address_len =
            (uint16_t)format_ipv4((const uint8_t *)&in->sin_addr.s_addr, peer->address);
        peer->port = ntohs(in->sin_port);
    } else if (a->peer.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&a->peer;
        const uint8_t *bytes = in6->sin6_addr.s6_addr;
        peer->port = ntohs(in6->sin6_port);
        if (memcmp(bytes, mapped, sizeof mapped) == 0)
            peer->address_len = (uint16_t)format_ipv4(bytes + 12, peer->address);
        else if (inet_ntop(AF_INET6, bytes, peer->address, sizeof peer->address))
            peer->address_len = (uint16_t)strlen(peer->address);
    } else {
        peer->is_unix = true;
    }
}

void pn_h1_accept(struct pn_h1 *h1, const struct pn_accepted *accepted)
{
    struct pn_peer peer;
    struct pn_transport transport;
    describe_peer(&peer, accepted);
    if (h1->config.is_trusted)
        peer.trusted = h1->config.is_trusted(
            h1->config.ctx, (const struct sockaddr *)&accepted->peer, accepted->peer_len);
    pn_transport_plain_init(&transport, accepted->fd, peer.is_unix);
    pn_h1_adopt(h1, &transport, &peer, accepted->listener);
}

/* --- the end -------------------------------------------------------------------------------------- */

void pn_h1_drain(struct pn_h1 *h1)
{
    h1->draining = true;
    /* Without memory for the timer there is no grace. */
    if (pn_timer_set(h1->loop, &h1->grace,
                     pn_loop_now_ns(h1->loop) + PN_H1_DRAIN_GRACE_MS * PN_NS_PER_MS) < 0)
        on_grace_over(&h1->grace);
}

void pn_h1_close_all(struct pn_h1 *h1)
{
    struct pn_list *pos, *tmp;
    h1->draining = true;
    pn_timer_cancel(h1->loop, &h1->grace);
    pn_list_for_each_safe(pos, tmp, &h1->all)
    {
        struct pn__h1_conn *hc = pn_list_entry(pos, struct pn__h1_conn, node);
        /* A handler's notify may end other exchanges, but memory stays to the end of the turn. */
        pn_conn_pin(&hc->c);
        if (hc->hx && pn__h1_is_live(hc->hx))
            pn__h1_cancelled(hc->hx, PN_CANCEL_SHUTDOWN, "server stopped");
        pn__h1_end_now(hc, hc->hx && hc->hx->framing == PN__H1_FRAMING_CLOSE);
        pn_conn_unpin(&hc->c);
    }
}

size_t pn_h1_connections(const struct pn_h1 *h1)
{
    return h1->connections;
}

void pn_h1_stats(const struct pn_h1 *h1, struct pn_h1_stats *out)
{
    *out = h1->stats;
}

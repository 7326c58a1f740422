/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of one worker as a whole: time-out classes, the list of all, shared buffers.
 * Made before the first connection, destroyed after the last. */
#include <stdlib.h>

#include "base/mem.h"
#include "net/net_state.h"

static void on_expired(struct pn_timeout *timeout)
{
    struct pn_conn *c = pn_container_of(timeout, struct pn_conn, timeout);
    PN_CHECK_MAGIC(c, PN_CONN_MAGIC);
    PN_ASSERT(!c->dead);
    c->state->timed_out(c);
}

struct pn_net *pn_net_create(struct pn_loop *loop, const struct pn_net_config *config)
{
    struct pn_net *net = pn_xcalloc(1, sizeof(*net));
    const int64_t spans[PN_CONN_TIMER_NONE] = {
        [PN_CONN_TIMER_HEADER] = config->header_timeout_ns,
        [PN_CONN_TIMER_BODY] = config->body_timeout_ns,
        [PN_CONN_TIMER_KEEPALIVE] = config->keepalive_timeout_ns,
        [PN_CONN_TIMER_WRITE] = config->write_timeout_ns,
        [PN_CONN_TIMER_LINGER] = config->linger_timeout_ns,
    };
    net->magic = PN__NET_MAGIC;
    net->loop = loop;
    pn_list_init(&net->all);
    for (int i = 0; i < PN_CONN_TIMER_NONE; i++)
        pn_timeout_class_init(&net->timers[i], loop, spans[i], on_expired);
    return net;
}

void pn_net_destroy(struct pn_net *net)
{
    PN_CHECK_MAGIC(net, PN__NET_MAGIC);
    PN_ASSERT(net->connections == 0 && pn_list_empty(&net->all));
    for (int i = 0; i < PN_CONN_TIMER_NONE; i++)
        pn_timeout_class_fini(&net->timers[i]);
    while (net->scratches) {
        struct pn_scratch *next = net->scratches->next;
        free(net->scratches);
        net->scratches = next;
    }
    while (net->spare_count > 0)
        pn_bytes_free(&net->spares[--net->spare_count]);
    net->magic = 0;
    free(net);
}

struct pn_loop *pn_net_loop(struct pn_net *net)
{
    return net->loop;
}

size_t pn_net_connections(const struct pn_net *net)
{
    return net->connections;
}

void pn_net_each(struct pn_net *net, void (*fn)(struct pn_conn *c, void *ctx), void *ctx)
{
    /* FN may close any of them, and accept new ones, which are not visited. */
    struct pn_list todo;
    struct pn_list *node;
    pn_list_init(&todo);
    pn_list_splice_back(&todo, &net->all);
    while ((node = pn_list_pop_front(&todo))) {
        pn_list_push_back(&net->all, node);
        fn(pn_list_entry(node, struct pn_conn, all), ctx);
    }
}

struct pn_scratch *pn__net_scratch_get(struct pn_net *net)
{
    struct pn_scratch *scratch = net->scratches;
    if (pn_unlikely(!scratch))
        return pn_try_malloc(sizeof(*scratch));
    net->scratches = scratch->next;
    net->scratches_free--;
    return scratch;
}

void pn__net_scratch_put(struct pn_net *net, struct pn_scratch *scratch)
{
    if (net->scratches_free >= PN__NET_SCRATCHES_KEEP) {
        free(scratch);
        return;
    }
    scratch->next = net->scratches;
    net->scratches = scratch;
    net->scratches_free++;
}

void pn__net_spare_give(struct pn_net *net, struct pn_bytes *out)
{
    PN_ASSERT(pn_bytes_len(out) == 0);
    if (out->capacity > PN__NET_SPARE_SIZE_MAX || net->spare_count == PN__NET_SPARES_KEEP) {
        pn_bytes_free(out);
        return;
    }
    net->spares[net->spare_count++] = *out;
    pn_bytes_init(out);
}

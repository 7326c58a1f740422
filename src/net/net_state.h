/* SPDX-License-Identifier: Apache-2.0 */
/* What one worker's connections share; private to src/net. All of it belongs to the loop's
 * owner. */
#pragma once

#include "base/bounds.h"
#include "base/check.h"
#include "net/conn.h"

enum {
    PN__NET_MAGIC = 0x4e455420,
    PN__NET_SCRATCHES_KEEP = 4, /* more are in use only while the watchdog steals */
    PN__NET_SPARES_KEEP = 16,   /* output blocks that wait for the next answer */
    PN__NET_SPARE_SIZE_MAX = 64 * 1024,
};

struct pn_scratch {
    struct pn_scratch *next; /* free ones only */
    char data[PN_NET_SCRATCH_SIZE];
};

struct pn_net {
    unsigned magic;
    struct pn_loop *loop;
    struct pn_timeout_class timers[PN_CONN_TIMER_NONE];
    struct pn_list all;
    size_t connections;
    struct pn_scratch *scratches; /* free */
    size_t scratches_free;
    struct pn_bytes spares[PN__NET_SPARES_KEEP];
    size_t spare_count;
};

/* Borrowed until put back; NULL without memory. */
struct pn_scratch *pn__net_scratch_get(struct pn_net *net);
void pn__net_scratch_put(struct pn_net *net, struct pn_scratch *scratch);
/* An empty queue gets a block that another one has left, and leaves it: idle connections hold
 * none. */
static inline void pn__net_spare_take(struct pn_net *net, struct pn_bytes *out)
{
    if (!out->data && net->spare_count > 0)
        *out = net->spares[--net->spare_count];
}
void pn__net_spare_give(struct pn_net *net, struct pn_bytes *out);

/* --- conn.c --- */

/* Registers the fd, once. 0 or negative errno. */
int pn__conn_watch(struct pn_conn *c);

/* --- conn_input.c --- */

/* Gives scratch or block back: nothing is unused any more. */
void pn__conn_input_drop(struct pn_conn *c);

/* --- conn_output.c --- */

/* Sends the queue. OK: it is empty. WANT_WRITE: the watch is armed. */
enum pn_io pn__conn_send(struct pn_conn *c);
/* True when state->writable is due after output has left; it counts as called then. */
bool pn__conn_writable_due(struct pn_conn *c);
void pn__conn_flush_run(struct pn_task *task);

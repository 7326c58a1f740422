/* SPDX-License-Identifier: Apache-2.0 */
/* A wire of the test's own with three exchanges a connection, under way at once and answered in whatever order
 * they come to an end: what stands above the seam, and net below it, must not know the difference. Its frames:
 *
 *   TYPE ID LENGTH(6 digits) PAYLOAD     client: Q request, B body, E end of the body
 *                                        server: I interim, H head, D data, E end, C cancelled
 *
 * A fourth request waits in the input until one of the three is over. */
#pragma once

#include "sim/sim_world.h"

enum {
    SIM_TRIPLE_EXCHANGES = 3,
    SIM_TRIPLE_HEAD = 8,        /* type, id, length */
    SIM_TRIPLE_DATA_MAX = 4000, /* payload of one frame */
    SIM_TRIPLE_IN_MAX = 16384,
    SIM_TRIPLE_OUT_MAX = 16384, /* above: the writer waits */
};

/* A connection over LINK, in W's net; reads at once. */
void sim_triple_adopt(struct sim_world *w, struct sim_link *link);
/* For pn_net_each, with the world as CTX: what holds between two steps. */
void sim_triple_check(struct pn_conn *c, void *ctx);

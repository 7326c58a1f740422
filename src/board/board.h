/* SPDX-License-Identifier: Apache-2.0 */
/* The scoreboard: one slot for each worker process, in memory that all processes share.
 *
 * Made before the first fork and inherited; the worker that a slot belongs to is its only writer,
 * anybody may read. Every field is a relaxed atomic: a reader sees each figure whole, and a set of
 * them that may be one turn apart. Slots lie on cache lines of their own, so that two workers never
 * write to the same one. The memory goes with the last process that maps it. */
#pragma once

#include "base/defs.h"

struct pn_board;

enum pn_board_state {
    PN_BOARD_EMPTY = 0,    /* no worker has had this slot yet */
    PN_BOARD_STARTING = 1, /* forked; loads the application, or opens its loop */
    PN_BOARD_READY = 2,    /* takes connections */
    PN_BOARD_STOPPING = 3, /* takes none any more; requests under way finish */
    PN_BOARD_ENDED = 4,    /* ended by itself; a worker that was killed stays what it was */
};

/* What a worker counts; all of them only grow. */
struct pn_board_figures {
    uint64_t accepted;     /* connections */
    uint64_t requests;     /* heads that were whole and well-formed */
    uint64_t bad_requests; /* refused by the wire */
    uint64_t cancelled;    /* the client left, or a time-out ended it */
    uint64_t waits;        /* a core waited */
    uint64_t hand_overs;   /* fiber switches, baton hand-overs */
};

/* A slot as somebody reads it. */
struct pn_board_view {
    int pid; /* 0: empty */
    enum pn_board_state state;
    int64_t started_ns; /* monotonic */
    struct pn_board_figures figures;
};

/* COUNT slots, 1..PN_WORKERS_MAX, all empty. NULL with errno set (ENOMEM). */
struct pn_board *pn_board_create(unsigned count);
/* Unmaps it in this process only. NULL is fine. */
void pn_board_destroy(struct pn_board *board);
unsigned pn_board_count(const struct pn_board *board);

/* The worker's side. SLOT is below the count. start clears what the last worker left there. */
void pn_board_start(struct pn_board *board, unsigned slot, int pid, int64_t now_ns);
void pn_board_set_state(struct pn_board *board, unsigned slot, enum pn_board_state state);
void pn_board_publish(struct pn_board *board, unsigned slot,
                      const struct pn_board_figures *figures);

/* Anybody's side. */
void pn_board_read(const struct pn_board *board, unsigned slot, struct pn_board_view *out);
/* How many slots stand in STATE. */
unsigned pn_board_count_state(const struct pn_board *board, enum pn_board_state state);
const char *pn_board_state_name(enum pn_board_state state);

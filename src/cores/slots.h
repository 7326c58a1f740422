/* SPDX-License-Identifier: Apache-2.0 */
/* Run slots: how many threads may be on their way back to CPython at once.
 *
 * A thousand threads that wake together sit in the GIL's timed waits; a short FIFO before it costs less
 * (docs: findings, 56 us a request without, 35 with two slots). A slot is advice: waiting for one is
 * bounded, because its holder may want a lock that a queued core holds; whoever waits gives it back.
 * What is bounded is the standstill: while the queue moves, its members keep their places, or a burst of a
 * thousand would time out together and be the crowd that this is against. */
#pragma once

#include "base/list.h"
#include "cores/sys.h"

struct pn__slots {
    struct pn__lock lock;
    unsigned free_count;
    unsigned queued;
    unsigned grants;      /* how many were handed over, ever: the queue moves */
    struct pn_list queue; /* of pn__slot, first come first served */
};

enum pn__slot_grant {
    PN__SLOT_QUEUED = 0,
    PN__SLOT_HAD = 1,
    PN__SLOT_SPARED = 2, /* it may go on without one */
};

/* One core's place; embedded in it. */
struct pn__slot {
    struct pn_list node;
    _Atomic uint32_t granted; /* enum pn__slot_grant; also what its thread sleeps on */
    bool held;                /* its own thread only */
};

enum { PN__SLOTS_AHEAD = 32 };

void pn__slots_init(struct pn__slots *s, unsigned count);
void pn__slot_init(struct pn__slot *slot);
/* Waits until nothing has moved for SPAN_NS (longer by the same for each PN__SLOTS_AHEAD in front, so that
 * those far behind don't wake to look). Harmless when held already. True: SLOT is held now. Any
 * thread, for its own slot. */
bool pn__slots_get(struct pn__slots *s, struct pn__slot *slot, int64_t span_ns);
/* Gives it to the next in the queue. Harmless when not held. */
void pn__slots_put(struct pn__slots *s, struct pn__slot *slot);
/* Takes the first off the queue, for the baton instead of a slot; NULL: nobody queues. It sleeps on until
 * pn__slots_release, and then its pn__slots_get has returned false. */
struct pn__slot *pn__slots_pop(struct pn__slots *s);
void pn__slots_release(struct pn__slot *slot);

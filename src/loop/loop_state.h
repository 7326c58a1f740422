/* SPDX-License-Identifier: Apache-2.0 */
/* What a loop consists of: private to src/loop. Everything but the atomic fields belongs to the
 * loop's owner. A turn's whole state is here, so that any core can go on with it.
 *
 * A step function (pn__*_step) does one unit and returns true, or returns false when its source
 * is empty. It settles all bookkeeping before it calls back, and touches the loop no more
 * afterwards: the callback may have given the loop away. */
#pragma once

#include <stdatomic.h>

#include "base/bounds.h"
#include "base/check.h"
#include "loop/loop.h"

enum { PN__LOOP_MAGIC = 0x4c4f4f50 };

enum pn__turn_phase {
    PN__TURN_RESUMED = 0,
    PN__TURN_EVENTS = 1,
    PN__TURN_TIMERS = 2,
    PN__TURN_HOME = 3,
    PN__TURN_ACCEPT = 4,
    PN__TURN_FLUSH = 5,
    PN__TURN_CLOSE = 6,
    PN__TURN_SLEEP = 7,
};

/* A deadline that has passed for certain: wait looks only, and reads no clock for it. */
#define PN__LOOK_NS INT64_MIN

/* heap_pos of a timer that stands in the line. */
#define PN__TIMER_IN_LINE SIZE_MAX

/* One descriptor. The watches on it form a ring without a head, so that the table may move. */
struct pn__fd {
    struct pn_watch *first;
    uint32_t generation;    /* new each time that the first watch comes */
    uint32_t kernel_events; /* as told to the poller last */
    uint32_t waiters;       /* watches in the ring */
    bool registered;        /* the poller knows it, as far as we were told */
    bool armed;             /* false: one-shot and fired */
};

struct pn__heap_slot {
    int64_t deadline_ns;
    struct pn_timer *timer;
};

struct pn_loop {
    unsigned magic;
    enum pn__turn_phase phase;
    unsigned phase_done; /* units in this phase, for its budget */
    int event_count;
    int event_pos;
    unsigned event_left; /* watches of the event at event_pos still to be asked; 0: not begun */
    unsigned looks;      /* waits in a row that only looked */
    size_t look_in;      /* sleeps until one is tried without such a reason */
    size_t look_pause;   /* what look_in begins with: more after each look for nothing */
    bool busy;           /* the last wait brought several events: look before sleeping */
    bool dead;           /* child of a fork */

    struct pn_poller *poller;
    int64_t now_ns;
    int64_t sleep_deadline_ns; /* while sleeping: an earlier one must wake it */

    struct pn__fd *fds;
    size_t fd_count;
    size_t watches;

    struct pn__heap_slot *heap;
    size_t heap_count;
    size_t heap_capacity;
    struct pn_list line; /* of timers, by deadline */
    size_t line_count;
    uint64_t timer_sequence;

    struct pn_list fired; /* watches that are off; events holds what to call them with */
    struct pn_list tasks; /* posted; the next turn's */
    struct pn_list tasks_now;
    struct pn_list flushes;
    struct pn_list flushes_now;
    struct pn_list closings;
    struct pn_message *messages; /* taken from the inbox, in the order of sending */

    struct pn_phase_handler handlers[PN_PHASE_HANDLERS];
    struct pn_sleep_hooks hooks;
    void (*turn_over)(void *ctx);
    void *turn_over_ctx;
    struct pn_loop_stats stats; /* but wakes */

    /* Any thread, and signal handlers. */
    _Atomic(struct pn_message *) inbox; /* last sent first */
    atomic_bool sleeping;
    atomic_bool stopping;
    atomic_bool signalled;
    _Atomic uint64_t wakes;

    struct epoll_event events[PN_TURN_EVENTS_MAX];
};

/* Ends the sleep if there is one that nobody has ended yet. Any thread. */
void pn__loop_wake(struct pn_loop *loop);

/* After work was put on a list: the owner may be on a loan while the runner sleeps. */
static inline void pn__loop_nudge(struct pn_loop *loop)
{
    if (pn_unlikely(atomic_load_explicit(&loop->sleeping, memory_order_relaxed)))
        pn__loop_wake(loop);
}

bool pn__watch_step(struct pn_loop *loop);
bool pn__watch_fired_step(struct pn_loop *loop);
bool pn__timer_step(struct pn_loop *loop);
bool pn__task_step(struct pn_list *list);
bool pn__closing_step(struct pn_loop *loop);
bool pn__message_step(struct pn_loop *loop);
bool pn__signal_step(struct pn_loop *loop);
void pn__signal_after_fork_child(void);

/* Moves what has arrived in the inbox to messages, in the order of sending. */
void pn__message_collect(struct pn_loop *loop);

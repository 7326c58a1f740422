/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop of one worker: descriptors, timers, tasks, wake-ups, signals, and the turn.
 *
 * Nobody runs the loop by itself: whoever owns it (src/cores: the baton) calls pn_loop_step, one
 * unit of work a call. All state of a turn (fetched events, position, counters) is in the loop
 * and not on a C stack, so the next owner goes on in the middle of a turn that another core
 * began.
 *
 *   turn:  RESUMED -> EVENTS -> TIMERS -> HOME -> ACCEPT -> FLUSH -> SLEEP
 *          messages,  one event  due      asyncio  <= 64    output,   epoll
 *          tasks      a step     timers   <= 64             closings
 *
 * Every function needs the loop's ownership, except the two that say "any thread". A callback
 * may do anything to the loop, also remove the watch, timer or task that it was called for;
 * memory that a callback wants to free goes through pn_loop_close_later, which frees at the end
 * of the turn. */
#pragma once

#include <sys/epoll.h>

#include "base/list.h"

struct pn_loop;

/* --- Where time and events come from ---------------------------------------------------------- */

/* The real one is epoll(7) and CLOCK_MONOTONIC (pn_poller_epoll_create); the simulation brings a
 * virtual clock and in-memory descriptors. All functions return 0 or negative errno. */
struct pn_poller {
    int64_t (*now_ns)(struct pn_poller *poller);
    /* As epoll_ctl ADD, MOD, DEL; TOKEN comes back in epoll_event.data.u64. */
    int (*add)(struct pn_poller *poller, int fd, uint32_t events, uint64_t token);
    int (*modify)(struct pn_poller *poller, int fd, uint32_t events, uint64_t token);
    int (*remove)(struct pn_poller *poller, int fd);
    /* Waits until DEADLINE_NS of now_ns (PN_NEVER_NS: for ever; the past: looks only). Returns the
     * number of events, 0 on time-out, a wake or a signal. */
    int (*wait)(struct pn_poller *poller, struct epoll_event *events, int max, int64_t deadline_ns);
    /* What wait does before it waits: for who polls FD instead. May be NULL. */
    void (*settle)(struct pn_poller *poller);
    /* Any thread, also a signal handler (async-signal-safe): ends a wait now or the next one. */
    void (*wake)(struct pn_poller *poller);
    /* The descriptor whose readability means "wait would return", for poll(2) beside another one;
     * -1 where there is none. */
    int (*fd)(struct pn_poller *poller);
    void (*destroy)(struct pn_poller *poller);
    /* Child of a fork: closes the descriptors without touching the set, which is shared. */
    void (*after_fork_child)(struct pn_poller *poller);
};

/* NULL with errno set when epoll or eventfd cannot be had. Owned by the loop once given to it. */
struct pn_poller *pn_poller_epoll_create(void);

/* --- The loop and its turn -------------------------------------------------------------------- */

/* Owns POLLER. Aborts without memory. */
struct pn_loop *pn_loop_create(struct pn_poller *poller);
/* Every watch, timer and task must be gone; what waits in close_later is freed. */
void pn_loop_destroy(struct pn_loop *loop);

enum pn_step {
    PN_STEP_AGAIN = 0,   /* one unit of work was done, or the loop has slept */
    PN_STEP_STOPPED = 1, /* pn_loop_stop was called: nothing was done */
};

/* One unit of work. A callback may not come back for long (another core runs the loop meanwhile):
 * callers hold nothing of the loop's over this call. */
enum pn_step pn_loop_step(struct pn_loop *loop);

/* Every pn_loop_step from now on returns PN_STEP_STOPPED, until pn_loop_resume. Any thread. */
void pn_loop_stop(struct pn_loop *loop);
void pn_loop_resume(struct pn_loop *loop);
bool pn_loop_stopping(const struct pn_loop *loop);

/* Called around a wait that may sleep: here the owner offers the baton and gives the GIL back.
 * after_sleep returns with the ownership had again. Not called for a look without waiting. */
struct pn_sleep_hooks {
    void (*before_sleep)(void *ctx);
    void (*after_sleep)(void *ctx);
    void *ctx;
};
void pn_loop_set_sleep_hooks(struct pn_loop *loop, const struct pn_sleep_hooks *hooks);

/* FN is called by the owner when a turn is over, and when the loop will sleep, also beside a core's own wait: plain
 * C, attached or not, that touches neither Python nor the loop. Nothing waits for it: what is left for it is
 * not work that the loop has. NULL takes it off. */
void pn_loop_set_turn_over(struct pn_loop *loop, void (*fn)(void *ctx), void *ctx);

/* Monotonic time as of the last wait or pn_loop_update_now: what deadlines are computed from. */
int64_t pn_loop_now_ns(const struct pn_loop *loop);
int64_t pn_loop_update_now(struct pn_loop *loop);

/* The poller, for poll(2) beside an fd of a core's own (poller->fd). Borrowed. */
struct pn_poller *pn_loop_poller(struct pn_loop *loop);
/* Brackets such a poll(2). begin: false when the loop has something to do, then the caller must
 * not wait for it; else *DEADLINE_NS is the loop's next (or PN_NEVER_NS), and until end a
 * message, a stop, a task or an earlier timer wakes the poller, which makes its fd readable. */
bool pn_loop_sleep_begin(struct pn_loop *loop, int64_t *deadline_ns);
void pn_loop_sleep_end(struct pn_loop *loop);

/* True when a turn has something to do before it would sleep. Owner only. */
bool pn_loop_has_work(const struct pn_loop *loop);

/* Work of a phase that other rooms bring: HOME (gateway: asyncio) and ACCEPT (net). step does one
 * unit; it is called at most BUDGET times a turn while pending says true, which also keeps the loop
 * from sleeping. */
enum pn_phase {
    PN_PHASE_HOME = 0,
    PN_PHASE_ACCEPT = 1,
    PN_PHASE_HANDLERS = 2, /* how many */
};
struct pn_phase_handler {
    bool (*pending)(void *ctx);
    void (*step)(void *ctx);
    void *ctx;
    unsigned budget;
};
void pn_loop_set_phase(struct pn_loop *loop, enum pn_phase phase, const struct pn_phase_handler *h);

/* How many events the turn under way began with, and which turn it is. */
unsigned pn_loop_turn_events(const struct pn_loop *loop);
uint64_t pn_loop_turn(const struct pn_loop *loop);

/* Figures of the loop, ever growing. */
struct pn_loop_stats {
    uint64_t turns;
    uint64_t events;
    uint64_t stale_events; /* dropped: their watch had gone */
    uint64_t timers_fired;
    uint64_t wakes;
};
void pn_loop_stats(const struct pn_loop *loop, struct pn_loop_stats *out);

/* Child of a fork: the loop is dead (steps report STOPPED), its descriptors are closed, the
 * parent's epoll set is not touched. */
void pn_loop_after_fork_child(struct pn_loop *loop);

/* --- Descriptors ------------------------------------------------------------------------------ */

/* One waiter on one fd, embedded in its owner. Several watches may stand on one fd: the loop
 * keeps one registration for them, with a generation, so that an event fetched for an fd that
 * was closed and reused meanwhile is dropped.
 *
 * With EPOLLET in EVENTS the watch stays until removed and ready is called once an edge
 * (connections: register once with EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, never modify).
 * With EPOLLONESHOT it is taken off before ready is called, level-triggered (a core's wait).
 * Neither: level-triggered and stays (listeners, asyncio's add_reader; EPOLLEXCLUSIVE may be
 * added). A wake-up may be stale: a waiter checks its fd itself. A level-triggered watch must be
 * removed before its fd is closed. */
struct pn_watch {
    struct pn_list node;
    int fd; /* -1: not watched */
    uint32_t events;
    void (*ready)(struct pn_watch *watch, uint32_t revents);
};

/* revents of a watch whose fd was closed under it (pn_loop_fd_closed). */
#define PN_WATCH_CLOSED (UINT32_C(1) << 26)

static inline void pn_watch_init(struct pn_watch *w, void (*ready)(struct pn_watch *, uint32_t))
{
    pn_list_init(&w->node);
    w->fd = -1;
    w->events = 0;
    w->ready = ready;
}

/* 0, -EPERM (a regular file: always ready), -EBADF, -ENOMEM, -ENOSPC. */
int pn_watch_add(struct pn_loop *loop, struct pn_watch *watch, int fd, uint32_t events);
/* Harmless when not watched. The fd may be closed right after. */
void pn_watch_remove(struct pn_loop *loop, struct pn_watch *watch);
/* The fd is about to be closed, or replaced by dup2: its waiters are taken off now and called
 * with PN_WATCH_CLOSED in the RESUMED phase (not from inside this call); later events of the old
 * registration are dropped. Cheap for an fd that was never watched. */
void pn_loop_fd_closed(struct pn_loop *loop, int fd);
/* Afterwards, when only a guess is left of which fd it was: FIRST and every STEP-th after it. Those that the kernel
 * no longer watches, or that mean another file now, are treated as by pn_loop_fd_closed. */
void pn_loop_fds_check(struct pn_loop *loop, int first, int step);

/* --- Time ------------------------------------------------------------------------------------- */

/* A point in time. Equal deadlines fire in the order in which they were set. One that is due after all that were set
 * before it, as the next of many waits of one length is, costs a few instructions; others stand in a heap. */
struct pn_timer {
    int64_t deadline_ns;
    uint64_t sequence;
    size_t heap_pos;     /* 0: not set */
    struct pn_list node; /* while it doesn't stand in the heap */
    void (*fire)(struct pn_timer *timer);
};

static inline void pn_timer_init(struct pn_timer *t, void (*fire)(struct pn_timer *))
{
    *t = (struct pn_timer){.fire = fire};
}

static inline bool pn_timer_is_set(const struct pn_timer *t)
{
    return t->heap_pos != 0;
}

/* Sets or moves. 0 or -ENOMEM. The timer is off before fire is called. */
int pn_timer_set(struct pn_loop *loop, struct pn_timer *timer, int64_t deadline_ns);
void pn_timer_cancel(struct pn_loop *loop, struct pn_timer *timer);
/* The earliest deadline of all, PN_NEVER_NS without one. */
int64_t pn_loop_next_deadline_ns(const struct pn_loop *loop);
/* The timer that has it, NULL without one: for whoever goes on with what it stands for, or fetches it. */
struct pn_timer *pn_loop_next_timer(const struct pn_loop *loop);
/* The one that comes after TIMER (NULL: the first of them) among those that don't stand in the heap, whose deadlines
 * may lie between; NULL when there is none, or TIMER is one of those. */
struct pn_timer *pn_loop_timer_after(const struct pn_loop *loop, const struct pn_timer *timer);
/* No more timers in this turn: a look for events comes first. */
void pn_loop_rest_timers(struct pn_loop *loop);

/* Time-outs of many objects with one span (a connection state's): a FIFO list a class, and one
 * timer for it that is moved lazily. Starting one, also one that runs, puts it at the list's
 * end: a dozen instructions, no heap. */
struct pn_timeout {
    struct pn_list node;
    int64_t deadline_ns;
};
struct pn_timeout_class {
    struct pn_list list;
    struct pn_timer timer;
    struct pn_loop *loop;
    int64_t span_ns;
    void (*expired)(struct pn_timeout *timeout); /* it is off the list when called */
};

/* SPAN_NS <= 0: this class never expires anything. */
void pn_timeout_class_init(struct pn_timeout_class *c, struct pn_loop *loop, int64_t span_ns,
                           void (*expired)(struct pn_timeout *));
void pn_timeout_class_fini(struct pn_timeout_class *c);
static inline void pn_timeout_init(struct pn_timeout *t)
{
    pn_list_init(&t->node);
    t->deadline_ns = PN_NEVER_NS;
}
/* From now (pn_loop_now_ns) on. A timeout stands in one class at most: stop it before it
 * changes. */
void pn_timeout_start(struct pn_timeout_class *c, struct pn_timeout *t);
static inline void pn_timeout_stop(struct pn_timeout *t)
{
    pn_list_remove(&t->node);
}

/* --- Tasks, flushes, closings, messages ------------------------------------------------------ */

/* Work to do soon, embedded in its owner. Posting one that is posted already changes nothing. */
struct pn_task {
    struct pn_list node;
    void (*run)(struct pn_task *task);
};

static inline void pn_task_init(struct pn_task *t, void (*run)(struct pn_task *))
{
    pn_list_init(&t->node);
    t->run = run;
}

/* Runs in the RESUMED phase, first in first out; what is posted meanwhile waits for the next
 * turn. */
void pn_task_post(struct pn_loop *loop, struct pn_task *task);
/* Runs once in this turn's FLUSH phase: output gathered during the turn leaves there. */
void pn_task_post_flush(struct pn_loop *loop, struct pn_task *task);
/* Takes it off whichever list it stands on. */
static inline void pn_task_cancel(struct pn_task *t)
{
    pn_list_remove(&t->node);
}

/* Two-phase close: the object is dead now, and freed by fn at the end of the turn, when no frame of
 * this turn can still hold it. */
struct pn_closing {
    struct pn_list node;
    void (*free)(struct pn_closing *closing);
};
void pn_loop_close_later(struct pn_loop *loop, struct pn_closing *closing,
                         void (*free_fn)(struct pn_closing *));
/* Frees at once: for who takes down what it belongs to, when no turn comes any more. */
void pn_loop_free_closed(struct pn_loop *loop);

/* From any thread: MESSAGE is owned by the loop until deliver is called by the loop's owner, in
 * the RESUMED phase, in the order of sending by one thread. Wakes a sleeping loop. Never
 * allocates, never blocks. */
struct pn_message {
    struct pn_message *next;
    void (*deliver)(struct pn_message *message);
};
void pn_message_send(struct pn_loop *loop, struct pn_message *message);
/* Owner, outside of a step: delivers all that was sent so far and by deliver itself. For the end, when no step follows
 * any more. */
void pn_loop_deliver(struct pn_loop *loop);

/* --- Signals ---------------------------------------------------------------------------------- */

/* Installs a handler (sigaction, SA_RESTART not set; the mask is never changed) that makes the
 * loop call fn once per delivery burst, in the RESUMED phase. One loop of a process may watch a
 * given signal. FN NULL restores what was there before. 0 or negative errno. */
int pn_signal_watch(struct pn_loop *loop, int signo, void (*fn)(void *ctx, int signo), void *ctx);
/* Restores every handler that this loop installed. */
void pn_signal_unwatch_all(struct pn_loop *loop);

/* SPDX-License-Identifier: Apache-2.0 */
/* The turn: phases one after the other, one unit of work a step, and the sleep between turns.
 * The loop is made by the worker and given to whoever owns the baton (docs/lifecycle.md). */
#include "loop/loop.h"

#include <stdlib.h>

#include "base/mem.h"
#include "loop/loop_state.h"

/* Looks in a row without a sleep: then one real wait gives other Python threads the GIL. */
enum { LOOKS_MAX = 64 };
/* Sleeps from one look without a reason to the next, at first and at most. */
enum { LOOK_PAUSE_MIN = 7, LOOK_PAUSE_MAX = 63 };

struct pn_loop *pn_loop_create(struct pn_poller *poller)
{
    struct pn_loop *loop = pn_xcalloc(1, sizeof(*loop));
    loop->magic = PN__LOOP_MAGIC;
    loop->phase = PN__TURN_SLEEP;
    loop->poller = poller;
    loop->now_ns = poller->now_ns(poller);
    loop->look_in = loop->look_pause = LOOK_PAUSE_MIN;
    pn_list_init(&loop->line);
    pn_list_init(&loop->fired);
    pn_list_init(&loop->tasks);
    pn_list_init(&loop->tasks_now);
    pn_list_init(&loop->flushes);
    pn_list_init(&loop->flushes_now);
    pn_list_init(&loop->closings);
    return loop;
}

void pn_loop_destroy(struct pn_loop *loop)
{
    PN_CHECK_MAGIC(loop, PN__LOOP_MAGIC);
    pn_signal_unwatch_all(loop);
    pn_loop_free_closed(loop);
    PN_ASSERT(loop->watches == 0);
    PN_ASSERT(loop->heap_count == 0 && loop->line_count == 0);
    PN_ASSERT(pn_list_empty(&loop->fired));
    PN_ASSERT(pn_list_empty(&loop->tasks) && pn_list_empty(&loop->tasks_now));
    PN_ASSERT(pn_list_empty(&loop->flushes) && pn_list_empty(&loop->flushes_now));
    loop->poller->destroy(loop->poller);
    free(loop->fds);
    free(loop->heap);
    loop->magic = 0;
    free(loop);
}

/* --- Sleeping -------------------------------------------------------------------------------- */

void pn__loop_wake(struct pn_loop *loop)
{
    /* Whoever takes the flag down wakes: one system call a sleep, however many messages come. */
    if (!atomic_exchange(&loop->sleeping, false))
        return;
    atomic_fetch_add_explicit(&loop->wakes, 1, memory_order_relaxed);
    loop->poller->wake(loop->poller);
}

static bool arrived(struct pn_loop *loop)
{
    return atomic_load(&loop->inbox) || atomic_load(&loop->signalled) ||
           atomic_load(&loop->stopping);
}

static void turn_over(const struct pn_loop *loop)
{
    if (loop->turn_over)
        loop->turn_over(loop->turn_over_ctx);
}

bool pn_loop_sleep_begin(struct pn_loop *loop, int64_t *deadline_ns)
{
    if (pn_loop_has_work(loop))
        return false;
    turn_over(loop);
    *deadline_ns = loop->sleep_deadline_ns = pn_loop_next_deadline_ns(loop);
    /* A sender publishes and then looks at the flag; here it is the other way round, so that one
     * of the two always sees the other (both orders are sequentially consistent). */
    atomic_store(&loop->sleeping, true);
    if (arrived(loop)) {
        atomic_store(&loop->sleeping, false);
        return false;
    }
    return true;
}

void pn_loop_sleep_end(struct pn_loop *loop)
{
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
}

static int poll_events(struct pn_loop *loop, int64_t deadline_ns)
{
    int n = loop->poller->wait(loop->poller, loop->events, PN_TURN_EVENTS_MAX, deadline_ns);
    if (pn_unlikely(n < 0))
        PN_WRONG(
            "the loop's epoll set is gone: somebody has closed a descriptor that is not theirs");
    return n;
}

static int sleep_until_event(struct pn_loop *loop)
{
    int64_t deadline_ns;
    if (!pn_loop_sleep_begin(loop, &deadline_ns))
        return poll_events(loop, PN__LOOK_NS);
    loop->looks = 0;
    if (loop->hooks.before_sleep)
        loop->hooks.before_sleep(loop->hooks.ctx);
    int n = poll_events(loop, deadline_ns);
    if (loop->hooks.after_sleep)
        loop->hooks.after_sleep(loop->hooks.ctx);
    pn_loop_sleep_end(loop);
    return n;
}

static void begin_turn(struct pn_loop *loop, int events)
{
    loop->now_ns = loop->poller->now_ns(loop->poller);
    loop->event_pos = 0;
    loop->event_count = events;
    loop->event_left = 0;
    loop->busy = events > 1;
    loop->stats.events += (uint64_t)events;
    loop->stats.turns++;
    pn__message_collect(loop);
    pn_list_splice_back(&loop->tasks_now, &loop->tasks);
}

/* Under load a look brings the next events, so that the GIL and the baton stay where they are; with
 * little to do the look would only be one more system call before each sleep. Whether it is worth it is
 * seen by trying: after several events at once, after a look that brought some, and now and then. */
static bool worth_a_look(const struct pn_loop *loop)
{
    return (loop->busy || loop->look_in == 0) && loop->looks < LOOKS_MAX;
}

static void look_was(struct pn_loop *loop, bool good)
{
    loop->look_pause = good ? 0 : pn_min_size(loop->look_pause * 2 + 1, LOOK_PAUSE_MAX);
    loop->look_in = loop->look_pause;
}

static void end_turn(struct pn_loop *loop)
{
    int n = 0;
    turn_over(loop);
    bool has_work = pn_loop_has_work(loop);
    if (has_work || worth_a_look(loop)) {
        loop->looks++;
        n = poll_events(loop, PN__LOOK_NS);
        if (!has_work)
            look_was(loop, n > 0);
    }
    if (n == 0 && !has_work) {
        if (loop->look_in > 0)
            loop->look_in--;
        n = sleep_until_event(loop);
    }
    begin_turn(loop, n);
}

/* --- The turn -------------------------------------------------------------------------------- */

static bool handler_step(struct pn_loop *loop, enum pn_phase which)
{
    const struct pn_phase_handler *h = &loop->handlers[which];
    if (!h->step || loop->phase_done >= h->budget || !h->pending(h->ctx))
        return false;
    loop->phase_done++;
    h->step(h->ctx);
    return true;
}

static bool resumed_step(struct pn_loop *loop)
{
    if (pn_unlikely(atomic_load_explicit(&loop->signalled, memory_order_relaxed)) &&
        pn__signal_step(loop))
        return true;
    return pn__watch_fired_step(loop) || pn__message_step(loop) || pn__task_step(&loop->tasks_now);
}

static bool phase_step(struct pn_loop *loop)
{
    switch (loop->phase) {
    case PN__TURN_RESUMED:
        return resumed_step(loop);
    case PN__TURN_EVENTS:
        return pn__watch_step(loop);
    case PN__TURN_TIMERS:
        return pn__timer_step(loop);
    case PN__TURN_HOME:
        return handler_step(loop, PN_PHASE_HOME);
    case PN__TURN_ACCEPT:
        return handler_step(loop, PN_PHASE_ACCEPT);
    case PN__TURN_FLUSH:
        if (loop->phase_done++ == 0)
            pn_list_splice_back(&loop->flushes_now, &loop->flushes);
        return pn__task_step(&loop->flushes_now);
    case PN__TURN_CLOSE:
        return pn__closing_step(loop);
    case PN__TURN_SLEEP:
        return false;
    }
    PN_WRONG("a turn has no other phase");
}

static __attribute__((noinline)) void turn_step(struct pn_loop *loop)
{
    while (!phase_step(loop)) {
        loop->phase_done = 0;
        if (loop->phase != PN__TURN_SLEEP) {
            loop->phase++;
            continue;
        }
        end_turn(loop);
        loop->phase = PN__TURN_RESUMED;
        return;
    }
}

enum pn_step pn_loop_step(struct pn_loop *loop)
{
    PN_CHECK_MAGIC(loop, PN__LOOP_MAGIC);
    if (pn_unlikely(atomic_load_explicit(&loop->stopping, memory_order_acquire)))
        return PN_STEP_STOPPED;
    /* Nearly every step is an event's: it is asked for first. */
    if (pn_likely(loop->phase == PN__TURN_EVENTS) && pn__watch_step(loop))
        return PN_STEP_AGAIN;
    turn_step(loop);
    return PN_STEP_AGAIN;
}

/* --- Asking and telling ---------------------------------------------------------------------- */

bool pn_loop_has_work(const struct pn_loop *loop)
{
    if (loop->event_pos < loop->event_count || !pn_list_empty(&loop->fired) || loop->messages ||
        !pn_list_empty(&loop->tasks) || !pn_list_empty(&loop->tasks_now) ||
        !pn_list_empty(&loop->flushes) || !pn_list_empty(&loop->flushes_now) ||
        !pn_list_empty(&loop->closings))
        return true;
    if (atomic_load_explicit(&loop->inbox, memory_order_relaxed) ||
        atomic_load_explicit(&loop->signalled, memory_order_relaxed))
        return true;
    for (int i = 0; i < PN_PHASE_HANDLERS; i++) {
        const struct pn_phase_handler *h = &loop->handlers[i];
        if (h->step && h->pending(h->ctx))
            return true;
    }
    return pn_loop_next_deadline_ns(loop) <= loop->now_ns;
}

void pn_loop_stop(struct pn_loop *loop)
{
    atomic_store(&loop->stopping, true);
    if (atomic_load(&loop->sleeping))
        pn__loop_wake(loop);
}

void pn_loop_resume(struct pn_loop *loop)
{
    if (!loop->dead)
        atomic_store(&loop->stopping, false);
}

bool pn_loop_stopping(const struct pn_loop *loop)
{
    return atomic_load_explicit(&loop->stopping, memory_order_acquire);
}

void pn_loop_set_sleep_hooks(struct pn_loop *loop, const struct pn_sleep_hooks *hooks)
{
    loop->hooks = hooks ? *hooks : (struct pn_sleep_hooks){0};
}

void pn_loop_set_turn_over(struct pn_loop *loop, void (*fn)(void *ctx), void *ctx)
{
    loop->turn_over = fn;
    loop->turn_over_ctx = ctx;
}

void pn_loop_set_phase(struct pn_loop *loop, enum pn_phase phase, const struct pn_phase_handler *h)
{
    PN_ASSERT(phase < PN_PHASE_HANDLERS);
    PN_ASSERT(!h || (h->step && h->pending && h->budget > 0));
    loop->handlers[phase] = h ? *h : (struct pn_phase_handler){0};
}

int64_t pn_loop_now_ns(const struct pn_loop *loop)
{
    return loop->now_ns;
}

int64_t pn_loop_update_now(struct pn_loop *loop)
{
    return loop->now_ns = loop->poller->now_ns(loop->poller);
}

unsigned pn_loop_turn_events(const struct pn_loop *loop)
{
    return (unsigned)loop->event_count;
}

uint64_t pn_loop_turn(const struct pn_loop *loop)
{
    return loop->stats.turns;
}

struct pn_poller *pn_loop_poller(struct pn_loop *loop)
{
    return loop->poller;
}

void pn_loop_stats(const struct pn_loop *loop, struct pn_loop_stats *out)
{
    *out = loop->stats;
    out->wakes = atomic_load_explicit(&loop->wakes, memory_order_relaxed);
}

void pn_loop_after_fork_child(struct pn_loop *loop)
{
    /* The handlers first: they would write to a descriptor that is about to close. */
    pn__signal_after_fork_child();
    pn_signal_unwatch_all(loop);
    loop->dead = true;
    atomic_store(&loop->stopping, true);
    loop->poller->after_fork_child(loop->poller);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The fiber carrier: each core is a stack of its own, all on home's OS thread; whoever runs owns the loop.
 *
 *   base: loop step, request ... wait -> parked: an idle fiber (or a new one) goes on at its base
 *    ^                                    |
 *    |                                 resume: put on cores->resumed
 *    +--- idle: switched to a resumed  <--+   the fiber that is at its base then switches to it
 *         core, or home, from its base
 *
 * Nothing is switched to from inside a callback of the loop: callbacks only put cores on the resumed list, and the
 * base looks there between two steps. So an idle fiber always stands at its own base, holds nothing, and
 * new ones begin on an empty stack. Home never runs the loop: it stands in run() and is switched to for its
 * work and at the end.
 *
 * Every switch is made detached; a core attaches itself again when it is back at its base. */
#include <sched.h>
#include <string.h>

#include "base/log.h"
#include "cores/cores_impl.h"
#include "cores/overflow.h"

/* Stacks kept of fibers that have left. */
enum { STACKS_KEPT = 64, TRIM_MAX = 64 };

#define NOT_RESUMED (-1000) /* core->reason before anything happened */

/* What is fetched of the fibers that go on next, in bytes: the part of a core that a sleep touches, and as much of
 * the stack as it has come back from at its base. */
enum { CORE_FETCHED = 192, STACK_FETCHED = 1792, FETCH_STEPS = 4 };
PN_STATIC_ASSERT(offsetof(struct pn_core, leaving) <= CORE_FETCHED, "see struct pn_core");

static void fiber_main(void *arg);
static void time_over(struct pn_timer *timer);

/* --- Resuming ---------------------------------------------------------------------------------------- */

static inline bool is_parked(const struct pn_core *core)
{
    return atomic_load_explicit(&core->parked, memory_order_relaxed);
}

/* The watchdog's look is a guess, so that no order is due. */
static inline void set_parked(struct pn_core *core, bool parked)
{
    atomic_store_explicit(&core->parked, parked, memory_order_relaxed);
}

/* Owner. The first reason counts. */
static void resume(struct pn_core *core, int reason)
{
    if (!is_parked(core))
        return;
    set_parked(core, false);
    core->reason = reason;
    pn_list_push_back(&core->cores->resumed, &core->node);
}

static void fd_ready(struct pn_watch *watch, uint32_t revents)
{
    struct pn_core *core = pn_container_of(watch, struct pn_core, watch);
    resume(core, revents & PN_WATCH_CLOSED ? -EBADF : PN_WAIT_READY);
}

static void fetch(const struct pn_core *core, unsigned step)
{
    if (step == 0) {
        pn_prefetch(core, CORE_FETCHED);
        return;
    }
    const struct pn_core_host *host = core->cores->host;
    if (step == FETCH_STEPS - 1)
        pn_prefetch(core->fiber.sp, STACK_FETCHED);
    if (host->fetch)
        host->fetch(host->ctx, core->state, core->request, step);
}

/* The timers that fire next are most likely fibers', too, and everything of theirs has long left the near caches. It
 * is on its way while this one goes on, a step each time that one fires. */
static void fetch_next(const struct pn_loop *loop)
{
    const struct pn_timer *timer = NULL;
    for (unsigned step = FETCH_STEPS; step-- > 0;) {
        timer = pn_loop_timer_after(loop, timer);
        if (!timer)
            return;
        /* FETCH reads nothing of a core at step 0: of that, only the address is known to be near. */
        if (step > 0 && timer->fire != time_over)
            return;
        fetch(pn_container_of(timer, const struct pn_core, timer), step);
    }
}

static void time_over(struct pn_timer *timer)
{
    struct pn_core *core = pn_container_of(timer, struct pn_core, timer);
    fetch_next(core->cores->loop);
    resume(core, PN_WAIT_TIMEOUT);
}

static void turn_over(struct pn_task *task)
{
    resume(pn_container_of(task, struct pn_core, yield_task), PN_WAIT_READY);
}

/* Something happened to this core in another thread: what, its own words say. */
static void told(struct pn_message *message)
{
    struct pn_core *core = pn_container_of(message, struct pn_core, message);
    /* First, so that whatever comes from now on sends again. */
    atomic_exchange(&core->message_sent, false);
    uint64_t w = atomic_load_explicit(&core->wait, memory_order_acquire);
    if (!is_parked(core))
        return;
    if ((w & ((1u << PN__WAIT_BITS) - 1)) == PN__WAIT_WOKEN)
        resume(core, PN_WAIT_READY);
    else if (pn__wait_take_cut(core))
        resume(core, PN_WAIT_CUT);
}

static void tell(struct pn_core *core)
{
    if (!atomic_exchange(&core->message_sent, true))
        pn_message_send(core->cores->loop, &core->message);
}

static void wake(struct pn_core *core)
{
    const struct pn_core *self = pn__core_self;
    if (self && self->cores == core->cores)
        resume(core, PN_WAIT_READY);
    else
        tell(core);
}

/* --- Switching ---------------------------------------------------------------------------------------- */

/* Says who runs from now on. */
static void announce(struct pn_core *to)
{
    struct pn_cores *cores = to->cores;
    pn__core_self = to;
    pn__baton_move(&cores->baton, to->number, to->inside ? PN__BATON_INSIDE : PN__BATON_ACTIVE);
    atomic_store_explicit(&cores->switches,
                          atomic_load_explicit(&cores->switches, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static void release(struct pn_core *core)
{
    pn__fiber_fini(&core->fiber);
    pn__stack_put(&core->cores->stacks, &core->stack);
    pn__core_retire(core);
}

/* Detached. Comes back when somebody switches to FROM. */
static void switch_to(struct pn_core *from, struct pn_core *to)
{
    struct pn_cores *cores = from->cores;
    announce(to);
    if (cores->regions.count)
        pn__fiber_memory_save(&cores->regions, &from->memory);
    pn__fiber_switch(&from->fiber, &to->fiber);
    if (cores->regions.count)
        pn__fiber_memory_restore(&cores->regions, &from->memory);
    if (pn_unlikely(cores->ended)) {
        struct pn_core *ended = cores->ended;
        cores->ended = NULL;
        release(ended);
    }
}

/* Detached, for the last time. */
PN_NORETURN static void leave(struct pn_core *core)
{
    struct pn_core *to = core->return_to;
    core->cores->ended = core;
    announce(to);
    /* For the next fiber on this struct. */
    pn__fiber_memory_save(&core->cores->regions, &core->memory);
    pn__fiber_leave(&core->fiber, &to->fiber);
}

/* Once a struct: a message of its former life may still be on its way. */
static void init_waits(struct pn_core *core)
{
    pn_watch_init(&core->watch, fd_ready);
    pn_timer_init(&core->timer, time_over);
    pn_task_init(&core->yield_task, turn_over);
    core->message.deliver = told;
}

/* A core whose fiber begins when it is switched to; NULL: none can be had. */
static struct pn_core *fiber_new(struct pn_cores *cores)
{
    struct pn_core *core = pn__core_new(cores);
    int rc = core ? pn__stack_get(&cores->stacks, &core->stack) : -ENOMEM;
    if (rc < 0) {
        if (core)
            pn__core_retire(core);
        pn__cores_complain(cores, rc);
        return NULL;
    }
    pn__fiber_init(&core->fiber, pn__stack_base(&cores->stacks, &core->stack),
                   pn__stack_usable(&cores->stacks), fiber_main, core);
    core->inside = false;
    set_parked(core, false);
    core->os_thread = cores->home->os_thread;
    if (!core->message.deliver)
        init_waits(core);
    return core;
}

static struct pn_core *next_runner(struct pn_cores *cores)
{
    struct pn_core *core = pn__idle_pop(cores);
    return core ? core : fiber_new(cores);
}

/* --- At the base ----------------------------------------------------------------------------------------- */

/* Attached, at its base: idle until somebody switches back. */
static void idle_for(struct pn_core *core, struct pn_core *to)
{
    core->inside = false;
    pn__idle_push(core);
    pn__detach(core);
    switch_to(core, to);
    pn__attach(core);
}

static void trim_later(struct pn_cores *cores)
{
    cores->idle_low = cores->idle_count;
    if (!pn_timer_is_set(&cores->trim_timer) && cores->idle_count > PN_CORE_IDLE_KEEP)
        (void)pn_timer_set(cores->loop, &cores->trim_timer,
                           pn_deadline_ns(pn_loop_now_ns(cores->loop), cores->trim_span_ns));
}

static void trim_time(struct pn_timer *timer)
{
    struct pn_cores *cores = pn_container_of(timer, struct pn_cores, trim_timer);
    cores->trim_due = true;
}

/* The idle fiber that has been idle longest, told to end; NULL: none, or the watchdog looks at it. */
static struct pn_core *take_oldest(struct pn_cores *cores)
{
    struct pn_core *core = NULL;
    pn__lock_take(&cores->lock);
    if (!pn_list_empty(&cores->idle)) {
        core = pn_list_entry(cores->idle.prev, struct pn_core, node);
        atomic_store(&core->leaving, true);
        if (atomic_load(&core->watched)) {
            atomic_store(&core->leaving, false);
            core = NULL;
        } else {
            pn_list_remove(&core->node);
            cores->idle_count--;
        }
    }
    pn__lock_drop(&cores->lock);
    return core;
}

/* Detached. OLD ends on its own stack and comes back here. */
static void end_fiber(struct pn_core *by, struct pn_core *old)
{
    old->return_to = by;
    switch_to(by, old);
}

/* Ends those that nobody needed since the last look, but for a few. Attached, at the base. */
static void trim(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    unsigned spare = cores->idle_low < cores->idle_count ? cores->idle_low : cores->idle_count;
    cores->trim_due = false;
    /* Still set from where it parked last: those that end would announce it as inside. */
    core->inside = false;
    pn__detach(core);
    for (unsigned i = 0; i < TRIM_MAX && spare > PN_CORE_IDLE_KEEP; i++, spare--) {
        struct pn_core *old = take_oldest(cores);
        if (!old)
            break;
        end_fiber(core, old);
    }
    pn__attach(core);
    trim_later(cores);
}

static void idle_for_resumed(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    struct pn_core *to = pn_list_entry(pn_list_pop_front(&cores->resumed), struct pn_core, node);
    cores->resumed_run++;
    if (pn_unlikely(cores->idle_count > PN_CORE_IDLE_KEEP && !pn_timer_is_set(&cores->trim_timer)))
        trim_later(cores);
    idle_for(core, to);
}

/* Attached. Until the core is told to end. */
static void base(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    while (!atomic_load_explicit(&core->leaving, memory_order_relaxed)) {
        pn__core_settle_as_runner(core);
        if (!pn_list_empty(&cores->resumed)) {
            if (cores->resumed_run < PN_TURN_RESUMED_MAX) {
                idle_for_resumed(core);
                continue;
            }
            /* Two cores that wake each other in turns must not keep the loop from its events. */
            pn_task_post(cores->loop, &cores->nudge_task);
        }
        cores->resumed_run = 0;
        if (cores->home_due) {
            cores->home_due = false;
            idle_for(core, cores->home);
            continue;
        }
        if (cores->trim_due) {
            trim(core);
            continue;
        }
        enum pn_step step = pn_loop_step(cores->loop);
        if (pn_unlikely(step == PN_STEP_STOPPED || cores->end_wanted) &&
            pn__cores_end_reached(cores))
            idle_for(core, cores->home);
    }
}

/* The bottom of every fiber's stack. */
static void fiber_main(void *arg)
{
    struct pn_core *core = arg;
    struct pn_cores *cores = core->cores;
    const struct pn_core_host *host = cores->host;
    pn__fiber_begun(&core->fiber);
    pn__fiber_memory_restore(&cores->regions, &core->memory);
    int rc = host->state_new ? host->state_new(host->ctx, core, &core->state) : 0;
    if (rc < 0) {
        cores->stillborn = true;
        pn__cores_complain(cores, rc);
        leave(core);
    }
    pn__attach(core);
    base(core);
    pn__core_settle(core); /* its last request may have been the last of all */
    if (host->state_end)
        host->state_end(host->ctx, core->state);
    else
        pn__detach(core);
    leave(core);
}

/* --- On home --------------------------------------------------------------------------------------------- */

static int start(struct pn_cores *cores)
{
    int rc = pn__stack_pool_init(&cores->stacks, cores->config.stack_size, STACKS_KEPT);
    if (rc < 0)
        return rc;
    pn_timer_init(&cores->trim_timer, trim_time);
    pn__fiber_of_thread(&cores->home->fiber);
    init_waits(cores->home);
    struct pn__stack probe;
    rc = pn__stack_get(&cores->stacks, &probe);
    if (rc < 0)
        pn__stack_pool_fini(&cores->stacks);
    else
        pn__stack_put(&cores->stacks, &probe); /* the first fiber's */
    if (rc == 0)
        pn__overflow_watch();
    return rc;
}

/* Home stands here while fibers run. Detached; false when none can be had. */
static bool away_from_home(struct pn_core *home)
{
    struct pn_cores *cores = home->cores;
    struct pn_core *next = next_runner(cores);
    if (!next)
        return false;
    next->return_to = home;
    home->inside = false;
    switch_to(home, next);
    bool went = !cores->stillborn;
    cores->stillborn = false;
    return went;
}

static int run(struct pn_cores *cores)
{
    struct pn_core *home = cores->home;
    bool ran = false;
    for (;;) {
        pn__detach(home);
        bool went = away_from_home(home);
        pn__attach(home);
        if (!went) {
            if (!ran)
                return -EAGAIN;
            /* Others run: whoever let home go first is idle. So this is for want of memory, for a while. */
            sched_yield();
            continue;
        }
        ran = true;
        if (cores->finished)
            return 0;
        pn__core_settle_as_runner(home);
        pn__home_steps(cores);
    }
}

static void end(struct pn_cores *cores)
{
    struct pn_core *home = cores->home;
    struct pn_core *old;
    while ((old = take_oldest(cores)))
        end_fiber(home, old);
    /* Switches have moved the baton; the caller left it POLLING. */
    pn__baton_move(&cores->baton, home->number, PN__BATON_POLLING);
    pn_timer_cancel(cores->loop, &cores->trim_timer);
    pn__overflow_unwatch();
    pn__stack_pool_fini(&cores->stacks);
}

static bool quiet(struct pn_cores *cores)
{
    return cores->parked_count == 0 && pn_list_empty(&cores->resumed);
}

/* --- Waiting ----------------------------------------------------------------------------------------------- */

static void say_overtaken(struct pn_core *core)
{
    if (core->inside)
        pn_core_leave_app(core);
    pn__core_overtake(core);
    if (core->inside)
        pn_core_enter_app(core);
}

/* Detached. Gives the loop to another fiber until somebody resumes this one; its reason says why. False: there
 * is no other fiber to be had, and nothing has happened. */
static bool suspend(struct pn_core *core)
{
    struct pn_cores *cores = core->cores;
    const struct pn_core_host *host = cores->host;
    core->inside = !pn_core_is_runner(core);
    if (core->overtaken)
        say_overtaken(core);
    struct pn_core *next = next_runner(cores);
    if (pn_unlikely(!next)) {
        pn__cores_lower_limit(cores);
        return false;
    }
    set_parked(core, true);
    core->reason = NOT_RESUMED;
    next->return_to = core;
    cores->parked_count++;
    atomic_store_explicit(&cores->waiting, cores->parked_count, memory_order_relaxed);
    switch_to(core, next);
    cores->parked_count--;
    atomic_store_explicit(&cores->waiting, cores->parked_count, memory_order_relaxed);
    if (pn_unlikely(cores->stillborn)) {
        cores->stillborn = false;
        set_parked(core, false);
        pn__cores_lower_limit(cores);
        return false;
    }
    PN_ASSERT(core->reason != NOT_RESUMED);
    if (host->resumed)
        host->resumed(host->ctx, core->state);
    return true;
}

static void count_wait(struct pn_cores *cores)
{
    atomic_store_explicit(&cores->waits,
                          atomic_load_explicit(&cores->waits, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static int wait_fd(struct pn_core *core, int fd, uint32_t events, int64_t deadline_ns)
{
    struct pn_loop *loop = core->cores->loop;
    bool timed = deadline_ns != PN_NEVER_NS;
    pn__wait_private(core);
    if (pn__wait_take_cut(core))
        return PN_WAIT_CUT;
    int rc = pn_watch_add(loop, &core->watch, fd, events | EPOLLONESHOT);
    if (rc == -EPERM)
        return PN_WAIT_READY; /* a regular file */
    if (rc == -EBADF)
        return rc;
    bool watched = rc == 0;
    if (watched && timed && pn_timer_set(loop, &core->timer, deadline_ns) < 0)
        watched = false;
    count_wait(core->cores);
    bool parked = watched && suspend(core);
    pn_watch_remove(loop, &core->watch);
    pn_timer_cancel(loop, &core->timer);
    /* Out of memory for a watch or a fiber: the worker waits, but rightly. */
    return parked ? core->reason : pn__os_wait_fd(core, fd, events, deadline_ns);
}

static int sleep_until(struct pn_core *core, int64_t deadline_ns)
{
    struct pn_loop *loop = core->cores->loop;
    bool timed = deadline_ns != PN_NEVER_NS;
    pn__wait_private(core);
    if (pn__wait_take_cut(core))
        return PN_WAIT_CUT;
    count_wait(core->cores);
    bool parked = !timed || pn_timer_set(loop, &core->timer, deadline_ns) == 0;
    parked = parked && suspend(core);
    pn_timer_cancel(loop, &core->timer);
    return parked ? core->reason : pn__os_sleep_until(core, deadline_ns);
}

static int park(struct pn_core *core, uint32_t number, int64_t deadline_ns)
{
    struct pn_loop *loop = core->cores->loop;
    bool timed = deadline_ns != PN_NEVER_NS;
    uint64_t armed = pn__wait_word(number, PN__WAIT_ARMED);
    if (pn__wait_take_cut(core))
        return PN_WAIT_CUT;
    if (timed && pn_timer_set(loop, &core->timer, deadline_ns) < 0)
        return pn__os_park(core, number, deadline_ns);
    /* From here on a wake resumes. It may come from another thread before the switch: it is a message
     * then, and messages are delivered after it. */
    if (!atomic_compare_exchange_strong(&core->wait, &armed,
                                        pn__wait_word(number, PN__WAIT_PARKED))) {
        pn_timer_cancel(loop, &core->timer);
        return PN_WAIT_READY;
    }
    count_wait(core->cores);
    bool parked = suspend(core);
    pn_timer_cancel(loop, &core->timer);
    return parked ? core->reason : pn__os_park(core, number, deadline_ns);
}

static void yield(struct pn_core *core)
{
    struct pn_loop *loop = core->cores->loop;
    pn__wait_private(core);
    pn_task_post(loop, &core->yield_task);
    if (!suspend(core))
        pn_task_cancel(&core->yield_task);
}

static bool block_begin(struct pn_core *core, int fd, uint32_t events)
{
    (void)fd;
    (void)events;
    pn__blocking_begin(core);
    return true;
}

static void block_end(struct pn_core *core)
{
    pn__blocking_end(core);
    (void)pn__wait_take_cut(core);
}

/* Its wait may be a park of the fiber, or the one OS thread may really block in it. */
static void poke(struct pn_core *core)
{
    if (atomic_load(&core->blocking))
        pn__watchdog_signal(core);
    else
        tell(core);
}

const struct pn__carrier pn__carrier_fibers = {
    .start = start,
    .run = run,
    .end = end,
    .quiet = quiet,
    .wait_fd = wait_fd,
    .sleep_until = sleep_until,
    .park = park,
    .yield = yield,
    .block_begin = block_begin,
    .block_end = block_end,
    .wake = wake,
    .poke = poke,
};
